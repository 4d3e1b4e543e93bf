"""systemd's sd_notify protocol: `READY=1`, `STATUS=`, `WATCHDOG=1`, `STOPPING=1`.

The service is ready once Alloy has answered a first time or turned out to be away: from then on
it does all it can. So a refused key fails `systemctl start`, and a collector that is down does
not. The watchdog is fed while `status` says that the loop turns.

Without NOTIFY_SOCKET nothing happens. A lost message is no error.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress

from otel_alloy.observability.status import Status
from otel_alloy.pipeline import events
from otel_alloy.runtime import Runtime

_TICK = 10.0


class Systemd:
    """A watcher of events that reports to the service manager named in `environment`, until the
    end is asked for or `close` is called."""

    def __init__(self, environment: Mapping[str, str], status: Status, runtime: Runtime) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._status = status
        self._ready = False
        self._said = ""
        self._wait = runtime.wait
        self._closed = False
        self._watchdog = _watchdog_seconds(environment)
        if self._address:
            runtime.spawn(self._work, "sd-notify")

    def __call__(self, event: object) -> None:
        """Takes an event; the first that shows Alloy's answer makes the service ready."""
        if self._ready or not self._address:
            return
        answered = isinstance(event, events.Requested) and event.error != "AccessRefused"
        if answered or isinstance(event, events.RequestRetried | events.CycleEnded):
            self._ready = True
            self._send("READY=1")

    def stopping(self) -> None:
        """The end was asked for."""
        self._send("STOPPING=1\nSTATUS=settling what is in flight")

    def close(self) -> None:
        """Tells nothing more."""
        self._closed = True

    def _work(self) -> None:
        pause = min(_TICK, self._watchdog / 2) if self._watchdog else _TICK
        while not self._wait(pause) and not self._closed:
            self.tick()

    def tick(self) -> None:
        """Feeds the watchdog, and shows the status if it has changed."""
        if self._watchdog and not self._status.stuck():
            self._send("WATCHDOG=1")
        reasons = self._status.not_ready() or self._status.waiting()
        words = "; ".join(reasons) or "executions get through"
        if words != self._said:
            self._said = words
            self._send("STATUS=" + " ".join(words.split()))

    def _send(self, message: str) -> None:
        """One datagram. An address that begins with @ is in the abstract namespace of Linux."""
        if not self._address:
            return
        address = self._address
        if address[0] == "@":
            address = "\0" + address[1:]
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.connect(address)
            manager.send(message.encode("utf-8", "replace"))


def _watchdog_seconds(environment: Mapping[str, str]) -> float:
    """WatchdogSec of the unit; 0 where there is none, or it is meant for another process."""
    micros = environment.get("WATCHDOG_USEC", "")
    process = environment.get("WATCHDOG_PID", "")
    if not re.fullmatch(r"[0-9]{1,18}", micros) or (process and process != str(os.getpid())):
        return 0.0
    return int(micros) / 1e6
