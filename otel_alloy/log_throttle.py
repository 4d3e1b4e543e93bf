"""Repeated failures on one topic become one line in a while. Nothing else may live here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

FOLD_SECONDS = 30.0


class LogThrottle:
    """Lets one of many equal failures through in `seconds`, and counts the others. Thread-safe."""

    def __init__(
        self, clock: Callable[[], float] = monotonic, seconds: float = FOLD_SECONDS
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._topics: dict[object, _Topic] = {}
        self._lock = threading.Lock()

    def __call__(self, topic: object) -> str | None:
        """None where this one is to be kept back; else what to append to its line, which is empty
        unless others were kept back before it."""
        with self._lock:
            now = self._clock()
            if len(self._topics) >= 1000:
                self._topics.clear()
            known = self._topics.setdefault(topic, _Topic())
            known.total += 1
            known.held += 1
            if now - known.told < self._seconds:
                return None
            held, since = known.held, now - known.told
            known.told, known.held = now, 0
            return f" ({held} times in the last {since:.0f} s)" if held > 1 else ""

    def forget(self, topic: object) -> int:
        """It works again, so the next failure is told at once. How many failures there were."""
        with self._lock:
            known = self._topics.pop(topic, None)
            return 0 if known is None else known.total


@dataclass(slots=True)
class _Topic:
    told: float = float("-inf")
    held: int = 0
    total: int = 0
