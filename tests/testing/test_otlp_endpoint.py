"""`OtlpEndpoint`: senders nobody here wrote deliver over real sockets, and what they sent is what
can be read back; failing answers reach the sender as a failing collector's would."""

from __future__ import annotations

import gzip
import http.client
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import grpc
import pytest
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_alloy.testing.otlp_endpoint import Answer, OtlpEndpoint, Received, attributes

RESOURCE = Resource({"service.name": "sender", "list": ["a", "b"], "number": 7})
TRACES = "opentelemetry.proto.collector.trace.v1.TraceService"


def sdk_spans() -> list[ReadableSpan]:
    memory = InMemorySpanExporter()
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("tests", "1.0")
    with tracer.start_as_current_span("outer", attributes={"flag": True, "share": 0.5}):
        tracer.start_span("inner", attributes={"word": "süß"}).end()
    return list(memory.get_finished_spans())


def sdk_logs() -> list[ReadableLogRecord]:
    record = LogRecord(
        timestamp=1_700_000_000_000_000_000,
        observed_timestamp=1_700_000_000_000_000_001,
        severity_number=SeverityNumber.ERROR,
        body="it failed",
        attributes={"nested": {"deep": [1, 2]}},
        event_name="tests.failed",
    )
    return [ReadableLogRecord(record, RESOURCE)]


def request_of(*names: str) -> bytes:
    spans = [Span(name=name) for name in names]
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])]
    ).SerializeToString()


