"""Foreign text (headers, bodies, files, variables, the state file) can delay or be refused. It
cannot stop the process, cost unbounded memory or time, or lose data silently."""

from __future__ import annotations

import json
import logging
import math
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, suppress
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from otel_alloy.alloy.clock import ServerClock
from otel_alloy.alloy.models import Page, Unreadable, read_notification, read_page
from otel_alloy.alloy.query import Query
from otel_alloy.alloy.timestamps import object_id_ns, to_ms, to_ns, to_text
from otel_alloy.checkpoint.sqlite import SqliteStore
from otel_alloy.checkpoint.store import Open, Progress, RejectedRecord, Seen, Settlement
from otel_alloy.durations import http_date, parse_duration, retry_after
from otel_alloy.errors import CheckpointError
from otel_alloy.otlp.answers import grpc_rule, http_rule, refused_of_many
from otel_alloy.otlp.messages import MOST_WORDS, delivered, delivered_as_json, status_of
from otel_alloy.otlp.outcome import Kind
from otel_alloy.propagation.propagator import AlloyPropagator, call_attributes
from otel_alloy.settings.otlp import Signal
from otel_alloy.testing.otlp_endpoint import Answer, OtlpEndpoint, Received
from otel_alloy.testing.simulator import Config, Simulator, iso

from .scale import scaled
from .test_faults import JSON, RECORDS, Fault, answer, one_cycle, raw_api
from .world import World

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "foreign.py"
BUDGET = settings(
    max_examples=scaled(300, 20_000), deadline=None, suppress_health_check=list(HealthCheck)
)

SIGNALS: tuple[Signal, ...] = ("traces", "logs")
ODD_TEXTS = [
    *("", " ", "1e400", "-1", "nan", "inf", "0x10", "1_000", "٣٠", "¹", "9" * 400, "9" * 5000),
    *("1" * 30, "0." + "1" * 400, "-0", "+5", "5 ", "\t5\n", "1e5", "1,5", "5, 6", "99999"),
    *("Thu, 01 Jan 1970 00:00:00 GMT", "Mon, 01 Jan 0001 00:00:00 GMT", "Sat, 29 Feb 2025"),
    *("Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 -2359", "1 Jan 99999 0:0:0"),
    *("Mon, 01 Jan 0001 00:00:00 +2359", "Tue, 29 Apr 2025 25:61:61 GMT", "Tue, 29 Apr 2025"),
    *("2025-13-45T00:00:00Z", "99999-01-01T00:00:00Z", "0000-00-00", "2025-04-29T24:00:00Z"),
    *("2025-04-29T17:44:10.336+99:99", "1970-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59"),
    *("\x00", "\ud800", "\u2028", "٢٠٢٥-٠٤-٢٩T17:44:10.336Z", "2025-W99-9", "x" * 100_000),
]
TEXTS = st.text(max_size=40) | st.sampled_from(ODD_TEXTS)
NUMBERS = (
    st.integers() | st.floats() | st.sampled_from([10**30, -(10**400), 2**63, -(2**63), 1e308])
)


# Every parser is total ---------------------------------------------------------------------------


@BUDGET
@given(TEXTS | st.none(), TEXTS | st.none(), st.floats(0, 4e9))
def test_headers_of_time_are_total(value: str | None, date: str | None, now: float) -> None:
    """`Retry-After` and `Date` are seconds in their range, or nothing; nothing raises."""
    after = retry_after(value, date=date, now=now)
    assert after is None or 0 <= after <= 1e9
    moment = http_date(date)
    assert moment is None or math.isfinite(moment)


@BUDGET
@given(TEXTS | NUMBERS | st.none() | st.booleans() | st.lists(st.integers()))
def test_timestamps_are_total(value: object) -> None:
    """Any value is a time that backends can hold, or none; any text an id or none."""
    ns = to_ns(value)
    assert ns is None or 0 < ns < 2**63
    ms = to_ms(value)
    assert ms is None or to_ms(to_text(ms)) in (ms, None)
    if isinstance(value, str):
        assert object_id_ns(value) is None or len(value) == 24


@BUDGET
@given(st.integers() | st.sampled_from([10**30, -(10**30), 2**63, 0]))
def test_writing_a_time_is_total(ms: int) -> None:
    """Any number of milliseconds is a text of Alloy's form."""
    assert len(to_text(ms)) == 24


@BUDGET
@given(TEXTS | NUMBERS | st.none() | st.booleans())
def test_durations_are_total(value: object) -> None:
    """Any value is a finite duration or a ValueError."""
    try:
        assert abs(parse_duration(value)) <= 2e12
    except ValueError as error:
        assert len(str(error)) < 100


