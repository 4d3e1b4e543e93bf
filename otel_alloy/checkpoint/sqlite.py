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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path
from threading import RLock
from typing import Any

from otel_alloy.checkpoint.audits import (
    forget_audits,
    read_audits,
    read_known,
    write_audit,
    write_known,
)
from otel_alloy.checkpoint.known import Known
from otel_alloy.checkpoint.outbox_sql import (
    SqliteOutbox,
    forget_filtered,
    read_filtered,
    write_outbox,
)
from otel_alloy.checkpoint.rejections import drop_rejected, read_rejected, set_aside
from otel_alloy.checkpoint.remembered import (
    IN_MEMORY,
    Remembered,
    forget_memory,
    write_memory,
)
from otel_alloy.checkpoint.store import (
    SCHEMA_VERSION,
    AuditResult,
    Progress,
    RejectedRecord,
    Settlement,
    Waiting,
)
from otel_alloy.checkpoint.waiting import (
    forget_waiting,
    read_blocks,
    read_reasons,
    read_waiting,
    write_blocks,
    write_enrichments,
    write_reason,
    write_waiting,
)
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


class SqliteStore:
    """`path`: the file, made with mode 0600 where it does not exist (its folder too). `in_memory`:
    see `Remembered`."""

    def __init__(self, path: Path, *, exclusive: bool = True, in_memory: int = IN_MEMORY) -> None:
        self._path = path
        self._in_memory = in_memory
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
            self._db = self._connect(path)
            try:
                self._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
                self._prepare(self._db)
                self._refuse_odd()
                self._files = self._identities()
            except BaseException:
                self._db.close()
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
                self._db.backup(target)
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
            if self._db.execute(f"SELECT 1 FROM {table} WHERE {' OR '.join(odd)}").fetchone():
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

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; SQLite's errors become ours. Raises CheckpointError also where a file was
        deleted or exchanged meanwhile."""
        with self._mutex:
            self._refuse_exchanged()
            with self._in_transaction(self._db) as db:
                yield db

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

    def add(self, sources: Mapping[str, str]) -> None:
        """See `Store.add`."""
        with self.transaction() as db:
            db.executemany(
                "INSERT OR IGNORE INTO source (name, fingerprint) VALUES (?,?)", sources.items()
            )

    def load(self, source: str, fingerprint: str) -> Remembered:
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
                return self.remembered(source, Progress())
            if row[0] == "":  # placed by hand before the first run
                db.execute("UPDATE source SET fingerprint=? WHERE name=?", (fingerprint, source))
            elif row[0] != fingerprint:
                raise CheckpointError(
                    f"the checkpoint of source {source!r} in {self._path} belongs to another "
                    "endpoint, workflow or user filter",
                    "give the new query another source name, or forget the old one with "
                    f"`otel-alloy checkpoint reset {source}`",
                )
            return self.remembered(source, _progress(row[1:]))

    def remembered(self, owner: str, progress: Progress) -> Remembered:
        """What is remembered under a name."""
        return Remembered(self.read, owner, progress, in_memory=self._in_memory)

    def read(self, select: str, values: Sequence[object] = ()) -> list[Any]:
        """The rows of a SELECT. Raises CheckpointUnwritable where the same call may succeed
        later, else CheckpointError."""
        with self._mutex:
            try:
                return self._db.execute(select, values).fetchall()
            except sqlite3.Error as error:
                raise self._told(error) from None

    def settle(self, source: str, settlement: Settlement) -> int:
        """See `Store.settle`."""
        s, p = settlement, settlement.progress
        start, before = p.window or (None, None)
        with self.transaction() as db:
            db.execute(
                "UPDATE source SET begin_at=?, high=?, window_start=?, window_before=?, position=?,"
                " read_to=?, visibility=coalesce(?, visibility) WHERE name=?",
                (p.begin, p.high, start, before, p.position, p.read_to, s.visibility, source),
            )
            if s.counted:
                _add_counts(db, source, s.counted)
            write_known(db, source, s)
            if s.waits or s.enriched:
                write_waiting(db, source, s)
            if s.outbox or s.filtered or s.forget_known_before:
                write_outbox(db, source, s)
            return write_settlement(db, source, s)

    def known(self, source: str, start: int, before: int) -> Known:
        """See `Store.known`."""
        return read_known(self.read, source, start, before)

    def known_from(self, source: str) -> int | None:
        """See `Store.known_from`."""
        rows = self.read("SELECT coalesce(known_from, begin_at) FROM source WHERE name=?", [source])
        return rows[0][0] if rows else None

    def visibility(self, source: str) -> str | None:
        """See `Store.visibility`."""
        rows = self.read("SELECT visibility FROM source WHERE name=?", [source])
        return rows[0][0] if rows else None

    def counted(self, source: str) -> dict[str, int]:
        """See `Store.counted`."""
        rows = self.read("SELECT facts FROM source WHERE name=?", [source])
        return _counts(rows[0][0]) if rows else {}

    def audited_to(self, source: str) -> dict[int, int]:
        """See `Store.audited_to`."""
        return dict(self.read("SELECT age, before FROM audited WHERE source=?", [source]))

    def removes(self, source: str) -> bool:
        """See `Store.removes`."""
        return bool(
            self.read("SELECT 1 FROM audit_result WHERE source=? AND api<settled LIMIT 1", [source])
        )

    def write_audit(self, source: str, result: AuditResult) -> None:
        """See `Store.write_audit`."""
        with self.transaction() as db:
            write_audit(db, source, result)

    def learned(self, source: str) -> dict[str, int]:
        """See `Store.learned`."""
        return dict(self.read("SELECT name, number FROM learned WHERE source=?", [source]))

    def write_learned(self, source: str, name: str, number: int | None) -> None:
        """See `Store.write_learned`."""
        with self.transaction() as db:
            if number is None:
                db.execute("DELETE FROM learned WHERE source=? AND name=?", (source, name))
            else:
                db.execute("INSERT OR REPLACE INTO learned VALUES (?,?,?)", (source, name, number))

    def waiting(self, source: str) -> dict[str, Waiting]:
        """See `Store.waiting`."""
        return read_waiting(self.read, source)

    def write_enrichments(self, source: str, found: Mapping[str, str]) -> None:
        """See `Store.write_enrichments`."""
        with self.transaction() as db:
            write_enrichments(db, source, found)

    def write_reason(self, uuid: str, at: int, report: str, forget: int) -> bool:
        """See `Store.write_reason`."""
        with self.transaction() as db:
            return write_reason(db, uuid, at, report, forget)

    def reasons(self, uuids: Iterable[str]) -> dict[str, str]:
        """See `Store.reasons`."""
        return read_reasons(self.read, uuids)

    def blocks(self, workflow: str, version: int) -> str | None:
        """See `Store.blocks`."""
        return read_blocks(self.read, workflow, version)

    def write_blocks(self, workflow: str, version: int, blocks: str) -> None:
        """See `Store.write_blocks`."""
        with self.transaction() as db:
            write_blocks(db, workflow, version, blocks)

    def audits(self, source: str, start: int, before: int) -> list[AuditResult]:
        """See `Store.audits`."""
        with self.transaction() as db:
            return read_audits(db, source, start, before)

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
                " position=NULL, read_to=NULL, known_from=NULL WHERE name=?",
                (high, high, source),
            )
            forget_memory(db, source)
            forget_audits(db, source)

    def reset(self, source: str) -> bool:
        """See `Store.reset`."""
        with self.transaction() as db:
            forget_memory(db, source)
            forget_audits(db, source)
            forget_waiting(db, source)
            forget_filtered(db, source)
            return db.execute("DELETE FROM source WHERE name=?", (source,)).rowcount > 0

    def rejected(
        self, numbers: Iterable[int] = (), *, after: int = 0, most: int = -1
    ) -> list[RejectedRecord]:
        """See `Store.rejected`."""
        return read_rejected(self.read, self._path, numbers, after, most)

    def rejected_by_destination(self) -> dict[str, int]:
        """See `Store.rejected_by_destination`."""
        return dict(
            self.read(
                "SELECT destination, count(*) FROM rejected_detail WHERE destination IS NOT NULL"
                " GROUP BY 1"
            )
        )

    @contextmanager
    def hold_rejected(self) -> Iterator[None]:
        """See `Store.hold_rejected`."""
        taken = "another process is sending this checkpoint's rejected records again"
        with closing(self.hold(".rejected.lock", taken, "wait for its end, or stop it")):
            yield

    def drop_rejected(self, numbers: Iterable[int]) -> int:
        """See `Store.drop_rejected`."""
        with self.transaction() as db:
            return drop_rejected(db, numbers)

    @property
    def outbox(self) -> SqliteOutbox:
        """See `Store.outbox`."""
        return SqliteOutbox(self)

    def filtered(self, source: str, start: int, before: int) -> dict[str, int]:
        """See `Store.filtered`."""
        return read_filtered(self.read, source, start, before)

    def close(self) -> None:
        """See `Store.close`."""
        with self._mutex:
            self._db.close()
            self._release()

    def _release(self) -> None:
        if self._owner is not None:
            self._owner.close()
            self._owner = None


def statements(version: int) -> Iterator[str]:
    """The SQL that leads from a schema version to this one; 0 is an empty file. The files of
    `sql/` begin with the version they lead to, and each statement ends its line."""
    folder = files("otel_alloy.checkpoint").joinpath("sql")
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if int(path.name.split("_")[0]) > version:
            yield from path.read_text().split(";\n")[:-1]


def write_settlement(db: sqlite3.Connection, owner: str, settlement: Settlement) -> int:
    """Writes all of a settlement but its progress, in the transaction that is open. How many of its
    rejected records had not been set aside before."""
    write_memory(db, owner, settlement)
    return sum(set_aside(db, rejected) for rejected in settlement.rejected)


def _add_counts(db: sqlite3.Connection, source: str, counted: Mapping[str, int]) -> None:
    row = db.execute("SELECT facts FROM source WHERE name=?", (source,)).fetchone()
    if row is not None:
        counts = _counts(row[0])
        for name, times in counted.items():
            counts[name] = counts.get(name, 0) + times
        db.execute("UPDATE source SET facts=? WHERE name=?", (json.dumps(counts), source))


def _counts(text: str | None) -> dict[str, int]:
    """From what was kept; of anything else, nothing."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: times for name, times in found.items() if type(times) is int}


def _base_name(error: Exception) -> str:
    """SQLite's primary result code, e.g. SQLITE_IOERR of SQLITE_IOERR_WRITE."""
    return "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])


def _progress(row: tuple[int | None, ...]) -> Progress:
    begin, high, start, before, position, read_to = row
    window = (start, before) if start is not None and before is not None else None
    return Progress(high, window, position, begin, read_to)
