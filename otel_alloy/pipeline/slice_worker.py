"""A worker of a backfill: the loop of a source, over one slice after the other.

What a slice is and what it promises is said in `backfill.py`; here is how one is read, halved and
settled, alone and beside other workers. No plan is made here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from otel_alloy.alloy.models import Page
from otel_alloy.alloy.query import Query
from otel_alloy.alloy.reader import Filter, UnorderedApi, Window
from otel_alloy.alloy.retry import RequestBudget, Retrying, ShutdownRequested
from otel_alloy.checkpoint.store import Settlement, Slice, Slices, State, open_slices
from otel_alloy.errors import CheckpointUnwritable, Throttled
from otel_alloy.log_throttle import LogThrottle
from otel_alloy.otlp.outcome import Stopped
from otel_alloy.pipeline.events import Advanced, Observe
from otel_alloy.pipeline.poller import Poller
from otel_alloy.pipeline.receiver import tune_garbage_collector
from otel_alloy.pipeline.tracker import Batch
from otel_alloy.settings.models import Settings, SourceSettings

log = logging.getLogger("otel_alloy")

DENSE_PAGES = 20
"""Requests after which a slice may be halved."""

_OVERLAPS_PER_SLICE = 10  # of which each slice reads one more
_LEAST_MS = 60_000
_IDLE_SECONDS = 0.5
_FAR_FUTURE_MS = 10 * 365 * 86_400_000


class _Cut(Exception):
    """The slice has become shorter; not an error."""


class Shared:
    """What the workers of one source share."""

    def __init__(self, source: SourceSettings, slices: Slices, workers: int) -> None:
        self.source = source
        self.workers = workers
        self.slices = slices
        self.budget = RequestBudget(source.requests_per_minute, time.monotonic)
        self.folding = LogThrottle()
        self._lock = threading.Lock()
        self._beside_run = False
        self._fallback_said = False

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

    def throttled(self, wait: float) -> None:
        """Alloy wants us to wait so many seconds: all workers do, as it counts by key."""
        self.make_room()
        self.budget.hold(wait * 2 if self._beside_run else wait)

    def first_fallback(self) -> bool:
        """Whether the fallback has not been told yet; true once."""
        with self._lock:
            said, self._fallback_said = self._fallback_said, True
            return not said

    def say(self, level: int, words: str) -> None:
        """A line of the log."""
        log.log(level, "source %s: %s", self.source.name, words, extra={"source": self.source.name})


class _SliceMemory:
    """The store as a loop sees it: one slice at a time."""

    def __init__(self, slices: Slices) -> None:
        self._slices = slices
        self.piece: Slice | None = None

    def load(self, source: str, fingerprint: str) -> State:
        return State() if self.piece is None else self._slices.load(self.piece)

    def settle(self, source: str, settlement: Settlement) -> None:
        assert self.piece is not None
        self._slices.settle(self.piece, settlement)


class SliceWorker(Poller):
    """The loop of a source, for slices. Only its first one asks for anything but pages."""

    def __init__(
        self,
        settings: Settings,
        shared: Shared,
        stop: threading.Event,
        observe: Observe,
        dense_pages: int,
    ) -> None:
        self._memory = _SliceMemory(shared.slices)
        self._shared = shared
        self._dense_pages = dense_pages
        self._asked = 0
        self._uncut = 0
        self._counts = False
        super().__init__(settings, shared.source, self._memory, stop, observe, shared.budget)
        self._folding = shared.folding

    # Before the work ------------------------------------------------------------------------------

    @property
    def newest_first(self) -> bool:
        """Whether the API has to be read from the newest record down."""
        return self._reader.newest_first

    def probe(self) -> int:
        """Finds out what the API makes of filters, and how many records it gives at once."""
        page = self._reader.probe()
        if not self.newest_first:
            # Nothing is there yet. An API that sorts as it likes passes the first probe.
            future = self._clock.now(now_ms()) + _FAR_FUTURE_MS
            nothing = self._look(Window(future, future + 1))
            self._counts = nothing.pagination is not None and nothing.pagination.totalItems == 0
            if nothing.received:
                self._reader.filter = Filter.IGNORED
        if self.newest_first:
            self._say_fallback(self._reader.filter.value)
        return page.received

    @property
    def verdict(self) -> Filter:
        """What it found out."""
        return self._reader.filter

    def learn(self, verdict: Filter) -> None:
        """Takes over what another one found out."""
        self._reader.filter = verdict

    def moment(self, when: int | float) -> int:
        """Unix ms of a moment, by the API's clock where it is told as so long ago."""
        if isinstance(when, int):
            return when
        return max(1, self._clock.earliest(now_ms()) - int(when * 1000))

    def latest(self) -> int:
        """How far a backfill may reach: what is younger may become visible later."""
        return self._clock.now(now_ms()) - self._overlap

    def count(self, windows: Sequence[Window]) -> int | None:
        """How many records the API says are in the windows; None where its count cannot be
        believed, such as when it counts records in the future."""
        if self.newest_first or not self._counts:
            return None
        told = [self._look(window).pagination for window in windows]
        totals = [p.totalItems for p in told if p is not None and p.totalItems is not None]
        return sum(totals) if len(totals) == len(windows) else None

    def _look(self, window: Window) -> Page:
        scope = Query(1, workflow_id=self._source.workflow_id, user_id=self._source.user_id)
        return self._fetch(replace(scope, after=window.start - 1, before=window.before))

    # The work -------------------------------------------------------------------------------------

    def read_slice(self, piece: Slice) -> None:
        """Delivers and settles a slice to its end. Raises what `run` raises."""
        self._memory.piece = piece
        self._take_up(self._memory.load(piece.source, ""))
        self._asked, self._uncut = self._fetch.requests, piece.position or piece.start
        self._cycle = str(piece.number)
        if piece.position is None and piece.warm < piece.start:
            self._warm_up(Window(piece.warm, piece.start))
        while True:
            progress = self._state.progress
            start = piece.start if progress.window is None else progress.window[0]
            window = Window(
                start if progress.position is None else progress.position, self._piece.before
            )
            try:
                self._read(window)
                return
            except _Cut:
                continue
            except UnorderedApi:
                if self._reader.ordered:
                    self._say_fallback(self._reader.filter.value)
                else:
                    self._say_fallback("not in ascending order")

    @property
    def _piece(self) -> Slice:
        assert self._memory.piece is not None
        return self._memory.piece

    def _warm_up(self, window: Window) -> None:
        """Takes what lies before the slice into the joiner and delivers none of it."""
        batch = self._joiner.batch()
        while True:
            try:
                for reading in self._reader.read(window):
                    self._joiner.take(batch, reading.records, [], now_ms())
                    batch.executions.clear()
                    batch.originals.clear()
                break
            except UnorderedApi:
                continue  # in the other way, as it has to be from here on
        batch.settlement.set_aside.clear()
        self._write(batch)

    def _settle(self, batch: Batch, high: int | None, window: Window, *, last: bool) -> None:
        was = self._state.progress
        if high is not None:
            self._forget_open(batch, high - int(self._source.incomplete_after * 1000))
        super()._settle(batch, high, window, last=last)
        position = self._piece.before if last else self._state.progress.position
        if position is not None:
            begun = was.position
            if begun is None:
                begun = window.start if was.window is None else was.window[0]
            self._observe(Advanced(self._source.name, max(0, position - begun)))
        self._shared.make_room()
        if not last and position is not None:
            self._cut_if_dense(position)

    def _forget_open(self, batch: Batch, horizon: int) -> None:
        """Forgets starts from before `horizon` (ms): what never ended must not pile up."""
        started = self._state.open
        while started:
            execution, oldest = next(iter(started.items()))
            if oldest.created >= horizon:
                return
            del started[execution]
            batch.settlement.opened.pop(execution, None)
            batch.settlement.closed.add(execution)

    def _cut_if_dense(self, position: int) -> None:
        """Halves the rest of the slice where it is dense and no other is left to claim."""
        piece, shared = self._piece, self._shared
        dense = self._fetch.requests - self._asked >= self._dense_pages
        middle = (position + piece.before) // 2
        short = piece.before - middle < least_ms(self._overlap)
        if not dense or short or position <= self._uncut or shared.workers == 1:
            return
        try:
            if not shared.slices.cut(piece, middle, max(1, middle - self._overlap)):
                return
        except CheckpointUnwritable:
            return  # the next settlement tells, and waits
        self._memory.piece = replace(piece, before=middle)
        self._asked, self._uncut = self._fetch.requests, position
        raise _Cut

    def _on_retry(self, event: Retrying) -> None:
        super()._on_retry(event)
        if isinstance(event.error, Throttled):
            self._shared.throttled(event.wait)

    def _say_fallback(self, why: str) -> None:
        if self._shared.first_fallback():
            super()._say_fallback(why)


