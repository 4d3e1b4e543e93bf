"""What the installed command sends, over real sockets, is as the registry says: executions, their
blocks and log records, the receiver's own metrics and its own spans."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import yaml
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from registry import Registry

from otel_alloy.http_server import Handler, Server
from otel_alloy.mapping import semconv
from otel_alloy.observability import metrics
from otel_alloy.testing.otlp_endpoint import Answer, OtlpEndpoint, Received

from .live import Live

if TYPE_CHECKING:
    from conftest import Place

REGISTRY = Registry()


class Sink:
    """Takes OTLP/HTTP metrics on this machine."""

    def __init__(self) -> None:
        self.requests: list[ExportMetricsServiceRequest] = []
        self.server = Server(("127.0.0.1", 0), SinkHandler, self)


class SinkHandler(Handler):
    server: Server[Sink]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.owner.requests.append(ExportMetricsServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def metrics_sink() -> Iterator[Sink]:
    sink = Sink()
    sink.server.start("metrics")
    try:
        yield sink
    finally:
        sink.server.stop()


def looked_at(live: Live, place: Place, *others: OtlpEndpoint, sink: Sink) -> list[str]:
    """What is wrong with all that was sent."""
    requests = [one.message for at in (place.otlp, *others) for one in at.requests]
    return [words for one in (*requests, *sink.requests) for words in live.findings(one)]


ASKED = {
    "OTEL_METRICS_EXPORTER": "otlp",
    "OTEL_ALLOY_OWN_TRACES": "true",
    "OTEL_ALLOY_STARTED_LOGS": "true",
    "OTEL_ALLOY_INCOMPLETE_AFTER": "10m",
    "OTEL_ALLOY_EXECUTION_URL": "https://alloy.example.com/executions/{execution.id}",
    "OTEL_RESOURCE_ATTRIBUTES": "service.namespace=shop,deployment.environment.name=production",
}


def once(place: Place, sink: Sink, file: dict[str, object], **environment: str) -> None:
    path = place.folder / "otel-alloy.yaml"
    path.write_text(yaml.safe_dump(file), "utf-8")
    where = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": sink.server.url + "/v1/metrics"}
    protocol = {"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf"}
    place.once("--config", str(path), **(ASKED | where | protocol | environment))


def test_all_that_is_sent_over_http(place: Place) -> None:
    """Also where Alloy and the endpoint fail for a while, rules keep executions back, customers
    stand on the resource and destinations get theirs; every kind of span and event is among it."""
    live = Live(REGISTRY)
    place.now = time.time()
    records = place.fill(60, days=0.02, error_rate=0.3)
    lost = next(one for one in records if one["message"] == "executionStarted")
    place.alloy.store.add(lost | {"_id": "f" * 24, "data": {"executionUuid": "never ends"}})
    place.alloy.script("503", "429:0", None)
    refused: list[Received] = []

    def judge(received: Received) -> Answer | None:
        if received.signal == "logs" and not refused:
            refused.append(received)
            return Answer(status=503)
        return None

    place.judge = judge
    user = next(str(one["userId"]) for one in records if one.get("userId"))
    with metrics_sink() as sink, OtlpEndpoint() as other:
        file = {
            "resource_per": sorted(_resource_fields()),
            "rules": [{"name": "half", "sample": 0.5, "match": {"outcome": "success"}}],
            "destinations": {
                "acme": {"match": {"user.id": user}, "otlp": {"endpoint": other.http_endpoint}}
            },
        }
        once(place, sink, file, OTEL_ALLOY_ENRICH="all", OTEL_ALLOY_ENRICH_TIMEOUT="4s")
        assert refused and other.requests and sink.requests
        assert looked_at(live, place, other, sink=sink) == []
    entities = {key for one in REGISTRY.entities.values() for key in REGISTRY.keys(one)}
    assert live.on_resources >= entities
    kinds = {name for name in REGISTRY.spans if not name.endswith(("grpc", "exporter"))}
    assert live.seen.keys() >= kinds
    request = live.seen["runalloy.receiver.request"]
    delivery = live.seen["runalloy.receiver.delivery.http"]
    assert request == set(REGISTRY.keys(REGISTRY.spans["runalloy.receiver.request"]))
    assert delivery == set(REGISTRY.keys(REGISTRY.spans["runalloy.receiver.delivery.http"]))
    written = set(REGISTRY.events) - {semconv.EVENT_OTHER}
    assert live.seen.keys() >= written
    assert all(semconv.EVENT_NAME not in live.seen[name] for name in written)
    assert semconv.URL_FULL in live.seen["runalloy.execution"]
    measured = live.seen.keys() & set(REGISTRY.metrics)
    assert {metrics.DESTINATION_EXECUTIONS.name, metrics.FILTERED.name} <= measured
    assert len(measured) >= 25


def _resource_fields() -> set[str]:
    from otel_alloy.routing.customers import ATTRIBUTES

    return set(ATTRIBUTES)


@pytest.mark.parametrize("exporter", ["otlp", "console"])
def test_all_that_is_sent_over_grpc(grpc_place: Place, exporter: str) -> None:
    """The same over gRPC, and where log records go to another exporter of the SDK; with
    `event_name_attribute` each log record has the deprecated attribute, too."""
    live = Live(REGISTRY)
    grpc_place.fill(20, days=0.01)
    with metrics_sink() as sink:
        once(
            grpc_place,
            sink,
            {},
            OTEL_LOGS_EXPORTER=exporter,
            OTEL_ALLOY_EVENT_NAME_ATTRIBUTE="true",
        )
        assert looked_at(live, grpc_place, sink=sink) == []
    assert "runalloy.receiver.delivery.grpc" in live.seen
    if exporter == "otlp":
        assert semconv.EVENT_NAME in live.seen[semconv.EVENT_FINISHED]
    else:
        assert "runalloy.receiver.delivery.exporter" in live.seen
