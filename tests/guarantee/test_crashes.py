"""The installed command is killed, the disk full, the folder read-only: no damage, no loss."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from otel_alloy.checkpoint.sqlite import SqliteStore
from otel_alloy.checkpoint.store import Progress, Seen, Settlement
from otel_alloy.errors import CheckpointError, CheckpointUnwritable
from otel_alloy.testing.otlp_endpoint import Answer, OtlpEndpoint, Received
from otel_alloy.testing.simulator import Config, Simulator, Traffic, timeline

from .scale import scaled

COMMAND = Path(sys.executable).with_name("otel-alloy")
BATCH = 20


def environment(folder: Path, alloy: str, otlp: str, **more: str) -> dict[str, str]:
    """What the command sees, and nothing of the machine's own settings."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "ALLOY_API_KEY": "canary-key-7731",
        "ALLOY_ENDPOINT": alloy,
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp,
        "OTEL_ALLOY_STORAGE": f"sqlite:///{folder}/state/checkpoint.db",
        "OTEL_ALLOY_REQUESTS_PER_MINUTE": "0",
        "OTEL_ALLOY_ENRICH": "off",
        "OTEL_ALLOY_BATCH_SIZE": str(BATCH),
        "OTEL_ALLOY_INITIAL_LOOKBACK": "2d",
        "OTEL_ALLOY_COLLECTION_INTERVAL": "1",
        **more,
    }


class TiredEndpoint:
    """Takes what it is sent, but loses acknowledgements and answers 503 now and then."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.copies: dict[str, Counter[bytes]] = {"traces": Counter(), "logs": Counter()}
        self.lost = 0

    def __call__(self, request: Received) -> Answer | None:
        with self._lock:
            drawn = self._random.random()
            if drawn < 0.1:
                return Answer(status=503, headers={"Retry-After": "0"})
            items = [item.record.SerializeToString() for item in request.items()]
            self.copies[request.signal].update(items)
            if drawn < 0.2:
                self.lost += len(items)
                return Answer(connection="lose")
        return None


def at_least(requests: int, end: OtlpEndpoint) -> bool:
    """Whether the endpoint has seen so many requests."""
    return end.request_count >= requests


def integrity(folder: Path) -> str:
    """What SQLite itself says of the state file."""
    path = folder / "state" / "checkpoint.db"
    if not path.exists():
        return "ok"
    db = sqlite3.connect(path)
    try:
        return str(db.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        db.close()


@pytest.mark.parametrize("seed", range(scaled(1, 5)))
def test_killed_at_random_moments(tmp_path: Path, seed: int) -> None:
    """SIGKILL at random moments: every execution arrives, what arrives twice is the same bytes and
    at most one batch per kill, the state file stays sound, and its mode is 0600."""
    kills, executions = scaled(6, 10), scaled(1200, 2400)
    moments = random.Random(seed)
    tired = TiredEndpoint(seed)
    with (
        Simulator(Config(max_limit=30, delay=0.02)) as alloy,
        OtlpEndpoint(tired, store=False) as otlp,
    ):
        now = time.time()
        alloy.store.feed(
            timeline(executions, start=now - 86_400, end=now - 1, traffic=Traffic(seed=seed))
        )
        variables = environment(tmp_path, alloy.endpoint, otlp.http_endpoint)

        def start(*arguments: str) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [COMMAND, "run", *arguments],
                env=variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )

        done = 0
        while done < kills:
            process = start()
            heard = otlp.request_count
            # From the first byte of Python to deep in the traffic.
            if moments.random() < 0.8:
                least = heard + moments.randint(1, 8)
                otlp.wait_for(partial(at_least, least), 5)
            else:
                otlp.wait_for(lambda end: False, moments.random() * 0.6)
            process.send_signal(signal.SIGKILL)
            _, errors = process.communicate()
            assert process.returncode == -signal.SIGKILL, errors.decode()
            assert integrity(tmp_path) == "ok"
            done += 1
        process = start("--once")
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()

    terminal = [
        r for r in alloy.store.records() if r["message"] in ("executionFinished", "executionError")
    ]
    spans, logs = tired.copies["traces"], tired.copies["logs"]
    assert len(spans) == len(terminal) == executions
    assert len(logs) == len(terminal)
    # A batch may hold BATCH - 1 executions and a page more than that.
    allowed = kills * (BATCH + 30) + tired.lost
    assert sum(spans.values()) - len(spans) <= allowed
    assert sum(logs.values()) - len(logs) <= allowed
    state = tmp_path / "state" / "checkpoint.db"
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    for file in [*state.parent.iterdir()]:
        assert b"canary-key-7731" not in file.read_bytes()
    assert b"canary-key-7731" not in output + errors


def settlement(number: int, size: int = 40) -> Settlement:
    """A settlement that needs new pages in the file."""
    seen = {(f"{number}-{i}-" + "x" * 200, "m"): Seen(number) for i in range(size)}
    return Settlement(Progress(high=number), seen=seen)


def test_a_full_disk_is_told_and_survived(tmp_path: Path) -> None:
    """A settlement that finds no room changes nothing and can be called again; after there is room
    it succeeds, and the file is sound at each point."""
    path = tmp_path / "state.db"
    store = SqliteStore(path)
    store.load("a", "f")
    store.settle("a", settlement(1))
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count={pages}")
    for _ in range(2):
        with pytest.raises(CheckpointUnwritable, match="make room on the disk"):
            store.settle("a", settlement(2, 400))
        assert store.sources()["a"].high == 1
        assert store._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    store._db.execute("PRAGMA max_page_count=1000000")
    store.settle("a", settlement(2, 400))
    store.close()
    again = SqliteStore(path)
    assert again.load("a", "f").progress.high == 2
    again.close()


_LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.argv = ["otel-alloy", *sys.argv[2:]]
from otel_alloy.cli import main
main()
"""


