"""Requests to one URL over kept connections, prepared once: httpcore without what is above it.

httpcore is what httpx stands on. What httpx puts above its connections for each request (a URL that
is read anew, headers, cookies, redirects, authentication, hooks) costs more than the request
itself, and its pool for many addresses a fifth of it. An exchange between two machines needs none
of that: here nothing is followed, nothing is kept but connections, and the pool is a list.

What an answer may cost stands in `http_limits`, the way to the URL in `network`. Nothing here knows
Alloy or OTLP, and nothing here asks twice.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterable
from functools import partial
from threading import Lock
from typing import cast
from urllib.parse import urlsplit

import httpcore

from otel_alloy.http_limits import (
    DeadlineBackend,
    Undecodable,
    check_headers,
    read_body,
    within,
)
from otel_alloy.network import Route
from otel_alloy.outbound import Resolve, look_up
from otel_alloy.tls_files import WatchedFiles
from otel_alloy.trust import Identity, shared_context

IDLE = 50.0
"""Seconds for which a connection is kept between two requests. More than the usual interval, so
that a source which asks rarely makes no new connection (TLS costs ten times a request) each time,
and less than what balancers in between allow (60 s and more)."""

Headers = list[tuple[bytes, bytes]]

FAILURES = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
    Undecodable,
)
"""Everything that a request may raise besides TooMuch: httpcore's exceptions have no common name.
"""

_PLAIN = re.compile(
    r"(https?)://(\[[0-9a-fA-F:.]+\]|[\w.-]+)(?::([0-9]{1,5}))?"
    r"((?:[/?](?:[\w.~!$&'()*+,;=:@/?-]|%[0-9a-fA-F]{2})*)?)",
    re.ASCII,
)
"""URLs that are sent as they are written."""


class BadUrl(Exception):
    """What was to be requested is no URL, in words."""


class Answer:
    """Status and headers of an answer, whose body is still to come. To be closed."""

    __slots__ = ("_done", "_response", "status")

    def __init__(self, response: httpcore.Response, done: Callable[[], None]) -> None:
        self._response = response
        self._done = done
        self.status: int = response.status

    @property
    def reason(self) -> str:
        """The words behind the status."""
        reason: bytes = self._response.extensions.get("reason_phrase", b"")
        return reason.decode("latin-1")

    def header(self, name: bytes) -> str:
        """The value of the header with this name in lower case, those of several joined; empty
        where there is none."""
        found = [value for key, value in self._response.headers if key.lower() == name]
        return b", ".join(found).decode("latin-1") if found else ""

    def check(self) -> None:
        """Raises TooMuch for headers that are too many or too long."""
        check_headers(self._response.headers)

    def read(self, most: int) -> bytes:
        """The body, decoded, of at most so many bytes. Raises TooMuch and FAILURES."""
        pieces = cast(Iterable[bytes], self._response.stream)
        return read_body(pieces, self.header(b"content-encoding"), most)

    def close(self) -> None:
        """Gives the connection back, or closes it where the body was not read."""
        self._response.close()
        self._done()


class HttpClient:
    """Sends requests to `url`, on the way of `route`, from any thread.

    `context`: makes what TLS with that URL takes. Its files and those of `identity` may be
    exchanged: the next request uses the new ones. `who`: of whom the log speaks then.
    `resolve`: the addresses of the URL's host, or of the proxy; what it raises, `send` raises.
    Raises BadUrl and what `context` raises.
    """

    def __init__(
        self,
        url: str,
        route: Route,
        context: Callable[[], ssl.SSLContext],
        monotonic: Callable[[], float],
        *,
        who: str,
        identity: Identity | None = None,
        resolve: Resolve = look_up,
    ) -> None:
        self._scheme, self._host, self._port, self._path = _parts(url)
        proxy = route.proxy.url if route.proxy else ""
        tls = self._scheme == b"https" or proxy.startswith("https:")
        self._socks = proxy.startswith("socks")
        self._files = WatchedFiles(who, route.trust if tls else None, identity)
        self._monotonic = monotonic
        name = b"[%b]" % self._host if b":" in self._host else self._host
        authority = name if self._port is None else b"%b:%d" % (name, self._port)
        self._first = (b"Host", authority)
        backend = DeadlineBackend(monotonic, resolve)
        self._open_pool: Callable[[], httpcore.ConnectionPool] = lambda: _pool(
            route, context(), backend
        )
        # Asked for connections only; each is used by one request at a time.
        self._pool = self._open_pool()
        self._idle: list[httpcore.ConnectionInterface] = []
        self._closed = False
        self._lock = Lock()  # of these three

    @property
    def host(self) -> str:
        """The host of the URL, as it may be shown."""
        return self._host.decode("ascii")

    @property
    def path(self) -> bytes:
        """The path of the URL, percent-encoded."""
        return self._path

    def prepared(self, headers: Iterable[tuple[str, str]]) -> Headers:
        """Headers as `send` takes them, Host among them."""
        given = [(name.encode("ascii"), value.encode("utf-8")) for name, value in headers]
        named = any(name.lower() == b"host" for name, _ in given)
        return given if named else [self._first, *given]

    def send(
        self,
        method: bytes,
        headers: Headers,
        seconds: float | None,
        *,
        query: bytes = b"",
        path: bytes | None = None,
        content: bytes | None = None,
    ) -> Answer:
        """Sends one request, whose answer has to be there in so many seconds; None: no limit.

        `headers`: as `prepared` makes them. `query`: percent-encoded, with its question mark.
        `path`: instead of the URL's own, percent-encoded.
        `content`: the body, for which `headers` name no length. Raises FAILURES.
        """
        stream: Iterable[bytes] = ()
        if content is not None:
            headers = [*headers, (b"Content-Length", b"%d" % len(content))]
            # Answers are cycles that hold the request. An iterator lets go of the megabyte once it
            # is sent, so memory does not wait for the cycle collector.
            stream = iter((content,))
            del content
        target = (self._path if path is None else path) + query
        url = httpcore.URL(scheme=self._scheme, host=self._host, port=self._port, target=target)
        request = httpcore.Request(
            method,
            url,
            headers=headers,
            content=stream,
            extensions=within(seconds, self._monotonic),
        )
        pool = self._files.exchange(self._open_pool)
        if pool is not None:
            self._drop(pool)
        pool = self._pool
        connection = self._connection(url)
        try:
            response = connection.handle_request(request)
        except BaseException as error:
            connection.close()
            # What a SOCKS proxy says is read by socksio, whose own exception nobody translates.
            if self._socks and isinstance(error, Exception) and not isinstance(error, FAILURES):
                words = "it broke the connection, or speaks no SOCKS5"
                raise httpcore.ProxyError(words) from None
            raise
        return Answer(response, partial(self._keep, connection, pool))

    def doubt(self) -> None:
        """TLS has failed: the next request looks at the files again."""
        self._files.doubt()

    def rest(self) -> None:
        """Closes the connections until the next request."""
        self._drop(self._pool)

    def close(self) -> None:
        """Closes the connections. A request that still runs closes its own when it ends."""
        self._closed = True
        self._drop(self._pool)

    def _drop(self, pool: httpcore.ConnectionPool) -> None:
        """Closes what is kept. New connections are those of `pool`."""
        with self._lock:
            self._pool = pool
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _connection(self, url: httpcore.URL) -> httpcore.ConnectionInterface:
        """One that is kept, the last used first, else a new one, which connects when it is used."""
        while self._idle:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                break
            if not connection.has_expired():
                return connection
            connection.close()
        return self._pool.create_connection(url.origin)

    def _keep(
        self, connection: httpcore.ConnectionInterface, pool: httpcore.ConnectionPool
    ) -> None:
        with self._lock:
            kept = connection.is_idle() and not self._closed and pool is self._pool
            if kept:
                self._idle.append(connection)
        if not kept:
            connection.close()


def _parts(url: str) -> tuple[bytes, bytes, int | None, bytes]:
    """Scheme, host, port where it is not the scheme's own, path."""
    match = _PLAIN.fullmatch(url)
    if match is None:
        return _unusual_parts(url)
    scheme, host, port, path = match.groups()
    number = int(port) if port else None
    if number == {"http": 80, "https": 443}[scheme]:
        number = None
    path = path if path.startswith("/") else f"/{path}"
    return scheme.encode(), host.strip("[]").lower().encode(), number, path.encode()


