"""The models and the converter take arbitrary JSON; the state and the logs never hold the key."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from otel_alloy.alloy.models import Unreadable, read_page
from otel_alloy.checkpoint.private import PrivateStore
from otel_alloy.mapping.convert import Converter, Execution, Role, Unconvertible
from otel_alloy.pipeline.tracker import ExecutionTracker

from .scale import scaled

BUDGET = settings(
    max_examples=scaled(150, 20_000), deadline=None, suppress_health_check=list(HealthCheck)
)

SCALARS: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=30)
    | st.sampled_from(
        [
            *("", "\ud83d", "a\x00b", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z", "NaN"),
            *("2025-04-29T17:44:10.336Z", "2025-04-29", 1745948650336, 1e308, -1, "x" * 5000),
            *("executionStarted", "executionFinished", "executionError", "executionPaused"),
            "68110d9b46a57f3a1c0e2b44",
        ]
    )
)
ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
FIELDS = [
    *("_id", "message", "data", "startedAt", "completedAt", "createdAt", "customVersion"),
    *("workflowVersion", "teamId", "forgeWorkflowId", "workflowId", "userId", "user"),
    *("forgeWorkflow", "new"),
]
INNER = st.dictionaries(
    st.sampled_from(
        [
            *("executionId", "executionUuid", "email", "fullName", "name", "integrationId"),
            *("_id", "blockId", "icon"),
        ]
    ),
    SCALARS | st.dictionaries(st.sampled_from(["_id", "name", "blockId"]), SCALARS),
)
RECORD = st.dictionaries(st.sampled_from(FIELDS), SCALARS | INNER | ANY_JSON) | ANY_JSON
ANSWER = st.fixed_dictionaries(
    {"notifications": st.lists(RECORD, max_size=5)},
    optional={"lastFetched": ANY_JSON, "pagination": ANY_JSON, "data": ANY_JSON},
)


def convert_all(body: bytes) -> None:
    """Through models, tracker and converter, as the receiver does it."""
    page = read_page(body)
    with closing(PrivateStore()) as store:
        tracker = ExecutionTracker(
            "s", store.load("s"), overlap_ms=1000, incomplete_after_ms=10_000, started_logs=True
        )
        batch = tracker.batch()
        tracker.take(batch, page.records, page.bad, 1_750_000_000_000)
        store.settle("s", batch.settlement)
        tracker.settled(batch)
        given_up = tracker.batch()
        tracker.give_up(given_up, 4 * 10**12, 100)
        for index, execution in enumerate(given_up.executions):
            batch.add(execution, given_up.originals[index])
        for opened in batch.settlement.opened.values():
            json.loads(opened.text())
        for aside in batch.settlement.rejected:
            aside.original.encode()
    converter = Converter(started_logs=True, email="hash", full_name="keep", privacy_key=b"k")
    for index, execution in enumerate(batch.executions):
        json.loads(batch.original(index))
        for role in {execution.role, *Role}:
            try:
                span, log = converter.convert(
                    Execution(execution.notification, role, execution.started_at)
                )
            except Unconvertible:
                continue
            if span is not None:
                (made,) = ScopeSpans.FromString(span).spans
                assert 0 < made.start_time_unix_nano <= made.end_time_unix_nano < 2**63
                assert len(made.trace_id) == 16 and any(made.trace_id)
            if log is not None:
                (record,) = ScopeLogs.FromString(log).log_records
                assert record.body.string_value


@BUDGET
@given(ANSWER)
def test_any_json_in_the_shape_of_an_answer(answer: Any) -> None:
    """No value in any field raises anything but the named errors; what is made of it is valid
    protobuf with times that backends can hold."""
    convert_all(json.dumps(answer).encode())


@BUDGET
@given(ANY_JSON)
def test_any_json_at_all(answer: Any) -> None:
    """Whatever JSON comes instead of an answer is Unreadable, or a page."""
    try:
        convert_all(json.dumps(answer).encode())
    except Unreadable as error:
        assert len(str(error)) < 100


@BUDGET
@given(ANSWER, st.data())
def test_any_bytes(answer: Any, data: st.DataObject) -> None:
    """The same for bytes: an answer that is cut, or with bytes changed."""
    body = bytearray(json.dumps(answer, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    for _ in range(data.draw(st.integers(0, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.integers(0, len(body)))] if data.draw(st.booleans()) else body
    try:
        convert_all(bytes(body))
    except Unreadable as error:
        assert len(str(error)) < 100
