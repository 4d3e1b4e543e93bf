"""A worker of a backfill: reads one slice after the other, and has what they bring settled.

What a slice is and what it promises is said in `backfill.py`; here is how one is read, halved and
settled, alone and beside other workers. No plan is made here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from otel_alloy.alloy.cursor import Filter, UnorderedApi, Window
from otel_alloy.alloy.models import Page
from otel_alloy.alloy.retry import HOLD_SECONDS, AdjustableBudget
from otel_alloy.checkpoint.holding import Terms
from otel_alloy.checkpoint.store import Settlement, Slice, Slices, open_slices
from otel_alloy.errors import (
    CheckpointUnwritable,
    LeaseLost,
    ShutdownRequested,
    Throttled,
    Unreachable,
)
from otel_alloy.log_throttle import LogThrottle
from otel_alloy.otlp.while_held import while_held
from otel_alloy.pipeline.batch import FullBatch, batches
from otel_alloy.pipeline.events import Advanced, Observe, Received, RequestRetried, tell_all
from otel_alloy.pipeline.factory import Factory
from otel_alloy.pipeline.receiver import tune_garbage_collector, wait_for_end
from otel_alloy.pipeline.source_log import SourceLog
from otel_alloy.pipeline.tracker import ExecutionTracker
from otel_alloy.runtime import Runtime, runtime_while, system_runtime
from otel_alloy.settings.models import Settings, SourceSettings

log = logging.getLogger("otel_alloy")

DENSE_PAGES = 20
"""Requests after which a slice may be halved."""

_OVERLAPS_PER_SLICE = 10  # of which each slice reads one more
_LEAST_MS = 60_000
_IDLE_SECONDS = 0.5
_FAR_FUTURE_MS = 10 * 365 * 86_400_000


class Shared:
    """What the workers of one source share. `destination`: the one that is delivered to alone."""

    def __init__(
        self,
        source: SourceSettings,
        slices: Slices,
        workers: int,
        budget: AdjustableBudget,
        runtime: Runtime,
        destination: str | None = None,
    ) -> None:
        self.source = source
        self.destination = destination
        self.key = source.name if destination is None else f"{source.name}\x1f{destination}"
        """What the store knows this backfill by."""
        self.workers = workers
        self.slices = slices
        self.budget = budget
        self.throttle = LogThrottle(runtime.monotonic)
        self._lock = threading.Lock()
        self._beside_run = False
        self._fallback_told = False

    def begun(self) -> int | None:
        """From which createdAt on `run` delivers what this does; None where that is not known. To a
        destination that it does not know yet it will from where it is now."""
        progress = self.slices.progress(self.source.name)
        if progress is None:
            return None
        if self.destination is None:
            return progress.begin
        since = self.slices.since(self.source.name, self.destination)
        if since is None and progress.high is not None:
            return progress.high + 1
        return since

    def per_minute(self) -> int:
        """The request budget: all of it, or half while a `run` is active."""
        limit = self.source.requests_per_minute
        return max(1, limit // 2) if limit and self._beside_run else limit

    def make_room(self) -> None:
        """Looks whether a `run` is active, and keeps to the budget that is left."""
        with self._lock:
            active = self.slices.run_is_active()
            if active == self._beside_run:
                return
            self._beside_run = active
            limit = self.per_minute()
            self.budget.change(limit)
        if limit:
            what = "a run is active beside this" if active else "no run is active any more"
            self.say(logging.INFO, f"{what}: the backfill keeps to {limit} requests a minute")

    def on_event(self, event: object) -> None:
        """Where Alloy wants one worker to wait, all do, as it counts by key."""
        if isinstance(event, RequestRetried) and isinstance(event.error, Throttled):
            self.make_room()
            self.budget.hold(event.wait * 2 if self._beside_run else event.wait)

    def first_fallback(self) -> bool:
        """Whether the fallback has not been told yet; true once."""
        with self._lock:
            told, self._fallback_told = self._fallback_told, True
            return not told

    def say(self, level: int, words: str) -> None:
        """A line of the log."""
        log.log(level, "source %s: %s", self.source.name, words, extra={"source": self.source.name})


class SliceWorker:
    """Reads slices of one source. Only the first one of a backfill asks for anything but pages."""

    def __init__(
        self, factory: Factory, shared: Shared, observe: Observe, dense_pages: int
    ) -> None:
        self._piece = Slice(0, shared.key, 0, 0, 0)
        self._shared = shared
        if shared.slices.leased:
            factory = _while(factory, self._holds)
        self._factory = factory
        self._settings = shared.source
        self._overlap = int(shared.source.overlap * 1000)
        self._dense_pages = dense_pages
        self._counts = False
        self._log = SourceLog(shared.source.name, shared.throttle)
        self._observe = tell_all(self._log, shared.on_event, observe)
        self.source = factory.source(shared.source, self._observe, shared.budget)
        self.source.hold_at_most(HOLD_SECONDS)
        self._processor = factory.processor(
            shared.source, self.source, self._write, self._observe, self._log, factory.direct()
        )
        self._asked = 0
        self._uncut = 0

    def close(self) -> None:
        """Closes the connections."""
        self.source.close()
        self._processor.close()

    # Before the work ------------------------------------------------------------------------------

    def probe(self) -> int:
        """Finds out what the API makes of filters, and how many records it gives at once."""
        self._log.exporters(self._factory.settings.otlp)
        page = self.source.probe()
        if not self.source.newest_first:
            # Nothing is there yet. An API that sorts as it likes passes the first probe.
            future = self.source.now() + _FAR_FUTURE_MS
            nothing = self._look(Window(future, future + 1))
            self._counts = nothing.pagination is not None and nothing.pagination.totalItems == 0
            if nothing.received:
                self.source.learn(Filter.IGNORED)
        if self.source.newest_first:
            self._fallback(self.source.filter.value)
        return page.received

    def moment(self, when: int | float) -> int:
        """Unix ms of a moment, by the earliest clock where it is told as so long ago."""
        if isinstance(when, int):
            return when
        return max(1, self.source.earliest() - int(when * 1000))

    def latest(self) -> int:
        """How far a backfill may reach: what is younger may become visible later."""
        return self.source.certain() - self._overlap

    def count(self, windows: Sequence[Window]) -> int | None:
        """How many records the API says are in the windows; None where its count cannot be
        believed, such as when it counts records in the future."""
        if self.source.newest_first or not self._counts:
            return None
        told = [self._look(window).pagination for window in windows]
        totals = [p.totalItems for p in told if p is not None and p.totalItems is not None]
        return sum(totals) if len(totals) == len(windows) else None

    def _look(self, window: Window) -> Page:
        return self.source.page(window, 1)

    # The work -------------------------------------------------------------------------------------

    def read_slice(self, piece: Slice) -> None:
        """Delivers and settles a slice to its end. Raises what a poller raises; where its lease is
        lost, LeaseLost before the next write, or ShutdownRequested before the next request."""
        self._piece = piece
        state = self._processor.patiently(lambda: self._shared.slices.load(piece))
        state.patience = self._processor.patiently
        tracker = self._factory.tracker(self._settings, state)
        self._asked, self._uncut = self.source.requests, piece.position or piece.start
        self._log.cycle = str(piece.number)
        if piece.position is None and piece.warm < piece.start:
            self._warm_up(tracker, Window(piece.warm, piece.start))
        done = False
        while not done:
            progress = tracker.state.progress
            start = piece.start if progress.window is None else progress.window[0]
            if progress.position is not None:
                start = progress.position
            try:
                done = self._read(tracker, Window(start, self._piece.before))
            except UnorderedApi as error:
                self._fallback(error.why)

    def _read(self, tracker: ExecutionTracker, window: Window) -> bool:
        """Settles a window's records; False where the slice was cut short meanwhile."""
        readings = self._factory.prefetch(self.source.read(window), self._factory.runtime)
        policy, runtime = self._factory.policy, self._factory.runtime
        with closing(
            batches(window, readings, tracker, policy, runtime, self._on_received)
        ) as found:
            for full in found:
                self._settle(tracker, full)
                position = tracker.state.progress.position
                if full.last or position is None or self._is_ahead(tracker, position):
                    continue
                if self._cut_if_dense(position):
                    return False
        return True

    def _settle(self, tracker: ExecutionTracker, full: FullBatch) -> None:
        was = tracker.state.progress
        if full.high is not None:
            incomplete_after = int(self._settings.incomplete_after * 1000)
            tracker.forget_starts(full.batch, full.high - incomplete_after)
        self._processor.settle(tracker, full)
        position = self._piece.before if full.last else tracker.state.progress.position
        if position is not None:
            begun = was.position
            if begun is None:
                begun = full.window.start if was.window is None else was.window[0]
            self._observe(Advanced(self.source.name, max(0, position - begun)))
        self._shared.make_room()

    def _warm_up(self, tracker: ExecutionTracker, window: Window) -> None:
        """Takes what lies before the slice into the tracker and delivers none of it."""
        batch = tracker.batch()
        while True:
            try:
                for reading in self.source.read(window):
                    now = self._factory.runtime.now_ms()
                    tracker.take(batch, reading.records, [], now)
                    batch.executions.clear()
                    batch.originals.clear()
                break
            except Unreachable:
                break  # the slice before this one says so
            except UnorderedApi:
                continue  # in the other way, as it has to be from here on
        batch.settlement.rejected.clear()
        self._processor.write(batch.settlement)
        tracker.settled(batch)

    def _holds(self) -> bool:
        """Whether requests may be begun: before there is a slice, and while it is held."""
        return not self._piece.number or self._shared.slices.holds(self._piece)

    def _write(self, settlement: Settlement) -> int:
        return self._shared.slices.settle(self._piece, settlement)

    @staticmethod
    def _is_ahead(tracker: ExecutionTracker, position: int) -> bool:
        """Whether records after `position` are settled, as where a page cannot be paged: whoever
        got the other half would not know of them."""
        return (tracker.state.newest_seen() or 0) > position

    def _cut_if_dense(self, position: int) -> bool:
        """Halves the rest of the slice where it is dense and no other is left to claim."""
        piece, shared = self._piece, self._shared
        dense = self.source.requests - self._asked >= self._dense_pages
        middle = (position + piece.before) // 2
        short = piece.before - middle < least_ms(self._overlap)
        if not dense or short or position <= self._uncut or shared.workers == 1:
            return False
        try:
            if not shared.slices.cut(piece, middle, max(1, middle - self._overlap)):
                return False
        except CheckpointUnwritable:
            return False  # the next settlement tells, and waits
        self._piece = replace(piece, before=middle)
        self._asked, self._uncut = self.source.requests, position
        return True

    def _on_received(self, records: int) -> None:
        self._observe(Received(self.source.name, records))

    def _fallback(self, why: str) -> None:
        if self._shared.first_fallback():
            self._log.fallback(why)