def _unusual_parts(url: str) -> tuple[bytes, bytes, int | None, bytes]:
    """The same for a URL with other characters, as in international names, which httpx knows how to
    write. It is imported here, as that takes half as long as all of the start besides."""
    import httpx

    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise BadUrl(str(error)) from None
    if parts.scheme not in ("http", "https"):
        raise BadUrl("it has to begin with https:// or http://")
    return parts.raw_scheme, parts.raw_host, parts.port, parts.raw_path


def _pool(
    route: Route, context: ssl.SSLContext, backend: httpcore.NetworkBackend
) -> httpcore.ConnectionPool:
    proxy = route.proxy
    if proxy is None:
        return httpcore.ConnectionPool(
            ssl_context=context, keepalive_expiry=IDLE, network_backend=backend
        )
    url = urlsplit(proxy.url)
    place = httpcore.URL(
        scheme=url.scheme, host=(url.hostname or "").encode(), port=url.port, target=b"/"
    )
    user = proxy.credentials
    auth = (user[0].encode(), user[1].encode()) if user else None
    if url.scheme.startswith("socks"):
        return httpcore.SOCKSProxy(
            place, auth, context, keepalive_expiry=IDLE, network_backend=backend
        )
    return httpcore.HTTPProxy(
        place,
        auth,
        None,
        context,
        shared_context(route.trust) if url.scheme == "https" else None,
        keepalive_expiry=IDLE,
        network_backend=backend,
    )
