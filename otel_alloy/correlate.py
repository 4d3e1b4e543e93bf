"""Correlation with traces that exist already: the public names for it, values and arithmetic only.

Two directions. `execution_context` gives a service of the user's the span context that otel-alloy
gives an execution, to link to it. `Correlation` is what the mapping's hook answers, by which a
user who knows better attaches an execution to a trace of their own or adds links to it.

Nothing here reads a setting, loads code or logs (`otel_alloy.hook` does), so that a service can
import this at no cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry.trace import Link, SpanContext, TraceFlags

from otel_alloy.mapping.ids import execution_ids

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from otel_alloy.alloy.models import Notification


@dataclass(frozen=True, slots=True)
class Correlation:
    """How an execution hangs together with traces that exist already.

    `parent`: a span of somebody else's. The execution's span becomes its child and goes into its
    trace, the log record follows; the span id stays the computed one. Services that joined the
    execution by the propagator are in the computed trace and do not follow, so use links where
    there are such services. `links`: at most 128, the execution stays in its own trace.
    """

    parent: SpanContext | None = None
    links: Sequence[Link | SpanContext | tuple[SpanContext, Mapping[str, AttributeValue]]] = ()


Hook = Callable[["Notification"], "Correlation | None"]
"""Named by the setting `hook`. Is called for each notification that is converted, also for those
that are sent again, by one thread for each source, and delays delivery for as long as it takes; it
must not change the notification. `None`: nothing to add.

It has to be a function of the notification alone: what is sent again after a crash is byte for
byte the same, and so folds into one, only as long as the hook gives the same answer again. A hook
that raises, or answers nonsense, costs a warning and counts as a failure; the execution is then
delivered as if there were no hook.
"""


def execution_context(uuid: str, *, sampled: bool = True) -> SpanContext:
    """The span context of the execution whose `executionUuid` is `uuid`, an opaque text.

    For a link from a span of one's own, for example to the execution that
    `POST /workflows/{id}/rerun/{executionUuid}` started, which answers with the uuid: the ids are
    those of version 1 of the recipe (`otel_alloy.mapping.ids`), so the execution need not have
    been exported, or even have ended. Remote; the sampled flag as asked for.

    Raises ValueError for an empty text, which would be the same for all executions.
    """
    if not uuid:
        raise ValueError("an execution without executionUuid has no context; give its uuid")
    trace_id, span_id = execution_ids(uuid)
    return SpanContext(
        int.from_bytes(trace_id),
        int.from_bytes(span_id),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT),
    )
