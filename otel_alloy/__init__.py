"""otel-alloy: executions of Alloy (runalloy.com) as OpenTelemetry spans and log records.

What a program of your own may rely on:

- `Receiver`, which runs in it; `Settings`, or `load_settings` for those of flags, environment and
  file together; `AlloyReceiverError`, the base of all that they raise (`otel_alloy.errors`).
- `AlloyPropagator`, `AlloySpanProcessor` and `execution_context`, with which a service joins an
  execution's trace or links to it.
- `Correlation`, what a `Hook` answers when it is given a `Notification`.

These names, `otel_alloy.errors` and `otel_alloy.pipeline.events` follow Semantic Versioning; other
modules may change at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_alloy.version import __version__

if TYPE_CHECKING:
    from otel_alloy.alloy.models import Notification
    from otel_alloy.errors import AlloyReceiverError
    from otel_alloy.mapping.hook import Correlation, Hook
    from otel_alloy.pipeline.receiver import Receiver
    from otel_alloy.propagation.context import execution_context
    from otel_alloy.propagation.propagator import AlloyPropagator
    from otel_alloy.propagation.span_processor import AlloySpanProcessor
    from otel_alloy.settings.loader import load_settings
    from otel_alloy.settings.models import Settings

__all__ = [
    "AlloyPropagator",
    "AlloyReceiverError",
    "AlloySpanProcessor",
    "Correlation",
    "Hook",
    "Notification",
    "Receiver",
    "Settings",
    "__version__",
    "execution_context",
    "load_settings",
]

_HOMES = {
    "AlloyPropagator": "otel_alloy.propagation.propagator",
    "AlloyReceiverError": "otel_alloy.errors",
    "AlloySpanProcessor": "otel_alloy.propagation.span_processor",
    "Correlation": "otel_alloy.mapping.hook",
    "Hook": "otel_alloy.mapping.hook",
    "Notification": "otel_alloy.alloy.models",
    "Receiver": "otel_alloy.pipeline.receiver",
    "Settings": "otel_alloy.settings.models",
    "execution_context": "otel_alloy.propagation.context",
    "load_settings": "otel_alloy.settings.loader",
}


def __getattr__(name: str) -> Any:
    """Public names are loaded when used, so that importing the package costs nothing."""
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
