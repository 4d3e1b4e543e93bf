"""One request to `GET /logs` and one answer, or an error named by what to do next.

No retrying, no paging and no waiting here. The key goes only to the configured endpoint:
redirects are refused, and no error text holds the key, a header or a body. What an answer may cost
stands in `http_limits` and `outline`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from socket import gaierror
from urllib.parse import urlencode

import httpcore

from otel_alloy.alloy.key import SETTINGS, ApiKey, plain_key
from otel_alloy.alloy.models import Oversized, Page, Unreadable, read_page
from otel_alloy.alloy.query import Query
from otel_alloy.durations import http_date, retry_after
from otel_alloy.errors import (
    AccessRefused,
    AlloyReceiverError,
    Challenged,
    ConfigurationError,
    RequestRefused,
    Stop,
    Throttled,
    TooLarge,
    Unavailable,
)
from otel_alloy.http_client import FAILURES, Answer, BadUrl, Headers, HttpClient
from otel_alloy.http_limits import ACCEPTED, LATE, TooMuch, Undecodable
from otel_alloy.network import Network
from otel_alloy.runtime import Runtime
from otel_alloy.trust import NO_TLS, certificate_remedy, shared_context, unused_context

_LAST = 2**63 // 10**9
"""Unix seconds; see `timestamps`."""
_REFUSALS = frozenset({401, 403, 404, 405, 410})
_PAGES = ("text/html", "application/xhtml")
_BESIDE_SECONDS = 5.0


class AlloyClient:
    """`endpoint`: base URL, `/logs` is appended. `api_key`: with or without a leading `bearer `, or
    what tells it before each request; where it tells another one after a 401, that is tried once.
    `api_version`: header `x-api-version`, empty leaves it out. `timeout`: seconds for one whole
    request. `max_response_bytes`: a longer answer (as sent, or decoded) is refused. `network`: how
    connections leave this machine. `called`: how `api_key` and `endpoint` are called where they are
    written. Raises ConfigurationError where connections cannot."""

    def __init__(
        self,
        endpoint: str,
        api_key: str | ApiKey,
        runtime: Runtime,
        *,
        api_version: str = "2025-09",
        timeout: float = 30.0,
        max_response_bytes: int = 64 * 2**20,
        user_agent: str = "otel-alloy",
        network: Network | None = None,
        called: Callable[[str], str] = SETTINGS.__getitem__,
    ) -> None:
        self._called = called
        self._key: ApiKey = (lambda: api_key) if isinstance(api_key, str) else api_key
        headers = {
            "User-Agent": user_agent,
            "Accept": "application/json",
            "Accept-Encoding": ACCEPTED,
        }
        if api_version:
            headers["x-api-version"] = api_version
        self._runtime = runtime
        self._url = endpoint.rstrip("/") + "/logs"
        self._timeout = timeout
        self._max = max_response_bytes
        route = (network or Network()).route(self._url)
        self._via = route.via
        # Loading the certificates costs as much as a thousand executions: only where they are used.
        tls = self._url.startswith("https:")
        try:
            self._http = HttpClient(
                self._url,
                route,
                lambda: shared_context(route.trust) if tls else unused_context(),
                runtime.monotonic,
                who="Alloy",
            )
        except BadUrl as error:
            raise ConfigurationError(
                [f"{self._url!r} is no usable URL ({error}): correct {called('endpoint')}."]
            ) from None
        self._host = self._http.host
        self._common = headers
        self._prepared: tuple[str, Headers] = ("", [])

    def close(self) -> None:
        """Closes the connections. A request that still runs, as one that reads ahead, closes its
        own when it ends."""
        self._http.close()

    def fetch(self, query: Query) -> Page:
        """The page that `query` asks for.

        Raises Unavailable or Throttled (retry), RequestRefused (change the request), AccessRefused
        or Stop (a person has to act).
        """
        answer, body = self._exchanging(lambda key: self._answer(key, query.encoded(), None))
        try:
            self._check(answer)
        except AlloyReceiverError as error:
            error.status = answer.status
            raise
        try:
            page = read_page(body)
        except Oversized as error:
            raise TooLarge(
                f"{self._host} answered 200, but {error}", "lower OTEL_ALLOY_PAGE_SIZE"
            ) from None
        except Unreadable as error:
            raise Unavailable(f"{self._host} answered 200, but {error}", refusal=True) from None
        date = http_date(answer.header(b"date"))
        if date is not None and 0 < date < _LAST:  # what no timestamp could be is no time either
            page.server_date = int(date) * 1000 + 999  # the header drops the milliseconds
        return page

    def get(self, path: str, parameters: Mapping[str, str]) -> bytes:
        """The body of the answer to another question than for the log: `path`, percent-encoded,
        beside `/logs`. It has to come within a few seconds, as nothing depends on it.

        Raises Unavailable or Throttled (retry), RequestRefused (also where there is no such thing)
        or AccessRefused.
        """
        whole = self._http.path.removesuffix(b"/logs") + path.encode("ascii")
        query = f"?{urlencode(parameters)}".encode("ascii") if parameters else b""
        answer, body = self._exchanging(lambda key: self._answer(key, query, whole))
        try:
            if answer.status in (404, 405, 410):
                raise RequestRefused(f"{self._host} knows no such thing ({answer.status})")
            self._check(answer)
        except AlloyReceiverError as error:
            error.status = answer.status
            raise
        return body

    def _exchanging(self, ask: Callable[[str], tuple[Answer, bytes]]) -> tuple[Answer, bytes]:
        """The answer with the key as it is now, and where that is refused, with the one that it was
        exchanged for meanwhile."""
        key = plain_key(self._key())
        answer, body = ask(key)
        if answer.status in (401, 403):
            exchanged = plain_key(self._key())
            if exchanged != key:
                return ask(exchanged)
        return answer, body

    def _answer(self, key: str, query: bytes, path: bytes | None) -> tuple[Answer, bytes]:
        """An answer, closed, and where it is 200 its body."""
        prepared, headers = self._prepared
        if prepared != key:
            headers = self._headers(key)
        seconds = self._timeout if path is None else min(self._timeout, _BESIDE_SECONDS)
        body = b""
        try:
            answer = self._http.send(b"GET", headers, seconds, query=query, path=path)
            try:
                answer.check()
                if answer.status == 200:
                    body = answer.read(self._max)
            finally:
                answer.close()
        except FAILURES as error:
            raise self._network_error(error, seconds) from None
        except TooMuch as error:
            raise TooLarge(f"{self._host} answered {error}", "lower OTEL_ALLOY_PAGE_SIZE") from None
        return answer, body

    def _headers(self, key: str) -> Headers:
        """What every request with this key is sent with."""
        headers = {**self._common, "Authorization": f"bearer {key}"}
        prepared = self._http.prepared(headers.items())
        self._prepared = (key, prepared)
        return prepared

    def _check(self, answer: Answer) -> None:
        status, header = answer.status, answer.header
        if status == 200:
            return
        after = retry_after(header(b"retry-after"), date=header(b"date"), now=self._runtime.clock())
        if status == 429:
            raise Throttled(f"{self._host} asks to slow down (429)", after=after)
        page = header(b"content-type").lower().lstrip().startswith(_PAGES)
        if header(b"cf-mitigated") or (
            status in _REFUSALS and (after is not None or (page and status in (401, 403)))
        ):
            raise Challenged(
                f"{self._host} answered {status} "
                + ("with a page for browsers" if page else "and when to come back")
                + ": a proxy or firewall before Alloy, or Alloy for a while; it says nothing of "
                "the API key",
                "if it goes on, let this machine through there, or show it to Alloy's support",
                after=after,
                refusal=True,
            )
        if status in (401, 403):
            raise AccessRefused(
                f"{self._host} refuses the API key ({status})",
                f"check {self._called('api_key')}: is it whole, not revoked, and a key of this "
                "environment and region?",
            )
        if status in (400, 413, 414, 422):
            raise RequestRefused(
                f"{self._host} refuses the request ({status})",
                "if it goes on, try another OTEL_ALLOY_PAGE_SIZE or OTEL_ALLOY_API_VERSION",
            )
        if status in (404, 405, 410) or 300 <= status < 400:
            endpoint = self._called("endpoint")
            what = "redirects" if status < 400 else "has no Logs API at this address"
            raise Stop(f"{self._host} {what} ({status})", f"correct {endpoint}")
        if 200 < status < 300:
            raise Unavailable(
                f"{self._host} answered {status}, which holds no page and does not say that there "
                "is none: nothing of it counts as read"
            )
        raise Unavailable(f"{self._host} answered {status}", after=after)

    def _network_error(self, error: Exception, seconds: float) -> Unavailable:
        endpoint, refused, unknown = self._called("endpoint"), False, False
        cause: BaseException | None = error
        while cause is not None:
            refused = refused or isinstance(cause, ConnectionRefusedError)
            unknown = unknown or isinstance(cause, gaierror | UnicodeError)
            if isinstance(cause, ssl.SSLError) and cause.reason in NO_TLS:
                return Unavailable(
                    f"{self._host} speaks no TLS on this port",
                    f"write http:// in {endpoint} if that is meant, else correct its port",
                )
            if isinstance(cause, ssl.SSLCertVerificationError):
                self._http.doubt()
                said = cause.verify_message or str(cause)
                usual = f"check {endpoint} and this machine's certificates (SSL_CERT_FILE)"
                return Unavailable(
                    f"{self._host} cannot prove who it is ({said})",
                    certificate_remedy(said, usual),
                )
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, httpcore.ProxyError):
            return Unavailable(
                f"{self._host} cannot be reached{self._via}: {error}", "correct that variable"
            )
        if self._via:
            refused = unknown = False  # that is about the proxy
        if refused:
            return Unavailable(
                f"{self._host} cannot be reached: nothing listens on this port",
                f"check {endpoint}",
            )
        if unknown:
            return Unavailable(
                f"{self._host} cannot be reached: this machine knows no such host",
                f"check {endpoint}, and this machine's network",
            )
        if isinstance(error, httpcore.TimeoutException) and str(error) == LATE:
            return Unavailable(f"{self._host} did not finish its answer in {seconds:g} s")
        words: dict[type[Exception], str] = {
            httpcore.ConnectTimeout: f"does not accept a connection{self._via} in time",
            httpcore.TimeoutException: f"did not answer within {seconds:g} s",
            httpcore.ConnectError: f"cannot be reached{self._via} (name, port or network)",
            httpcore.RemoteProtocolError: "broke the connection or cut its answer off",
            Undecodable: f"sent a body that does not decompress ({error})",
        }
        for kind, text in words.items():
            if isinstance(error, kind):
                return Unavailable(f"{self._host} {text}")
        return Unavailable(f"the connection to {self._host} failed ({type(error).__name__})")
