"""Spans of the receiver's own work, opt-in (`own_traces`): a cycle, its requests, its deliveries.

    poll                                        INTERNAL, one per cycle
    ├── GET /logs                               CLIENT, one per request to Alloy
    └── POST, or the gRPC method                CLIENT, one per OTLP request with executions

They are of the service `otel-alloy` and go where executions go (`OTEL_TRACES_EXPORTER`), but
through the SDK's exporter and batch processor. `OwnTraces` is a watcher of the receiver's events:
it makes a span when something has ended, so nothing of ours has to be instrumented, and as the
export itself makes no event, it makes no span.

Attributes follow the semantic conventions for HTTP and gRPC clients. `url.full` is without the
query, in which filters name users; no attribute holds a key, a header, a user or the words of an
answer. This module is imported only where it is asked for.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context

from otel_alloy.errors import ConfigurationError
from otel_alloy.mapping import semconv
from otel_alloy.observability.metrics import OUTCOME, SIGNAL, SOURCE, STATUS_CODE, resource
from otel_alloy.observability.told import Outward, ToldSpans
from otel_alloy.otlp.delivery import Report
from otel_alloy.otlp.outcome import Kind
from otel_alloy.otlp.senders import sdk_exporters
from otel_alloy.pipeline import events
from otel_alloy.runtime import Runtime
from otel_alloy.settings.models import Settings
from otel_alloy.settings.otlp import Exporter
from otel_alloy.version import __version__

CYCLE = "runalloy.receiver.cycle"
"""The id that the log lines of the same cycle carry."""
RECEIVED = "runalloy.receiver.records.received"
SETTLED = "runalloy.receiver.records.settled"
REPEATED = "runalloy.receiver.records.repeated"
REJECTED = "runalloy.receiver.records.rejected"
ITEMS = "runalloy.receiver.delivery.items"
SIZE = "runalloy.receiver.delivery.size"
RESEND_COUNT = "http.request.resend_count"

_METHOD = "http.request.method"
_SHUTDOWN_SECONDS = 5.0
_SERVICES = {
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService/Export",
}

Attributes = dict[str, str | int]


@dataclass(slots=True)
class _Cycle:
    """A cycle that has not ended."""

    span: Span
    received: int = 0
    settled: int = 0
    repeated: int = 0
    rejected: int = 0
    failed: int = 0  # requests to Alloy in a row


class OwnTraces:
    """A watcher of events that makes spans of them and hands them to `processor`."""

    def __init__(
        self, settings: Settings, runtime: Runtime, process: str, processor: SpanProcessor
    ) -> None:
        self._runtime = runtime
        self._provider = TracerProvider(
            resource=Resource(dict(resource(settings, process)), semconv.SCHEMA_URL),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(
            semconv.SCOPE_NAME, __version__, schema_url=semconv.SCHEMA_URL
        )
        self._alloy = {source.name: _alloy(source.endpoint) for source in settings.sources}
        self._otlp = {one.signal: _otlp(one) for one in settings.otlp.executions}
        self._cycles: dict[str, _Cycle] = {}
        self._lock = threading.Lock()

    def __call__(self, event: Any) -> None:
        """Takes an event."""
        with self._lock:
            if isinstance(event, events.CycleBegan):
                self._end(event.source)
                attributes = {SOURCE: event.source, CYCLE: event.cycle}
                span = self._tracer.start_span(
                    "poll", attributes=attributes, start_time=self._now()
                )
                self._cycles[event.source] = _Cycle(span)
                return
            cycle = self._cycles.get(getattr(event, "source", ""))
            if cycle is not None:
                self._take(cycle, event)

    def _take(self, cycle: _Cycle, event: object) -> None:
        match event:
            case events.Requested():
                self._request(cycle, event)
            case events.ExportAttempted(report=report) if report.bytes:
                self._delivery(cycle, event.source, report)
            case events.Received():
                cycle.received += event.records
            case events.Settled():
                cycle.settled += event.counts.new
                cycle.repeated += event.counts.repeated
                cycle.rejected += event.counts.rejected
            case events.CycleEnded():
                self._end(event.source)
            case events.SourceStopped():
                self._end(event.source, failed=True)
            case _:
                pass

    def _request(self, cycle: _Cycle, event: events.Requested) -> None:
        attributes = {SOURCE: event.source, **self._alloy[event.source]}
        if event.status is not None:
            attributes[STATUS_CODE] = event.status
        if cycle.failed:
            attributes[RESEND_COUNT] = cycle.failed
        error = None
        if event.error is not None:
            error = event.error
            if event.status is not None and event.status >= 400:
                error = str(event.status)
        cycle.failed = 0 if error is None else cycle.failed + 1
        self._child(cycle, "GET /logs", attributes, event.seconds, error)

    def _delivery(self, cycle: _Cycle, source: str, report: Report) -> None:
        name, transport = self._otlp[report.signal]
        attributes = {
            SOURCE: source,
            SIGNAL: report.signal,
            OUTCOME: report.outcome.kind.value,
            ITEMS: report.items,
            SIZE: report.bytes,
            **transport,
        }
        if report.attempt > 1 and _METHOD in transport:
            attributes[RESEND_COUNT] = report.attempt - 1
        kind = report.outcome.kind
        error = None if kind is Kind.DELIVERED else kind.value
        self._child(cycle, name, attributes, report.seconds, error)

    def _child(
        self, cycle: _Cycle, name: str, attributes: Attributes, seconds: float, error: str | None
    ) -> None:
        """A span that has just ended, under the cycle's."""
        now = self._now()
        span = self._tracer.start_span(
            name,
            set_span_in_context(cycle.span),
            SpanKind.CLIENT,
            attributes if error is None else {**attributes, semconv.ERROR_TYPE: error},
            start_time=now - int(seconds * 1e9),
        )
        if error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(now)

    def _end(self, source: str, *, failed: bool = False) -> None:
        cycle = self._cycles.pop(source, None)
        if cycle is None:
            return
        for name in (RECEIVED, SETTLED, REPEATED, REJECTED):
            cycle.span.set_attribute(name, getattr(cycle, name.rpartition(".")[2]))
        if failed:
            cycle.span.set_status(Status(StatusCode.ERROR))
        cycle.span.end(self._now())

    def _now(self) -> int:
        return int(self._runtime.clock() * 1e9)

    def close(self) -> None:
        """Ends the cycles that have not ended and sends what there is, within a few seconds."""
        with self._lock:
            for source in list(self._cycles):
                self._end(source)
        sending = self._runtime.spawn(self._provider.shutdown, "own-traces")
        sending.join(_SHUTDOWN_SECONDS)


