"""What every checkpoint store promises, and what the SQLite file promises besides.

The first part runs on each engine (`ENGINES` in conftest.py).
"""

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from importlib.resources import files
from pathlib import Path

import pytest

from otel_alloy.checkpoint.store import (
    SCHEMA_VERSION,
    AuditResult,
    Open,
    Plan,
    Progress,
    RejectedRecord,
    Seen,
    Settlement,
    Slice,
    Slices,
    State,
    Store,
    Text,
    Waiting,
    open_slices,
    open_store,
)
from otel_alloy.errors import CheckpointError, CheckpointUnwritable, Retry, Stop

OpenStore = Callable[[], Store]


@pytest.fixture
def again(storage: str) -> Iterator[OpenStore]:
    """Opens the same store, as a process does after a restart: what was open is closed first."""
    opened: list[Store] = []

    def restart() -> Store:
        while opened:
            opened.pop().close()
        opened.append(open_store(storage))
        return opened[0]

    yield restart
    while opened:
        opened.pop().close()


FULL = Settlement(
    Progress(begin=500, high=1000, window=(900, 2000), position=1500, read_to=900),
    seen={
        ("a", "executionFinished"): Seen(990, "e1"),
        ("a", "executionStarted"): Seen(980),
        ("", ""): Seen(1000),
    },
    opened={
        "open 1": Open('{"_id":"ü\\u0000"}', 1000, 120_000, "2025-04-29T17:44:10.336Z"),
        "open 2": Open("{}", 990, 240_000, None),
    },
    ended={"e0": 5000, "e2": 2**53},
    rejected=[
        RejectedRecord("s", "traces,logs", "400: why", "ended", '{"_id":"x"}', "2025", at=7),
        RejectedRecord("s", "source", "no `message`", "other", "[]", None, at=8),
    ],
)


def state_of(settlement: Settlement) -> State:
    return State(settlement.progress, settlement.seen, settlement.opened, settlement.ended)


# Every store -------------------------------------------------------------------------------------


def test_a_new_source_begins_empty(again: OpenStore) -> None:
    """Loading an unknown source makes it known, with nothing behind it."""
    store = again()
    assert store.sources() == {}
    assert store.load("s", "print").whole() == State()
    assert store.sources() == {"s": Progress()}
    assert again().load("s", "print").whole() == State()


def test_what_was_settled_is_there_after_a_restart(again: OpenStore) -> None:
    """Progress with its open window, known records, open and ended executions, set-aside records:
    all come back as they went in."""
    store = again()
    store.load("s", "print")
    store.settle("s", FULL)
    assert again().load("s", "print").whole() == state_of(FULL)
    assert again().sources() == {"s": FULL.progress}
    kept = again().rejected()
    assert [k.number > 0 for k in kept] == [True, True]
    told = [(k.source, k.signals, k.reason, k.role, k.original, k.started_at, k.at) for k in kept]
    assert told == [
        ("s", "traces,logs", "400: why", "ended", '{"_id":"x"}', "2025", 7),
        ("s", "source", "no `message`", "other", "[]", None, 8),
    ]


def test_settling_changes_only_what_it_says(again: OpenStore) -> None:
    """A second settlement adds, replaces, closes and forgets; the window can end."""
    store = again()
    store.load("s", "print")
    store.settle("s", FULL)
    changed = Open("{}", 990, 480_000, None)
    store.settle(
        "s",
        Settlement(
            Progress(begin=500, high=6000),
            seen={("b", "executionError"): Seen(5990)},
            opened={"open 2": changed},
            closed={"open 1", "never open"},
            ended={"e3": 9000},
            forget_before=990,
            forget_ended_before=5001,
        ),
    )
    assert again().load("s", "print").whole() == State(
        Progress(begin=500, high=6000),
        {
            ("a", "executionFinished"): Seen(990, "e1"),
            ("", ""): Seen(1000),
            ("b", "executionError"): Seen(5990),
        },
        {"open 2": changed},
        {"e2": 2**53, "e3": 9000},
    )
    assert len(again().rejected()) == 2


def test_memory_comes_back_in_order_of_age(again: OpenStore) -> None:
    """Open executions are loaded oldest first, so that the longest open is asked for first."""
    store = again()
    store.load("s", "print")
    opened = {str(n): Open("{}", created, 1) for n, created in enumerate((5, 1, 9, 3))}
    store.settle("s", Settlement(Progress(), opened=opened))
    assert [o.created for o in again().load("s", "print").whole().open.values()] == [1, 3, 5, 9]


