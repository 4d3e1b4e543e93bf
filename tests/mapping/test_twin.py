"""The fast converter against two others: a slow twin that builds protobuf objects field by field,
and the encoder of OpenTelemetry's own SDK."""

import hashlib
import hmac
import json
from typing import Any, Literal
from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord as ApiLogRecord
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace import Status as SdkStatus

from otel_alloy.alloy.models import Integration, Notification, User, Workflow, read_page
from otel_alloy.alloy.timestamps import object_id_ns, to_ns
from otel_alloy.durations import duration_text
from otel_alloy.mapping.convert import Converter, Execution, Role, Unconvertible
from otel_alloy.mapping.encode import Envelope
from otel_alloy.mapping.execution_url import ExecutionUrl
from otel_alloy.terminal.demo import facts_of_span

Choice = Literal["keep", "hash", "drop"]
KEY = b"a test's key"

# What arrives ------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=()), max_size=30) | st.sampled_from(
    ["", "order_id example", "\x00", "\ud83d", "\ud83d\ude9a", "x" * 5000, "ü" * 200, "a" * 130]
)
ids = st.sampled_from(["68110feaa81a0e507fbdd36a", "zzz", ""]) | texts
times: st.SearchStrategy[Any] = st.one_of(
    st.integers(1_745_948_650_000, 1_745_948_660_000).map(
        lambda ms: f"2025-04-29T17:44:{ms // 1000 % 60:02}.{ms % 1000:03}Z"
    ),
    st.integers(2, 2_000_000_000_000),
    st.datetimes().map(str),
    st.sampled_from(["", "Invalid Date", "0001-01-01T00:00:00.000Z", None, [], {}, 1e300]),
)


