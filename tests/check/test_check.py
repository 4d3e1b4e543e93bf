"""`otel-alloy check`: each line is true of the API and the collector that were asked, and says what
to do where something is to be done; nothing is stored, or sent but what was asked for."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from otel_alloy.alloy.timestamps import to_ms, to_text
from otel_alloy.mapping.ids import execution_ids
from otel_alloy.runtime import system_runtime
from otel_alloy.testing.otlp_endpoint import Answer, Received, attributes
from otel_alloy.webhook.listener import ErrorListener
from otel_alloy.webhook.report import ErrorReport

if TYPE_CHECKING:
    from conftest import Place

MOST_REQUESTS = 8


def checked(
    place: Place, *words: str, code: int = 0, **variables: str
) -> dict[str, dict[str, Any]]:
    """The findings by their part, without the source's name."""
    done = place.command("check", "--json", *words, **variables)
    assert done.code == code, done.out + done.err
    told = json.loads(done.out)
    assert (told["ok"], told["exit_code"]) == (code == 0, code)
    assert len(place.alloy.requests) <= MOST_REQUESTS
    assert not place.storage.exists()
    return {f["part"].removeprefix("Alloy (default): "): f for f in told["findings"]}


def test_what_is_as_described(place: Place) -> None:
    """Of an API that does what the vendor says, every unknown is told, and nothing is sent."""
    records = place.fill(1000, days=10)
    found = checked(place)
    assert found["createdAt filter"]["facts"]["filter"] == "honoured"
    assert found["page size"]["facts"]["largest"] == 1000
    assert found["page size"]["remedy"].startswith("set OTEL_ALLOY_PAGE_SIZE=1000")
    assert found["envelope"]["facts"]["envelope"] is False
    assert found["totalItems"]["facts"] == {"counts_matches": True, "total_items": 2000}
    assert found["start and end"]["facts"]["lifecycle"] == "separate"
    assert found["fields"]["answer"] == "all there"
    assert found["oldest record"]["facts"]["oldest"] == records[0]["createdAt"]
    assert 9.9 < found["oldest record"]["facts"]["days"] <= 10
    assert found["records"]["facts"]["newest"] == records[-1]["createdAt"]
    assert found["OTLP traces"]["ok"] and found["OTLP logs"]["ok"]
    assert found["cost"]["facts"]["requests"] == len(place.alloy.requests)
    assert place.otlp.span_count == place.otlp.log_record_count == 0


@pytest.mark.parametrize(
    ("knobs", "part", "fact", "verdict"),
    [
        ({"envelope": True}, "envelope", "envelope", True),
        ({"ignore_filters": True}, "createdAt filter", "filter", "ignored"),
        ({"created_at_filter": "nothing"}, "createdAt filter", "filter", "matches_nothing"),
        ({"ignore_sort_order": True}, "sort order", "sort_order", "ignored"),
        ({"max_limit": 30}, "page size", "largest", 30),
        ({"max_limit": 250}, "page size", "largest", 250),
        ({"max_limit": 250, "over_limit": "refuse"}, "page size", "largest", 100),
        ({"total_items": "all"}, "totalItems", "counts_matches", False),
        ({"ignore_filters": True}, "totalItems", "counts_matches", None),
    ],
)
def test_unknowns_of_the_api(
    place: Place, knobs: dict[str, Any], part: str, fact: str, verdict: object
) -> None:
    """Which way each unknown fell."""
    place.fill(400, days=10)
    place.alloy.configure(**knobs)
    assert checked(place)[part]["facts"][fact] == verdict


def test_what_created_at_is_the_time_of(place: Place) -> None:
    """Whether createdAt is the time of the start or of the end, and what the overlap has to be."""
    place.fill(100, lifecycle="terminal")
    assert checked(place)["createdAt"]["facts"]["created_at"] == "end"
    place.alloy.requests.clear()
    late = 0
    for record in list(place.alloy.store.records()):
        times = [to_ms(record[name]) or 0 for name in ("startedAt", "completedAt")]
        late = max(late, times[1] - times[0])
        place.alloy.store.change(record["_id"], createdAt=record["startedAt"])
    found = checked(place, OTEL_ALLOY_OVERLAP="2s")["createdAt"]
    assert found["facts"]["created_at"] == "start"
    assert found["facts"]["late_seconds"] == late / 1000 > 2
    assert found["ok"] is None
    assert f"set overlap to at least {-(-int(late * 1.5 + 30_000) // 1000)}s" in found["remedy"]


