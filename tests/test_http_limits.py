"""What an HTTP answer may cost, over real sockets: bytes, decodings, headers, and one deadline for
the whole request, for the Logs API and for OTLP alike."""

import gzip
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace

import httpcore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_alloy.alloy.client import AlloyClient
from otel_alloy.alloy.query import Query
from otel_alloy.errors import RequestRefused, TooLarge, Unavailable
from otel_alloy.http_client import HttpClient
from otel_alloy.http_limits import MOST_HEADERS, TooMuch, Undecodable, check_headers, read_body
from otel_alloy.network import Route
from otel_alloy.otlp.http import HttpSender
from otel_alloy.otlp.outcome import Kind, Outcome
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.otlp import otlp_settings
from otel_alloy.testing.simulator import Config, Simulator
from otel_alloy.trust import unused_context

Serve = Callable[[socket.socket], None]
HEAD = b"HTTP/1.1 200 OK\r\n"
EMPTY = b'{"notifications":[]}'


@contextmanager
def peer(serve: Serve) -> Iterator[int]:
    """Whoever connects is served by `serve`; the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, suppress(OSError):
                        serve(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def says(data: bytes) -> Serve:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(data)
        connection.recv(65536)

    return serve


def trickles(data: bytes, pause: float = 0.02) -> Serve:
    """A byte now and then, for as long as somebody listens."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        over = threading.Event()
        for byte in data:
            connection.sendall(bytes([byte]))
            over.wait(pause)

    return serve


def ask(port: int, *, timeout: float = 5.0, most: int = 1_000_000) -> int:
    client = AlloyClient(
        f"http://127.0.0.1:{port}",
        "key",
        system_runtime(),
        timeout=timeout,
        max_response_bytes=most,
    )
    with closing(client):
        return client.fetch(Query(10)).received


def plain_client(port: int) -> HttpClient:
    url = f"http://127.0.0.1:{port}"
    return HttpClient(url, Route(), unused_context, time.monotonic, who="test")


def answer(body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in (*headers, f"Content-Length: {len(body)}"))
    return HEAD + lines.encode("latin-1") + b"\r\n" + body


TRICKLES = {
    "the status line": b"HTTP/1.1 200 OK" + b" " * 5000,
    "one header": HEAD + b"X-Long: " + b"a" * 5000,
    "many headers": HEAD + b"A: b\r\n" * 1000,
    "answers before the answer": b"HTTP/1.1 100 Continue\r\n\r\n" * 200,
    "a chunk's size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 5000,
    "the body": HEAD + b"Content-Length: 5000\r\n\r\n" + b" " * 5000,
    "trailers": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 1000,
}


@pytest.mark.parametrize("name", TRICKLES)
def test_a_trickle_ends_with_the_deadline(name: str) -> None:
    """A byte now and then holds a request for its timeout and no longer, wherever in the answer it
    is, with a word that it was the time; OTLP and the Logs API alike."""
    with peer(trickles(TRICKLES[name])) as port:
        begun = time.monotonic()
        with pytest.raises(Unavailable, match=r"in 0\.4 s|within 0\.4 s"):
            ask(port, timeout=0.4)
        assert time.monotonic() - begun < 3
        outcome = send(port, TIMEOUT="400")
        assert time.monotonic() - begun < 6
    assert outcome.kind is Kind.RETRY and "no answer within 0.4 s" in outcome.reason


