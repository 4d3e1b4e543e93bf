"""What one HTTP request costs this process in CPU, beside other ways to send it, in one run.

The far end is a process of its own that answers with prepared bytes; only the client's side is
counted. Three tables: a request to Alloy without what reading its page costs; a request over
OTLP/HTTP; gzip on both ways (answers of Alloy over TCP and TLS, OTLP requests over HTTP and gRPC).
Microseconds depend on the machine, so each line has its ratio to the first one of its table; each
figure is the best of several rounds that take turns. Arguments: `--requests N`, `--rounds N`.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import quote, urlencode

import httpcore
import httpx
import trustme
from both_ends import END
from common import END_MS

from otel_alloy.alloy.client import AlloyClient
from otel_alloy.alloy.models import read_page
from otel_alloy.alloy.query import Query
from otel_alloy.http_client import HttpClient
from otel_alloy.http_limits import ACCEPTED, read_body
from otel_alloy.network import Route
from otel_alloy.otlp.grpc import GrpcSender
from otel_alloy.otlp.http import HttpSender
from otel_alloy.pipeline.receiver import Receiver
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.models import Settings
from otel_alloy.settings.otlp import OtlpSettings, Signal
from otel_alloy.testing.otlp_endpoint import OtlpEndpoint
from otel_alloy.testing.simulator import Config, Simulator, Traffic, timeline
from otel_alloy.trust import Trust, shared_context, unused_context

PAGES = (30, 100, 1000)
QUERY = Query(30, after=END_MS - 3_600_000, before=END_MS)
HEAD = (
    b"HTTP/1.1 200 OK\r\nDate: Sun, 23 Nov 2025 06:29:14 GMT\r\nConnection: keep-alive\r\n"
    b'Strict-Transport-Security: max-age=15724800\r\nETag: W/"59f4-0"\r\nVary: Accept-Encoding\r\n'
    b"Access-Control-Allow-Origin: *\r\nX-Powered-By: Express\r\nServer: nginx\r\n"
)
LIMITS = {"timeout": {"connect": 30, "read": 30, "write": 30, "pool": 30}}
Work = Callable[[], object]


@contextmanager
def simulated(executions: int) -> Iterator[Simulator]:
    """Alloy with so many executions, a record each."""
    config = Config(api_key="bench", max_limit=10_000, request_log=1)
    with Simulator(config, clock=lambda: END) as alloy:
        traffic = Traffic(seed=1, lifecycle="terminal")
        start = END - executions * 5.0
        alloy.store.feed(timeline(executions, start=start, end=END, traffic=traffic))
        alloy.store.advance()
        yield alloy


def answers(body: bytes, kind: bytes) -> dict[bool, bytes]:
    """The whole answer, and the same in gzip, as proxies before an API pack it (level 6)."""
    made = {}
    for packed in (False, True):
        sent = gzip.compress(body, 6) if packed else body
        named = b"Content-Encoding: gzip\r\n" if packed else b""
        fields = b"Content-Type: %b\r\n%bContent-Length: %d\r\n\r\n" % (kind, named, len(sent))
        made[packed] = HEAD + fields + sent
    return made


def serve(certificate: str) -> None:
    """The far end: prints its ports (plain, TLS, gRPC), answers until standard input ends."""
    of_path = {
        b"/0/logs": answers(b'{"notifications":[]}', b"application/json"),
        b"/v1/traces": answers(b"", b"application/x-protobuf"),
        b"/v1/logs": answers(b"", b"application/x-protobuf"),
    }
    with simulated(max(PAGES)) as alloy:
        for number in PAGES:
            body = alloy.store.query(Query(number).parameters()).body
            of_path[b"/%d/logs" % number] = answers(body, b"application/json")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def answer(connection: socket.socket, tls: bool) -> None:
        if tls:
            connection = context.wrap_socket(connection, server_side=True)
        data = b""
        while piece := connection.recv(1 << 20):
            data += piece
            while b"\r\n\r\n" in data:
                head, _, rest = data.partition(b"\r\n\r\n")
                named = head.lower()
                length = int(named.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                if len(rest) < length:
                    break
                data = rest[length:]
                path = head.split(b" ", 2)[1].partition(b"?")[0]
                connection.sendall(of_path[path][b"accept-encoding: gzip" in named])

    def accept(listening: socket.socket, tls: bool) -> None:
        while True:
            connection, _ = listening.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=answer, args=(connection, tls), daemon=True).start()

    with OtlpEndpoint(grpc=True, store=False) as endpoint:
        for tls in (False, True):
            listening = socket.create_server(("127.0.0.1", 0))
            print(listening.getsockname()[1], end=" ")
            threading.Thread(target=accept, args=(listening, tls), daemon=True).start()
        print(endpoint.grpc_endpoint.rpartition(":")[2], flush=True)
        sys.stdin.read()


@contextmanager
def far_end(certificate: Path) -> Iterator[list[int]]:
    """The ports of `serve` in a process of its own."""
    command = [sys.executable, __file__, "serve", str(certificate)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as far:
        assert far.stdout is not None
        yield [int(port) for port in far.stdout.readline().split()]
        far.communicate()


def microseconds(works: dict[str, Work], requests: int, rounds: int) -> dict[str, float]:
    """CPU of this process for one call of each, the best of several rounds that take turns."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            for _ in range(max(2, requests // 20)):
                work()
            begun = time.process_time()
            for _ in range(requests):
                work()
            best[name] = min(best[name], (time.process_time() - begun) / requests * 1e6)
    return best


