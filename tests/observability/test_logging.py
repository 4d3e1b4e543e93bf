"""What the log says, how often, and what it never says."""

from __future__ import annotations

import json
import logging
import re
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk._shared_internal import DuplicateFilter

from otel_alloy.log_throttle import LogThrottle
from otel_alloy.observability.logging import JsonLines, Lines, Masked, ThrottleOthers
from otel_alloy.observability.told import Outward
from otel_alloy.otlp.overheard import NotOverheard, cause, overhear
from otel_alloy.settings.otlp import otlp_exporters
from otel_alloy.testing.otlp_endpoint import Answer, Received

if TYPE_CHECKING:
    from conftest import Place

CANARY = "canary-4711"


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def record(words: str, *args: object, name: str = "otel_alloy") -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, "file", 1, words, args, None)


def test_repetitions_are_held_back() -> None:
    """Of equal failures one line in 30 s appears, the next one tells how many there were, and one
    of another kind is told at once."""
    clock = Clock()
    throttle = LogThrottle(clock)
    assert throttle.admit("traces") == ""
    for _ in range(26):
        clock.now += 1
        assert throttle.admit("traces") is None
    assert throttle.admit("logs") == ""
    clock.now = 30
    assert throttle.admit("traces") == " (27 times in the last 30 s)"
    assert throttle.admit("traces") is None
    clock.now = 90
    assert throttle.admit("traces") == " (2 times in the last 60 s)"
    clock.now = 200
    assert throttle.admit("traces") == ""
    assert throttle.forget("traces") == 31
    assert throttle.forget("traces") == 0
    assert throttle.admit("traces") == ""


def test_other_libraries_are_throttled() -> None:
    """What another library repeats is held back too; ours is not throttled a second time."""
    others = ThrottleOthers(Clock())
    assert others.filter(record("failed: %s", 1, name="opentelemetry.exporter"))
    assert not others.filter(record("failed: %s", 2, name="opentelemetry.exporter"))
    assert others.filter(record("something else", name="opentelemetry.exporter"))
    for _ in range(2):
        assert others.filter(record("ours"))


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (f"refused {CANARY}!", "refused ***!"),
        ("invalid value jane.doe+x@example.com in user.email", "invalid value *** in user.email"),
        ("https://me:secret@host:4318/v1 is away", "https://***:4318/v1 is away"),
        ('{"email":"jane@example.com"}', '{"email":"***"}'),
        ("3 @ 4 and @timestamp", "3 @ 4 and @timestamp"),
    ],
)
def test_what_is_masked(words: str, shown: str) -> None:
    """Secrets, e-mail addresses and passwords in URLs do not appear, whoever says them."""
    mask = Masked([CANARY, "", "x"])
    assert mask(words) == shown
    assert json.loads(JsonLines(mask).format(record("%s", words)))["message"] == shown
    assert Lines(mask).format(record("%s", words)).endswith(" WARNING " + shown)


def test_a_line_is_a_line() -> None:
    """Line breaks in what an endpoint says cannot make a second line; a traceback is in one JSON
    object, with its secrets masked."""
    assert "\n" not in Lines(Masked()).format(record("a\nb\r\nc"))
    try:
        raise ValueError(CANARY)
    except ValueError as error:
        entry = record("x")
        entry.exc_info = (type(error), error, error.__traceback__)
    line = JsonLines(Masked([CANARY])).format(entry)
    assert "\n" not in line
    assert CANARY not in line
    assert "ValueError: ***" in json.loads(line)["exception"]


