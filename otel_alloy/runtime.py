"""Time, waiting, chance and threads: handed in at the top and passed down, never taken.

No other module asks the machine for the time, sleeps, draws a random number or starts a thread for
the receiver's work. So a test runs hours in milliseconds, in an order that it chooses.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

_LOOK_SECONDS = 0.5


class Task(Protocol):
    """Work that was started beside the caller's."""

    def join(self, timeout: float | None = None) -> None:
        """Waits for its end, at most `timeout` seconds."""
        ...

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        ...


@dataclass(frozen=True, slots=True)
class Runtime:
    """`clock`: Unix seconds. `monotonic`: seconds that never jump. `wait(seconds)`: sleeps, and
    says whether the end was asked for, at once where it was. `stopping()`: whether it was.
    `random()`: in [0, 1). `spawn(function, name)`: starts it in a thread of that name. `stop()`:
    asks for the end; from any thread or signal handler."""

    clock: Callable[[], float]
    monotonic: Callable[[], float]
    wait: Callable[[float], bool]
    stopping: Callable[[], bool]
    random: Callable[[], float]
    spawn: Callable[[Callable[[], None], str], Task]
    stop: Callable[[], None]

    def now_ms(self) -> int:
        """Our clock, Unix ms."""
        return int(self.clock() * 1000)

    def short_id(self) -> str:
        """Eight hexadecimal digits, to tell one piece of work from others in a log."""
        return f"{int(self.random() * 2**32):08x}"


def system_runtime(stop: threading.Event | None = None) -> Runtime:
    """The machine's own. `stop`: an event that ends every wait; None: one of its own."""
    event = stop or threading.Event()
    return Runtime(
        clock=time.time,
        monotonic=time.monotonic,
        wait=event.wait,
        stopping=event.is_set,
        random=random.Random().random,  # not shared with what the program seeds
        spawn=spawn_thread,
        stop=event.set,
    )


def runtime_within(outer: Runtime) -> Runtime:
    """A runtime for a part of the work: it ends with `outer`, and can end by itself before that."""
    stopped = threading.Event()

    def wait(seconds: float) -> bool:
        left = seconds
        while left > _LOOK_SECONDS and not stopped.is_set():
            if outer.wait(_LOOK_SECONDS):
                return True
            left -= _LOOK_SECONDS
        return stopped.is_set() or outer.wait(left)

    return replace(
        outer,
        wait=wait,
        stopping=lambda: stopped.is_set() or outer.stopping(),
        stop=stopped.set,
    )


def runtime_while(outer: Runtime, may: Callable[[], bool]) -> Runtime:
    """A runtime for a part of the work: it ends with `outer`, or as soon as it may not go on."""

    def wait(seconds: float) -> bool:
        left = seconds
        while left > _LOOK_SECONDS and may():
            if outer.wait(_LOOK_SECONDS):
                return True
            left -= _LOOK_SECONDS
        return not may() or outer.wait(left) or not may()

    return replace(outer, wait=wait, stopping=lambda: not may() or outer.stopping())


def spawn_thread(function: Callable[[], None], name: str) -> threading.Thread:
    """A daemon thread, started."""
    thread = threading.Thread(target=function, name=name, daemon=True)
    thread.start()
    return thread