def test_the_command_waits_for_room_and_repeats_nothing(tmp_path: Path) -> None:
    """The file cannot grow: the process says so, delivers no batch twice while it waits, and the
    next process, which has room, sends at most that batch again."""
    copies: Counter[bytes] = Counter()

    def count(request: Received) -> None:
        copies.update(item.record.SerializeToString() for item in request.items())

    with Simulator(Config(max_limit=30)) as alloy, OtlpEndpoint(count, store=False) as otlp:
        now = time.time()
        alloy.store.feed(timeline(300, start=now - 60, end=now - 1))
        variables = environment(tmp_path, alloy.endpoint, otlp.http_endpoint)
        process = subprocess.Popen(
            [sys.executable, "-c", _LIMITED, str(160 * 1024), "run"],
            env=variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line.decode()
            if "checkpoint" in said and "disk" in said:
                break
        assert "checkpoint" in said, said
        before = sum(copies.values())
        assert not otlp.wait_for(lambda end: sum(copies.values()) > before, 0.5)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 1, said + errors.decode()
        assert integrity(tmp_path) == "ok"
        once = subprocess.run(
            [COMMAND, "run", "--once"], env=variables, capture_output=True, timeout=60
        )
        assert once.returncode == 0, once.stderr.decode()
    assert len(copies) == 600
    assert sum(copies.values()) - 600 <= 2 * (BATCH + 30)


def test_a_state_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Read-only (as SQLite sees it; permission bits do not bind root): nothing changes, the words
    name the remedy, and it goes on when the file can be written again."""
    store = SqliteStore(tmp_path / "state.db")
    store.load("a", "f")
    store._db.execute("PRAGMA query_only=ON")
    with pytest.raises(CheckpointUnwritable, match="writable for this user"):
        store.settle("a", settlement(1))
    store._db.execute("PRAGMA query_only=OFF")
    store.settle("a", settlement(1))
    assert store.sources()["a"].high == 1
    store.close()


@pytest.mark.parametrize("place", ["/proc/otel-alloy/state.db", "{tmp}/file/state.db", "{tmp}"])
def test_a_folder_that_takes_no_file_is_told(tmp_path: Path, place: str) -> None:
    """No place for the state: exit code 1, one line that names the file, no traceback."""
    (tmp_path / "file").write_text("no folder")
    path = place.replace("{tmp}", str(tmp_path))
    with pytest.raises(CheckpointError, match=path):
        SqliteStore(Path(path))
    result: Any = subprocess.run(
        [COMMAND, "run", "--once"],
        env=environment(tmp_path, "http://127.0.0.1:9", "http://127.0.0.1:9")
        | {"OTEL_ALLOY_STORAGE": f"sqlite:///{path}"},
        capture_output=True,
        timeout=60,
        text=True,
    )
    assert result.returncode == 1
    assert path in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("damage", ["text", "cut", "zeros"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    """A file that is no checkpoint is named with the remedy, and never overwritten."""
    path = tmp_path / "state.db"
    store = SqliteStore(path)
    store.load("a", "f")
    store.settle("a", settlement(1, 400))
    store.close()
    whole = path.read_bytes()
    content = {
        "text": b"this is no database" * 100,
        "cut": whole[: len(whole) // 2],
        "zeros": whole[:4096] + bytes(len(whole) - 4096),
    }[damage]
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="restore it, or move it away"):
        found = SqliteStore(path)
        try:
            found.load("a", "f")
            found.settle("a", settlement(2))
        finally:
            found.close()
    assert path.read_bytes()[:4096] == content[:4096]
