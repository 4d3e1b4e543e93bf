"""`otel-alloy run` as people run it: every execution arrives once, whatever the API, the network or
the machine does in between."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from otel_alloy.alloy.timestamps import to_ms
from otel_alloy.mapping import semconv
from otel_alloy.testing.otlp_endpoint import Answer, Received, attributes

if TYPE_CHECKING:
    from conftest import Place

PAGE = 30


def test_each_execution_once_over_grpc(grpc_place: Place) -> None:
    """2,000 executions with their starts, pages clamped to 30, 400 ends in one millisecond: each
    end arrives once as span and once as log record, in one trace; a second run sends nothing."""
    place = grpc_place
    records = place.fill(2000, tied=400)
    place.alloy.configure(max_limit=PAGE)
    place.once()
    place.assert_exactly_once(place.ended(records))
    assert {request.transport for request in place.otlp.requests} == {"grpc"}
    spans = {(s.trace_id, s.span_id) for s in place.otlp.spans()}
    assert len(spans) == 2000
    assert spans == {(r.trace_id, r.span_id) for r in place.otlp.log_records()}
    known = place.otlp.request_count
    second = place.once()
    assert place.otlp.request_count == known
    assert second.out.startswith("0 spans and 0 log records delivered"), second.out


@pytest.mark.parametrize(
    "knobs",
    [
        pytest.param({}, id="as-described"),
        pytest.param({"envelope": True}, id="data-envelope"),
        pytest.param({"ignore_filters": True}, id="ignores-filters"),
        pytest.param({"ignore_sort_order": True}, id="ignores-sort-order"),
        pytest.param({"ignore_sort_order": True, "ignore_filters": True}, id="ignores-both"),
        pytest.param({"created_at_filter": "nothing"}, id="filter-matches-nothing"),
        pytest.param(
            {"page_size": "asked", "total_items": "all", "current_page": "constant"},
            id="pagination-lies",
        ),
        pytest.param({"skip_past_end": "refuse"}, id="skip-past-the-end-is-refused"),
        pytest.param({"over_limit": "refuse"}, id="limit-is-refused"),
        pytest.param(
            {
                "fault_rate": dict.fromkeys(("429:0", "500", "drop", "truncate", "html"), 0.05),
                "max_limit": 4 * PAGE,  # each fault costs a wait
            },
            id="a-quarter-of-the-answers-is-spoiled",
        ),
    ],
)
def test_each_execution_once_from_any_api(place: Place, knobs: dict[str, Any]) -> None:
    """The same over HTTP, from an API that departs from its description or fails all the time."""
    records = place.fill(2000, tied=400)
    place.alloy.configure(**({"max_limit": PAGE} | knobs))
    place.once()
    place.assert_exactly_once(place.ended(records))
    known = place.otlp.request_count
    place.once()
    assert place.otlp.request_count == known


@pytest.mark.parametrize(
    "knobs",
    [
        pytest.param({"ties": "shuffled"}, id="order-changes-in-each-answer"),
        pytest.param({"ignore_skip": True}, id="skip-is-ignored"),
        pytest.param(
            {"ignore_skip": True, "total_items": "missing"}, id="skip-is-ignored-uncounted"
        ),
        pytest.param({"ties": "shuffled", "total_items": "all"}, id="order-changes-count-of-all"),
    ],
)
def test_ties_beyond_a_page_from_an_api_that_pages_badly(
    place: Place, knobs: dict[str, Any]
) -> None:
    """400 ends in one millisecond, pages of 30, and `skip` that cannot be relied on: each arrives
    once."""
    records = place.fill(600, tied=400)
    place.alloy.configure(max_limit=PAGE, **knobs)
    place.once()
    place.assert_exactly_once(place.ended(records))
    known = place.otlp.request_count
    place.once()
    assert place.otlp.request_count == known


@pytest.mark.parametrize("knobs", [{}, {"ignore_filters": True}, {"ignore_sort_order": True}])
@pytest.mark.parametrize("kind", ["empty", "short"])
def test_one_empty_answer_half_way(place: Place, knobs: dict[str, Any], kind: str) -> None:
    """500 executions, and the third page of 100 that are counted comes empty or cut: all arrive,
    whichever way the API has to be read."""
    records = place.fill(500)
    place.alloy.configure(**knobs)
    place.alloy.store.odd_pages.extend([None] * 4 + [kind])
    place.once(OTEL_ALLOY_PAGE_SIZE="100")
    place.assert_exactly_once(place.ended(records))


@pytest.mark.parametrize("knobs", [{}, {"ignore_filters": True}, {"ignore_sort_order": True}])
def test_what_cannot_be_reached_ends_once_with_its_number(
    place: Place, knobs: dict[str, Any]
) -> None:
    """Alloy counts records that it does not give: `run --once` exits with 1 and tells how many, and
    the checkpoint does not pass them. When it gives them again, each execution has arrived once."""
    records = place.fill(500)
    moments = sorted(to_ms(r["createdAt"]) or 0 for r in records)
    place.alloy.configure(hidden=(moments[600], moments[610]), **knobs)
    done = place.command("run", "--once", "--since", "60d")
    assert done.code == 1
    found = re.search(r"Alloy has (\d+) records .* that no request brings", done.err)
    assert found and "Traceback" not in done.err, done.err
    assert 10 <= int(found[1]) <= len(records) - 10
    place.alloy.configure(hidden=None)
    place.once()
    place.assert_exactly_once(place.ended(records))


def test_crash(place: Place) -> None:
    """A process that is killed while a batch is on its way leaves a checkpoint from which the next
    one loses nothing, and repeats at most that batch, byte for byte."""
    records = place.fill(600)
    place.alloy.configure(max_limit=PAGE)
    process: subprocess.Popen[str]
    started = threading.Event()
    traces = 0

    def kill_at_the_third(received: Received) -> None:
        nonlocal traces
        traces += received.signal == "traces"
        if traces == 3:
            assert started.wait(10)
            process.kill()
            process.wait()

    place.judge = kill_at_the_third
    words = ("--batch-size", "100")
    process = place.start("run", "--once", "--since", "60d", *words)
    started.set()
    assert place.end(process).code == -signal.SIGKILL
    before = len(place.otlp.spans())
    assert 0 < before < 600
    place.judge = lambda received: None
    place.once(*words)
    executions = set(place.ended(records))
    for kind in ("traces", "logs"):
        assert set(place.sent(kind)) == executions
        assert len(place.bytes_sent(kind)) == len(executions)  # what came twice is the same twice
        twice = [times for times in place.bytes_sent(kind).values() if times > 1]
        assert len(twice) <= 100 + PAGE
        assert set(twice) <= {2}
    assert sum(place.sent("traces").values()) > len(executions), "the killed batch was stored"


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_lost_acknowledgement(request: pytest.FixtureRequest, kind: str) -> None:
    """Where the endpoint stores a request and the connection breaks before the answer, the same
    request comes again, byte for byte, and nothing else comes twice."""
    place: Place = request.getfixturevalue("place" if kind == "http" else "grpc_place")
    records = place.fill(300)
    to_lose = {"traces", "logs"}

    def lose_the_first(received: Received) -> Answer | None:
        if received.signal not in to_lose:
            return None
        to_lose.remove(received.signal)
        return Answer(connection="lose")

    place.judge = lose_the_first
    place.once("--batch-size", "100")
    for name in ("traces", "logs"):
        bodies = Counter(r.body for r in place.otlp.requests if r.signal == name)
        assert sorted(bodies.values())[-2:] == [1, 2]
        assert len(place.bytes_sent(name)) == len(records) // 2
        assert set(place.sent(name)) == set(place.ended(records))


@pytest.mark.parametrize(("words", "code"), [((), 0), (("--once",), 1)])
def test_sigterm(place: Place, words: tuple[str, ...], code: int) -> None:
    """SIGTERM in the middle of a drain: the batch on its way is settled, and the next run goes on
    where this one ended: nothing is lost and nothing is sent twice. The exit code is 0; with
    `--once`, which was to settle everything, it is 1, with words that say so."""
    records = place.fill(600)
    place.alloy.configure(max_limit=PAGE)
    process: subprocess.Popen[str]
    started, asked = threading.Event(), threading.Event()

    def stop_at_the_first(received: Received) -> None:
        assert started.wait(10)
        process.terminate()
        asked.set()

    place.judge = stop_at_the_first
    process = place.start("run", *words, "--since", "60d", "--batch-size", "100")
    started.set()
    assert asked.wait(60)
    ended = place.end(process, within=10)
    assert ended.code == code, ended.err
    assert ("stopped before the end" in ended.err) == bool(code)
    assert 0 < len(place.otlp.spans()) < 600
    place.judge = lambda received: None
    place.once()
    place.assert_exactly_once(place.ended(records))


@pytest.mark.parametrize("trouble", ["hangs", "refuses"])
def test_sigterm_while_nothing_can_be_delivered(place: Place, trouble: str) -> None:
    """With an OTLP endpoint that hangs or asks to come back later, SIGTERM still ends the process
    within the shutdown timeout; exit code and last line say that a batch on its way could not be
    settled, and nothing counts as delivered."""
    records = place.fill(50)
    asked, over = threading.Event(), threading.Event()

    def answer(received: Received) -> Answer:
        asked.set()
        if trouble == "hangs":
            over.wait(30)
        return Answer(status=503, headers={"Retry-After": "60"})

    place.judge = answer
    process = place.start("run", "--since", "60d", "--shutdown-timeout", "1s")
    try:
        assert asked.wait(30)
        process.terminate()
        ended = place.end(process, within=10)
    finally:
        over.set()
    assert ended.code == 1, ended.err
    assert ended.err.endswith(
        "stopped before what was on its way was settled; the next start sends it again\n"
    )
    place.judge = lambda received: None
    place.once()
    place.assert_exactly_once(place.ended(records))


def test_poison_record(place: Place) -> None:
    """A record that the endpoint refuses is set aside alone. It can be listed, is still there after
    a retry that is refused again, and leaves by a retry that is accepted."""
    records = place.fill(200, lifecycle="terminal")
    poison = records[77]["data"]["executionId"]

    def refuse(received: Received) -> Answer | None:
        ids = {attributes(i.record.attributes).get(semconv.EXECUTION_ID) for i in received.items()}
        return Answer(status=400, message="I cannot read this") if poison in ids else None

    place.judge = refuse
    done = place.once()
    assert "1 set aside" in done.out
    place.assert_exactly_once(e for e in place.ended(records) if e != poison)
    (kept,) = place.rejected()
    assert json.loads(kept["original"]) == records[77]
    shown = place.command("rejected", "list").out
    assert shown.count("\n") == 1
    assert "I cannot read this" in shown

    again = place.command("rejected", "retry")
    assert (again.code, len(place.rejected())) == (1, 1)
    assert "I cannot read this" in again.out

    place.judge = lambda received: None
    accepted = place.command("rejected", "retry", str(kept["number"]))
    assert (accepted.code, accepted.out) == (0, "1 delivered, 0 still set aside\n")
    assert place.rejected() == []
    place.assert_exactly_once(place.ended(records))


def test_dropping_a_poison_record(place: Place) -> None:
    """`rejected drop` deletes what it is told to, by number or all, and never by accident."""
    records = place.fill(40, lifecycle="terminal")
    poison = {r["data"]["executionId"] for r in records[10:13]}

    def refuse(received: Received) -> Answer | None:
        ids = {attributes(i.record.attributes).get(semconv.EXECUTION_ID) for i in received.items()}
        return Answer(status=400) if poison & ids else None

    place.judge = refuse
    place.once()
    numbers = [str(kept["number"]) for kept in place.rejected()]
    assert len(numbers) == 3
    assert place.command("rejected", "drop").code == 2
    assert place.command("rejected", "drop", numbers[1]).out == "1 dropped\n"
    assert [str(kept["number"]) for kept in place.rejected()] == [numbers[0], numbers[2]]
    assert place.command("rejected", "drop", "--all").out == "2 dropped\n"
    assert place.command("rejected", "list").out == "nothing is set aside\n"
    place.assert_exactly_once(e for e in place.ended(records) if e not in poison)


def test_several_sources(place: Place) -> None:
    """One file, two accounts: each has its key, its resource attributes and its checkpoint; an
    account whose key is refused does not keep the other one from being read."""
    from otel_alloy.testing.simulator import Simulator

    records = place.fill(60)
    place.alloy.configure(api_key="first-key")
    with Simulator(clock=lambda: place.now) as other:
        other.configure(api_key="second-key")
        (place.folder / "settings.yaml").write_text(
            f"""
            storage: sqlite:///{place.folder}/several.db
            requests_per_minute: 0
            sources:
              - name: europe
                api_key: ${{env:EUROPE_KEY}}
                endpoint: {place.alloy.endpoint}
                resource: {{deployment.environment.name: eu}}
              - name: america
                api_key: ${{env:AMERICA_KEY}}
                endpoint: {other.endpoint}
                resource: {{deployment.environment.name: us}}
            """
        )
        elsewhere = dict(records[-1], _id="6" * 24, data={"executionId": "in-america"})
        elsewhere["message"] = "executionFinished"
        other.store.add(elsewhere)
        for name in ("ALLOY_API_KEY", "ALLOY_ENDPOINT", "OTEL_ALLOY_STORAGE"):
            del place.environment[name]
        words = ("run", "--once", "--since", "60d", "--config", "settings.yaml")
        keys = {"EUROPE_KEY": "first-key", "AMERICA_KEY": "wrong"}
        refused = place.command(*words, **keys)
        assert refused.code == 3, refused.err
        assert "america" in refused.err
        place.assert_exactly_once(place.ended(records))
        done = place.command(*words, **(keys | {"AMERICA_KEY": "second-key"}))
        assert done.code == 0, done.err
    place.assert_exactly_once([*place.ended(records), "in-america"])
    for item in place.otlp.items("logs"):
        region = attributes(item.resource.attributes)["deployment.environment.name"]
        execution = attributes(item.record.attributes)[semconv.EXECUTION_ID]
        assert region == ("us" if execution == "in-america" else "eu")
    shown = place.command("checkpoint", "show", "--json", "--config", "settings.yaml", **keys)
    assert {row["source"] for row in json.loads(shown.out)} == {"europe", "america"}


_BOTH_ENDS = """
import sys
from otel_alloy.testing.otlp_endpoint import OtlpEndpoint
from otel_alloy.testing.simulator import Simulator, Traffic, timeline

