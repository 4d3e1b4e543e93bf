"""Leases that a command holds for a while: what it took, renewed from one thread until given back.

`otel_alloy.pipeline.keeper` shares work out among replicas; here a process simply keeps what it has
claimed. PostgreSQL only. What a unit is, and who may take it, is not known here.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event, Lock

from otel_alloy.checkpoint.database import Connection, Database
from otel_alloy.checkpoint.leases import Leases
from otel_alloy.checkpoint.tenures import Tenures
from otel_alloy.errors import AlloyReceiverError, CheckpointError
from otel_alloy.runtime import Runtime, system_runtime

_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Terms:
    """How leases are kept: for so many `seconds` unless they are renewed."""

    seconds: float = 15.0
    runtime: Runtime = field(default_factory=system_runtime)

    def tenures(self) -> Tenures:
        """Of a new owner."""
        name = f"{socket.gethostname()}/{self.runtime.short_id()}"
        return Tenures(name, self.seconds, self.runtime.monotonic)


class Holding:
    """What `tenures` says that this process holds is renewed until `close`. Thread-safe."""

    def __init__(self, database: Database, terms: Terms, tenures: Tenures) -> None:
        self._leases = Leases(database, terms.seconds)
        self._seconds = terms.seconds
        self._monotonic = terms.runtime.monotonic
        self._tenures = tenures
        self._lock = Lock()
        self._free: dict[str, int] = {}  # given back here, perhaps not yet in the database
        self._ending = Event()
        self._task = terms.runtime.spawn(self._renew, "otel-alloy-leases")

    def take(self, unit: str) -> bool:
        """Takes a unit; False where another process has it. Raises CheckpointError."""
        self._leases.declare([unit])
        asked = self._monotonic()
        for taken in self._leases.claim(self._tenures.owner, [unit], 1):
            self._tenures.begin(unit, taken.epoch, asked)
            return True
        return False

    def give(self, unit: str) -> None:
        """Gives it back, as soon as the database answers: anybody may take it then."""
        epoch = self._tenures.end(unit)
        if epoch is None:
            return
        with self._lock:
            self._free[unit] = epoch
        with suppress(AlloyReceiverError):
            self._give_back()

    def close(self) -> None:
        """Gives all back; where the database does not answer, it expires by itself."""
        self._ending.set()
        self._task.join(_PATIENCE)
        for unit in self._tenures.units():
            self.give(unit)

    def _renew(self) -> None:
        rest = self._seconds / 3
        while not self._ending.wait(rest):
            try:
                self._give_back()
                held = self._tenures.units()
                asked = self._monotonic()
                epochs = self._leases.renew(self._tenures.owner, {}, None) if held else {}
                for unit in held:
                    self._tenures.renewed(unit, epochs.get(unit), asked)
                rest = self._seconds / 3
            except AlloyReceiverError:
                rest = self._seconds / 15

    def _give_back(self) -> None:
        with self._lock:
            free = dict(self._free)
        self._leases.release(self._tenures.owner, free)
        with self._lock:
            for unit, epoch in free.items():
                if self._free.get(unit) == epoch:
                    del self._free[unit]


@dataclass(frozen=True, slots=True)
class Held:
    """A unit that is held. `check` raises LeaseLost, in the transaction of a write, where it is no
    more; `holds`: whether a request may be begun."""

    tenures: Tenures
    unit: str

    def check(self, db: Connection) -> None:
        """See `Hold.check`."""
        self.tenures.fence(db, self.unit)

    def holds(self) -> bool:
        """See `Hold.holds`."""
        return self.tenures.holds(self.unit)


@contextmanager
def held(
    database: Database, unit: str, taken: str, remedy: str, terms: Terms | None
) -> Iterator[Held]:
    """See `Database.hold`: a lease."""
    terms = terms or Terms()
    tenures = terms.tenures()
    holding = Holding(database, terms, tenures)
    try:
        if not holding.take(unit):
            raise CheckpointError(taken, remedy)
        yield Held(tenures, unit)
    finally:
        holding.close()