@dataclass(frozen=True, slots=True)
class Part:
    """What a process needs to work with: of `workers` in all it has so many `threads`."""

    settings: Settings
    source: SourceSettings
    workers: int
    threads: int
    dense_pages: int
    verdict: Filter


def do_part(part: Part, stop: threading.Event, observe: Observe) -> None:
    """The work of a process whose parent holds the backfill's lock. Raises what a worker raises."""
    tune_garbage_collector()
    slices = open_slices(part.settings.storage, held=True)
    shared = Shared(part.source, slices, part.workers)
    workers = [
        SliceWorker(part.settings, shared, stop, observe, part.dense_pages)
        for _ in range(part.threads)
    ]
    for worker in workers:
        worker.learn(part.verdict)
    failures: list[BaseException] = []
    threads = worker_threads(workers, shared, stop, failures)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    slices.close()
    if failures:
        raise failures[0]


def worker_threads(
    workers: Sequence[SliceWorker],
    shared: Shared,
    stop: threading.Event,
    failures: list[BaseException],
) -> list[threading.Thread]:
    """A thread for each worker, not begun; what one raises goes to `failures` and stops all."""
    return [
        threading.Thread(
            target=_work,
            args=(worker, shared, stop, failures),
            name=f"otel-alloy-{shared.source.name}-{number}",
            daemon=True,
        )
        for number, worker in enumerate(workers)
    ]


def _work(
    worker: SliceWorker, shared: Shared, stop: threading.Event, failures: list[BaseException]
) -> None:
    """Claims and reads slices until there is none, and nobody is at one that may be halved."""
    try:
        while not stop.is_set():
            piece = shared.slices.claim(shared.source.name)
            if piece is not None:
                worker.read_slice(piece)
            elif not shared.slices.claimed(shared.source.name) or stop.wait(_IDLE_SECONDS):
                return
    except (ShutdownRequested, Stopped):
        return
    except BaseException as error:
        failures.append(error)
        stop.set()  # the others settle what is in flight
    finally:
        worker.close()


def least_ms(overlap: int) -> int:
    """How short a slice may be, ms: each one also reads an overlap before it."""
    return max(_LEAST_MS, _OVERLAPS_PER_SLICE * overlap)


def now_ms() -> int:
    """Our clock, Unix ms."""
    return int(time.time() * 1000)
