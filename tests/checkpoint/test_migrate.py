"""`otel-alloy storage migrate`: a whole checkpoint goes from one engine to another, or nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from otel_alloy.checkpoint.migrate import NUMBERED, TABLES, migrate
from otel_alloy.checkpoint.outbox import Entry
from otel_alloy.checkpoint.sql_store import SqlStore
from otel_alloy.checkpoint.store import (
    AuditResult,
    Open,
    Plan,
    Progress,
    RejectedRecord,
    Seen,
    Settlement,
    Slice,
    Text,
    Waiting,
    open_slices,
    open_store,
    store_exists,
)
from otel_alloy.errors import CheckpointError
from otel_alloy.testing.postgres_server import PASSWORD

if TYPE_CHECKING:
    from conftest import Place, Servers


def fill(url: str) -> None:
    """Something in every table, of several portions in some."""
    with closing(open_store(url)) as store:
        for source in ("one", "two"):
            store.load(source, "print")
            store.settle(
                source,
                Settlement(
                    Progress(begin=1, high=2**50, window=(1, 9), position=3, read_to=4),
                    seen={(f"r\0{n}", "m"): Seen(n, f"e{n}") for n in range(1100)},
                    opened={f"o{n}": Open('{"a":"\x1a\u2028"}', n, 1, "2025") for n in range(9)},
                    ended={"e": 7},
                    rejected=[
                        RejectedRecord(source, "logs", "why", "ended", f"{n}", resource={"a": True})
                        for n in range(3)
                    ],
                    known={(str(n), "m"): n for n in range(2000)},
                    spans=["e1"],
                    visibility="[]",
                    counted={"separate": 2},
                    waits={"w": Waiting("u", Text("{}"), None, 5)},
                    filtered={(60_000, "rule"): 4},
                    outbox={"acme": [Entry(b"x" * 9, None, n, "r", "ended", "{}") for n in (1, 2)]},
                ),
            )
        store.outbox.spill("acme", 60, 0, ())
        store.outbox.pause("acme", 5)
        store.write_audit("one", AuditResult(60, 1, 2, 3, None, 4))
        store.write_learned("one", "page_size", 7)
        store.write_reason("u", 5, "{}", 0)
        store.write_blocks("w", 1, "{}")
        store.drop_rejected([6])
    with closing(open_slices(url)) as slices:
        slices.begin("one", Plan("print", "--from 1h", 0, 9, [Slice(0, "one", 0, 0, 9)]))


def everything(url: str) -> dict[str, list[Any]]:
    with closing(open_store(url, exclusive=False)) as store:
        assert isinstance(store, SqlStore)
        return {
            table: sorted(
                store.database.read(f"SELECT {', '.join(columns)} FROM {table}"), key=repr
            )
            for table, columns in TABLES.items()
        }


@pytest.mark.parametrize(("origin", "target"), [*permutations(("sqlite", "pgbouncer"), 2)])
def test_all_of_it_is_there_and_goes_on(
    servers: Servers, tmp_path: Path, origin: str, target: str
) -> None:
    """Every row of every table is the same, whichever way; numbers go on where they were, also
    those of rows that are gone; and sources go on with the fingerprints that they had."""
    here, there = servers.storage(origin, tmp_path), servers.storage(target, tmp_path)
    fill(here)
    before = everything(here)
    assert all(before.values()), [table for table, rows in before.items() if not rows]
    found = migrate(here, there)
    assert everything(there) == before == everything(here)
    assert found.rows == {table: len(rows) for table, rows in before.items()}
    with closing(open_store(there)) as store:
        assert store.load("one", "print").whole().open["o1"].created == 1
        store.settle(
            "one", Settlement(Progress(), rejected=[RejectedRecord("one", "", "", "", "")])
        )
        assert [r.number for r in store.rejected()] == [1, 2, 3, 4, 5, 7]


def test_every_table_is_taken_along(tmp_path: Path) -> None:
    """A table or column that is new has to be named, or it would stay behind."""
    open_store(f"sqlite:///{tmp_path}/c.db").close()
    with closing(sqlite3.connect(tmp_path / "c.db")) as db:
        names = db.execute("SELECT name FROM sqlite_schema WHERE type='table'").fetchall()
        found = {
            name: {row[1] for row in db.execute(f"PRAGMA table_info({name})")}
            for (name,) in names
            if not name.startswith("sqlite_")
        }
        numbered = {
            name
            for name, sql in db.execute("SELECT name, sql FROM sqlite_schema WHERE type='table'")
            if "AUTOINCREMENT" in sql
        }
    assert found == {table: set(columns) for table, columns in TABLES.items()}
    assert numbered == set(NUMBERED)


def test_what_is_used_or_full_is_refused(servers: Servers, tmp_path: Path) -> None:
    """A checkpoint that a process uses is not taken away under it; one that is there is given up
    only where that is asked for; where there is none, nothing is made."""
    here, there = (servers.storage(engine, tmp_path) for engine in ("sqlite", "postgres oldest"))
    with pytest.raises(CheckpointError, match="no checkpoint"):
        migrate(here, there)
    assert not store_exists(here) and not store_exists(there)
    fill(here)
    holders: list[tuple[Callable[[str], Any], str]] = [
        (open_store, "another process is using"),
        (open_slices, "`backfill` is using"),
    ]
    for holder, words in holders:
        with closing(holder(here)), pytest.raises(CheckpointError, match=words):
            migrate(here, there)
    with (
        closing(open_store(here, exclusive=False)) as store,
        store.hold_rejected(),
        pytest.raises(CheckpointError, match="rejected retry"),
    ):
        migrate(here, there)
    with closing(open_store(there)) as store:
        store.load("other", "print")
    with pytest.raises(CheckpointError, match=r"already \(source\).*--force"):
        migrate(here, there)
    assert everything(there)["source"][0][0] == "other"
    migrate(here, there, force=True)
    assert everything(there) == everything(here)


def test_broken_off_it_leaves_nothing(servers: Servers, tmp_path: Path) -> None:
    """What the target cannot take, whichever row it is, leaves it empty; afterwards it is simply
    begun again."""
    here, there = (servers.storage(engine, tmp_path) for engine in ("sqlite", "postgres newest"))
    fill(here)
    long = "x" + "".join(f"{n * n:x}" for n in range(3000))  # longer than an index takes
    with closing(open_store(here)) as store:
        store.settle("two", Settlement(Progress(), filtered={(1, long): 1}))
    with pytest.raises(CheckpointError, match="2,700 bytes"):
        migrate(here, there)
    assert not any(everything(there).values())
    with closing(open_store(here)) as store:
        store.settle("two", Settlement(Progress(), forget_known_before=60_000))
    migrate(here, there)
    assert everything(there) == everything(here)


def test_the_command(place: Place, servers: Servers, tmp_path: Path) -> None:
    """It says what it took, where from and where to, and no password."""
    there = servers.storage("postgres oldest", tmp_path)
    fill(f"sqlite:///{place.storage}")
    words = ("storage", "migrate", "--from", f"sqlite:///{place.storage}", "--to", there)
    done = place.command(*words)
    assert done.code == 0, done.err
    assert "2  source" in done.out and "set `storage` to that" in done.out
    assert PASSWORD not in done.out + done.err
    again = place.command(*words)
    assert again.code == 1 and "--force" in again.err and PASSWORD not in again.err
