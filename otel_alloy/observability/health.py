"""Liveness, readiness and status over HTTP, for orchestrators and for whoever is on call.

    GET /livez    200 while the loop turns, also while it waits for Alloy or the collector
    GET /readyz   200 while executions get through, else 503 and why
    GET /status   JSON: each source, its cursor, lag, last success, last error, what it waits for

What is true is decided in `status`; this module only serves it. It listens on loopback unless told
otherwise, takes no input but the path, and says nothing that is secret.
"""

from __future__ import annotations

import json

from otel_alloy.http_server import Handler, Server
from otel_alloy.observability.status import Status
from otel_alloy.version import __version__

MOST = 32
"""Connections at once: probes and people need a handful."""
DEADLINE = 10.0
"""Seconds that a connection may last."""


class HealthServer:
    """Serves `status` at `endpoint` (`host:port`; port 0 is a free one) until `close`. Raises
    OSError where it cannot listen there."""

    def __init__(self, endpoint: str, status: Status) -> None:
        host, _, port = endpoint.rpartition(":")
        address = (host.strip("[]"), int(port))
        self._server = Server(address, _Handler, status, most=MOST, deadline=DEADLINE)
        self._server.start("health")
        self.url = self._server.url
        """The base URL, without a trailing slash."""

    def close(self) -> None:
        """Stops listening."""
        self._server.stop()


class _Handler(Handler):
    server: Server[Status]
    server_version = f"otel-alloy/{__version__}"
    sys_version = ""
    timeout = 5.0  # seconds for a request to arrive
    wbufsize = -1

    def do_GET(self) -> None:
        """Answers one request."""
        status = self.server.owner
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
