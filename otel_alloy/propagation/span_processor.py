"""The span processor that copies Alloy's headers to a service's server spans; opt-in.

It reads what the propagator found and left in the context. It reads no header, no setting, and
touches no span that is not a server's.
"""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor
from opentelemetry.trace import SpanKind

from .propagator import call_attributes


class AlloySpanProcessor(SpanProcessor):
    """Gives a SERVER span of a call from Alloy `runalloy.execution.uuid` and, of the headers that
    came with it, `runalloy.workflow.installation.id` (X-Alloy-WorkflowId), `user.id` (-UserId),
    `runalloy.block.name` and `.type` (-BlockName, -BlockType: the event block that started the
    workflow). Also where a `traceparent` decided about the trace.

    `provider.add_span_processor(AlloySpanProcessor())`; needs the propagator `alloy`.
    """

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Sets the attributes; the context is the one that the server extracted."""
        if span.kind is SpanKind.SERVER:
            span.set_attributes(dict(call_attributes(parent_context)))
