"""The OpenTelemetry propagator `alloy`, which runs inside the services that Alloy calls.

A Custom API block sends `X-Alloy-ExecutionUuid` and no `traceparent`. From that header the
propagator computes the span context that otel-alloy gives the execution (`mapping.ids`), so that
the service's spans lie under the execution's span, long before that one is exported. With
`OTEL_PROPAGATORS=tracecontext,baggage,alloy` this takes no code.

Rules: a valid span context that is there already stays, whoever found it; of a doubtful header
nothing is taken, because a wrong parent is worse than none; nothing is ever injected; nothing
raises. The rules are written down for other languages in `examples/correlate/README.md`.

This module is loaded by `opentelemetry.propagate` while that is being imported: it may import the
API and little else, never the SDK.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from opentelemetry.context import Context, get_value, set_value
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.trace import NonRecordingSpan, get_current_span, set_span_in_context

from ..mapping import semconv
from .context import execution_context

SAMPLED_VARIABLE = "OTEL_ALLOY_PROPAGATOR_SAMPLED"
EXECUTION_HEADER = "X-Alloy-ExecutionUuid"
LONGEST = 256
"""Characters of a header that is taken; the uuids that Alloy makes have about 21."""

_DESCRIBING = {
    # The record's `workflowId`, which is the user's installed copy, comes under that very name.
    "X-Alloy-WorkflowId": semconv.WORKFLOW_INSTALLATION_ID,
    "X-Alloy-UserId": semconv.USER_ID,
    "X-Alloy-BlockName": semconv.BLOCK_NAME,
    "X-Alloy-BlockType": semconv.BLOCK_TYPE,
}
_CALL = "otel-alloy-call"
# A key of `create_key` is another one in each copy of this module. Where otel-alloy and the
# propagator's own distribution are both installed, the span processor of the one has to find what
# the propagator of the other left.


class AlloyPropagator(TextMapPropagator):
    """Extracts the execution's span context from `X-Alloy-ExecutionUuid`; injects nothing.

    `sampled`: the sampled flag of that context, by which parent-based samplers go; None is what
    `OTEL_ALLOY_PROPAGATOR_SAMPLED` says (true unless set to false).
    """

    def __init__(self, sampled: bool | None = None) -> None:
        if sampled is None:
            sampled = propagator_sampled()
        self._sampled = sampled

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> Context:
        """`context` (None: an empty one) with the execution as its current span, unless it holds a
        valid span context or the header is empty, repeated, longer than 256 characters or holds
        control characters. The other `X-Alloy-` headers are kept for `AlloySpanProcessor`."""
        if context is None:
            context = Context()
        uuid = _header(carrier, EXECUTION_HEADER, getter)
        if uuid is None or "," in uuid:  # repeated headers may arrive joined (RFC 9110, 5.3)
            return context
        call = {semconv.EXECUTION_UUID: uuid}
        for name, key in _DESCRIBING.items():
            value = _header(carrier, name, getter)
            if value is not None:
                call[key] = value
        context = set_value(_CALL, call, context)
        if get_current_span(context).get_span_context().is_valid:
            return context
        execution = execution_context(uuid, sampled=self._sampled)
        return set_span_in_context(NonRecordingSpan(execution), context)

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        """Does nothing: `X-Alloy-` headers are Alloy's to send; `tracecontext` carries the trace
        on to other services."""

    @property
    def fields(self) -> set[str]:
        """What `inject` sets: nothing."""
        return set()


def call_attributes(context: Context | None) -> Mapping[str, str]:
    """What Alloy's headers said of the call, as span attributes; empty unless the propagator found
    an execution. `context` None is the current one."""
    found = get_value(_CALL, context)
    return found if isinstance(found, dict) else {}


def _header(carrier: CarrierT, name: str, getter: Getter[CarrierT]) -> str | None:
    """The one good value of a header; None where there is none. Carriers of HTTP servers ignore
    case; plain mappings have either of these spellings."""
    values = getter.get(carrier, name.lower()) or getter.get(carrier, name) or []
    if isinstance(values, str):
        values = [values]
    if len(values) != 1 or not isinstance(values[0], str):
        return None
    value = values[0].strip(" \t")
    if not value or len(value) > LONGEST or any(_is_unfit(c) for c in value):
        return None
    return value


def _is_unfit(c: str) -> bool:
    """A control character, or half of one: no exporter could send that on."""
    return c < " " or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff"


def propagator_sampled(environment: Mapping[str, str] | None = None) -> bool:
    """The sampled flag that the propagator `alloy` gives an execution: what
    OTEL_ALLOY_PROPAGATOR_SAMPLED says in `environment` (None: the process's), else true. What is
    neither true nor false costs a warning; a service must not fail to start because of it."""
    found = (os.environ if environment is None else environment).get(SAMPLED_VARIABLE, "")
    word = found.strip().lower()
    if word not in ("", "true", "1", "yes", "on", "false", "0", "no", "off"):
        logging.getLogger("otel_alloy").warning(
            "%s has to be true or false; taken as true", SAMPLED_VARIABLE
        )
    return word not in ("false", "0", "no", "off")
