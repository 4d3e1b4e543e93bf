"""The propagator `alloy`: what it takes, what it leaves alone, and what the span processor makes
of the rest of Alloy's headers."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import SpanContext, SpanKind, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otel_alloy import AlloyPropagator, AlloySpanProcessor, execution_context
from otel_alloy.mapping.ids import execution_ids
from otel_alloy.propagation.propagator import propagator_sampled
from otel_alloy.settings.loader import load_settings

PATH = Path(__file__).parents[2] / "examples" / "correlate" / "vectors.json"
VECTORS: dict[str, Any] = json.loads(PATH.read_text("utf-8"))
UUID = "35SnGU0DUSNP5L26fsmnq"
HEADER = "X-Alloy-ExecutionUuid"
VALID = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
HEADERS = {
    HEADER: UUID,
    "X-Alloy-WorkflowId": "68110fea7d181f356acd1bf0",
    "X-Alloy-UserId": "68110fea7d181f356acd1bf2",
    "X-Alloy-BlockName": "Order created, paid",
    "X-Alloy-BlockType": "shopify",
}
COPIED = {
    "runalloy.execution.uuid": UUID,
    "runalloy.workflow.installation.id": "68110fea7d181f356acd1bf0",
    "user.id": "68110fea7d181f356acd1bf2",
    "runalloy.block.name": "Order created, paid",
    "runalloy.block.type": "shopify",
}

Carrier = Mapping[str, str | list[str]]


def found(carrier: Carrier, context: Context | None = None, **options: bool) -> SpanContext:
    """The span context after extraction."""
    extracted = AlloyPropagator(**options).extract(carrier, context)
    return get_current_span(extracted).get_span_context()


@pytest.mark.parametrize("vector", VECTORS["executions"], ids=lambda v: v["note"])
def test_executions_are_taken(vector: dict[str, str]) -> None:
    """Every published vector gives a remote, sampled context with the published ids."""
    context = found({HEADER: vector["uuid"]})
    assert f"{context.trace_id:032x}" == vector["trace_id"]
    assert f"{context.span_id:016x}" == vector["span_id"]
    assert context.is_remote and context.trace_flags == 1 and not context.trace_state
    assert context == execution_context(vector["uuid"])


@pytest.mark.parametrize("case", VECTORS["ignored"], ids=lambda c: c["why"])
def test_the_doubtful_is_ignored(case: dict[str, Any]) -> None:
    """Of a header that is empty, oversized, repeated or holds control characters nothing is taken;
    the other headers are not, either."""
    carrier = HEADERS | {HEADER: case["values"]}
    assert AlloyPropagator().extract(carrier, Context()) == Context()


def test_white_space_and_case() -> None:
    """White space around the value does not count, nor does the case of the header's name."""
    for case in VECTORS["trimmed"]:
        assert found({HEADER: case["value"]}) == execution_context(case["uuid"])
    assert found({HEADER.lower(): UUID}) == execution_context(UUID)


@pytest.mark.parametrize("first", [True, False])
def test_a_valid_traceparent_stays(first: bool) -> None:
    """A valid `traceparent` decides, sampled or not, whichever propagator comes first; without one,
    or with an invalid one, the execution is the parent. Baggage gets through either way."""
    others = [TraceContextTextMapPropagator(), W3CBaggagePropagator()]
    order = [*others, AlloyPropagator()] if first else [AlloyPropagator(), *others]
    composite = CompositePropagator(order)
    for traceparent, trace_id in (
        (VALID, int(VALID[3:35], 16)),
        (VALID.replace(VALID[3:35], "0" * 32), execution_context(UUID).trace_id),
        ("nonsense", execution_context(UUID).trace_id),
    ):
        carrier = {"traceparent": traceparent, HEADER: UUID, "baggage": "a=b"}
        context = composite.extract(carrier, Context())
        assert get_current_span(context).get_span_context().trace_id == trace_id
        assert baggage.get_baggage("a", context) == "b"


def test_nothing_is_injected() -> None:
    """Injection leaves the carrier alone, so no header of Alloy's goes to other services."""
    context = AlloyPropagator().extract(HEADERS)
    carrier: dict[str, str] = {}
    AlloyPropagator().inject(carrier, context)
    assert carrier == {} and AlloyPropagator().fields == set()


class _Raw(Getter[Any]):
    """A getter that hands out what it was given, whatever that is."""

    def get(self, carrier: Any, key: str) -> Any:
        return carrier

    def keys(self, carrier: Any) -> list[str]:
        return []


@given(
    st.none() | st.text(st.characters(exclude_categories=())) | st.lists(st.text() | st.binary())
)
def test_nothing_raises(values: Any) -> None:
    """Whatever a getter hands out, extraction raises nothing, and what it takes is one text."""
    context = AlloyPropagator().extract({}, Context(), _Raw())
    taken = AlloyPropagator().extract(values, Context(), _Raw())
    assert context == Context()
    if get_current_span(taken).get_span_context().is_valid:
        text = values if isinstance(values, str) else values[0]
        trace_id, _ = execution_ids(text.strip(" \t"))
        span_context = get_current_span(taken).get_span_context()
        assert span_context.trace_id == int.from_bytes(trace_id)


