"""From settings to senders: the one place that chooses a transport.

Only construction lives here. grpcio and httpx are imported when they are used, not before.
"""

from __future__ import annotations

from collections.abc import Mapping

from otel_alloy.errors import ConfigurationError
from otel_alloy.otlp.outcome import Sender
from otel_alloy.otlp.settings import OtlpSettings, otlp_settings


def sender(settings: OtlpSettings, user_agent: str) -> Sender:
    """The sender for `settings`; it connects when it first sends, not here.

    Raises `ConfigurationError` where a certificate or key file cannot be used.
    """
    if settings.protocol == "grpc":
        from otel_alloy.otlp.grpc import GrpcSender

        return GrpcSender(settings, user_agent)
    from otel_alloy.otlp.http import HttpSender

    return HttpSender(settings, user_agent)


def open_senders(environment: Mapping[str, str], user_agent: str) -> tuple[Sender, Sender]:
    """The senders for traces and for logs, from OTEL_EXPORTER_OTLP_* in `environment`.

    Raises `ConfigurationError` with all mistakes of both signals, each named once.
    """
    traces, mistakes = otlp_settings(environment, "traces")
    logs, more = otlp_settings(environment, "logs")
    if mistakes := list(dict.fromkeys(mistakes + more)):
        raise ConfigurationError(mistakes)
    first = sender(traces, user_agent)
    try:
        return first, sender(logs, user_agent)
    except BaseException:
        first.close()
        raise
