"""This process as one of several that share the work of one database.

Here leases become work: a source whose lease is taken gets a session, a destination is delivered
to, and either ends with its lease. Who works at what is decided by the keeper.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping
from functools import partial
from threading import Lock

from otel_alloy.checkpoint.database import Database, destination_unit, source_unit
from otel_alloy.checkpoint.leases import Leases, Presence
from otel_alloy.checkpoint.tenures import Tenures
from otel_alloy.pipeline.events import CycleEnded, Observe
from otel_alloy.pipeline.keeper import Keeper
from otel_alloy.pipeline.session import Session, Tenancy, leased
from otel_alloy.runtime import Runtime
from otel_alloy.settings.models import Settings, SourceSettings
from otel_alloy.version import __version__

_WRITTEN = 0.9
"""Of the lease time: others look a little later than a lease expires, and are to have taken the
work within that time."""


class Replicas:
    """Its `fence` belongs to the store; `open` comes when that is open. Then `begin` is asked for a
    session whenever the lease of a source is taken, and `destinations` for all that there are."""

    def __init__(self, settings: Settings, runtime: Runtime, observe: Observe) -> None:
        name = f"{socket.gethostname()}/{runtime.short_id()}"
        self._runtime = runtime
        self._observe = observe
        self._present = Presence(__version__, settings.health_endpoint)
        self._seconds = settings.lease * _WRITTEN
        self._tenures = Tenures(name, self._seconds, runtime.monotonic)
        self.fence = self._tenures.fence
        self._sources = {source_unit(one.name): one for one in settings.sources}
        self._lock = Lock()
        self._sessions: dict[str, Session] = {}
        self._settled: dict[str, int] = {}
        self._destinations: Callable[[], Collection[str]] = tuple
        self._keeper: Keeper | None = None

    def start(
        self,
        database: Database,
        begin: Callable[[SourceSettings, Tenancy], Session],
        destinations: Callable[[], Collection[str]],
        looked: Callable[[], None],
    ) -> None:
        """Begins to take work. `looked`: is called after each look."""
        self._begin = begin
        self._destinations = destinations
        self._keeper = Keeper(
            Leases(database, self._seconds),
            self._tenures,
            self._present,
            self._units,
            self,
            self._seconds,
            self._runtime,
            self._observe,
            looked,
        )
        self._keeper.start()

    def drain(self) -> None:
        """Takes nothing more, and gives back what rests; from any thread or signal handler."""
        if self._keeper is not None:
            self._keeper.drain()

    def stop(self, patience: float, *, all_ended: bool) -> None:
        """Gives the rest back, where nobody works at it any more, and takes part no longer."""
        if self._keeper is not None:
            self._keeper.stop(patience, all_ended=all_ended)

    def left(self, *, once: bool) -> bool:
        """Whether there are sources that this process may still have to work at; with `once`, not
        those that others work at."""
        if self._keeper is None:
            return False
        return bool(self._sources.keys() & self._keeper.left(others=not once))

    def elsewhere(self, source: str) -> bool:
        """Whether another replica works at a source, as far as the database could be asked."""
        return self._keeper is not None and self._keeper.elsewhere(source_unit(source))

    def working(self) -> list[str]:
        """See `Tenant.working`."""
        if self._keeper is None:  # destinations are looked at from before `start` on
            return []
        units = self._keeper.working()
        return [name for name in self._destinations() if destination_unit(name) in units]

    def delivers(self, destination: str) -> bool:
        """See `Tenant.delivers`."""
        return self._tenures.holds(destination_unit(destination))

    def wanted(self, destination: str) -> bool:
        """See `Tenant.wanted`."""
        assert self._keeper is not None
        return self._keeper.wanted(destination_unit(destination))

    def left_alone(self, destination: str) -> None:
        """See `Tenant.left_alone`."""
        assert self._keeper is not None
        self._keeper.ended(destination_unit(destination))

    def _units(self) -> list[str]:
        return [*self._sources, *map(destination_unit, self._destinations())]

    def watch(self, event: object) -> None:
        """Takes an event of the receiver."""
        if isinstance(event, CycleEnded):
            self._settled[source_unit(event.source)] = event.before

    # What the keeper asks for ---------------------------------------------------------------------

    def begin(self, unit: str) -> None:
        """See `Work.begin`. A destination is found by the dispatcher's next look."""
        source = self._sources.get(unit)
        if source is None:
            return
        assert self._keeper is not None
        keeper = self._keeper
        tenancy = leased(
            partial(self._tenures.holds, unit),
            partial(keeper.wanted, unit),
            lambda done: keeper.ended(unit, refused=done),
        )
        with self._lock:
            self._sessions[unit] = self._begin(source, tenancy)

    def rests(self, unit: str) -> bool:
        """See `Work.rests`. A destination is given back by the dispatcher's next look."""
        with self._lock:
            session = self._sessions.get(unit)
        return session is not None and session.end()

    def settled(self) -> Mapping[str, int]:
        """See `Work.settled`."""
        return dict(self._settled)
