"""Every fault at every step: what the process does, what people read, what is kept.

The receiver's own loop runs against raw sockets, without any waiting: the event it waits on
returns at once, and asks for shutdown after `PATIENCE` waits. Each row of the tables is one fault.
"""

from __future__ import annotations

import gzip
import json
import logging
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import trustme

from otel_alloy.checkpoint.sqlite import SqliteStore
from otel_alloy.errors import (
    AccessRefused,
    AlloyReceiverError,
    RequestRefused,
    ShutdownRequested,
    Stop,
)
from otel_alloy.pipeline.events import Settled
from otel_alloy.pipeline.factory import Factory
from otel_alloy.pipeline.poller import Poller
from otel_alloy.runtime import Runtime, system_runtime
from otel_alloy.settings.models import Settings
from otel_alloy.testing.otlp_endpoint import Answer, OtlpEndpoint, Received, attributes
from otel_alloy.testing.simulator import LogStore, generate, iso
from otel_alloy.testing.simulator.faults import wire

from .world import World

KEY = "canary-key-7731"
PATIENCE = 12
RECORDS = 10


def impatient() -> Runtime:
    """Does not wait, and asks for the end after `PATIENCE` waits with a length."""
    waits = 0

    def wait(seconds: float) -> bool:
        nonlocal waits
        waits += bool(seconds)
        return waits >= PATIENCE

    return replace(system_runtime(), wait=wait, stopping=lambda: waits >= PATIENCE)


Fault = Callable[[socket.socket], None]


