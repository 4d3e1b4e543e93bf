"""A function called in a process of its own, with its events, its log and its end told here.

The two processes share a socket. What goes up: events, log records, and last how it ended. What
goes down: the call, and perhaps the word to stop. A child whose parent is gone ends at once,
whatever it is doing; so it may rely on locks that the parent holds. Signals are the parent's
business. Nothing here knows what is called.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from logging.handlers import QueueHandler
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from otel_alloy.errors import AlloyReceiverError
from otel_alloy.pipeline.events import Observe, Settled, no_glance
from otel_alloy.runtime import spawn_thread

Call = Callable[[Any, threading.Event, Observe], None]
"""A function of a module: its argument, the event that asks for its end, and whom to tell."""

_CHILD = """import sys
sys.path[:] = sys.argv[2:]
from otel_alloy.pipeline.worker_process import serve
serve(int(sys.argv[1]))"""
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class _Ended:
    error: BaseException | None


def call(function: Call, argument: Any, stopping: Callable[[], bool], observe: Observe) -> None:
    """Calls `function(argument, stop, observe)` in a new process and waits for its end. Raises what
    it raised, or AlloyReceiverError where the process ended without a word."""
    mine, theirs = Pipe()
    with mine:
        with theirs:
            child = subprocess.Popen(
                [sys.executable, "-P", "-c", _CHILD, str(theirs.fileno()), *sys.path],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C is for the parent
            )
        asked = False
        ended: _Ended | None = None
        try:
            mine.send((function, argument, logging.getLogger("otel_alloy").getEffectiveLevel()))
            while ended is None:
                if stopping() and not asked:
                    asked = True
                    mine.send(None)
                if not mine.poll(_LOOK_SECONDS):
                    continue
                told = mine.recv()
                if isinstance(told, _Ended):
                    ended = told
                elif isinstance(told, logging.LogRecord):
                    logging.getLogger(told.name).handle(told)
                else:
                    observe(told)
        except (EOFError, OSError):
            pass
    code = child.wait()
    if ended is None and not asked:
        raise AlloyReceiverError(
            f"a worker's process ended by itself (exit code {code})",
            "the same command goes on from what is settled",
        )
    if ended is not None and ended.error is not None:
        raise ended.error


class _Up(QueueHandler):
    """Sends log records up."""

    def __init__(self, tell: Observe) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self._tell = tell

    def enqueue(self, record: logging.LogRecord) -> None:
        self._tell(record)


def serve(handle: int) -> None:
    """The child: takes one call from a socket and ends. `handle`: the socket's descriptor."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    up = Connection(handle)
    stop, lock = threading.Event(), threading.Lock()

    def tell(event: object) -> None:
        if isinstance(event, Settled):
            event = replace(event, ended=tuple, glance=no_glance)  # what can be made only here
        with lock:
            up.send(event)

    def listen() -> None:
        try:
            up.recv()
            stop.set()
            up.recv()
        except (EOFError, OSError):
            os._exit(1)

    function, argument, level = up.recv()
    logging.getLogger().addHandler(_Up(tell))
    logging.getLogger("otel_alloy").setLevel(level)
    spawn_thread(listen, "otel-alloy-parent")
    error: BaseException | None = None
    try:
        function(argument, stop, tell)
    except AlloyReceiverError as known:
        error = known
    except BaseException as defect:
        error = RuntimeError(
            "in a worker's process: " + "".join(traceback.format_exception(defect))
        )
    tell(_Ended(error))
    os._exit(0)
