"""OTLP over gRPC: one call, one `Outcome`. Never a retry; policy does not belong here.

Rules: opentelemetry-proto docs/specification.md, "OTLP/gRPC". One exception, on the safe side:
RESOURCE_EXHAUSTED without RetryInfo whose words tell of a rate or a quota (Tempo's RATE_LIMITED)
is retried, as no halving helps there.

Import this module only where it is used: it imports grpcio, whose channels do not survive a fork.
Proxies and trusted certificates are those of the settings' `route`; grpcio, which would read
variables of its own, is told to read none.
"""

from __future__ import annotations

import re
from math import isinf
from pathlib import Path

import grpc

from otel_alloy.errors import ConfigurationError
from otel_alloy.otlp.answers import MAX_ANSWER, delivered, hide, status_of
from otel_alloy.otlp.outcome import Kind, Outcome
from otel_alloy.otlp.quiet import suppressed_instrumentation
from otel_alloy.settings.otlp import OtlpSettings
from otel_alloy.trust import shared_context

_METHODS: dict[str, str] = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
_CODES = {
    **dict.fromkeys(
        (
            grpc.StatusCode.CANCELLED,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.ABORTED,
            grpc.StatusCode.OUT_OF_RANGE,
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DATA_LOSS,
        ),
        Kind.RETRY,
    ),
    **dict.fromkeys(
        (
            grpc.StatusCode.UNAUTHENTICATED,
            grpc.StatusCode.PERMISSION_DENIED,
            grpc.StatusCode.UNIMPLEMENTED,
            grpc.StatusCode.NOT_FOUND,
        ),
        Kind.MISCONFIGURED,
    ),
    grpc.StatusCode.INVALID_ARGUMENT: Kind.REJECTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Kind.TOO_LARGE,
}
_RATE = re.compile(r"rate.?limit|quota|too many requests|throttl", re.IGNORECASE)
_HINTS = (
    # What grpcio says, the remedy. Compared in lower case, first match wins.
    (
        "certificate_verify_failed",
        "set OTEL_EXPORTER_OTLP_CERTIFICATE to the authority that signed the certificate",
    ),
    (
        "hostname verification",
        "the certificate is for another host name; check OTEL_EXPORTER_OTLP_ENDPOINT",
    ),
    (
        "certificate_required",
        "set OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY",
    ),
    (
        "wrong_version_number",
        "the endpoint speaks no TLS on this port; write http:// if that is meant",
    ),
    (
        "failed parsing http/2",
        "this port speaks HTTP/1.1; set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
    ),
    ("handshake", "TLS failed; check https:// or http:// and OTEL_EXPORTER_OTLP_CERTIFICATE"),
    ("ssl_error", "TLS failed; check https:// or http:// and OTEL_EXPORTER_OTLP_CERTIFICATE"),
)
_PREAMBLE = "failed to connect to all addresses; last error: "
_REMEDIES = {
    grpc.StatusCode.UNAUTHENTICATED: "check OTEL_EXPORTER_OTLP_HEADERS",
    grpc.StatusCode.PERMISSION_DENIED: "check OTEL_EXPORTER_OTLP_HEADERS",
    grpc.StatusCode.UNIMPLEMENTED: "the endpoint offers no OTLP for this signal",
    grpc.StatusCode.NOT_FOUND: "check OTEL_EXPORTER_OTLP_ENDPOINT",
}


class GrpcSender:
    """Calls Export of one signal's service over one channel.

    Raises `ConfigurationError` where a certificate or key file cannot be read.
    """

    def __init__(self, settings: OtlpSettings, user_agent: str) -> None:
        self._settings = settings
        self._secrets = settings.secrets
        headers = dict(settings.headers)
        user_agent = headers.pop("user-agent", user_agent)
        self._metadata = tuple(headers.items())
        options: list[tuple[str, str | int]] = [
            ("grpc.primary_user_agent", user_agent),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", MAX_ANSWER),
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 1000),
            ("grpc.max_reconnect_backoff_ms", 10_000),
        ]
        target, of_route = settings.route.channel_options(settings.endpoint)
        options += of_route
        gzip = settings.compression == "gzip"
        compression = grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression
        if settings.insecure:
            self._channel = grpc.insecure_channel(target, options, compression)
        else:
            self._channel = grpc.secure_channel(target, credentials(settings), options, compression)
        self._export = self._channel.unary_unary(
            _METHODS[settings.signal],
            request_serializer=_same,
            response_deserializer=_same,
        )

    def send(self, request: bytes) -> Outcome:
        """Send `request` once, within the timeout of the settings."""
        with suppressed_instrumentation():
            try:
                answer = self._export(
                    request,
                    timeout=None if isinf(self._settings.timeout) else self._settings.timeout,
                    metadata=self._metadata,
                )
            except grpc.RpcError as error:
                return self._refused(error)
            except ValueError:  # "metadata was invalid"; its words repeat the metadata
                return Outcome(
                    Kind.MISCONFIGURED,
                    "gRPC cannot carry these headers: check OTEL_EXPORTER_OTLP_HEADERS",
                )
        try:
            return delivered(self._settings.signal, answer, self._secrets)
        except ValueError:
            return Outcome(Kind.MISCONFIGURED, "the answer to Export is no OTLP answer")

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _refused(self, error: grpc.RpcError) -> Outcome:
        assert isinstance(error, grpc.Call)
        code = error.code()
        words = hide((error.details() or "").removeprefix(_PREAMBLE), self._secrets)
        delay = None
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                delay = status_of(value if isinstance(value, bytes) else value.encode())[1]
        kind = _CODES.get(code, Kind.UNEXPECTED)
        remedy = _REMEDIES.get(code)
        if kind is Kind.TOO_LARGE and (delay is not None or _RATE.search(words)):
            kind = Kind.RETRY
        if code is grpc.StatusCode.UNAVAILABLE:
            remedy = next((hint for sign, hint in _HINTS if sign in words.lower()), None)
            kind = Kind.MISCONFIGURED if remedy else kind
        elif code is grpc.StatusCode.INTERNAL and words == "Invalid metadata":
            kind, remedy = Kind.MISCONFIGURED, "check OTEL_EXPORTER_OTLP_HEADERS"
        parts = (f"gRPC {code.name}", words[:180], remedy)
        return Outcome(kind, ": ".join(p for p in parts if p), delay)


def credentials(settings: OtlpSettings) -> grpc.ChannelCredentials:
    """TLS as the settings ask for. Raises `ConfigurationError` for a file that cannot be read."""
    chain, trust = settings.client_certificate, settings.route.trust
    if mistake := trust.mistake():
        raise ConfigurationError([mistake])
    if trust.path:
        shared_context(trust)  # grpcio does not say what is wrong with a file
    try:
        return grpc.ssl_channel_credentials(
            root_certificates=trust.roots(),
            private_key=_read(settings.client_key or chain),
            certificate_chain=_read(chain),
        )
    except OSError as error:
        raise ConfigurationError(
            [f"A certificate file for OTLP {settings.signal} cannot be read: {error}."]
        ) from error


def _read(path: str | None) -> bytes | None:
    return Path(path).read_bytes() if path else None


def _same(message: bytes) -> bytes:
    return message
