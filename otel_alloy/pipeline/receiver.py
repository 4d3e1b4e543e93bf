"""The receiver: a poller for each source, each in a thread of its own, over one store.

What a poller does is in `poller.py`.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from functools import partial

from otel_alloy.checkpoint.store import Store, open_store
from otel_alloy.errors import AlloyReceiverError, ShutdownRequested
from otel_alloy.pipeline.events import Observe, SourceStopped
from otel_alloy.pipeline.factory import Factory
from otel_alloy.pipeline.poller import Poller
from otel_alloy.runtime import Runtime, Task, system_runtime
from otel_alloy.settings.models import Settings, SourceSettings

log = logging.getLogger("otel_alloy")


class Receiver:
    """Receives the executions of every source in `settings` and delivers them.

    `run` blocks; `stop` may be called from any thread or signal handler. `observe` is told what
    happens (`otel_alloy.pipeline.events`) from the receiver's threads, and must not block.
    """

    def __init__(self, settings: Settings, *, observe: Observe | None = None) -> None:
        self._settings = settings
        self._observe: Observe = observe or (lambda event: None)
        self._runtime = system_runtime()
        self._failures: list[BaseException] = []
        self._finished: list[str] = []

    def stop(self) -> None:
        """Asks for the end: what is in flight is settled, nothing new is begun."""
        self._runtime.stop()

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
        tasks = [
            self._runtime.spawn(
                partial(self._run_source, factory, source, store, once),
                f"otel-alloy-{source.name}",
            )
            for source in self._settings.sources
        ]
        patience = self._settings.shutdown_timeout
        if wait_for_end(tasks, self._runtime, patience):
            store.close()
        else:
            log.warning(
                "gave up waiting for the last batch after %g s; it will be sent again", patience
            )
        if self._failures:
            raise self._failures[0]
        return not once or len(self._finished) == len(self._settings.sources)

    def _run_source(
        self, factory: Factory, source: SourceSettings, store: Store, once: bool
    ) -> None:
        try:
            poller = Poller(factory, source, store, self._observe)
            try:
                if poller.run(once):
                    self._finished.append(source.name)
            finally:
                poller.close()
        except ShutdownRequested:
            return
        except AlloyReceiverError as error:
            if len(self._settings.sources) > 1:
                log.error(
                    "source %s stopped: %s", source.name, error, extra={"source": source.name}
                )
            self._failures.append(error)
            self._observe(SourceStopped(source.name, str(error)))
        except BaseException as error:
            self._failures.append(error)
            self._observe(SourceStopped(source.name, f"a defect ({type(error).__name__})"))


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
