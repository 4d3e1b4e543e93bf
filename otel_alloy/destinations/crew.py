"""Threads for short work: as few as are busy at once, and never more than allowed.

A thread waits for more work for a while, then ends. Nothing here knows what the work is.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Lock

from otel_alloy.runtime import Runtime

_IDLE_SECONDS = 30.0
_THREADS = 64


class Crew:
    """`most`: how many threads there may be. `idle`: after so many seconds without work one ends.
    `begin` is called from one thread only."""

    def __init__(self, name: str, most: int, runtime: Runtime, idle: float = _IDLE_SECONDS) -> None:
        self._name = name
        self._most = most
        self._runtime = runtime
        self._idle_seconds = idle
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._lock = Lock()
        self._threads = 0
        self._free = 0  # threads that wait, less the work that waits for them

    def begin(self, work: Callable[[], None]) -> bool:
        """Has it done, which must not raise; False where all threads are busy, or the machine gives
        no more."""
        with self._lock:
            spawn = self._free <= 0
            if spawn and self._threads >= self._most:
                return False
            self._free -= 0 if spawn else 1
            self._threads += 1 if spawn else 0
        if spawn:
            try:
                self._runtime.spawn(lambda: self._run(work), self._name)
            except RuntimeError:
                with self._lock:
                    self._threads -= 1
                return False
        else:
            self._work.put(work)
        return True

    def _run(self, work: Callable[[], None]) -> None:
        while True:
            work()
            with self._lock:
                self._free += 1
            try:
                work = self._work.get(timeout=self._idle_seconds)
            except Empty:
                with self._lock:
                    if self._free > 0:  # nothing was promised to it meanwhile
                        self._free -= 1
                        self._threads -= 1
                        return
                work = self._work.get()


def open_crew(runtime: Runtime) -> Crew:
    """That of the destinations."""
    return Crew("otel-alloy-destination", _THREADS, runtime)
