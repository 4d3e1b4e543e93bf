"""`AlloyClient` over a real socket: every status and fault has its error class, told in words that
name the host and the remedy and hold neither the key nor what the API answered."""

import gzip
import itertools
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_alloy.alloy.client import AlloyClient
from otel_alloy.alloy.query import Query
from otel_alloy.errors import (
    AccessRefused,
    AlloyReceiverError,
    ConfigurationError,
    RequestRefused,
    Retry,
    Stop,
    Throttled,
    Unavailable,
)
from otel_alloy.runtime import system_runtime
from otel_alloy.testing.simulator import Config, Simulator

CANARY = "canary-key-do-not-show-31415926"
NOW = 1_745_948_798.0
ASK = Query(10)


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    config = Config(api_key=CANARY)
    with Simulator(config, clock=lambda: NOW) as running:
        yield running


def client_of(endpoint: str, key: str = CANARY, **options: Any) -> AlloyClient:
    return AlloyClient(endpoint, key, options.pop("runtime", system_runtime()), **options)


Handle = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def server(handle: Handle) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that answers every GET with `handle`; its base URL and the headers it received."""
    received: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.append({"path": self.path} | {k.lower(): v for k, v in self.headers.items()})
            handle(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}", received
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


def answer(status: int, body: bytes, headers: dict[str, str] | None = None) -> Handle:
    def handle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return handle


FAULTS: list[tuple[str, type[AlloyReceiverError], str]] = [
    ("400", RequestRefused, "OTEL_ALLOY_PAGE_SIZE"),
    ("401", AccessRefused, "ALLOY_API_KEY"),
    ("403", AccessRefused, "ALLOY_API_KEY"),
    ("404", Stop, "ALLOY_ENDPOINT"),
    ("405", Stop, "ALLOY_ENDPOINT"),
    ("410", Stop, "ALLOY_ENDPOINT"),
    ("408", Unavailable, "408"),
    ("413", RequestRefused, "OTEL_ALLOY_PAGE_SIZE"),
    ("414", RequestRefused, "OTEL_ALLOY_PAGE_SIZE"),
    ("422", RequestRefused, "OTEL_ALLOY_PAGE_SIZE"),
    ("425", Unavailable, "425"),
    ("429", Throttled, "429"),
    ("500", Unavailable, "500"),
    ("502", Unavailable, "502"),
    ("503:7", Unavailable, "503"),
    ("504", Unavailable, "504"),
    ("599", Unavailable, "599"),
    ("drop", Unavailable, "broke the connection"),
    ("truncate", Unavailable, "cut its answer off"),
    ("chunk", Unavailable, "cut its answer off"),
    ("html", Unavailable, "HTML"),
    ("empty", Unavailable, "empty"),
    ("shape", Unavailable, "no list `notifications`"),
    ("shape:[]", Unavailable, "no list `notifications`"),
    ("shape:null", Unavailable, "no list `notifications`"),
    ('shape:{"notifications":{}}', Unavailable, "no list `notifications`"),
    ('shape:{"notifications":[', Unavailable, "not JSON, or cut off"),
    (f'shape:{{"error":"{CANARY} secret body"}}', Unavailable, "no list `notifications`"),
    ("redirect", Stop, "ALLOY_ENDPOINT"),
    ("redirect:https://other.example/logs", Stop, "ALLOY_ENDPOINT"),
]


@pytest.mark.parametrize(("fault", "kind", "word"), FAULTS, ids=[f[:30] for f, _, _ in FAULTS])
def test_every_fault_has_its_error(
    simulator: Simulator, fault: str, kind: type[AlloyReceiverError], word: str
) -> None:
    """Each status and each spoiled answer raises exactly its class; the message names the host and
    the remedy or the fact, and holds neither the key nor the body. One request, never a second."""
    simulator.script(fault)
    with closing(client_of(simulator.endpoint)) as client:
        with pytest.raises(AlloyReceiverError) as caught:
            client.fetch(ASK)
        assert type(caught.value) is kind
        told = str(caught.value) + repr(caught.value)
        shown = "".join(traceback.format_exception(caught.value))
        assert "127.0.0.1" in told and word in told
        assert not any(secret in shown for secret in (CANARY, "secret body", "other.example"))
        assert len(simulator.requests) == 1
        assert client.fetch(ASK).records == []  # the connection pool has survived


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("1.5", 1.5),
        ("-3", None),
        ("soon", None),
        ("1e99", None),
        ("nan", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after(simulator: Simulator, header: str, seconds: float | None) -> None:
    """`Retry-After` in seconds or as a date is handed on; nonsense counts as absent."""
    simulator.script(f"429:{header}", f"503:{header}")
    with closing(client_of(simulator.endpoint)) as client:
        for _ in range(2):
            with pytest.raises(Retry) as caught:
                client.fetch(ASK)
            assert caught.value.after == seconds


def test_redirects_are_never_followed() -> None:
    """The key goes to the configured endpoint alone, whatever a redirect says."""
    with server(answer(200, b'{"notifications":[]}')) as (elsewhere, visits):
        for status in (301, 302, 303, 307, 308):
            moved = answer(status, b"", {"Location": elsewhere + "/logs"})
            with (
                server(moved) as (endpoint, _),
                closing(client_of(endpoint)) as client,
                pytest.raises(Stop, match="redirects"),
            ):
                client.fetch(ASK)
        assert visits == []


@pytest.mark.parametrize("key", [CANARY, f"bearer {CANARY}", f" Bearer  {CANARY}\n"])
@pytest.mark.parametrize("version", ["2025-09", ""])
def test_what_is_sent(key: str, version: str) -> None:
    """The key with its prefix once, however it was pasted; the version header, or none; the
    vendor's parameters under `/logs`, a path of the endpoint kept."""
    with server(answer(200, b'{"notifications":[]}')) as (endpoint, received):
        with closing(client_of(endpoint + "/eu/", key, api_version=version)) as client:
            client.fetch(Query(30, 60, after=1_745_948_650_431, workflow_id="w", user_id="u"))
        (request,) = received
    assert request["authorization"] == f"bearer {CANARY}"
    assert request.get("x-api-version", "") == version
    assert request["path"] == (
        "/eu/logs?skip=60&limit=30&sortBy=createdAt&sortOrder=asc&filters=%5B%7B%22columns%22%3A"
        "%7B%22value%22%3A%22createdAt%22%7D%2C%22operators%22%3A%7B%22value%22%3A%22greaterthan"
        "%22%7D%2C%22userinput%22%3A%7B%22value%22%3A%222025-04-29T17%3A44%3A10.431Z%22%7D%2C%22"
        "condition%22%3A%7B%22value%22%3A%22and%22%7D%7D%5D&workflowId=w&associatedUserId=u"
    )


