"""What `check` finds out about one source: about a dozen requests, each answer looked at from every
side. What the records themselves tell is in `records`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

from otel_alloy.alloy.cursor import Filter
from otel_alloy.alloy.models import BadRecord, Entry, Page, Record
from otel_alloy.alloy.on_demand import Client
from otel_alloy.alloy.query import Query
from otel_alloy.alloy.retry import Budget
from otel_alloy.alloy.source import AlloySource
from otel_alloy.alloy.timestamps import to_text
from otel_alloy.check.finding import NOTHING_TO_DO, Finding
from otel_alloy.check.observed import Observed
from otel_alloy.check.records import fields_finding, life_finding
from otel_alloy.check.times import times_finding
from otel_alloy.errors import AccessRefused, AlloyReceiverError, RequestRefused, Retry
from otel_alloy.pipeline.factory import open_source
from otel_alloy.pipeline.pace import Demand
from otel_alloy.runtime import Runtime
from otel_alloy.settings.models import SourceSettings

_LARGE = 1000
_FAR = 1_000_000
_FEW = 10


def alloy_findings(
    settings: SourceSettings,
    runtime: Runtime,
    budget: Budget,
    client: Client,
    seen: Observed | None = None,
) -> Iterator[Finding]:
    """All findings about this source; they end with the first request that fails. `seen`: is filled
    with what a report needs, which takes two requests more."""
    opened = open_source(settings, runtime, lambda event: None, budget, lambda: client, retry=False)
    with closing(opened) as source:
        examination = _Examination(source, settings, seen)
        try:
            for finding in examination.findings():
                if seen is not None:
                    seen.facts[finding.part] = finding.facts
                yield finding
        except AlloyReceiverError as error:
            if seen is not None:
                seen.error = type(error).__name__
                seen.retry_after = isinstance(error, Retry) and error.after is not None
            if source.answered:
                yield Finding(
                    "request",
                    "GET /logs",
                    False,
                    f"{error.problem}, after good answers with the same key and address",
                    "check again; `run` goes on asking, and says so until it passes",
                )
                return
            refused = isinstance(error, AccessRefused)
            yield Finding(
                "API key" if refused else "request",
                "GET /logs",
                False,
                error.problem,
                error.remedy or "try again; if it goes on, check ALLOY_ENDPOINT and the network",
                exit_code=3 if refused else 1,
            )
        finally:
            if seen is not None:
                seen.requests = source.requests
                seen.entries = examination.entries()


class _Examination:
    """Asks one source. Every record that comes is kept for what else it can tell."""

    def __init__(
        self, source: AlloySource, settings: SourceSettings, seen: Observed | None = None
    ) -> None:
        self._source = source
        self._settings = settings
        self._seen = seen
        self._sample: dict[tuple[str, str], Record] = {}
        self._bad: dict[tuple[str, str], BadRecord] = {}

    def entries(self) -> list[Entry]:
        """All that came, each once."""
        return [*self._sample.values(), *self._bad.values()]

    def findings(self) -> Iterator[Finding]:
        """Everything, in the order in which it is found out. Raises what a request raises."""
        newest = self._keep(self._source.probe())
        yield Finding.of(
            "API key", "GET /logs, newest first", True, f"accepted by {self._settings.endpoint}"
        )
        yield self._clock_finding()
        yield self._newest_finding(newest)
        if not newest.received:
            return
        yield self._filter_finding()
        yield self._page_size_finding(newest)
        yield self._oldest_finding()
        wrapped, tried = newest.envelope, "looked at the shape of the answer"
        words = "the answer is wrapped in `data`" if wrapped else "none, as described"
        yield Finding.of("envelope", tried, True, words, envelope=wrapped)
        yield self._total_finding(newest)
        yield self._tie_finding()
        sample = list(self._sample.values())
        life, settings = life_finding(sample), self._settings
        yield life
        yield times_finding(
            sample,
            self._source.now(),
            int(settings.overlap * 1000),
            int(settings.overlap_max * 1000),
            separate=life.facts["lifecycle"] == "separate",
        )
        yield fields_finding(sample, len(self._bad))
        yield self._pace_finding(newest)
        if self._seen is not None:
            self._look_for_report(self._seen, newest.total)
        sent = self._source.requests
        yield Finding.of("cost", "", True, f"{sent} requests were sent", requests=sent)

    def _look(self, query: Query) -> Page:
        return self._keep(self._source.look(query))

    def _keep(self, page: Page) -> Page:
        self._bad.update((entry.identity, entry) for entry in page.bad)
        self._sample.update((record.identity, record) for record in page.records)
        return page

    def _look_for_report(self, seen: Observed, total: int | None) -> None:
        """What is not worth a finding: odd ways of paging, which nothing here relies on."""
        base = replace(self._source.base_query, limit=2)
        beyond = _FAR if total is None else max(total, 0) + 10
        try:
            seen.past_end = (
                "records come"
                if self._look(replace(base, skip=beyond)).received
                else "an empty page"
            )
        except RequestRefused:
            seen.past_end = "refused"
        try:
            page = self._look(replace(base, skip=3))
        except RequestRefused:
            return
        if page.received:
            at = page.pagination.currentPage if page.pagination else None
            words = {None: "not told as a whole number", 1: "always 1", 2: "rounded down"}
            seen.current_page = words.get(at, "another number")

    def _clock_finding(self) -> Finding:
        skew = self._source.clock.skew / 1000
        far = self._source.clock_words() is not None
        return Finding.of(
            "clock",
            "compared lastFetched and the header Date with this machine's clock",
            None if far else True,
            f"the API's clock and this machine's differ by {abs(skew):.1f} s",
            "set this machine's clock if it is wrong, else show this to Alloy's support; until "
            "then `run` goes by neither alone"
            if far
            else "",
            skew_seconds=skew,
        )

    def _newest_finding(self, newest: Page) -> Finding:
        tried = f"asked for the {self._source.base_query.limit} newest records"
        created = newest.created
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
        verdict = self._source.filter
        ok: bool | None = None
        if verdict is Filter.HONOURED:
            ok, words, advice = True, "honoured; each page costs one request", ""
        elif verdict is Filter.UNKNOWN:
            words, advice = "too few records to tell", f"{NOTHING_TO_DO}, `run` finds out by itself"
        else:
            words = f"{verdict.value}; `run` reads newest first instead, which costs more requests"
            advice = "run it without long pauses; after one it reads everything since"
        tried = "asked for the newest record's millisecond"
        name = verdict.name.lower()
        return Finding.of("createdAt filter", tried, ok, words, advice, filter=name)

    def _page_size_finding(self, newest: Page) -> Finding:
        part, tried = "page size", f"asked for {_LARGE:,} records in one request"
        used = self._source.base_query.limit
        try:
            page = self._look(replace(self._source.base_query, limit=_LARGE, ascending=False))
        except RequestRefused as refusal:
            largest = newest.received
            advice = f"keep OTEL_ALLOY_PAGE_SIZE={used}, which is answered with {largest}"
            return Finding.of(
                part, tried, None, refusal.problem, advice, largest=largest, refused=True
            )
        came, total = page.received, page.total
        words = f"{came:,} came back"
        if came >= _LARGE:
            advice = f"set OTEL_ALLOY_PAGE_SIZE={_LARGE} to read a backlog in fewer requests"
            advice = advice if used < _LARGE else ""
            return Finding.of(part, tried, True, words, advice, largest=_LARGE)
        if total is not None and total <= came:
            words += ", which is all there are; too few to tell a limit"
            return Finding.of(part, tried, True, words, largest=None)
        advice = f"set OTEL_ALLOY_PAGE_SIZE={came} to read in fewer requests"
        if came <= used:
            words += ": the API clamps pages to that" if total else ", or clamped to that"
            advice = f"{NOTHING_TO_DO}, otel-alloy pages by what it receives"
        return Finding.of(part, tried, None, words, advice, largest=came)

    def _pace_finding(self, newest: Page) -> Finding:
        """Whether the request budget suffices for as many records as there were lately."""
        settings, times = self._settings, newest.created
        tried = f"looked at the times of the {len(times)} newest records"
        seconds = max((self._source.now() - min(times)) / 1000, 1.0) if times else 0.0
        if len(times) < _FEW:
            return Finding.of("request budget", tried, True, "too few records to tell")
        page = settings.page_size
        if newest.received < page and (newest.total or 0) > newest.received:
            page = newest.received
        demand = Demand(len(times) / seconds, page, settings.requests_per_minute)
        longest = settings.collection_interval
        interval = demand.interval(longest) if settings.adaptive else longest
        enough = not demand.tight
        return Finding.of(
            "request budget",
            tried,
            True if enough else None,
            demand.words(interval),
            "" if enough else "raise OTEL_ALLOY_REQUESTS_PER_MINUTE as far as Alloy allows",
            records_per_second=round(demand.rate, 2),
            requests_per_minute=round(demand.needed(interval), 1),
            interval_seconds=round(interval, 1),
        )

    def _oldest_finding(self) -> Finding:
        part, tried = "oldest record", "asked for one record, oldest first"
        known = [r.created for r in self._sample.values() if r.created is not None]
        created = self._look(self._source.base_query.limited(1)).created
        if not created or not known:
            return Finding.of(part, tried, None, "it has no createdAt")
        oldest = created[0]
        if oldest > min(known):
            return Finding.of(
                "sort order",
                tried,
                None,
                "the newest came: sortOrder is ignored, so the oldest cannot be told",
                f"{NOTHING_TO_DO}, `run` reads newest first, which costs more requests",
                sort_order="ignored",
            )
        days = (self._source.now() - oldest) / 86_400_000
        advice = "what is older cannot be had: never let `run` stand still for longer"
        return Finding.of(
            part,
            tried,
            True,
            f"from {to_text(oldest)}, {days:.1f} days ago",
            advice if days > 7 else "",
            oldest=to_text(oldest),
            days=round(days, 2),
        )

    def _total_finding(self, newest: Page) -> Finding:
        total, counts = newest.total, self._source.counts_matches
        if total is None:
            words = "the API does not tell it"
        elif counts is None:
            words = f"{total:,}; what it counts under a filter cannot be told"
        elif counts:
            words = f"{total:,} in all, fewer under a filter: it counts matches"
        else:
            words = f"{total:,} also under a filter: it does not count matches"
        facts = {"counts_matches": counts, "total_items": total}
        tried = "compared it with and without a filter"
        return Finding("totalItems", tried, True, words, facts=facts)

    def _tie_finding(self) -> Finding:
        """Two requests where there is a tie to look at; only where filters can ask for it."""
        part = "order of ties"
        runs = Counter(r.created for r in self._sample.values() if r.created is not None)
        tied = [created for created, count in runs.items() if count > 1]
        if not tied or self._source.filter is not Filter.HONOURED:
            words = f"{len(self._sample):,} records, no two with one createdAt; cannot be told"
            if tied:
                words = "not tried, as the filter cannot ask for one millisecond"
            return Finding.of(part, "looked for equal createdAt", True, words, ties=len(tied))
        moment = max(tied, key=lambda created: runs[created])
        query = replace(self._source.base_query, after=moment - 1, before=moment + 1)
        first, second = ([r.identity for r in self._look(query).records] for _ in range(2))
        same = first == second
        words = (
            "the same order both times" if same else "another order the second time; `run` copes"
        )
        tried = f"asked twice for {runs[moment]} records of one millisecond"
        return Finding.of(part, tried, True, words, ties=len(tied), stable=same)
