"""`otel-alloy tail` and `otel-alloy summary`: what they show is what the API holds, once, under the
privacy settings; they leave no trace behind and end cleanly. Order and numbers are computed here
from the records themselves."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from otel_alloy.alloy.timestamps import to_ms, to_text
from otel_alloy.mapping.facts import ExecutionFacts
from otel_alloy.pipeline.query import ExecutionQuery, Wanted
from otel_alloy.runtime import system_runtime
from otel_alloy.terminal.links import TraceLinks
from otel_alloy.terminal.render import Tally, columns
from otel_alloy.terminal.summary import Summary, rendered
from otel_alloy.terminal.tail import as_object, line, row

if TYPE_CHECKING:
    from conftest import Place

    from otel_alloy.testing.simulator import Record

NO_LINKS = TraceLinks()
TERMINAL = ("executionFinished", "executionError")
ODD_APIS = [
    pytest.param({}, id="as-described"),
    pytest.param({"envelope": True}, id="data-envelope"),
    pytest.param({"ignore_filters": True}, id="ignores-filters"),
    pytest.param({"ignore_sort_order": True}, id="ignores-sort-order"),
    pytest.param({"created_at_filter": "nothing"}, id="filter-matches-nothing"),
    pytest.param({"over_limit": "refuse"}, id="limit-is-refused"),
]


def executions(lines: list[str]) -> list[str]:
    return [json.loads(text)["attributes"]["runalloy.execution.id"] for text in lines]


def read(process: subprocess.Popen[str], count: int) -> list[str]:
    """The next lines of standard output; waits for them, and fails where the command ends."""
    assert process.stdout is not None
    patience = threading.Timer(60, process.kill)
    patience.start()
    lines = [process.stdout.readline() for _ in range(count)]
    patience.cancel()
    assert all(lines), process.stderr and process.stderr.read()
    return lines


def interrupt(place: Place, process: subprocess.Popen[str]) -> tuple[str, str]:
    """Presses Ctrl-C; what was written from then on. It has to end well."""
    process.send_signal(signal.SIGINT)
    done = place.end(process)
    assert done.code == 130, done.err
    assert "Traceback" not in done.err
    return done.out, done.err


def recent(place: Place, count: int, **traffic: Any) -> list[Record]:
    """Executions of the last two hours in Alloy's log: their ends, oldest first."""
    return [r for r in place.fill(count, days=1 / 12, **traffic) if r["message"] in TERMINAL]


def an_end(place: Place, number: int, **more: Any) -> Record:
    """The record of an execution that ended a second ago."""
    now = to_text(int(place.now * 1000) - 1000)
    return {
        "_id": f"{number:024x}",
        "message": "executionFinished",
        "data": {"executionId": f"new-{number}", "executionUuid": f"uuid-{number}"},
        **dict.fromkeys(("startedAt", "completedAt", "createdAt"), now),
        **more,
    }


@pytest.mark.parametrize("knobs", ODD_APIS)
def test_tail_shows_each_execution_once(place: Place, knobs: dict[str, Any]) -> None:
    """What ended since the moment that was asked for, and then what ends, once each and in order,
    from an API of any kind; nothing is sent, nothing is stored, and Ctrl-C ends it with 130."""
    ends = recent(place, 60)
    place.alloy.configure(**({"max_limit": 25} | knobs))
    process = place.start("tail", "--json", "--since", "3h", "--interval", "1s")
    shown = executions(read(process, 60))
    assert shown == place.ended(ends)
    for number in range(3):
        place.now += 2
        place.alloy.store.add(an_end(place, number))
        assert executions(read(process, 1)) == [f"new-{number}"]
    assert interrupt(place, process) == ("", "\n") or knobs  # a refused limit is told
    assert place.otlp.request_count == 0
    assert not place.storage.exists()


def test_tail_finds_an_end_that_changed_in_place(place: Place) -> None:
    """A record that becomes an end under its old `_id` and createdAt lies behind what is read; it
    is found by its executionId."""
    started = an_end(place, 1, message="executionStarted", completedAt=None)
    place.alloy.store.add(started)
    place.now += 60
    place.alloy.store.add(an_end(place, 2))
    process = place.start("tail", "--json", "--interval", "1s")
    assert executions(read(process, 1)) == ["new-2"]
    end = to_text(int(place.now * 1000) - 1000)
    place.alloy.store.change(started["_id"], message="executionError", completedAt=end)
    place.now += 300
    (text,) = read(process, 1)
    found = json.loads(text)
    assert (found["execution_uuid"], found["outcome"], found["seconds"]) == ("uuid-1", "error", 60)
    interrupt(place, process)


