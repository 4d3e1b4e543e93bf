"""Liveness, readiness and status over HTTP, for orchestrators and for whoever is on call.

    GET /livez    200 while the loop turns, also where it waits for Alloy or the collector
    GET /readyz   200 while executions get through, else 503 and why
    GET /status   JSON: each source, its cursor, lag, last success, last error, what it waits for

What is true is decided in `status`; only the serving of it lives here. It listens on loopback
unless told otherwise, takes no input but the path, and says nothing that is secret.
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from otel_alloy.observability.status import Status
from otel_alloy.version import __version__


class HealthServer:
    """Serves `status` at `endpoint` (`host:port`; port 0 is a free one) until `close`. Raises
    OSError where it cannot listen there."""

    def __init__(self, endpoint: str, status: Status) -> None:
        host, _, port = endpoint.rpartition(":")
        self._server = _Server((host.strip("[]"), int(port)), status)
        self._host = host
        threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="health", daemon=True
        ).start()

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash."""
        return f"http://{self._host}:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], status: Status) -> None:
        self.status = status
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # The inherited one looks up the host's name, which takes seconds on some machines.
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asks and goes away is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = f"otel-alloy/{__version__}"
    sys_version = ""
    timeout = 5.0  # seconds for a request to arrive
    wbufsize = -1

    def do_GET(self) -> None:
        """Answers one request."""
        status = self.server.status
        path = self.path.partition("?")[0]
        if path == "/livez":
            self._verdict("live", status.stuck())
        elif path == "/readyz":
            self._verdict("ready", status.not_ready())
        elif path == "/status":
            report = {"version": __version__, **status.report()}
            self._answer(200, "application/json", json.dumps(report, indent=2) + "\n")
        else:
            self._answer(404, "text/plain", "there is /livez, /readyz and /status\n")

    do_HEAD = do_GET

    def _verdict(self, word: str, reasons: list[str]) -> None:
        lines = [f"not {word}", *reasons] if reasons else [word]
        self._answer(503 if reasons else 200, "text/plain", "\n".join(lines) + "\n")

    def _answer(self, code: int, kind: str, text: str) -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(code)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Probes are no news."""