def test_sources_do_not_see_each_other(again: OpenStore) -> None:
    """Two sources in one store: settling, forgetting and resetting one leaves the other alone."""
    store = again()
    for name in ("one", "two"):
        store.load(name, f"print of {name}")
        store.settle(name, FULL)
    store.settle("one", Settlement(Progress(high=1), forget_before=10**12, closed={"open 1"}))
    assert store.reset("one")
    assert again().load("two", "print of two").whole() == state_of(FULL)


def test_another_query_is_refused(again: OpenStore) -> None:
    """A checkpoint is never used for another endpoint or filter: refused with the remedy, and the
    old one is untouched."""
    store = again()
    store.load("s", "print")
    store.settle("s", FULL)
    with pytest.raises(CheckpointError, match="otel-alloy checkpoint reset s") as caught:
        again().load("s", "other print")
    assert isinstance(caught.value, Stop)
    assert again().load("s", "print").whole() == state_of(FULL)


def test_places_for_many_sources(again: OpenStore) -> None:
    """Places that are made together are as those that loading makes: what is there already stays
    as it is, its fingerprint and what was set by hand included."""
    store = again()
    store.load("old", "print")
    store.settle("old", FULL)
    store.set_high("set", 88)
    store.add({"old": "other print", "set": "any", "new": "print of new"})
    assert list(again().sources()) == ["new", "old", "set"]
    assert again().load("old", "print").whole() == state_of(FULL)
    assert again().load("set", "any").whole() == State(Progress(begin=88, high=88))
    assert again().load("new", "print of new").whole() == State()
    for name in ("old", "new"):
        with pytest.raises(CheckpointError, match="otel-alloy checkpoint reset"):
            again().load(name, "yet another")


def test_set_by_hand(again: OpenStore) -> None:
    """`checkpoint set` moves a source, forgets its window and memory, keeps set-aside records, and
    also places a source that no run has seen: the first run then gives it its fingerprint."""
    store = again()
    store.load("s", "print")
    store.settle("s", FULL)
    store.set_high("s", 77)
    store.set_high("new", 88)
    assert again().load("s", "print").whole() == State(Progress(begin=77, high=77))
    assert again().load("new", "any").whole() == State(Progress(begin=88, high=88))
    with pytest.raises(CheckpointError):
        again().load("new", "other")
    assert len(again().rejected()) == 2


def test_reset(again: OpenStore) -> None:
    """A reset source begins anew, under another fingerprint too; what was set aside stays."""
    store = again()
    store.load("s", "print")
    store.settle("s", FULL)
    assert store.reset("s") and not store.reset("s") and not store.reset("unknown")
    assert again().sources() == {}
    assert again().load("s", "other print").whole() == State()
    assert len(again().rejected()) == 2


def test_rejected_records_are_picked_and_dropped_by_number(again: OpenStore) -> None:
    """Numbers are never used twice, so that a number that somebody noted means one record."""
    store = again()
    store.load("s", "print")
    store.settle("s", FULL)
    one, two = (r.number for r in store.rejected())
    assert [r.number for r in store.rejected([two])] == [two]
    assert store.rejected([two + 100]) == []
    assert store.drop_rejected([one, two, two + 100]) == 2
    assert store.drop_rejected([]) == 0 and again().rejected() == []
    again().settle("s", FULL)
    assert min(r.number for r in again().rejected()) > two


def test_a_settlement_is_written_whole_or_not_at_all(again: OpenStore) -> None:
    """When any part cannot be written, nothing of it is there."""
    store = again()
    store.load("s", "print")
    store.settle("s", FULL)
    broken = Settlement(
        Progress(high=9000),
        seen={("new", "executionError"): Seen(8999)},
        rejected=[RejectedRecord("s", "traces", None, "ended", "{}")],  # type: ignore[arg-type]
        forget_before=9000,
    )
    with pytest.raises((CheckpointError, CheckpointUnwritable)):
        store.settle("s", broken)
    assert store.load("s", "print").whole() == state_of(FULL)
    assert again().load("s", "print").whole() == state_of(FULL) and len(again().rejected()) == 2


