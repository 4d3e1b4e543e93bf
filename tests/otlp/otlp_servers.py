"""Endpoints on real sockets with scripted answers: HTTP, gRPC, and one that breaks connections.

Each is a context manager on a free port of the loopback. No assertions live here.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

PROTOBUF = "application/x-protobuf"


def status(message: str, retry_delay: float | None = None, code: int = 3) -> bytes:
    """A google.rpc.Status, with RetryInfo where `retry_delay` seconds are given."""
    result = Status(code=code, message=message)
    if retry_delay is not None:
        delay = Duration()
        delay.FromMicroseconds(int(retry_delay * 1e6))
        result.details.add().Pack(RetryInfo(retry_delay=delay))
    body: bytes = result.SerializeToString()
    return body


@dataclass(frozen=True)
class Answer:
    """What the HTTP endpoint sends back."""

    code: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": PROTOBUF})


@dataclass(frozen=True)
class Request:
    """What the HTTP endpoint received."""

    path: str
    headers: Mapping[str, str]
    """Lower-case names."""
    body: bytes


@dataclass
class HttpEndpoint:
    """A running HTTP server; `answer` may be changed at any time."""

    port: int
    answer: Answer = field(default_factory=Answer)
    requests: list[Request] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def http_endpoint(tls: ssl.SSLContext | None = None) -> Iterator[HttpEndpoint]:
    """An HTTP/1.1 server (with `tls`, HTTPS) that answers every POST with `answer`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {k.lower(): v for k, v in self.headers.items()}
            endpoint.requests.append(Request(self.path, headers, body))
            endpoint.connections.add(self.client_address)
            answer = endpoint.answer
            self.send_response(answer.code)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.code != 204:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return "Wed, 21 Oct 2026 07:28:00 GMT"

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def finish_request(self, request: Any, client_address: Any) -> None:
            if tls is None:
                super().finish_request(request, client_address)
                return
            # The handshake belongs into the connection's own thread.
            with suppress(OSError), tls.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    endpoint = HttpEndpoint(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def raw_endpoint(says: bytes) -> Iterator[int]:
    """The port of a server that reads a little, writes `says` and breaks the connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(says)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@dataclass
class Relay:
    """Passes connections on to a port that may be changed; then those that stand are broken."""

    port: int
    to: int
    open: list[socket.socket] = field(default_factory=list)

    def move(self, port: int) -> None:
        self.to = port
        for one in self.open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def raw_relay(to: int) -> Iterator[Relay]:
    """A relay: the same address before two servers, one after the other."""
    listener = socket.create_server(("127.0.0.1", 0))
    relay = Relay(listener.getsockname()[1], to)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", relay.to))
            except OSError:
                return
            relay.open += [near, far]
            for pair in ((near, far), (far, near)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield relay
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        relay.move(0)
        for one in relay.open:
            one.close()


@contextmanager
def silent_endpoint() -> Iterator[int]:
    """The port of a server that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def nobody() -> int:
    """A port of the loopback on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@dataclass
class GrpcEndpoint:
    """A running gRPC server; `export` may be changed at any time, and may call `abort`."""

    port: int = 0
    export: Callable[[grpc.ServicerContext], bytes] = lambda _: b""
    calls: list[tuple[str, dict[str, str | bytes], bytes]] = field(default_factory=list)
    """Method, metadata, request."""


def _handler(endpoint: GrpcEndpoint, signal: str, name: str) -> Any:
    service = f"opentelemetry.proto.collector.{signal}.v1.{name}"

    def export(request: bytes, context: grpc.ServicerContext) -> bytes:
        metadata = {key: value for key, value in context.invocation_metadata()}
        endpoint.calls.append((f"/{service}/Export", metadata, request))
        return endpoint.export(context)

    method = grpc.unary_unary_rpc_method_handler(export)
    return grpc.method_handlers_generic_handler(service, {"Export": method})


@contextmanager
def grpc_endpoint(credentials: grpc.ServerCredentials | None = None) -> Iterator[GrpcEndpoint]:
    """A gRPC server, with TLS where `credentials` are given. Takes messages up to 4 MiB."""
    endpoint = GrpcEndpoint()
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        (_handler(endpoint, "trace", "TraceService"), _handler(endpoint, "logs", "LogsService"))
    )
    if credentials is None:
        endpoint.port = server.add_insecure_port("127.0.0.1:0")
    else:
        endpoint.port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield endpoint
    finally:
        server.stop(None).wait()
