"""The checkpoint in one SQLite file (WAL, standard library).

A transaction is durable before `settle` returns (`synchronous=FULL`). One process at a time reads
Alloy with a file: it holds an exclusive lock on a second, empty database beside it, which the
operating system releases when the process dies, however it dies. Looking at the checkpoint needs
no lock. Only SQL and its errors may live here.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from threading import RLock

from otel_alloy.checkpoint.store import (
    SCHEMA_VERSION,
    Open,
    Progress,
    RejectedRecord,
    Seen,
    Settlement,
    State,
)
from otel_alloy.errors import CheckpointError, CheckpointUnwritable

_APPLICATION_ID = 0x6F616C79  # "oaly"
_PASSING = frozenset(("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_BUSY"))
_REJECTED = (
    "SELECT source, signals, reason, role, original, started_at, at, number, attributes"
    " FROM rejected LEFT JOIN rejected_resource USING (number) ORDER BY number"
)
# Beside schema version 3, which does without it: a program that does not know it is not disturbed.
_RESOURCES = (
    "CREATE TABLE IF NOT EXISTS rejected_resource"
    " (number INTEGER PRIMARY KEY, attributes TEXT NOT NULL)"
)


class SqliteStore:
    """`path`: the file, made with mode 0600 where it does not exist (its folder too)."""

    def __init__(self, path: Path, *, exclusive: bool = True) -> None:
        self._path = path
        self._mutex = RLock()
        self._owner: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                self._refuse_emptied(path)
            else:
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise self._error(error) from None
        try:
            if exclusive:
                self._owner = self._lock()
            self._db = self._connect(path)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise
        except CheckpointError:
            self._release()
            raise
        except sqlite3.Error as error:
            self._release()
            raise self._error(error) from None

    def _refuse_emptied(self, path: Path) -> None:
        """A file without a byte was a checkpoint once: taking it for a new one would be a silent
        fresh start."""
        if path.stat().st_size == 0 and not path.with_name(path.name + "-wal").exists():
            raise CheckpointError(
                f"the checkpoint {path} is empty, so it was cut off",
                "restore it, or remove it and choose where to begin with `otel-alloy checkpoint "
                "set`",
            )

    def _connect(self, path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _lock(self) -> sqlite3.Connection:
        return self.hold(
            ".lock",
            f"another process is using the checkpoint {self._path}",
            "stop it, or give this one its own file with OTEL_ALLOY_STORAGE",
        )

    def hold(self, suffix: str, taken: str, remedy: str) -> sqlite3.Connection:
        """Holds the lock in a file beside the checkpoint. Raises CheckpointError(taken, remedy)."""
        path = self.beside(suffix)
        owner = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            os.chmod(path, 0o600)
            owner.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            owner.close()
            if error.sqlite_errorname != "SQLITE_BUSY":
                raise
            raise CheckpointError(taken, remedy) from None
        return owner

    def beside(self, suffix: str) -> Path:
        """A file beside the checkpoint."""
        return self._path.absolute().with_name(self._path.name + suffix)

    def _prepare(self) -> None:
        """Makes a new file a checkpoint, or an older checkpoint one of this schema version."""
        with self.transaction() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            application = db.execute("PRAGMA application_id").fetchone()[0]
            tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            if application != _APPLICATION_ID and (tables or version):
                raise CheckpointError(
                    f"{self._path} is a database, but no checkpoint of otel-alloy",
                    "point OTEL_ALLOY_STORAGE at another file",
                )
            if version > SCHEMA_VERSION:
                raise CheckpointError(
                    f"the checkpoint {self._path} has schema version {version}, this otel-alloy "
                    f"reads up to version {SCHEMA_VERSION}",
                    "use the otel-alloy that wrote it",
                )
            if version < SCHEMA_VERSION:
                for statement in _statements(version):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id={_APPLICATION_ID}")
                db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            db.execute(_RESOURCES)

    def _error(self, error: Exception) -> CheckpointError:
        name = getattr(error, "sqlite_errorname", "") or type(error).__name__
        remedies = {
            "SQLITE_NOTADB": "the file is damaged or something else; restore it, or move it away "
            "and choose where to begin with `otel-alloy checkpoint set`",
            "SQLITE_CORRUPT": "the file is damaged; restore it, or move it away and choose where "
            "to begin with `otel-alloy checkpoint set`",
            "SQLITE_FULL": "make room on the disk; nothing is lost, the batch will be sent again",
            "SQLITE_READONLY": "make the file and its folder writable for this user",
            "SQLITE_CANTOPEN": "make the file and its folder writable for this user",
        }
        remedy = remedies.get(_base_name(error), "check the file, its folder and the disk")
        words = error.strerror if isinstance(error, OSError) else str(error)
        return CheckpointError(f"checkpoint {self._path}: {words} ({name})", remedy)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; SQLite's errors become ours."""
        with self._mutex:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    told = self._error(error)
                    if _base_name(error) in _PASSING:
                        raise CheckpointUnwritable(told.problem, told.remedy) from None
                    raise told from None
                raise

    def load(self, source: str, fingerprint: str) -> State:
        """See `Store.load`."""
        with self.transaction() as db:
            row = db.execute(
                "SELECT fingerprint, begin_at, high, window_start, window_before, position, read_to"
                " FROM source WHERE name=?",
                (source,),
            ).fetchone()
            if row is None:
                db.execute(
                    "INSERT INTO source (name, fingerprint) VALUES (?,?)", (source, fingerprint)
                )
                return State()
            if row[0] == "":  # placed by hand before the first run
                db.execute("UPDATE source SET fingerprint=? WHERE name=?", (fingerprint, source))
            elif row[0] != fingerprint:
                raise CheckpointError(
                    f"the checkpoint of source {source!r} in {self._path} belongs to another "
                    "endpoint, workflow or user filter",
                    "give the new query another source name, or forget the old one with "
                    f"`otel-alloy checkpoint reset {source}`",
                )
            state = State(_progress(row[1:]))
            read_memory(db, source, state)
            return state

    def settle(self, source: str, settlement: Settlement) -> None:
        """See `Store.settle`."""
        p = settlement.progress
        start, before = p.window or (None, None)
        with self.transaction() as db:
            db.execute(
                "UPDATE source SET begin_at=?, high=?, window_start=?, window_before=?, position=?,"
                " read_to=? WHERE name=?",
                (p.begin, p.high, start, before, p.position, p.read_to, source),
            )
            write_memory(db, source, settlement)

    def sources(self) -> dict[str, Progress]:
        """See `Store.sources`."""
        with self.transaction() as db:
            rows = db.execute(
                "SELECT name, begin_at, high, window_start, window_before, position, read_to"
                " FROM source ORDER BY 1"
            )
            return {row[0]: _progress(row[1:]) for row in rows}

    def set_high(self, source: str, high: int) -> None:
        """See `Store.set_high`."""
        with self.transaction() as db:
            db.execute("INSERT OR IGNORE INTO source (name, fingerprint) VALUES (?,'')", (source,))
            db.execute(
                "UPDATE source SET begin_at=?, high=?, window_start=NULL, window_before=NULL,"
                " position=NULL, read_to=NULL WHERE name=?",
                (high, high, source),
            )
            forget_memory(db, source)

    def reset(self, source: str) -> bool:
        """See `Store.reset`."""
        with self.transaction() as db:
            forget_memory(db, source)
            return db.execute("DELETE FROM source WHERE name=?", (source,)).rowcount > 0

    def rejected(self, numbers: Iterable[int] = ()) -> list[RejectedRecord]:
        """See `Store.rejected`."""
        with self.transaction() as db:
            rows = db.execute(_REJECTED).fetchall()
        wanted = set(numbers)
        return [
            replace(RejectedRecord(*fields), resource=json.loads(attributes or "null"))
            for *fields, attributes in rows
            if not wanted or fields[7] in wanted
        ]

    def drop_rejected(self, numbers: Iterable[int]) -> int:
        """See `Store.drop_rejected`."""
        dropped = 0
        with self.transaction() as db:
            for number in numbers:
                db.execute("DELETE FROM rejected_resource WHERE number=?", (number,))
                found = db.execute("DELETE FROM rejected WHERE number=?", (number,))
                dropped += found.rowcount
        return dropped

    def close(self) -> None:
        """See `Store.close`."""
        with self._mutex:
            self._db.close()
            self._release()

    def _release(self) -> None:
        if self._owner is not None:
            self._owner.close()
            self._owner = None