@BUDGET
@given(TEXTS | NUMBERS, st.none() | st.integers(-(10**18), 10**18))
def test_the_clock_is_total(fetched: object, date: int | None) -> None:
    """Whatever an answer says of the time, the time by it can be asked for and written."""
    clock = ServerClock()
    page = Page([], last_fetched=fetched, server_date=date)
    clock.learn(page, 1_745_948_650_000)
    query = Query(10, after=clock.earliest(1_745_948_650_000), before=clock.now(2 * 10**12))
    assert query.parameters()


@BUDGET
@given(st.text(max_size=200) | st.sampled_from(ODD_TEXTS))
def test_notifications_are_total(text: str) -> None:
    """Any text of the state file or of a rejected record is a notification or Unreadable."""
    with suppress(Unreadable):
        read_notification(text)


RETRIES = st.builds(
    lambda seconds, nanos: RetryInfo(
        retry_delay={"seconds": seconds, "nanos": nanos}
    ).SerializeToString(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**31), 2**31 - 1),
)
STATUSES = st.builds(
    lambda message, kinds, values: Status(
        message=message,
        details=[AnyMessage(type_url=k, value=v) for k, v in zip(kinds, values)],  # noqa: B905
    ).SerializeToString(),
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.lists(
        st.sampled_from(["type.googleapis.com/google.rpc.RetryInfo", "", "/", "x", "a/b/c"]),
        max_size=4,
    ),
    st.lists(RETRIES | st.binary(max_size=20), max_size=4),
)
RESPONSES = st.builds(
    lambda kind, rejected, words: (
        ExportTraceServiceResponse(
            partial_success=ExportTracePartialSuccess(rejected_spans=rejected, error_message=words)
        )
        if kind
        else ExportLogsServiceResponse(
            partial_success=ExportLogsPartialSuccess(
                rejected_log_records=rejected, error_message=words
            )
        )
    ).SerializeToString(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(st.characters(codec="utf-8"), max_size=20),
)
JSON_ANSWERS = st.one_of(
    st.recursive(
        st.none() | st.booleans() | NUMBERS | TEXTS,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        *("partialSuccess", "partial_success", "rejectedSpans", "errorMessage"),
                        *("rejectedLogRecords", "status", "code", "success", "error", "x"),
                    ]
                ),
                inner,
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [
            b"[" * 100_000,
            b'{"partialSuccess":{"rejectedSpans":' + b"9" * 6000 + b"}}",
            b'{"partialSuccess":{"rejectedSpans":1e400}}',
            b'{"partialSuccess":{"rejectedSpans":"' + b"9" * 4000 + b'"}}',
            b"\xef\xbb\xbf{}",
            b"[" + b"{}," * 700_000 + b"{}]",
        ]
    ),
)


@BUDGET
@given(st.binary(max_size=60) | STATUSES | RESPONSES | JSON_ANSWERS)
def test_answers_of_endpoints_are_total(body: bytes) -> None:
    """Any bytes are an acknowledgement with a count that can be counted and words that can be
    shown, or a ValueError; any status has words and a delay that can be waited for."""
    for read in (delivered, delivered_as_json):
        for signal in SIGNALS:
            try:
                outcome = read(signal, body)
            except ValueError:
                continue
            assert outcome.kind is Kind.DELIVERED and 0 <= outcome.rejected <= 2**53
            assert len(outcome.reason) <= MOST_WORDS + 10
    words, delay = status_of(body)
    assert words.encode() is not None and (delay is None or 0 <= delay <= 1e9)


@BUDGET
@given(
    st.integers(100, 999),
    st.text(max_size=60)
    | st.sampled_from(
        [
            f"total ignored: {'9' * 5000} out of {'9' * 5000}",
            f"{'9' * 5000} errors like: x",
            "٣ errors like: x",
            "total ignored: ³ out of 5",
            "received http2 header with status: ٤٠٤",
            "errors like: " * 5000,
            "message size" + " " * 65_000 + "exceeds",
        ]
    ),
    st.none() | st.floats(),
)
def test_what_an_answer_comes_to_is_total(code: int, words: str, asked: float | None) -> None:
    """Any status with any words has a rule, and a number of refused records that can be counted."""
    assert http_rule(code, words).kind in Kind
    for name in ("RESOURCE_EXHAUSTED", "UNKNOWN", "INVALID_ARGUMENT", "another"):
        assert grpc_rule(name, words, asked).kind in Kind
    assert 0 <= refused_of_many(words) < 10**15


