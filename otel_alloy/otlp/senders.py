"""From settings to senders: the one place that chooses a transport.

Only construction lives here. grpcio and httpx are imported when they are used, not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import cast

from otel_alloy.errors import ConfigurationError
from otel_alloy.otlp.answers import Signal
from otel_alloy.otlp.outcome import Sender
from otel_alloy.settings.otlp import OtlpSettings, otlp_settings

_PULLED = frozenset(("prometheus",))  # registered as exporter, but is a reader with a server
SIGNALS: tuple[Signal, ...] = ("traces", "logs")
VARIABLES: dict[Signal, str] = {"traces": "OTEL_TRACES_EXPORTER", "logs": "OTEL_LOGS_EXPORTER"}


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
    """The senders for traces and for logs, from `OTEL_EXPORTER_OTLP_*`, `OTEL_TRACES_EXPORTER`
    and `OTEL_LOGS_EXPORTER` in `environment`.

    Raises `ConfigurationError` with all mistakes of both signals, each named once.
    """
    if mistakes := sender_mistakes(environment):
        raise ConfigurationError(mistakes)
    first = _open(environment, "traces", user_agent)
    try:
        return first, _open(environment, "logs", user_agent)
    except BaseException:
        first.close()
        raise


def sender_mistakes(environment: Mapping[str, str]) -> list[str]:
    """What is wrong with the variables that choose and set up the senders; connects to nothing."""
    mistakes = []
    for signal in SIGNALS:
        name = exporter_name(environment, signal)
        if name == "otlp":
            mistakes += otlp_settings(environment, signal)[1]
            continue
        known = {e.name for e in entry_points(group=f"opentelemetry_{signal}_exporter")}
        if name not in known:
            mistakes.append(
                f"{VARIABLES[signal]} is {name!r}: write otlp (default) or the name of one "
                f"installed exporter; installed are {', '.join(sorted(known))}."
            )
    return list(dict.fromkeys(mistakes))


def exporter_name(environment: Mapping[str, str], signal: Signal) -> str:
    """The exporter that the environment chooses for a signal; "otlp" is the default."""
    return environment.get(VARIABLES[signal], "").strip() or "otlp"


def metrics_exporters(environment: Mapping[str, str]) -> list[str]:
    """What OTEL_METRICS_EXPORTER names; nothing unless set, or with OTEL_SDK_DISABLED."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    names = [n.strip() for n in environment.get("OTEL_METRICS_EXPORTER", "").split(",")]
    return [name for name in dict.fromkeys(names) if name not in ("", "none")]


def metrics_mistakes(environment: Mapping[str, str]) -> list[str]:
    """What is wrong with the variables of our own metrics; connects to nothing."""
    mistakes = []
    for name in metrics_exporters(environment):
        if name == "otlp":
            mistakes += otlp_settings(environment, cast(Signal, "metrics"))[1]
            continue
        entries = entry_points(group="opentelemetry_metrics_exporter")
        known = {"none", *(e.name for e in entries if e.name not in _PULLED)}
        if name not in known:
            mistakes.append(
                f"OTEL_METRICS_EXPORTER is {name!r}: write none (default), otlp, or the name of an "
                f"installed exporter; installed are {', '.join(sorted(known))}."
            )
    return mistakes


def _open(environment: Mapping[str, str], signal: Signal, user_agent: str) -> Sender:
    name = exporter_name(environment, signal)
    if name != "otlp":
        from otel_alloy.otlp.installed import InstalledSender

        return InstalledSender(signal, name)
    return sender(otlp_settings(environment, signal)[0], user_agent)