def send(port: int, **variables: str) -> Outcome:
    named = {f"OTEL_EXPORTER_OTLP_{k}": v for k, v in variables.items()}
    found, mistakes = otlp_settings(
        {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", **named}, "traces"
    )
    assert not mistakes
    with closing(HttpSender(found, "test", system_runtime())) as sender:
        return sender.send(bytes(100))


def test_the_simulator_trickles() -> None:
    """The same from the simulator, by its fault `trickle`."""
    with Simulator(Config(api_key="key")) as simulator:
        simulator.script("trickle:0.05")
        client = AlloyClient(simulator.endpoint, "key", system_runtime(), timeout=0.3)
        with closing(client):
            with pytest.raises(Unavailable, match="did not finish its answer"):
                client.fetch(Query(10))
            assert client.fetch(Query(10)).received == 0


def test_a_peer_that_reads_nothing() -> None:
    """A request that is not taken ends with the deadline, too, not with a timeout per piece."""
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while not over.wait(0.05) and connection.recv(2000):
            pass

    with peer(serve) as port, closing(plain_client(port)) as client:
        begun = time.monotonic()
        # httpcore looks for an answer after a broken sending, which is over time as well.
        with pytest.raises(httpcore.TimeoutException):
            client.send(b"POST", client.prepared(()), 0.5, content=bytes(64_000_000))
        assert time.monotonic() - begun < 5
        over.set()


def test_a_kept_connection_has_a_deadline_for_each_request() -> None:
    """The second request on a connection has its own time, not what the first one left."""
    now = [0.0]
    with Simulator(Config(api_key="key")) as simulator:
        runtime = replace(system_runtime(), monotonic=lambda: now[0])
        client = AlloyClient(simulator.endpoint, "key", runtime, timeout=5)
        with closing(client):
            for _ in range(3):
                assert client.fetch(Query(10)).received == 0
                now[0] += 1000


def test_no_limit_is_no_limit() -> None:
    """Without a timeout (OTEL_EXPORTER_OTLP_TIMEOUT=0) an answer may take its time."""
    with peer(trickles(answer(b""), pause=0.005)) as port:
        assert send(port, TIMEOUT="0").kind is Kind.DELIVERED


ZEROS = bytes(3_000_000)


def deflated(data: bytes, window: int) -> bytes:
    squeeze = zlib.compressobj(wbits=window)
    return squeeze.compress(data) + squeeze.flush()


BOMBS = {
    "on the wire": (answer(bytes(1_000_001)), "with more than 1000000 bytes"),
    "without a length": (HEAD + b"\r\n" + bytes(1_000_001), "with more than 1000000 bytes"),
    "gzip": (
        answer(gzip.compress(ZEROS), "Content-Encoding: gzip"),
        "with more than 1000000 bytes, after gzip was undone",
    ),
    "deflate": (
        answer(deflated(ZEROS, 15), "Content-Encoding: deflate"),
        "with more than 1000000 bytes, after deflate was undone",
    ),
    "raw deflate": (
        answer(deflated(ZEROS, -15), "Content-Encoding: deflate"),
        "with more than 1000000 bytes, after deflate was undone",
    ),
    "gzip in gzip": (
        answer(gzip.compress(gzip.compress(ZEROS)), "Content-Encoding: gzip, gzip"),
        "with more than 1000000 bytes, after gzip was undone",
    ),
    "pieces of gzip": (
        answer(gzip.compress(b"") * 1000, "Content-Encoding: gzip"),
        "in more than 100 pieces of gzip",
    ),
    "a chain": (
        answer(b"x", *["Content-Encoding: gzip"] * 4),
        "in more than 3 encodings, one within the other",
    ),
    "headers": (answer(EMPTY, *["A: b"] * 300), "with more than 200 headers"),
    "header bytes": (
        answer(EMPTY, *[f"A: {'b' * 900}"] * 80),
        "with more than 65536 bytes of headers",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_every_limit_is_named(name: str) -> None:
    """What is above a limit is not kept, the words name the limit, a smaller page is tried; OTLP
    does not take it for a delivery."""
    data, words = BOMBS[name]
    with peer(says(data)) as port:
        with pytest.raises(TooLarge) as caught:
            ask(port)
        assert words in str(caught.value) and isinstance(caught.value, RequestRefused)


def test_otlp_answers_have_the_same_limits() -> None:
    """A 200 above a limit holds, with the limit in its words; a refusal counts by its status."""
    huge = answer(bytes(5_000_000), "Content-Type: application/x-protobuf")
    with peer(says(huge)) as port:
        outcome = send(port)
        assert outcome.kind is Kind.MISCONFIGURED
        assert "no OTLP answer (with more than 4194304 bytes)" in outcome.reason
    for headers in (["A: b"] * 300, ["Content-Encoding: gzip"], ["Content-Encoding: br"]):
        busy = answer(b"x" * 100_000, *headers, "Retry-After: 7").replace(b"200 OK", b"503 Busy")
        with peer(says(busy)) as port:
            outcome = send(port)
            assert outcome.kind is Kind.RETRY and outcome.retry_after == 7
            assert len(outcome.reason) < 400


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(EMPTY)),
        ("x-gzip", gzip.compress(EMPTY)),
        ("GZIP", gzip.compress(EMPTY[:5]) + gzip.compress(EMPTY[5:])),
        ("gzip", gzip.compress(EMPTY) + bytes(20)),
        ("deflate", deflated(EMPTY, 15)),
        ("deflate", deflated(EMPTY, -15)),
        ("deflate, gzip", gzip.compress(deflated(EMPTY, 15))),
        ("identity", EMPTY),
        ("", EMPTY),
    ],
    ids=range(9),
)
def test_what_is_understood(encoding: str, body: bytes) -> None:
    """The encodings that are asked for, also one within the other and in pieces."""
    with peer(says(answer(body, f"Content-Encoding: {encoding}"))) as port:
        assert ask(port) == 0


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b"no gzip"),
        ("gzip", gzip.compress(EMPTY)[:-9]),
        ("gzip, gzip", gzip.compress(EMPTY)),
        ("deflate", b"\xff"),
        ("br", EMPTY),
        ("zstd", EMPTY),
        ("\xe9", EMPTY),
    ],
    ids=range(7),
)
def test_what_does_not_decompress(encoding: str, body: bytes) -> None:
    """A body that is not what it is called is an answer to wait for, never half of a page."""
    with (
        peer(says(answer(body, f"Content-Encoding: {encoding}"))) as port,
        pytest.raises(Unavailable, match="does not decompress"),
    ):
        ask(port)


