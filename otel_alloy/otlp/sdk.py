"""The SDK's own exporters, for what the receiver tells of itself (metrics, own traces).

Executions never go this way: these exporters tell success from failure and nothing more. They are
set up from the same `OTEL_*` variables as the senders, and each is imported where it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Literal, cast

from otel_alloy.otlp.answers import Signal
from otel_alloy.settings.otlp import otlp_settings

_OTLP: dict[str, tuple[str, str]] = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
}


def sdk_exporter(
    name: str, signal: Literal["traces", "metrics"], environment: Mapping[str, str]
) -> Any:
    """The SDK's exporter `name` of a signal ("otlp", or one that is installed)."""
    if name != "otlp":
        (entry,) = list(entry_points(group=f"opentelemetry_{signal}_exporter", name=name))[:1]
        return entry.load()()
    module, exporter = _OTLP[signal]
    settings, _ = otlp_settings(environment, cast(Signal, signal))
    gzip = settings.compression == "gzip"
    if settings.protocol == "grpc":
        import grpc

        from otel_alloy.otlp.grpc import credentials

        over_grpc = import_module(f"opentelemetry.exporter.otlp.proto.grpc.{module}")
        return getattr(over_grpc, exporter)(
            settings.endpoint,
            settings.insecure,
            None if settings.insecure else credentials(settings),
            settings.headers,
            settings.timeout,
            grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression,
        )
    from opentelemetry.exporter.otlp.proto.http import Compression

    over_http = import_module(f"opentelemetry.exporter.otlp.proto.http.{module}")
    return getattr(over_http, exporter)(
        settings.endpoint,
        settings.certificate,
        settings.client_key,
        settings.client_certificate,
        dict(settings.headers),
        settings.timeout,
        Compression.Gzip if gzip else Compression.NoCompression,
    )