NAMES = st.sampled_from(
    [
        *("X-Alloy-ExecutionUuid", "X-Alloy-WorkflowId", "X-Alloy-UserId", "X-Alloy-BlockName"),
        *("x-alloy-executionuuid", "x-alloy-blocktype", "traceparent"),
    ]
)


@BUDGET
@given(st.dictionaries(NAMES, TEXTS | st.lists(TEXTS, max_size=3) | st.binary() | st.none()))
def test_the_propagator_is_total(carrier: dict[str, Any]) -> None:
    """Any headers leave a context; what is taken from them can be sent on by any exporter."""
    context = AlloyPropagator(sampled=True).extract(carrier)
    trace.get_current_span(context).get_span_context()
    for value in call_attributes(context).values():
        assert 0 < len(value.encode()) <= 4 * 256


@BUDGET
@given(
    st.sampled_from(["GET", "HEAD", "POST", ""]),
    st.text(max_size=40)
    | st.dictionaries(
        st.sampled_from(["skip", "limit", "filters", "sortBy", "sortOrder", "workflowId", "x"]),
        TEXTS | st.sampled_from(["[" * 50_000, '[{"columns":{"value":[]}}]', "[5]", "[null]"]),
    ).map(lambda asked: "/logs?" + "&".join(f"{k}={v}" for k, v in asked.items())),
    st.dictionaries(st.sampled_from(["Authorization", "Content-Length"]), TEXTS),
)
def test_the_simulator_is_total(method: str, target: str, headers: dict[str, str]) -> None:
    """Any request has an answer."""
    message = Message()
    for name, value in headers.items():
        with suppress(ValueError, UnicodeError):
            message[name] = value
    sent, _, _ = Simulator(Config()).respond(method, target, message)
    assert 200 <= sent.status < 600


# The state file ----------------------------------------------------------------------------------


COLUMNS = [
    *(("source", c) for c in ("fingerprint", "begin_at", "high", "window_start", "position")),
    *(("seen", c) for c in ("message", "created", "ended")),
    *(("open_execution", c) for c in ("original", "created", "next_check", "started_at")),
    *(("ended_execution", "until"), ("rejected_detail", "resource")),
    *(("rejected", c) for c in ("signals", "reason", "role", "original", "started_at", "at")),
]


@BUDGET
@given(
    st.sampled_from(COLUMNS),
    st.text(st.characters(codec="utf-8"), max_size=20)
    | st.binary(max_size=20)
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.sampled_from(["{", "[]", "null", '{"a":[1]}', "[" * 10_000, "9" * 5000]),
)
def test_the_state_file_is_total(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[str, str], value: object
) -> None:
    """Whatever another program wrote into a column, the file is refused with a word on what to
    do, or it is used: all that is in it can be listed and read."""
    path = tmp_path_factory.mktemp("odd") / "state.db"
    settlement = Settlement(
        progress=Progress(5, (1, 9), 3, 1),
        seen={("a", "executionFinished"): Seen(4, "e")},
        opened={"o": Open('{"_id":"o"}', 4, 9, "2025")},
        ended={"e": 7},
        rejected=[RejectedRecord("s", "logs", "why", "ended", "{}", None, at=7, resource={"a": 1})],
    )
    with closing(SqliteStore(path)) as store:
        store.load("s", "f")
        store.settle("s", settlement)
    with closing(sqlite3.connect(path)) as db:
        try:
            db.execute(f"UPDATE {place[0]} SET {place[1]}=?", (value,))
        except sqlite3.IntegrityError:  # NaN is NULL there
            return
        db.commit()
    try:
        with closing(SqliteStore(path)) as store:
            assert all(len(to_text(p.high or 0)) == 24 for p in store.sources().values())
            for record in store.rejected():
                json.dumps(record.resource)
                to_text(record.at)
                with suppress(Unreadable):
                    read_notification(record.original)
            state = store.load("s", "f").whole()
            assert all(type(s.created) is int for s in state.seen.values())
            assert all(type(o.text()) is str for o in state.open.values())
    except CheckpointError as error:
        assert error.remedy


def test_an_open_execution_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    """A start whose JSON in the state file is none does not end the process when its time comes:
    it is set aside with what stands there."""
    world = World(tmp_path)
    started = world.execution()
    world.add(started, "executionStarted")
    world.clock.wait(1)
    world.cycle()
    world.restart()
    with closing(sqlite3.connect(world.path)) as db:
        db.execute("UPDATE open_execution SET original='{no'")
        db.commit()
    world.clock.wait(3000)
    world.cycle()
    assert world._store is not None
    (aside,) = world._store.rejected()
    assert aside.original == "{no" and "not JSON" in aside.reason
    world.close()


