"""The receiver: a poller for each source, over one store.

What a poller does is in `poller.py`, when it has its turn in `schedule.py`.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from otel_alloy.checkpoint.store import Store, open_store
from otel_alloy.errors import AlloyReceiverError, ShutdownRequested
from otel_alloy.http_client import IDLE
from otel_alloy.pipeline.events import Observe, SourceStopped
from otel_alloy.pipeline.factory import Factory
from otel_alloy.pipeline.poller import Poller
from otel_alloy.pipeline.schedule import Schedule, Turns, parts
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

    def stop(self) -> None:
        """Asks for the end: what is in flight is settled, nothing new is begun."""
        self._runtime.stop()
        self._schedule.wake()

    def reload(self) -> None:
        """Has the folder of destinations read anew, if there is one; from any thread or signal
        handler."""
        self._reload()

    def run(self, *, once: bool = False) -> bool:
        """Receives until `stop`, or with `once` until everything there is now is settled; False
        where `stop` came before that.

        Raises Stop (ConfigurationError, AccessRefused, CheckpointError) or RequestRefused when a
        source cannot go on; other sources are finished first, or go on until `stop`.
        """
        for warning in self._settings.otlp.warnings:
            log.warning("%s", warning)
        store = open_store(self._settings.storage)
        factory = Factory(self._settings, self._runtime)
        distribution = factory.distribution(store, self._observe)
        if distribution is not None:
            factory = distribution.joined()
            self._reload = distribution.reload
            distribution.start()
        sources = self._settings.sources
        kept = IDLE if len(sources) <= _FEW_SOURCES else _KEPT_SECONDS
        with suppress(AlloyReceiverError):  # each source finds, and tells, what is wrong
            store.add({source.name: source.fingerprint for source in sources})
        sessions = [
            _Session(factory, source, store, self._observe, self._fail, once, part, kept)
            for source, part in zip(sources, parts(len(sources)), strict=True)
        ]
        turns = [Turns(f"otel-alloy-{one.name}", one.turn) for one in sessions]
        patience = self._settings.shutdown_timeout
        ended = self._schedule.run(turns, patience)
        if distribution is not None:
            ended = distribution.end(once, patience) and ended
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
        return not once or all(session.finished for session in sessions)

    def _fail(self, source: str, error: BaseException) -> None:
        reason = str(error)
        if not isinstance(error, AlloyReceiverError):
            reason = f"a defect ({type(error).__name__})"
        elif len(self._settings.sources) > 1:
            log.error("source %s stopped: %s", source, error, extra={"source": source})
        self._failures.append(error)
        self._observe(SourceStopped(source, reason))


class _Session:
    """One source from its first turn to its last. `fail` is told what ends it. `part`: of the
    interval, the first rest. `kept`: who rests for longer (s) holds no connections."""

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
    ) -> None:
        self._kept = kept
        self.name = source.name
        self.finished = False
        self._open = partial(Poller, factory, source, store, observe)
        self._fail = fail
        self._once = once
        self._part = part
        self._poller: Poller | None = None

    def turn(self) -> float | None:
        """One cycle; see `Turns.take`."""
        try:
            if self._poller is None:
                self._poller = self._open()
            rest = self._poller.turn(self._once, self._part)
            self._part = 1.0
            if not self._once:
                if rest > self._kept:
                    self._poller.rest()
                return rest
            self.finished = True
        except ShutdownRequested:
            pass
        except BaseException as error:
            self._fail(self.name, error)
        self.close()
        return None

    def close(self) -> None:
        """Closes the connections, if there are any."""
        poller, self._poller = self._poller, None
        if poller is not None:
            poller.close()


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
