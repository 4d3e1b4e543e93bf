"""The small HTTP server under the health port, the simulator, the OTLP endpoint and the demo's
order service: what only sockets know.

`http.server` by itself looks up the host's name before it listens, prints the errors of clients
that go away, logs every request, and at the end leaves connections open.
"""

from __future__ import annotations

import selectors
import socket
import socketserver
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Generic, TypeVar

_LOOK_SECONDS = 0.1

T = TypeVar("T")


class Handler(BaseHTTPRequestHandler):
    """Answers requests, and logs none of them."""

    def log_message(self, format: str, *args: object) -> None:
        """Standard error belongs to the command."""


class Server(ThreadingHTTPServer, Generic[T]):
    """Listens on `address` (host, port; port 0 is a free one) from its creation on, and answers
    between `start` and `stop`. `owner`: what the handlers need. Raises OSError where it cannot
    listen there.

    `most`: connections at once, of which each costs a thread and a file descriptor; one more breaks
    the oldest, so that slow clients cannot keep others out. `deadline`: seconds after which a
    connection is broken, however busy. None: no limit."""

    daemon_threads = True
    request_queue_size = 128
    timeout = 0.0
    """Seconds for which `handle_request` waits: `_serve` has done that."""

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[Handler],
        owner: T,
        *,
        most: int | None = None,
        deadline: float | None = None,
    ) -> None:
        self.owner = owner
        self._most = most
        self._deadline = deadline
        self._open: dict[socket.socket, float] = {}  # and since when, oldest first
        self._host = address[0]
        if ":" in self._host:
            self.address_family = socket.AF_INET6
        self._stopping = False
        self._woken, self._wake = socket.socketpair()
        super().__init__(address, handler)

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self.server_address[1]
        return port

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    def start(self, name: str) -> threading.Thread:
        """Answers from a thread of that name; returns it."""
        thread = threading.Thread(target=self._serve, name=name, daemon=True)
        thread.start()
        self._thread = thread
        return thread

    def stop(self) -> None:
        """Stops listening and breaks the connections that are open."""
        self._stopping = True
        self._wake.send(b"!")
        self._thread.join()
        self.server_close()
        for connection in list(self._open):
            self._break(connection)

    def server_close(self) -> None:
        """Gives the sockets back."""
        super().server_close()
        self._woken.close()
        self._wake.close()

    def _serve(self) -> None:
        """As `serve_forever`, which looks many times a second whether it was stopped: here nothing
        runs while nobody asks."""
        with selectors.DefaultSelector() as selector:
            selector.register(self, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._stopping:
                looks = self._deadline is not None and self._open
                selector.select(_LOOK_SECONDS if looks else None)
                if not self._stopping:
                    self.handle_request()
                self.service_actions()

    def service_actions(self) -> None:
        """Called now and then while it answers: breaks what is too old."""
        if self._deadline is not None:
            begun = time.monotonic() - self._deadline
            for connection in [c for c, since in list(self._open.items()) if since < begun]:
                self._break(connection)

    def _break(self, connection: socket.socket) -> None:
        """The thread that serves it finds that the client is gone."""
        self._open.pop(connection, None)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    def server_bind(self) -> None:
        # The inherited one looks up the host's name, which takes seconds on some machines.
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._most is not None and len(self._open) >= self._most:
            self._break(next(iter(self._open)))
        self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of the server."""
