"""Whose turn it is: a source that rests holds no thread, one that is busy has one of its own.

One heap of who is due when, looked after by the thread that calls `run`. A turn that is due gets a
thread for as long as it takes, so a slow or hanging source holds up no other; how long it rests
then is its own word. What a turn does is nobody's business here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from queue import Empty, SimpleQueue

from otel_alloy.runtime import Runtime

log = logging.getLogger("otel_alloy")

_NO_THREAD_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Turns:
    """The turns of one source. `take` does what is due, and says for how many seconds to rest, None
    where it was the last one; it does not raise. `name`: of the thread that does it."""

    name: str
    take: Callable[[], float | None]


class Schedule:
    """Gives turns until the end is asked for of `runtime`; `wake` has to be called then."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        # Its `put` may interrupt itself, so a signal handler may call it.
        self._ended: SimpleQueue[tuple[int, float | None] | None] = SimpleQueue()

    def wake(self) -> None:
        """Has `run` look at once whether the end was asked for; from any thread or signal handler,
        also before `run`."""
        self._ended.put(None)

    def run(self, all_turns: Sequence[Turns], patience: float) -> bool:
        """Gives each a turn at once, then whenever its rest is over, until each has had its last
        one, or the end is asked for and no turn goes on. False where one still did `patience`
        seconds after that."""
        runtime = self._runtime
        due = [(runtime.monotonic(), number) for number in range(len(all_turns))]
        busy = 0
        give_up: float | None = None
        while True:
            now = runtime.monotonic()
            if runtime.stopping():
                give_up = now + patience if give_up is None else give_up
                if busy and now >= give_up:
                    return False
                due.clear()
            if not busy and not due:
                return True
            begin = threading.Event()
            while due and due[0][0] <= now:
                _, number = heappop(due)
                if self._begin(all_turns[number], number, begin):
                    busy += 1
                else:
                    heappush(due, (now + _NO_THREAD_SECONDS, number))
            begin.set()
            wake_at = due[0][0] if due else give_up
            ended = self._wait(None if wake_at is None else max(0.0, wake_at - now))
            if ended is not None:
                number, rest = ended
                busy -= 1
                if rest is not None:
                    heappush(due, (runtime.monotonic() + rest, number))

    def _begin(self, turns: Turns, number: int, begin: threading.Event) -> bool:
        """Has a turn taken from `begin` on: who starts a thread waits until it runs, which takes
        long where others work already. False where the machine gives no thread at the moment."""
        try:
            self._runtime.spawn(partial(self._turn, turns, number, begin), turns.name)
        except RuntimeError as error:
            log.warning("%s: %s; trying again", turns.name, error)
            return False
        return True

    def _turn(self, turns: Turns, number: int, begin: threading.Event) -> None:
        rest: float | None = None
        try:
            begin.wait()
            rest = turns.take()
        finally:
            self._ended.put((number, rest))

    def _wait(self, seconds: float | None) -> tuple[int, float | None] | None:
        """The next turn that has ended; None where none does in time, or somebody wakes."""
        try:
            return self._ended.get(timeout=seconds)
        except Empty:
            return None


def parts(number: int) -> list[float]:
    """Which part of an interval lies between the first turn of each of so many sources and its
    second one: all begin together, so that each is heard at once, and are then spread evenly."""
    return [(at + 1) / number for at in range(number)]


def rest_after(taken: float, interval: float, part: float = 1.0) -> float:
    """For how long (s) to rest after a turn that has taken so long, so that the next one begins
    this `part` of the interval after it began; where that is over already, though not the whole
    interval, an interval after that: whoever was slow at the start keeps the place of its own."""
    rest = interval * part - taken
    if rest < 0 and taken < interval:
        rest += interval
    return max(0.0, rest)