def test_sampled_as_configured(caplog: pytest.LogCaptureFixture) -> None:
    """Sampled unless OTEL_ALLOY_PROPAGATOR_SAMPLED, or the caller, says otherwise; a word that is
    neither true nor false costs a warning and changes nothing; the receiver takes the variable for
    no setting of its own."""
    assert found({HEADER: UUID}, sampled=False).trace_flags == 0
    variable = "OTEL_ALLOY_PROPAGATOR_SAMPLED"
    words = {"": True, "true": True, "TRUE": True, "1": True, " false ": False, "0": False}
    for word, sampled in words.items():
        assert propagator_sampled({variable: word}) is sampled
    assert propagator_sampled({}) and not caplog.records
    with caplog.at_level(logging.WARNING):
        assert propagator_sampled({variable: "perhaps"})
    assert variable in caplog.text
    load_settings({}, {"ALLOY_API_KEY": "k", variable: "false"})


@pytest.mark.parametrize("sampled", ["true", "false"])
def test_by_name_alone(sampled: str) -> None:
    """`OTEL_PROPAGATORS` finds the propagator by its entry point, in a process of its own, without
    a warning and without loading the SDK."""
    code = (
        "import sys, opentelemetry.propagate as p; from opentelemetry import trace;"
        f"c = trace.get_current_span(p.extract({{{HEADER!r}: {UUID!r}}})).get_span_context();"
        "print(f'{c.trace_id:032x}', c.trace_flags, 'opentelemetry.sdk.trace' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={
            "OTEL_PROPAGATORS": "tracecontext,baggage,alloy",
            "OTEL_ALLOY_PROPAGATOR_SAMPLED": sampled,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    flags = "1" if sampled == "true" else "0"
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["552ee3cef1041c5b427d7f9ec5f43d71", flags, "False"]


def test_execution_context() -> None:
    """The context of an execution is the one that otel-alloy exports; an empty uuid has none."""
    trace_id, span_id = execution_ids(UUID)
    context = execution_context(UUID)
    assert context.trace_id.to_bytes(16) == trace_id and context.span_id.to_bytes(8) == span_id
    assert context.is_remote and context.trace_flags.sampled
    assert not execution_context(UUID, sampled=False).trace_flags.sampled
    with pytest.raises(ValueError, match="uuid"):
        execution_context("")


# The span processor ------------------------------------------------------------------------------


def exported(carrier: Carrier, kind: SpanKind, **options: bool) -> ReadableSpan:
    """A span that a server starts for a call with these headers; its only child is dropped."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(ParentBased(ALWAYS_ON), shutdown_on_exit=False)
    provider.add_span_processor(AlloySpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    propagators = [TraceContextTextMapPropagator(), AlloyPropagator(**options)]
    context = CompositePropagator(propagators).extract(carrier)
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("call", context, kind), tracer.start_span("child"):
        pass
    child, span = exporter.get_finished_spans()
    assert not child.attributes, "only server spans get attributes"
    return span


def test_headers_are_copied_to_server_spans() -> None:
    """A SERVER span gets what Alloy's headers say, also where a `traceparent` decided about its
    trace; a span of another kind, or of a call without an execution, gets nothing."""
    span = exported(HEADERS, SpanKind.SERVER)
    assert span.attributes == COPIED
    assert span.parent == execution_context(UUID)
    sampled = VALID[:-1] + "1"
    span = exported({**HEADERS, "traceparent": sampled}, SpanKind.SERVER)
    assert span.attributes == COPIED
    assert span.parent is not None and f"{span.parent.trace_id:032x}" == VALID[3:35]
    assert not exported(HEADERS, SpanKind.CONSUMER).attributes
    without = {name: value for name, value in HEADERS.items() if name != HEADER}
    assert not exported(without, SpanKind.SERVER).attributes


def test_a_bad_header_does_not_spoil_the_others() -> None:
    """A describing header that is repeated, oversized or holds control characters is left out."""
    carrier: Carrier = {
        **HEADERS,
        "X-Alloy-UserId": ["a", "b"],
        "X-Alloy-BlockName": "x" * 257,
        "X-Alloy-BlockType": "a\x00b",
    }
    left_out = {"user.id", "runalloy.block.name", "runalloy.block.type"}
    wanted = {key: value for key, value in COPIED.items() if key not in left_out}
    assert exported(carrier, SpanKind.SERVER).attributes == wanted


def test_the_propagator_needs_the_api_alone() -> None:
    """What a customer's service loads for `OTEL_PROPAGATORS=alloy`: no SDK, no HTTP, no settings,
    so it runs beside whatever versions of those the service has."""
    code = (
        "import sys\n"
        "import otel_alloy.propagation.propagator, otel_alloy.propagation.context\n"
        "from otel_alloy import AlloyPropagator, execution_context\n"
        "heavy = {'opentelemetry.sdk', 'opentelemetry.proto', 'httpx', 'pydantic', 'grpc'}\n"
        "heavy |= {'yaml', 'requests', 'google.protobuf', 'otel_alloy.settings'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