NOW = 1_760_000_000.0
alloy = Simulator(clock=lambda: NOW)
traffic = Traffic(lifecycle="terminal")
days = timeline(int(sys.argv[1]), start=NOW - 59 * 86400, end=NOW - 300, traffic=traffic)
alloy.store.feed(days)
len(alloy.store)
with alloy, OtlpEndpoint(store=False) as otlp:
    print(alloy.endpoint, otlp.http_endpoint, flush=True)
    sys.stdin.readline()
    print(otlp.span_count, otlp.log_record_count, flush=True)
"""
# The largest memory of a child counts from its parent's at the time of the start, so a process of
# a few MB has to stand between this one and the command.
_MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(code, peak * (1 if sys.platform == "darwin" else 1024))
"""


def test_memory(place: Place) -> None:
    """What a drain needs in memory does not depend on how much there is: 200,000 executions
    (OTEL_ALLOY_TEST_SCALE) stay below 150 MB."""
    executions = int(os.environ.get("OTEL_ALLOY_TEST_SCALE", "200000"))
    with subprocess.Popen(
        [sys.executable, "-c", _BOTH_ENDS, str(executions)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as both_ends:
        assert both_ends.stdout is not None
        alloy, otlp = both_ends.stdout.readline().split()
        command = [str(Path(sys.executable).with_name("otel-alloy")), "run", "--once"]
        measured = subprocess.run(
            [sys.executable, "-c", _MEASURE, *command, "--since", "60d", "--page-size", "1000"],
            env=place.environment | {"ALLOY_ENDPOINT": alloy, "OTEL_EXPORTER_OTLP_ENDPOINT": otlp},
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        sent, _ = both_ends.communicate("\n")
    code, peak = (int(word) for word in measured.stdout.split())
    assert code == 0, measured.stderr
    assert sent.split() == [str(executions)] * 2
    assert peak < 150 * 2**20, f"{peak / 2**20:.0f} MB"
