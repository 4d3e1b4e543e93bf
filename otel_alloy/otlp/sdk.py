"""Any exporter that is installed for the SDK, as a `Sender`.

It is given SDK objects made from the very bytes that OTLP would carry, so there is one mapping.

**Whose fault is a failure?** Bytes that cannot be made into SDK objects are a record's: rejected.
An exporter that says FAILURE tells no reason, and one that raises may have lost its connection:
retried for ever, and nothing is set aside. One that raises what a mistake in handling the data
raises (TypeError, ValueError and the like) is asked a few times more, for it may also have failed
to read an answer, and then the record is at fault. No words of an exporter's exception are passed
on: they may hold what its settings hold; of what it logs, only a cause that is known as one
(`overheard`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status as StatusMessage
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from otel_alloy.otlp.any_value import attributes, python_value
from otel_alloy.otlp.outcome import Headers, Kind, Outcome
from otel_alloy.otlp.overheard import cause, overhear
from otel_alloy.otlp.quiet import suppressed_instrumentation
from otel_alloy.settings.otlp import Signal

_OF_THE_DATA = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RecursionError,
)

_KINDS = {
    SpanMessage.SPAN_KIND_SERVER: SpanKind.SERVER,
    SpanMessage.SPAN_KIND_CLIENT: SpanKind.CLIENT,
    SpanMessage.SPAN_KIND_INTERNAL: SpanKind.INTERNAL,
}
_IS_REMOTE = 0x200  # the bit of Span.flags that tells it of the parent


class SdkSender:
    """Sends through `exporter`, a SpanExporter or LogRecordExporter; `name`: what it is called."""

    def __init__(self, signal: Signal, name: str, exporter: Any) -> None:
        self._name = name
        self._exporter = exporter
        self._read: Callable[[bytes], Sequence[Any]] = spans if signal == "traces" else log_records
        self._success = (
            SpanExportResult.SUCCESS if signal == "traces" else LogRecordExportResult.SUCCESS
        )

    def send(self, request: bytes, headers: Headers = ()) -> Outcome:
        """Exports the records of `request` once. No headers: an exporter has its own, and settings
        that ask for some with each request are a mistake with it."""
        assert not headers
        try:
            items = self._read(request)
        except Exception as error:
            kind = type(error).__name__
            words = f"cannot be converted for the exporter {self._name} ({kind})"
            return Outcome(Kind.REJECTED, words)
        if not items:
            return Outcome(Kind.DELIVERED)
        with suppressed_instrumentation(), overhear() as heard:
            try:
                result = self._exporter.export(items)
            except Exception as error:
                of_the_data = isinstance(error, _OF_THE_DATA) and not isinstance(error, OSError)
                return Outcome(
                    Kind.UNEXPECTED if of_the_data else Kind.RETRY,
                    f"the exporter {self._name} failed with {type(error).__name__}",
                    size=True,
                )
        if result is self._success:
            return Outcome(Kind.DELIVERED)
        why = cause(heard)
        words = f"the exporter {self._name} says that it failed{f': {why}' if why else ', not why'}"
        return Outcome(Kind.RETRY, words, size=True)

    def rest(self) -> None:
        """Nothing: what an exporter holds is its own business."""

    def close(self) -> None:
        """Shuts the exporter down."""
        self._exporter.shutdown()


def spans(request: bytes) -> list[ReadableSpan]:
    """The spans of a serialized ExportTraceServiceRequest."""
    return [
        _span(span, _resource(outer), _scope(inner))
        for outer in ExportTraceServiceRequest.FromString(request).resource_spans
        for inner in outer.scope_spans
        for span in inner.spans
    ]


def log_records(request: bytes) -> list[ReadableLogRecord]:
    """The log records of a serialized ExportLogsServiceRequest."""
    return [
        ReadableLogRecord(_log(record), _resource(outer), _scope(inner))
        for outer in ExportLogsServiceRequest.FromString(request).resource_logs
        for inner in outer.scope_logs
        for record in inner.log_records
    ]


def _span(message: Any, resource: Resource, scope: InstrumentationScope) -> ReadableSpan:
    parent = None
    if message.parent_span_id:
        remote = bool(message.flags & _IS_REMOTE)
        parent = _context(message.trace_id, message.parent_span_id, is_remote=remote)
    return ReadableSpan(
        name=message.name,
        context=_context(message.trace_id, message.span_id),
        parent=parent,
        resource=resource,
        attributes=attributes(message.attributes),
        links=[
            Link(_context(m.trace_id, m.span_id, is_remote=True), attributes(m.attributes))
            for m in message.links
        ],
        kind=_KINDS[message.kind],
        status=_status(message.status),
        start_time=message.start_time_unix_nano,
        end_time=message.end_time_unix_nano,
        instrumentation_scope=scope,
    )


def _status(message: Any) -> Status:
    if message.code == StatusMessage.STATUS_CODE_ERROR:
        return Status(StatusCode.ERROR, message.message or None)
    return Status(StatusCode.UNSET)


def _log(message: Any) -> LogRecord:
    context = _context(message.trace_id, message.span_id)
    return LogRecord(
        timestamp=message.time_unix_nano,
        observed_timestamp=message.observed_time_unix_nano,
        context=set_span_in_context(NonRecordingSpan(context)),
        severity_number=SeverityNumber(message.severity_number),
        severity_text=message.severity_text,
        body=python_value(message.body),
        attributes=attributes(message.attributes),
        event_name=message.event_name,
    )


def _context(trace_id: bytes, span_id: bytes, *, is_remote: bool = False) -> SpanContext:
    return SpanContext(
        int.from_bytes(trace_id), int.from_bytes(span_id), is_remote, TraceFlags(TraceFlags.SAMPLED)
    )


def _resource(outer: ResourceSpans | ResourceLogs) -> Resource:
    return Resource(attributes(outer.resource.attributes), outer.schema_url)


def _scope(inner: ScopeSpans | ScopeLogs) -> InstrumentationScope:
    return InstrumentationScope(inner.scope.name, inner.scope.version, inner.schema_url)
