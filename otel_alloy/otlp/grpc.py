"""OTLP over gRPC: one call, one `Outcome`. Never a retry; policy does not belong here.

Rules: opentelemetry-proto docs/specification.md, "OTLP/gRPC"; what a status code comes to stands in
`answers`. Certificate and key files that are exchanged on disk are taken up with the next request.

Import this module only where it is used: it imports grpcio, whose channels do not survive a fork.
Proxies and trusted certificates are those of the settings' `route`; grpcio, which would read
variables of its own, is told to read none.
"""

from __future__ import annotations

from math import isinf

import grpc

from otel_alloy.bounded_file import read_bounded
from otel_alloy.errors import ConfigurationError
from otel_alloy.otlp.answers import Rule, for_signal, grpc_rule, refused_of_many, unreached
from otel_alloy.otlp.messages import MAX_ANSWER, delivered, hide, status_of
from otel_alloy.otlp.outcome import Headers, Kind, Outcome
from otel_alloy.otlp.pinned import PinnedTarget
from otel_alloy.otlp.quiet import suppressed_instrumentation
from otel_alloy.outbound import Refused
from otel_alloy.settings.otlp import OtlpSettings
from otel_alloy.tls_files import WatchedFiles
from otel_alloy.trust import MOST_BYTES, shared_context

_METHODS: dict[str, str] = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
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
_IDLE_MS = 5_000
"""After so much silence a connection is closed, as over HTTP: a source may rest for long, and there
may be many. What it takes to make a new one, the channel keeps."""
_PREAMBLE = "failed to connect to all addresses; last error: "


class GrpcSender:
    """Calls Export of one signal's service over one channel.

    `pinned`: where it may lead; None: wherever the settings say. Raises `ConfigurationError` where
    a certificate or key file cannot be read.
    """

    def __init__(
        self, settings: OtlpSettings, user_agent: str, pinned: PinnedTarget | None = None
    ) -> None:
        self._settings = settings
        self._pinned = pinned
        self._secrets = settings.secrets
        headers = dict(settings.headers)
        user_agent = headers.pop("user-agent", user_agent)
        self._metadata = tuple(headers.items())
        self._options: list[tuple[str, str | int]] = [
            ("grpc.primary_user_agent", user_agent),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", MAX_ANSWER),
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 1000),
            ("grpc.max_reconnect_backoff_ms", 10_000),
            ("grpc.client_idle_timeout_ms", _IDLE_MS),
        ]
        self._files = WatchedFiles(
            f"OTLP {settings.signal}",
            None if settings.insecure else settings.route.trust,
            settings.identity,
        )
        self._credentials: grpc.ChannelCredentials | None = None
        self._channel: grpc.Channel | None = None
        self._read_files()
        if pinned is None:
            self._use(self._open())

    def _read_files(self) -> None:
        if not self._settings.insecure:
            self._credentials = credentials(self._settings)

    def _reopen(self) -> grpc.Channel:
        self._read_files()
        return self._open()

    def _open(self) -> grpc.Channel:
        settings = self._settings
        target, of_route = settings.route.channel_options(settings.endpoint)
        options = [*self._options, *of_route]
        if self._pinned is not None:
            target = self._pinned.target
            options.append(("grpc.default_authority", self._pinned.authority))
        gzip = settings.compression == "gzip"
        compression = grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression
        if self._credentials is None:
            return grpc.insecure_channel(target, options, compression)
        return grpc.secure_channel(target, self._credentials, options, compression)

    def _use(self, channel: grpc.Channel) -> None:
        self.close()
        self._channel = channel
        self._export: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            _METHODS[self._settings.signal],
            request_serializer=_same,
            response_deserializer=_same,
        )

    def send(self, request: bytes, headers: Headers = ()) -> Outcome:
        """Send `request` once, within the timeout of the settings."""
        moved = False
        if self._pinned is not None:
            try:
                moved = self._pinned.look()
            except Refused as error:
                return Outcome(Kind.MISCONFIGURED, str(error))
            except (OSError, UnicodeError) as error:
                return Outcome(Kind.RETRY, f"connection failed: {error}")
        channel = self._files.exchange(self._reopen)
        if channel is None and moved:
            channel = self._open()
        if channel is not None:
            self._use(channel)
        with suppressed_instrumentation():
            try:
                answer = self._export(
                    request,
                    timeout=None if isinf(self._settings.timeout) else self._settings.timeout,
                    metadata=self._metadata + headers if headers else self._metadata,
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

    def rest(self) -> None:
        """Nothing but a look-up next time: a channel closes its connection by itself
        (`_IDLE_MS`)."""
        if self._pinned is not None:
            self._pinned.forget()

    def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            self._channel.close()

    def _refused(self, error: grpc.RpcError) -> Outcome:
        assert isinstance(error, grpc.Call)
        name = error.code().name
        words = hide((error.details() or "").removeprefix(_PREAMBLE), self._secrets)
        delay = None
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                delay = status_of(value if isinstance(value, bytes) else value.encode())[1]
        rule = for_signal(grpc_rule(name, words, delay), self._settings.signal)
        if name == "UNAVAILABLE":
            hint = next((hint for sign, hint in _HINTS if sign in words.lower()), None)
            if hint:
                self._files.doubt()
                rule = Rule(Kind.MISCONFIGURED, remedy=hint)
            elif error.details() != words or "failed to connect" in words.lower():
                via = self._settings.route.via
                remedy = unreached(self._settings.server, words, via)
                rule = Rule(Kind.RETRY, remedy=remedy)  # Nothing was sent.
        if self._pinned is not None and name in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
            self._pinned.doubt()
        elif name == "INTERNAL" and words == "Invalid metadata":
            rule = Rule(Kind.MISCONFIGURED, remedy="check OTEL_EXPORTER_OTLP_HEADERS")
        refused = refused_of_many(words) if rule.kind is Kind.REJECTED else 0
        parts = (f"gRPC {name}", words[:160], rule.remedy)
        words = ": ".join(p for p in parts if p)
        return Outcome(rule.kind, words, delay, refused, rule.size, rule.no_signal)


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
    return read_bounded(path, MOST_BYTES) if path else None


def _same(message: bytes) -> bytes:
    return message