def test_what_audits_remember(storage: str) -> None:
    """Records are known until they are forgotten, results are kept for eight days, by source; a
    checkpoint that is moved by hand knows nothing of before."""
    day = 86_400_000
    with closing(open_store(storage)) as store:
        for name in ("one", "other"):
            store.load(name, "print")
            store.settle(name, Settlement(Progress(high=5), known={("a", name): 5, ("b", ""): 6}))
        first = AuditResult(60, 0, 10, 20, 3, 2, 1)
        store.write_audit("one", first)
        assert store.audited_to("one") == {60: 10} and store.audits("one", 5, 6) == [first]
        assert (first.missing, first.removed) == (1, 0) and not store.removes("one")
        later = AuditResult(60, 9 * day, 9 * day + 10, 20, 1, 2)
        store.write_audit("one", later)
        assert store.audits("one", 0, 10 * day) == [later] and store.removes("one")
        store.settle("one", Settlement(Progress(high=9), forget_known_before=6))
        assert store.known("one", 0, 10).count(0, 10) == 2, "one block is forgotten as a whole"
        store.settle("one", Settlement(Progress(high=9), forget_known_before=7))
        assert store.known("one", 0, 10).count(0, 10) == 0
        store.set_high("other", 3)
        assert store.known("other", 0, 10).count(0, 10) == 0 and store.known_from("other") == 3
        assert store.reset("one") and store.audits("one", 0, 10 * day) == []


def test_what_is_learned_waits_and_was_told(again: OpenStore) -> None:
    """Numbers by name, executions that wait with what becomes known of them, reasons once and as
    long as they are needed, names of blocks; a reset takes what is the source's own."""
    store = again()
    store.load("s", "print")
    store.write_learned("s", "page_size", 5)
    store.write_learned("s", "page_size", 6)
    store.write_learned("s", "put_off", 2**53)
    store.write_learned("s", "put_off", None)
    waits = {name: Waiting(f"u{name}", Text("{}"), None, at) for name, at in (("b", 2), ("a", 3))}
    store.settle("s", Settlement(Progress(high=1), waits=waits, counted={"separate": 2}))
    store.write_enrichments("s", {"a": "why", "unknown": "x"})
    store.settle("s", Settlement(Progress(high=2), enriched=["b"], counted={"separate": 1}))
    assert again().learned("s") == {"page_size": 6} and again().counted("s") == {"separate": 3}
    assert again().waiting("s") == {"a": Waiting("ua", Text("{}"), None, 3, "why")}
    again().settle("s", Settlement(Progress(high=2), waits={"a": Waiting("n", Text("1"), "t", 9)}))
    assert again().waiting("s") == {"a": Waiting("n", Text("1"), "t", 9)}
    store = again()
    assert store.write_reason("u", 5, "told", 0) and not store.write_reason("u", 6, "again", 0)
    assert store.write_reason("v", 9, "later", 5)
    assert store.reasons(["u", "v", *map(str, range(1000))]) == {"u": "told", "v": "later"}
    assert store.write_reason("w", 9, "", 9) and store.reasons(["u", "v"]) == {"v": "later"}
    assert store.blocks("w", 1) is None
    for text in ("{}", '{"a": "b"}'):
        store.write_blocks("w", 1, text)
    assert again().blocks("w", 1) == '{"a": "b"}' and again().blocks("w", 2) is None
    assert again().reset("s") and again().waiting("s") == {} and again().learned("s") == {}


def test_a_backfill_in_slices(storage: str) -> None:
    """A plan is claimed slice by slice, each once; what is cut off is for others; settled slices
    count their records and are done; a claim that was given back is to be had again."""
    with closing(open_slices(storage)) as slices:
        assert slices.plan("s") is None and slices.claim("s") is None
        parts = [Slice(0, "s", 0, start, start + 10) for start in (0, 10)]
        slices.begin("s", Plan("print", "--from 1h", 0, 20, parts))
        first, second = slices.claim("s"), slices.claim("s")
        assert first is not None and second is not None and slices.claim("s") is None
        assert (first.start, second.start, slices.claimed("s")) == (0, 10, 2)
        assert slices.cut(first, 5, 4) and not slices.cut(second, 15, 14)
        settlement = Settlement(
            Progress(high=2, window=(0, 5), position=2),
            seen={("a", "m"): Seen(1)},
            known={("a", "m"): 1, ("b", "m"): 2, ("far", "m"): 7},
        )
        assert slices.settle(first, settlement) == 0
        assert slices.load(first).whole().seen == {("a", "m"): Seen(1)}
        slices.settle(first, Settlement(Progress(high=4), known={("a", "n"): 1, ("c", "m"): 4}))
        assert slices.settled("s") == 3
        slices.release("s")
        plan = slices.plan("s")
        assert plan is not None and [s.start for s in plan.slices] == [5, 10]
        assert slices.load(first).whole().seen == {}
        later = Plan("print", "--from 2h", 0, 20, parts[:1])
        assert not slices.begin("s", later) and slices.begin("s", later, plan)
        plan = slices.plan("s")
        assert plan is not None and plan.asked == "--from 2h" and len(plan.slices) == 1