# On the way --------------------------------------------------------------------------------------


def trickle(head: bytes) -> Fault:
    def serve(connection: socket.socket) -> None:
        gone = threading.Event()
        connection.sendall(head)
        while not gone.wait(0.05):
            connection.sendall(b"a")

    return serve


PASSING: dict[str, tuple[Fault, str]] = {
    "header trickles": (trickle(b"HTTP/1.1 200 OK\r\nX-A: "), "did not finish its answer in 0.5 s"),
    "status trickles": (trickle(b"HTTP/1.1 200 "), "did not finish its answer in 0.5 s"),
    "204": (answer("204 No Content"), "answered 204, which holds no page"),
    "206": (answer("206 Partial", body=b'{"notifications":[]}'), "answered 206, which holds no"),
    "null": (answer("200 OK", JSON, body=b'{"data":null}'), "its `data` is null"),
    "a mark and nothing": (answer("200 OK", JSON, body=b"\xef\xbb\xbf"), "it is empty"),
    "a million objects": (
        answer("200 OK", JSON, body=b'{"notifications":[' + b"{}," * 1_000_000 + b"{}]}"),
        "more than 100000 objects and lists",
    ),
    "many headers": (
        answer("200 OK", *["A: b"] * 500, body=b'{"notifications":[]}'),
        "more than 200 headers",
    ),
    "an endless header": (
        answer("200 OK", "A: " + "b" * 1_000_000, body=b'{"notifications":[]}'),
        "127.0.0.1",
    ),
    "Retry-After 1e400": (answer("429 Slow", "Retry-After: 1e400"), "slow down"),
    "Retry-After of 5,000 digits": (answer("503 Busy", f"Retry-After: {'9' * 5000}"), "503"),
    "Retry-After in year 9999": (
        answer("503 Busy", "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT"),
        "503",
    ),
    "a chain of encodings": (
        answer("200 OK", "Content-Encoding: " + "gzip," * 50 + "gzip", body=b"x"),
        "more than 3 encodings",
    ),
    "another encoding": (answer("200 OK", "Content-Encoding: br", body=b"x"), "not decompress"),
}


