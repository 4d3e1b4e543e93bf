"""One request to `GET /logs` and one answer, or an error named by what to do next.

No retrying, no paging and no waiting here. The key goes only to the configured endpoint:
redirects are refused, and no error text holds the key, a header or a body. What an answer may cost
stands in `http_limits` and `outline`.
"""

from __future__ import annotations

import ssl
from urllib.parse import quote, urlencode

import httpx

from otel_alloy.alloy.key import ApiKey, plain_key
from otel_alloy.alloy.models import Oversized, Page, Unreadable, read_page
from otel_alloy.alloy.query import Query
from otel_alloy.durations import http_date, retry_after
from otel_alloy.errors import (
    AccessRefused,
    AlloyReceiverError,
    Challenged,
    RequestRefused,
    Stop,
    Throttled,
    TooLarge,
    Unavailable,
)
from otel_alloy.http_limits import (
    ACCEPTED,
    LATE,
    TooMuch,
    check_headers,
    limited_transport,
    read_body,
    within,
)
from otel_alloy.network import Network
from otel_alloy.runtime import Runtime
from otel_alloy.trust import certificate_remedy, shared_context, unused_context

_LAST = 2**63 // 10**9
"""Unix seconds; see `timestamps`."""
_REFUSALS = frozenset({401, 403, 404, 405, 410})
_PAGES = ("text/html", "application/xhtml")


class AlloyClient:
    """`endpoint`: base URL, `/logs` is appended. `api_key`: with or without a leading `bearer `, or
    what tells it before each request; where it tells another one after a 401, that is tried once.
    `api_version`: header `x-api-version`, empty leaves it out. `timeout`: seconds for one whole
    request. `max_response_bytes`: a longer answer (as sent, or decoded) is refused. `network`: how
    connections leave this machine. Raises ConfigurationError where they cannot."""

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
    ) -> None:
        self._key: ApiKey = (lambda: api_key) if isinstance(api_key, str) else api_key
        headers = {
            "User-Agent": user_agent,
            "Accept": "application/json",
            "Accept-Encoding": ACCEPTED,
        }
        if api_version:
            headers["x-api-version"] = api_version
        self._runtime = runtime
        self._monotonic = runtime.monotonic
        self._url = endpoint.rstrip("/") + "/logs"
        self._host = httpx.URL(self._url).host
        self._timeout = timeout
        self._max = max_response_bytes
        route = (network or Network()).route(self._url)
        self._via = route.via
        # Loading the certificates costs as much as a thousand executions: only where they are used.
        context = (
            shared_context(route.trust) if self._url.startswith("https:") else unused_context()
        )
        self._headers = headers
        # No httpx.Client: it follows, keeps and logs, and costs as much again.
        self._http = limited_transport(runtime.monotonic, route.client_options(context))
        self._closed = False

    def close(self) -> None:
        """Closes the connections. A request that still runs, as one that reads ahead, closes its
        own when it ends."""
        self._closed = True
        self._http.close()

    def fetch(self, query: Query) -> Page:
        """The page that `query` asks for.

        Raises Unavailable or Throttled (retry), RequestRefused (change the request), AccessRefused
        or Stop (a person has to act).
        """
        key = plain_key(self._key())
        try:
            return self._fetch(query, key)
        except AccessRefused:
            exchanged = plain_key(self._key())
            if exchanged == key:
                raise
            return self._fetch(query, exchanged)

    def _fetch(self, query: Query, key: str) -> Page:
        headers = {**self._headers, "Authorization": f"bearer {key}"}
        url = f"{self._url}?{urlencode(query.parameters(), quote_via=quote)}"
        try:
            request = httpx.Request(
                "GET", url, headers=headers, extensions=within(self._timeout, self._monotonic)
            )
            response = self._http.handle_request(request)
            try:
                check_headers(response)
                body = read_body(response, self._max) if response.status_code == 200 else b""
            finally:
                response.close()
                if self._closed:
                    self._http.close()
        except httpx.HTTPError as error:
            raise self._network_error(error) from None
        except TooMuch as error:
            raise TooLarge(f"{self._host} answered {error}", "lower OTEL_ALLOY_PAGE_SIZE") from None
        except httpx.InvalidURL as error:
            raise Stop(
                f"{self._url} is no usable URL ({error})", "correct ALLOY_ENDPOINT"
            ) from None
        try:
            self._check(response)
        except AlloyReceiverError as error:
            error.status = response.status_code
            raise
        try:
            page = read_page(body)
        except Oversized as error:
            raise TooLarge(
                f"{self._host} answered 200, but {error}", "lower OTEL_ALLOY_PAGE_SIZE"
            ) from None
        except Unreadable as error:
            raise Unavailable(f"{self._host} answered 200, but {error}", refusal=True) from None
        date = http_date(response.headers.get("date"))
        if date is not None and 0 < date < _LAST:  # what no timestamp could be is no time either
            page.server_date = int(date) * 1000 + 999  # the header drops the milliseconds
        return page

    def _check(self, response: httpx.Response) -> None:
        status = response.status_code
        if status == 200:
            return
        headers, now = response.headers, self._runtime.clock()
        after = retry_after(headers.get("retry-after"), date=headers.get("date"), now=now)
        if status == 429:
            raise Throttled(f"{self._host} asks to slow down (429)", after=after)
        page = headers.get("content-type", "").lower().lstrip().startswith(_PAGES)
        if "cf-mitigated" in headers or (
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
                "check ALLOY_API_KEY: is it whole, not revoked, and a key of this environment and "
                "region?",
            )
        if status in (400, 413, 414, 422):
            raise RequestRefused(
                f"{self._host} refuses the request ({status})",
                "if it goes on, try another OTEL_ALLOY_PAGE_SIZE or OTEL_ALLOY_API_VERSION",
            )
        if status in (404, 405, 410) or 300 <= status < 400:
            what = "redirects" if status < 400 else "has no Logs API at this address"
            raise Stop(f"{self._host} {what} ({status})", "correct ALLOY_ENDPOINT")
        if 200 < status < 300:
            raise Unavailable(
                f"{self._host} answered {status}, which holds no page and does not say that there "
                "is none: nothing of it counts as read"
            )
        raise Unavailable(f"{self._host} answered {status}", after=after)

    def _network_error(self, error: httpx.HTTPError) -> Unavailable | Stop:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                said = cause.verify_message or str(cause)
                usual = "check ALLOY_ENDPOINT and this machine's certificates (SSL_CERT_FILE)"
                return Unavailable(
                    f"{self._host} cannot prove who it is ({said})",
                    certificate_remedy(said, usual),
                )
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, httpx.UnsupportedProtocol):
            return Stop("ALLOY_ENDPOINT has to begin with https:// or http://")
        if isinstance(error, httpx.ProxyError):
            return Unavailable(
                f"{self._host} cannot be reached{self._via}: {error}", "correct that variable"
            )
        if isinstance(error, httpx.TimeoutException) and str(error) == LATE:
            return Unavailable(f"{self._host} did not finish its answer in {self._timeout:g} s")
        words = {
            httpx.ConnectTimeout: f"does not accept a connection{self._via} in time",
            httpx.TimeoutException: f"did not answer within {self._timeout:g} s",
            httpx.ConnectError: f"cannot be reached{self._via} (name, port or network)",
            httpx.RemoteProtocolError: "broke the connection or cut its answer off",
            httpx.DecodingError: f"sent a body that does not decompress ({error})",
        }
        for kind, text in words.items():
            if isinstance(error, kind):
                return Unavailable(f"{self._host} {text}")
        return Unavailable(f"the connection to {self._host} failed ({type(error).__name__})")
