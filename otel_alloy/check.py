"""`otel-alloy check`: tries each part once and says what came back and what to do.

Each line is one fact: what was tried, what came back, what to do. Nothing is stored and nothing is
retried; the request budget is kept; no execution is sent, and only `--send-test` sends anything at
all. What the vendor does not say of the API is told as far as a dozen requests can tell it.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from otel_alloy.alloy.client import AlloyClient
from otel_alloy.alloy.models import (
    STARTED,
    TERMINAL,
    Notification,
    Page,
    Record,
    read_notification,
)
from otel_alloy.alloy.pacing import RequestBudget
from otel_alloy.alloy.query import Query
from otel_alloy.alloy.reader import Filter, Reader, ServerClock
from otel_alloy.alloy.timestamps import to_ms, to_text
from otel_alloy.config import Settings, SourceSettings
from otel_alloy.errors import AccessRefused, AlloyReceiverError, RequestRefused
from otel_alloy.mapping import semconv
from otel_alloy.mapping.convert import Execution, Role
from otel_alloy.mapping.encode import Envelope
from otel_alloy.mapping.ids import execution_ids
from otel_alloy.otlp.answers import Signal
from otel_alloy.otlp.outcome import Kind, Outcome, Sender
from otel_alloy.otlp.senders import SIGNALS, VARIABLES, exporter_name, open_senders
from otel_alloy.otlp.settings import otlp_settings
from otel_alloy.receiver import USER_AGENT, converter
from otel_alloy.table import tolerant
from otel_alloy.version import __version__

TEST_NAME = "otel-alloy test"
"""The name of the span that `--send-test` sends."""

_LARGE = 1000
_SOON_MS = 1000
_NOTHING_TO_DO = "nothing to do"


@dataclass(frozen=True, slots=True)
class Finding:
    """`part`: of what; `tried`; `answer`: what came back; `remedy`: what to do, empty for nothing.

    `ok` is None for what is only worth knowing. `facts`: the same for programs. `exit_code` counts
    where `ok` is False.
    """

    part: str
    tried: str
    ok: bool | None
    answer: str
    remedy: str = ""
    exit_code: int = 1
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """The verdict in a word."""
        return {True: "ok", False: "FAIL", None: "note"}[self.ok]

    def line(self) -> str:
        """The finding on one line."""
        tried = f" ({self.tried})" if self.tried else ""
        remedy = f" -> {self.remedy}" if self.remedy else ""
        return f"{self.mark:<5} {self.part}: {self.answer}{tried}{remedy}"


def run_check(settings: Settings, *, send_test: bool, as_json: bool) -> int:
    """Shows the findings on standard output, each as soon as it is made; the exit code."""
    console = tolerant(Console(highlight=False))
    findings: list[Finding] = []
    for finding in check(settings, send_test=send_test):
        if console.is_terminal and not as_json:
            console.print(*_rows(finding, findings[-1] if findings else None), sep="\n")
        elif not as_json:
            print(finding.line(), flush=True)
        findings.append(finding)
    worst = max((f.exit_code for f in findings if f.ok is False), default=0)
    if as_json:
        shown = [
            {key: value for key, value in asdict(f).items() if key != "exit_code"} for f in findings
        ]
        print(json.dumps({"ok": not worst, "exit_code": worst, "findings": shown}, indent=2))
    elif console.is_terminal:
        counts = Counter(f.mark for f in findings)
        words = f"\n{counts['ok']} ok, {counts['note']} to know, {counts['FAIL']} to correct"
        console.print(Text(words, "bold red" if worst else "bold green"))
    sys.stdout.flush()
    return worst


def _rows(finding: Finding, before: Finding | None) -> Iterator[RenderableType]:
    """The finding on a terminal, under the name of its source where that is new."""
    group, _, part = finding.part.rpartition(": ")
    if group and (before is None or not before.part.startswith(group + ": ")):
        yield Text(group, "bold")
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(width=4, no_wrap=True)
    grid.add_column(width=16, no_wrap=True)
    grid.add_column(ratio=1)
    style = {True: "green", False: "bold red", None: "yellow"}[finding.ok]
    answer = Text(finding.answer)
    if finding.tried:
        answer.append(f" ({finding.tried})", "dim")
    if finding.remedy:
        answer.append(f"\n→ {finding.remedy}", "bold" if finding.ok is False else "cyan")
    grid.add_row(Text(finding.mark, style), Text(part), answer)
    yield grid


def check(settings: Settings, *, send_test: bool = False) -> Iterator[Finding]:
    """Findings in the order in which they are made."""
    names = ", ".join(s.name for s in settings.sources)
    privacy = settings.privacy
    yield Finding(
        "configuration",
        "read flags, environment and file",
        True,
        f"sources: {names}; checkpoint: {settings.storage}; "
        f"user.email: {privacy.user_email}, user.full_name: {privacy.user_full_name}",
    )
    for source in settings.sources:
        with _Probe(source) as probe:
            yield from probe.findings()
    yield from _check_endpoint(settings, send_test)


class _Probe:
    """Asks one source. Every answer is kept for what else it can tell."""

    def __init__(self, source: SourceSettings) -> None:
        self._source = source
        self._title = f"Alloy ({source.name})"
        self._clock = ServerClock()
        self._budget = RequestBudget(source.requests_per_minute, time.monotonic)
        self._client = AlloyClient(
            source.endpoint,
            source.api_key.get_secret_value(),
            api_version=source.api_version,
            timeout=source.timeout,
            max_response_bytes=source.max_response_bytes,
            user_agent=USER_AGENT,
        )
        self._scope = Query(
            source.page_size, workflow_id=source.workflow_id, user_id=source.user_id
        )
        self._reader = Reader(self._fetch, self._scope)
        self._answers: list[tuple[Query, Page]] = []
        self._records: dict[tuple[str, str], Record] = {}
        self._bad = 0
        self._requests = 0

    def __enter__(self) -> _Probe:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def findings(self) -> Iterator[Finding]:
        """All findings about this source; ends with the first request that fails."""
        part, exit_code = "request", 1
        try:
            newest = self._reader.probe()
            yield self._finding(
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
            yield self._life_finding(sample)
            yield self._fields_finding(sample)
            yield self._finding(
                "cost", "", True, f"{self._requests} requests were sent", requests=self._requests
            )
            return
        except AccessRefused as error:
            part, exit_code, words = "API key", 3, str(error)
        except AlloyReceiverError as error:
            words = str(error)
        answer, _, remedy = words.partition("; ")  # where an error names its remedy, it is there
        yield Finding(
            f"{self._title}: {part}",
            "GET /logs",
            False,
            answer,
            remedy or "try again; if it goes on, check ALLOY_ENDPOINT and the network",
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

    def _finding(
        self, part: str, tried: str, ok: bool | None, answer: str, remedy: str = "", **facts: Any
    ) -> Finding:
        return Finding(f"{self._title}: {part}", tried, ok, answer, remedy, facts=facts)

    def _clock_finding(self) -> Finding:
        skew = self._clock.skew / 1000
        far = abs(skew) > 60
        return self._finding(
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
            return self._finding(
                "records", tried, None, "the API has none yet", "run a workflow, then check again"
            )
        words = f"newest from {to_text(max(created))}" if created else "none has a createdAt"
        return self._finding(
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
            return self._finding(
                part, tried, True, "honoured; each page costs one request", **facts
            )
        if verdict is Filter.UNKNOWN:
            return self._finding(
                part,
                tried,
                None,
                "too few records to tell",
                f"{_NOTHING_TO_DO}, `run` finds out by itself",
                **facts,
            )
        return self._finding(
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
            yield self._finding(
                part,
                tried,
                None,
                str(refusal).partition(";")[0],
                f"keep OTEL_ALLOY_PAGE_SIZE={used}, which is answered with {newest.received}",
                largest=newest.received,
            )
            return
        total = page.pagination.totalItems if page.pagination else None
        got = f"{page.received:,} came back"
        if page.received >= _LARGE:
            advice = f"set OTEL_ALLOY_PAGE_SIZE={_LARGE} to read a backlog in fewer requests"
            yield self._finding(
                part, tried, True, got, advice if used < _LARGE else "", largest=_LARGE
            )
        elif total is not None and total <= page.received:
            words = f"{got}, which is all there are; too few to tell a limit"
            yield self._finding(part, tried, True, words, largest=None)
        elif page.received > used:
            advice = f"set OTEL_ALLOY_PAGE_SIZE={page.received} to read in fewer requests"
            yield self._finding(part, tried, None, got, advice, largest=page.received)
        else:
            yield self._finding(
                part,
                tried,
                None,
                f"{got}: the API clamps pages to that" if total else f"{got}, or clamped to that",
                f"{_NOTHING_TO_DO}, otel-alloy pages by what it receives",
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
            yield self._finding("oldest record", tried, None, "it has no createdAt")
            return
        oldest = created[0]
        if oldest > min(known):
            yield self._finding(
                "sort order",
                tried,
                None,
                "the newest came: sortOrder is ignored, so the oldest cannot be told",
                f"{_NOTHING_TO_DO}, `run` reads newest first, which costs more requests",
                sort_order="ignored",
            )
            return
        days = (self._clock.now(int(time.time() * 1000)) - oldest) / 86_400_000
        yield self._finding(
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
        return self._finding(
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
        return self._finding(part, tried, True, words, counts_matches=counts, total_items=whole)

    def _tie_finding(self) -> Iterator[Finding]:
        """Two requests where there is a tie to look at; only where filters can ask for it."""
        part = "order of ties"
        runs = Counter(r.created for r in self._records.values() if r.created is not None)
        tied = [created for created, count in runs.items() if count > 1]
        if not tied or self._reader.filter is not Filter.HONOURED:
            words = f"{len(self._records):,} records, no two with one createdAt; cannot be told"
            if tied:
                words = "not tried, as the filter cannot ask for one millisecond"
            yield self._finding(part, "looked for equal createdAt", True, words, ties=len(tied))
            return
        moment = max(tied, key=lambda created: runs[created])
        orders = []
        for _ in range(2):
            query = replace(self._scope, after=moment - 1, before=moment + 1)
            orders.append([r.identity for r in self._fetch(query).records])
        same = orders[0] == orders[1]
        yield self._finding(
            part,
            f"asked twice for {runs[moment]} records of one millisecond",
            True,
            "the same order both times" if same else "another order the second time; `run` copes",
            ties=len(tied),
            stable=same,
        )

    def _life_finding(self, sample: list[Record]) -> Finding:
        part = "start and end"
        tried = f"looked at {len(sample):,} records"
        messages: dict[str, list[Record]] = defaultdict(list)
        for record in sample:
            if record.notification.execution:
                messages[record.notification.execution].append(record)
        pairs = again = started = ended = in_place = 0
        for records in messages.values():
            kinds = [r.notification.message for r in records]
            ends = sum(kind in TERMINAL for kind in kinds)
            pairs += STARTED in kinds and ends > 0
            again += ends > 1
            started += STARTED in kinds
            ended += ends > 0
            in_place += any(_created_with_its_start(r.notification) for r in records)
        facts: dict[str, Any] = {
            "executions": len(messages),
            "with_both": pairs,
            "ended_twice": again,
        }
        twice = f"; {again} ended more than once, which adds a log record each" if again else ""
        if pairs:
            return self._finding(
                part,
                tried,
                True,
                f"two records: {pairs} of {ended} ended executions also have their start{twice}",
                lifecycle="separate",
                **facts,
            )
        if in_place:
            return self._finding(
                part,
                tried,
                None,
                f"one record, changed in place: {in_place} ends carry the createdAt of their start"
                + twice,
                f"{_NOTHING_TO_DO}, `run` asks for long executions by their id, a request each",
                lifecycle="in place",
                **facts,
            )
        if ended and started:
            words = (
                f"{started} started, {ended} ended, none shows both: the start changes in place "
                "or vanishes"
            )
            lifecycle = "in place or vanishing"
        elif ended:
            words = "no start is kept: only ends are written, or starts change in place or vanish"
            lifecycle = "ends only"
        else:
            words, lifecycle = "no execution has ended yet; cannot be told", "unknown"
        return self._finding(part, tried, True, words + twice, lifecycle=lifecycle, **facts)

    def _fields_finding(self, sample: list[Record]) -> Finding:
        missing: Counter[str] = Counter()
        for record in sample:
            missing.update(_missing(record.notification))
        words = ", ".join(f"{name} {count}" for name, count in missing.most_common())
        remedy = ""
        if missing["executionUuid"]:
            remedy = (
                "those without executionUuid get ids from executionId: your services, which see "
                "only the uuid, do not join their traces"
            )
        if self._bad:
            words += f"{', ' if words else ''}unreadable {self._bad}"
        return self._finding(
            "fields",
            f"looked at {len(sample):,} records for what is missing or cannot be read",
            None if words else True,
            f"missing or odd: {words}" if words else "all there",
            remedy,
            missing=dict(missing),
            unreadable=self._bad,
        )


def _created_with_its_start(n: Notification) -> bool:
    """Whether the record of an end was created when its execution began, and not at its end."""
    start, end, created = to_ms(n.startedAt), to_ms(n.completedAt), to_ms(n.createdAt)
    if n.message not in TERMINAL or start is None or end is None or created is None:
        return False
    return end - start > 3 * _SOON_MS and abs(created - start) < _SOON_MS


def _missing(n: Notification) -> Iterator[str]:
    ended = n.message in TERMINAL
    if not ended and n.message != STARTED:
        yield "message"
    for name in ("startedAt", "completedAt", "createdAt"):
        if to_ms(getattr(n, name)) is None and (ended or name != "completedAt"):
            yield name
    if n.data is None or not n.data.executionId:
        yield "executionId"
    if n.data is None or not n.data.executionUuid:
        yield "executionUuid"
    for name in ("userId", "forgeWorkflowId", "workflowId"):
        if not getattr(n, name):
            yield name
    for name in ("user", "forgeWorkflow"):
        value = getattr(n, name)
        if value is None or isinstance(value, str):
            yield name


def _check_endpoint(settings: Settings, send_test: bool) -> Iterator[Finding]:
    envelope = Envelope(settings.resource(settings.sources[0]), semconv.SCOPE_NAME, __version__)
    senders = dict(zip(SIGNALS, open_senders(settings.environment, USER_AGENT), strict=True))
    reached: list[Signal] = []
    try:
        for signal, sender in senders.items():
            finding = _empty_finding(settings, signal, sender, envelope)
            if finding.ok is not False:
                reached.append(signal)
            yield finding
        if send_test:
            yield from _send_test(settings, {s: senders[s] for s in reached}, envelope)
    finally:
        for sender in senders.values():
            sender.close()


def _empty_finding(
    settings: Settings, signal: Signal, sender: Sender, envelope: Envelope
) -> Finding:
    part, name = f"OTLP {signal}", exporter_name(settings.environment, signal)
    if name != "otlp":
        return Finding(
            part,
            f"{VARIABLES[signal]} names the exporter {name!r}",
            None,
            "it is installed; whether it reaches anything, only a record can tell",
            "use --send-test",
            facts={"exporter": name},
        )
    chosen = otlp_settings(settings.environment, signal)[0]
    tried = f"sent an empty request to {chosen.place} ({chosen.protocol})"
    outcome = sender.send(envelope.request([]))
    facts = {"endpoint": chosen.place, "protocol": chosen.protocol}
    if outcome.kind is Kind.DELIVERED:
        return Finding(part, tried, True, "acknowledged", facts=facts)
    return Finding(part, tried, False, outcome.reason, _remedy(outcome), facts=facts)


def _remedy(outcome: Outcome) -> str:
    if outcome.kind is Kind.MISCONFIGURED:
        return (
            "correct OTEL_EXPORTER_OTLP_ENDPOINT, _PROTOCOL or _HEADERS, or what the collector "
            "expects"
        )
    if outcome.kind in (Kind.RETRY, Kind.UNEXPECTED):
        return (
            "check OTEL_EXPORTER_OTLP_ENDPOINT and that a collector listens there; `run` waits "
            "for it and loses nothing"
        )
    return "look into the collector's log: it refuses what is valid OTLP"


def _send_test(
    settings: Settings, senders: dict[Signal, Sender], envelope: Envelope
) -> Iterator[Finding]:
    uuid = f"{TEST_NAME.replace(' ', '-')}-{secrets.token_hex(8)}"
    now = to_text(int(time.time() * 1000))
    record = {
        "_id": uuid,
        "message": "executionFinished",
        "data": {"executionId": uuid, "executionUuid": uuid},
        **dict.fromkeys(("startedAt", "completedAt", "createdAt"), now),
        "forgeWorkflow": {"name": TEST_NAME},
    }
    execution = Execution(read_notification(json.dumps(record)), Role.ENDED)
    items = dict(zip(SIGNALS, converter(settings).convert(execution), strict=True))
    trace_id = execution_ids(uuid)[0].hex()
    service = settings.resource(settings.sources[0])[semconv.SERVICE_NAME]
    for signal, sender in senders.items():
        item = items[signal]
        assert item is not None
        outcome = sender.send(envelope.request([item]))
        what = "span" if signal == "traces" else "log record"
        part, tried = f"test {what}", f"sent one {what} named {TEST_NAME!r}"
        facts = {"trace_id": trace_id, "service": service}
        if outcome.kind is Kind.DELIVERED and not outcome.rejected:
            yield Finding(
                part,
                tried,
                True,
                f"acknowledged; trace id {trace_id}",
                f"look for it in your backend, service {service}",
                facts=facts,
            )
        else:
            yield Finding(part, tried, False, outcome.reason, _remedy(outcome), facts=facts)
