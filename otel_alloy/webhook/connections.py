"""How many connections a listener has at once, and for how long: what uvicorn leaves open.

Each connection ends after a deadline, however busy, and one too many ends the oldest; so clients
that send slowly, or nothing, cannot keep others out. Nothing here knows HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class Connections:
    """Lets `most` connections be open at once, each for `deadline` seconds at the most. Lives in
    one event loop."""

    def __init__(self, most: int, deadline: float) -> None:
        self._most = most
        self._deadline = deadline
        self._open: dict[asyncio.BaseTransport, asyncio.TimerHandle] = {}  # oldest first

    def guarded(self, protocol: Callable[..., asyncio.Protocol]) -> Callable[..., asyncio.Protocol]:
        """What makes a guarded protocol, called as `protocol` is."""
        return lambda *args, **more: _Guarded(protocol(*args, **more), self)

    def opened(self, transport: asyncio.BaseTransport) -> None:
        """Counts one, and breaks the oldest where there are too many."""
        while len(self._open) >= self._most:
            self._break(next(iter(self._open)))
        loop = asyncio.get_running_loop()
        self._open[transport] = loop.call_later(self._deadline, self._break, transport)

    def closed(self, transport: asyncio.BaseTransport) -> None:
        """Counts it no more."""
        timer = self._open.pop(transport, None)
        if timer is not None:
            timer.cancel()

    def _break(self, transport: asyncio.BaseTransport) -> None:
        self.closed(transport)
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()


class _Guarded(asyncio.Protocol):
    """Passes everything on to the protocol inside."""

    def __init__(self, inside: asyncio.Protocol, connections: Connections) -> None:
        self._connections = connections
        self._transport: asyncio.BaseTransport | None = None
        self.connection_made_inside = inside.connection_made
        self.connection_lost_inside = inside.connection_lost
        self.data_received = inside.data_received  # type: ignore[method-assign]
        self.eof_received = inside.eof_received  # type: ignore[method-assign]
        self.pause_writing = inside.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inside.resume_writing  # type: ignore[method-assign]

    def connection_made(self, transport: Any) -> None:
        """A client has come."""
        self._transport = transport
        self._connections.opened(transport)
        self.connection_made_inside(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone, whoever closed the connection."""
        if self._transport is not None:
            self._connections.closed(self._transport)
        self.connection_lost_inside(exc)
