"""The example service under `opentelemetry-instrument`: with nothing but the propagator's name in
its environment, its spans are in the trace of the execution that called it."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from opentelemetry.proto.trace.v1.trace_pb2 import Span
from rich.console import Console

from otel_alloy.pipeline.receiver import Receiver
from otel_alloy.settings.models import Settings
from otel_alloy.terminal.demo import trace_tree
from otel_alloy.testing.otlp_endpoint import OtlpEndpoint
from otel_alloy.testing.simulator import Config, Simulator, live

PATIENCE = 60.0
OrderService = Callable[[str], AbstractContextManager[str]]


@contextmanager
def received(alloy: Simulator, otlp: OtlpEndpoint, folder: Path) -> Iterator[None]:
    """otel-alloy at work between the two."""
    receiver = Receiver(
        Settings.model_validate(
            {
                "api_key": "any",
                "endpoint": alloy.endpoint,
                "storage": f"sqlite:///{folder}/checkpoint.db",
                "collection_interval": 1,
                "requests_per_minute": 0,
                "environment": {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp.http_endpoint},
            }
        )
    )
    thread = threading.Thread(target=receiver.run)
    thread.start()
    try:
        yield
    finally:
        receiver.stop()
        thread.join()


def test_one_trace(tmp_path: Path, order_service: OrderService) -> None:
    """Executions run and call the service as a Custom API block does. Its server spans are
    children of the executions' spans that otel-alloy exports later, its own spans children of
    these, all in one trace; a request that is not Alloy's is in a trace of its own."""

    def families(otlp: OtlpEndpoint) -> list[tuple[Span, Span, list[Span]]]:
        spans = otlp.spans()
        by_id = {(span.trace_id, span.span_id): span for span in spans}
        return [
            (by_id[above], span, [s for s in spans if s.parent_span_id == span.span_id])
            for span in spans
            if span.kind == Span.SPAN_KIND_SERVER
            and (above := (span.trace_id, span.parent_span_id)) in by_id
        ]

    with OtlpEndpoint(grpc=True) as otlp, order_service(otlp.grpc_endpoint) as url:
        alloy = Simulator(Config(custom_api_url=f"{url}/orders"))
        alloy.store.feed(live(start=time.time(), rate=5, calls=True))
        with alloy, received(alloy, otlp, tmp_path):
            assert otlp.wait_for(lambda at: len(families(at)) >= 3, PATIENCE)
        found = families(otlp)
        items = [i for i in otlp.items("traces") if i.record.trace_id == found[0][0].trace_id]
        roots = [s for s in otlp.spans() if s.name == "GET /openapi.json"]
    for execution, server, children in found:
        assert server.name == "POST /orders"
        assert not execution.parent_span_id
        assert server.flags & 0x300 == 0x300, "its parent is known to be remote"
        assert execution.start_time_unix_nano <= server.start_time_unix_nano
        assert {"reserve stock", "print label"} <= {child.name for child in children}
        assert {child.trace_id for child in children} == {execution.trace_id}
    (root,) = roots
    assert not root.parent_span_id
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(trace_tree(items))
    first, *more = console.export_text().splitlines()
    assert first.startswith(f"runalloy  {found[0][0].name}")
    assert any("POST /orders" in line and line.startswith("└──") for line in more)
    assert any("reserve stock" in line and line.startswith("    ") for line in more)
