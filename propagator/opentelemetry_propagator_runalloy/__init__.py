"""The OpenTelemetry propagator `alloy`, on its own: services that an Alloy (runalloy.com) workflow
calls join the trace of its execution.

`OTEL_PROPAGATORS=tracecontext,baggage,alloy` needs nothing of this by name. `execution_context` is
the span context of an execution, to link to. `AlloySpanProcessor` copies Alloy's headers to server
spans; it alone needs `opentelemetry-sdk`, which whoever exports spans has.

The other modules here are those of otel-alloy; `hatch_build.py` puts them beside this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .propagation.context import execution_context
from .propagation.propagator import AlloyPropagator

if TYPE_CHECKING:
    from .propagation.span_processor import AlloySpanProcessor

__all__ = ["AlloyPropagator", "AlloySpanProcessor", "execution_context"]


def __getattr__(name: str) -> Any:
    """The span processor is loaded when it is asked for, because it stands on the SDK."""
    if name == "AlloySpanProcessor":
        from .propagation.span_processor import AlloySpanProcessor

        return AlloySpanProcessor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