class Sender:
    """One HTTP connection that stays open until the end of the test."""

    opened: ClassVar[list[http.client.HTTPConnection]] = []

    def __init__(self, endpoint: OtlpEndpoint) -> None:
        self.connection = http.client.HTTPConnection(
            endpoint.http_endpoint.removeprefix("http://"), timeout=10
        )
        self.opened.append(self.connection)

    def post(
        self, body: bytes, path: str = "/v1/traces", **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        given = {"content-type": "application/x-protobuf"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request("POST", path, body, given)
        answer = self.connection.getresponse()
        return answer.status, answer.headers, answer.read()


def grpc_export(endpoint: OtlpEndpoint, body: bytes) -> bytes:
    channel: Any = grpc.insecure_channel(endpoint.grpc_endpoint.removeprefix("http://"))
    with channel:
        answer: bytes = channel.unary_unary(f"/{TRACES}/Export")(body, timeout=10)
        return answer


def deliver(exporter: Any, data: Any) -> None:
    """Send with one of the SDK's exporters, which has to see success."""
    try:
        assert exporter.export(data).name == "SUCCESS"
    finally:
        exporter.shutdown()


@pytest.fixture(autouse=True)
def connections_closed() -> Iterator[None]:
    yield
    while Sender.opened:
        Sender.opened.pop().close()


@pytest.fixture
def endpoint() -> Iterator[OtlpEndpoint]:
    with OtlpEndpoint(grpc=True) as running:
        yield running


@pytest.mark.parametrize("how", ["http", "http+gzip", "grpc", "grpc+gzip"])
def test_the_sdk_exporters_deliver_and_what_arrives_is_equal(
    endpoint: OtlpEndpoint, how: str
) -> None:
    """The SDK's own exporters see success, and each request is what the SDK's encoder makes."""
    spans, logs = sdk_spans(), sdk_logs()
    exporters: list[Any]
    if how.startswith("http"):
        packing = Compression.Gzip if how.endswith("gzip") else Compression.NoCompression
        exporters = [
            HttpSpans(f"{endpoint.http_endpoint}/v1/traces", compression=packing),
            HttpLogs(f"{endpoint.http_endpoint}/v1/logs", compression=packing),
        ]
    else:
        squeeze = grpc.Compression.Gzip if how.endswith("gzip") else grpc.Compression.NoCompression
        exporters = [
            GrpcSpans(endpoint.grpc_endpoint, insecure=True, compression=squeeze),
            GrpcLogs(endpoint.grpc_endpoint, insecure=True, compression=squeeze),
        ]
    for exporter, data in zip(exporters, (spans, logs), strict=True):
        deliver(exporter, data)

    traces, records = endpoint.requests
    assert (traces.signal, traces.transport) == ("traces", how.split("+")[0])
    assert traces.message == encode_spans(spans)
    assert records.signal == "logs"
    assert records.message == encode_logs(logs)
    assert [span.name for span in endpoint.spans()] == ["inner", "outer"]
    assert [log.event_name for log in endpoint.log_records()] == ["tests.failed"]


def test_a_span_comes_with_its_scope_and_resource_as_python_values(endpoint: OtlpEndpoint) -> None:
    """`items` and `attributes` give everything around a record without walking protobuf."""
    deliver(HttpSpans(f"{endpoint.http_endpoint}/v1/traces"), sdk_spans())
    deliver(HttpLogs(f"{endpoint.http_endpoint}/v1/logs"), sdk_logs())
    item = endpoint.items("traces")[1]
    assert isinstance(item.record, Span)
    assert item.scope.name == "tests"
    assert attributes(item.resource.attributes) == {
        "service.name": "sender",
        "list": ["a", "b"],
        "number": 7,
    }
    assert attributes(item.record.attributes) == {"flag": True, "share": 0.5}
    assert attributes(endpoint.log_records()[0].attributes) == {"nested": {"deep": [1, 2]}}


def test_success_is_an_otlp_answer_on_a_kept_connection(endpoint: OtlpEndpoint) -> None:
    """HTTP/1.1 stays open over requests of both signals; answers decode as OTLP responses."""
    sender = Sender(endpoint)
    status, headers, body = sender.post(request_of("a"))
    own = sender.connection.sock
    assert (status, headers["Content-Type"]) == (200, "application/x-protobuf")
    assert ExportTraceServiceResponse.FromString(body) == ExportTraceServiceResponse()
    status, _, body = sender.post(b"", "/v1/logs", content_encoding="identity")
    assert status == 200
    assert ExportLogsServiceResponse.FromString(body) == ExportLogsServiceResponse()
    assert sender.connection.sock is own
    assert endpoint.requests[0].headers["content-type"] == "application/x-protobuf"


@pytest.mark.parametrize(
    ("path", "body", "headers", "expected"),
    [
        ("/v1/metrics", b"", {}, 404),
        ("/", b"", {}, 404),
        ("/v1/traces", b"\xff", {}, 400),
        ("/v1/traces", b"no gzip", {"content_encoding": "gzip"}, 400),
        ("/v1/traces", gzip.compress(b"abc")[:-9], {"content_encoding": "gzip"}, 400),
        ("/v1/traces", b"", {"content_encoding": "zstd"}, 415),
        ("/v1/traces", b"{}", {"content_type": "application/json"}, 415),
    ],
    ids=["metrics", "root", "undecodable", "not-gzip", "cut-gzip", "zstd", "json"],
)
def test_what_is_no_otlp_request_is_refused_and_the_connection_lives(
    endpoint: OtlpEndpoint, path: str, body: bytes, headers: dict[str, str], expected: int
) -> None:
    """Nothing of it counts as accepted, and the next request on the connection is served."""
    sender = Sender(endpoint)
    assert sender.post(body, path, **headers)[0] == expected
    assert endpoint.items("traces") == []
    assert sender.post(request_of("a"))[0] == 200


def test_grpc_refuses_what_does_not_decode(endpoint: OtlpEndpoint) -> None:
    """INVALID_ARGUMENT, as from a collector, and nothing is accepted."""
    with pytest.raises(grpc.RpcError) as caught:
        grpc_export(endpoint, b"\xff")
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert endpoint.spans() == []


def test_the_hook_sees_a_request_before_it_is_acknowledged_and_stored() -> None:
    """At the time of the hook nothing counts yet; its plain return is a success."""
    seen: list[tuple[bytes, int]] = []

    def receive(received: Received) -> None:
        seen.append((received.body, running.span_count))

    with OtlpEndpoint(receive) as running:
        body = request_of("a", "b")
        Sender(running).post(gzip.compress(body), content_encoding="gzip")
        assert seen == [(body, 0)]
        assert running.span_count == 2


def test_the_hook_answers_with_any_http_status_headers_and_body() -> None:
    """Refused data is remembered as a request and is not among the spans."""
    answers = [
        Answer(status=429, headers={"Retry-After": "7"}, message="slow down"),
        Answer(status=200, headers={"Content-Type": "text/html"}, body=b"<html>"),
    ]
    with OtlpEndpoint(lambda _: answers.pop(0)) as endpoint:
        sender = Sender(endpoint)
        status, headers, body = sender.post(request_of("a"))
        assert (status, headers["Retry-After"]) == (429, "7")
        assert Status.FromString(body).message == "slow down"
        status, headers, body = sender.post(request_of("b"))
        assert (status, headers["Content-Type"], body) == (200, "text/html", b"<html>")
        assert [one.accepted for one in endpoint.requests] == [False, True]
        assert [span.name for span in endpoint.spans()] == ["b"]
        assert (endpoint.request_count, endpoint.span_count) == (2, 1)


def test_the_hook_answers_with_any_grpc_code_and_trailers() -> None:
    """The code, the words and the trailing metadata reach the caller."""
    answer = Answer(code="RESOURCE_EXHAUSTED", message="later", trailers=(("x-bin", b"\x01"),))
    with OtlpEndpoint(lambda _: answer, grpc=True) as endpoint:
        with pytest.raises(grpc.RpcError) as caught:
            grpc_export(endpoint, request_of("a"))
        error: Any = caught.value
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.details() == "later"
        assert ("x-bin", b"\x01") in error.trailing_metadata()
        assert endpoint.spans() == []


def test_a_partial_success_reaches_the_sender_on_both_transports() -> None:
    """The count and the words stand in the response of a request that was accepted."""
    with OtlpEndpoint(lambda _: Answer(rejected=3, message="no"), grpc=True) as endpoint:
        _, _, over_http = Sender(endpoint).post(request_of("a"))
        over_grpc = grpc_export(endpoint, request_of("a"))
        for body in (over_http, over_grpc):
            partial = ExportTraceServiceResponse.FromString(body).partial_success
            assert (partial.rejected_spans, partial.error_message) == (3, "no")
        _, _, logs = Sender(endpoint).post(b"", "/v1/logs")
        told = ExportLogsServiceResponse.FromString(logs).partial_success
        assert (told.rejected_log_records, told.error_message) == (3, "no")


@pytest.mark.parametrize(("connection", "kept"), [("drop", []), ("lose", ["a"])])
def test_a_broken_connection_keeps_the_data_or_does_not(connection: Any, kept: list[str]) -> None:
    """`drop`: not taken and no answer. `lose`: taken, and the sender cannot know."""
    with OtlpEndpoint(lambda _: Answer(connection=connection), grpc=True) as endpoint:
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            Sender(endpoint).post(request_of("a"))
        assert [span.name for span in endpoint.spans()] == kept
        with pytest.raises(grpc.RpcError) as caught:
            grpc_export(endpoint, request_of("a"))
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert [span.name for span in endpoint.spans()] == kept * 2


def test_a_failure_inside_the_hook_fails_the_with_block() -> None:
    """An assertion in a hook cannot pass unseen; the sender meanwhile gets an answer."""

    def receive(_: Received) -> None:
        raise AssertionError("seen in the hook")

    with pytest.raises(AssertionError, match="seen in the hook"), OtlpEndpoint(receive) as endpoint:
        assert Sender(endpoint).post(request_of("a"))[0] == 500


def test_a_hook_that_looks_into_a_broken_request_is_not_at_fault() -> None:
    """The sender gets its 400 and the `with` block ends well."""

    def receive(received: Received) -> None:
        list(received.items())

    with OtlpEndpoint(receive) as running:
        assert Sender(running).post(b"\xff")[0] == 400
        assert [one.accepted for one in running.requests] == [False]


def test_without_storing_only_counts_remain() -> None:
    """Large runs cost no memory per request."""
    with OtlpEndpoint(store=False) as endpoint:
        sender = Sender(endpoint)
        for _ in range(3):
            sender.post(request_of("a", "b"))
        deliver(HttpLogs(f"{endpoint.http_endpoint}/v1/logs"), sdk_logs())
        assert endpoint.requests == []
        counts = (endpoint.request_count, endpoint.span_count, endpoint.log_record_count)
        assert counts == (4, 6, 1)


def test_wait_for_returns_when_it_holds_and_gives_up_when_it_does_not(
    endpoint: OtlpEndpoint,
) -> None:
    """Tests need no sleeps."""
    Sender(endpoint).post(request_of("a"))
    assert endpoint.wait_for(lambda it: it.span_count == 1)
    assert not endpoint.wait_for(lambda it: it.span_count == 2, timeout=0.0)


def test_after_the_with_block_nothing_listens_and_the_port_is_free() -> None:
    """A collector that goes away and comes back at the same address, connections broken."""
    with OtlpEndpoint() as first:
        sender = Sender(first)
        sender.post(request_of("a"))
    port = int(first.http_endpoint.rpartition(":")[2])
    with pytest.raises((http.client.HTTPException, OSError)):
        sender.post(request_of("b"))
    with pytest.raises(ConnectionRefusedError):
        Sender(first).post(request_of("b"))
    with OtlpEndpoint(http_port=port) as second:
        assert second.http_endpoint == first.http_endpoint
        assert Sender(second).post(request_of("c"))[0] == 200


def test_grpc_is_loaded_only_when_asked_for() -> None:
    """The HTTP side works where grpcio costs too much or is missing."""
    script = (
        "import sys\n"
        "from otel_alloy.testing.otlp_endpoint import OtlpEndpoint\n"
        "with OtlpEndpoint(): pass\n"
        "sys.exit('grpc' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    with OtlpEndpoint() as plain, pytest.raises(ValueError, match="grpc=True"):
        _ = plain.grpc_endpoint
