"""What in OTLP requests is not as the registry says.

Stricter than Weaver's live-check: a span has to be one of the kinds that there are, with all that
this kind requires and nothing else, and a value one of those that are told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1 import metrics_pb2 as metrics
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from registry import Registry, Signal

from otel_alloy.mapping import semconv

Request = ExportTraceServiceRequest | ExportLogsServiceRequest | ExportMetricsServiceRequest

_WIRE = {
    "string": "string_value",
    "int": "int_value",
    "boolean": "bool_value",
    "double": "double_value",
}
_MAY_BE_TEXT = {semconv.WORKFLOW_VERSION}  # beyond 64 bits
_KINDS = {
    Span.SPAN_KIND_INTERNAL: "internal",
    Span.SPAN_KIND_SERVER: "server",
    Span.SPAN_KIND_CLIENT: "client",
}


class Live:
    """Looks at requests. `seen`: by kind of span, event or metric, the attributes that it had."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.seen: dict[str, set[str]] = {}
        self.on_resources: set[str] = set()

    def findings(self, request: Request) -> list[str]:
        """What is wrong with the request, each thing once; empty where nothing is."""
        return list(dict.fromkeys(self._request(request)))

    def _request(self, request: Request) -> Iterator[str]:
        if isinstance(request, ExportTraceServiceRequest):
            for of_spans in request.resource_spans:
                yield from self._resource(of_spans)
                for spans in of_spans.scope_spans:
                    yield from self._scope(spans)
                    for span in spans.spans:
                        yield from self.span(span)
        elif isinstance(request, ExportLogsServiceRequest):
            for of_logs in request.resource_logs:
                yield from self._resource(of_logs)
                for logs in of_logs.scope_logs:
                    yield from self._scope(logs)
                    for record in logs.log_records:
                        yield from self.log_record(record)
        else:
            for of_metrics in request.resource_metrics:
                yield from self._resource(of_metrics)
                for scoped in of_metrics.scope_metrics:
                    yield from self._scope(scoped)
                    for metric in scoped.metrics:
                        yield from self._metric(metric)

    def _resource(self, of: Any) -> Iterator[str]:
        if of.schema_url != semconv.SCHEMA_URL:
            yield f"a resource has the schema {of.schema_url!r}"
        attributes = of.resource.attributes
        keys = {one.key for one in attributes}
        self.on_resources |= keys
        own = _text(attributes, semconv.SERVICE_NAME) == "otel-alloy"
        first = self._registry.group(f"runalloy.resource.{'receiver' if own else 'executions'}")
        others = self._registry.group("runalloy.resource.settings")
        entities = [] if own else self._registry.entities.values()
        may = {key for one in (first, others, *entities) for key in self._registry.keys(one)}
        yield from self._keys("a resource", keys, self._required(first), may)
        yield from self._values("a resource", attributes)

    def _scope(self, of: Any) -> Iterator[str]:
        if of.schema_url != semconv.SCHEMA_URL:
            yield f"a scope has the schema {of.schema_url!r}"
        if of.scope.name != semconv.SCOPE_NAME or not of.scope.version:
            yield f"a scope is called {of.scope.name!r} {of.scope.version!r}"

    def span(self, span: Span) -> Iterator[str]:
        """What is wrong with a span."""
        keys = {one.key for one in span.attributes}
        fits = [
            name
            for name, kind in self._registry.spans.items()
            if kind.span_kind == _KINDS.get(span.kind)
            and self._required(kind) <= keys <= set(self._registry.keys(kind))
        ]
        if len(fits) != 1:
            kind_of_span = _KINDS.get(span.kind)
            yield f"the span {span.name!r} ({kind_of_span}) with {sorted(keys)} is of {fits}"
        else:
            self.seen.setdefault(fits[0], set()).update(keys)
        yield from self._values(f"the span {span.name!r}", span.attributes)

    def log_record(self, record: LogRecord) -> Iterator[str]:
        """What is wrong with a log record."""
        event = self._registry.events.get(record.event_name)
        if event is None:
            yield f"there is no event {record.event_name!r}"
            return
        severity = event.annotations.severity
        if (record.severity_number, record.severity_text) != (severity.number, severity.text):
            yield f"{event.name} has the severity {record.severity_text}"
        yield from self._attributes(event.name, event, record.attributes)

    def _metric(self, metric: metrics.Metric) -> Iterator[str]:
        defined = self._registry.metrics.get(metric.name)
        if defined is None:
            yield f"there is no metric {metric.name}"
            return
        if metric.unit != defined.unit:
            yield f"{metric.name} has the unit {metric.unit!r}"
        if metric.description + "." != defined.brief:
            yield f"{metric.name} is told to be {metric.description!r}"
        data = metric.WhichOneof("data")
        instrument = "counter" if data == "sum" and metric.sum.is_monotonic else data
        if instrument != defined.instrument:
            yield f"{metric.name} is a {instrument}"
        for point in getattr(metric, str(data)).data_points:
            yield from self._attributes(metric.name, defined, point.attributes)
            for exemplar in point.exemplars:
                if exemplar.filtered_attributes:
                    yield f"an exemplar of {metric.name} has attributes"

    def _attributes(self, name: str, signal: Signal, attributes: Iterable[Any]) -> Iterator[str]:
        keys = {one.key for one in attributes}
        self.seen.setdefault(name, set()).update(keys)
        yield from self._keys(name, keys, self._required(signal), set(self._registry.keys(signal)))
        yield from self._values(name, attributes)

    def _required(self, signal: Signal) -> set[str]:
        return {one.ref for one in self._registry.of(signal) if one.required}

    @staticmethod
    def _keys(name: str, keys: set[str], required: set[str], may: set[str]) -> Iterator[str]:
        yield from (f"{name} is without {key}" for key in sorted(required - keys))
        yield from (f"{name} has {key}" for key in sorted(keys - may))

    def _values(self, name: str, attributes: Iterable[Any]) -> Iterator[str]:
        for one in attributes:
            if one.key not in self._registry.referenced:
                continue  # which is said elsewhere
            kind = one.value.WhichOneof("value")
            wanted = {_WIRE[self._registry.type(one.key)]}
            wanted |= {"string_value"} if one.key in _MAY_BE_TEXT else set()
            values = self._registry.values(one.key)
            if kind not in wanted:
                yield f"{name}: {one.key} is a {kind}"
            elif values and one.value.string_value not in values:
                yield f"{name}: {one.key} is {one.value.string_value!r}"


def _text(attributes: Iterable[Any], key: str) -> str | None:
    return next((one.value.string_value for one in attributes if one.key == key), None)