def test_workers_never_claim_the_same_slice(storage: str) -> None:
    """However many ask at once, through however many connections."""
    with ExitStack() as stack:
        several = [stack.enter_context(closing(open_slices(storage, held=n > 0))) for n in range(4)]
        parts = [Slice(0, "s", n, n, n + 1) for n in range(40)]
        several[0].begin("s", Plan("print", "all", 0, 40, parts))

        def claim_all(slices: Slices) -> list[int]:
            found = []
            while (piece := slices.claim("s")) is not None:
                found.append(piece.number)
            return found

        with ThreadPoolExecutor(4) as pool:
            numbers = [n for some in pool.map(claim_all, several) for n in some]
        assert len(numbers) == len(set(numbers)) == 40


# The SQLite file ---------------------------------------------------------------------------------


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def in_a_process(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Python code in a process of its own, which talks through its pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], how: signal.Signals = signal.SIGKILL) -> None:
    process.send_signal(how)
    process.communicate(timeout=30)


HOLDER = """
import sys
from otel_alloy.checkpoint.store import open_store
store = open_store(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    """One process at a time reads with a file; a killed one leaves no lock behind. Looking at the
    checkpoint stays possible."""
    url = url_of(tmp_path / "c.db")
    first = in_a_process(HOLDER, url)
    try:
        assert first.stdout is not None and first.stdout.readline() == "open\n"
        with pytest.raises(CheckpointError, match=r"another process .*OTEL_ALLOY_STORAGE"):
            open_store(url)
        with closing(open_store(url, exclusive=False)) as onlooker:
            assert onlooker.sources() == {}
    finally:
        end(first)
    with closing(open_store(url)) as store:
        assert store.load("s", "print").whole() == State()


KILLED = """
import os, signal, sys
from otel_alloy.checkpoint.store import Progress, Seen, Settlement, open_store
from otel_alloy.checkpoint.sqlite import SqliteStore
store = open_store(sys.argv[1])
class Killing(dict):
    def items(self):
        yield from [(("x", str(n)), Seen(n)) for n in range(5000)]
        os.kill(os.getpid(), signal.SIGKILL)
store.settle("s", Settlement(Progress(high=9000), seen=Killing(), forget_before=9000))
"""
KILLED_LATE = """
import os, signal, sys
from otel_alloy.checkpoint.store import Progress, RejectedRecord, Settlement, open_store
store = open_store(sys.argv[1])
class Killing(list):
    def __iter__(self):
        # everything but this and the forgetting is in the transaction by now
        yield RejectedRecord("s", "traces", "r", "ended", "{}")
        os.kill(os.getpid(), signal.SIGKILL)
store.settle("s", Settlement(Progress(high=9000), rejected=Killing(), forget_before=9000))
"""


@pytest.mark.parametrize("code", [KILLED, KILLED_LATE], ids=["early", "late"])
def test_killed_in_the_middle_of_a_transaction(tmp_path: Path, code: str) -> None:
    """SIGKILL while a settlement is written leaves the state before it, whole."""
    url = url_of(tmp_path / "c.db")
    with closing(open_store(url)) as store:
        store.load("s", "print")
        store.settle("s", FULL)
    killed = in_a_process(code, url)
    _, error = killed.communicate(timeout=30)
    assert killed.returncode == -signal.SIGKILL, error
    with closing(open_store(url)) as store:
        assert store.load("s", "print").whole() == state_of(FULL)
        assert len(store.rejected()) == 2


def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    """Open and set-aside records hold people's names: file, journal and lock are 0600 whatever the
    umask; the folder is made where it does not exist."""
    path = tmp_path / "new" / "folder" / "c.db"
    before = os.umask(0)
    try:
        with closing(open_store(url_of(path))) as store:
            store.load("s", "print")
            store.settle("s", FULL)
            modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert {"c.db", "c.db-wal", "c.db-shm", "c.db.lock"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    """A file that is something else is refused with the remedy and not touched."""
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n" * 1000)
    with pytest.raises(CheckpointError, match=r"notes\.txt.*otel-alloy checkpoint set"):
        open_store(url_of(path))
    assert path.read_text() == "my notes\n" * 1000


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    """A SQLite file of another program is refused, and nothing is written into it."""
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE source (name TEXT)")
        other.commit()
    with pytest.raises(CheckpointError, match="no checkpoint of otel-alloy"):
        open_store(url_of(path))
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM sqlite_schema").fetchall() == [("source",)]


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """A file of a later otel-alloy is not guessed at."""
    path = tmp_path / "c.db"
    open_store(url_of(path)).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
        db.commit()
    with pytest.raises(CheckpointError, match=f"schema version {SCHEMA_VERSION + 1}.*wrote it"):
        open_store(url_of(path))
    with pytest.raises(CheckpointError, match="schema version"):
        open_store(url_of(path), exclusive=False)


BESIDE_3 = """
CREATE TABLE rejected_detail (number INTEGER PRIMARY KEY, resource TEXT, identity TEXT NOT NULL
    UNIQUE);
