"""The checkpoint in a database: what is written in which transaction, whatever the engine.

The statements about one part lie with that part (`remembered.py`, `audits.py`, `waiting.py`,
`outbox_sql.py`, `rejections.py`); here are those about the table `source`, and what belongs
together. How transactions are made, and what may go wrong with them, is the engine's business
(`database.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from otel_alloy.checkpoint.audits import (
    forget_audits,
    read_audits,
    read_known,
    write_audit,
    write_known,
)
from otel_alloy.checkpoint.database import REJECTED, Connection, Database, Hold, source_unit
from otel_alloy.checkpoint.holding import Terms
from otel_alloy.checkpoint.known import Known
from otel_alloy.checkpoint.outbox_sql import (
    StoredOutbox,
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
    AuditResult,
    Progress,
    RejectedHold,
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
from otel_alloy.errors import CheckpointError, LeaseLost

_PLACE = "INSERT INTO source (name, fingerprint) VALUES (?,?) ON CONFLICT (name) DO NOTHING"


class SqlStore:
    """See `Store`. `in_memory`: see `Remembered`. Closes the database."""

    def __init__(self, database: Database, *, in_memory: int = IN_MEMORY) -> None:
        self.database = database
        self._in_memory = in_memory

    def add(self, sources: Mapping[str, str]) -> None:
        """See `Store.add`."""
        self.database.transact(lambda db: db.executemany(_PLACE, sources.items()))

    def load(self, source: str, fingerprint: str) -> Remembered:
        """See `Store.load`."""

        def act(db: Connection) -> Progress:
            row = db.execute(
                "SELECT fingerprint, begin_at, high, window_start, window_before, position, read_to"
                " FROM source WHERE name=?",
                (source,),
            ).fetchone()
            if row is None:
                db.execute(
                    "INSERT INTO source (name, fingerprint) VALUES (?,?)", (source, fingerprint)
                )
                return Progress()
            if row[0] == "":  # placed by hand before the first run
                db.execute("UPDATE source SET fingerprint=? WHERE name=?", (fingerprint, source))
            elif row[0] != fingerprint:
                raise CheckpointError(
                    f"the checkpoint of source {source!r} in {self.database.place} belongs to "
                    "another endpoint, workflow or user filter",
                    "give the new query another source name, or forget the old one with "
                    f"`otel-alloy checkpoint reset {source}`",
                )
            return _progress(row[1:])

        return self.remembered(source, self.database.transact(act))

    def remembered(self, owner: str, progress: Progress) -> Remembered:
        """What is remembered under a name."""
        return Remembered(self.database.read, owner, progress, in_memory=self._in_memory)

    def settle(self, source: str, settlement: Settlement) -> int:
        """See `Store.settle`."""
        s, p = settlement, settlement.progress
        start, before = p.window or (None, None)

        def act(db: Connection) -> int:
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

        return self.database.transact(act, [source_unit(source)], settlement)

    def known(self, source: str, start: int, before: int) -> Known:
        """See `Store.known`."""
        return read_known(self.database.read, source, start, before)

    def known_from(self, source: str) -> int | None:
        """See `Store.known_from`."""
        rows = self.database.read(
            "SELECT coalesce(known_from, begin_at) FROM source WHERE name=?", [source]
        )
        return rows[0][0] if rows else None

    def visibility(self, source: str) -> str | None:
        """See `Store.visibility`."""
        rows = self.database.read("SELECT visibility FROM source WHERE name=?", [source])
        return rows[0][0] if rows else None

    def counted(self, source: str) -> dict[str, int]:
        """See `Store.counted`."""
        rows = self.database.read("SELECT facts FROM source WHERE name=?", [source])
        return _counts(rows[0][0]) if rows else {}

    def audited_to(self, source: str) -> dict[int, int]:
        """See `Store.audited_to`."""
        return dict(self.database.read("SELECT age, before FROM audited WHERE source=?", [source]))

    def removes(self, source: str) -> bool:
        """See `Store.removes`."""
        return bool(
            self.database.read(
                "SELECT 1 FROM audit_result WHERE source=? AND api<settled LIMIT 1", [source]
            )
        )

    def write_audit(self, source: str, result: AuditResult) -> None:
        """See `Store.write_audit`."""
        self.database.transact(lambda db: write_audit(db, source, result), [source_unit(source)])

    def learned(self, source: str) -> dict[str, int]:
        """See `Store.learned`."""
        return dict(self.database.read("SELECT name, number FROM learned WHERE source=?", [source]))

    def write_learned(self, source: str, name: str, number: int | None) -> None:
        """See `Store.write_learned`."""

        def act(db: Connection) -> None:
            if number is None:
                db.execute("DELETE FROM learned WHERE source=? AND name=?", (source, name))
            else:
                db.execute(
                    "INSERT INTO learned (source, name, number) VALUES (?,?,?)"
                    " ON CONFLICT (source, name) DO UPDATE SET number=excluded.number",
                    (source, name, number),
                )

        self.database.transact(act, [source_unit(source)])

    def waiting(self, source: str) -> dict[str, Waiting]:
        """See `Store.waiting`."""
        return read_waiting(self.database.read, source)

    def write_enrichments(self, source: str, found: Mapping[str, str]) -> None:
        """See `Store.write_enrichments`."""
        self.database.transact(
            lambda db: write_enrichments(db, source, found), [source_unit(source)]
        )

    def write_reason(self, uuid: str, at: int, report: str, forget: int) -> bool:
        """See `Store.write_reason`."""
        return self.database.transact(
            lambda db: write_reason(db, uuid, at, report, forget), call=("reason", uuid, at)
        )

    def reasons(self, uuids: Iterable[str]) -> dict[str, str]:
        """See `Store.reasons`."""
        return read_reasons(self.database.read, uuids)

    def blocks(self, workflow: str, version: int) -> str | None:
        """See `Store.blocks`."""
        return read_blocks(self.database.read, workflow, version)

    def write_blocks(self, workflow: str, version: int, blocks: str) -> None:
        """See `Store.write_blocks`."""
        self.database.transact(lambda db: write_blocks(db, workflow, version, blocks))

    def audits(self, source: str, start: int, before: int) -> list[AuditResult]:
        """See `Store.audits`."""
        return read_audits(self.database.read, source, start, before)

    def sources(self) -> dict[str, Progress]:
        """See `Store.sources`."""
        rows = self.database.read(
            "SELECT name, begin_at, high, window_start, window_before, position, read_to"
            " FROM source ORDER BY 1"
        )
        return {row[0]: _progress(row[1:]) for row in rows}

    def set_high(self, source: str, high: int) -> None:
        """See `Store.set_high`."""

        def act(db: Connection) -> None:
            db.execute(_PLACE, (source, ""))
            db.execute(
                "UPDATE source SET begin_at=?, high=?, window_start=NULL, window_before=NULL,"
                " position=NULL, read_to=NULL, known_from=NULL WHERE name=?",
                (high, high, source),
            )
            forget_memory(db, source)
            forget_audits(db, source)

        self.database.transact(act, [source_unit(source)])

    def reset(self, source: str) -> bool:
        """See `Store.reset`."""

        def act(db: Connection) -> bool:
            forget_memory(db, source)
            forget_audits(db, source)
            forget_waiting(db, source)
            forget_filtered(db, source)
            return db.execute("DELETE FROM source WHERE name=?", (source,)).rowcount > 0

        return self.database.transact(act, [source_unit(source)])

    def rejected(
        self, numbers: Iterable[int] = (), *, after: int = 0, most: int = -1
    ) -> list[RejectedRecord]:
        """See `Store.rejected`."""
        return read_rejected(self.database.read, self.database.place, numbers, after, most)

    def rejected_by_destination(self) -> dict[str, int]:
        """See `Store.rejected_by_destination`."""
        return dict(
            self.database.read(
                "SELECT destination, count(*) FROM rejected_detail WHERE destination IS NOT NULL"
                " GROUP BY 1"
            )
        )

    @contextmanager
    def hold_rejected(self, terms: Terms | None = None) -> Iterator[RejectedHold]:
        """See `Store.hold_rejected`."""
        taken = "another process is sending this checkpoint's rejected records again"
        with self.database.hold(REJECTED, taken, "wait for its end, or stop it", terms) as hold:
            yield _RejectedHold(self.database, hold)

    def drop_rejected(self, numbers: Iterable[int]) -> int:
        """See `Store.drop_rejected`."""
        chosen = list(numbers)
        return self.database.transact(lambda db: drop_rejected(db, chosen))

    @property
    def outbox(self) -> StoredOutbox:
        """See `Store.outbox`."""
        return StoredOutbox(self.database)

    def filtered(self, source: str, start: int, before: int) -> dict[str, int]:
        """See `Store.filtered`."""
        return read_filtered(self.database.read, source, start, before)

    def run_is_active(self) -> bool:
        """See `Store.run_is_active`."""
        return self.database.run_is_active()

    @property
    def shared(self) -> Database:
        """See `Store.shared`."""
        return self.database

    def close(self) -> None:
        """See `Store.close`."""
        self.database.close()


class _RejectedHold:
    """See `RejectedHold`."""

    def __init__(self, database: Database, hold: Hold) -> None:
        self._database = database
        self._hold = hold

    def going_on(self) -> None:
        """See `RejectedHold.going_on`."""
        if not self._hold.holds():
            raise LeaseLost(REJECTED)

    def drop(self, numbers: Iterable[int]) -> None:
        """See `RejectedHold.drop`."""
        chosen = list(numbers)

        def act(db: Connection) -> None:
            self._hold.check(db)
            drop_rejected(db, chosen)

        self._database.transact(act)


def write_settlement(db: Connection, owner: str, settlement: Settlement) -> int:
    """Writes all of a settlement but its progress, in the transaction that is open. How many of its
    rejected records had not been set aside before."""
    write_memory(db, owner, settlement)
    return sum(set_aside(db, rejected) for rejected in settlement.rejected)


def _add_counts(db: Connection, source: str, counted: Mapping[str, int]) -> None:
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


def _progress(row: tuple[int | None, ...]) -> Progress:
    begin, high, start, before, position, read_to = row
    window = (start, before) if start is not None and before is not None else None
    return Progress(high, window, position, begin, read_to)
