"""Liveness, readiness and status over HTTP, for orchestrators and for whoever is on call.

    GET /         the page, for people; with ?refresh=off it is not made anew by itself
    GET /livez    200 while the loop turns, also while it waits for Alloy or the collector
    GET /readyz   200 while executions get through, else 503 and why
    GET /status   JSON: each source, its cursor, lag, last success, last error, what it waits for;
                  and of executions what the page has

What is true is decided in `status`, and how the page looks in `page`; this module only serves it.
It listens on loopback unless told otherwise, takes no input but the path, and says nothing that is
secret.

What is only on loopback is not for web sites, which can have a browser ask it under a name of their
own (DNS rebinding): asked under a name that is not this machine's, it answers 421, and /livez and
/readyz tell their verdict alone. An IP address in `Host` is always fine, as nobody can rebind one.
Where it listens on other addresses, its names are not known here, and who may ask is decided by
whoever opened it to the network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_address

from otel_alloy.http_server import Handler, Server
from otel_alloy.observability.page import REFRESH_SECONDS, Page
from otel_alloy.observability.status import Status
from otel_alloy.version import __version__

MOST = 32
"""Connections at once: probes and people need a handful."""
DEADLINE = 10.0
"""Seconds that a connection may last."""

_HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(:[0-9]*)?")
_NOT_MEANT = (
    "asked under a name that is not this machine's: open it as http://127.0.0.1 or "
    "http://localhost with the same port, or have the proxy before it send 'Host: localhost'\n"
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer; the page has a policy of its own."""


class HealthServer:
    """Serves `page` and `status` at `endpoint` (`host:port`; port 0 is a free one) until `close`.
    Raises OSError where it cannot listen there."""

    def __init__(self, endpoint: str, status: Status, page: Page) -> None:
        host, _, port = endpoint.rpartition(":")
        self.status = status
        self.page = page
        self._name = host.strip("[]").lower()
        address = (self._name, int(port))
        self._server = Server(address, _Handler, self, most=MOST, deadline=DEADLINE)
        bound = ip_address(str(self._server.server_address[0]))
        self._on_loopback = bound.is_loopback
        self._server.start("health")
        self.url = self._server.url
        """The base URL, without a trailing slash."""
        self.page_url = f"{self.url}/"
        """Where a browser on this machine finds the page."""
        if bound.is_unspecified:
            local = "[::1]" if bound.version == 6 else "127.0.0.1"
            self.page_url = f"http://{local}:{self._server.port}/"

    def is_meant(self, hosts: Sequence[str]) -> bool:
        """Whether a request with these `Host` headers can be meant for this server."""
        if not self._on_loopback or not hosts:  # every browser names a host
            return True
        found = _HOST.fullmatch(hosts[0].strip())
        if found is None or len(hosts) > 1:
            return False
        name = found[1].strip("[]").lower().removesuffix(".")
        if name in (self._name, "localhost") or name.endswith(".localhost"):
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True

    def close(self) -> None:
        """Stops listening."""
        self._server.stop()


class _Handler(Handler):
    server: Server[HealthServer]
    server_version = f"otel-alloy/{__version__}"
    sys_version = ""
    timeout = 5.0  # seconds for a request to arrive
    wbufsize = -1

    def do_GET(self) -> None:
        """Answers one request."""
        served = self.server.owner
        path, _, query = self.path.partition("?")
        meant = served.is_meant(self.headers.get_all("Host", []))
        if path == "/livez":
            self._verdict("live", served.status.stuck(), meant)
        elif path == "/readyz":
            self._verdict("ready", served.status.not_ready(), meant)
        elif path not in ("/", "/status"):
            self._answer(404, "text/plain", "there is /, /livez, /readyz and /status\n")
        elif not meant:
            self._answer(421, "text/plain", _NOT_MEANT)
        elif path == "/status":
            report = {"version": __version__, **served.status.report()}
            report["executions"] = served.page.executions()
            self._answer(200, "application/json", json.dumps(report, indent=2) + "\n")
        else:
            refreshing = not re.search(r"(^|&)refresh=off(&|$)", query)
            headers = {"Content-Security-Policy": served.page.policy}
            if refreshing:
                headers["Refresh"] = str(REFRESH_SECONDS)
            html = served.page.html(refreshing=refreshing)
            self._answer(200, "text/html", html, headers)

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self._answer(405, "text/plain", "only GET and HEAD\n", {"Allow": "GET, HEAD"})

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _refuse

    def _verdict(self, word: str, reasons: list[str], told: bool) -> None:
        lines = [f"not {word}", *(reasons if told else ())] if reasons else [word]
        self._answer(503 if reasons else 200, "text/plain", "\n".join(lines) + "\n")

    def _answer(
        self, code: int, kind: str, text: str, headers: Mapping[str, str] | None = None
    ) -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(code)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (_HEADERS | dict(headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
