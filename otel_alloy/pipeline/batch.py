"""Batches: what is delivered and settled together, and when one is full.

A batch grows while pages arrive. It is settled as a whole, or not at all: that is the unit in which
the checkpoint moves. Nothing here converts, sends or writes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Protocol

from otel_alloy.alloy.cursor import Reading, UnorderedApi, Window
from otel_alloy.alloy.models import BadRecord, Record
from otel_alloy.checkpoint.store import HasText, Settlement
from otel_alloy.errors import Unreachable
from otel_alloy.mapping.convert import Execution
from otel_alloy.runtime import Runtime


@dataclass(slots=True)
class Batch:
    """Executions to deliver together, and what settling them changes. `originals[i]` gives the
    JSON of `executions[i]`'s notification. `newest`: createdAt (Unix ms) up to here, which stands
    in where a record has none. `late`: the visibility lag (ms) of records that came late."""

    settlement: Settlement
    executions: list[Execution] = field(default_factory=list)
    originals: list[HasText] = field(default_factory=list)
    received: int = 0
    repeated: int = 0
    newest: int = 0
    late: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.executions)

    def add(self, execution: Execution, original: HasText) -> None:
        """Takes one more to deliver."""
        self.executions.append(execution)
        self.originals.append(original)

    def original(self, index: int) -> str:
        """The JSON of the notification behind `executions[index]`."""
        return self.originals[index].text()


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """When a batch is full: at so many executions, at twice as many records received (of which
    starts and repeats make no execution), after so many seconds, or when its pages, which stay in
    memory until it is settled, have so many bytes."""

    executions: int
    seconds: float = 1.0
    bytes: int = 64 * 2**20

    def is_full(self, executions: int, received: int, seconds: float, held: int = 0) -> bool:
        """Whether a batch that holds so much, and is so old, is to be settled."""
        most = max(executions, received // 2)
        return most >= self.executions or seconds >= self.seconds or held >= self.bytes

    def rest(self, seconds: float) -> float:
        """For how many seconds more a batch of this age may grow."""
        return max(0.0, self.seconds - seconds)


@dataclass(frozen=True, slots=True)
class FullBatch:
    """A batch that is to be settled. `high`: createdAt (Unix ms) up to which everything is settled
    with it, None where that cannot be said. `last`: the window is read to its end."""

    batch: Batch
    window: Window
    high: int | None
    last: bool


class Taker(Protocol):
    """Sorts records into batches: the `ExecutionTracker`."""

    def batch(self) -> Batch: ...

    def take(self, batch: Batch, records: list[Record], bad: list[BadRecord], now: int) -> None: ...


class Readings(Protocol):
    """Pages that are fetched ahead: the `Prefetcher`."""

    def get(self, timeout: float) -> Reading | None: ...

    def close(self) -> None: ...


def batches(
    window: Window,
    readings: Readings,
    tracker: Taker,
    policy: BatchPolicy,
    runtime: Runtime,
    on_received: Callable[[int], None],
) -> Generator[FullBatch, None, None]:
    """The window's records as batches, each to be settled before the next one is asked for.
    `on_received` is told how many records each page held. Raises what reading raises; where that is
    UnorderedApi, what was read so far comes first, as a batch that says nothing of how far the
    window is settled, and the window is to be read again; where it is Unreachable, what was read so
    far comes first, and the window stays begun: it goes on where it is. `readings` may reach beyond
    the window's end; no more than the window is called settled."""
    batch, begun, held = tracker.batch(), runtime.monotonic(), 0
    newest: int | None = None
    try:
        while True:
            reading = readings.get(policy.rest(runtime.monotonic() - begun))
            progress = batch.settlement.progress
            if reading is not None:
                if not batch.received:
                    begun = runtime.monotonic()
                times = [r.created for r in reading.records if r.created is not None]
                if times:
                    newest = max(newest or 0, *times)
                for entry in (*reading.records[:1], *reading.bad[:1]):
                    held += entry.body.size
                known = batch.received
                tracker.take(batch, reading.records, reading.bad, runtime.now_ms())
                on_received(batch.received - known)
                progress.window = (window.start, window.before)
                progress.position = _within(reading.position, window)
                if progress.begin is None:
                    progress.begin = window.start
                if reading.last:
                    progress.window = progress.position = None
                    high = window.start if progress.high is None else None
                    if newest is not None:
                        high = max(min(newest, window.before - 1), high or 0)
                    yield FullBatch(batch, window, high, last=True)
                    return
            age = policy.seconds if reading is None else 0.0
            if policy.is_full(len(batch), batch.received, age, held):
                if batch.received:
                    yield FullBatch(batch, window, progress.position, last=False)
                    batch, held = tracker.batch(), 0
                begun = runtime.monotonic()
    except UnorderedApi:
        # What was taken so far is known from here on, so it has to be settled.
        progress = batch.settlement.progress
        progress.window, progress.position = (window.start, window.before), None
        yield FullBatch(batch, window, None, last=False)
        raise
    except Unreachable:
        progress = batch.settlement.progress
        progress.window = (window.start, window.before)
        if progress.begin is None:
            progress.begin = window.start
        yield FullBatch(batch, window, progress.position, last=False)
        raise
    finally:
        readings.close()


def _within(position: int | None, window: Window) -> int | None:
    return None if position is None else min(position, window.before)
