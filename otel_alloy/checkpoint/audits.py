"""What audits remember: which records are settled, and what was found at which age.

Only the tables `known`, `audited` and `audit_result` may be touched here; with them `learned` is
forgotten, which says up to where was looked.
"""

from __future__ import annotations

from otel_alloy.checkpoint.database import Connection, Read
from otel_alloy.checkpoint.known import (
    Block,
    Known,
    blocks,
    pack_executions,
    unpack_executions,
)
from otel_alloy.checkpoint.store import AuditResult, Settlement

_KEPT_MS = 8 * 86_400_000
_TABLES = ("known", "audited", "audit_result", "learned")


def read_known(read: Read, source: str, start: int, before: int) -> Known:
    """The settled records of a stretch, through `read`, a SELECT with its values."""
    rows = read(
        "SELECT first, last, packed FROM known WHERE source=? AND last>=? AND first<?",
        (source, start, before),
    )
    return Known((Block(*row) for row in rows), start, before)


def read_spans(read: Read, source: str) -> set[int]:
    """The executions that have their span, as `execution_number` tells them apart."""
    rows = read("SELECT spans FROM known WHERE source=?", (source,))
    return unpack_executions(packed for (packed,) in rows)


def write_known(db: Connection, source: str, settlement: Settlement) -> None:
    """Adds what a settlement made known, in the transaction that is open."""
    spans = pack_executions(settlement.spans)
    for block in blocks(settlement.known.items()):
        db.execute(
            "INSERT INTO known (source, first, last, packed, spans) VALUES (?,?,?,?,?)",
            (source, block.first, block.last, block.packed, spans),
        )
        spans = b""
    if settlement.forget_known_before:
        db.execute(
            "DELETE FROM known WHERE source=? AND last<?", (source, settlement.forget_known_before)
        )


def write_audit(db: Connection, source: str, result: AuditResult) -> None:
    """Keeps a result for eight days, and moves its age on."""
    db.execute(
        "INSERT INTO audited (source, age, before) VALUES (?,?,?)"
        " ON CONFLICT (source, age) DO UPDATE SET before=excluded.before",
        (source, result.age, result.before),
    )
    db.execute(
        "INSERT INTO audit_result (source, start, age, before, at, api, settled, recovered)"
        " VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (source, start, age) DO UPDATE SET"
        " before=excluded.before, at=excluded.at, api=excluded.api, settled=excluded.settled,"
        " recovered=excluded.recovered",
        (
            source,
            result.start,
            result.age,
            result.before,
            result.at,
            result.api,
            result.settled,
            result.recovered,
        ),
    )
    db.execute(
        "DELETE FROM audit_result WHERE source=? AND start<?", (source, result.start - _KEPT_MS)
    )


def read_audits(read: Read, source: str, start: int, before: int) -> list[AuditResult]:
    """What was found about createdAt from `start` to `before`, in order."""
    rows = read(
        "SELECT age, start, before, at, api, settled, recovered FROM audit_result"
        " WHERE source=? AND before>? AND start<? ORDER BY start, age",
        (source, start, before),
    )
    return [AuditResult(*row) for row in rows]


def forget_audits(db: Connection, source: str) -> None:
    """Forgets all of it."""
    for table in _TABLES:
        db.execute(f"DELETE FROM {table} WHERE source=?", (source,))
