"""History, in time slices and by several workers, beside a running `run`.

**Slices.** The range is cut into slices of createdAt, which are kept in the store. A worker claims
one and reads it as `run` reads a window (in ascending order), with a tracker that
knows this slice only. Each batch is settled in one transaction: how far the slice is, what was set
aside, what the tracker has to know next. So a crash repeats at most one batch per worker, byte for
byte, and the next `backfill` goes on from there. When a worker finds nothing to claim, a slice that
has taken many pages is halved where it stands; the far half is anybody's.

**What a slice knows.** The end of an execution carries its own startedAt, so the slice that holds
the end makes the span. An overlap before its start, a slice reads without delivering, as `run`
remembers as much: a second end within it is a log record and no second span. What is not known
across slices: the first end of an execution that ended again later than that (its span comes twice
then, with the same ids, each with what its own end says), and the start of an end that lacks
startedAt (its span begins where it ends, marked as adjusted). A start without an end is not
reported as incomplete: the end may lie in another slice, or be the business of `run`.

**Beside `run`.** The backfill has a lock or leases of its own and never writes what `run`
remembers. While a `run` is active on the same store, it keeps to half of requests_per_minute,
looked at with every batch; and where Alloy throttles, all of its workers hold for twice as long as
they were told, so that the live tail comes first. It ends an overlap before now: what is younger
may not be visible yet. Where it reaches into what `run` has read, executions are delivered twice,
with the same bytes; `to` left out ends where `run` began. The same words again deliver only what
has come since.

**Processes.** Threads overlap the waiting, but share one core: some 20,000 executions a second,
where 60 requests a minute of 1,000 records bring 1,000. So only where no requests_per_minute is
kept to, and the caller allows it, the workers are spread over processes, which meet in the store
alone; figures are in benchmarks/README.md. On PostgreSQL the same command may also be given several
times, on one machine or many: each slice is held by a lease, and who loses one leaves it to others.

Where the API ignores the createdAt filter there is one slice and one worker, as every slice would
be read from the newest record down. Nothing here prints.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from otel_alloy.alloy.cursor import Window
from otel_alloy.alloy.source import AlloySource
from otel_alloy.alloy.timestamps import to_text
from otel_alloy.checkpoint.holding import Terms
from otel_alloy.checkpoint.store import Plan, Slice, Slices, open_slices
from otel_alloy.durations import duration_text
from otel_alloy.errors import (
    AlloyReceiverError,
    ConfigurationError,
    RequestRefused,
    ShutdownRequested,
)
from otel_alloy.otlp.backends import age_warnings
from otel_alloy.pipeline.events import BackfillCounted, Observe, Planned
from otel_alloy.pipeline.factory import Factory
from otel_alloy.pipeline.receiver import wait_for_end
from otel_alloy.pipeline.slice_worker import (
    DENSE_PAGES,
    Part,
    Shared,
    SliceWorker,
    do_part,
    least_ms,
    work_function,
)
from otel_alloy.pipeline.worker_process import call
from otel_alloy.runtime import Runtime, Task, runtime_within, system_runtime
from otel_alloy.settings.models import Settings, SourceSettings

log = logging.getLogger("otel_alloy")

_SLICES_PER_WORKER = 4


@dataclass(frozen=True, slots=True)
class Range:
    """What to fetch: `start` and `before` are Unix ms (int) or how many seconds ago (float);
    without `before`, up to where `run` began, else now. `words` is how it was asked for: the same
    words go on with what is unfinished."""

    start: int | float
    before: int | float | None
    words: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a backfill of a source will take. `records` and the rest are None where the API's own
    count cannot be believed. `per_minute`: the request budget, 0 where there is none."""

    source: str
    start: int
    before: int
    slices: int
    newest_first: bool
    per_minute: int
    records: int | None
    requests: int | None
    seconds: float | None

    def sentence(self) -> str:
        """The estimate for people."""
        words = (
            f"source {self.source}: {to_text(self.start)} to {to_text(self.before)}, "
            f"{self.slices} slices"
        )
        if self.newest_first:
            return words + "; this API has to be read from the newest record down: no estimate"
        if self.records is None or self.requests is None or self.seconds is None:
            return words + "; the API's count of records cannot be believed: no estimate"
        limit = f", at {self.per_minute} requests a minute" if self.per_minute else ""
        return (
            f"{words}; estimate: {self.records} records, {self.requests} requests, "
            f"{duration_text(int(max(self.seconds, 1)) * 10**9)}{limit}"
        )


