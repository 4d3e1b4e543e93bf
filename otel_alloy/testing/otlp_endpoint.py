"""An OTLP receiver on loopback, to which the demo and the tests send.

`OtlpEndpoint` speaks OTLP/HTTP with protobuf and, where asked for, OTLP/gRPC. Each export request
goes to a hook before it is acknowledged; the hook watches, or answers as a failing collector would.
What was accepted is kept and can be read back. Sockets, HTTP and the gRPC server live here; nothing
here knows Alloy or shows anything to people. grpcio is loaded only on request.
"""

from __future__ import annotations

import gzip
import socket
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NamedTuple

from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_alloy.http_server import Handler, Server
from otel_alloy.otlp.any_value import attributes as attributes  # how people and tests read an Item

if TYPE_CHECKING:
    from grpc import Server as GrpcServer
    from grpc import ServicerContext

Signal = Literal["traces", "logs"]

_PATHS: dict[str, Signal] = {"/v1/traces": "traces", "/v1/logs": "logs"}
_SERVICES: dict[str, Signal] = {
    "opentelemetry.proto.collector.trace.v1.TraceService": "traces",
    "opentelemetry.proto.collector.logs.v1.LogsService": "logs",
}
_PROTOBUF = "application/x-protobuf"


class Item(NamedTuple):
    """One span or log record, with what stands above it in the request."""

    record: Span | LogRecord
    scope: InstrumentationScope
    resource: Resource


