"""Equal failures in a row make one log line now and then. Nothing else may live here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

THROTTLE_SECONDS = 30.0
_MOST_TOPICS = 1000


class LogThrottle:
    """Admits one of many equal failures in `seconds` and counts the others. Thread-safe.

    `monotonic`: seconds that never jump, as `Runtime.monotonic`.
    """

    def __init__(self, monotonic: Callable[[], float], seconds: float = THROTTLE_SECONDS) -> None:
        self._monotonic = monotonic
        self._seconds = seconds
        self._topics: dict[object, _Topic] = {}
        self._lock = threading.Lock()

    def admit(self, topic: object) -> str | None:
        """Counts a failure. None where it is to make no line; else what to append to its line,
        which tells how many were held back before it and is empty where none were."""
        with self._lock:
            now = self._monotonic()
            if len(self._topics) >= _MOST_TOPICS:
                self._topics.clear()
            known = self._topics.setdefault(topic, _Topic())
            known.total += 1
            known.held += 1
            if now - known.admitted < self._seconds:
                return None
            held, since = known.held, now - known.admitted
            known.admitted, known.held = now, 0
            return f" ({held} times in the last {since:.0f} s)" if held > 1 else ""

    def forget(self, topic: object) -> int:
        """It works again, so the next failure is admitted at once. How many failures there were."""
        with self._lock:
            known = self._topics.pop(topic, None)
            return 0 if known is None else known.total


@dataclass(slots=True)
class _Topic:
    admitted: float = float("-inf")
    held: int = 0
    total: int = 0