def perhaps(values: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with any of the fields, any of them null."""
    return st.fixed_dictionaries({}, optional={k: v | st.none() for k, v in values.items()})


SAMPLE: dict[str, Any] = {
    "_id": "68110feaa81a0e507fbdd36a",
    "message": "executionFinished",
    "data": {"executionId": "68110fea7d181f356acd1bf1", "executionUuid": "35SnGU0DUSNP5L26fsmnq"},
    "startedAt": "2025-04-29T17:44:10.336Z",
    "completedAt": "2025-04-29T17:44:10.432Z",
    "createdAt": "2025-04-29T17:44:10.432Z",
}
"""Arbitrary fields replace these, so that most notifications have an identity and a time."""

notifications = perhaps(
    {
        "_id": ids,
        "message": st.sampled_from(["executionError", "executionFinished", "executionStarted"])
        | texts,
        "data": perhaps({"executionId": ids, "executionUuid": ids}),
        "startedAt": times,
        "completedAt": times,
        "createdAt": times,
        "customVersion": st.booleans(),
        "workflowVersion": st.integers(-3, 300) | st.integers(-(2**70), 2**70),
        "teamId": ids,
        "forgeWorkflowId": ids,
        "workflowId": ids,
        "userId": ids,
        "user": ids | perhaps({"email": texts, "fullName": texts}),
        "forgeWorkflow": ids
        | perhaps(
            {
                "name": texts,
                "integrationId": ids | perhaps({"_id": ids, "name": texts, "blockId": ids}),
            }
        ),
    }
).map(lambda fields: SAMPLE | fields)


def as_read(notification: dict[str, Any]) -> Notification:
    """The notification as a page of the API brings it."""
    (record,) = read_page(json.dumps({"notifications": [notification]}).encode()).records
    return record.notification


def role_of(n: Notification, choice: bool) -> Role:
    if n.message in ("executionError", "executionFinished"):
        return Role.ENDED if choice else Role.ENDED_AGAIN
    if n.message == "executionStarted":
        return Role.STARTED if choice else Role.INCOMPLETE
    return Role.OTHER


PAGE_FIELDS = {
    "{execution.id}": "runalloy.execution.id",
    "{execution.uuid}": "runalloy.execution.uuid",
    "{workflow.id}": "runalloy.workflow.id",
    "{workflow.installation.id}": "runalloy.workflow.installation.id",
    "{integration.id}": "runalloy.integration.id",
    "{user.id}": "user.id",
    "{team.id}": "runalloy.team.id",
}
PAGES = (
    None,
    "https://e.example/{execution.id}",
    "https://e.example/{workflow.id}/{workflow.installation.id}?{integration.id}#{execution.uuid}",
    "https://e.example/{user.id}/{team.id}/{execution.id}/{execution.uuid}",
)


# The twin ----------------------------------------------------------------------------------------


class Twin:
    """The mapping table of the design, as plainly as it can be written down."""

    def __init__(
        self, limit: int, email: Choice, full_name: Choice, started_logs: bool, page: str | None
    ) -> None:
        self.limit, self.email, self.full_name = limit, email, full_name
        self.started_logs = started_logs
        self.page = page
        self.event_attribute = False

    def convert(self, execution: Execution) -> tuple[Span | None, LogRecord | None]:
        n, role = execution.notification, execution.role
        if role is Role.STARTED and not self.started_logs:
            return None, None
        data = n.data
        uuid = (data.executionUuid if data else None) or None
        execution_id = (data.executionId if data else None) or None
        identity = uuid or execution_id or n.id
        if not identity:
            raise Unconvertible
        start, end, observed, adjusted = self.times(execution)
        digest = hashlib.sha256()
        digest.update(b"runalloy.execution:" + identity.encode("utf-8", "replace"))
        trace_id, span_id = digest.digest()[0:16], digest.digest()[16:24]

        name = n.forgeWorkflow.name if isinstance(n.forgeWorkflow, Workflow) else None
        title = self.clean(name) if name else "workflow execution"
        common = self.common(n, name)
        common["runalloy.execution.id"] = execution_id
        common["runalloy.execution.uuid"] = uuid
        common["runalloy.notification.id"] = n.id
        common["url.full"] = self.url(common)

        outcome: dict[str, Any] = {}
        if role is Role.INCOMPLETE:
            outcome["runalloy.execution.outcome"] = "incomplete"
        elif n.message == "executionError":
            outcome["runalloy.execution.outcome"] = "error"
            outcome["error.type"] = "executionError"
        elif n.message == "executionFinished":
            outcome["runalloy.execution.outcome"] = "success"
        tail = {"runalloy.time.adjusted": True} if adjusted else {}

        span = None
        if role in (Role.ENDED, Role.INCOMPLETE):
            span = Span(
                trace_id=trace_id,
                span_id=span_id,
                flags=0x100,
                name=title,
                kind=Span.SPAN_KIND_SERVER,
                start_time_unix_nano=start,
                end_time_unix_nano=end,
                status=Status(),
            )
            if n.message == "executionError":
                span.status.code = Status.STATUS_CODE_ERROR
            self.fill(span, common)
            self.fill(span, outcome | tail, clean=False)

        duration = duration_text(end - start)
        severity, word, event, sentence = {
            Role.INCOMPLETE: (13, "WARN", "incomplete", "has not reported its end"),
            Role.STARTED: (9, "INFO", "started", "started"),
            Role.OTHER: (9, "INFO", "other", "reported something this version does not know"),
        }.get(role, (9, "INFO", "finished", f"finished after {duration}"))
        if role in (Role.ENDED, Role.ENDED_AGAIN) and n.message == "executionError":
            severity, word, event = 17, "ERROR", "failed"
            sentence = f"failed after {duration}"
        version = "" if n.workflowVersion is None else f" v{n.workflowVersion}"
        log = LogRecord(
            time_unix_nano=start if role is Role.STARTED else end,
            observed_time_unix_nano=observed,
            severity_text=word,
            flags=1,
            trace_id=trace_id,
            span_id=span_id,
            event_name=f"runalloy.workflow.execution.{event}",
        )
        log.severity_number = severity  # type: ignore[assignment]
        log.body.string_value = f"{title}{version} {sentence}"
        attributes = dict(common)
        if role is Role.OTHER:
            attributes["runalloy.message"] = n.message or ""
        attributes["log.record.uid"] = n.id
        self.fill(log, attributes)
        if n.id and role is Role.INCOMPLETE:
            log.attributes[-1].value.string_value += ":incomplete"
        named = {"event.name": log.event_name} if self.event_attribute else {}
        self.fill(log, outcome | named | tail, clean=False)
        return span, log

    def url(self, common: dict[str, Any]) -> str | None:
        address = self.page
        for field, key in PAGE_FIELDS.items():
            if address is not None and field in address:
                value = common[key] or ""
                if key not in ("runalloy.execution.id", "runalloy.execution.uuid"):
                    value = self.clean(value)  # as the attribute of that name has it
                value = quote(value, safe="", errors="replace")
                address = None if value in ("", ".", "..") else address.replace(field, value)
        return address if address and len(address) <= self.limit else None

    def common(self, n: Notification, name: str | None) -> dict[str, Any]:
        workflow, user = n.forgeWorkflow, n.user
        whole = workflow.integrationId if isinstance(workflow, Workflow) else None
        bare = Integration(id=whole if isinstance(whole, str) else None)
        integration = whole if isinstance(whole, Integration) else bare
        person = user if isinstance(user, User) else User()
        hidden = person.email if self.email == "hash" else None
        if not hidden and self.full_name == "hash":
            hidden = person.fullName
        digest = None
        if hidden:
            digest = hmac.new(KEY, hidden.encode("utf-8", "replace"), "sha256").hexdigest()
        return {
            "runalloy.workflow.name": name,
            "runalloy.workflow.id": n.forgeWorkflowId
            or (workflow if isinstance(workflow, str) else None),
            "runalloy.workflow.installation.id": n.workflowId,
            "runalloy.workflow.version": n.workflowVersion,
            "runalloy.workflow.custom_version": n.customVersion,
            "runalloy.integration.id": integration.id,
            "runalloy.integration.name": integration.name,
            "runalloy.integration.block.id": integration.blockId,
            "user.id": n.userId or (user if isinstance(user, str) else None),
            "user.email": person.email if self.email == "keep" else None,
            "user.full_name": person.fullName if self.full_name == "keep" else None,
            "user.hash": digest,
            "runalloy.team.id": n.teamId,
        }

    def fill(self, message: Span | LogRecord, values: dict[str, Any], clean: bool = True) -> None:
        for key, value in values.items():
            if value is None or (value == "" and key != "runalloy.message"):
                continue
            pair = message.attributes.add(key=key)
            if isinstance(value, bool):
                pair.value.bool_value = value
            elif isinstance(value, int) and -(2**63) <= value < 2**63:
                pair.value.int_value = value
            elif isinstance(value, int):
                pair.value.string_value = str(value)
            else:
                pair.value.string_value = self.clean(value) if clean else value

    def clean(self, text: str) -> str:
        if len(text) > self.limit:
            text = text[: self.limit - len("…[cut]")] + "…[cut]"
        # JSON's escapes are UTF-16, in which two halves make one character.
        units = text.encode("utf-16-le", "surrogatepass")
        return units.decode("utf-16-le", "replace").replace("\x00", "\ufffd")

    @staticmethod
    def times(execution: Execution) -> tuple[int, int, int, bool]:
        n, role = execution.notification, execution.role
        created = to_ns(n.createdAt)
        start, end = to_ns(n.startedAt), to_ns(n.completedAt)
        if start is None:
            start = to_ns(execution.started_at)
        adjusted = start is None
        if role is Role.INCOMPLETE:
            end = created or start
        elif role is Role.STARTED:
            end = start
        elif end is None:
            adjusted = True
        known = created or object_id_ns(n.id)
        start, end = start or end or known, end or start or known
        if start is None or end is None:
            raise Unconvertible
        if end < start:
            end, adjusted = start, True
        return start, end, known or end, adjusted


choices = st.sampled_from(["keep", "hash", "drop"])


@given(
    many=st.lists(st.tuples(notifications, st.booleans(), times), min_size=1, max_size=4),
    limit=st.integers(16, 200) | st.just(2048),
    email=choices,
    full_name=choices,
    started_logs=st.booleans(),
    page=st.sampled_from(PAGES),
    event_attribute=st.booleans(),
)
@settings(max_examples=400, deadline=None)
def test_the_twin_agrees(
    many: list[tuple[dict[str, Any], bool, Any]],
    limit: int,
    email: Choice,
    full_name: Choice,
    started_logs: bool,
    page: str | None,
    event_attribute: bool,
) -> None:
    """For arbitrary notifications, one after another through one converter with its cache, the
    decoded messages equal the twin's, and protobuf's own serialization of those equals our bytes.
    """
    fast = Converter(
        value_limit=limit,
        email=email,
        full_name=full_name,
        privacy_key=KEY,
        started_logs=started_logs,
        execution_url=None if page is None else ExecutionUrl.parse(page),
        event_name_attribute=event_attribute,
    )
    slow = Twin(limit, email, full_name, started_logs, page)
    slow.event_attribute = event_attribute
    for raw, choice, started_at in many:
        n = as_read(raw)
        execution = Execution(n, role_of(n, choice), started_at)
        try:
            span, log = slow.convert(execution)
        except Unconvertible:
            with pytest.raises(Unconvertible):
                fast.convert(execution)
            continue
        made = fast.convert(execution)
        want_span = None if span is None else ScopeSpans(spans=[span])
        want_log = None if log is None else ScopeLogs(log_records=[log])
        assert (made[0] is None, made[1] is None) == (want_span is None, want_log is None)
        if want_span is not None and made[0] is not None:
            assert ScopeSpans.FromString(made[0]) == want_span
            assert made[0] == want_span.SerializeToString(deterministic=True)
        if want_log is not None and made[1] is not None:
            assert ScopeLogs.FromString(made[1]) == want_log
            assert made[1] == want_log.SerializeToString(deterministic=True)


@given(notifications, st.booleans(), st.sampled_from(PAGES))
@settings(max_examples=100, deadline=None)
def test_the_same_execution_twice_is_byte_identical(
    raw: dict[str, Any], choice: bool, page: str | None
) -> None:
    """Read and converted again, by another process's converter too, an execution gives the same
    bytes, so that what is sent twice after a crash can be recognized as the same."""
    n = as_read(raw)
    url = None if page is None else ExecutionUrl.parse(page)
    other, used = (Converter(started_logs=True, execution_url=url) for _ in range(2))
    execution = Execution(n, role_of(n, choice))
    try:
        first = used.convert(execution)
    except Unconvertible:
        assume(False)
    again = Execution(as_read(raw), execution.role)
    assert used.convert(again) == first == other.convert(again)


# The SDK's own encoder ---------------------------------------------------------------------------

RESOURCE = {"deployment.environment.name": "test", "service.name": "runalloy"}
SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
SCOPE = InstrumentationScope("otel_alloy", "1.2.3", SCHEMA)


@given(notifications, st.booleans(), st.sampled_from(["keep", "hash", "drop"]))
@settings(deadline=None, max_examples=300)
def test_facts_are_what_the_span_tells(raw: dict[str, Any], choice: bool, privacy: Choice) -> None:
    """What the converter knows of an execution without encoding it is what can be read from its
    span, in the same order; there are none where there is no span, and none that cannot be
    converted."""
    n = as_read(raw)
    execution = Execution(n, role_of(n, choice))
    converter = Converter(
        value_limit=64,
        email=privacy,
        full_name=privacy,
        privacy_key=KEY,
        execution_url=ExecutionUrl.parse("https://e.example/{user.id}/{execution.id}"),
    )
    try:
        span, _ = converter.convert(execution)
    except Unconvertible:
        span = None
        assert list(converter.ended([execution])) == []
    else:
        facts = converter.facts(execution)
        assert list(converter.ended([execution])) == [facts] * (facts is not None)
        assert (facts is None) == (span is None)
        if facts is not None:
            (read,) = ScopeSpans.FromString(span or b"").spans
            told = facts_of_span(read)
            assert facts == told
            assert list(facts.attributes) == list(told.attributes)
            assert facts.outcome == told.attributes["runalloy.execution.outcome"]


def sdk_context(message: Span | LogRecord) -> SpanContext:
    ids = int.from_bytes(message.trace_id), int.from_bytes(message.span_id)
    return SpanContext(*ids, is_remote=False, trace_flags=TraceFlags(1))


def sdk_traces(span: Span) -> bytes:
    """The span as the SDK's object, through the SDK's encoder."""
    readable = ReadableSpan(
        name=span.name,
        context=sdk_context(span),
        resource=Resource(RESOURCE, SCHEMA),
        attributes=plain(span),
        kind=SpanKind.SERVER,
        instrumentation_scope=SCOPE,
        status=SdkStatus(StatusCode(span.status.code)),
        start_time=span.start_time_unix_nano,
        end_time=span.end_time_unix_nano,
    )
    return encode_spans([readable]).SerializeToString(deterministic=True)


def sdk_logs(log: LogRecord) -> bytes:
    """The log record as the SDK's object, through the SDK's encoder."""
    record = ApiLogRecord(
        timestamp=log.time_unix_nano,
        observed_timestamp=log.observed_time_unix_nano,
        context=set_span_in_context(NonRecordingSpan(sdk_context(log))),
        severity_text=log.severity_text,
        severity_number=SeverityNumber(log.severity_number),
        body=log.body.string_value,
        attributes=plain(log),
        event_name=log.event_name,
    )
    readable = ReadableLogRecord(record, Resource(RESOURCE, SCHEMA), instrumentation_scope=SCOPE)
    return encode_logs([readable]).SerializeToString(deterministic=True)


def plain(message: Span | LogRecord) -> dict[str, Any]:
    return {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in message.attributes}


@given(notifications, st.booleans())
@settings(max_examples=100, deadline=None)
def test_the_sdks_encoder_makes_the_same_request(raw: dict[str, Any], choice: bool) -> None:
    """A whole export request of ours is, byte for byte, what the SDK's OTLP encoder makes of equal
    ReadableSpan and LogRecord objects."""
    n = as_read(raw)
    execution = Execution(n, role_of(n, choice))
    try:
        span, log = Converter(started_logs=True).convert(execution)
    except Unconvertible:
        assume(False)
    assert log is not None
    resource = {k: RESOURCE[k] for k in reversed(RESOURCE)}
    envelope = Envelope(resource, "otel_alloy", "1.2.3", SCHEMA)
    logs = envelope.request([log])
    decoded_logs = ExportLogsServiceRequest.FromString(logs)
    assert logs == sdk_logs(decoded_logs.resource_logs[0].scope_logs[0].log_records[0])
    if span is not None:
        traces = envelope.request([span])
        decoded = ExportTraceServiceRequest.FromString(traces)
        assert traces == sdk_traces(decoded.resource_spans[0].scope_spans[0].spans[0])


@given(st.lists(st.integers(0, 3), max_size=3), st.integers(1, 400))
@settings(max_examples=30, deadline=None)
def test_an_envelope_is_never_larger_than_it_says(sizes: list[int], many: int) -> None:
    """`overhead` bounds what a request adds to its items, so that requests stay under the limit;
    the envelope's request decodes to exactly the items."""
    envelope = Envelope({"service.name": "runalloy", "n": 1, "b": True, "f": 0.5}, "s", "v", "u")
    item = ScopeSpans(spans=[Span(name="x" * 100)]).SerializeToString()
    items = [item] * (many + sum(sizes))
    request = envelope.request(items)
    assert len(request) <= envelope.overhead + sum(map(len, items))
    decoded = ExportTraceServiceRequest.FromString(request)
    assert len(decoded.resource_spans[0].scope_spans[0].spans) == len(items)
    assert [a.key for a in decoded.resource_spans[0].resource.attributes] == [
        "b",
        "f",
        "n",
        "service.name",
    ]


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1000, "1.0 s"),
        (1299, "1.2 s"),
        (59_999, "59.9 s"),
        (125_000, "2 min 5 s"),
        (3_599_999, "59 min 59 s"),
        (11_520_000, "3 h 12 min"),
    ],
)
def test_durations_for_people(milliseconds: int, text: str) -> None:
    """The sentence of a log record never claims more time than passed."""
    assert duration_text(milliseconds * 1_000_000) == text
