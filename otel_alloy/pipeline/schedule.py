"""Whose turn it is: a source that rests holds no thread, one that is busy has one of its own.

One heap of who is due when, looked after by the thread that calls `run`. A turn that is due gets a
thread for as long as it takes, so a slow or hanging source holds up no other; how long it rests
then is its own word. Sources may come while others are at work, as where replicas share them. What
a turn does is nobody's business here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import count
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


@dataclass(frozen=True, slots=True)
class _Came:
    """Whose turn has ended, or who is `new`, and for how many seconds to rest; None: for good."""

    turns: Turns
    rest: float | None
    new: bool = False


class Schedule:
    """Gives turns until the end is asked for of `runtime`; `wake` has to be called then."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        # Its `put` may interrupt itself, so a signal handler may call it.
        self._came: SimpleQueue[_Came | None] = SimpleQueue()

    def wake(self) -> None:
        """Has `run` look at once whether the end was asked for; from any thread or signal handler,
        also before `run`."""
        self._came.put(None)

    def add(self, turns: Turns) -> None:
        """Gives these turns too, from now on; from any thread, also before `run`."""
        self._came.put(_Came(turns, 0.0, new=True))

    def run(
        self, all_turns: Sequence[Turns], patience: float, lasts: Callable[[], bool] = lambda: False
    ) -> bool:
        """Gives each a turn at once, then whenever its rest is over, until each has had its last
        one and nothing more is to come (`lasts`), or the end is asked for and no turn goes on.
        False where one still did `patience` seconds after that."""
        runtime, order = self._runtime, count()
        due = [(runtime.monotonic(), next(order), turns) for turns in all_turns]
        busy = 0
        give_up: float | None = None
        while True:
            now = runtime.monotonic()
            if runtime.stopping():
                give_up = now + patience if give_up is None else give_up
                if busy and now >= give_up:
                    return False
                due.clear()
            if not busy and not due and (runtime.stopping() or not lasts()):
                return True
            begin = threading.Event()
            while due and due[0][0] <= now:
                _, _, turns = heappop(due)
                if self._begin(turns, begin):
                    busy += 1
                else:
                    heappush(due, (now + _NO_THREAD_SECONDS, next(order), turns))
            begin.set()
            wake_at = due[0][0] if due else give_up
            came = self._wait(None if wake_at is None else max(0.0, wake_at - now))
            if came is not None:
                busy -= not came.new
                if came.rest is not None:
                    heappush(due, (runtime.monotonic() + came.rest, next(order), came.turns))

    def _begin(self, turns: Turns, begin: threading.Event) -> bool:
        """Has a turn taken from `begin` on: who starts a thread waits until it runs, which takes
        long where others work already. False where the machine gives no thread at the moment."""
        try:
            self._runtime.spawn(partial(self._turn, turns, begin), turns.name)
        except RuntimeError as error:
            log.warning("%s: %s; trying again", turns.name, error)
            return False
        return True

    def _turn(self, turns: Turns, begin: threading.Event) -> None:
        rest: float | None = None
        try:
            begin.wait()
            rest = turns.take()
        finally:
            self._came.put(_Came(turns, rest))

    def _wait(self, seconds: float | None) -> _Came | None:
        """The next turn that has ended, or who has come; None where neither is so in time, or
        somebody wakes."""
        try:
            return self._came.get(timeout=seconds)
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