@pytest.mark.parametrize(
    ("lifecycle", "told"),
    [
        ("two_records", "separate"),
        ("in_place", "in place"),
        ("in_place_new_created_at", "ends only"),
        ("vanishing", "ends only"),
        ("terminal", "ends only"),
    ],
)
def test_how_a_start_becomes_an_end(place: Place, lifecycle: str, told: str) -> None:
    """Two records, or one that changed in place, as far as a page can tell."""
    place.fill(300, lifecycle=lifecycle)
    assert checked(place)["start and end"]["facts"]["lifecycle"] == told


def test_ends_that_are_told_twice_and_starts_without_an_end(place: Place) -> None:
    """Second ends are counted; where neither start nor end is seen with the other, it is said."""
    place.fill(300, lifecycle="terminal", error_rate=0.3, second_terminal=0.5, never_ends=0.1)
    found = checked(place)["start and end"]
    records = list(place.alloy.store.records())
    ends = place.ended(records)
    assert found["facts"]["ended_twice"] == len(ends) - len(set(ends)) > 0
    assert found["facts"]["lifecycle"] == "in place or vanishing"


@pytest.mark.parametrize("ties", ["stable", "shuffled"])
def test_order_of_ties(place: Place, ties: str) -> None:
    """Where records share a millisecond, whether the API gives them in one order each time."""
    place.fill(300, tied=40)
    place.alloy.configure(ties=ties)
    assert checked(place)["order of ties"]["facts"]["stable"] is (ties == "stable")


def test_missing_fields_are_counted(place: Place) -> None:
    """What is missing, null, a bare id or unreadable is counted by its name."""
    for number, record in enumerate(place.fill(100)):
        if record["message"] == "executionStarted":
            place.alloy.store.change(record["_id"], user=None)
        elif number % 2:
            place.alloy.store.change(
                record["_id"], data={"executionId": "x"}, completedAt="Invalid Date"
            )
    changed = sum(
        r["message"] != "executionStarted" and r["completedAt"] == "Invalid Date"
        for r in place.alloy.store.records()
    )
    found = checked(place)["fields"]
    assert found["facts"]["missing"] == {
        "user": 100,
        "completedAt": changed,
        "executionUuid": changed,
    }
    assert "executionId" in found["remedy"]


def test_few_or_no_records(place: Place) -> None:
    """An account without executions, or with one, passes; what cannot be told is said to be so."""
    empty = checked(place)
    assert empty["records"]["ok"] is None
    assert "run a workflow" in empty["records"]["remedy"]
    place.fill(1, lifecycle="terminal")
    place.alloy.requests.clear()
    one = checked(place)
    assert one["createdAt filter"]["facts"]["filter"] == "unknown"
    assert one["page size"]["facts"]["largest"] is None
    assert one["totalItems"]["facts"]["counts_matches"] is None


def test_clock(place: Place) -> None:
    """A clock that is minutes off is worth a note, and the difference is told."""
    place.fill(5)
    found = checked(place)["clock"]
    assert found["ok"] is None
    assert found["facts"]["skew_seconds"] < -86_400


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_marked_span_and_log(request: pytest.FixtureRequest, kind: str) -> None:
    """--send-test sends one span and one log record of the name that is told, in the trace whose id
    is told; without it none is sent."""
    place: Place = request.getfixturevalue("place" if kind == "http" else "grpc_place")
    place.fill(5)
    checked(place)
    assert place.otlp.span_count == place.otlp.log_record_count == 0
    place.alloy.requests.clear()
    found = checked(place, "--send-test")
    (span,), (log,) = place.otlp.spans(), place.otlp.log_records()
    assert span.name == "otel-alloy test"
    told = {found[part]["facts"]["trace_id"] for part in ("test span", "test log record")}
    assert told == {span.trace_id.hex()} == {log.trace_id.hex()}
    assert span.trace_id.hex() in found["test span"]["answer"]
    given = attributes(span.attributes)
    assert given["runalloy.execution.uuid"].startswith("otel-alloy-test-")
    assert execution_ids(given["runalloy.execution.uuid"])[0] == span.trace_id
    (item,) = place.otlp.items("traces")
    assert attributes(item.resource.attributes)["service.name"] == "runalloy"
    assert "service runalloy" in found["test span"]["remedy"]
    place.alloy.requests.clear()
    pattern = "http://jaeger.example/trace/{trace_id}"
    found = checked(place, "--send-test", OTEL_ALLOY_TRACE_URL=pattern)
    facts = found["test span"]["facts"]
    assert facts["trace_url"] == pattern.format(trace_id=facts["trace_id"])
    assert facts["trace_url"] in found["test span"]["remedy"]