def test_what_is_running_holds_up_nothing(place: Place) -> None:
    """A question for an execution that is running and fails is put off, not sent again until it is
    answered; what is remembered of thousands that never end is not in memory."""
    for number in range(12_000):
        place.alloy.store.add(an_end(place, number, message="executionStarted", completedAt=None))
    place.now += 60
    place.alloy.store.add(an_end(place, 20_000))
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return False

    settings = place.settings(requests_per_minute=0, page_size=2000)
    query = ExecutionQuery(
        settings,
        settings.sources[0],
        overlap=10,
        runtime=replace(
            system_runtime(), wait=wait, clock=lambda: place.now, monotonic=lambda: place.now
        ),
        report=lambda event: None,
    )
    with query:
        window = query.window(600.0)
        list(query.read(window))
        assert query.running == 12_000
        assert len(query._tracker.state.held().open) <= 2_000
        place.now += 600
        parts = query.follow(query.next_window(window))
        while next(parts).position is not None:
            pass
        asked = len(place.alloy.requests)
        place.alloy.script("500")
        list(parts)
        assert len(place.alloy.requests) == asked + 1 and not any(waits)
        list(query.follow(query.next_window(window)))
        assert query.running == 12_000
        place.now += 86_400
        for left in (10_998, 9_996):  # a thousand, and two that were asked for before
            shown = [len(p.executions) for p in query.follow(query.next_window(window))]
            assert shown[-2:] == [2, 1_000] and query.running == left


def test_tail_shows_a_second_end_as_such(place: Place) -> None:
    """An execution that failed and then finished after all is shown twice, the second time said to
    be so."""
    place.alloy.store.add(an_end(place, 1, message="executionError"))
    process = place.start("tail", "--json", "--interval", "1s")
    first = json.loads(read(process, 1)[0])
    place.now += 2
    place.alloy.store.add(an_end(place, 2, data={"executionId": "new-1"}))
    second = json.loads(read(process, 1)[0])
    assert [(one["outcome"], one["again"]) for one in (first, second)] == [
        ("error", False),
        ("success", True),
    ]
    interrupt(place, process)


def test_tail_filters(place: Place) -> None:
    """By workflow (a part of the name in any case, or the id), by user, and failures only."""
    ends = recent(place, 300, error_rate=0.3)
    one = ends[0]
    name = one["forgeWorkflow"]["name"]

    def shown(*words: str) -> list[str]:
        # A marked end tells that all before it was shown.
        process = place.start("tail", "--json", "--since", "3h", *words)
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or json.loads(lines[-1])["execution_uuid"] != "uuid-9":
            lines += read(process, 1)
        interrupt(place, process)
        return executions(lines[:-1])

    last = {**one, **an_end(place, 9, message="executionError")}
    place.alloy.store.add(last)

    def wanted(test: Any) -> list[str]:
        return place.ended(r for r in ends if test(r))

    by_name = wanted(lambda r: r["forgeWorkflow"]["name"] == name)
    assert shown("--workflow", name[2:-2].upper()) == by_name
    assert shown("--workflow", one["forgeWorkflowId"]) == by_name
    assert shown("--user", one["userId"]) == wanted(lambda r: r["userId"] == one["userId"])
    assert shown("--errors") == wanted(lambda r: r["message"] == "executionError")


def test_privacy(place: Place) -> None:
    """Where personal data is dropped or hashed, neither command shows any of it, in any form."""
    ends = recent(place, 40)
    secrets = {r["user"]["email"] for r in ends} | {r["user"]["fullName"] for r in ends}
    for choice in ("drop", "hash"):
        variables = {
            "OTEL_ALLOY_PRIVACY_USER_EMAIL": choice,
            "OTEL_ALLOY_PRIVACY_USER_FULL_NAME": choice,
            "OTEL_ALLOY_PRIVACY_KEY": "a-key",
        }
        texts = []
        for words in (["--json"], []):
            done = place.command("summary", "--since", "3h", *words, **variables)
            assert done.code == 0, done.err
            process = place.start("tail", "--since", "3h", *words, **variables)
            texts += [done.out, *read(process, 40)]
            interrupt(place, process)
        together = "".join(texts)
        assert not [secret for secret in secrets if secret in together]
        assert ends[0]["userId"] in together
        assert ('"user.hash"' in together) == (choice == "hash")


