"""What real endpoints answer, tried from outside: a backend of one signal, one that rejects part or
all of what it acknowledges, one that refuses everything. What is told is what happened."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from otel_alloy.testing.otlp_endpoint import Answer, Received

if TYPE_CHECKING:
    from conftest import Place

RUN = ("run", "--once", "--since", "60d")


def takes_no(signal: str, place: Place) -> None:
    """Makes the endpoint a backend of the other signal only, as Jaeger is one of traces."""

    def judge(received: Received) -> Answer | None:
        return Answer(status=404, body=b"404 page not found") if received.signal == signal else None

    place.judge = judge


@pytest.mark.parametrize(
    ("off", "on", "arrive"),
    [("logs", "traces", "5 spans and 0 log records"), ("traces", "logs", "0 spans and 5 log rec")],
)
def test_a_backend_of_one_signal(place: Place, off: str, on: str, arrive: str) -> None:
    """With the other signal off everything is settled, nothing of it is sent, and the summary
    counts what arrived; a second run has nothing to do."""
    place.fill(5)
    takes_no(off, place)
    variable = {f"OTEL_{off.upper()}_EXPORTER": "none"}
    done = place.command(*RUN, **variable)
    assert done.code == 0, done.err
    assert f"{arrive}" in done.out
    assert f"OTEL_{off.upper()}_EXPORTER is none" in done.err
    assert {r.signal for r in place.otlp.requests} == {on}
    assert "0 spans and 0 log records delivered" in place.command(*RUN, **variable).out


@pytest.mark.parametrize("off", ["logs", "traces"])
def test_a_backend_of_one_signal_is_recognised(place: Place, off: str) -> None:
    """`check` and the first refusal in the log name the variable that turns the signal off."""
    place.fill(2)
    takes_no(off, place)
    remedy = f"OTEL_{off.upper()}_EXPORTER=none"
    checked = place.command("check")
    assert checked.code == 1
    assert f"FAIL  OTLP {off}" in checked.out and remedy in checked.out
    assert f"{off}: off" in place.command("check", **{remedy.split("=")[0]: "none"}).out
    process = place.start(*RUN)
    assert process.stderr is not None
    line = next(line for line in process.stderr if f"cannot deliver {off}" in line)
    process.terminate()
    process.wait()
    assert remedy in line


def test_nothing_is_read_where_nothing_would_be_delivered(place: Place) -> None:
    """Both signals off is a mistake: every execution would be read, and lost."""
    done = place.command(*RUN, OTEL_LOGS_EXPORTER="none", OTEL_TRACES_EXPORTER="none")
    assert done.code == 2 and "set one of them to otlp" in done.err
    assert not place.alloy.requests


def test_an_acknowledgement_that_rejects_everything_delivers_nothing(place: Place) -> None:
    """`rejected_spans=5` of 5: nothing is called delivered, the executions are set aside with the
    endpoint's words, and can be sent again."""
    place.fill(5)
    place.judge = lambda received: Answer(rejected=5, message="older than 7 days")
    done = place.command(*RUN)
    assert done.code == 0
    assert "0 spans and 0 log records delivered" in done.out
    assert "5 set aside" in done.out and "rejected 5 of them: older than 7 days" in done.err
    listed = place.command("rejected", "list").out
    assert listed.count("older than 7 days") >= 5
    place.judge = lambda received: None
    assert place.command("rejected", "retry").code == 0
    assert place.otlp.span_count >= 5
    assert "older than" not in place.command("rejected", "list").out


def test_an_acknowledgement_that_rejects_some_is_counted(place: Place) -> None:
    """`rejected_spans=2` of 5: three are delivered, two are called rejected, with the words."""
    place.fill(5)
    place.judge = lambda received: (
        Answer(rejected=2, message="too old") if received.signal == "traces" else None
    )
    for command in (RUN, ("backfill", "--from", "60d", "--to", "4m", "--workers", "1")):
        done = place.command(*command)
        assert done.code == 0
        assert re.search(r"3 spans and 5 log records delivered", done.out)
        assert "2 spans and 0 log records rejected by the OTLP endpoint" in done.out
        assert "took a request of 5 spans and rejected 2 of them: too old" in done.err


def test_what_is_refused_is_not_called_delivered(place: Place) -> None:
    """400 to all spans: no span is counted as delivered, each execution is set aside, and the log
    records are delivered all the same."""
    place.fill(5)
    place.judge = lambda received: (
        Answer(status=400, message="no such tenant") if received.signal == "traces" else None
    )
    done = place.command(*RUN)
    assert "0 spans and 5 log records delivered" in done.out
    assert "5 set aside" in done.out


def test_what_a_signal_refused_stays_while_it_is_off(place: Place) -> None:
    """`rejected retry` sends nothing of a signal that is off, and does not drop what was refused
    by it; when it is on again, it is delivered."""
    place.fill(3)
    place.judge = lambda received: Answer(status=400) if received.signal == "logs" else None
    place.command(*RUN)
    place.judge = lambda received: None
    sent = len(place.otlp.requests)
    done = place.command("rejected", "retry", OTEL_LOGS_EXPORTER="none")
    assert "OTEL_LOGS_EXPORTER=otlp" in done.out + done.err
    assert len(place.otlp.requests) == sent
    place.command("rejected", "retry")
    assert place.otlp.log_record_count == 3 and place.otlp.span_count == 3


def test_a_retry_that_is_rejected_in_part_drops_nothing(place: Place) -> None:
    """Which of them the endpoint took, it does not tell: all stay."""
    place.fill(3)
    place.judge = lambda received: Answer(status=400)
    place.command(*RUN)
    place.judge = lambda received: Answer(rejected=1, message="too old")
    done = place.command("rejected", "retry")
    assert "does not tell which" in done.out + done.err
    place.judge = lambda received: None
    place.command("rejected", "retry")
    assert "no rejected" in place.command("rejected", "list").out.lower() or (
        "HTTP 400" not in place.command("rejected", "list").out
    )
