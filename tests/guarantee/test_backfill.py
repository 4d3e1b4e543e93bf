"""Backfills of any history, cut anywhere, with crashes anywhere, against the real workers.

The workers are threads of which one runs at a time: at each step that a process could die at, a
seed decides who is next. So any interleaving can be met, and met again.
"""

from __future__ import annotations

import random
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from otel_alloy.checkpoint.slices import StoredSlices
from otel_alloy.checkpoint.store import Settlement, Slice, Slices, open_slices
from otel_alloy.errors import AccessRefused, CheckpointUnwritable, RequestRefused
from otel_alloy.pipeline.backfill import Backfill, Range
from otel_alloy.runtime import Runtime, Task
from otel_alloy.testing.simulator import Config

from .scale import scaled
from .test_state_machine import ANSWERS, FAULTS, MEMORY
from .world import START, Beside, Crash, Key, Model, World, log_key, span_key

OVERLAP_MS = 6_000
BASE = (START - 5_000) * 1000
LENGTH = 2_400_000  # four workers make slices of 150 s of it, which may be halved once


class _Worker:
    """A thread that runs when it is its turn."""

    def __init__(self, history: History, work: Callable[[], None]) -> None:
        self._history, self._work = history, work
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.unsettled: set[Key] = set()
        self._alive = True
        history.workers.append(self)
        self._thread.start()

    def _run(self) -> None:
        self._go.acquire()
        try:
            self._work()
        finally:
            self._alive = False
            self._back.release()

    def is_alive(self) -> bool:
        return self._alive

    def join(self, timeout: float | None = None) -> None:
        """Somebody's turn."""
        self._history.next()

    def turn(self) -> None:
        """Runs to the next step."""
        self._go.release()
        self._back.acquire()

    def pass_on(self) -> None:
        """Called by the thread itself: waits for its next turn."""
        self._back.release()
        self._go.acquire()


class _Slices:
    """The real slices; a settlement can fail for a while, the process can die around it, and a dead
    one writes nothing."""

    def __init__(self, history: History, inner: StoredSlices) -> None:
        self._history, self._inner = history, inner

    def settle(self, piece: Slice, settlement: Settlement) -> int:
        history = self._history
        history.step()
        if history.disk_full:
            history.disk_full -= 1
            raise CheckpointUnwritable("disk full")
        new = self._inner.settle(piece, settlement)
        history.slice_settled(piece, settlement)
        history.step()
        return new

    def __getattr__(self, name: str) -> Any:
        if self._history.dead:
            raise Crash
        return getattr(self._inner, name)


@dataclass
class Attempt:
    """One process: how many workers it has, what happens to it, and how it ends."""

    workers: int
    seed: int
    dies_in: int | None
    stops_in: int | None
    faults: list[str | None] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    disk_full: int = 0
    ahead: int = 2
    dense_pages: int = 3

    @property
    def calm(self) -> bool:
        """Whether nothing that makes a repeat happens."""
        unwritten = self.disk_full and self.stops_in is not None
        return self.dies_in is None and not (self.traces or self.logs or unwritten)