def test_a_test_that_is_refused(place: Place) -> None:
    """A collector that takes empty requests and refuses records is found out only by the test."""
    place.fill(5)

    def refuse(received: Received) -> Answer | None:
        return Answer(rejected=1, message="quota") if list(received.items()) else None

    place.judge = refuse
    assert checked(place)["OTLP traces"]["ok"]
    place.alloy.requests.clear()
    found = checked(place, "--send-test", code=1)
    assert found["OTLP logs"]["ok"]
    for part in ("test span", "test log record"):
        assert found[part]["ok"] is False
        assert "quota" in found[part]["answer"]
        assert found[part]["remedy"]


def test_a_signal_that_is_not_reached(place: Place) -> None:
    """Traces and logs are told apart; what is not reached gets no test, and a remedy that names the
    variable which counts for it."""
    place.fill(5)
    nowhere = f"{place.otlp.http_endpoint}/nowhere"
    found = checked(place, "--send-test", code=1, OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=nowhere)
    assert found["OTLP traces"]["ok"]
    assert found["OTLP logs"]["ok"] is False
    assert "correct OTEL_EXPORTER_OTLP_LOGS_ENDPOINT" in found["OTLP logs"]["remedy"]
    assert "check the path of OTEL_EXPORTER_OTLP_LOGS_ENDPOINT" in found["OTLP logs"]["answer"]
    assert found["test span"]["ok"]
    assert "test log record" not in found


def test_an_installed_exporter(place: Place) -> None:
    """What an exporter of the SDK reaches is not known before a record; that is said."""
    place.fill(5)
    found = checked(place, OTEL_LOGS_EXPORTER="otlp_proto_http")
    assert found["OTLP logs"]["ok"] is None
    assert "--send-test" in found["OTLP logs"]["remedy"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [("503", "answered 503"), ("429:7", "429"), ("html", "HTML"), ("drop", "broke")],
)
def test_a_failing_api(place: Place, fault: str, words: str) -> None:
    """A request that fails is not repeated; the collector is still tried."""
    place.alloy.script(*[fault] * MOST_REQUESTS)
    found = checked(place, code=1)
    assert found["request"]["ok"] is False
    assert words in found["request"]["answer"]
    assert found["OTLP traces"]["ok"]
    assert len(place.alloy.requests) == 1


def test_two_sources(place: Place) -> None:
    """Each source is checked under its name, and one that fails leaves the other's lines."""
    place.fill(5)
    (place.folder / "settings.yaml").write_text(
        f"sources: [{{name: eu, endpoint: '{place.otlp.http_endpoint}'}}, {{name: us}}]\n"
    )
    done = place.command("check", "--config", "settings.yaml")
    assert done.code == 1
    assert re.search(r"^FAIL  Alloy \(eu\): request: .+ -> .+$", done.out, re.MULTILINE)
    assert re.search(r"^ok    Alloy \(us\): API key: ", done.out, re.MULTILINE)


def test_plain_lines(place: Place) -> None:
    """Into a pipe: one line for each finding, without colour: verdict, part, answer, what was
    tried, what to do."""
    place.fill(200)
    place.alloy.configure(max_limit=150)
    done = place.command("check")
    assert (done.code, done.err) == (0, "")
    assert "\x1b" not in done.out
    for line in done.out.splitlines():
        assert re.match(r"(ok   |note |FAIL ) \S.*: \S", line), line
    assert (
        "note  Alloy (default): page size: 150 came back (asked for 1,000 records in one request)"
        " -> set OTEL_ALLOY_PAGE_SIZE=150 to read in fewer requests" in done.out.splitlines()
    )


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal(place: Place, width: int) -> None:
    """On a real terminal: no line is wider, the verdicts are added up at the end."""
    place.fill(20)
    shell, terminal = pty.openpty()
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("otel-alloy")), "check", "--send-test"],
        cwd=place.folder,
        env=place.environment | {"TERM": "xterm", "COLUMNS": str(width), "LINES": "24"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    text = b""
    try:
        while True:
            text += os.read(shell, 4096)
    except OSError:  # how Linux tells that the command has ended
        pass
    finally:
        os.close(shell)
    assert process.wait(60) == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text.decode()).replace("\r", "").splitlines()
    assert max(map(len, lines)) <= width
    assert lines[-1].endswith(" to know, 0 to correct")
    assert lines.count("Alloy (default)") + lines.count("Alloy (default)".ljust(width)) == 1


def test_the_clock_is_said_in_server_time(place: Place) -> None:
    """How old the oldest record is goes by the API's clock, not by this machine's."""
    place.alloy.store.add(
        {
            "_id": "1" * 24,
            "message": "executionFinished",
            "createdAt": to_text(int((place.now - 2 * 86_400) * 1000)),
        }
    )
    assert checked(place)["oldest record"]["facts"]["days"] == 2