@dataclass(frozen=True, slots=True)
class Part:
    """What a process needs to work with: of `workers` in all it has so many `threads`."""

    settings: Settings
    source: SourceSettings
    workers: int
    threads: int
    dense_pages: int
    verdict: Filter
    destination: str | None = None


def do_part(part: Part, stop: threading.Event, observe: Observe) -> None:
    """The work of a process whose parent holds the lock, where there is one. Raises what a worker
    raises."""
    tune_garbage_collector()
    runtime = system_runtime(stop)
    terms = Terms(part.settings.lease, runtime)
    slices = open_slices(part.settings.storage, held=True, terms=terms)
    factory = Factory(part.settings, runtime, alone=part.destination)
    budget = factory.budgets.of(part.source)
    shared = Shared(part.source, slices, part.workers, budget, runtime, part.destination)
    workers = [SliceWorker(factory, shared, observe, part.dense_pages) for _ in range(part.threads)]
    for worker in workers:
        worker.source.learn(part.verdict)
    failures: list[BaseException] = []
    tasks = [
        runtime.spawn(
            work_function(worker, shared, runtime, failures),
            f"otel-alloy-{shared.source.name}-{number}",
        )
        for number, worker in enumerate(workers)
    ]
    wait_for_end(tasks, runtime, float("inf"))
    slices.close()
    if failures:
        raise failures[0]


