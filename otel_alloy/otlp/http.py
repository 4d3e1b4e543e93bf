"""OTLP over HTTP with protobuf: one request, one `Outcome`. Never a retry, never a redirect.

Rules: opentelemetry-proto docs/specification.md, "OTLP/HTTP"; what a status code comes to stands in
`answers`. Stricter than the specification: a 2xx has to be an OTLP answer, or the login page of a
proxy would count as delivered. Laxer: 204, which Loki sends for success (grafana/loki issue 15761),
an empty body of any type but HTML, and the JSON that some backends answer with.

Certificate and key files that are exchanged on disk are taken up with the next request.

Proxies and trusted certificates are those of the settings' `route`; what an answer may cost stands
in `http_limits`. Policy does not belong here.
"""

from __future__ import annotations

import gzip
import ssl
from collections.abc import Iterator
from math import isinf
from urllib.parse import urlsplit

import httpcore

from otel_alloy.durations import retry_after
from otel_alloy.errors import ConfigurationError
from otel_alloy.http_client import FAILURES, Answer, BadUrl, HttpClient
from otel_alloy.http_limits import TooMuch, Undecodable
from otel_alloy.otlp.answers import for_signal, http_rule, refused_of_many, unreached
from otel_alloy.otlp.messages import MAX_ANSWER, delivered, delivered_as_json, hide, status_of
from otel_alloy.otlp.outcome import Headers, Kind, Outcome
from otel_alloy.otlp.pinned import check_policy
from otel_alloy.otlp.quiet import suppressed_instrumentation
from otel_alloy.outbound import OutboundPolicy, Refused, look_up
from otel_alloy.runtime import Runtime
from otel_alloy.settings.otlp import OtlpSettings
from otel_alloy.trust import NO_TLS, certificate_remedy, shared_context, unused_context

_GZIP_LEVEL = 1
"""Measured on 1,000 spans (650 kB): level 1 takes 3.6 ms for 4.0:1, level 6 6.6 ms for 4.6:1."""

_PROTOBUF = ("application/x-protobuf", "application/protobuf", "application/octet-stream", "")
_NOTHING_SENT = (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.ProxyError)

_MOST_WORDS = 65_536
"""Bytes of a refusal that are read, and searched for what it means."""