def ways(
    stack: ExitStack, port: int, method: str, path: str, headers: dict[str, str], body: bytes | None
) -> dict[str, Work]:
    """The same request in the ways that libraries offer, the plainest first."""
    base = f"http://127.0.0.1:{port}"
    sent = {**headers, "Content-Length": str(len(body))} if body is not None else headers
    standard = http.client.HTTPConnection("127.0.0.1", port)
    stack.callback(standard.close)
    pool = stack.enter_context(httpcore.ConnectionPool())
    prepared = [(k.encode(), v.encode()) for k, v in {"Host": base[7:], **sent}.items()]
    transport = stack.enter_context(httpx.HTTPTransport())
    request = httpx.Request(method, base + path, headers=headers, content=body, extensions=LIMITS)
    client = stack.enter_context(httpx.Client(headers=headers))

    def by_standard() -> bytes:
        standard.request(method, path, body=body, headers=sent)
        return standard.getresponse().read()

    def by_httpcore() -> bytes:
        url = httpcore.URL(scheme="http", host="127.0.0.1", port=port, target=path.encode())
        asked = httpcore.Request(method, url, headers=prepared, content=body, extensions=LIMITS)
        response = pool.handle_request(asked)
        try:
            return response.read()
        finally:
            response.close()

    def by_transport() -> bytes:
        with closing(transport.handle_request(request)) as response:
            return b"".join(response.iter_raw())

    def by_client() -> bytes:
        with client.stream(method, base + path, content=body) as response:
            return b"".join(response.iter_raw())

    return {
        "http.client of the standard library": by_standard,
        "httpcore.ConnectionPool": by_httpcore,
        "httpx.HTTPTransport.handle_request": by_transport,
        "httpx.Client.stream": by_client,
    }


def show(title: str, found: dict[str, float]) -> None:
    """A table: microseconds, and the ratio to its first line."""
    print(f"\n{title}")
    first = next(iter(found.values()))
    for name, cost in found.items():
        print(f"  {name:<42} {cost:9.0f} us  {cost / first:5.2f}", flush=True)


def to_alloy(port: int, records: int, requests: int, rounds: int) -> None:
    """A request for a page of so many records, which is sent in gzip."""
    headers = {
        "User-Agent": "otel-alloy",
        "Accept": "application/json",
        "Accept-Encoding": ACCEPTED,
        "x-api-version": "2025-09",
        "Authorization": "bearer key",
    }
    path = f"/{records}/logs?{urlencode(QUERY.parameters(), quote_via=quote)}"
    client = AlloyClient(f"http://127.0.0.1:{port}/{records}", "key", system_runtime())
    with ExitStack() as stack, closing(client):
        works = ways(stack, port, "GET", path, headers, None)
        body = works["httpcore.ConnectionPool"]()
        assert isinstance(body, bytes)
        works["AlloyClient.fetch"] = lambda: client.fetch(QUERY)
        works["reading"] = lambda: read_page(read_body([body], "gzip", 1 << 30))
        found = microseconds(works, requests, rounds)
    found["AlloyClient.fetch"] -= found.pop("reading")
    show(f"GET from Alloy, {records} records, gzip; decoding and reading taken off", found)


def over_otlp(port: int, bodies: dict[Signal, bytes], requests: int, rounds: int) -> None:
    """A request of 30 spans."""
    with ExitStack() as stack:
        settings = OtlpSettings("traces", endpoint=f"http://127.0.0.1:{port}/v1/traces")
        sender = HttpSender(settings, "otel-alloy", system_runtime())
        stack.callback(sender.close)
        headers = {"User-Agent": "otel-alloy", "Content-Type": "application/x-protobuf"}
        body = bodies["traces"]
        works = ways(stack, port, "POST", "/v1/traces", headers, body)
        works |= {"HttpSender.send": lambda: sender.send(body)}
        found = microseconds(works, requests, rounds)
        show(f"POST over OTLP/HTTP, 30 spans, {len(body):,} bytes", found)


