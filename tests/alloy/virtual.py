"""Time that moves only when somebody waits."""

from __future__ import annotations

from dataclasses import replace

from otel_alloy.runtime import system_runtime


class VirtualTime:
    """A `runtime` whose clocks both show `now` (seconds) and whose `random` is always `chance`.
    `waits`: every wait so far. From the wait number `stop_at` on, the end is asked for."""

    def __init__(self, now: float = 100.0, chance: float = 1.0) -> None:
        self.now = now
        self.chance = chance
        self.waits: list[float] = []
        self.stop_at: int | None = None
        self.runtime = replace(
            system_runtime(),
            clock=lambda: self.now,
            monotonic=lambda: self.now,
            wait=self._wait,
            stopping=self._stopping,
            random=lambda: self.chance,
        )

    def _wait(self, seconds: float) -> bool:
        self.now += seconds
        self.waits.append(seconds)
        return self._stopping()

    def _stopping(self) -> bool:
        return self.stop_at is not None and len(self.waits) >= self.stop_at
