"""One source from its first turn to its last: alone, or as long as its lease is held.

Where replicas share the sources, a session is begun when the lease is taken. It ends when the lease
is lost, before its next request to either end; and when it is to be given back, after its turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock

from otel_alloy.checkpoint.store import Store
from otel_alloy.errors import LeaseLost, ShutdownRequested, Unsettled
from otel_alloy.otlp.while_held import while_held
from otel_alloy.pipeline.events import Observe
from otel_alloy.pipeline.factory import Factory
from otel_alloy.pipeline.poller import Poller
from otel_alloy.runtime import runtime_while
from otel_alloy.settings.models import SourceSettings


@dataclass(frozen=True, slots=True)
class Tenancy:
    """What a session may do while it goes on; by itself, that of a source that nobody shares.
    `within`: the factory of its parts. `wanted`: whether it is to end when it rests. `ended`: is
    told that it has; True where this process is done with the source."""

    within: Callable[[Factory], Factory] = lambda factory: factory
    wanted: Callable[[], bool] = lambda: False
    ended: Callable[[bool], None] = lambda done: None


class Session:
    """`fail` is told what ends it. `part`: of the interval, the first rest. `kept`: who rests for
    longer (s) holds no connections."""

    def __init__(
        self,
        factory: Factory,
        source: SourceSettings,
        store: Store,
        observe: Observe,
        fail: Callable[[str, BaseException], None],
        once: bool,
        part: float,
        kept: float,
        tenancy: Tenancy | None = None,
    ) -> None:
        self._kept = kept
        self.name = source.name
        self.finished = False
        self.unsettled = False
        """Whether it ended while a batch was on its way."""
        self._tenancy = tenancy or Tenancy()
        factory = self._tenancy.within(factory)
        self._open = partial(Poller, factory, source, store, observe)
        self._fail = fail
        self._once = once
        self._part = part
        self._poller: Poller | None = None
        self._lock = Lock()
        self._busy = self._ended = self._done = False

    def turn(self) -> float | None:
        """One cycle; see `Turns.take`."""
        with self._lock:
            if self._ended:
                return None
            self._busy = True
        rest = self._cycle()
        with self._lock:
            self._busy = False
            if rest is not None and self._tenancy.wanted():
                rest = None
            self._ended = rest is None
        if rest is None:
            self.close()
            self._tenancy.ended(self._done)
        return rest

    def end(self) -> bool:
        """Ends it if it rests; whether it has ended."""
        with self._lock:
            if self._busy:
                return False
            self._ended = True
        self.close()
        return True

    def close(self) -> None:
        """Closes the connections, if there are any."""
        poller, self._poller = self._poller, None
        if poller is not None:
            poller.close()

    def _cycle(self) -> float | None:
        """For how many seconds to rest; None where it was the last one."""
        try:
            if self._poller is None:
                self._poller = self._open()
            rest = self._poller.turn(self._once, self._part)
            self._part = 1.0
            if not self._once:
                if rest > self._kept:
                    self._poller.rest()
                return rest
            self.finished = self._done = True
        except Unsettled:
            self.unsettled = True
        except (ShutdownRequested, LeaseLost):
            pass
        except BaseException as error:
            self._done = True
            self._fail(self.name, error)
        return None


def leased(
    holds: Callable[[], bool], wanted: Callable[[], bool], ended: Callable[[bool], None]
) -> Tenancy:
    """That of a source that replicas share. `holds`: whether a request may be begun now."""

    def within(factory: Factory) -> Factory:
        return replace(
            factory,
            runtime=runtime_while(factory.runtime, holds),
            endpoint=lambda settings, runtime: while_held(
                factory.endpoint(settings, runtime), holds
            ),
            given_budgets=factory.budgets,
        )

    return Tenancy(within, wanted, ended)