def work_function(
    worker: SliceWorker,
    shared: Shared,
    runtime: Runtime,
    failures: list[BaseException],
) -> Callable[[], None]:
    """What a worker does in its thread: claims and reads slices until there is none, and nobody is
    at one that may be halved. What it raises goes to `failures` and stops all."""

    def work() -> None:
        try:
            while not runtime.stopping():
                piece = shared.slices.claim(shared.key)
                if piece is not None:
                    _work_at(piece, worker, shared, runtime)
                elif not shared.slices.claimed(shared.key) or runtime.wait(_IDLE_SECONDS):
                    return
        except ShutdownRequested:
            return
        except BaseException as error:
            failures.append(error)
            runtime.stop()  # the others settle what is in flight
        finally:
            worker.close()

    return work


def _work_at(piece: Slice, worker: SliceWorker, shared: Shared, runtime: Runtime) -> None:
    """Reads a slice to its end, or as long as it is held: then somebody else goes on with it."""
    try:
        worker.read_slice(piece)
    except (LeaseLost, ShutdownRequested) as error:
        if runtime.stopping() or (
            isinstance(error, ShutdownRequested) and not shared.slices.leased
        ):
            raise
        shared.say(
            logging.WARNING, f"the lease on slice {piece.number} is lost: it goes on elsewhere"
        )
    finally:
        shared.slices.give_back(piece)


def _while(factory: Factory, holds: Callable[[], bool]) -> Factory:
    """The same, but no request to either end is begun once `holds` says no."""
    return replace(
        factory,
        runtime=runtime_while(factory.runtime, holds),
        endpoint=lambda settings, runtime: while_held(factory.endpoint(settings, runtime), holds),
        given_budgets=factory.budgets,
    )


def least_ms(overlap: int) -> int:
    """How short a slice may be, ms: each one also reads an overlap before it."""
    return max(_LEAST_MS, _OVERLAPS_PER_SLICE * overlap)