def test_json(place: Place) -> None:
    """With --log-format json all of standard error is JSON, one object per line; a cycle makes one
    line at INFO, and lines of one cycle carry the same id."""
    place.now = float(int(time.time()))  # where the two clocks differ, that is a line, too
    place.fill(300)
    refusing = True

    def judge(received: Received) -> Answer | None:
        nonlocal refusing
        if refusing and received.signal == "logs":
            refusing = False
            return Answer(status=503)
        return None

    place.judge = judge
    done = place.once("--log-format", "json", "--batch-size", "50")
    lines = [json.loads(line) for line in done.err.splitlines()]
    assert [line["level"] for line in lines] == ["WARNING", "INFO", "INFO"], lines
    assert "cannot deliver logs" in lines[0]["message"]
    assert "logs are delivered again, after 1 failed attempts" in lines[1]["message"]
    assert "300 spans and 300 log records" in lines[2]["message"]
    assert len({line["cycle"] for line in lines}) == 1
    assert {line["source"] for line in lines} == {"default"}
    for line in lines:
        assert line["time"].endswith("Z")
    idle = place.once("--log-format", "json")
    assert idle.err == ""


def test_json_to_the_end(place: Place) -> None:
    """An error that ends the command is a JSON line too, and the exit code is the same."""
    place.alloy.configure(api_key="another")
    done = place.command("run", "--log-format", "json", ALLOY_API_KEY=CANARY)
    assert done.code == 3
    (line,) = [json.loads(line) for line in done.err.splitlines()]
    assert (line["level"], CANARY in done.err) == ("ERROR", False)
    assert "check ALLOY_API_KEY" in line["message"]


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_nothing_secret_and_nobody(place: Place, log_format: str) -> None:
    """Through a run with every kind of trouble the log holds no key, no header and no user, also
    where the OTLP endpoint quotes them."""
    records = place.fill(100, lifecycle="terminal")
    poison = records[50]["data"]["executionId"].encode()
    person = "jane.doe@example.com"
    answers = iter((Answer(status=503, message=CANARY), Answer(status=401, message=CANARY)))

    def judge(received: Received) -> Answer | None:
        if poison in received.body:
            return Answer(status=400, message=f"{person} of {CANARY} is invalid")
        if received.signal == "logs":
            return next(answers, Answer(rejected=0, message=f"{CANARY}: {person} looks odd"))
        return None

    place.judge = judge
    done = place.once(
        *("--log-format", log_format),
        ALLOY_API_KEY=CANARY,
        OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer%20{CANARY}",
        OTEL_ALLOY_PRIVACY_KEY=CANARY,
    )
    assert "1 set aside" in done.err
    assert "looks odd" in done.err
    said = done.out + done.err
    assert CANARY not in said
    assert "@" not in said
    assert "HTTP Request" not in said
    for r in records:
        assert r.get("userId", "?") not in said