CREATE INDEX open_due ON open_execution (source, created + next_check);
INSERT INTO rejected_detail VALUES (1, '{"a": 1}', 'digest');
"""
"""What programs of version 3 came to keep beside it."""


def old_file(path: Path, version: int, more: str = "") -> None:
    """A checkpoint as a program of that schema version left it, with something in each table."""
    sql = files("otel_alloy.checkpoint").joinpath("sql")
    parts = sorted(p.name for p in sql.iterdir() if p.name[0] in "123456"[:version])
    with closing(sqlite3.connect(path)) as db:
        for name in parts:
            db.executescript(sql.joinpath(name).read_text())
        db.executescript(
            f"PRAGMA user_version={version}; PRAGMA application_id=0x6F616C79;"
            "INSERT INTO source (name, fingerprint, begin_at, high) VALUES ('default','f',1,7);"
            "INSERT INTO seen VALUES ('default','id','executionFinished',7,'e');"
            "INSERT INTO open_execution VALUES ('default','o','{}',6,100,NULL);"
            "INSERT INTO ended_execution VALUES ('default','g',9);"
            "INSERT INTO rejected (source, signals, reason, role, original, at)"
            " VALUES ('default','logs','no','other','{}',5);"
        )
        if version >= 2:
            db.executescript(
                "INSERT INTO backfill VALUES ('default','f','--from 1h',0,5);"
                "INSERT INTO slice (source, warm, start, before) VALUES ('default',0,0,5);"
            )
        db.executescript(more)


@pytest.mark.parametrize(("version", "more"), [(1, ""), (2, ""), (3, ""), (3, BESIDE_3), (4, "")])
def test_an_older_schema_is_taken_forward(tmp_path: Path, version: int, more: str) -> None:
    """A file of each older schema version keeps all that it knows and learns what is new; what is
    settled is known from there on. It is then as a new one is, and refused by older programs."""
    path = tmp_path / "c.db"
    old_file(path, version, more)
    with closing(open_store(url_of(path))) as store:
        remembered = store.load("default", "f")
        assert remembered.progress == Progress(high=7, begin=1)
        state = remembered.whole()
        assert state.seen == {("id", "executionFinished"): Seen(7, "e")}
        assert state.open == {"o": Open("{}", 6, 100)} and state.ended == {"g": 9}
        (rejected,) = store.rejected()
        assert rejected.resource == ({"a": 1} if more else None)
        assert store.known_from("default") == (8 if version < 4 else 1)
        assert store.audited_to("default") == {} and store.learned("default") == {}
        known = Settlement(Progress(high=9), known={("new", ""): 9}, visibility="[]")
        store.settle("default", known)
        assert store.known("default", 0, 10).count(0, 10) == 1
        assert store.visibility("default") == "[]"
        with closing(open_slices(url_of(path))) as slices:
            plan = slices.plan("default")
            assert (plan is None) is (version == 1)
    new = tmp_path / "new.db"
    open_store(url_of(new)).close()
    assert schema_of(path) == schema_of(new)


def schema_of(path: Path) -> set[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        return set(db.execute("SELECT type, name FROM sqlite_schema"))


def test_a_refused_file_is_not_left_locked(tmp_path: Path) -> None:
    """After a refusal, the repaired file opens in the same process."""
    path = tmp_path / "c.db"
    path.write_bytes(b"not a database, but long enough to be looked at " * 40)
    with pytest.raises(CheckpointError):
        open_store(url_of(path))
    path.unlink()
    open_store(url_of(path)).close()


def test_a_damaged_page_is_told(tmp_path: Path) -> None:
    """Damage inside the file is a CheckpointError with the file's name, never a half-read state."""
    path = tmp_path / "c.db"
    with closing(open_store(url_of(path))) as store:
        store.load("s", "print")
        for n in range(50):
            store.settle("s", Settlement(Progress(high=n), opened={str(n): Open("x" * 4000, n, 1)}))
    size = path.stat().st_size
    with path.open("r+b") as file:
        for offset in range(4096, size - 4096, 4096):
            file.seek(offset)
            file.write(b"\xff" * 4096)
    with (
        pytest.raises(CheckpointError, match=r"c\.db"),
        closing(open_store(url_of(path))) as store,
    ):
        store.load("s", "print")


