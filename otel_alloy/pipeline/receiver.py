"""The receiver: a loop per source, each in a thread of its own, over one store.

What a loop does is in `source_loop.py`.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Sequence

from otel_alloy.checkpoint.store import Store, open_store
from otel_alloy.errors import AlloyReceiverError, ShutdownRequested
from otel_alloy.pipeline.events import Observe, SourceStopped
from otel_alloy.pipeline.poller import Poller
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
        self._stop = threading.Event()

    def stop(self) -> None:
        """Asks for the end: what is in flight is settled, nothing new is begun."""
        self._stop.set()

    def run(self, *, once: bool = False) -> None:
        """Receives until `stop`, or with `once` until everything there is now is settled.

        Raises Stop (ConfigurationError, AccessRefused, CheckpointError) or RequestRefused when a
        source cannot go on; other sources are finished first, or go on until `stop`.
        """
        store = open_store(self._settings.storage)
        failures: list[BaseException] = []
        threads = [
            threading.Thread(
                target=self._run_source,
                args=(source, store, once, failures),
                name=f"otel-alloy-{source.name}",
                daemon=True,
            )
            for source in self._settings.sources
        ]
        if run_to_end(threads, self._stop, self._settings.shutdown_timeout, time.monotonic):
            store.close()
        else:
            log.warning(
                "gave up waiting for the last batch after %g s; it will be sent again",
                self._settings.shutdown_timeout,
            )
        if failures:
            raise failures[0]

    def _run_source(
        self, source: SourceSettings, store: Store, once: bool, failures: list[BaseException]
    ) -> None:
        try:
            loop = Poller(self._settings, source, store, self._stop, self._observe)
            try:
                loop.run(once)
            finally:
                loop.close()
        except ShutdownRequested:
            return
        except AlloyReceiverError as error:
            if len(self._settings.sources) > 1:
                log.error(
                    "source %s stopped: %s", source.name, error, extra={"source": source.name}
                )
            failures.append(error)
            self._observe(SourceStopped(source.name, str(error)))
        except BaseException as error:
            failures.append(error)
            self._observe(SourceStopped(source.name, f"a defect ({type(error).__name__})"))


def run_to_end(
    threads: Sequence[threading.Thread],
    stop: threading.Event,
    patience: float,
    clock: Callable[[], float],
) -> bool:
    """Starts the threads and waits for the end of all; False where they were still at work
    `patience` seconds after `stop`."""
    for thread in threads:
        thread.start()
    deadline: float | None = None
    while any(thread.is_alive() for thread in threads):
        for thread in threads:
            thread.join(timeout=0.2)
        if stop.is_set():
            deadline = deadline or clock() + patience
            if clock() > deadline:
                return False
    return True


def tune_garbage_collector() -> None:
    """For a process that only receives: what is loaded now stays, so the cycle collector need not
    look at it again; and a page is ten thousand objects at once, none of them in a cycle, so it
    looks ten times as seldom as a page comes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
