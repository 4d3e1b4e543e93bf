"""Trace ids on real terminals: whole at any usual width, links where there is somewhere to link to,
and no escape sequence where there is no terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import re
from typing import TYPE_CHECKING

import pytest

from otel_alloy.mapping.ids import execution_ids
from otel_alloy.terminal.links import knows_hyperlinks
from otel_alloy.terminal.render import apart

from .screen import Shown, play

if TYPE_CHECKING:
    from conftest import Place

WIDTHS = (80, 120)
URL = "http://localhost:16686/trace/{trace_id}"
KNOWS = {"TERM_PROGRAM": "ghostty"}
PLACES = [
    pytest.param({}, False, id="unknown"),
    pytest.param({"TERM_PROGRAM": "iTerm.app", "TERM_PROGRAM_VERSION": "3.0.15"}, False),
    pytest.param({"TERM_PROGRAM": "iTerm.app", "TERM_PROGRAM_VERSION": "3.1"}, True),
    pytest.param({"TERM_PROGRAM": "iTerm.app"}, False),
    pytest.param({"TERM_PROGRAM": "vscode", "TERM_PROGRAM_VERSION": "1.71.2"}, False),
    pytest.param({"TERM_PROGRAM": "vscode", "TERM_PROGRAM_VERSION": "1.106.0"}, True),
    pytest.param({"TERM_PROGRAM": "WezTerm", "TERM_PROGRAM_VERSION": "20240203-110809-x"}, True),
    pytest.param({"TERM_PROGRAM": "Apple_Terminal", "TERM_PROGRAM_VERSION": "455"}, False),
    pytest.param({"VTE_VERSION": "4602"}, False),
    pytest.param({"VTE_VERSION": "7600"}, True),
    pytest.param({"VTE_VERSION": "new"}, False),
    pytest.param({"TERM": "xterm-kitty"}, True),
    pytest.param({"WT_SESSION": "1"}, True),
    pytest.param({"TERM": "dumb", "VTE_VERSION": "7600"}, False),
    pytest.param({"CI": "true", "VTE_VERSION": "7600"}, False),
    pytest.param({"NO_COLOR": "1", "VTE_VERSION": "7600"}, True),
    pytest.param({"FORCE_HYPERLINK": "1"}, True),
    pytest.param({"FORCE_HYPERLINK": "0", "VTE_VERSION": "7600"}, False),
]


@pytest.mark.parametrize(("environment", "known"), PLACES)
def test_which_terminals_know_hyperlinks(environment: dict[str, str], known: bool) -> None:
    """By what the terminal says of itself, and by FORCE_HYPERLINK before that; a file or a pipe
    never does, whatever the environment says."""
    ours, side = pty.openpty()
    with os.fdopen(ours, "wb"), os.fdopen(side, "w") as terminal:
        assert knows_hyperlinks(terminal, environment) == known
    assert not knows_hyperlinks(terminal, environment)  # closed
    assert not knows_hyperlinks(io.StringIO(), environment)


def _filled(place: Place) -> list[str]:
    """The trace ids of what ended in the last hour."""
    place.fill(12, days=0.04, error_rate=0.3)
    records = place.alloy.store.records()
    ended = [r for r in records if r["message"] != "executionStarted"]
    return [execution_ids(r["data"]["executionUuid"])[0].hex() for r in ended]


def _tail(place: Place, columns: int, **more: str) -> Shown:
    return play(
        ["tail", "--since", "2h"],
        place.environment | more,
        place.folder,
        columns=columns,
        until=lambda text: "live" in text,
    )


@pytest.mark.parametrize("columns", WIDTHS)
def test_ids_are_whole_in_tail(place: Place, columns: int) -> None:
    """Each execution's trace id stands whole on one line of the screen, nothing is wrapped, and
    without `trace_url` there are no links."""
    ids = _filled(place)
    shown = _tail(place, columns, **KNOWS)
    on_screen = re.findall(r"\b[0-9a-f]{32}\b", "\n".join(shown.lines))
    assert sorted(on_screen) == sorted(ids)
    assert shown.links == [] and "\x1b]" not in shown.raw


@pytest.mark.parametrize("columns", WIDTHS)
def test_ids_are_links_in_tail(place: Place, columns: int) -> None:
    """With `trace_url`, a terminal that knows hyperlinks has each id as one, which leads to its
    trace; any other has the address as text, whole, where a line has room for it."""
    ids = _filled(place)
    linked = _tail(place, columns, OTEL_ALLOY_TRACE_URL=URL, NO_COLOR="1", **KNOWS)
    assert sorted(linked.links) == sorted((URL.format(trace_id=each), each) for each in ids)
    assert "localhost:16686" not in "\n".join(linked.lines)
    plain = _tail(place, columns, OTEL_ALLOY_TRACE_URL=URL)
    assert "\x1b]" not in plain.raw
    addresses = [line.strip() for line in plain.lines if "localhost:16686" in line]
    assert sorted(addresses) == sorted(URL.format(trace_id=each) for each in ids)
    long = "https://traces.example.com/of/" + "a-long-path/" * 9 + "{trace_id}"
    without_room = _tail(place, columns, OTEL_ALLOY_TRACE_URL=long)
    assert "traces.example.com" not in without_room.raw
    assert set(ids) == set(re.findall(r"\b[0-9a-f]{32}\b", "\n".join(without_room.lines)))


@pytest.mark.parametrize("columns", WIDTHS)
def test_summary_ends_with_traces(place: Place, columns: int) -> None:
    """The slowest execution and the last that failed are named by their whole ids, which are
    links, and no line is wider than the terminal."""
    ids = _filled(place)
    arguments = ["summary", "--since", "2h"]
    environment = place.environment | {"OTEL_ALLOY_TRACE_URL": URL}
    linked = play(arguments, environment | KNOWS, place.folder, columns=columns)
    assert 2 <= len(linked.links) <= 4 and {text for _, text in linked.links} <= set(ids)
    assert all(address == URL.format(trace_id=each) for address, each in linked.links)
    at = linked.lines.index("Traces worth a look")
    assert linked.lines[at + 1].startswith("slowest  ") and linked.lines[at + 2].startswith(
        "failed"
    )
    plain = play(arguments, environment, place.folder, columns=columns)
    addresses = [line.strip() for line in plain.lines if "localhost:16686" in line]
    assert sorted(addresses) == sorted(address for address, _ in linked.links)


def test_no_escape_sequence_leaves_the_terminal(place: Place) -> None:
    """Into a pipe, addresses are plain text, also where hyperlinks and colours are forced; as JSON
    they have a field."""
    ids = _filled(place)
    forced = {"FORCE_HYPERLINK": "1", "OTEL_ALLOY_TRACE_URL": URL}
    process = place.start("tail", "--since", "2h", **forced)
    assert process.stdout is not None
    lines = [process.stdout.readline().rstrip("\n") for _ in ids]
    process.terminate()
    assert "\x1b" not in "".join(lines)
    assert sorted(line.rsplit("  ", 1)[1] for line in lines) == sorted(
        URL.format(trace_id=each) for each in ids
    )
    for words in ((), ("--json",)):
        assert "\x1b" not in place.command("summary", "--since", "2h", *words, **forced).out
    told = json.loads(place.command("summary", "--since", "2h", "--json", **forced).out)
    for one in told["traces"]:
        assert one["trace_id"] in ids
        assert one["trace_url"] == URL.format(trace_id=one["trace_id"])
    assert told["traces"][0]["why"] == "slowest"


def _failing(place: Place) -> str:
    """Two executions fail; the trace id of the one that failed last."""
    place.fill(2, days=0.01, error_rate=1.0)
    failed = [r for r in place.alloy.store.records() if r["message"] == "executionError"]
    last = max(failed, key=lambda record: str(record["createdAt"]))
    return execution_ids(last["data"]["executionUuid"])[0].hex()


@pytest.mark.parametrize("knows", [True, False])
def test_ids_are_links_in_the_log(place: Place, knows: bool) -> None:
    """A line of the log names the last execution that failed: by its trace id, as a link on a
    terminal that knows them, else by the address."""
    last = _failing(place)
    environment = place.environment | {"OTEL_ALLOY_TRACE_URL": URL} | (KNOWS if knows else {})
    shown = play(["run", "--once", "--since", "1d"], environment, place.folder, columns=300)
    (line,) = [line for line in shown.lines if "failed, the last one is trace" in line]
    named = last if knows else URL.format(trace_id=last)
    assert f"2 failed, the last one is trace {named}; settled up to" in line
    assert shown.links == ([(URL.format(trace_id=last), last)] if knows else [])


def test_the_log_in_a_pipe_has_no_escape_sequence(place: Place) -> None:
    """Addresses are text there, and as JSON fields; without `trace_url` the id alone is named."""
    last = _failing(place)
    named = {}
    for which, environment in (
        ("plain", {}),
        ("linked", {"OTEL_ALLOY_TRACE_URL": URL, "FORCE_HYPERLINK": "1", "FORCE_COLOR": "1"}),
        ("json", {"OTEL_ALLOY_TRACE_URL": URL, "OTEL_ALLOY_LOG_FORMAT": "json"}),
    ):
        storage = f"sqlite:///{place.folder}/{which}.db"
        said = place.once(OTEL_ALLOY_STORAGE=storage, **environment).err
        assert "\x1b]" not in said
        (named[which],) = [text for text in said.splitlines() if "failed, the last" in text]
    assert f"trace {last};" in named["plain"] and "http" not in named["plain"]
    assert f"trace {URL.format(trace_id=last)};" in named["linked"]
    told = json.loads(named["json"])
    assert (told["trace_id"], told["trace_url"]) == (last, URL.format(trace_id=last))


@pytest.mark.parametrize("columns", WIDTHS)
def test_ids_are_whole_in_the_demo(place: Place, columns: int) -> None:
    """While it runs and at its end; no link leads to a backend that has never seen them."""
    shown = play(
        ["demo", "--seconds", "4", "--trace-url", URL],
        KNOWS,
        place.folder,
        columns=columns,
        lines=90,
    )
    words = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", " ", shown.raw)
    live = [word for word in re.findall(r"\b[0-9a-f…]+\b", words) if len(word) > 12]
    assert len(live) > 10 and {len(word) for word in live} == {32}
    worth = shown.lines[shown.lines.index("Traces worth a look") + 1 :]
    worth = worth[: worth.index("")]
    assert worth and all(re.match(r"(slowest|failed )  [0-9a-f]{32}  ", line) for line in worth)
    assert shown.links == []


def test_the_demo_links_to_ones_own_backend(place: Place) -> None:
    """Where the demo sends to the user's endpoint, the ids of what that took are links."""
    shown = play(
        ["demo", "--seconds", "4", "--otlp-endpoint", place.otlp.http_endpoint],
        KNOWS | {"OTEL_ALLOY_TRACE_URL": URL},
        place.folder,
        columns=80,
        lines=90,
    )
    taken = {item.record.trace_id.hex() for item in place.otlp.items("traces")}
    assert shown.links and {text for _, text in shown.links} <= taken
    assert all(address == URL.format(trace_id=each) for address, each in shown.links)