@pytest.mark.parametrize("knobs", ODD_APIS)
def test_summary_adds_up(place: Place, knobs: dict[str, Any]) -> None:
    """Counts, errors and percentiles (nearest rank), of all and by workflow and customer, are those
    of the records, from an API of any kind; what ended before is not counted."""
    place.fill(50, days=3, seed=7)
    older = {r["_id"] for r in place.alloy.store.records()}
    since = to_text(int((place.now - 7200) * 1000))
    recent(place, 300, error_rate=0.2)
    ends = [
        r
        for r in place.alloy.store.records()
        if r["message"] in TERMINAL and r["createdAt"] >= since
    ]
    assert older and 300 <= len(ends) < 350
    place.alloy.configure(**({"max_limit": 80} | knobs))
    done = place.command("summary", "--since", since, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)

    def measures(records: list[Record]) -> dict[str, Any]:
        times = [(to_ms(r["startedAt"]), to_ms(r["completedAt"])) for r in records]
        seconds = sorted((end - start) / 1000 for start, end in times if start and end)
        errors = sum(r["message"] == "executionError" for r in records)
        return {
            "executions": len(records),
            "errors": errors,
            "incomplete": 0,
            "error_rate": round(errors / len(records), 4),
            "p50_seconds": seconds[ceil(0.5 * len(seconds)) - 1],
            "p95_seconds": seconds[ceil(0.95 * len(seconds)) - 1],
        }

    assert told["all"] == measures(ends)
    assert (told["from"], told["complete"], told["unreadable"]) == (since, True, 0)
    there = sum(r["createdAt"] >= since for r in place.alloy.store.records())
    counting = not knobs.keys() & {"ignore_filters", "created_at_filter"}
    assert told["records"] == {"read": there, "counted": there if counting else None}
    for key, field in (("workflows", "forgeWorkflowId"), ("customers", "userId")):
        groups: dict[str, list[Record]] = defaultdict(list)
        for record in ends:
            groups[record[field]].append(record)
        shown = {group.pop("id"): group for group in told[key]}
        assert {name: group | {"name": None} for name, group in shown.items()} == {
            name: {"name": None, **measures(records)} for name, records in groups.items()
        }
        counts = [group["executions"] for group in told[key]]
        assert counts == sorted(counts, reverse=True)
    names = {r["forgeWorkflow"]["name"] for r in ends}
    assert {group["name"] for group in told["workflows"]} == names
    assert place.otlp.request_count == 0
    assert not place.storage.exists()


@pytest.mark.parametrize("command", ["summary", "tail"])
def test_records_that_alloy_does_not_give_are_told(place: Place, command: str) -> None:
    """`summary` and `tail` show what they can, and say how many records are left out."""
    recent(place, 30)  # so few that what `tail` writes fits into a pipe
    moments = sorted(to_ms(r["createdAt"]) or 0 for r in place.alloy.store.records())
    place.alloy.configure(hidden=(moments[25], moments[35]))
    if command == "summary":
        done = place.command("summary", "--since", "3h", "--json")
        told = json.loads(done.out)
        assert told["unreachable"] >= 10 and told["all"]["executions"] > 0
        assert told["records"]["counted"] - told["records"]["read"] >= 10
        shown = place.command("summary", "--since", "3h").out
        assert re.search(r"\d+ of 60 records that Alloy counts were read; \d+ are missing", shown)
    else:
        process = place.start("tail", "--since", "3h", "--json", "--interval", "1s")
        assert process.stderr is not None
        patience = threading.Timer(60, process.kill)
        patience.start()
        first = process.stderr.readline()
        patience.cancel()
        process.send_signal(signal.SIGINT)
        done = place.end(process)
        done = replace(done, err=first + done.err)
        assert executions(done.out.splitlines())
    assert done.code == (0 if command == "summary" else 130), done.err
    words = r"Alloy has \d+ records .* that no request brings: they are left out"
    assert len(re.findall(words, done.err)) == 1


def test_summary_plain(place: Place) -> None:
    """Into a pipe: no colour, nothing shortened, a bar for each row, the rest as one row; `--by`
    leaves the other table out."""
    ends = recent(place, 200)
    done = place.command("summary", "--since", "3h", "--by", "workflow", "--top", "3")
    assert (done.code, done.err) == (0, "")
    assert "\x1b" not in done.out
    lines = done.out.splitlines()
    assert lines[-1] == "400 of 400 records that Alloy counts were read."
    assert lines[1].startswith(f"executions {len(ends)}, errors ")
    counts = Counter(r["forgeWorkflow"]["name"] for r in ends)
    rows = [text for text in lines if any(text.startswith(name) for name in counts)]
    assert len(rows) == 3
    for text in rows:
        name = next(name for name in counts if text.startswith(name))
        assert text.removeprefix(name).split()[0] == str(counts[name])
        assert "█" in text
    assert any(text.startswith(f"{len(counts) - 3} others") for text in lines)
    assert not any(text.startswith("customer") for text in lines)


