"""The checkpoint's files: what deletes, exchanges or half writes them is noticed, and looking
creates nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otel_alloy.checkpoint.sqlite import SqliteStore
from otel_alloy.checkpoint.store import Progress, RejectedRecord, Settlement
from otel_alloy.errors import CheckpointError
from otel_alloy.testing.otlp_endpoint import Received

if TYPE_CHECKING:
    from conftest import Place


def delete(file: Path) -> None:
    file.unlink()


def exchange(file: Path) -> None:
    other = file.with_name("other")
    shutil.copy(file, other)
    os.replace(other, file)


@pytest.mark.parametrize("suffix", ["", ".lock", "-wal"])
@pytest.mark.parametrize("what", [delete, exchange])
def test_a_file_that_goes_while_it_is_in_use(tmp_path: Path, suffix: str, what: object) -> None:
    """Where the database, its log or its lock is deleted or exchanged, the next settlement is
    refused, and what was settled before is written beside it."""
    path = tmp_path / "state.db"
    assert callable(what)
    with closing(SqliteStore(path)) as store:
        store.load("s", "f")
        store.settle("s", Settlement(Progress(high=1)))
        what(path.with_name(path.name + suffix))
        with pytest.raises(CheckpointError, match="while it was in use") as refused:
            store.settle("s", Settlement(Progress(high=2)))
        assert "state.db.saved" in str(refused.value)
    saved = tmp_path / "state.db.saved"
    assert saved.stat().st_mode & 0o777 == 0o600
    with closing(SqliteStore(saved)) as found:
        assert found.sources()["s"].high == 1


def test_deleted_under_a_run(place: Place) -> None:
    """`run` ends with 1 and says what to do; moved back, the saved file repeats no more than the
    batch that was being delivered."""
    records = place.fill(600)
    deleted: list[int] = []

    def judge(received: Received) -> None:
        if place.otlp.span_count >= 200 and not deleted:
            deleted.append(1)
            place.storage.unlink()

    place.judge = judge
    words = ("run", "--once", "--since", "60d", "--batch-size", "50", "--page-size", "50")
    done = place.command(*words)
    assert done.code == 1
    assert "was deleted while it was in use" in done.err and "Traceback" not in done.err
    for suffix in ("-wal", "-shm"):
        place.storage.with_name(place.storage.name + suffix).unlink(missing_ok=True)
    os.replace(f"{place.storage}.saved", place.storage)
    done = place.command(*words)
    assert done.code == 0, done.err
    sent = place.sent("traces")
    assert set(sent) == set(place.ended(records))
    assert sum(sent.values()) - len(sent) <= 100
    assert len(place.bytes_sent("traces")) == len(sent)


def test_what_is_left_of_a_deleted_checkpoint(tmp_path: Path) -> None:
    """A write-ahead log without its database is not taken into a new one."""
    path = tmp_path / "state.db"
    (tmp_path / "state.db-wal").write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match="was deleted, but"):
        SqliteStore(path)
    assert not path.exists()


_NO_ROOM = """
import resource, signal, sys
from pathlib import Path
from otel_alloy.checkpoint.sqlite import SqliteStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    SqliteStore(Path(sys.argv[1]))
except Exception as error:
    print(type(error).__name__)
"""


def test_the_first_start_on_a_full_disk(tmp_path: Path) -> None:
    """Where the new file cannot be written nothing is left of it; with room the next start is as
    the first."""
    path = tmp_path / "state.db"
    done = subprocess.run(
        [sys.executable, "-c", _NO_ROOM, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout in ("CheckpointError\n", "CheckpointUnwritable\n"), done.stderr
    assert not [f.name for f in tmp_path.iterdir() if f.name != "state.db.lock"]
    with closing(SqliteStore(path)) as store:
        assert store.sources() == {}
    assert path.stat().st_mode & 0o777 == 0o600


def test_looking_creates_nothing(place: Place) -> None:
    """Commands that look at the checkpoint, or take from it, say that there is none and leave no
    file."""
    for words, said in (
        (("checkpoint", "show"), "no checkpoint yet"),
        (("rejected", "list"), "nothing is set aside"),
        (("rejected", "retry"), "0 delivered"),
        (("rejected", "drop", "--all"), "0 dropped"),
        (("checkpoint", "reset", "default"), "no source 'default'"),
    ):
        done = place.command(*words)
        assert said in done.out + done.err
        assert list(place.folder.iterdir()) == [], words


def rejected(original: str, signals: str = "traces") -> RejectedRecord:
    return RejectedRecord("s", signals, "refused", "ended", original)


def test_a_record_is_set_aside_once(tmp_path: Path) -> None:
    """Who reads a record again and again, such as one without a createdAt newest first, or a
    backfill beside `run`, finds it kept already; what refused it is put together."""
    with closing(SqliteStore(tmp_path / "state.db")) as store:
        store.load("s", "f")
        assert store.settle("s", Settlement(Progress(1), rejected=[rejected("{}")])) == 1
        again = [rejected("{}", "logs"), rejected("[1]")]
        assert store.settle("s", Settlement(Progress(2), rejected=again)) == 1
        assert [(r.original, r.signals) for r in store.rejected()] == [
            ("{}", "traces,logs"),
            ("[1]", "traces"),
        ]
        assert store.drop_rejected([1]) == 1
        assert store.settle("s", Settlement(Progress(3), rejected=[rejected("{}")])) == 1


def test_rejected_records_in_portions(tmp_path: Path) -> None:
    """They can be had by number and a few at a time."""
    with closing(SqliteStore(tmp_path / "state.db")) as store:
        store.load("s", "f")
        store.settle("s", Settlement(Progress(1), rejected=[rejected(f"[{n}]") for n in range(9)]))
        assert [r.number for r in store.rejected(most=2)] == [1, 2]
        assert [r.number for r in store.rejected(after=2, most=2)] == [3, 4]
        assert [r.number for r in store.rejected([2, 5, 7, 99], after=2)] == [5, 7]


def test_one_retry_at_a_time(tmp_path: Path) -> None:
    """A second process that would send the same records again is refused."""
    first, second = SqliteStore(tmp_path / "s.db"), SqliteStore(tmp_path / "s.db", exclusive=False)
    with closing(first), closing(second):
        with (
            first.hold_rejected(),
            pytest.raises(CheckpointError, match="another process"),
            second.hold_rejected(),
        ):
            raise AssertionError("both hold it")
        with second.hold_rejected():
            pass