@pytest.mark.parametrize("name", PASSING)
def test_foreign_answers_delay_and_no_more(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of these is waited out with a word on what it was; afterwards all is delivered."""
    caplog.set_level(logging.DEBUG)
    fault, words = PASSING[name]
    with raw_api([fault] * 3) as api, OtlpEndpoint() as otlp:
        run = one_cycle(tmp_path, f"http://127.0.0.1:{api.port}", otlp.http_endpoint)
    assert run.error is None, caplog.text
    assert run.executions == RECORDS and run.rejected == 0
    ours = " ".join(r.getMessage() for r in caplog.records if r.name == "otel_alloy")
    assert words in ours


def test_a_page_that_stays_too_large_does_not_end_the_source(tmp_path: Path) -> None:
    """Where no page is small enough, the source goes on asking: only the end ends it, nothing is
    called settled."""
    huge = answer("200 OK", JSON, body=b'{"notifications":[' + b"{}," * 1_000_000 + b"{}]}")
    with raw_api([huge] * 100) as api, OtlpEndpoint() as otlp:
        run = one_cycle(tmp_path, f"http://127.0.0.1:{api.port}", otlp.http_endpoint)
    assert type(run.error).__name__ == "ShutdownRequested"
    assert run.high is None and run.executions == 0


@pytest.mark.parametrize(
    "date",
    [
        "Mon, 01 Jan 0100 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Mon, 01 Jan 1900 00:00:00 GMT",
        "1e400",
    ],
)
def test_a_date_that_no_clock_shows_counts_for_nothing(date: str, tmp_path: Path) -> None:
    """The year 100 or 9999 in `Date` (and nonsense in `lastFetched`) ends no process and moves no
    window: all is delivered."""
    with raw_api([]) as api, OtlpEndpoint() as otlp:
        true = api.log.query

        def query(params: dict[str, str]) -> Any:
            found = true(params)
            found.headers["Date"] = date
            body = json.loads(found.body)
            body["lastFetched"] = 10**30
            return found._replace(body=json.dumps(body).encode())

        api.log.query = query  # type: ignore[method-assign, assignment]
        run = one_cycle(tmp_path, f"http://127.0.0.1:{api.port}", otlp.http_endpoint)
    assert run.error is None and run.executions == RECORDS


def test_a_text_of_30_megabytes_costs_its_record_alone(tmp_path: Path) -> None:
    """It is set aside once, with its ids and the reason; the others of the page are delivered."""
    world = World(tmp_path)
    for _ in range(RECORDS):
        world.add(world.execution(), "executionFinished")
    world.log.add(
        {
            "_id": world.identity(),
            "message": "executionFinished",
            "data": {"executionId": "odd", "executionUuid": "odd"},
            "createdAt": iso(world.now),
            "startedAt": iso(world.now),
            "completedAt": iso(world.now),
            "user": {"fullName": "@odd@"},
        }
    )
    world.spoil[b"@odd@"] = b"x" * 30_000_000
    world.clock.wait(1)
    world.cycle()
    world.cycle()
    assert world._store is not None
    (aside,) = world._store.rejected()
    assert "a text of 30000000 bytes, above the limit of 1048576" in aside.reason
    assert '"executionId": "odd"' in aside.original and len(aside.original) < 2000
    assert len([key for key in world.taken if key[0] == "log"]) == RECORDS
    world.close()


def refusals() -> dict[str, Answer]:
    """Answers of an endpoint whose texts are odd; each is one to wait for."""
    info = RetryInfo(retry_delay={"seconds": 2**63 - 1, "nanos": 2**31 - 1})
    packed = AnyMessage()
    packed.Pack(info)
    asking = Status(message="x" * 1000, details=[packed] * 3).SerializeToString()
    protobuf = {"Content-Type": "application/x-protobuf"}
    return {
        "RetryInfo": Answer(status=503, headers=protobuf, body=asking),
        "Retry-After": Answer(status=503, headers={"Retry-After": "9" * 5000}),
        "Retry-After in year 1": Answer(
            status=429, headers={"Retry-After": "Mon, 01 Jan 0001 00:00:00"}
        ),
        "garbage": Answer(status=503, headers=protobuf, body=b"\xff" * 100_000),
        "a reason": Answer(
            status=503, headers={"Content-Type": "text/plain"}, body=b"x" * 1_000_000
        ),
        "cookies": Answer(status=503, headers={"Set-Cookie": "a=b; Max-Age=1e400"}),
    }


@pytest.mark.parametrize("name", refusals())
def test_foreign_texts_of_endpoints_delay_and_no_more(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is waited out; all is delivered afterwards, and no line of the log is a page long."""
    caplog.set_level(logging.DEBUG)
    left = {"traces": 2, "logs": 2}

    def receive(request: Received) -> Answer | None:
        left[request.signal] -= 1
        return refusals()[name] if left[request.signal] >= 0 else None

    with raw_api([]) as api, OtlpEndpoint(receive) as otlp:
        run = one_cycle(tmp_path, f"http://127.0.0.1:{api.port}", otlp.http_endpoint)
    assert run.error is None, caplog.text
    assert run.executions == RECORDS and run.rejected == 0
    ours = [r.getMessage() for r in caplog.records if r.name == "otel_alloy"]
    assert ours and max(map(len, ours)) < 1500


# What it costs -----------------------------------------------------------------------------------

MOST: dict[str, tuple[float, float]] = {
    "usual": (40, 10),
    "objects": (20, 15),
    "lists": (20, 15),
    "numbers": (60, 20),
    "deep": (20, 15),
    "text": (120, 15),
    "escapes": (120, 20),
    "deep text": (120, 20),
    "gzip": (150, 20),
    "gzip gzip": (150, 20),
    "trickle": (10, 3),
    "year 9999": (10, 3),
    "1e400": (10, 3),
    "date": (10, 5),
    "alias": (10, 5),
    "bomb": (20, 5),
    "brackets": (20, 20),
    "partial": (30, 5),
}
"""Megabytes above what the process had, and seconds, with room for a busy machine."""


@pytest.mark.parametrize("name", MOST)
def test_what_foreign_inputs_cost(name: str) -> None:
    """Memory and time of each input of `benchmarks/foreign.py`, in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--one", name],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "", "PYTHONPATH": str(BENCHMARK.parents[1])},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    megabytes, seconds = MOST[name]
    assert found["mb"] < megabytes and found["seconds"] < seconds, found


def test_a_usual_page_is_what_it_was() -> None:
    """The limits change nothing of a page that is below them, whatever its form."""
    entry = {"_id": "a", "message": "executionFinished", "data": {"executionId": "e"}}
    plain = json.dumps({"notifications": [entry] * 100}).encode()
    for body in (plain, b"\xef\xbb\xbf" + plain, b" \n" + plain):
        assert len(read_page(body).records) == 100
