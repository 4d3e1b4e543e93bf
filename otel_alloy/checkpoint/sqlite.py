"""The checkpoint in one SQLite file (WAL, standard library).

A transaction is durable before `settle` returns (`synchronous=FULL`). One process at a time reads
Alloy with a file: it holds an exclusive lock on a second, empty database beside it, which the
operating system releases when the process dies, however it dies. Looking at the checkpoint needs
no lock. Only the file, its locks and its errors may live here.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path
from threading import RLock
from typing import Any

from otel_alloy.checkpoint.database import Connection, Hold, T
from otel_alloy.checkpoint.holding import Terms
from otel_alloy.checkpoint.remembered import IN_MEMORY
from otel_alloy.checkpoint.sql_store import SqlStore
from otel_alloy.checkpoint.store import SCHEMA_VERSION
from otel_alloy.errors import CheckpointError, CheckpointUnwritable

_APPLICATION_ID = 0x6F616C79  # "oaly"
_PASSING = frozenset(("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_BUSY"))
_LONGEST = 128 * 2**20
"""Bytes of one text in the file; longer ones are not read."""
# What each column holds that this program computes with; SQLite itself takes anything anywhere.
_INTEGERS = {
    "source": (
        *("begin_at", "high", "window_start", "window_before", "position", "read_to"),
        "known_from",
    ),
    "known": ("first", "last"),
    "audited": ("age", "before"),
    "learned": ("number",),
    "waiting": ("since",),
    "reason": ("at",),
    "workflow_blocks": ("version",),
    "audit_result": ("start", "age", "before", "at", "api", "settled", "recovered"),
    "seen": ("created",),
    "open_execution": ("created", "next_check"),
    "ended_execution": ("until",),
    "rejected": ("number", "at"),
    "backfill": ("start", "before"),
    "slice": ("warm", "start", "before", "position", "high", "records"),
    "outbox": ("number", "at", "first", "last", "executions", "size"),
    "recall": ("number", "first", "last", "executions"),
    "destination": ("paused_at", "delivered", "delivered_at", "missing", "error_at"),
    "filtered": ("minute", "executions"),
}
_TEXTS = {
    "source": ("name", "fingerprint", "visibility"),
    "known": ("source",),
    "audited": ("source",),
    "learned": ("source", "name"),
    "waiting": ("source", "execution", "uuid", "original", "started_at", "enrichment"),
    "reason": ("uuid", "report"),
    "workflow_blocks": ("workflow", "blocks"),
    "audit_result": ("source",),
    "seen": ("source", "id", "message", "ended"),
    "open_execution": ("source", "execution", "original", "started_at"),
    "ended_execution": ("source", "execution"),
    "rejected": ("source", "signals", "reason", "role", "original", "started_at"),
    "backfill": ("source", "fingerprint", "asked"),
    "slice": ("source", "state"),
    "outbox": ("destination", "source"),
    "recall": ("destination", "source"),
    "destination": ("name", "error"),
    "filtered": ("source", "rule"),
}
_FAR = 2**53  # ms: 285,000 years
_DELETED = (
    "move it back, or begin anew: `otel-alloy run` starts where initial_lookback says; what was "
    "settled since then is delivered again, with the same bytes"
)


class SqliteStore(SqlStore):
    """A store in a file: see `SqliteFile` and `SqlStore`."""

    def __init__(self, path: Path, *, exclusive: bool = True, in_memory: int = IN_MEMORY) -> None:
        file = SqliteFile(path, exclusive=exclusive)
        super().__init__(file, in_memory=in_memory)
        self._db = file.db


class SqliteFile:
    """See `Database`. `path`: the file, made with mode 0600 where it does not exist (its folder
    too)."""

    def __init__(self, path: Path, *, exclusive: bool) -> None:
        self._path = path
        self.place = str(path)
        self._mutex = RLock()
        self._owner: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if exclusive:
                self._owner = self._lock()
            if path.exists():
                self._refuse_emptied(path)
            else:
                self._refuse_remains()
                self._create()
            self.db = self._connect(path)
            try:
                self.db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
                self._prepare(self.db)
                self._refuse_odd()
                self._files = self._identities()
            except BaseException:
                self.db.close()
                raise
        except CheckpointError:
            self._release()
            raise
        except (OSError, sqlite3.Error) as error:
            self._release()
            raise self._error(error) from None

    def _create(self) -> None:
        """Makes the file complete under another name first: a full disk or a kill in the middle
        leaves no half of a checkpoint behind."""
        new = self.beside(f".{os.getpid()}.new")
        try:
            os.close(os.open(new, os.O_CREAT | os.O_RDWR, 0o600))
            with closing(self._connect(new)) as db:
                self._prepare(db)
            try:
                os.link(new, self._path)
            except FileExistsError:
                pass  # another process was faster: its file is as good
            except OSError:  # a file system without hard links
                os.rename(new, self._path)
        finally:
            for suffix in ("", "-wal", "-shm"):
                new.with_name(new.name + suffix).unlink(missing_ok=True)

    def _identities(self) -> dict[Path, tuple[int, int]]:
        """Device and inode of each file that has to stay: the database, and where it is held, the
        lock that keeps others away."""
        files = [self._path, self.beside("-wal")]
        if self._owner is not None:
            files.append(self.beside(".lock"))
        found = {file: os.stat(file) for file in files if file.exists()}
        return {file: (status.st_dev, status.st_ino) for file, status in found.items()}

    def _refuse_exchanged(self) -> None:
        """What is written into a deleted file is lost, and beside an exchanged lock another process
        may be at work: that is noticed before anything is written."""
        for file, identity in self._files.items():
            try:
                found = os.stat(file)
            except OSError:
                raise CheckpointError(
                    f"the file {file} was deleted while it was in use{self._saved()}", _DELETED
                ) from None
            if (found.st_dev, found.st_ino) != identity:
                raise CheckpointError(
                    f"the file {file} was exchanged while it was in use{self._saved()}",
                    "stop what else uses it, then start again",
                )

    def _saved(self) -> str:
        """Writes what was settled, which only this process still has, beside the checkpoint; says
        where."""
        copy = self.beside(".saved")
        try:
            with closing(sqlite3.connect(copy)) as target:
                os.chmod(copy, 0o600)
                self.db.backup(target)
        except (OSError, sqlite3.Error):
            return ""
        return f"; what it held is in {copy}"

    def _refuse_emptied(self, path: Path) -> None:
        """A file without a byte was a checkpoint once: taking it for a new one would be a silent
        fresh start."""
        if path.stat().st_size == 0 and not path.with_name(path.name + "-wal").exists():
            raise CheckpointError(
                f"the checkpoint {path} is empty, so it was cut off",
                "restore it, or remove it and choose where to begin with `otel-alloy checkpoint "
                "set`",
            )

    def _refuse_remains(self) -> None:
        """Without the database its write-ahead log says that it was deleted; SQLite would write the
        log into any new one."""
        log = self.beside("-wal")
        if log.exists() and log.stat().st_size:
            raise CheckpointError(
                f"the checkpoint {self._path} was deleted, but {log} is still there",
                "restore the checkpoint, or remove that file too and choose where to begin with "
                "`otel-alloy checkpoint set`",
            )

    def _refuse_odd(self) -> None:
        """What another program, or a person, wrote into the file is found here, not in the middle
        of the work."""
        for table, integers in _INTEGERS.items():
            odd = [
                f"(typeof({c}) NOT IN ('integer','null') OR {c} NOT BETWEEN -{_FAR} AND {_FAR})"
                for c in integers
            ]
            odd += [f"typeof({c}) NOT IN ('text','null')" for c in _TEXTS[table]]
            if self.db.execute(f"SELECT 1 FROM {table} WHERE {' OR '.join(odd)}").fetchone():
                raise CheckpointError(
                    f"the checkpoint {self._path} holds something in its table {table!r} that no "
                    "otel-alloy has written",
                    "restore it, or move it away and choose where to begin with `otel-alloy "
                    "checkpoint set`",
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
        return self._hold(
            ".lock",
            f"another process is using the checkpoint {self._path}",
            "stop it, or give this one its own file with OTEL_ALLOY_STORAGE",
        )

    @contextmanager
    def hold(
        self, name: str, taken: str, remedy: str, terms: Terms | None = None
    ) -> Iterator[Hold]:
        """See `Database.hold`: a lock in a file beside the checkpoint."""
        try:
            lock = self._hold(f".{name}.lock", taken, remedy)
        except (OSError, sqlite3.Error) as error:
            raise CheckpointError(
                f"the lock file beside the checkpoint: {error}", "make the folder writable"
            ) from None
        with closing(lock):
            yield _Locked()

    def _hold(self, suffix: str, taken: str, remedy: str) -> sqlite3.Connection:
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

    def run_is_active(self) -> bool:
        """See `Store.run_is_active`."""
        lock = self.beside(".lock")
        if not lock.exists():
            return False
        try:
            with closing(sqlite3.connect(f"{lock.as_uri()}?mode=ro", timeout=0, uri=True)) as db:
                db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.Error:
            return True
        return False

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Makes a new file a checkpoint, or an older checkpoint one of this schema version."""
        with self._in_transaction(db):
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
                for statement in statements(version):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id={_APPLICATION_ID}")
                db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

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

    def transact(
        self, act: Callable[[Connection], T], units: Sequence[str] = (), call: object = None
    ) -> T:
        """See `Database.transact`; SQLite's errors become ours. Raises CheckpointError also where a
        file was deleted or exchanged meanwhile. One process holds the file, and a commit that fails
        has not happened, so units and calls say nothing here."""
        with self._mutex:
            self._refuse_exchanged()
            with self._in_transaction(self.db):
                return act(self.db)

    def read(self, select: str, values: Sequence[object] = ()) -> list[Any]:
        """See `Database.read`."""
        with self._mutex:
            try:
                return self.db.execute(select, values).fetchall()
            except sqlite3.Error as error:
                raise self._told(error) from None

    @contextmanager
    def _in_transaction(self, db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        with self._mutex:
            try:
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")
            except BaseException as error:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise self._told(error) from None
                raise

    def _told(self, error: sqlite3.Error) -> CheckpointError | CheckpointUnwritable:
        told = self._error(error)
        if _base_name(error) in _PASSING:
            return CheckpointUnwritable(told.problem, told.remedy)
        return told

    def last_number(self, db: Connection, table: str) -> int:
        """See `otel_alloy.checkpoint.migrate.Numbering`."""
        row = db.execute("SELECT seq FROM sqlite_sequence WHERE name=?", (table,)).fetchone()
        return int(row[0]) if row else 0

    def go_on_after(self, db: Connection, table: str, number: int) -> None:
        """See `otel_alloy.checkpoint.migrate.Numbering`."""
        last = max(number, self.last_number(db, table))
        db.execute("DELETE FROM sqlite_sequence WHERE name=?", (table,))
        db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?,?)", (table, last))

    def close(self) -> None:
        """See `Store.close`."""
        with self._mutex:
            self.db.close()
            self._release()

    def _release(self) -> None:
        if self._owner is not None:
            self._owner.close()
            self._owner = None


class _Locked:
    """See `Hold`: a lock ends with its process alone."""

    def holds(self) -> bool:
        """See `Hold.holds`."""
        return True

    def check(self, db: Connection) -> None:
        """See `Hold.check`."""


def statements(version: int) -> Iterator[str]:
    """The SQL that leads from a schema version to this one; 0 is an empty file. The files of
    `sql/` begin with the version they lead to, and each statement ends its line."""
    folder = files("otel_alloy.checkpoint").joinpath("sql")
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.name.endswith(".sql") and int(path.name.split("_")[0]) > version:
            yield from path.read_text().split(";\n")[:-1]


def _base_name(error: Exception) -> str:
    """SQLite's primary result code, e.g. SQLITE_IOERR of SQLITE_IOERR_WRITE."""
    return "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])