def test_findings_come_in_the_order_in_which_data_flows(place: Place) -> None:
    """From how Alloy is reached over Alloy itself, its records, the webhook and the checkpoint to
    the endpoint and the destinations, so that the first that fails is the one to look at."""
    folder = place.folder / "destinations"
    folder.mkdir()
    (folder / "broken.yaml").write_text("match: [")
    done = place.command(
        "check",
        "--json",
        HTTP_PROXY="http://127.0.0.1:9",
        ALLOY_ENDPOINT="http://alloy.example",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://otlp.example:4318",
        OTEL_EXPORTER_OTLP_TIMEOUT="1000",
        OTEL_ALLOY_WEBHOOK_LISTEN="127.0.0.1:0",
        OTEL_ALLOY_WEBHOOK_SECRET="0123456789abcdef0123456789abcdef",
        OTEL_ALLOY_DESTINATIONS_DIR=str(folder),
    )
    parts = [finding["part"] for finding in json.loads(done.out)["findings"]]
    parts = [part.removeprefix("Alloy (default): ") for part in parts]
    wanted = [
        *("configuration", "connection", "error webhook", "checkpoint"),
        *("OTLP traces: connection", "OTLP traces", "destinations"),
    ]
    assert [part for part in parts if part in wanted] == wanted
    assert parts[-1] == "destinations" and parts[0] == "configuration"
    between = parts[parts.index("connection") + 1 : parts.index("error webhook")]
    assert between  # what Alloy said, or why it did not


def test_the_checkpoint_is_looked_at_and_not_made(place: Place) -> None:
    """Whether it is there, and whether it could be written."""
    place.fill(5)
    assert checked(place)["checkpoint"]["facts"]["there"] is False
    (place.folder / "file").write_text("")
    storage = f"sqlite:///{place.folder}/file/deep/checkpoint.db"
    found = checked(place, code=1, OTEL_ALLOY_STORAGE=storage)["checkpoint"]
    assert found["ok"] is False and str(place.folder / "file") in found["answer"]
    assert "OTEL_ALLOY_STORAGE" in found["remedy"]
    place.once()
    done = place.command("check", "--json")
    (found,) = (f for f in json.loads(done.out)["findings"] if f["part"] == "checkpoint")
    assert found["facts"]["there"] is True


def webhook_findings(place: Place, code: int, **variables: str) -> dict[str, dict[str, Any]]:
    """What `check` says of the error webhook, by part."""
    place.alloy.requests.clear()
    found = checked(place, code=code, **variables)
    return {part: f for part, f in found.items() if part.startswith("error webhook")}


def test_the_error_webhook_is_tried(place: Place) -> None:
    """Off, there is no word of it. On, one report goes over a socket twice and is kept once; a
    listener on all interfaces and a short secret are worth a note; no output has the secret."""
    secret = "0123456789abcdef-canary"
    place.fill(50, days=1)
    assert not webhook_findings(place, 0)
    found = webhook_findings(
        place,
        0,
        OTEL_ALLOY_WEBHOOK_LISTEN="0.0.0.0:0",
        OTEL_ALLOY_WEBHOOK_SECRET=secret,
    )
    tried = found["error webhook"]
    assert tried["ok"] and tried["facts"]["answers"] == [204, 204] and tried["facts"]["folded"]
    assert "all interfaces" in found["error webhook address"]["answer"]
    assert found["error webhook secret"]["ok"] is None
    assert secret not in json.dumps(found)
    found = webhook_findings(
        place,
        0,
        OTEL_ALLOY_WEBHOOK_LISTEN="127.0.0.1:0",
        OTEL_ALLOY_WEBHOOK_SECRET="0123456789abcdef0123456789abcdef",
    )
    assert set(found) == {"error webhook"}


def test_what_listens_at_the_webhooks_address_already(place: Place) -> None:
    """Is asked whether it is `run` with the same secret, and is left with nothing more to keep."""
    secret = "0123456789abcdef0123456789abcdef"
    place.fill(50, days=1)
    kept: list[ErrorReport] = []

    def keep(report: ErrorReport) -> bool:
        kept.append(report)
        return True

    with ErrorListener("127.0.0.1:0", secret, keep, system_runtime()) as listener:
        for shown, code in ((secret, 0), (secret[::-1], 1)):
            found = webhook_findings(
                place,
                code,
                OTEL_ALLOY_WEBHOOK_LISTEN=listener.address,
                OTEL_ALLOY_WEBHOOK_SECRET=shown,
            )
            assert found["error webhook of run"]["ok"] is (code == 0)
            assert found["error webhook"]["ok"]
    assert not kept
    found = webhook_findings(
        place,
        1,
        OTEL_ALLOY_WEBHOOK_LISTEN=place.otlp.http_endpoint.rpartition("/")[2],
        OTEL_ALLOY_WEBHOOK_SECRET=secret,
    )
    assert "no listener of otel-alloy" in found["error webhook of run"]["answer"]