class HttpSender:
    """Sends requests of one signal to one URL over one kept connection.

    Raises `ConfigurationError` where a certificate, a key file or the proxy cannot be used, and for
    what `policy` forbids.
    """

    def __init__(
        self,
        settings: OtlpSettings,
        user_agent: str,
        runtime: Runtime,
        policy: OutboundPolicy | None = None,
    ) -> None:
        check_policy(policy, settings)
        self._settings = settings
        self._runtime = runtime
        self._secrets = settings.secrets
        headers = {"user-agent": user_agent, "accept-encoding": "identity"}
        headers |= dict(settings.headers)
        headers |= {"content-type": "application/x-protobuf", "accept": "application/x-protobuf"}
        if settings.compression == "gzip":
            headers["content-encoding"] = "gzip"
        self._via = settings.route.via
        try:
            self._client = HttpClient(
                settings.endpoint,
                settings.route,
                lambda: tls_context(settings),
                runtime.monotonic,
                identity=settings.identity,
                who=f"OTLP {settings.signal}",
                resolve=policy.addresses if policy else look_up,
            )
        except BadUrl as error:
            raise ConfigurationError(
                [
                    f"The endpoint for OTLP {settings.signal} is no usable URL ({error}): check "
                    "OTEL_EXPORTER_OTLP_ENDPOINT."
                ]
            ) from None
        self._headers = self._client.prepared(headers.items())

    def send(self, request: bytes, headers: Headers = ()) -> Outcome:
        """Send `request` once, within the timeout of the settings."""
        prepared = self._headers
        if headers:
            more = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers]
            prepared = [*prepared, *more]
        if self._settings.compression == "gzip":
            request = gzip.compress(request, _GZIP_LEVEL, mtime=0)
        seconds = None if isinf(self._settings.timeout) else self._settings.timeout
        body, excess = b"", ""
        with suppressed_instrumentation():
            try:
                answer = self._client.send(b"POST", prepared, seconds, content=request)
                try:
                    answer.check()
                    body = answer.read(MAX_ANSWER if _is_success(answer) else _MOST_WORDS)
                except TooMuch as error:
                    body, excess = error.begun, f" ({error})"
                except Undecodable:
                    if _is_success(answer):
                        raise
                finally:
                    answer.close()
            except Refused as error:
                return Outcome(Kind.MISCONFIGURED, str(error))
            except (*FAILURES, OSError) as error:
                return self._broken(error)
        if _is_success(answer):
            return self._success(answer, body, excess)
        return self._refused(answer, body)

    def rest(self) -> None:
        """Close the connection until the next request."""
        self._client.rest()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _success(self, answer: Answer, body: bytes, excess: str) -> Outcome:
        """`excess`: the limit that the answer is above, in words; empty where it is not."""
        kind = _content_type(answer)
        if excess:
            return self._no_answer(answer, kind, excess)
        if answer.status == 204 or (not body and kind != "text/html"):
            return Outcome(Kind.DELIVERED)
        read = delivered if kind in _PROTOBUF else delivered_as_json if _is_json(kind) else None
        if read is not None:
            try:
                return read(self._settings.signal, body, self._secrets)
            except ValueError:
                pass
        return self._no_answer(answer, kind, "")

    def _no_answer(self, answer: Answer, kind: str, excess: str) -> Outcome:
        named = hide(kind, self._secrets)[:100] or "something"
        return Outcome(
            Kind.MISCONFIGURED,
            f"HTTP {answer.status} with {named} that is no OTLP answer{excess}: "
            "OTEL_EXPORTER_OTLP_ENDPOINT leads to something else, perhaps a login page",
        )

    def _refused(self, answer: Answer, body: bytes) -> Outcome:
        code = answer.status
        if 300 <= code < 400:
            target = hide(_host(answer.header(b"location"))[:253], self._secrets)
            return Outcome(
                Kind.MISCONFIGURED,
                f"HTTP {code}: redirected to {target or 'another place'}; redirects are not "
                "followed, set OTEL_EXPORTER_OTLP_ENDPOINT to the final address",
            )
        words, delay = self._words(answer, body)
        asked = retry_after(
            answer.header(b"retry-after"), date=answer.header(b"date"), now=self._runtime.clock()
        )
        rule = for_signal(http_rule(code, words), self._settings.signal)
        refused = refused_of_many(words) if rule.kind is Kind.REJECTED else 0
        status = f"HTTP {code} {answer.reason[:100]}".rstrip()
        parts = (status, hide(words, self._secrets)[:160].strip(), rule.remedy)
        return Outcome(
            rule.kind,
            ": ".join(p for p in parts if p),
            delay if asked is None else asked,
            refused,
            rule.size,
            rule.no_signal,
        )

    def _words(self, answer: Answer, body: bytes) -> tuple[str, float | None]:
        """What the endpoint says, and the seconds it asks for in google.rpc.RetryInfo."""
        kind = _content_type(answer)
        words, delay = status_of(body) if kind in _PROTOBUF else ("", None)
        if not words and (kind in ("text/plain", "") or _is_json(kind)):
            words = body.decode("utf-8", "replace")
        return words, delay

    def _broken(self, error: Exception) -> Outcome:
        words = hide(str(error), self._secrets) or type(error).__name__
        for cause in _causes(error):
            if isinstance(cause, ssl.SSLError) and not isinstance(
                cause, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError
            ):
                self._client.doubt()
                return Outcome(Kind.MISCONFIGURED, f"TLS: {words}: {_tls_remedy(cause)}")
        match error:
            case httpcore.UnsupportedProtocol() | httpcore.LocalProtocolError():
                words += ": check OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_HEADERS"
                return Outcome(Kind.MISCONFIGURED, words)
            case httpcore.RemoteProtocolError() if words.startswith("illegal "):
                return Outcome(
                    Kind.MISCONFIGURED,
                    "the endpoint does not speak HTTP/1.1: if this is its gRPC port (4317), set "
                    "OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
                )
            case httpcore.ProxyError() if words.startswith(("401", "403", "407")):
                return Outcome(Kind.MISCONFIGURED, f"refused{self._via}: {words}")
            case Undecodable():
                return Outcome(Kind.MISCONFIGURED, f"the answer cannot be decompressed: {words}")
            case httpcore.TimeoutException():
                return Outcome(
                    Kind.RETRY,
                    f"no answer within {self._settings.timeout:g} s ({words})",
                    size=not isinstance(error, _NOTHING_SENT),
                )
        words = f"connection failed{self._via}: {words}"
        if isinstance(error, _NOTHING_SENT):
            remedy = unreached(self._settings.server, words, self._via)
            return Outcome(Kind.RETRY, f"{words}: {remedy}" if remedy else words)
        # A connection that breaks in the middle is how some refuse what is too large.
        return Outcome(Kind.RETRY, words, size=True)


def tls_context(settings: OtlpSettings) -> ssl.SSLContext:
    """Whom to trust and what to show. Raises ConfigurationError for a file that cannot be used."""
    if settings.insecure:
        return unused_context()
    try:
        return shared_context(settings.route.trust, settings.identity)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            [
                f"The certificate or key files for OTLP {settings.signal} cannot be used ({error}):"
                " OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE and _CLIENT_KEY take PEM"
                " files, the key unencrypted and belonging to the certificate."
            ]
        ) from error


def _tls_remedy(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        usual = "set OTEL_EXPORTER_OTLP_CERTIFICATE to the authority that signed the certificate"
        return certificate_remedy(error.verify_message or str(error), usual)
    if error.reason in NO_TLS:
        return "the endpoint speaks no TLS on this port; write http:// if that is meant"
    return "check OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY"


def _content_type(answer: Answer) -> str:
    return answer.header(b"content-type").partition(";")[0].strip().lower()


def _is_success(answer: Answer) -> bool:
    return 200 <= answer.status < 300


def _is_json(kind: str) -> bool:
    return kind == "application/json" or kind.endswith("+json")


def _host(location: str) -> str:
    try:
        return urlsplit(location).hostname or ""
    except ValueError:
        return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
