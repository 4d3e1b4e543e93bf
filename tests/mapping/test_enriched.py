"""What is known of an execution beyond its notification: as it is kept, and as it is sent."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span
from opentelemetry.trace import SpanContext, TraceState

from otel_alloy.alloy.models import read_notification
from otel_alloy.mapping.convert import Converter, Execution, Role
from otel_alloy.mapping.encode import Envelope
from otel_alloy.mapping.enriched import MOST_BYTES
from otel_alloy.mapping.enrichment import Enrichment, Reason, Step
from otel_alloy.mapping.hook import Correlation, GuardedHook
from otel_alloy.otlp.any_value import attributes
from otel_alloy.otlp.sdk import spans as sdk_spans

START = 1_745_948_650_336_000_000
END = START + 96_000_000

texts = st.text(st.characters(exclude_categories=()), max_size=30) | st.sampled_from(
    ["", "\x00", "\ud83d", "two\nlines", "x" * 3000, "ü" * 200, "a:b"]
)
maybe = st.none() | texts
times = st.none() | st.integers(START - 10**9, END + 10**9) | st.integers(-(2**70), 2**70)


def step(index: int) -> st.SearchStrategy[Step]:
    return st.builds(
        Step, st.just(index), maybe, maybe, maybe, maybe, times, times,
        st.none() | st.sampled_from([0, 200, 422, 600, 2**70]), st.booleans(),
    )  # fmt: skip


reasons = st.builds(Reason, st.sampled_from(["webhook", "errors"]), maybe, maybe)
enrichments = st.builds(
    Enrichment,
    st.integers(0, 5).flatmap(lambda n: st.tuples(*(step(i) for i in range(n)))),
    st.none() | step(0),
    st.none() | reasons,
)


def execution(
    known: Enrichment | None, message: str = "executionError", role: Role = Role.ENDED, **more: Any
) -> Execution:
    record = {
        "_id": "68110feaa81a0e507fbdd36a",
        "message": message,
        "data": {"executionUuid": "35SnGU0DUSNP5L26fsmnq"},
        "startedAt": "2025-04-29T17:44:10.336Z",
        "completedAt": "2025-04-29T17:44:10.432Z",
        "createdAt": "2025-04-29T17:44:10.432Z",
        "forgeWorkflow": {"name": "order sync"},
    }
    return Execution(read_notification(json.dumps(record | more)), role, enrichment=known)


def made(known: Enrichment | None, message: str = "executionError", **more: Any) -> list[Span]:
    """The spans of an execution: its own, and those of its blocks."""
    item, _ = Converter().convert(execution(known, message, **more))
    assert item is not None
    return list(ScopeSpans.FromString(item).spans)


def body(known: Enrichment, message: str = "executionError", role: Role = Role.ENDED) -> str:
    _, item = Converter().convert(execution(known, message, role))
    assert item is not None
    (record,) = ScopeLogs.FromString(item).log_records
    return record.body.string_value


@given(enrichments, st.sampled_from(["executionError", "executionFinished"]))
@settings(max_examples=300, deadline=None)
def test_blocks_lie_within_their_execution(known: Enrichment, message: str) -> None:
    """Whatever is known: each block is a child of the execution's span, in its trace and within its
    time, with a span id of its own that is no other's; a time that is not the block's is marked;
    the execution's own span is as before, but for what is added at the end of its attributes."""
    own, *blocks = made(known, message)
    (bare,) = made(None, message)
    assert len(blocks) == len(known.steps)
    assert len({own.span_id, *(b.span_id for b in blocks)}) == 1 + len(blocks)
    for block, told in zip(blocks, known.steps, strict=True):
        assert (block.trace_id, block.parent_span_id) == (own.trace_id, own.span_id)
        start, end = block.start_time_unix_nano, block.end_time_unix_nano
        assert START <= start <= end <= END
        pairs = attributes(block.attributes)
        adjusted = (start, end) != (told.started, told.stopped)
        assert pairs.get("runalloy.time.adjusted", False) is adjusted
        assert pairs["runalloy.block.index"] == told.index
        assert (block.kind == Span.SPAN_KIND_CLIENT) == bool(told.app)
        assert (block.status.code == 2) == told.failed
        assert not block.events
    assert not own.events
    added = len(own.attributes) - len(bare.attributes)
    assert own.attributes[: len(bare.attributes)] == bare.attributes
    del own.attributes[len(own.attributes) - added :]
    own.status.message = ""
    assert own == bare


@given(enrichments, st.sampled_from(["executionError", "executionFinished"]))
@settings(max_examples=200, deadline=None)
def test_a_repeat_has_the_same_bytes(known: Enrichment, message: str) -> None:
    """What the store kept gives, in another process, the same bytes as what was put together; they
    are what protobuf makes of the same messages; and an endpoint is told as many spans as it gets.
    """
    kept = Enrichment.read(known.text())
    kept.text().encode()  # a store takes it
    assert kept == known
    used = Converter()
    first = used.convert(execution(known, message))
    assert used.convert(execution(kept, message)) == first
    assert Converter().convert(execution(kept, message)) == first
    span, log = first
    assert span is not None and log is not None
    read = ScopeSpans.FromString(span)
    assert read.SerializeToString(deterministic=True) == span
    assert ScopeLogs.FromString(log).SerializeToString(deterministic=True) == log
    assert Envelope({}, "s", "v").records([span, span]) == 2 * len(read.spans)
    facts = used.facts(execution(kept, message))
    assert facts is not None
    own = read.spans[0]
    assert list(facts.attributes.items()) == list(attributes(own.attributes).items())
    assert facts.reason == own.status.message


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    "message", ["executionError", "executionFinished", "executionStarted", "executionPaused"]
)
def test_nothing_known_changes_nothing(role: Role, message: str) -> None:
    """With an enrichment that knows nothing, and for a start or what this version does not know
    with any, the bytes are those without."""
    converter = Converter(started_logs=True)
    bare = converter.convert(execution(None, message, role))
    assert converter.convert(execution(Enrichment(), message, role)) == bare
    if message != "executionError":
        _, log = converter.convert(execution(KNOWN, message, role))
        assert log == bare[1]


