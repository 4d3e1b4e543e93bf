"""`--open`: the page is opened for who can see it, and its address is said in any case."""

from __future__ import annotations

import queue
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otel_alloy.terminal.browser import open_page

from .screen import play

if TYPE_CHECKING:
    from conftest import Place

URL = "http://127.0.0.1:8089/"
UNSEEN = [
    pytest.param({"DISPLAY": ":0"}, False, "no terminal", id="in-a-pipe"),
    pytest.param({}, True, "no display", id="without-a-display"),
]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a display")
@pytest.mark.parametrize(("environment", "attended", "why"), UNSEEN)
def test_what_nobody_sees_is_not_opened(
    environment: dict[str, str], attended: bool, why: str
) -> None:
    """Without a terminal or a display nothing is started, and that is said with the address."""
    started: list[str] = []
    words = open_page(URL, started.append, environment, attended=attended)
    assert words == f"page: {URL} (not opened: {why})" and not started


def test_a_page_is_opened_beside_the_work() -> None:
    """A browser that lasts as long as its window holds nothing up."""
    asked: queue.Queue[str] = queue.Queue()
    closed: queue.Queue[None] = queue.Queue()

    def browse(url: str) -> None:
        asked.put(url)
        closed.get(timeout=30)

    words = open_page(URL, browse, {"DISPLAY": ":0"}, attended=True)
    assert words == f"page: {URL} (opened in a browser)"
    assert asked.get(timeout=30) == URL
    closed.put(None)


def _browser(folder: Path) -> tuple[dict[str, str], Path]:
    """The variables for a browser that writes down what it is to open, and where it does."""
    seen, script = folder / "opened", folder / "browser"
    script.write_text(f'#!/bin/sh\necho "$1" > "{seen}.new" && mv "{seen}.new" "{seen}"\n')
    script.chmod(0o755)
    return {"BROWSER": f"{script} %s", "PATH": "/usr/bin:/bin"}, seen


@pytest.mark.parametrize("command", ["run", "demo"])
def test_open_starts_the_users_browser(place: Place, command: str) -> None:
    """`run` and `demo` open their page in the browser that the system has, once, and name it."""
    variables, seen = _browser(place.folder)
    words = ["demo", "--open", "--seconds", "60"]
    if command == "run":
        words = ["run", "--open", "--health-endpoint", "127.0.0.1:0", "--since", "1h"]
    environment = place.environment | variables if command == "run" else variables
    shown = play(
        words,
        environment,
        place.folder,
        columns=120,
        until=lambda text: seen.exists() and ("health" in text or "✓" in text),
    )
    url = seen.read_text().strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
    assert f"page: {url} (opened in a browser)" in shown.raw


def test_open_where_there_is_no_page(place: Place) -> None:
    """It is a mistake, with what to write instead."""
    for words, said in (
        (("--once", "--open"), "with --once there is no page"),
        (("--open", "--health-endpoint", ""), "health_endpoint is off"),
    ):
        done = place.command("run", *words)
        assert done.code == 2 and said in done.err


def test_the_page_is_named_in_a_pipe(place: Place) -> None:
    """Nothing is opened there."""
    variables, seen = _browser(place.folder)
    done = place.command("demo", "--open", "--seconds", "1", **variables)
    assert re.search(r"page: http://127\.0\.0\.1:\d+/ \(not opened: no terminal\)", done.out)
    assert not seen.exists()