class History(World):
    """A world for backfills, whose records lie around the range from BASE on."""

    def __init__(self, folder: Path, config: Config, **settings: Any) -> None:
        super().__init__(folder, config, overlap=OVERLAP_MS / 1000, **settings)
        self.workers: list[_Worker] = []
        self.current: _Worker | None = None
        self.stops_in: int | None = None
        self.created: dict[Key, list[int]] = {}
        self.several: dict[Key, int] = {}
        self.breaks_at: int | None = None
        self.slices_per_worker = 4
        self._random = random.Random(0)
        self._work: Backfill | None = None
        self._stopping = False

    def runtime(self) -> Runtime:
        """As the world's; but workers take turns, waiting passes the turn on, and it can stop."""
        return replace(
            super().runtime(),
            wait=self._wait,
            stopping=lambda: self._stopping,
            spawn=self._spawn,
            stop=self._stop,
        )

    def _spawn(self, work: Callable[[], None], name: str) -> Task:
        if name.startswith("otel-alloy-"):
            return _Worker(self, work)
        return Beside(work, early=True)

    def _stop(self) -> None:
        self._stopping = True

    def _wait(self, seconds: float) -> bool:
        if not self._stopping:
            self.clock.wait(seconds)
            if seconds:
                self.pass_on()
        return self._stopping

    # Whose turn it is -----------------------------------------------------------------------------

    def next(self) -> None:
        alive = [worker for worker in self.workers if worker.is_alive()]
        if alive:
            self.current = self._random.choice(alive)
            self.current.turn()
            self.current = None

    def pass_on(self) -> None:
        if self.current is not None:
            self.current.pass_on()

    def step(self) -> None:
        self.pass_on()
        super().step()
        if self.stops_in is not None:
            self.stops_in -= 1
            if self.stops_in < 0 and self._work is not None:
                self._work.stop()
        if self.breaks_at is not None and self.requests >= self.breaks_at:
            self.log.config = Config(created_at_filter="ignored")

    # What happened --------------------------------------------------------------------------------

    def sent(self, items: Iterable[tuple[Key, bytes]]) -> None:
        """A span whose execution ended twice, farther apart than slices know, may come again."""
        items = list(items)
        known = len(self.mistakes)
        super().sent(items)
        if all(self.several.get(key, 0) > OVERLAP_MS for key, _ in items if key in self.done):
            del self.mistakes[known:]

    def accepted(self, items: Any) -> None:
        assert self.current is not None
        for key, _ in items:
            self.taken[key] = self.taken.get(key, 0) + 1
            self.current.unsettled.add(key)

    def slice_settled(self, piece: Slice, settlement: Settlement) -> None:
        """Nothing that the slice says is settled may be missing."""
        assert self.current is not None
        self.done |= self.current.unsettled
        self.current.unsettled.clear()
        progress = settlement.progress
        bound = piece.before
        if progress.window is not None:
            bound = progress.window[0] if progress.position is None else progress.position
        for key, times in self.created.items():
            missed = key not in self.taken and key not in self.poison
            if missed and key[0] == "log" and piece.start <= times[0] < bound:
                self.mistakes.append(f"slice {piece.number} passed {key}, which was not delivered")

    def backfill(self, attempt: Attempt) -> bool:
        """One process of the command; whether it came to the end."""
        self.dies_in, self.stops_in, self.dead = attempt.dies_in, attempt.stops_in, False
        self.faults = deque(attempt.faults)
        self.traces.script, self.logs.script = deque(attempt.traces), deque(attempt.logs)
        self.disk_full, self.ahead = attempt.disk_full, attempt.ahead
        self._random = random.Random(attempt.seed)
        inner = open_slices(f"sqlite:///{self.path}")
        assert isinstance(inner, StoredSlices)
        self._stopping = False
        self._work = Backfill(
            self.settings,
            self.settings.sources,
            Range(BASE, BASE + LENGTH, "the range"),
            workers=attempt.workers,
            dense_pages=attempt.dense_pages,
            slices_per_worker=self.slices_per_worker,
            factory=self.factory(),
            slices=lambda url: cast(Slices, _Slices(self, inner)),
        )
        try:
            return self._work.run()
        except Crash:
            self.crashes += 1
            return False
        except (RequestRefused, AccessRefused):  # at a page size of 1; before a good answer
            return False
        finally:
            self.dead = True  # whoever is left ends at the next step
            while any(worker.is_alive() for worker in self.workers):
                self.next()
            self.workers.clear()
            self.dies_in = self.stops_in = self._work = None
            inner.close()

    # What was there -------------------------------------------------------------------------------

    def end(self, at: int, message: str, model: Model | None = None) -> Model:
        """An execution ends so many ms after the range's begin."""
        model = model or self.execution()
        if BASE <= BASE + at < BASE + LENGTH:
            record = self.add(model, message, created=BASE + at)
            for key in (log_key(record, message), span_key(model.uuid)):
                self.created.setdefault(key, []).append(BASE + at)
        else:
            wanted = dict(self.wanted)
            self.add(model, message, created=BASE + at)
            self.wanted = wanted
        return model


