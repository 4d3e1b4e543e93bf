"""What `check` finds out about one source: about a dozen requests, each answer looked at from every
side. What the records themselves tell is in `records`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from otel_alloy.alloy.clock import ServerClock
from otel_alloy.alloy.models import Page, Record
from otel_alloy.alloy.query import Query
from otel_alloy.alloy.reader import Filter, Reader
from otel_alloy.alloy.retry import RequestBudget
from otel_alloy.alloy.timestamps import to_text
from otel_alloy.check.finding import NOTHING_TO_DO, Finding
from otel_alloy.check.records import fields_finding, life_finding
from otel_alloy.errors import AccessRefused, AlloyReceiverError, RequestRefused
from otel_alloy.pipeline.factory import open_client, scope
from otel_alloy.settings.models import SourceSettings

_LARGE = 1000


class Probe:
    """Asks one source. Every answer is kept for what else it can tell."""

    def __init__(self, source: SourceSettings) -> None:
        self._source = source
        self._clock = ServerClock()
        self._budget = RequestBudget(source.requests_per_minute, time.monotonic)
        self._client = open_client(source)
        self._scope = scope(source)
        self._reader = Reader(self._fetch, self._scope)
        self._answers: list[tuple[Query, Page]] = []
        self._records: dict[tuple[str, str], Record] = {}
        self._bad = 0
        self._requests = 0

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def findings(self) -> Iterator[Finding]:
        """All findings about this source; ends with the first request that fails."""
        part, exit_code = "request", 1
        failure: AlloyReceiverError
        try:
            newest = self._reader.probe()
            yield Finding.of(
                "API key", "GET /logs, newest first", True, f"accepted by {self._source.endpoint}"
            )
            yield self._clock_finding()
            yield self._newest_finding(newest)
            if not newest.received:
                return
            yield self._filter_finding()
            yield from self._page_size_findings(newest)
            yield from self._oldest_findings()
            yield self._envelope_finding(newest)
            yield self._total_finding(newest)
            yield from self._tie_finding()
            sample = list(self._records.values())
            yield life_finding(sample)
            yield fields_finding(sample, self._bad)
            yield Finding.of(
                "cost", "", True, f"{self._requests} requests were sent", requests=self._requests
            )
            return
        except AccessRefused as error:
            part, exit_code, failure = "API key", 3, error
        except AlloyReceiverError as error:
            failure = error
        yield Finding(
            part,
            "GET /logs",
            False,
            failure.problem,
            failure.remedy or "try again; if it goes on, check ALLOY_ENDPOINT and the network",
            exit_code,
        )

    def _fetch(self, query: Query) -> Page:
        time.sleep(self._budget.take())
        self._requests += 1
        page = self._client.fetch(query)
        self._clock.learn(page, int(time.time() * 1000))
        self._answers.append((query, page))
        self._bad += len(page.bad)
        for record in page.records:
            self._records[record.identity] = record
        return page

    def _clock_finding(self) -> Finding:
        skew = self._clock.skew / 1000
        far = abs(skew) > 60
        return Finding.of(
            "clock",
            "compared lastFetched and the header Date with this machine's clock",
            None if far else True,
            f"the API's clock and this machine's differ by {abs(skew):.1f} s",
            "the API's is used; set this machine's clock if it is wrong" if far else "",
            skew_seconds=skew,
        )

    def _newest_finding(self, newest: Page) -> Finding:
        tried = f"asked for the {self._scope.limit} newest records"
        created = [r.created for r in newest.records if r.created is not None]
        if not created and not newest.bad:
            return Finding.of(
                "records", tried, None, "the API has none yet", "run a workflow, then check again"
            )
        words = f"newest from {to_text(max(created))}" if created else "none has a createdAt"
        return Finding.of(
            "records",
            tried,
            None if newest.bad else True,
            words + (f"; {len(newest.bad)} cannot be read" if newest.bad else ""),
            "`run` sets them aside; see `otel-alloy rejected list`" if newest.bad else "",
            newest=to_text(max(created)) if created else None,
        )

    def _filter_finding(self) -> Finding:
        part, tried = "createdAt filter", "asked for the newest record's millisecond"
        verdict = self._reader.filter
        facts: dict[str, Any] = {"filter": verdict.name.lower()}
        if verdict is Filter.HONOURED:
            return Finding.of(part, tried, True, "honoured; each page costs one request", **facts)
        if verdict is Filter.UNKNOWN:
            return Finding.of(
                part,
                tried,
                None,
                "too few records to tell",
                f"{NOTHING_TO_DO}, `run` finds out by itself",
                **facts,
            )
        return Finding.of(
            part,
            tried,
            None,
            f"{verdict.value}; `run` reads newest first instead, which costs more requests",
            "run it without long pauses; after one it reads everything since",
            **facts,
        )

    def _page_size_findings(self, newest: Page) -> Iterator[Finding]:
        part, tried = "page size", f"asked for {_LARGE:,} records in one request"
        used = self._source.page_size
        try:
            page = self._fetch(replace(self._scope, limit=_LARGE, ascending=False))
        except RequestRefused as refusal:
            yield Finding.of(
                part,
                tried,
                None,
                refusal.problem,
                f"keep OTEL_ALLOY_PAGE_SIZE={used}, which is answered with {newest.received}",
                largest=newest.received,
            )
            return
        total = page.pagination.totalItems if page.pagination else None
        got = f"{page.received:,} came back"
        if page.received >= _LARGE:
            advice = f"set OTEL_ALLOY_PAGE_SIZE={_LARGE} to read a backlog in fewer requests"
            yield Finding.of(
                part, tried, True, got, advice if used < _LARGE else "", largest=_LARGE
            )
        elif total is not None and total <= page.received:
            words = f"{got}, which is all there are; too few to tell a limit"
            yield Finding.of(part, tried, True, words, largest=None)
        elif page.received > used:
            advice = f"set OTEL_ALLOY_PAGE_SIZE={page.received} to read in fewer requests"
            yield Finding.of(part, tried, None, got, advice, largest=page.received)
        else:
            yield Finding.of(
                part,
                tried,
                None,
                f"{got}: the API clamps pages to that" if total else f"{got}, or clamped to that",
                f"{NOTHING_TO_DO}, otel-alloy pages by what it receives",
                largest=page.received,
            )

    def _oldest_findings(self) -> Iterator[Finding]:
        tried = "asked for one record, oldest first"
        before = set(self._records)
        page = self._fetch(self._scope.limited(1))
        created = [r.created for r in page.records if r.created is not None]
        others = [self._records[i].created for i in before]
        known = [c for c in others if c is not None]
        if not created or not known:
            yield Finding.of("oldest record", tried, None, "it has no createdAt")
            return
        oldest = created[0]
        if oldest > min(known):
            yield Finding.of(
                "sort order",
                tried,
                None,
                "the newest came: sortOrder is ignored, so the oldest cannot be told",
                f"{NOTHING_TO_DO}, `run` reads newest first, which costs more requests",
                sort_order="ignored",
            )
            return
        days = (self._clock.now(int(time.time() * 1000)) - oldest) / 86_400_000
        yield Finding.of(
            "oldest record",
            tried,
            True,
            f"from {to_text(oldest)}, {days:.1f} days ago",
            "what is older cannot be had: never let `run` stand still for longer"
            if days > 7
            else "",
            oldest=to_text(oldest),
            days=round(days, 2),
        )

    def _envelope_finding(self, newest: Page) -> Finding:
        words = "the answer is wrapped in `data`" if newest.envelope else "none, as described"
        return Finding.of(
            "envelope",
            "looked at the shape of the answer",
            True,
            words,
            envelope=newest.envelope,
        )

    def _total_finding(self, newest: Page) -> Finding:
        part = "totalItems"
        tried = "compared it with and without a filter"
        whole = newest.pagination.totalItems if newest.pagination else None
        filtered = next(
            (
                p.pagination.totalItems
                for q, p in self._answers
                if q.after is not None and p.pagination is not None
            ),
            None,
        )
        counts = None
        if whole is None or filtered is None:
            words = "the API does not tell it"
        elif self._reader.filter is not Filter.HONOURED or whole <= 1:
            words = f"{whole:,}; what it counts under a filter cannot be told"
        elif filtered < whole:
            words, counts = (
                f"{whole:,} in all, {filtered:,} under a filter: it counts matches",
                True,
            )
        else:
            words, counts = f"{whole:,} also under a filter: it does not count matches", False
        return Finding.of(part, tried, True, words, counts_matches=counts, total_items=whole)

    def _tie_finding(self) -> Iterator[Finding]:
        """Two requests where there is a tie to look at; only where filters can ask for it."""
        part = "order of ties"
        runs = Counter(r.created for r in self._records.values() if r.created is not None)
        tied = [created for created, count in runs.items() if count > 1]
        if not tied or self._reader.filter is not Filter.HONOURED:
            words = f"{len(self._records):,} records, no two with one createdAt; cannot be told"
            if tied:
                words = "not tried, as the filter cannot ask for one millisecond"
            yield Finding.of(part, "looked for equal createdAt", True, words, ties=len(tied))
            return
        moment = max(tied, key=lambda created: runs[created])
        orders = []
        for _ in range(2):
            query = replace(self._scope, after=moment - 1, before=moment + 1)
            orders.append([r.identity for r in self._fetch(query).records])
        same = orders[0] == orders[1]
        yield Finding.of(
            part,
            f"asked twice for {runs[moment]} records of one millisecond",
            True,
            "the same order both times" if same else "another order the second time; `run` copes",
            ties=len(tied),
            stable=same,
        )