def test_summary_of_nothing(place: Place) -> None:
    """Says so, and how to look further back."""
    done = place.command("summary")
    assert done.code == 0
    assert "No execution ended in this time" in done.out
    assert json.loads(place.command("summary", "--json").out)["all"]["executions"] == 0


def test_summary_cut_short(place: Place) -> None:
    """Ctrl-C shows what was read until then, marked as not complete, and ends with 130."""
    recent(place, 20)
    asked = threading.Event()
    process: list[subprocess.Popen[str]] = []

    def clock() -> float:
        asked.set()
        return place.now

    place.alloy.clock = clock
    # One request a minute: the second one waits longer than this test.
    process.append(place.start("summary", "--json", OTEL_ALLOY_REQUESTS_PER_MINUTE="1"))
    assert asked.wait(60)
    process[0].send_signal(signal.SIGINT)
    done = place.end(process[0])
    assert done.code == 130, done.err
    assert json.loads(done.out)["complete"] is False
    assert len(place.alloy.requests) == 1


def test_the_request_budget_is_kept(place: Place) -> None:
    """At one request a minute, each but the first waits a minute more than the one before."""
    recent(place, 5)
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return False

    settings = place.settings(requests_per_minute=1)
    query = ExecutionQuery(
        settings,
        settings.sources[0],
        overlap=10,
        runtime=replace(
            system_runtime(), wait=wait, clock=lambda: place.now, monotonic=lambda: place.now
        ),
        report=lambda event: None,
    )
    with query:
        parts = list(query.read(query.window(7200.0)))
    assert sum(len(part.executions) for part in parts) == 5
    assert query.requests == len(waits) == len(place.alloy.requests) >= 3
    # They add up, as no time passes here.
    assert [round(wait / 60) for wait in waits] == list(range(len(waits)))


@pytest.mark.parametrize("command", ["tail", "summary"])
def test_what_cannot_be_shown(place: Place, command: str) -> None:
    """A refused key ends with 3, wrong usage with 2, each with one line that names the remedy."""
    place.alloy.configure(api_key="another")
    refused = place.command(command)
    assert refused.code == 3
    assert "check ALLOY_API_KEY" in refused.err
    unknown = place.command(command, "--source", "nobody")
    assert unknown.code == 2
    assert "there is no source 'nobody'; known are default" in unknown.err
    moment = place.command(command, "--since", "yesterday")
    assert moment.code == 2
    assert "--since" in moment.err
    for done in (refused, unknown, moment):
        assert done.out == ""
        assert "Traceback" not in done.err


def test_a_request_that_fails_is_told_and_tried_again(place: Place) -> None:
    """On standard error, so that a pipe gets results only."""
    recent(place, 5)
    place.alloy.script("503")
    done = place.command("summary", "--json", "--since", "3h")
    assert done.code == 0
    assert json.loads(done.out)["all"]["executions"] == 5
    assert "answered 503; trying again in" in done.err


def test_tail_on_a_terminal(place: Place) -> None:
    """On a real terminal of 80 columns: a head, a line for each, a status, and the sums at Ctrl-C,
    after which the shell has its cursor back."""
    recent(place, 5)
    shell, terminal = pty.openpty()
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("otel-alloy")), "tail", "--since", "3h"],
        cwd=place.folder,
        env=place.environment | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    try:
        text = ""
        while "live" not in text:
            text += os.read(shell, 4096).decode()
        assert text.count("✓") + text.count("✗") == 5
        assert "5 shown" in text
        process.send_signal(signal.SIGINT)
        while chunk := _read(shell):
            text += chunk
        assert process.wait(60) == 130
        assert "5 shown, " in text
        assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # cursor on again
        assert "Traceback" not in text
    finally:
        process.kill()
        process.wait()
        os.close(shell)


def _read(shell: int) -> str:
    """What the terminal shows next; nothing once the command has ended (an error on Linux)."""
    try:
        return os.read(shell, 4096).decode()
    except OSError:
        return ""