@dataclass(eq=False)
class Received:
    """One export request as it arrived."""

    signal: Signal
    transport: Literal["http", "grpc"]
    headers: Mapping[str, str]
    """HTTP headers or gRPC metadata, names in lower case; binary metadata is left out."""
    body: bytes
    """The protobuf message, after decompression."""
    accepted: bool = False
    """Whether the endpoint took the data; true also where the acknowledgement was lost."""

    @cached_property
    def message(
        self,
    ) -> trace_service.ExportTraceServiceRequest | logs_service.ExportLogsServiceRequest:
        """The decoded request. Raises protobuf's `DecodeError` where `body` is none."""
        if self.signal == "traces":
            return trace_service.ExportTraceServiceRequest.FromString(self.body)
        return logs_service.ExportLogsServiceRequest.FromString(self.body)

    def items(self) -> Iterator[Item]:
        """All spans or log records of the request, in order. Raises `DecodeError`."""
        if isinstance(self.message, trace_service.ExportTraceServiceRequest):
            for spans in self.message.resource_spans:
                for of_scope in spans.scope_spans:
                    for span in of_scope.spans:
                        yield Item(span, of_scope.scope, spans.resource)
        else:
            for logs in self.message.resource_logs:
                for scoped in logs.scope_logs:
                    for record in scoped.log_records:
                        yield Item(record, scoped.scope, logs.resource)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a request gets. The default is success; HTTP and gRPC each read their own fields."""

    status: int = 200
    """HTTP status; 2xx accepts the data."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """HTTP headers, besides or instead of `Content-Type` and `Content-Length`."""
    body: bytes | None = None
    """HTTP body; `None` for the OTLP response, or the `google.rpc.Status` above 299."""
    code: str = "OK"
    """Name of the gRPC status code, as in `grpc.StatusCode`; only OK accepts the data."""
    trailers: tuple[tuple[str, str | bytes], ...] = ()
    """gRPC trailing metadata, such as `grpc-status-details-bin`."""
    rejected: int = 0
    """How many records the partial success of a successful answer reports."""
    message: str = ""
    """The error message of a partial success or of a failure."""
    connection: Literal["keep", "drop", "lose"] = "keep"
    """`drop` breaks the connection without looking at the data; `lose` accepts the data and then
    breaks the connection in place of the acknowledgement. The gRPC server cannot break a single
    connection; the caller gets UNAVAILABLE, which is what a broken one looks like to it."""


class OtlpEndpoint:
    """A running OTLP receiver on 127.0.0.1; a context manager.

    `receive` is called once per request, before any acknowledgement, from several threads at the
    same time; `None` means a plain success. What it raises is answered with a failure, and raised
    again at the end of the `with` block unless something else is on its way there.
    With `store=False` only `request_count`, `span_count` and `log_record_count` are kept.
    Port 0 lets the system choose. Raises `OSError` for a port in use.
    """

    def __init__(
        self,
        receive: Callable[[Received], Answer | None] | None = None,
        *,
        grpc: bool = False,
        store: bool = True,
        http_port: int = 0,
    ) -> None:
        self.requests: list[Received] = []
        """Every export request in the order of its answer, accepted or not."""
        self.request_count = 0
        """Requests of either signal, accepted or not."""
        self.span_count = 0
        """Spans in accepted requests, repetitions included."""
        self.log_record_count = 0
        """Log records in accepted requests, repetitions included."""
        self._receive = receive
        self._store = store
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._http = Server(("127.0.0.1", http_port), _HttpHandler, self)
        self._grpc: GrpcServer | None = None
        self._grpc_port = 0
        try:
            if grpc:
                self._grpc, self._grpc_port = _grpc_server(self)
        except BaseException:
            self._http.server_close()
            raise

    @property
    def http_endpoint(self) -> str:
        """The base URL for `OTEL_EXPORTER_OTLP_ENDPOINT`, without a trailing slash."""
        return self._http.url

    @property
    def grpc_endpoint(self) -> str:
        """The same for gRPC. Raises `ValueError` unless made with `grpc=True`."""
        if self._grpc is None:
            raise ValueError("this endpoint was made without grpc=True")
        return f"http://127.0.0.1:{self._grpc_port}"

    def __enter__(self) -> OtlpEndpoint:
        self._http.start("otlp-endpoint")
        if self._grpc is not None:
            self._grpc.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.stop()
        if self._grpc is not None:
            self._grpc.stop(grace=0).wait()
        if error is None and self._failure is not None:
            raise self._failure

    def spans(self) -> list[Span]:
        """Accepted spans in order of arrival, repetitions included."""
        return [item.record for item in self.items("traces") if isinstance(item.record, Span)]

    def log_records(self) -> list[LogRecord]:
        """Accepted log records in order of arrival, repetitions included."""
        return [item.record for item in self.items("logs") if isinstance(item.record, LogRecord)]

    def items(self, signal: Signal) -> list[Item]:
        """Accepted spans or log records with their scope and resource, in order of arrival."""
        with self._changed:
            accepted = [one for one in self.requests if one.accepted and one.signal == signal]
        return [item for request in accepted for item in request.items()]

    def wait_for(self, condition: Callable[[OtlpEndpoint], bool], timeout: float = 10.0) -> bool:
        """Wait until `condition` holds, at most `timeout` seconds; whether it does. It is looked at
        after each request, so it may depend only on what this endpoint received."""
        with self._changed:
            return self._changed.wait_for(lambda: condition(self), timeout)

    def _take(self, received: Received) -> Answer:
        """Have the hook decide about one request, and remember it."""
        try:
            answer = self._receive(received) if self._receive else None
            answer = answer or Answer()
        except DecodeError as error:  # the sender's fault, whoever finds it
            answer = Answer(status=400, code="INVALID_ARGUMENT", message=str(error))
        except BaseException as error:
            self._failure = self._failure or error
            answer = Answer(status=500, code="INTERNAL", message=f"the hook failed: {error!r}")
        count = 0
        ok = answer.status < 300 if received.transport == "http" else answer.code == "OK"
        if answer.connection == "lose" or (answer.connection == "keep" and ok):
            try:
                count = sum(1 for _ in received.items())
                received.accepted = True
            except DecodeError as error:
                answer = Answer(status=400, code="INVALID_ARGUMENT", message=str(error))
        with self._changed:
            self.request_count += 1
            if received.signal == "traces":
                self.span_count += count
            else:
                self.log_record_count += count
            if self._store:
                self.requests.append(received)
            self._changed.notify_all()
        return answer


def _response(answer: Answer) -> bytes:
    """The OTLP export response; a full success is the empty message. The responses for traces and
    for logs have the same bytes, as their fields have the same numbers."""
    response = trace_service.ExportTraceServiceResponse()
    if answer.rejected or answer.message:
        response.partial_success.rejected_spans = answer.rejected
        response.partial_success.error_message = answer.message
    return response.SerializeToString()


class _HttpHandler(Handler):
    server: Server[OtlpEndpoint]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one packet

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self.close_connection = True
            return self._send(411, {}, b"")
        body = self.rfile.read(int(length))
        if len(body) < int(length):  # the sender went away in the middle
            self.close_connection = True
            return
        signal = _PATHS.get(self.path)
        encoding = self.headers.get("Content-Encoding", "identity").lower()
        if signal is None:
            return self._send(404, {}, b"")
        if self.headers.get_content_type() != _PROTOBUF or encoding not in ("gzip", "identity"):
            return self._send(415, {}, b"")
        if encoding == "gzip":
            try:
                body = gzip.decompress(body)
            except (OSError, EOFError, zlib.error):
                return self._send(400, {}, b"")
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.owner._take(Received(signal, "http", headers, body))
        if answer.connection != "keep":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        content = answer.body
        if content is None and answer.status < 300:
            content = _response(answer)
        elif content is None:
            content = Status(message=answer.message).SerializeToString()
        self._send(answer.status, answer.headers, content)

    def do_GET(self) -> None:
        self._send(405 if self.path in _PATHS else 404, {}, b"")

    def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        given = {"Content-Type": _PROTOBUF, "Content-Length": str(len(body)), **headers}
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _grpc_server(endpoint: OtlpEndpoint) -> tuple[GrpcServer, int]:
    """A gRPC server, not started yet, and its port."""
    import grpc

    def export(signal: Signal) -> Callable[[bytes, ServicerContext], bytes]:
        def answer_to(body: bytes, context: ServicerContext) -> bytes:
            headers = {
                name: value
                for name, value in context.invocation_metadata()
                if isinstance(value, str)
            }
            answer = endpoint._take(Received(signal, "grpc", headers, body))
            if answer.connection != "keep":
                context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            context.set_trailing_metadata(answer.trailers)
            if answer.code != "OK":
                context.abort(grpc.StatusCode[answer.code], answer.message)
            return _response(answer)

        return answer_to

    server = grpc.server(
        ThreadPoolExecutor(thread_name_prefix="otlp-endpoint"),
        options=[("grpc.so_reuseport", 0)],
    )
    server.add_generic_rpc_handlers(
        tuple(
            grpc.method_handlers_generic_handler(
                service, {"Export": grpc.unary_unary_rpc_method_handler(export(signal))}
            )
            for service, signal in _SERVICES.items()
        )
    )
    return server, server.add_insecure_port("127.0.0.1:0")
