"""How commands end when they are asked to: Ctrl-C is 130 everywhere and at any moment, SIGTERM an
orderly end of what has none of its own, and there is never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otel_alloy.testing.otlp_endpoint import Answer

if TYPE_CHECKING:
    from conftest import Finished, Place

TRACED = ("Traceback", "KeyboardInterrupt", "Exception ignored")

INTERRUPT_AT = """
import os, signal, sys
at = int(sys.argv.pop(1))
seen = 0

class Count:
    def find_spec(self, name, path=None, target=None):
        global seen
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGINT)
        return None

from otel_alloy.__main__ import main
sys.meta_path.insert(0, Count())
main()
"""
"""Runs a command that gets SIGINT when it imports its module of a certain number."""


def assert_clean(done: Finished) -> None:
    assert not any(words in done.out + done.err for words in TRACED), done.err


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("at", [1, 2, 20, 100, 250, 400])
def test_interrupted_while_it_starts(place: Place, command: str, at: int) -> None:
    """Whatever is being imported: exit code 130, and not a word."""
    words = [command] if command == "check" else [command, "--once"]
    process = subprocess.run(
        [sys.executable, "-c", INTERRUPT_AT, str(at), *words],
        cwd=place.folder,
        env=place.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert not any(words in process.stderr for words in TRACED), process.stderr
    assert process.returncode == 130, (process.returncode, process.stderr)


def wait_until(condition: threading.Event) -> None:
    assert condition.wait(60)


def asked(place: Place) -> threading.Event:
    """Is set by the first request to Alloy, which is answered late."""
    event = threading.Event()

    def clock() -> float:
        event.set()
        return place.now

    place.alloy.clock = clock
    place.alloy.script(*["slow:20"] * 20)
    return event


AT_WORK = {
    "check": ["check"],
    "tail": ["tail", "--since", "1h"],
    "summary": ["summary"],
    "run": ["run"],
    "run --once": ["run", "--once", "--since", "60d"],
    "backfill": ["backfill", "--from", "60d", "--workers", "3"],
    "backfill --dry-run": ["backfill", "--from", "60d", "--dry-run"],
    "check --explain": ["check", "--explain", "35SnGU0DUSNP5L26fsmnq"],
}


@pytest.mark.parametrize("name", AT_WORK)
def test_interrupted_while_alloy_is_asked(place: Place, name: str) -> None:
    """In the middle of a request: 130, soon, and without a traceback."""
    event = asked(place)
    words = [*AT_WORK[name], *(["--shutdown-timeout", "1s"] if "--dry" not in name else [])]
    if name in ("tail", "summary"):
        words = AT_WORK[name]
    process = place.start(*words)
    wait_until(event)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    done = place.end(process)
    assert done.code == 130, done.err
    assert time.monotonic() - begun < 15
    assert_clean(done)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *(("check", 143), ("tail", 143), ("summary", 143), ("backfill --dry-run", 143)),
        *(("run --once", 1), ("backfill", 1)),
    ],
)
def test_terminated_while_alloy_is_asked(place: Place, name: str, code: int) -> None:
    """SIGTERM ends what settles nothing with 143; what has not done its work says so, with 1."""
    event = asked(place)
    process = place.start(*AT_WORK[name])
    wait_until(event)
    process.send_signal(signal.SIGTERM)
    done = place.end(process)
    assert done.code == code, done.err
    assert ("the same command goes on from here" in done.err) == (code == 1)
    assert_clean(done)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_that_has_settled(place: Place, number: signal.Signals) -> None:
    """All that was on its way is settled: SIGTERM is fine, Ctrl-C is 130, and both are silent."""
    place.fill(20)
    process = place.start("run", "--since", "60d", "--collection-interval", "1s")
    assert place.otlp.wait_for(lambda otlp: otlp.log_record_count == 20, 60)
    process.send_signal(number)
    done = place.end(process)
    assert done.code == (0 if number == signal.SIGTERM else 130)
    assert "stopped before" not in done.err
    assert_clean(done)
    settled = place.command("checkpoint", "show").out
    assert settled.startswith("default: settled up to 2025")


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_that_cannot_settle(place: Place, number: signal.Signals, form: str) -> None:
    """A batch that the endpoint does not take until the end is said, and is sent again by the next
    start: exit code 1, after Ctrl-C 130."""
    place.fill(20)
    refused = threading.Event()

    def judge(received: object) -> Answer:
        refused.set()
        return Answer(status=503)

    place.judge = judge
    process = place.start("run", "--since", "60d", "--log-format", form)
    wait_until(refused)
    process.send_signal(number)
    done = place.end(process)
    assert done.code == (1 if number == signal.SIGTERM else 130), done.err
    words = "stopped before what was on its way was settled; the next start sends it again"
    assert words in done.err
    if form == "json":
        assert all(line.startswith("{") for line in done.err.splitlines())
    assert_clean(done)
    place.judge = lambda received: None
    place.once()
    assert place.otlp.log_record_count == 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stand_in_that_is_ended(place: Place, number: signal.Signals) -> None:
    """`simulate` serves until it is ended, so SIGTERM is its end; `demo` would have gone on."""
    process = place.start("simulate", "--port", "0", "--executions", "5")
    assert process.stdout is not None and process.stdout.readline()
    process.send_signal(number)
    done = place.end(process)
    assert done.code == (0 if number == signal.SIGTERM else 130)
    assert_clean(done)

    process = place.start("demo", "--seconds", "60")
    assert process.stdout is not None
    for _ in range(3):  # its page, and executions
        assert process.stdout.readline()
    process.send_signal(number)
    done = place.end(process)
    assert done.code == 128 + number, done.out + done.err
    assert "executions" in done.out
    assert_clean(done)


def test_a_question_that_is_not_answered(place: Place) -> None:
    """Without anybody to ask, a command that would have to ends with exit code 2."""
    (place.folder / "settings.yaml").write_text(
        "destinations: {acme: {match: {user.id: u}, otlp: {endpoint: 'http://127.0.0.1:1'}}}"
    )
    done = place.command("destinations", "drain", "acme", "--drop", "--config", "settings.yaml")
    assert done.code in (0, 2)
    assert_clean(done)


def test_ignored_signals_stay_ignored(place: Place) -> None:
    """What a shell has told the command to ignore while it starts, it ignores."""
    ignore = f"import signal; signal.signal(2, signal.SIG_IGN)\n{INTERRUPT_AT}"
    process = subprocess.run(
        [sys.executable, "-c", ignore, "100", "id", "35SnGU0DUSNP5L26fsmnq"],
        cwd=place.folder,
        env=place.environment | {"PATH": os.environ.get("PATH", str(Path(sys.executable).parent))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
