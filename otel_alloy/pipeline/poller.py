"""DRIVE: the loop that carries records through all stages; the only module that imports them all.

One thread per source reads a window, joins, converts, delivers and settles; a second one fetches
the next page meanwhile. Order is what makes the guarantee: a batch is settled in the store after
every one of its spans and log records was acknowledged or set aside, and before the next batch is
delivered. A crash at any point repeats at most one batch, byte for byte.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Iterator

from otel_alloy.alloy.clock import ServerClock
from otel_alloy.alloy.models import TERMINAL, Page
from otel_alloy.alloy.query import Query
from otel_alloy.alloy.reader import Filter, Reader, UnorderedApi, Window, window_start
from otel_alloy.alloy.retention import find_gap
from otel_alloy.alloy.retry import RequestBudget, Retrying, RetryingFetch, ShutdownRequested
from otel_alloy.checkpoint.store import Memory, RejectedRecord, State
from otel_alloy.errors import AlloyReceiverError, CheckpointUnwritable
from otel_alloy.log_throttle import LogThrottle
from otel_alloy.mapping import semconv
from otel_alloy.mapping.convert import ExecutionFacts, Unconvertible, ended
from otel_alloy.mapping.encode import Envelope
from otel_alloy.otlp.delivery import Delivery, Report
from otel_alloy.otlp.outcome import Kind
from otel_alloy.otlp.senders import SIGNALS, exporter_name, open_senders
from otel_alloy.pipeline.events import (
    CheckpointWriteFailed,
    CycleBegan,
    CycleEnded,
    ExportAttempted,
    GapFound,
    Observe,
    Received,
    Requested,
    RequestRetried,
    Settled,
)
from otel_alloy.pipeline.factory import converter, open_client, scope
from otel_alloy.pipeline.prefetch import Prefetcher
from otel_alloy.pipeline.tracker import Batch, ExecutionTracker
from otel_alloy.settings.models import Settings, SourceSettings
from otel_alloy.version import USER_AGENT, __version__

log = logging.getLogger("otel_alloy")

_BATCH_SECONDS = 1.0
_CHECKS_AT_ONCE = 10
_UNWRITABLE_SECONDS = 2.0
_NOTED_MS = 3_600_000


class Poller:
    """The loop of one source. `budget`: where it is shared with others."""

    def __init__(
        self,
        settings: Settings,
        source: SourceSettings,
        store: Memory,
        stop: threading.Event,
        observe: Observe,
        budget: RequestBudget | None = None,
    ) -> None:
        self._settings = settings
        self._source = source
        self._store = store
        self._stop = stop
        self._observe = observe
        self._overlap = int(source.overlap * 1000)
        self._clock = ServerClock()
        self._client = open_client(source)
        self._fetch = RetryingFetch(
            self._fetch_and_learn,
            budget or RequestBudget(source.requests_per_minute, time.monotonic),
            stop.wait,
            random.random,
            self._on_retry,
        )
        self._reader = Reader(self._fetch, scope(source))
        self._converter = converter(settings)
        envelope = Envelope(settings.resource(source), semconv.SCOPE_NAME, __version__)
        self._envelope = envelope
        self._delivery = Delivery(
            *open_senders(settings.environment, USER_AGENT),
            max_request_bytes=settings.max_request_bytes,
            wait=stop.wait,
            random=random.random,
            report=self._on_delivery,
        )
        for signal in SIGNALS:
            name = exporter_name(settings.environment, signal)
            if name != "otlp":
                log.warning(
                    "source %s: %s go to the exporter %r, which tells success or failure only: no "
                    "bad record can be found and set aside, and what it counts as success is final",
                    source.name,
                    signal,
                    name,
                )
        self._take_up(store.load(source.name, source.fingerprint))
        self._grew_at = time.monotonic()
        self._final = False
        self._requests_told = 0
        self._hook_failures_told = 0
        self._folding = LogThrottle()
        self._cycle = ""

    def _take_up(self, state: State) -> None:
        """Goes on from what the store remembers."""
        self._state = state
        self._joiner = ExecutionTracker(
            self._source.name,
            state,
            overlap_ms=self._overlap,
            incomplete_after_ms=int(self._source.incomplete_after * 1000),
            started_logs=self._settings.started_logs,
        )

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()
        self._delivery.close()

    def run(self, once: bool) -> None:
        """Cycles until `stop`, or once."""
        while not self._stop.is_set():
            begun = time.monotonic()
            before = self.cycle()
            rest = self._source.collection_interval - (time.monotonic() - begun)
            rest = 0.0 if once else max(0.0, rest)
            now = self._clock.now(_now_ms())
            self._observe(CycleEnded(self._source.name, self._cycle, before, now, rest))
            if once or self._stop.wait(rest):
                return

    def cycle(self) -> int:
        """Reads one window to its end and settles all of it; the window's upper bound."""
        self._cycle = os.urandom(4).hex()
        high = self._state.progress.high
        settled_to = self._window().start if high is None else high
        now = self._clock.now(_now_ms())
        self._observe(CycleBegan(self._source.name, self._cycle, settled_to, high, now))
        if self._reader.filter is Filter.UNKNOWN:
            self._reader.probe()
            if self._reader.newest_first:
                self._say_fallback(self._reader.filter.value)
        self._look_for_gap()
        begun = time.monotonic()
        window = self._window()
        try:
            self._read(window)
        except UnorderedApi:
            self._say_fallback(
                self._reader.filter.value if self._reader.ordered else "not in ascending order"
            )
            self._read(window)
        self._final = begun - self._grew_at > self._source.overlap
        self._ask_for_open()
        self._note_read(window.before)
        return window.before

    def _look_for_gap(self) -> None:
        """Says so where Alloy has removed records before they were read."""
        gap = find_gap(self._reader, self._state, self._clock.now(_now_ms()))
        if gap is not None:
            self._say(logging.ERROR, gap.sentence())
            self._observe(GapFound(self._source.name, gap.after, gap.oldest))

    def _note_read(self, before: int) -> None:
        """Remembers that all before `before` was read, once an hour: a silent source writes
        nothing else."""
        if before - (self._state.progress.read_to or 0) < _NOTED_MS:
            return
        batch = self._joiner.batch()
        batch.settlement.progress.read_to = before
        self._joiner.advance(batch, None)
        self._write(batch)

    def _window(self) -> Window:
        progress = self._state.progress
        if progress.window is not None:
            start, before = progress.window
            return Window(start if progress.position is None else progress.position, before)
        now = _now_ms()
        if progress.high is not None:
            start = window_start(progress.high, self._overlap, self._final)
            start = max(start, progress.begin or 0)
        elif isinstance(self._settings.since, int):
            start = self._settings.since
        else:
            ago = self._source.initial_lookback
            if self._settings.since is not None:
                ago = self._settings.since
            start = self._clock.earliest(now) - int(ago * 1000)
        start = max(start, 1)
        # A record of this very millisecond is there already: the bound excludes.
        return Window(start, max(self._clock.now(now) + 1, start + 1))

    def _read(self, window: Window) -> None:
        """Delivers and settles a window's records, in batches."""
        batch = self._joiner.batch()
        first = time.monotonic()
        newest: int | None = None
        pages = Prefetcher(self._reader.read(window))
        try:
            while True:
                reading = pages.get(max(0.0, first + _BATCH_SECONDS - time.monotonic()))
                if reading is not None:
                    if not batch.received:
                        first = time.monotonic()
                    times = [r.created for r in reading.records if r.created is not None]
                    if times:
                        newest = max(newest or 0, *times)
                    known = batch.received
                    self._joiner.take(batch, reading.records, reading.bad, _now_ms())
                    self._observe(Received(self._source.name, batch.received - known))
                    progress = batch.settlement.progress
                    progress.window = (window.start, window.before)
                    progress.position = reading.position
                    if progress.begin is None:
                        progress.begin = window.start
                    high = reading.position
                    if reading.last:
                        progress.window = progress.position = None
                        high = window.start if progress.high is None else None
                        if newest is not None:
                            high = max(newest, high or 0)
                        self._settle(batch, high, window, last=True)
                        return
                    full = max(len(batch), batch.received // 2) >= self._settings.batch_size
                else:
                    high = batch.settlement.progress.position
                    full = True
                if full and batch.received:
                    self._settle(batch, high, window, last=False)
                    batch = self._joiner.batch()
                if full:
                    first = time.monotonic()
        except UnorderedApi:
            # What was taken so far is known from here on, so it has to be settled; how far the
            # window is settled, nobody can say, so it is read again from its start.
            progress = batch.settlement.progress
            progress.window, progress.position = (window.start, window.before), None
            self._settle(batch, None, window, last=False)
            raise
        finally:
            pages.close()

    def _ask_for_open(self) -> None:
        """Asks for executions that are open longer than the overlap (their record may have
        changed in place), then gives up those that never ended."""
        now = self._clock.now(_now_ms())
        batch = self._joiner.batch()
        asked: set[str] = set()
        found = True
        while found and self._reader.finds_executions:
            found = False
            for execution in self._joiner.due(now)[:_CHECKS_AT_ONCE]:
                records = [
                    r
                    for r in self._reader.execution(execution)
                    if r.notification.message in TERMINAL
                ]  # anything else of it was settled long ago, and may be forgotten
                self._joiner.take(batch, records, [], _now_ms())
                self._observe(Received(self._source.name, len(records)))
                asked.add(execution)
                if execution in self._state.open:
                    self._joiner.asked(batch, execution)
                else:
                    found = True
        asks = self._reader.finds_executions
        unasked = frozenset(self._joiner.due(now)) - asked if asks else frozenset()
        self._joiner.give_up(batch, now, unasked)
        if batch.executions or batch.settlement.opened or batch.settlement.closed:
            high = self._state.progress.high
            self._settle(batch, high, Window(high or 0, now), last=True)

    def _settle(self, batch: Batch, high: int | None, window: Window, *, last: bool) -> None:
        """Delivers what the batch holds, waits for the acknowledgement, writes the checkpoint."""
        spans: list[bytes | None] = []
        logs: list[bytes | None] = []
        for index, execution in enumerate(batch.executions):
            try:
                span, record = self._converter.convert(execution)
            except Unconvertible as error:
                span = record = None
                self._set_aside(batch, index, "source", str(error))
            spans.append(span)
            logs.append(record)
        sent_spans = len(spans) - spans.count(None)
        sent_logs = len(logs) - logs.count(None)
        if sent_spans or sent_logs:
            refused = self._delivery.deliver(spans, logs, self._envelope, self._envelope)
            for index, refusal in refused.items():
                self._set_aside(batch, index, ",".join(refusal.signals), refusal.reason)
        before = self._state.progress
        self._joiner.advance(batch, high)
        now = self._state.progress
        if now.high != before.high:
            self._grew_at = time.monotonic()
        s = batch.settlement
        if s.seen or s.opened or s.closed or s.ended or s.set_aside or now != before:
            self._write(batch)
        requests, self._requests_told = (
            self._fetch.requests - self._requests_told,
            (self._fetch.requests),
        )
        hook_failures = self._converter.hook_failures - self._hook_failures_told
        self._hook_failures_told += hook_failures
        for aside in s.set_aside:
            self._complain(
                "set aside",
                f"set aside a record ({aside.signals}): {aside.reason}; see `otel-alloy rejected "
                "list`",
            )
        self._observe(
            Settled(
                self._source.name,
                batch.received,
                batch.repeated,
                len(batch),
                sent_spans,
                sent_logs,
                len(s.set_aside),
                requests,
                now.high,
                window.start,
                window.before,
                last,
                self._cycle,
                self._clock.now(_now_ms()),
                len(self._state.open),
                lambda: _ended(batch),
                hook_failures,
            )
        )

    def _set_aside(self, batch: Batch, index: int, signals: str, reason: str) -> None:
        execution = batch.executions[index]
        started_at = execution.started_at
        batch.settlement.set_aside.append(
            RejectedRecord(
                self._source.name,
                signals,
                reason,
                execution.role.value,
                batch.original(index),
                None if started_at is None else str(started_at),
                _now_ms(),
            )
        )

    def _write(self, batch: Batch) -> None:
        """Writes the settlement; a full disk is waited for, the delivery not repeated."""
        while True:
            try:
                self._store.settle(self._source.name, batch.settlement)
                return
            except CheckpointUnwritable as error:
                self._complain("checkpoint", str(error))
                self._observe(
                    CheckpointWriteFailed(self._source.name, str(error), _UNWRITABLE_SECONDS)
                )
                if self._stop.wait(_UNWRITABLE_SECONDS):
                    raise ShutdownRequested from None

    def _fetch_and_learn(self, query: Query) -> Page:
        begun = time.monotonic()
        try:
            page = self._client.fetch(query)
        except AlloyReceiverError as error:
            seconds = time.monotonic() - begun
            kind = type(error).__name__
            self._observe(Requested(self._source.name, error.status, kind, seconds))
            raise
        seconds = time.monotonic() - begun
        self._clock.learn(page, _now_ms())
        self._works_again("alloy", "Alloy answers again")
        self._observe(Requested(self._source.name, 200, None, seconds))
        return page

    def _on_retry(self, event: Retrying) -> None:
        if event.attempt == 1 and not event.wait:
            self._say(logging.WARNING, f"{event.error}; trying half the page size")
        elif event.attempt > 1:
            self._complain("alloy", f"{event.error}; trying again in {event.wait:.1f} s")
        self._observe(RequestRetried(self._source.name, event))

    def _on_delivery(self, report: Report) -> None:
        signal, outcome = report.signal, report.outcome
        if report.next_wait is not None:
            self._complain(
                signal,
                f"cannot deliver {signal}: {outcome.reason}; trying again in "
                f"{report.next_wait:.1f} s",
            )
        elif outcome.kind is Kind.DELIVERED:
            self._works_again(signal, f"{signal} are delivered again")
            if outcome.rejected or outcome.reason:
                self._complain(
                    f"{signal}-partial",
                    f"the OTLP endpoint accepted a request but rejected {outcome.rejected} of "
                    f"its {signal}: {outcome.reason}",
                )
        self._observe(ExportAttempted(self._source.name, report))

    def _complain(self, topic: str, words: str) -> None:
        """Warns; repetitions on one topic are folded into one line."""
        more = self._folding(topic)
        if more is not None:
            self._say(logging.WARNING, words + more)

    def _works_again(self, topic: str, words: str) -> None:
        """Ends the complaints on a topic."""
        if failures := self._folding.forget(topic):
            self._say(logging.INFO, f"{words}, after {failures} failed attempts")

    def _say(self, level: int, words: str) -> None:
        name = self._source.name
        log.log(level, "source %s: %s", name, words, extra={"source": name, "cycle": self._cycle})

    def _say_fallback(self, why: str) -> None:
        self._say(
            logging.WARNING,
            f"this API does not page by createdAt ({why}); reading newest first, which costs more "
            "requests after a pause",
        )


def _now_ms() -> int:
    return int(time.time() * 1000)


def _ended(batch: Batch) -> Iterator[ExecutionFacts]:
    for execution in batch.executions:
        facts = ended(execution)
        if facts is not None:
            yield facts