def test_what_tells_apart() -> None:
    """The shortest part that only one id has, at its end or at its begin; whole ids where nothing
    less tells; nothing for names that are there once, and for what has no id but its name."""
    assert apart({"id-1": "a", "id-2": "b", "": "c"}) == {}
    assert apart({"67ef01ed18e6": "a", "67ef01ed9a40": "a", "x": "b"}) == {
        "67ef01ed18e6": "…18e6",
        "67ef01ed9a40": "…9a40",
    }
    assert apart({"1111-shared": "a", "2222-shared": "a"}) == {
        "1111-shared": "1111…",
        "2222-shared": "2222…",
    }
    assert apart({"u1": "Ada", "u2": "Ada", "Ada": "Ada"}) == {"u1": "u1", "u2": "u2"}
    assert apart({"bad\x1b[31m1": "a", "bad\x1b[31m2": "a"}) == {
        "bad\x1b[31m1": "…31m1",
        "bad\x1b[31m2": "…31m2",
    }


@pytest.mark.parametrize("columns", WIDTHS)
def test_summary_tells_two_of_the_same_name_apart(place: Place, columns: int) -> None:
    """Two workflows and two users that are called the same are two rows that can be told apart,
    also where the name has to be cut."""
    name = "Orders of a shop with a name that is longer than any column " * 3
    for number in range(3):
        (record,) = place.fill(1, days=0.01, seed=number + 1, lifecycle="terminal", error_rate=0.0)
        place.alloy.store.remove(record["_id"])
        which = number % 2
        place.alloy.store.add(
            record
            | {"forgeWorkflowId": f"67ef017d8eaeb50b18e635a{which}", "userId": f"user-{which}"}
            | {"user": {"fullName": "Ada Almeida"}}
            | {"forgeWorkflow": record["forgeWorkflow"] | {"name": name}}
        )
    shown = play(["summary", "--since", "1h"], place.environment, place.folder, columns=columns)
    rows = [re.split(r"\s{2,}", line)[0] for line in shown.lines if re.match("Orders|Ada", line)]
    assert [row.rsplit(" ", 1)[1] for row in rows] == ["…35a0", "…35a1", "…er-0", "…er-1"]
    assert all("…" in row.rsplit(" ", 1)[0] for row in rows[:2])