@given(
    st.one_of(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(
                    st.sampled_from(["steps", "block", "reason", "index", "id"]), inner
                )
            ),
        ).map(json.dumps),
    )
)
@example("[" * 100_000)
@example("1" * 5000)
@example('{"steps":[{"index":"0"}],"block":null,"reason":null}')
@example('{"steps":[{"index":true}],"block":null,"reason":null}')
@example('{"steps":[],"block":{"index":0,"name":["a"]},"reason":null}')
@example('{"steps":[],"block":null,"reason":{"source":null}}')
@example('{"steps":[],"block":null,"reason":{"source":"webhook","more":1}}')
def test_foreign_text_tells_nothing(text: str) -> None:
    """What `text` did not write is no error: nothing is known, or what is known is of its form."""
    known = Enrichment.read(text)
    assert known == Enrichment.read(known.text())
    made(known)
    if '"index": 0' not in text:
        assert known == Enrichment()


CUSTOMER = Step(
    2, "b-2", "Create customer", "shopify", "shopify", START, END, status_code=422, failed=True
)
KNOWN = Enrichment(
    (Step(0, "b-0", "Order created", "event"), Step(1, "b-1", "Code", "code"), CUSTOMER),
    CUSTOMER,
    Reason("webhook", "The customer failed to create\ndue to an invalid Id", "NodeApiError"),
)


def test_a_failure_in_one_sentence() -> None:
    """The log record's body says where and why, as far as that is known, on one line; of an
    execution that did not fail it says nothing of the kind, not even where a reason is known."""
    failed = "order sync failed after 96 ms"
    why = "The customer failed to create due to an invalid Id"
    assert body(KNOWN) == f"{failed} at Create customer (shopify): {why}"
    assert body(Enrichment(KNOWN.steps, KNOWN.block)) == f"{failed} at Create customer (shopify)"
    assert body(Enrichment(reason=KNOWN.reason)) == f"{failed}: {why}"
    assert body(Enrichment(reason=Reason("errors", None, "NodeApiError"))) == (
        f"{failed}: NodeApiError"
    )
    assert body(Enrichment(block=Step(4, "b-4"))) == f"{failed} at b-4"
    assert body(Enrichment(block=Step(4))) == failed
    assert body(KNOWN, "executionFinished") == "order sync finished after 96 ms"
    (own, *_) = made(KNOWN, "executionFinished")
    assert own.status.message == "" and own.status.code == 0


def test_a_long_execution_stays_within_what_an_endpoint_takes() -> None:
    """Of more blocks than there is room for, the first ones are sent and the one that failed; how
    many there were is told."""
    steps = [Step(i, f"block-{i:05}", "Ω" * 200, "t", "app") for i in range(5_000)]
    steps[4_321] = Step(4_321, "bad", failed=True)
    (own, *blocks) = made(Enrichment(tuple(steps), steps[4_321], None))
    indexes = [attributes(b.attributes)["runalloy.block.index"] for b in blocks]
    assert indexes == [*range(len(blocks) - 1), 4_321]
    assert 300 < len(blocks) < 5_000
    assert MOST_BYTES - 2_000 < sum(b.ByteSize() + 3 for b in blocks) <= MOST_BYTES
    assert attributes(own.attributes)["runalloy.execution.blocks"] == 5_000


def test_blocks_follow_their_execution_into_another_trace() -> None:
    """Where a hook moved the execution below a span of the user's own, its blocks are in that
    trace too, with its trace state; their span ids stay the computed ones."""
    parent = SpanContext(7, 8, is_remote=True, trace_state=TraceState([("a", "b")]))
    hook = GuardedHook(lambda _: Correlation(parent), "test", lambda: 0.0)
    item, _ = Converter(attach=hook).convert(execution(KNOWN))
    own, *blocks = ScopeSpans.FromString(item or b"").spans
    assert own.trace_id == (7).to_bytes(16) and own.parent_span_id == (8).to_bytes(8)
    for block, elsewhere in zip(blocks, made(KNOWN)[1:], strict=True):
        assert block.trace_id == own.trace_id and block.parent_span_id == own.span_id
        assert block.trace_state == "a=b"
        assert block.span_id == elsewhere.span_id


def test_an_exporter_of_the_sdk_gets_all_of_it() -> None:
    """As objects of the SDK the spans keep kind, parent and reason: encoded again they are the same
    messages."""
    item, _ = Converter().convert(execution(KNOWN))
    request = Envelope({"service.name": "runalloy"}, "otel_alloy", "1").request([item or b""])
    assert encode_spans(sdk_spans(request)) == ExportTraceServiceRequest.FromString(request)