class Backfill:
    """Delivers the executions of a range, source after source.

    `run` blocks; `stop` may be called from any thread or signal handler. `observe` is told what
    happens (`otel_alloy.pipeline.events`) from the workers' threads. `processes`: over how many the
    workers may be spread where no requests_per_minute is kept to. `restart`: begin anew where an
    earlier backfill of the source is unfinished or was the same. `destination`: whom to deliver to
    instead of the main one, what is that one's own.
    """

    def __init__(
        self,
        settings: Settings,
        sources: Sequence[SourceSettings],
        wanted: Range,
        *,
        workers: int = 2,
        processes: int = 1,
        restart: bool = False,
        observe: Observe | None = None,
        dense_pages: int = DENSE_PAGES,
        slices_per_worker: int = _SLICES_PER_WORKER,
        factory: Factory | None = None,
        slices: Callable[[str], Slices] | None = None,
        destination: str | None = None,
    ) -> None:
        self._settings = settings
        self._sources = sources
        self._wanted = wanted
        self._workers = workers
        self._processes = processes
        self._restart = restart
        self._observe: Observe = observe or (lambda event: None)
        self._dense_pages = dense_pages
        self._slices_per_worker = slices_per_worker
        self._factory = factory or Factory(settings, system_runtime(), alone=destination)
        self._runtime = self._factory.runtime
        terms = Terms(settings.lease, self._runtime)
        self._open_slices = slices or partial(open_slices, terms=terms)
        self._running: list[Task] = []

    def stop(self) -> None:
        """Asks for the end: what is in flight is settled, nothing new is begun."""
        self._runtime.stop()

    def run(self) -> bool:
        """True when all is delivered; False where `stop` came first. A source that cannot go on
        does not hold up the others: after them, raises what the first such one raised: Stop
        (ConfigurationError, AccessRefused, CheckpointError) or RequestRefused. What is settled
        stays settled."""
        self._warn()
        slices = self._open_slices(self._settings.storage)
        failure: AlloyReceiverError | None = None
        try:
            for source in self._sources:
                try:
                    self._backfill(source, slices)
                except ShutdownRequested:
                    break
                except AlloyReceiverError as error:
                    failure = failure or error
                    if len(self._sources) > 1:
                        log.error(
                            "source %s: %s", source.name, error, extra={"source": source.name}
                        )
                if self._runtime.stopping():
                    break
            if failure is not None:
                raise failure
            return not self._runtime.stopping()
        finally:
            if not any(task.is_alive() for task in self._running):
                slices.close()

    def _warn(self) -> None:
        for warning in self._settings.warnings:
            log.warning("%s", warning)

    def estimate(self) -> list[Estimate]:
        """What `run` would take, from a few requests of one record each; nothing is written."""
        self._warn()
        slices = self._open_slices(self._settings.storage)
        try:
            return [self._estimate(source, slices) for source in self._sources]
        finally:
            slices.close()

    def _estimate(self, source: SourceSettings, slices: Slices) -> Estimate:
        shared = self._shared(self._factory, source, slices)
        worker = self._worker(self._factory, shared)
        try:
            shared.make_room()
            page = worker.probe()
            plan, _ = self._plan(worker, shared, None if self._restart else slices.plan(shared.key))
            rests = _rests(plan.slices)
            begun = self._runtime.monotonic()
            records = worker.count(rests)
            took = (self._runtime.monotonic() - begun) / max(1, len(rests))
        finally:
            worker.close()
        requests = seconds = None
        if records is not None:
            size = max(1, min(page, source.page_size) - 1)  # the last record of a page comes again
            requests = math.ceil(records / size) + 2 * len(plan.slices)
            seconds = requests * took / self._workers
            if limit := shared.per_minute():
                seconds = max(seconds, requests * 60 / limit)
        return Estimate(
            source.name,
            plan.start,
            plan.before,
            len(plan.slices),
            worker.source.newest_first,
            shared.per_minute(),
            records,
            requests,
            seconds,
        )

    def _shared(self, factory: Factory, source: SourceSettings, slices: Slices) -> Shared:
        budget = self._factory.budgets.of(source)
        return Shared(source, slices, self._workers, budget, factory.runtime, self._factory.alone)

    def _worker(self, factory: Factory, shared: Shared) -> SliceWorker:
        return SliceWorker(factory, shared, self._observe, self._dense_pages)

    def _plan(self, worker: SliceWorker, shared: Shared, found: Plan | None) -> tuple[Plan, bool]:
        """What there is to do after what was `found`, and whether that goes on. Raises
        ConfigurationError where the range is none."""
        source, asked = shared.source, self._wanted.words
        same = found is not None and (found.asked, found.fingerprint) == (asked, source.fingerprint)
        if found is not None and found.slices:
            if not same:
                raise _refusal(source, found)
            return found, True
        start, before = self._bounds(worker, shared)
        warm = start
        if found is not None and found.fingerprint == source.fingerprint:
            if same:
                if before <= found.before:
                    return found, True
                start = max(start, found.before)
                warm = start if start > found.before else start - int(source.overlap * 1000)
            elif start < found.before and found.start < before:
                shared.say(
                    logging.WARNING,
                    f"`{found.asked}` delivered {to_text(found.start)} to {to_text(found.before)}: "
                    "what lies in both ranges is delivered again, with the same bytes",
                )
        if start >= before:
            raise ConfigurationError(
                [
                    f"source {source.name}: the range {to_text(start)} to {to_text(before)} is "
                    "empty; choose an earlier --from"
                ]
            )
        slices = self._slices(shared, worker, start, before)
        slices[0] = replace(slices[0], warm=max(1, warm))
        return Plan(source.fingerprint, asked, start, before, slices), False

    def _begin(self, worker: SliceWorker, shared: Shared) -> tuple[Plan, bool]:
        """What `_plan` says; what is new is written, or another process was faster, and goes on."""
        while True:
            there = shared.slices.plan(shared.key)
            plan, goes_on = self._plan(worker, shared, None if self._restart else there)
            if goes_on or shared.slices.begin(shared.key, plan, there):
                return plan, goes_on

    def _bounds(self, worker: SliceWorker, shared: Shared) -> tuple[int, int]:
        """The range that is asked for, Unix ms; what may still appear is left out."""
        progress, begun = shared.slices.progress(shared.source.name), shared.begun()
        start, latest = worker.moment(self._wanted.start), worker.latest()
        if self._wanted.before is not None:
            before = worker.moment(self._wanted.before)
        elif begun is not None:
            before = begun
        elif progress is not None and shared.slices.run_is_active():
            raise ConfigurationError(
                [
                    f"source {shared.source.name}: a `run` is active and has settled nothing yet, "
                    "so it is not known where it began; try again in a minute, or give --to"
                ]
            )
        else:
            before = latest
        if before > latest:
            before = latest
            shared.say(
                logging.WARNING,
                f"ends at {to_text(before)}: what is younger than the overlap "
                f"({shared.source.overlap:g} s) may still appear",
            )
        if begun is not None and before > begun:
            shared.say(
                logging.WARNING,
                f"`run` began at {to_text(begun)}: what it delivered from there on is delivered "
                "again, with the same bytes; leave out --to to end there",
            )
        return start, before

    def _wait_for_run(self, worker: SliceWorker, shared: Shared) -> None:
        """Where `run` began within the last overlap: what it leaves to us may still appear."""
        begun = shared.begun()
        if self._wanted.before is not None or begun is None:
            return
        found = shared.slices.plan(shared.key)
        if found is not None and found.slices and not self._restart:
            return  # it goes on with the range that it has
        seconds = (begun - worker.latest()) / 1000
        if 0 < seconds <= shared.source.overlap:
            shared.say(
                logging.INFO, f"waits {seconds:.0f} s: what lies before `run` may still appear"
            )
            if self._runtime.wait(seconds + 0.001):
                raise ShutdownRequested

    def _slices(self, shared: Shared, worker: SliceWorker, start: int, before: int) -> list[Slice]:
        source = shared.source
        overlap = int(source.overlap * 1000)
        number = min(self._slices_per_worker * self._workers, (before - start) // least_ms(overlap))
        if self._workers == 1 or worker.source.newest_first:
            number = 1
        number = max(1, number)
        edges = [start + (before - start) * i // number for i in range(number + 1)]
        return [
            Slice(0, shared.key, edge if edge == start else edge - overlap, edge, end)
            for edge, end in pairwise(edges)
        ]

    def _backfill(self, source: SourceSettings, slices: Slices) -> None:
        """Reads a source to its end, or to `stop`. Raises what a worker raises."""
        runtime = runtime_within(self._runtime)  # what fails stops this source, and no other
        factory = replace(self._factory, runtime=runtime)
        shared = self._shared(factory, source, slices)
        slices.release(shared.key)
        shared.make_room()
        first = self._worker(factory, shared)
        workers = [first]
        try:
            first.probe()
            if clocks := first.source.clock_words():
                shared.say(logging.WARNING, f"{clocks}; the range ends by the earlier of them")
            self._wait_for_run(first, shared)
            plan, goes_on = self._begin(first, shared)
            words = f"{to_text(plan.start)} to {to_text(plan.before)}"
            if goes_on and not plan.slices:
                shared.say(logging.INFO, f"{words} is done; --restart delivers it again")
                first.close()
                self._count(factory, shared, plan, first.source)
                return
            if goes_on:
                shared.say(logging.INFO, f"{words}: going on with {len(plan.slices)} slices")
            else:
                shared.say(logging.INFO, f"{words}, in {len(plan.slices)} slices")
            age = (self._runtime.now_ms() - plan.start) / 1000
            for warning in age_warnings(self._factory.exporters, age):
                shared.say(logging.WARNING, warning)
            rests = _rests(plan.slices)
            records = first.count(rests)
            self._observe(Planned(source.name, sum(w.before - w.start for w in rests), records))
            number = 1 if first.source.newest_first else self._workers
            processes = min(number, 1 if source.requests_per_minute else self._processes)
            if processes == 1:
                workers += [self._worker(factory, shared) for _ in range(number - 1)]
                for worker in workers[1:]:
                    worker.source.learn(first.source.filter)
        except BaseException:
            for worker in workers:
                worker.close()
            raise
        failures: list[BaseException] = []
        if processes == 1:
            work = [work_function(worker, shared, runtime, failures) for worker in workers]
        else:
            first.close()

            def part(threads: int) -> Part:
                return Part(
                    self._settings,
                    source,
                    self._workers,
                    threads // processes,
                    self._dense_pages,
                    first.source.filter,
                    self._factory.alone,
                )

            work = [
                self._elsewhere(runtime, part(number + at), failures) for at in range(processes)
            ]
        self._running = [
            self._runtime.spawn(one, f"otel-alloy-{source.name}-{at}")
            for at, one in enumerate(work)
        ]
        patience = self._settings.shutdown_timeout
        if not wait_for_end(self._running, runtime, patience):
            shared.say(
                logging.WARNING,
                f"gave up waiting for the last batches after {patience:g} s; "
                "they will be sent again",
            )
        if failures:
            raise failures[0]
        if not runtime.stopping():
            self._count(factory, shared, plan, first.source)

    def _count(self, factory: Factory, shared: Shared, plan: Plan, used: AlloySource) -> None:
        """Tells how many records are settled beside Alloy's own count (up to three requests).
        `used`: what was found out about the API before."""
        api: int | None = None
        with closing(factory.source(shared.source, self._observe, shared.budget)) as source:
            source.learn(used.filter)
            # What has to be read newest first may be read, and settled, more than once.
            if not used.newest_first:
                with suppress(RequestRefused):  # it gives records, and does not count them
                    api = source.count(Window(plan.start, plan.before))
        settled = shared.slices.settled(shared.key)
        self._observe(BackfillCounted(shared.source.name, settled, api))

    def _elsewhere(
        self, runtime: Runtime, part: Part, failures: list[BaseException]
    ) -> Callable[[], None]:
        """Lets a process of its own do a part of the work."""

        def work() -> None:
            try:
                call(do_part, part, runtime.stopping, self._observe)
            except BaseException as error:
                failures.append(error)
                runtime.stop()  # the others settle what is in flight

        return work


def _rests(pieces: Sequence[Slice]) -> list[Window]:
    """What is left of slices that are in order; neighbours as one."""
    rests: list[Window] = []
    for piece in pieces:
        start = piece.start if piece.position is None else piece.position
        if rests and rests[-1].before == start:
            start = rests.pop().start
        rests.append(Window(start, piece.before))
    return rests


def _refusal(source: SourceSettings, found: Plan) -> ConfigurationError:
    remedy = "repeat that, or forget it with --restart"
    if found.fingerprint != source.fingerprint:
        remedy = (
            "it belongs to another endpoint, workflow or user filter: go back to that, or forget "
            "it with --restart"
        )
    return ConfigurationError(
        [
            f"source {source.name}: a backfill for `{found.asked}` ({to_text(found.start)} to "
            f"{to_text(found.before)}) is not finished; {remedy}"
        ]
    )