def test_the_simulator_takes_every_query(simulator: Simulator) -> None:
    """Windows, ids, order and page size are what the documented API accepts."""
    with closing(client_of(simulator.endpoint)) as client:
        for query in (
            ASK,
            Query(1, 5, ascending=False),
            Query(7, after=1, before=1_745_948_650_432, execution_id="e", workflow_id="w"),
        ):
            assert client.fetch(query).received == 0
    assert [r.status for r in simulator.requests] == [200] * 3
    assert [r.params["sortOrder"] for r in simulator.requests] == ["asc", "desc", "asc"]


def test_a_page_brings_the_servers_clocks(simulator: Simulator) -> None:
    """`lastFetched` and the `Date` header (rounded up, as it drops the milliseconds)."""
    with closing(client_of(simulator.endpoint)) as client:
        page = client.fetch(ASK)
    assert page.last_fetched == "2025-04-29T17:46:38.000Z"
    assert page.server_date == int(NOW * 1000) + 999


@pytest.mark.parametrize("date", ["", "yesterday", "Tue, 99 Foo 2025 17:46:38 GMT"])
def test_a_broken_date_header_is_no_error(date: str) -> None:
    """Proxies send odd dates; the page is used without."""
    handle = answer(200, b'{"notifications":[]}')

    def odd(request: BaseHTTPRequestHandler) -> None:
        request.date_time_string = lambda timestamp=None: date  # type: ignore[method-assign]
        handle(request)

    with server(odd) as (endpoint, _), closing(client_of(endpoint)) as client:
        assert client.fetch(ASK).server_date is None


def test_a_slow_answer_is_given_up(simulator: Simulator) -> None:
    """No answer within the timeout is a retry, told with the timeout."""
    simulator.script("slow:30")
    words = r"127\.0\.0\.1 did not answer within 0\.05 s"
    with (
        closing(client_of(simulator.endpoint, timeout=0.05)) as client,
        pytest.raises(Unavailable, match=words),
    ):
        client.fetch(ASK)


def test_a_trickle_is_given_up() -> None:
    """The timeout is for the whole answer: a piece every 20 seconds does not hold the receiver."""
    slow = replace(system_runtime(), monotonic=itertools.count(0, 20).__next__)
    with (
        server(answer(200, b" " * 1_000_000)) as (endpoint, _),
        closing(client_of(endpoint, timeout=30.0, runtime=slow)) as client,
        pytest.raises(Unavailable, match=r"did not finish its answer in 30 s"),
    ):
        client.fetch(ASK)


