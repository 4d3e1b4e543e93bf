"""otel-alloy: executions of Alloy (runalloy.com) as OpenTelemetry spans and log records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_alloy.version import __version__

if TYPE_CHECKING:
    from otel_alloy.config import Settings
    from otel_alloy.correlate import Correlation, execution_context
    from otel_alloy.propagator import AlloyPropagator
    from otel_alloy.receiver import Receiver
    from otel_alloy.span_processor import AlloySpanProcessor

__all__ = [
    "AlloyPropagator",
    "AlloySpanProcessor",
    "Correlation",
    "Receiver",
    "Settings",
    "__version__",
    "execution_context",
]

_HOMES = {
    "AlloyPropagator": "otel_alloy.propagator",
    "AlloySpanProcessor": "otel_alloy.span_processor",
    "Correlation": "otel_alloy.correlate",
    "Receiver": "otel_alloy.receiver",
    "Settings": "otel_alloy.config",
    "execution_context": "otel_alloy.correlate",
}


def __getattr__(name: str) -> Any:
    """Public names are loaded when used, so that importing the package costs nothing."""
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