def gzip_from_alloy(ports: list[int], trust: Trust, requests: int, rounds: int) -> None:
    """Pages as they are and in gzip, over TCP and over TLS, decoded."""
    for records in PAGES:
        works: dict[str, Work] = {}
        with ExitStack() as stack:
            for port, scheme in zip(ports, ("http", "https"), strict=False):
                client = HttpClient(
                    f"{scheme}://127.0.0.1:{port}/{records}/logs",
                    Route(trust=trust),
                    (lambda: shared_context(trust)) if scheme == "https" else unused_context,
                    time.monotonic,
                    who="benchmark",
                )
                stack.callback(client.close)
                for packed in ("identity", "gzip"):
                    headers = client.prepared([("Accept-Encoding", packed)])

                    def get(client: HttpClient = client, headers: object = headers) -> bytes:
                        answer = client.send(b"GET", headers, 30)  # type: ignore[arg-type]
                        try:
                            return answer.read(1 << 30)
                        finally:
                            answer.close()

                    works[f"{scheme}, {packed}"] = get
            found = microseconds(works, max(20, requests * 30 // records), rounds)
        show(f"a page of {records} records from Alloy", found)


def gzip_to_otlp(
    ports: list[int], bodies: dict[Signal, bytes], executions: int, requests: int, rounds: int
) -> None:
    """A batch's spans and log records, each way with and without gzip."""
    works: dict[str, Work] = {}
    with ExitStack() as stack:
        for protocol, port in (("http/protobuf", ports[0]), ("grpc", ports[2])):
            for compression in ("none", "gzip"):
                senders: list[tuple[HttpSender | GrpcSender, bytes]] = []
                for signal, body in bodies.items():
                    place = f"127.0.0.1:{port}"
                    sender: HttpSender | GrpcSender
                    if protocol == "grpc":
                        sender = GrpcSender(
                            OtlpSettings(signal, "grpc", place, compression=compression),
                            "otel-alloy",
                        )
                    else:
                        place = f"http://{place}/v1/{signal}"
                        sender = HttpSender(
                            OtlpSettings(signal, endpoint=place, compression=compression),
                            "otel-alloy",
                            system_runtime(),
                        )
                    stack.callback(sender.close)
                    senders.append((sender, body))

                def send(
                    senders: list[tuple[HttpSender | GrpcSender, bytes]] = senders,
                ) -> None:
                    for sender, body in senders:
                        assert sender.send(body).reason == ""

                works[f"{protocol}, {compression}"] = send
        found = microseconds(works, max(5, requests * 10 // executions), rounds)
    size = sum(map(len, bodies.values()))
    show(f"{executions} executions over OTLP, two requests, {size:,} bytes", found)


def otlp_bodies(executions: int) -> dict[Signal, bytes]:
    """The two requests that carry so many executions."""
    with (
        simulated(executions) as alloy,
        OtlpEndpoint() as endpoint,
        tempfile.TemporaryDirectory() as folder,
    ):
        settings = Settings.model_validate(
            {
                "api_key": "bench",
                "endpoint": alloy.endpoint,
                "storage": f"sqlite:///{folder}/checkpoint.db",
                "page_size": executions,
                "batch_size": executions,
                "since": "2020-01-01T00:00:00Z",
                "environment": {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint.http_endpoint},
            }
        )
        Receiver(settings, observe=lambda event: None).run(once=True)
        return {received.signal: received.body for received in endpoint.requests[:2]}


def main() -> None:
    """Prints the tables."""
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2])
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    count = options.requests, options.rounds
    with tempfile.TemporaryDirectory() as folder:
        authority, certificate = Path(folder, "ca.pem"), Path(folder, "server.pem")
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(authority))
        issued = ca.issue_cert("127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
        small, large = otlp_bodies(30), otlp_bodies(1000)
        with far_end(certificate) as ports:
            to_alloy(ports[0], 0, *count)
            to_alloy(ports[0], 30, *count)
            over_otlp(ports[0], small, *count)
            gzip_from_alloy(ports, Trust("SSL_CERT_FILE", str(authority)), *count)
            gzip_to_otlp(ports, small, 30, *count)
            gzip_to_otlp(ports, large, 1000, *count)


if __name__ == "__main__":
    main()
