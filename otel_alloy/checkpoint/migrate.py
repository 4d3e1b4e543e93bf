"""A checkpoint taken from one database to another, whatever the engines: all of it, or nothing.

It is read and written in one transaction each, so a copy that is broken off leaves the target as it
was, and is simply begun again. What is not a checkpoint (which transaction was written last, who
works at what) stays behind. Nothing here is sent anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from otel_alloy.checkpoint.database import REJECTED, SLICE, Connection, Database
from otel_alloy.checkpoint.leases import Leases
from otel_alloy.checkpoint.postgres_url import is_postgres
from otel_alloy.checkpoint.sql_store import SqlStore
from otel_alloy.checkpoint.store import open_store, store_exists
from otel_alloy.errors import CheckpointError

TABLES = {
    "source": (
        *("name", "fingerprint", "begin_at", "high", "window_start", "window_before", "position"),
        *("read_to", "visibility", "known_from", "facts"),
    ),
    "seen": ("source", "id", "message", "created", "ended"),
    "open_execution": (
        *("source", "execution", "original", "created", "next_check", "started_at"),
    ),
    "ended_execution": ("source", "execution", "until"),
    "rejected": (
        *("number", "source", "signals", "reason", "role", "original", "started_at", "at"),
    ),
    "rejected_detail": ("number", "resource", "identity", "enrichment", "destination"),
    "backfill": ("source", "fingerprint", "asked", "start", "before"),
    "slice": (
        *("number", "source", "warm", "start", "before", "position", "high", "state", "records"),
    ),
    "known": ("source", "last", "first", "packed", "spans"),
    "audited": ("source", "age", "before"),
    "audit_result": (*("source", "start", "age", "before", "at", "api", "settled", "recovered"),),
    "learned": ("source", "name", "number"),
    "waiting": (*("source", "execution", "uuid", "original", "started_at", "since", "enrichment"),),
    "reason": ("uuid", "at", "report"),
    "workflow_blocks": ("workflow", "version", "blocks"),
    "outbox": (
        *("number", "destination", "source", "at", "first", "last", "executions", "size"),
        "packed",
    ),
    "recall": ("number", "destination", "source", "first", "last", "executions", "packed"),
    "destination": (
        *("name", "paused_at", "delivered", "delivered_at", "missing", "error", "error_at"),
    ),
    "filtered": ("source", "minute", "rule", "executions"),
}
NUMBERED = ("rejected", "slice", "outbox", "recall")
"""Tables whose numbers are never used twice, not even those of rows that are gone."""
_ROWS, _BYTES = 500, 4 * 2**20
"""What is written in one statement."""


@runtime_checkable
class Numbering(Protocol):
    """What an engine knows of the numbers that it gives."""

    def last_number(self, db: Connection, table: str) -> int:
        """The latest number that was given; 0 where none was."""
        ...

    def go_on_after(self, db: Connection, table: str, number: int) -> None:
        """Gives higher numbers from now on."""
        ...


@dataclass(frozen=True, slots=True)
class Migrated:
    """How many rows each table has, and where they are now."""

    rows: Mapping[str, int]
    origin: str
    target: str


def migrate(origin: str, target: str, *, force: bool = False) -> Migrated:
    """Takes a checkpoint from one URL to another. `force`: what is at the target is given up.
    Raises CheckpointError where there is none, where a process works with one of them, or where the
    target is not empty."""
    if origin == target:
        raise CheckpointError("both URLs are the same", "name two places")
    if not store_exists(origin):
        raise CheckpointError("there is no checkpoint at the URL of --from", "name where it is")
    with ExitStack() as stack:
        here, there = (_held(stack, url) for url in (origin, target))
        rows = here.transact(
            lambda reading: there.transact(
                lambda writing: _copied(here, reading, there, writing, force)
            )
        )
        return Migrated(rows, here.place, there.place)


def _held(stack: ExitStack, url: str) -> Database:
    """A database with which no other process works: neither `run` nor `backfill`, nor `rejected
    retry`."""
    store = stack.enter_context(closing(open_store(url)))
    assert isinstance(store, SqlStore)
    database = store.database
    if is_postgres(url):
        _refuse_used(database)
        return database
    for name, command in (("backfill", "backfill"), ("rejected", "rejected retry")):
        taken = f"`{command}` is using the checkpoint in {database.place}"
        stack.enter_context(database.hold(name, taken, "wait for its end, or stop it"))
    return database


def _refuse_used(database: Database) -> None:
    """Where processes share a database: no replica may be alive, and no lease valid."""
    board = Leases(database, 0).board()
    leases = [lease for lease in board.leases if lease.valid]
    kinds = {lease.unit.partition(" ")[0] for lease in leases}
    for found, command in (
        (any(one.alive for one in board.replicas), "run"),
        (SLICE in kinds, "backfill"),
        (REJECTED in kinds, "rejected retry"),
        (leases, "run"),
    ):
        if found:
            raise CheckpointError(
                f"`{command}` is using the checkpoint in {database.place}",
                "stop it, on every machine; where it was killed, wait until its lease has expired",
            )


def _copied(
    here: Database, reading: Connection, there: Database, writing: Connection, force: bool
) -> dict[str, int]:
    full = [table for table in TABLES if _count(writing, table)]
    if full and not force:
        raise CheckpointError(
            f"{there.place} holds a checkpoint already ({', '.join(full)})",
            "name an empty one, or give that one up with --force",
        )
    for table in full:
        writing.execute(f"DELETE FROM {table}")
    rows = {}
    for table, columns in TABLES.items():
        names, marks = ", ".join(columns), ",".join("?" * len(columns))
        insert = f"INSERT INTO {table} ({names}) VALUES ({marks})"
        for some in _portions(reading.execute(f"SELECT {names} FROM {table}")):
            writing.executemany(insert, some)
        rows[table], written = (_count(db, table) for db in (reading, writing))
        if written != rows[table]:
            raise CheckpointError(
                f"{there.place} has {written} rows in {table} instead of {rows[table]}",
                "nothing was written; try again while nobody uses either of them",
            )
    assert isinstance(here, Numbering) and isinstance(there, Numbering)
    for table in NUMBERED:
        there.go_on_after(writing, table, here.last_number(reading, table))
    return rows


def _portions(rows: Iterable[Any]) -> Iterator[list[Any]]:
    some: list[Any] = []
    size = 0
    for row in rows:
        some.append(row)
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
        if len(some) >= _ROWS or size >= _BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


def _count(db: Connection, table: str) -> int:
    return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