def test_an_answer_without_end_is_refused() -> None:
    """A body above the bound is not read into memory, also when it hides behind compression; the
    remedy is a smaller page, which `RetryingFetch` tries by itself."""
    bomb = gzip.compress(b" " * 3_000_000)
    for handle in (
        answer(200, b" " * 300_000),
        answer(200, bomb, {"Content-Encoding": "gzip"}),
    ):
        with (
            server(handle) as (endpoint, _),
            closing(client_of(endpoint, max_response_bytes=100_000)) as client,
            pytest.raises(RequestRefused, match="OTEL_ALLOY_PAGE_SIZE"),
        ):
            client.fetch(ASK)


def test_compressed_answers() -> None:
    """gzip is understood; what claims to be gzip and is not is a retry."""
    coding = {"Content-Encoding": "gzip"}
    body = gzip.compress(b'{"notifications":[{"_id":"a","message":"executionError"}]}')
    with (
        server(answer(200, body, coding)) as (endpoint, _),
        closing(client_of(endpoint)) as client,
    ):
        assert client.fetch(ASK).received == 1
    with (
        server(answer(200, b"not gzip", coding)) as (endpoint, _),
        closing(client_of(endpoint)) as client,
        pytest.raises(Unavailable, match="decompress"),
    ):
        client.fetch(ASK)


def test_nobody_listens() -> None:
    """A closed port is a retry that names the host."""
    with server(answer(200, b"")) as (endpoint, _):
        pass
    with (
        closing(client_of(endpoint)) as client,
        pytest.raises(Unavailable, match=r"127\.0\.0\.1 cannot be reached"),
    ):
        client.fetch(ASK)


@pytest.mark.parametrize(
    "endpoint", ["ftp://127.0.0.1", "production.runalloy.com", "https://xn--\u00e9.example"]
)
def test_no_usable_endpoint(endpoint: str) -> None:
    """An endpoint that cannot be asked is a mistake at once, told with the setting."""
    with pytest.raises(ConfigurationError, match="ALLOY_ENDPOINT"):
        client_of(endpoint)


def test_one_connection_carries_all_requests() -> None:
    """Many requests need one connection; one that the server ends between two requests is replaced
    without an error."""
    body = b'{"notifications":[]}'
    page = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    served: list[int] = []
    ended = threading.Event()

    def serve() -> None:
        for _ in range(2):
            connection, _ = listening.accept()
            served.append(0)
            with connection:
                while served[-1] < 10 and connection.recv(65536):
                    served[-1] += 1
                    connection.sendall(page)
            ended.set()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with closing(client_of(endpoint)) as client:
            for count in range(20):
                assert count != 10 or ended.wait(10)
                assert client.fetch(ASK).received == 0
        thread.join(10)
    assert served == [10, 10]


def test_httpx_is_not_loaded() -> None:
    """It takes as long to load as much of the start; only an unusual URL needs it."""
    made = """
import sys
from otel_alloy.alloy.client import AlloyClient
from otel_alloy.otlp.http import HttpSender
from otel_alloy.runtime import system_runtime
AlloyClient(sys.argv[1], "key", system_runtime())
print("httpx" in sys.modules)
"""
    for endpoint, loaded in {
        "https://production.runalloy.com": "False",
        "http://[::1]:8080/eu%20west": "False",
        "https://königsberg.example": "True",
    }.items():
        done = subprocess.run(
            [sys.executable, "-c", made, endpoint], capture_output=True, text=True
        )
        assert done.stdout.strip() == loaded, done.stderr


def test_requests_from_several_threads() -> None:
    """A client that two threads use makes a connection for each, and closing it leaves none, also
    where a request still runs."""
    both = threading.Barrier(2)

    def handle(request: BaseHTTPRequestHandler) -> None:
        both.wait(10)
        answer(200, b'{"notifications":[]}')(request)

    got: list[int] = []
    with server(handle) as (endpoint, received):
        client = client_of(endpoint)
        thread = threading.Thread(target=lambda: got.append(client.fetch(ASK).received))
        thread.start()
        got.append(client.fetch(ASK).received)
        thread.join()
        client.close()
    assert got == [0, 0] and len(received) == 2


KEYS = st.text(max_size=20)


@given(
    query=st.builds(
        Query,
        st.integers(0, 10_000),
        st.integers(0, 10**9),
        ascending=st.booleans(),
        after=st.none() | st.integers(-(2**60), 2**60),
        before=st.none() | st.integers(0, 2**45),
        execution_id=st.none() | KEYS,
        workflow_id=st.none() | KEYS,
        user_id=st.none() | KEYS,
        also=st.lists(
            st.tuples(st.sampled_from(["_id", "message"]), st.just("equals"), KEYS), max_size=2
        ).map(tuple),
    )
)
def test_the_prepared_query_is_the_encoded_one(query: Query) -> None:
    """What is joined from parts that were encoded beforehand is what encoding the whole makes."""
    whole = urlencode(query.parameters(), quote_via=quote, safe="")
    assert query.encoded() == b"?" + whole.encode("ascii")