def _statements(version: int) -> Iterator[str]:
    """The SQL that leads from a schema version to this one; 0 is an empty file. The files of
    `sql/` begin with the version they lead to, and each statement ends its line."""
    folder = files("otel_alloy.checkpoint").joinpath("sql")
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if int(path.name.split("_")[0]) > version:
            yield from path.read_text().split(";\n")[:-1]


def read_memory(db: sqlite3.Connection, owner: str, state: State) -> None:
    """Fills `state` with the records and executions that `owner`, a source, remembers."""
    for i, message, created, ended in db.execute(
        "SELECT id, message, created, ended FROM seen WHERE source=? ORDER BY created", (owner,)
    ):
        state.seen[i, message] = Seen(created, ended)
    for execution, *start in db.execute(
        "SELECT execution, original, created, next_check, started_at FROM open_execution"
        " WHERE source=? ORDER BY created",
        (owner,),
    ):
        state.open[execution] = Open(*start)
    state.ended.update(
        db.execute(
            "SELECT execution, until FROM ended_execution WHERE source=? ORDER BY until", (owner,)
        ).fetchall()
    )


def write_memory(db: sqlite3.Connection, owner: str, settlement: Settlement) -> None:
    """Writes all of a settlement but its progress, in the transaction that is open."""
    db.executemany(
        "INSERT OR REPLACE INTO seen VALUES (?,?,?,?,?)",
        [(owner, i, m, s.created, s.ended) for (i, m), s in settlement.seen.items()],
    )
    db.executemany(
        "INSERT OR REPLACE INTO open_execution VALUES (?,?,?,?,?,?)",
        [
            (owner, e, o.text(), o.created, o.next_check, o.started_at)
            for e, o in settlement.opened.items()
        ],
    )
    db.executemany(
        "DELETE FROM open_execution WHERE source=? AND execution=?",
        [(owner, e) for e in settlement.closed],
    )
    db.executemany(
        "INSERT OR REPLACE INTO ended_execution VALUES (?,?,?)",
        [(owner, e, until) for e, until in settlement.ended.items()],
    )
    for r in settlement.rejected:
        row = db.execute(
            "INSERT INTO rejected (source, signals, reason, role, original, started_at, at)"
            " VALUES (?,?,?,?,?,?,?)",
            (r.source, r.signals, r.reason, r.role, r.original, r.started_at, r.at),
        )
        if r.resource is not None:
            attributes = json.dumps(r.resource)
            db.execute("INSERT INTO rejected_resource VALUES (?,?)", (row.lastrowid, attributes))
    db.execute("DELETE FROM seen WHERE source=? AND created<?", (owner, settlement.forget_before))
    db.execute(
        "DELETE FROM ended_execution WHERE source=? AND until<?",
        (owner, settlement.forget_ended_before),
    )


def forget_memory(db: sqlite3.Connection, owner: str) -> None:
    """Forgets all that `owner` remembers."""
    for table in ("seen", "ended_execution", "open_execution"):
        db.execute(f"DELETE FROM {table} WHERE source=?", (owner,))


def _base_name(error: Exception) -> str:
    """SQLite's primary result code, e.g. SQLITE_IOERR of SQLITE_IOERR_WRITE."""
    return "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])


def _progress(row: tuple[int | None, ...]) -> Progress:
    begin, high, start, before, position, read_to = row
    window = (start, before) if start is not None and before is not None else None
    return Progress(high, window, position, begin, read_to)