def test_a_full_disk_is_waited_out(tmp_path: Path) -> None:
    """A settlement that finds no room raises CheckpointUnwritable, which is a retry; when there is
    room, the same settlement goes in."""
    path = tmp_path / "c.db"
    with closing(open_store(url_of(path))) as store:
        store.load("s", "print")
        store.settle("s", FULL)
        big = Settlement(Progress(high=9), opened={"big": Open("x" * 400_000, 1, 1)})
        db = store._db  # type: ignore[attr-defined]
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count={pages + 2}")
        with pytest.raises(CheckpointUnwritable, match="make room") as caught:
            store.settle("s", big)
        assert isinstance(caught.value, Retry)
        assert store.load("s", "print").whole() == state_of(FULL)
        db.execute("PRAGMA max_page_count=100000")
        store.settle("s", big)
        assert store.load("s", "print").whole().open["big"].created == 1


def test_a_writer_elsewhere_is_waited_out(tmp_path: Path) -> None:
    """A database that somebody holds (a backup, a curious person) is a retry, too."""
    path = tmp_path / "c.db"
    with closing(open_store(url_of(path))) as store, closing(sqlite3.connect(path)) as holder:
        store.load("s", "print")
        store._db.execute("PRAGMA busy_timeout=1")  # type: ignore[attr-defined]
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(CheckpointUnwritable):
            store.settle("s", FULL)
        holder.rollback()
        store.settle("s", FULL)


def test_a_read_only_database_is_waited_out(tmp_path: Path) -> None:
    """A database that became read-only is a retry with its remedy."""
    with closing(open_store(url_of(tmp_path / "c.db"))) as store:
        store.load("s", "print")
        store._db.execute("PRAGMA query_only=1")  # type: ignore[attr-defined]
        with pytest.raises(CheckpointUnwritable, match="writable"):
            store.settle("s", FULL)
        store._db.execute("PRAGMA query_only=0")  # type: ignore[attr-defined]
        store.settle("s", FULL)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """No right to make the file is told with the place before anything is read."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(CheckpointError, match="locked"):
        open_store(url_of(folder / "c.db"))


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    """A path through a file is told with the place."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file/c"):
        open_store(url_of(tmp_path / "file" / "c.db"))


@pytest.mark.parametrize("url", ["redis://user:canary@host/0", "sqlite:///", "c.db", ""])
def test_an_unknown_store_is_refused_without_its_password(url: str) -> None:
    """A URL of no known store is a configuration mistake; a password in it is not repeated."""
    with pytest.raises(CheckpointError, match="OTEL_ALLOY_STORAGE") as caught:
        open_store(url)
    assert "canary" not in str(caught.value)


def test_a_copied_file_goes_on(tmp_path: Path) -> None:
    """After `close` the one file is everything: moved elsewhere, it continues there."""
    path = tmp_path / "c.db"
    with closing(open_store(url_of(path))) as store:
        store.load("s", "print")
        store.settle("s", FULL)
    moved = tmp_path / "elsewhere.db"
    shutil.copy(path, moved)
    with closing(open_store(url_of(moved))) as store:
        assert store.load("s", "print").whole() == state_of(FULL)


def test_an_emptied_file_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    """A checkpoint that something cut to 0 bytes is an error with a remedy, never a fresh start."""
    path = tmp_path / "checkpoint.db"
    path.touch()
    with pytest.raises(CheckpointError, match="checkpoint set"):
        open_store(f"sqlite:///{path}")
    assert path.stat().st_size == 0
