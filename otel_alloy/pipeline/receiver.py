"""The receiver: a session for each source, over one store.

What a session does is in `session.py` and `poller.py`, when it has its turn in `schedule.py`. Where
the storage is shared by replicas, sessions come and go with the leases that this one holds
(`replicas.py`); else each source has one from the beginning to the end.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace

from otel_alloy.checkpoint.store import Store, open_store
from otel_alloy.errors import AlloyReceiverError
from otel_alloy.http_client import IDLE
from otel_alloy.pipeline.distribution import Distribution
from otel_alloy.pipeline.events import Observe, SourceStopped, tell_all
from otel_alloy.pipeline.factory import Budgets, Factory
from otel_alloy.pipeline.replicas import Replicas
from otel_alloy.pipeline.schedule import Schedule, Turns, parts
from otel_alloy.pipeline.session import Session, Tenancy
from otel_alloy.runtime import Runtime, Task, system_runtime
from otel_alloy.settings.models import Settings, SourceSettings

log = logging.getLogger("otel_alloy")

_FEW_SOURCES = 20
_KEPT_SECONDS = 5.0
"""Where there are more sources, one that rests longer holds no connections: files are as few as
busy sources, not as all of them. Fewer keep theirs, as TLS costs ten times a request."""


class Receiver:
    """Receives the executions of every source in `settings` and delivers them.

    `run` blocks; `stop` may be called from any thread or signal handler. `observe` is told what
    happens (`otel_alloy.pipeline.events`) from the receiver's threads, and must not block.
    """

    def __init__(self, settings: Settings, *, observe: Observe | None = None) -> None:
        self._settings = settings
        self._observe: Observe = observe or (lambda event: None)
        self._runtime = system_runtime()
        self._schedule = Schedule(self._runtime)
        self._failures: list[BaseException] = []
        self._reload: Callable[[], None] = lambda: None
        self._drain: Callable[[], None] = lambda: None

    def stop(self) -> None:
        """Asks for the end: what is in flight is settled, nothing new is begun."""
        self._runtime.stop()
        self._drain()
        self._schedule.wake()

    def reload(self) -> None:
        """Has the folder of destinations read anew, if there is one; from any thread or signal
        handler."""
        self._reload()

    def run(self, *, once: bool = False) -> bool:
        """Receives until `stop`, or with `once` until everything there is now is settled; False
        where `stop` came before that, or while something was on its way that then was not settled:
        the next start sends it again.

        Raises Stop (ConfigurationError, AccessRefused, CheckpointError) or RequestRefused when a
        source cannot go on; other sources are finished first, or go on until `stop`.
        """
        for warning in self._settings.warnings:
            log.warning("%s", warning)
        settings, runtime = self._settings, self._runtime
        shared = Replicas(settings, runtime, self._observe) if settings.shared else None
        store = open_store(settings.storage, fence=None if shared is None else shared.fence)
        factory = Factory(settings, runtime)
        if shared is not None:
            self._observe = tell_all(shared.watch, self._observe)
            factory = replace(factory, given_budgets=Budgets(settings, runtime, store.shared))
        distribution = factory.distribution(store, self._observe, shared)
        if distribution is not None:
            factory = distribution.joined()
            self._reload = distribution.reload
            distribution.start()
        sources = settings.sources
        kept = IDLE if len(sources) <= _FEW_SOURCES else _KEPT_SECONDS
        with suppress(AlloyReceiverError):  # each source finds, and tells, what is wrong
            store.add({source.name: source.fingerprint for source in sources})
        part = dict(zip((one.name for one in sources), parts(len(sources)), strict=True))

        def open_session(source: SourceSettings, tenancy: Tenancy) -> Session:
            return Session(
                factory,
                source,
                store,
                self._observe,
                self._fail,
                once,
                part[source.name],
                kept,
                tenancy,
            )

        patience = settings.shutdown_timeout
        if shared is None:
            sessions = [open_session(source, Tenancy()) for source in sources]
            ended = self._schedule.run([_turns(one) for one in sessions], patience)
        else:
            sessions = []
            ended = self._run_shared(shared, store, open_session, distribution, sessions, once)
        if distribution is not None:
            ended = distribution.end(once, patience) and ended
        if shared is not None:
            shared.stop(patience, all_ended=ended)
        if ended:
            for session in sessions:
                session.close()
            store.close()
        else:
            log.warning(
                "gave up waiting for the last batch after %g s; it will be sent again", patience
            )
        if self._failures:
            raise self._failures[0]
        unsettled = [one.name for one in sessions if one.unsettled]
        if shared is not None:  # what was on its way here, whoever has the source delivers
            unsettled = [name for name in unsettled if not shared.elsewhere(name)]
        settled = ended and not (runtime.stopping() and unsettled)
        if shared is not None:
            return settled and not (once and runtime.stopping())
        return settled and (not once or all(session.finished for session in sessions))

    def _run_shared(
        self,
        shared: Replicas,
        store: Store,
        open_session: Callable[[SourceSettings, Tenancy], Session],
        distribution: Distribution | None,
        sessions: list[Session],
        once: bool,
    ) -> bool:
        """As `Schedule.run`, for the sources whose leases this process holds, as they come."""

        def begin(source: SourceSettings, tenancy: Tenancy) -> Session:
            session = open_session(source, tenancy)
            sessions[:] = [one for one in sessions if one.name != source.name] + [session]
            self._schedule.add(_turns(session))
            return session

        self._drain = shared.drain
        if self._runtime.stopping():
            shared.drain()
        destinations: Callable[[], Collection[str]] = tuple
        if distribution is not None:
            destinations = distribution.names
        shared.start(store.shared, begin, destinations, self._schedule.wake)
        return self._schedule.run(
            [], self._settings.shutdown_timeout, lambda: shared.left(once=once)
        )

    def _fail(self, source: str, error: BaseException) -> None:
        reason = str(error)
        if not isinstance(error, AlloyReceiverError):
            reason = f"a defect ({type(error).__name__})"
        elif len(self._settings.sources) > 1:
            log.error("source %s stopped: %s", source, error, extra={"source": source})
        self._failures.append(error)
        self._observe(SourceStopped(source, reason, type(error).__name__))


def _turns(session: Session) -> Turns:
    return Turns(f"otel-alloy-{session.name}", session.turn)


def wait_for_end(tasks: Sequence[Task], runtime: Runtime, patience: float) -> bool:
    """Waits for the end of all; False where they were still at work `patience` seconds after the
    end was asked for."""
    deadline: float | None = None
    while any(task.is_alive() for task in tasks):
        for task in tasks:
            task.join(timeout=0.2)
        if runtime.stopping():
            deadline = deadline or runtime.monotonic() + patience
            if runtime.monotonic() > deadline:
                return False
    return True


def tune_garbage_collector() -> None:
    """For a process that only receives: what is loaded now stays, so the cycle collector need not
    look at it again; and a page is ten thousand objects at once, none of them in a cycle, so it
    looks ten times as seldom as a page comes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
