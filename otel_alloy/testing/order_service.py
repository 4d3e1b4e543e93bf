"""The customer's own service in `otel-alloy demo`: simulated Alloy calls it as a Custom API block
does, and its spans lie under the execution's span.

Instrumented by hand with the SDK, so that the demo needs nothing more installed; a real service
has `opentelemetry-instrument` do this (`examples/correlate/python`). It knows nothing of the
receiver: only the propagator `alloy` joins the two.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind

from otel_alloy.mapping.semconv import SERVICE_NAME
from otel_alloy.propagation.propagator import AlloyPropagator

SCOPE = "orders"
_EXPORT_EVERY_MS = 200


class OrderService:
    """An order service on a free loopback port, whose spans go to `otlp`, an OTLP/HTTP base URL.
    A context manager; `url` is what to call."""

    def __init__(self, otlp: str) -> None:
        provider = TracerProvider(resource=Resource({SERVICE_NAME: SCOPE}), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{otlp}/v1/traces")
        processor = BatchSpanProcessor(exporter, schedule_delay_millis=_EXPORT_EVERY_MS)
        provider.add_span_processor(processor)
        tracer = provider.get_tracer(SCOPE)
        propagator = AlloyPropagator(sampled=True)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                context = propagator.extract(headers)
                with tracer.start_as_current_span("POST /orders", context, SpanKind.SERVER):
                    with tracer.start_as_current_span("reserve stock"):
                        pass
                    with tracer.start_as_current_span("print label"):
                        pass
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: standard error is the demo's."""

        self._provider = provider
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/orders"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> OrderService:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._provider.shutdown()