def an_execution(number: int = 0, outcome: str = "success", **more: Any) -> ExecutionFacts:
    given: dict[str, Any] = {
        "trace_id": number.to_bytes(16),
        "span_id": number.to_bytes(8),
        "start": (1_760_000_000 - number) * 10**9 - 1_500_000_000,
        "end": (1_760_000_000 - number) * 10**9,
        "workflow": "A workflow with a long name, from one shop to another " * 2,
        "attributes": {"user.full_name": "Somebody with several names " * 3},
    } | more
    given["attributes"] |= {"runalloy.execution.outcome": outcome}
    return ExecutionFacts(**given)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    """Neither a row of `tail` nor anything in `summary` wraps, and the trace id is whole at any
    width: from 110 columns on in the row, else in a line of its own."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, _environ={})
    console.no_color = True
    summary = Summary(1_760_000_000_000 - 86_400_000, 1_760_000_000_000)
    for number in range(200):
        outcome = "error" if number % 9 == 0 else "success"
        attributes = {"user.full_name": f"User {number} " * 9}
        one = an_execution(number * 400, outcome, attributes=attributes)
        summary.add(one)
        if number < 20:
            console.print(row(one, width, NO_LINKS))
    assert isinstance(console.file, io.StringIO)
    rows = console.file.getvalue().splitlines()
    assert len(rows) == (20 if width >= 110 else 40)
    rows = [_without_styles(text) for text in rows if f"{400:032x}" in _without_styles(text)]
    assert [text.startswith(" " * 13) for text in rows] == [width < 110]
    summary.complete = True
    console.print(rendered(summary, ("workflow", "customer"), console, NO_LINKS, 10))
    lines = console.file.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()
    plain = [_without_styles(text) for text in lines]
    assert max(cell_len(text) for text in plain) <= width
    assert any("190 others" in text for text in plain)


@pytest.mark.parametrize("width", [60, 120])
def test_a_failure_tells_why_within_the_terminal(width: int) -> None:
    """Block and reason stand in one line below a row of `tail`, and in tables of `summary`, in no
    line that is wider than the terminal; a reason cannot write to it. What differs only in details
    is one reason."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, _environ={})
    console.no_color = True
    summary = Summary(1_760_000_000_000 - 86_400_000, 1_760_000_000_000)
    where = {"runalloy.block.name": "Create\x1b[31m order", "runalloy.reason.source": "errors"}
    many = [
        an_execution(
            number,
            "error",
            attributes={"user.full_name": "User", **(where if number else {})},
            reason=f"No customer {number} ('id-{number}') " + "of that\nname " * 9 * bool(number),
        )
        for number in range(5)
    ]
    for one in many:
        summary.add(one)
    summary.explain(many)
    console.print(row(many[1], width, NO_LINKS))
    assert isinstance(console.file, io.StringIO)
    first, *_, second = map(_without_styles, console.file.getvalue().splitlines())
    assert "at Create [31m order: No customer 1 ('id-1') of that name"[: width - 14] in second
    assert len(first) <= width and len(second) <= width and second.rstrip().endswith("…")
    summary.complete = True
    console.print(rendered(summary, ("workflow", "customer"), console, NO_LINKS, 10))
    lines = [_without_styles(text) for text in console.file.getvalue().splitlines()]
    assert max(cell_len(text) for text in lines) <= width and "\x1b" not in "".join(lines)
    assert len([text for text in lines if "No customer" in text]) == 1 + 2 * 2
    told = summary.as_object(("customer",), NO_LINKS)["failures"]
    assert (told["reason_known"], told["block_known"]) == (4, 4)
    assert [one["failures"] for one in told["customers"]] == [4, 1]
    assert "the reason of 4 is known" in " ".join(lines)


def _without_styles(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_names_cannot_write_to_the_terminal(place: Place) -> None:
    """Escape sequences and line breaks in a name stay what they are: text on one line."""
    place.alloy.store.add(
        an_end(place, 1, forgeWorkflow={"name": "red \x1b[31m\nnext"}, user={"fullName": "a\rb"})
    )
    process = place.start("tail")
    (text,) = read(process, 1)
    interrupt(place, process)
    assert text.rstrip().endswith("  red [31m next, a b")
    assert "\x1b" not in place.command("summary").out


def test_wanted_and_forms() -> None:
    """Nothing given matches all; a user is matched whole; the plain and the JSON form agree."""
    attributes = {"user.id": "u1", "user.full_name": "Ada"}
    one = an_execution(3, workflow="Orders", attributes=attributes)
    assert Wanted()(one)
    assert Wanted(workflow="order", user="u1")(one)
    assert not Wanted(user="u")(one)
    assert not Wanted(errors=True)(one)
    assert line(one) == f"2025-10-09T08:53:17.000Z  ok        1.5 s  {3:032x}  Orders, Ada"
    shown = as_object(one)
    assert (shown["ended"], shown["started"]) == (
        "2025-10-09T08:53:17.000Z",
        "2025-10-09T08:53:15.500Z",
    )
    assert columns([0, 1, 8]) == " ▁█"
    assert Tally().as_object()["p50_seconds"] is None