def unused() -> int:
    """A port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


OUR_LINE = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ (INFO   |WARNING|ERROR  ) (\S.*)")


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_own_telemetry_that_gets_nowhere(place: Place, log_format: str, protocol: str) -> None:
    """Where metrics and own spans cannot be sent, nothing but our lines is on standard error: in
    our words, one for each in 30 seconds, without a secret of the address; with `json` all of it is
    objects, one to a line, to the end."""
    place.fill(20)
    nowhere = f"http://127.0.0.1:{unused()}/x?token={CANARY}"
    process = place.start(
        *("run", "--since", "60d", "--log-format", log_format, "--collection-interval", "1s"),
        *("--own-traces", "--main-destination", "all", "--shutdown-timeout", "1s"),
        OTEL_METRICS_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=nowhere,
        OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_METRICS_TIMEOUT="3000",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=nowhere,
        OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=protocol,
        OTEL_EXPORTER_OTLP_TIMEOUT="3000",
        OTEL_METRIC_EXPORT_INTERVAL="500",
        OTEL_BSP_SCHEDULE_DELAY="500",
    )
    assert process.stderr is not None
    lines: list[str] = []
    patience = threading.Timer(90, process.kill)
    patience.start()
    while not all(any(words in line for line in lines) for words in ("own metrics", "own spans")):
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    patience.cancel()
    process.terminate()
    done = place.end(process)
    lines += done.err.splitlines()
    for line in filter(None, map(str.strip, lines)):
        if log_format == "json":
            assert json.loads(line)["logger"] == "otel_alloy", line
        else:
            found = OUR_LINE.fullmatch(line)
            assert found or line.startswith("Error: stopped before"), line
    said = "\n".join(lines)
    assert CANARY not in said
    assert [said.count(f"own {what} cannot be sent to") for what in ("metrics", "spans")] == [1, 1]
    # The oldest SDK that is allowed tells of gRPC nothing but the code.
    cause = "(connection failed: Connection refused|gRPC UNAVAILABLE)"
    for then in ("they come with the next export", "they are lost"):
        assert re.search(f"{cause}; {then}", said), said
    assert "check OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, or set OTEL_METRICS_EXPORTER=none" in said
    assert not re.search(r"opentelemetry|HTTPConnectionPool|StatusCode|Transient|retrying in", said)


def test_two_that_fail_at_once_both_say_why() -> None:
    """The SDK's gRPC exporters share a logger whose filter drops a line that has the words of the
    one before, of whichever exporter: neither the first to fail nor the second lacks a cause."""
    of_both = logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter")
    of_both.addFilter(DuplicateFilter())
    handler = logging.NullHandler()
    handler.handle = handler.filter  # type: ignore[method-assign]
    handler.addFilter(NotOverheard())
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        causes = []
        for what in ("traces", "metrics", "traces"):
            with overhear() as heard:
                of_both.error("Failed to export %s, error code: StatusCode.UNAVAILABLE", what)
            causes.append(cause(heard))
    finally:
        root.removeHandler(handler)
    assert causes == ["gRPC UNAVAILABLE"] * 3


def test_own_metrics_that_arrive_again() -> None:
    """A line says so, with the number of failures before."""
    clock = Clock()
    exporter = otlp_exporters({"OTEL_METRICS_EXPORTER": "otlp"}).metrics[0]
    outward = Outward(exporter, "own metrics", "later", "stop", clock)
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    handler.addFilter(NotOverheard())
    root = logging.getLogger()
    root.addHandler(handler)

    def fails() -> str:
        logging.getLogger("opentelemetry.exporter").error("Failed, code: 503, key=%s", CANARY)
        return "failure"

    def raises() -> str:
        raise OSError(CANARY)

    try:
        logging.getLogger("otel_alloy").setLevel(logging.INFO)
        assert outward.send(fails, "success", "failure") == "failure"
        assert outward.send(raises, "success", "failure") == "failure"
        assert outward.send(lambda: "success", "success", "failure") == "success"
    finally:
        root.removeHandler(handler)
    where = "http://localhost:4318/v1/metrics"
    assert said == [
        f"own metrics cannot be sent to {where}: HTTP 503; later; check "
        "OTEL_EXPORTER_OTLP_ENDPOINT, or stop",
        f"own metrics are sent to {where} again, after 2 failures",
    ]


def test_what_others_print_becomes_a_line(place: Place) -> None:
    """A warning of Python, a defect in a thread and one while something is given back, and the
    lines of another library: all of it is log."""
    code = (
        "import logging, sys, threading, time, warnings\n"
        "from otel_alloy.observability.logging import JsonLines, set_up\n"
        "set_up(logging.StreamHandler(), JsonLines(str), time.monotonic)\n"
        "warnings.warn('one')\n"
        "thread = threading.Thread(target=lambda: 1 / 0, name='two')\n"
        "thread.start(); thread.join()\n"
        "class Three:\n"
        "    def __del__(self):\n"
        "        raise ValueError('three')\n"
        "one = Three(); del one\n"
        "logging.getLogger('urllib3.pool').warning('four')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["logger"].split(".")[0] for line in lines] == [
        *("py", "otel_alloy", "otel_alloy", "urllib3")
    ]
    assert "ZeroDivisionError" in lines[1]["exception"] and "two" in lines[1]["message"]
    assert "three" in lines[2]["exception"]


def test_lines_of_others_say_whose_they_are() -> None:
    """For people; a JSON line has the logger."""
    assert (
        Lines(str).format(record("words", name="urllib3.pool")).endswith("WARNING urllib3: words")
    )
    assert Lines(str).format(record("words")).endswith("WARNING words")
