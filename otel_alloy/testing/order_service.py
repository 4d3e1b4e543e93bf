"""The customer's own service in `otel-alloy demo`: simulated Alloy calls it as a Custom API block
does, and its spans are children of the execution's span.

Instrumented by hand with the SDK, so that the demo needs nothing more installed; a real service
has `opentelemetry-instrument` do this (`examples/correlate/python`). It knows nothing of the
receiver: only the propagator `alloy` joins the two.
"""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Tracer

from otel_alloy.http_server import Handler, Server
from otel_alloy.mapping.semconv import SERVICE_NAME
from otel_alloy.propagation.propagator import AlloyPropagator

SCOPE = "orders"
_EXPORT_EVERY_MS = 200
_SECONDS_A_LINE, _SECONDS_A_LABEL = 0.006, 0.011
_PROPAGATOR = AlloyPropagator(sampled=True)


class OrderService:
    """An order service on a free loopback port, whose spans go to `otlp`, an OTLP/HTTP base URL.
    `work`: what it does for so many seconds instead of work. A context manager; `url` is what to
    call."""

    def __init__(self, otlp: str, work: Callable[[float], object]) -> None:
        provider = TracerProvider(resource=Resource({SERVICE_NAME: SCOPE}), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{otlp}/v1/traces")
        processor = BatchSpanProcessor(exporter, schedule_delay_millis=_EXPORT_EVERY_MS)
        provider.add_span_processor(processor)
        self._provider = provider
        owner = provider.get_tracer(SCOPE), work
        self._server = Server(("127.0.0.1", 0), _Handler, owner)
        self.url = f"{self._server.url}/orders"

    def __enter__(self) -> OrderService:
        self._server.start(SCOPE)
        return self

    def __exit__(self, *error: object) -> None:
        self._server.stop()
        self._provider.shutdown()


class _Handler(Handler):
    server: Server[tuple[Tracer, Callable[[float], object]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        context, (tracer, work) = _PROPAGATOR.extract(headers), self.server.owner
        lines = 1 + crc32(body) % 4
        with tracer.start_as_current_span("POST /orders", context, SpanKind.SERVER):
            with tracer.start_as_current_span("reserve stock"):
                work(_SECONDS_A_LINE * lines)
            with tracer.start_as_current_span("print label"):
                work(_SECONDS_A_LABEL)
        self.send_response(204)
        self.end_headers()