def test_cookies_are_not_kept() -> None:
    """A server that sets a new cookie with each answer fills no memory and gets none back."""
    seen: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            seen.append(data)
            connection.sendall(answer(b"", f"Set-Cookie: a{len(seen)}=b; Max-Age=1e400"))

    with peer(serve) as port, closing(plain_client(port)) as client:
        for _ in range(3):
            answer_ = client.send(b"GET", client.prepared(()), 5)
            assert (answer_.status, answer_.read(10)) == (200, b"")
            answer_.close()
    assert len(seen) == 3 and not any(b"ookie" in one for one in seen)


def test_addresses_share_the_time() -> None:
    """A name with an address where nobody listens is reached at the next one."""
    with Simulator(Config(api_key="key")) as simulator:
        endpoint = simulator.endpoint.replace("127.0.0.1", "localhost")  # ::1 may come first
        client = AlloyClient(endpoint, "key", system_runtime(), timeout=5)
        with closing(client):
            assert client.fetch(Query(10)).received == 0


def test_a_name_that_cannot_be_one() -> None:
    """A label that is too long for the resolver is a host that cannot be reached."""
    client = AlloyClient(f"http://{'a' * 64}.example", "key", system_runtime(), timeout=5)
    with closing(client), pytest.raises(Unavailable, match="cannot be reached"):
        client.fetch(Query(10))


CODINGS = st.lists(
    st.sampled_from(["gzip", "deflate", "identity", "br", "", "x-gzip", "é", "GZIP", "\x85"]),
    max_size=5,
).map(",".join)
PACKED = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=200).map(gzip.compress),
    st.binary(max_size=200).map(zlib.compress),
    st.binary(max_size=50).map(lambda b: gzip.compress(b) * 3),
    st.binary(max_size=50).map(lambda b: gzip.compress(gzip.compress(b))),
    st.integers(0, 100_000).map(lambda n: gzip.compress(bytes(n))),
)


@settings(deadline=None, max_examples=400)
@given(CODINGS, PACKED, st.integers(0, 250))
def test_reading_a_body_is_total(coding: str, body: bytes, cut: int) -> None:
    """Any bytes under any names of encodings are a body within the limit, TooMuch or Undecodable,
    and nothing else."""
    try:
        assert len(read_body([body[:cut] or body], coding, 1000)) <= 1000
    except TooMuch as error:
        assert len(error.begun) <= 1000 and len(str(error)) < 100
    except Undecodable as error:
        assert len(str(error)) < 200


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=2000)), max_size=250))
def test_checking_headers_is_total(headers: list[tuple[bytes, bytes]]) -> None:
    """Any headers are within the limits or TooMuch."""
    try:
        check_headers(headers)
    except TooMuch:
        assert len(headers) > MOST_HEADERS or sum(len(k) + len(v) for k, v in headers) > 65_536
    else:
        assert len(headers) <= MOST_HEADERS