EDGES = sorted({LENGTH * i // n for n in (2, 3, 4, 8, 12, 16) for i in range(n + 1)})
OFFSETS = st.integers(-7_000, LENGTH + 7_000) | st.builds(
    lambda edge, beside: edge + beside,
    st.sampled_from(EDGES),
    st.sampled_from([-OVERLAP_MS, -1_000, -1, 0, 1, OVERLAP_MS]),
)
MESSAGES = st.sampled_from(["executionFinished", "executionError"])
EVENTS = st.lists(
    st.tuples(
        OFFSETS,
        st.sampled_from(["one", "tied", "burst", "joined", "again", "steady", "much later"]),
        MESSAGES,
        st.integers(1, 8),
    ),
    min_size=3,
    max_size=30,
)
ATTEMPTS = st.lists(
    st.builds(
        Attempt,
        workers=st.integers(1, 4),
        seed=st.integers(0, 1000),
        dies_in=st.none() | st.integers(0, 300),
        stops_in=st.none() | st.integers(0, 300),
        faults=FAULTS,
        traces=st.just([]) | ANSWERS,
        logs=st.just([]) | ANSWERS,
        disk_full=st.sampled_from([0, 0, 2]),
        ahead=st.integers(0, 2),
        dense_pages=st.integers(1, 6),
    ),
    max_size=4,
)
APIS = st.sampled_from(
    [
        Config(),
        Config(max_limit=2),
        Config(total_items="all", current_page="constant"),
        Config(ignore_sort_order=True),
        Config(created_at_filter="ignored"),
        Config(created_at_filter="nothing"),
    ]
)


@pytest.mark.timeout(scaled(300, 7200))
@settings(max_examples=scaled(100, 5_000), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    events=EVENTS,
    attempts=ATTEMPTS,
    last=st.integers(1, 4),
    config=APIS,
    page_size=st.integers(1, 6),
    batch_size=st.integers(1, 5),
    breaks_at=st.none() | st.none() | st.integers(3, 40),
    slices_per_worker=st.sampled_from([1, 4]),
)
def test_any_backfill(
    events: list[tuple[int, str, str, int]],
    attempts: list[Attempt],
    last: int,
    config: Config,
    page_size: int,
    batch_size: int,
    breaks_at: int | None,
    slices_per_worker: int,
) -> None:
    """After any number of processes, each with its own number of workers, that died at any step,
    were stopped at any step, or met faults at both ends, one that comes to its end has delivered
    every end of the range, and none of another; once where nothing crashed, with the bytes that
    `run` gives it; and nothing that was settled again, unless the API stops filtering meanwhile."""
    attempts = [*attempts, Attempt(last, 7, None, None, dense_pages=2)]
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        history = History(Path(name), config, page_size=page_size, batch_size=batch_size)
        history.several = several = _fill(history, events)
        note(repr((events, attempts, config)))
        history.breaks_at, history.slices_per_worker = breaks_at, slices_per_worker
        for number, attempt in enumerate(attempts):
            done = history.backfill(attempt)
            assert done or number < len(attempts) - 1
            if done:
                break
        if breaks_at is None:
            assert not history.mistakes, "; ".join(history.mistakes[:5])
        for key, contents in history.bytes.items():
            assert len(contents) == 1 or key in several, f"{key} was repeated with other bytes"
        missing = [key for key in history.created if key not in history.taken]
        assert not missing, f"never delivered: {missing}"
        more = [key for key in history.taken if key not in history.created]
        assert not more, f"not of the range: {more}"
        calm = all(a.calm for a in attempts[: number + 1]) and breaks_at is None
        for key, count in history.taken.items():
            near = key not in several or several[key] <= OVERLAP_MS
            assert count == 1 or not calm or not near, f"{key} came {count} times"
        theirs = World(Path(name) / "other", since=BASE - 60_000)
        theirs.path.parent.mkdir()
        theirs.log = history.log
        theirs.log.config = Config()
        theirs.cycle()
        for key, contents in history.bytes.items():
            if key not in several:
                assert contents == theirs.bytes[key], f"{key} has other bytes than `run` gives it"
        theirs.close()


def _fill(history: History, events: list[tuple[int, str, str, int]]) -> dict[Key, int]:
    """Writes the history. The spans of executions that ended twice, and how far apart, ms."""
    several: dict[Key, int] = {}
    for at, kind, message, count in events:
        if kind in ("tied", "burst"):
            for number in range(count):
                history.end(at + number * (7 if kind == "burst" else 0), message)
        elif kind == "joined":
            model = history.execution()
            history.add(model, "executionStarted", created=BASE + at)
            history.end(at + 1000 * 4**count, message, model)
        elif kind == "one":
            history.end(at, message)
        else:
            apart = {"again": count * 700, "steady": 5_900, "much later": count * 30_000}[kind]
            for number in range(4 * count if kind == "steady" else 1):
                model = history.end(at + 9_000 * number, "executionError")
                history.end(at + 9_000 * number + apart, "executionFinished", model)
                several[span_key(model.uuid)] = apart
    return several
