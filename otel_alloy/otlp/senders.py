"""From settings to senders and exporters: the one place that chooses a transport.

Only construction lives here. grpcio, httpcore and the SDK are imported when they are used, not
before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from otel_alloy.errors import ConfigurationError
from otel_alloy.otlp.outcome import Headers, Outcome, Sender
from otel_alloy.otlp.pinned import PinnedTarget, mistakes_against
from otel_alloy.outbound import OutboundPolicy
from otel_alloy.runtime import Runtime
from otel_alloy.settings.otlp import Exporter, OtlpExporters, OtlpSettings, mistakes_of

_SDK_OTLP = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
}
_LONGEST = 86_400.0
"""Seconds, where there is no limit: the SDK's exporters know none without one."""


def open_senders(
    exporters: OtlpExporters,
    user_agent: str,
    runtime: Runtime,
    policy: OutboundPolicy | None = None,
) -> tuple[Sender | None, Sender | None]:
    """The senders for the traces and for the logs of executions, None for a signal that is off;
    they connect when they first send, not here.

    `policy`: for endpoints that somebody else names.

    Raises `ConfigurationError` with all mistakes of both signals, each once, and where a
    certificate, a key file, the proxy or an installed exporter cannot be used.
    """
    mistakes = mistakes_of(exporters.executions)
    if mistakes or (mistakes := mistakes_against(policy, exporters.executions)):
        raise ConfigurationError(mistakes)
    first = _sender(exporters.traces, user_agent, runtime, policy)
    try:
        return first, _sender(exporters.logs, user_agent, runtime, policy)
    except BaseException:
        if first is not None:
            first.close()
        raise


def sdk_exporters(*exporters: Exporter) -> list[Any]:
    """The SDK's exporters, for what the receiver tells of itself (metrics, own traces).

    Executions never go to the SDK's own OTLP exporters: those tell success from failure and nothing
    more. They are set up from the same settings as the senders. Raises `ConfigurationError`.
    """
    if mistakes := mistakes_of(exporters):
        raise ConfigurationError(mistakes)
    return [_sdk_otlp(one.settings) if one.name == "otlp" else _installed(one) for one in exporters]


class NamedSender:
    """A sender whose words name what is set where it is written: `otlp.endpoint` of the settings
    file, or the variable of one signal, in place of the general variable."""

    def __init__(self, sender: Sender, named: Callable[[str], str]) -> None:
        self._sender = sender
        self._named = named

    def send(self, request: bytes, headers: Headers = ()) -> Outcome:
        """What the sender says, in these words."""
        outcome = self._sender.send(request, headers)
        if not outcome.reason:
            return outcome
        return replace(outcome, reason=self._named(outcome.reason))

    def rest(self) -> None:
        """As the sender does."""
        self._sender.rest()

    def close(self) -> None:
        """As the sender does."""
        self._sender.close()


def _sender(
    exporter: Exporter, user_agent: str, runtime: Runtime, policy: OutboundPolicy | None
) -> Sender | None:
    named = exporter.settings.named
    try:
        sender = _transport(exporter, user_agent, runtime, policy)
    except ConfigurationError as error:
        raise ConfigurationError([named(mistake) for mistake in error.mistakes]) from None
    return None if sender is None else NamedSender(sender, named)


def _transport(
    exporter: Exporter, user_agent: str, runtime: Runtime, policy: OutboundPolicy | None
) -> Sender | None:
    if exporter.off:
        return None
    if exporter.name != "otlp":
        from otel_alloy.otlp.sdk import SdkSender

        return SdkSender(exporter.signal, exporter.name, _installed(exporter))
    if exporter.settings.protocol == "grpc":
        from otel_alloy.otlp.grpc import GrpcSender

        settings = exporter.settings
        pinned = None
        if policy and policy.public_only:
            pinned = PinnedTarget(policy, settings, runtime.monotonic)
        return GrpcSender(settings, user_agent, pinned)
    from otel_alloy.otlp.http import HttpSender

    return HttpSender(exporter.settings, user_agent, runtime, policy)


def _installed(exporter: Exporter) -> Any:
    group = f"opentelemetry_{exporter.signal}_exporter"
    try:
        (entry,) = list(entry_points(group=group, name=exporter.name))[:1]
        return entry.load()()
    except Exception as error:  # whatever the exporter's own code makes of its settings
        raise ConfigurationError(
            [
                f"{exporter.variable}: the exporter {exporter.name!r} cannot be started "
                f"({type(error).__name__}): check its own settings, or choose otlp."
            ]
        ) from error


def _sdk_otlp(settings: OtlpSettings) -> Any:
    module, exporter = _SDK_OTLP[settings.signal]
    timeout = min(settings.timeout, _LONGEST)
    gzip = settings.compression == "gzip"
    if settings.protocol == "grpc":
        import grpc

        from otel_alloy.otlp.grpc import credentials

        target, options = settings.route.channel_options(settings.endpoint)
        over_grpc = import_module(f"opentelemetry.exporter.otlp.proto.grpc.{module}")
        return getattr(over_grpc, exporter)(
            target,
            settings.insecure,
            None if settings.insecure else credentials(settings),
            settings.headers,
            timeout,
            grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression,
            channel_options=tuple(options),
        )
    from opentelemetry.exporter.otlp.proto.http import Compression

    from otel_alloy.otlp.http import tls_context

    over_http = import_module(f"opentelemetry.exporter.otlp.proto.http.{module}")
    return getattr(over_http, exporter)(
        settings.endpoint,
        settings.certificate,
        settings.client_key,
        settings.client_certificate,
        dict(settings.headers),
        timeout,
        Compression.Gzip if gzip else Compression.NoCompression,
        settings.route.session(tls_context(settings)),
    )