def open_own_traces(settings: Settings, runtime: Runtime, process: str) -> OwnTraces | None:
    """What `own_traces` asks for; None where OTEL_SDK_DISABLED is true, or traces are off.
    `process`: as in `resource`."""
    if settings.otlp.sdk_disabled or settings.otlp.traces.off:
        return None
    (exporter,) = sdk_exporters(settings.otlp.traces)
    words = "own spans", "they are lost", "do without `own_traces`"
    outward = Outward(settings.otlp.traces, *words, runtime.monotonic)
    try:
        processor = BatchSpanProcessor(ToldSpans(exporter, outward))
    except ValueError as error:  # its words name what is wrong, not the variable
        raise ConfigurationError([f"OTEL_BSP_*: {error}: correct it, or unset it."]) from None
    return OwnTraces(settings, runtime, process, processor)


def _alloy(endpoint: str) -> Attributes:
    return {
        _METHOD: "GET",
        "url.full": f"{endpoint}/logs",
        "url.template": "/logs",
        **_server(urlsplit(endpoint)),
    }


def _otlp(exporter: Exporter) -> tuple[str, Attributes]:
    """What the spans of a signal's deliveries are called, and what is the same in all of them."""
    settings = exporter.settings
    if exporter.name != "otlp":
        return f"export {exporter.signal}", {}
    if settings.protocol == "grpc":
        method = _SERVICES[exporter.signal]
        server = _server(urlsplit("//" + settings.endpoint.rpartition("/")[2]))
        return method, {"rpc.system.name": "grpc", "rpc.method": method, **server}
    url = urlsplit(settings.place)
    return f"POST {url.path}", {_METHOD: "POST", "url.full": settings.place, **_server(url)}


def _server(url: Any) -> Attributes:
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    attributes = {"server.address": url.hostname or ""}
    return cast(Attributes, attributes | ({} if port is None else {"server.port": port}))