@dataclass
class RawApi:
    """`GET /logs` on a bare socket: the first connections get `faults`, later ones the truth."""

    port: int
    faults: list[Fault]
    log: LogStore
    requests: list[bytes] = field(default_factory=list)

    def serve(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            part = connection.recv(65536)
            if not part:
                return
            head += part
        self.requests.append(head)
        if self.faults:
            self.faults.pop(0)(connection)
            return
        target = head.split(b" ", 2)[1].decode()
        answer = self.log.query(dict(parse_qsl(urlsplit(target).query)))
        answer.headers["Connection"] = "close"
        connection.sendall(wire(answer).data)


@contextmanager
def raw_api(faults: list[Fault], tls: ssl.SSLContext | None = None) -> Iterator[RawApi]:
    """A RawApi with `RECORDS` executions."""
    now = datetime.now(UTC).timestamp()
    log = LogStore(clock=lambda: now)
    for record in generate(RECORDS, start=now - 300, end=now - 1):
        log.add(record)
    listener = socket.create_server(("127.0.0.1", 0))
    api = RawApi(listener.getsockname()[1], faults, log)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=one, args=(connection,), daemon=True).start()

    def one(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if tls is None:
                api.serve(connection)
                return
            with tls.wrap_socket(connection, server_side=True) as wrapped:
                api.serve(wrapped)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@dataclass
class Run:
    """What came of one cycle."""

    error: BaseException | None
    settled: list[Settled]
    rejected: int
    high: int | None

    @property
    def executions(self) -> int:
        return sum(s.counts.executions - s.counts.rejected for s in self.settled)


def one_cycle(folder: Path, alloy: str, otlp: str, **more: Any) -> Run:
    """One cycle of the real poller over real sockets."""
    protocol = more.pop("protocol", "http/protobuf")
    settings = Settings.model_validate(
        {
            "api_key": KEY,
            "endpoint": alloy,
            "timeout": 0.5,
            "requests_per_minute": 0,
            "enrich": "off",
            "environment": {
                "OTEL_EXPORTER_OTLP_ENDPOINT": otlp,
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "OTEL_EXPORTER_OTLP_HEADERS": f"x-key={KEY}",
                "OTEL_EXPORTER_OTLP_TIMEOUT": "500",
                **more.pop("environment", {}),
            },
            **more,
        }
    )
    events: list[Settled] = []
    error: BaseException | None = None
    with closing(SqliteStore(folder / "state.db")) as store:
        poller = Poller(
            Factory(settings, impatient()),
            settings.sources[0],
            store,
            lambda e: events.append(e) if isinstance(e, Settled) else None,
        )
        try:
            poller.cycle()
        except (ShutdownRequested, AlloyReceiverError) as told:
            error = told
        finally:
            poller.close()
        return Run(error, events, len(store.rejected()), store.sources()["default"].high)


def answer(status: str, *headers: str, body: bytes = b"") -> Fault:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close"]
    head = "\r\n".join([*lines, "", ""]).encode()
    return lambda connection: connection.sendall(head + body)


def reset(connection: socket.socket) -> None:
    """The connection is reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def reset_after_half(connection: socket.socket) -> None:
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"notifications":[')
    reset(connection)


def slow_loris(connection: socket.socket) -> None:
    """A byte every tenth of a second, for ever."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    gone = threading.Event()
    while not gone.wait(0.1):
        connection.sendall(b" ")


def silence(connection: socket.socket) -> None:
    """No answer at all."""
    connection.settimeout(5)
    connection.recv(1)


BOMB = gzip.compress(bytes(20_000_000))
JSON = "Content-Type: application/json"

# What the API does twice, what people read.
API_PASSING: dict[str, tuple[Fault, str]] = {
    "reset before an answer": (reset, "127.0.0.1 failed"),
    "closed before an answer": (lambda c: c.close(), "broke the connection"),
    "reset in the body": (reset_after_half, "127.0.0.1 failed"),
    "cut off": (
        lambda c: c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"),
        "cut its answer off",
    ),
    "slow loris": (slow_loris, "did not finish its answer in 0.5 s"),
    "silence": (silence, "did not answer within 0.5 s"),
    "no HTTP": (lambda c: c.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"), "broke the connection"),
    "500": (answer("500 Internal Server Error"), "answered 500"),
    "503": (answer("503 Busy", "Retry-After: 3"), "answered 503"),
    "429": (answer("429 Slow", "Retry-After: 1"), "slow down"),
    "HTML": (answer("200 OK", body=b"<!doctype html><p>Sign in"), "HTML page"),
    "empty": (answer("200 OK", JSON), "it is empty"),
    "cut JSON": (answer("200 OK", JSON, body=b'{"notifications":[{"_id'), "not JSON, or cut off"),
    "other shape": (answer("200 OK", JSON, body=b'{"result":[]}'), "no list `notifications`"),
    "nested": (answer("200 OK", JSON, body=b"[" * 200_000), "nested too deeply"),
    "broken gzip": (
        answer("200 OK", "Content-Encoding: gzip", body=b"no gzip"),
        "does not decompress",
    ),
    "400 without words": (answer("400 Bad Request", body=b"{}"), "refuses the request (400)"),
    "gzip bomb": (answer("200 OK", "Content-Encoding: gzip", body=BOMB), "more than 1000000 bytes"),
}


@pytest.mark.parametrize("name", API_PASSING)
def test_the_api_fails_and_recovers(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A bad page never takes the loop with it: it is asked for again, all records are delivered in
    the same cycle, the words name the fault, and no log line holds the key."""
    caplog.set_level(logging.DEBUG)
    fault, words = API_PASSING[name]
    with raw_api([fault] * 3) as api, OtlpEndpoint() as otlp:
        run = one_cycle(
            tmp_path,
            f"http://127.0.0.1:{api.port}",
            otlp.http_endpoint,
            max_response_bytes=1_000_000,
        )
    assert run.error is None
    assert run.executions == RECORDS and run.rejected == 0
    assert len(otlp.spans()) == len(otlp.log_records()) == RECORDS
    ours = " ".join(r.getMessage() for r in caplog.records if r.name == "otel_alloy")
    assert words in ours
    assert KEY not in caplog.text


# What the API does for ever, what is raised, what people read.
API_LASTING: dict[str, tuple[Fault, type[BaseException], str]] = {
    "401": (answer("401 Unauthorized"), AccessRefused, "check ALLOY_API_KEY"),
    "403": (answer("403 Forbidden"), AccessRefused, "check ALLOY_API_KEY"),
    "404": (answer("404 Not Found"), Stop, "correct ALLOY_ENDPOINT"),
    "302": (answer("302 Found", "Location: http://localhost:1/"), Stop, "redirects (302)"),
    "308": (answer("308 Moved", "Location: http://localhost:1/"), Stop, "redirects (308)"),
    "422": (answer("422 Unprocessable", body=b"{}"), RequestRefused, "OTEL_ALLOY_PAGE_SIZE"),
}


@pytest.mark.parametrize("name", API_LASTING)
def test_what_a_person_has_to_change_ends_the_source(name: str, tmp_path: Path) -> None:
    """Where waiting is pointless the source ends with the remedy, and the checkpoint stays."""
    fault, kind, words = API_LASTING[name]
    with raw_api([fault] * 50) as api:
        run = one_cycle(tmp_path, f"http://127.0.0.1:{api.port}", "http://127.0.0.1:9")
    assert type(run.error) is kind
    assert words in str(run.error) and KEY not in str(run.error)
    assert run.high is None and not run.settled


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "words"),
    [("http://no-such-host.invalid", "cannot be reached"), ("", "cannot be reached")],
    ids=["DNS", "refused"],
)
def test_an_api_that_cannot_be_reached_is_waited_for(
    host: str, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No name or no listener: said, and asked again until it is there; nothing moves meanwhile."""
    caplog.set_level(logging.DEBUG)
    run = one_cycle(tmp_path, host or f"http://127.0.0.1:{closed_port()}", "http://127.0.0.1:9")
    assert isinstance(run.error, ShutdownRequested)
    assert words in caplog.text and run.high is None


@pytest.fixture(scope="module")
def certificates() -> dict[str, ssl.SSLContext]:
    """Server sides: expired, of a strange authority, and for another name."""
    authority = trustme.CA()
    yesterday = datetime.now(UTC) - timedelta(days=1)
    made = {
        "expired": authority.issue_cert(
            "127.0.0.1", not_before=yesterday - timedelta(days=1), not_after=yesterday
        ),
        "strange": trustme.CA().issue_cert("127.0.0.1"),
        "other name": authority.issue_cert("example.com"),
    }
    contexts = {}
    for name, certificate in made.items():
        contexts[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(contexts[name])
    authority.cert_pem.write_to_path("/dev/null")
    contexts["authority"] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return contexts


@pytest.mark.parametrize("name", ["expired", "strange", "other name"])
def test_an_api_that_cannot_prove_who_it_is_gets_no_key(
    name: str,
    tmp_path: Path,
    certificates: dict[str, ssl.SSLContext],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """TLS is verified by default: no request, and so no key, is sent; the words say what to do."""
    with raw_api([], certificates[name]) as api:
        run = one_cycle(tmp_path, f"https://127.0.0.1:{api.port}", "http://127.0.0.1:9")
        assert api.requests == []
    assert isinstance(run.error, ShutdownRequested)
    assert "cannot prove who it is" in caplog.text


def test_https_to_a_port_without_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A TLS mismatch is told, and no key is sent in the clear."""
    with raw_api([]) as api:
        run = one_cycle(tmp_path, f"https://127.0.0.1:{api.port}", "http://127.0.0.1:9")
        assert not any(KEY.encode() in request for request in api.requests)
    assert isinstance(run.error, ShutdownRequested)
    assert "127.0.0.1" in caplog.text and KEY not in caplog.text


# The endpoint ------------------------------------------------------------------------------------

# What the OTLP endpoint answers to the first requests, and what people read.
FAR_PASSING: dict[str, tuple[Answer, str]] = {
    **{
        f"HTTP {status}": (Answer(status=status, code=code), f"HTTP {status}")
        for status, code in (
            (401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED"), (404, "UNIMPLEMENTED"),
            (429, "UNAVAILABLE"), (500, "UNKNOWN"), (502, "ABORTED"), (503, "DATA_LOSS"),
            (504, "DEADLINE_EXCEEDED"), (301, "NOT_FOUND"), (302, "CANCELLED"),
            (418, "INTERNAL"), (507, "OUT_OF_RANGE"),
        )
    },
    "HTML": (
        Answer(headers={"Content-Type": "text/html"}, body=b"<html>", code="UNKNOWN"),
        "no OTLP answer",
    ),
    "noise": (Answer(body=b"\xff\xff\xff", code="UNKNOWN"), "no OTLP answer"),
    "oversize": (Answer(body=bytes(5_000_000), code="UNKNOWN"), "no OTLP answer"),
    "broken": (Answer(connection="drop"), "cannot deliver"),
    "bomb": (
        Answer(headers={"Content-Encoding": "gzip"}, body=BOMB, code="UNKNOWN"),
        "no OTLP answer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("name", FAR_PASSING)
def test_the_endpoint_fails_and_recovers(
    name: str, protocol: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the endpoint answers twice to each signal, all is delivered once it recovers,
    nothing is set aside, and no log line holds a header's secret."""
    caplog.set_level(logging.DEBUG)
    fault, words = FAR_PASSING[name]
    left = {"traces": 2, "logs": 2}
    taken = {"traces": 0, "logs": 0}

    def receive(request: Received) -> Answer | None:
        if left[request.signal]:
            left[request.signal] -= 1
            return fault
        taken[request.signal] += sum(1 for _ in request.items())
        return None

    with raw_api([]) as api, OtlpEndpoint(receive, grpc=protocol == "grpc") as otlp:
        end = otlp.grpc_endpoint if protocol == "grpc" else otlp.http_endpoint
        run = one_cycle(tmp_path, f"http://127.0.0.1:{api.port}", end, protocol=protocol)
    assert run.error is None, caplog.text
    assert taken == {"traces": RECORDS, "logs": RECORDS}
    assert run.executions == RECORDS and run.rejected == 0
    assert (words if protocol != "grpc" else "cannot deliver") in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize("end", ["http://no-such-host.invalid", "refused"])
def test_an_endpoint_that_cannot_be_reached_is_waited_for(
    end: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is settled and nothing set aside while the endpoint is away; afterwards all goes."""
    away = end if end != "refused" else f"http://127.0.0.1:{closed_port()}"
    with raw_api([]) as api:
        alloy = f"http://127.0.0.1:{api.port}"
        run = one_cycle(tmp_path, alloy, away)
        assert isinstance(run.error, ShutdownRequested)
        assert run.high is None and run.rejected == 0
        assert "cannot deliver" in caplog.text
        with OtlpEndpoint() as otlp:
            assert one_cycle(tmp_path, alloy, otlp.http_endpoint).executions == RECORDS
            assert len(otlp.spans()) == RECORDS


def test_a_partial_success_is_delivered_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As the specification says it is not sent again; the count and the words are told."""
    with (
        raw_api([]) as api,
        OtlpEndpoint(lambda _: Answer(rejected=3, message="too old")) as otlp,
    ):
        run = one_cycle(tmp_path, f"http://127.0.0.1:{api.port}", otlp.http_endpoint)
    assert run.error is None and otlp.request_count == 2
    assert "rejected 3 of them" in caplog.text and "too old" in caplog.text


# Records -----------------------------------------------------------------------------------------

DEEP = b"[" * 1000 + b"]" * 1000

# An odd value in one record of ten, where it stands, and whether the record still arrives.
ODD: dict[str, tuple[str, bytes, bool]] = {
    "NaN": ("workflowVersion", b"NaN", True),
    "infinity": ("workflowVersion", b"1e999", True),
    "5,000 digits": ("workflowVersion", b"9" * 5000, True),
    "beyond 64 bits": ("workflowVersion", b"99999999999999999999999", True),
    "a thousand levels as a name": ("forgeWorkflow", DEEP, True),
    "a thousand levels in a new field": ("new", DEEP, True),
    "startedAt in year 1": ("startedAt", b'"0001-01-01T00:00:00.000Z"', True),
    "completedAt in year 9999": ("completedAt", b'"9999-12-31T23:59:59.999Z"', True),
    "a negative duration": ("startedAt", b'"2030-01-01T00:00:00.000Z"', True),
    "startedAt is an object": ("startedAt", b'{"$date": 5}', True),
    "a name of 1 MB": ("forgeWorkflow", b'{"name": "%b"}' % (b"x" * 1_000_000), True),
    "invalid UTF-8": ("forgeWorkflow", b'{"name": "\xff\xfe\x80"}', True),
    "a lone surrogate": ("forgeWorkflow", b'{"name": "\\ud83d"}', True),
    "a NUL": ("userId", b'"a\\u0000b"', True),
    "duplicate keys": ("userId", b'"a", "userId": "b", "userId": null', True),
    "message is missing": ("message", b"null", False),
    "message is a list": ("message", b"[1]", False),
    "data is text": ("data", b'"5f"', True),
    "data is a list": ("data", b"[]", True),
    "user is a number": ("user", b"7", True),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_record_never_takes_its_page_with_it(name: str, tmp_path: Path) -> None:
    """The nine others are delivered in any case; the odd one is too, with what can be read of it,
    or is set aside with its JSON and the reason. The next cycle does not bring it again."""
    field_name, value, arrives = ODD[name]
    world = World(tmp_path)
    for number in range(RECORDS):
        record: dict[str, Any] = {
            "_id": world.identity(),
            "message": "executionFinished",
            "data": {"executionId": f"e{number}", "executionUuid": f"u{number}"},
            "startedAt": iso(world.now - 5000),
            "completedAt": iso(world.now),
            "createdAt": iso(world.now),
        }
        if number == 4:
            record[field_name] = "@odd@"
        world.log.add(record)
        world.clock.wait(1)
    world.spoil[b'"@odd@"'] = value
    world.cycle()
    world.cycle()
    world.check()
    logs = [key for key in world.taken if key[0] == "log"]
    assert world._store is not None
    aside = world._store.rejected()
    assert len(logs) == RECORDS - (not arrives)
    assert len(aside) == (not arrives)
    assert all(count == 1 for count in world.taken.values())
    if aside:
        assert aside[0].reason and "e4" in aside[0].original
    world.close()


@pytest.mark.parametrize("entry", [b"null", b"5", b'"text"', b"[]", DEEP, b"{}"])
def test_an_entry_that_is_no_record_is_set_aside_alone(entry: bytes, tmp_path: Path) -> None:
    """It is counted and kept with the reason, once; the others of its page are delivered."""
    world = World(tmp_path)
    for _ in range(RECORDS):
        world.add(world.execution(), "executionFinished")
    world.log.add({"_id": "@odd@", "createdAt": iso(world.now)})
    whole = json.dumps({"_id": "@odd@", "createdAt": iso(world.now)}, separators=(",", ":"))
    world.spoil[whole.encode()] = entry
    world.clock.wait(1)
    world.cycle()
    world.cycle()
    world.check()
    assert world._store is not None
    assert len(world._store.rejected()) == 1
    assert len([key for key in world.taken if key[0] == "log"]) == RECORDS
    world.close()


# Poison ------------------------------------------------------------------------------------------


def test_one_poisoned_record_in_a_thousand(tmp_path: Path) -> None:
    """Each signal's requests stay within 2 * log2(n) + 1, 999 arrive once, one is set aside, and
    `retry_rejected` delivers it once the endpoint accepts it."""
    from otel_alloy.pipeline.rejected import retry_rejected

    poisoned: set[str] = set()
    requests = {"traces": 0, "logs": 0}
    taken: dict[str, list[str]] = {"traces": [], "logs": []}

    def receive(request: Received) -> Answer | None:
        requests[request.signal] += 1
        uuids = [
            attributes(item.record.attributes)["runalloy.execution.uuid"]
            for item in request.items()
        ]
        if poisoned & set(uuids):
            return Answer(status=400, message="bad timestamp")
        taken[request.signal] += uuids
        return None

    with raw_api([]) as api, OtlpEndpoint(receive, store=False) as otlp:
        now = datetime.now(UTC).timestamp()
        for record in generate(1000 - RECORDS, start=now - 3000, end=now - 301):
            api.log.add(record)
        bad = [r for r in api.log.records() if r["message"] == "executionFinished"][333]
        poisoned.add(bad["data"]["executionUuid"])
        alloy = f"http://127.0.0.1:{api.port}"
        run = one_cycle(
            tmp_path, alloy, otlp.http_endpoint, page_size=2500, batch_size=1000, timeout=10,
            environment={"OTEL_EXPORTER_OTLP_TIMEOUT": "10000"},
        )  # fmt: skip
        assert run.error is None and run.rejected == 1
        for signal in ("traces", "logs"):
            assert requests[signal] <= 2 * 10 + 1
            assert len(taken[signal]) == len(set(taken[signal])) == 999
        poisoned.clear()
        settings = Settings.model_validate(
            {"api_key": KEY, "environment": {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp.http_endpoint}}
        )
        with closing(SqliteStore(tmp_path / "state.db")) as store:
            (kept,) = store.rejected()
            assert json.loads(kept.original)["_id"] == bad["_id"] and "bad timestamp" in kept.reason
            result = retry_rejected(Factory(settings, system_runtime()), store, ())
            assert len(result.delivered) == 1 and store.rejected() == []
    assert len(set(taken["traces"])) == len(set(taken["logs"])) == 1000
