"""What this process holds leases on, as far as it knows; asked before each request and each write.

By its own monotonic clock a lease ends earlier than by the database's: it counts from before the
request that renewed it was sent, less a margin for what lies between looking and sending. What
threads ask here is answered from memory; only `fence` speaks to the database.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from otel_alloy.checkpoint.database import Connection
from otel_alloy.checkpoint.leases import fence
from otel_alloy.errors import LeaseLost

_MARGIN = 0.2
"""Of the lease time."""


@dataclass(slots=True)
class _Tenure:
    epoch: int
    until: float


class Tenures:
    """Of a replica called `owner`, with leases of so many `seconds`. Thread-safe."""

    def __init__(self, owner: str, seconds: float, monotonic: Callable[[], float]) -> None:
        self.owner = owner
        self._lasts = seconds * (1 - _MARGIN)
        self._monotonic = monotonic
        self._lock = Lock()
        self._held: dict[str, _Tenure] = {}

    def begin(self, unit: str, epoch: int, asked: float) -> None:
        """A lease was taken. `asked`: when that request was sent (monotonic)."""
        with self._lock:
            self._held[unit] = _Tenure(epoch, asked + self._lasts)

    def renewed(self, unit: str, epoch: int | None, asked: float) -> bool:
        """A lease was renewed, if it has this epoch still; False where it was not, so that it is
        lost."""
        with self._lock:
            held = self._held.get(unit)
            if held is None or held.epoch != epoch:
                self._held.pop(unit, None)
                return False
            held.until = asked + self._lasts
            return True

    def end(self, unit: str) -> int | None:
        """It is held no more; its epoch, where it was."""
        with self._lock:
            held = self._held.pop(unit, None)
            return None if held is None else held.epoch

    def units(self) -> list[str]:
        """All that is held, also what may have expired meanwhile."""
        with self._lock:
            return list(self._held)

    def holds(self, unit: str) -> bool:
        """Whether a request for it may be begun now."""
        with self._lock:
            held = self._held.get(unit)
            return held is not None and self._monotonic() < held.until

    def fence(self, db: Connection, unit: str) -> None:
        """See `leases.fence`."""
        with self._lock:
            held = self._held.get(unit)
        if held is None:
            raise LeaseLost(unit)
        fence(db, unit, self.owner, held.epoch)
