"""The span context of an execution, for services that link to it. Values and arithmetic only.

Nothing here reads a setting, loads code or logs, so that a service can import this at no cost.
Imports within are relative, as in the whole of this package: `propagator/` makes a distribution of
its own from these very files, under another name.
"""

from __future__ import annotations

from opentelemetry.trace import SpanContext, TraceFlags

from ..mapping.ids import execution_ids


def execution_context(uuid: str, *, sampled: bool = True) -> SpanContext:
    """The span context of the execution whose `executionUuid` is `uuid`, an opaque text.

    For a link from a span of one's own, for example to the execution that
    `POST /workflows/{id}/rerun/{executionUuid}` started, which answers with the uuid: the ids are
    those of version 1 of the recipe (`mapping.ids`), so the execution need not have
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
