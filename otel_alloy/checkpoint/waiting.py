"""Executions that ended and wait for what else is known of them, and reasons that came beforehand.

An execution lies here from the settlement of its end until it is delivered; what is known of it is
written before it is delivered, so that a repeat has the same bytes. Only the tables `waiting`,
`reason` and `workflow_blocks` may be touched here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from otel_alloy.checkpoint.database import Connection, Read
from otel_alloy.checkpoint.store import Settlement, Text, Waiting

_MOST_WORKFLOWS = 20_000


def write_waiting(db: Connection, source: str, settlement: Settlement) -> None:
    """What a settlement changes, in the transaction that is open."""
    db.executemany(
        "INSERT INTO waiting (source, execution, uuid, original, started_at, since)"
        " VALUES (?,?,?,?,?,?) ON CONFLICT (source, execution) DO UPDATE SET uuid=excluded.uuid,"
        " original=excluded.original, started_at=excluded.started_at, since=excluded.since,"
        " enrichment=NULL",
        (
            (source, execution, w.uuid, w.original.text(), w.started_at, w.since)
            for execution, w in settlement.waits.items()
        ),
    )
    db.executemany(
        "DELETE FROM waiting WHERE source=? AND execution=?",
        ((source, execution) for execution in settlement.enriched),
    )


def read_waiting(read: Read, source: str) -> dict[str, Waiting]:
    """All that wait, in the order in which they began to."""
    rows = read(
        "SELECT execution, uuid, original, started_at, since, enrichment FROM waiting"
        " WHERE source=? ORDER BY since, execution",
        (source,),
    )
    return {row[0]: Waiting(row[1], Text(row[2]), row[3], row[4], row[5]) for row in rows}


def write_enrichments(db: Connection, source: str, found: Mapping[str, str]) -> None:
    """What is known of them, by execution; from here on it does not change."""
    db.executemany(
        "UPDATE waiting SET enrichment=? WHERE source=? AND execution=?",
        ((text, source, execution) for execution, text in found.items()),
    )


def forget_waiting(db: Connection, source: str) -> None:
    """Forgets those of a source."""
    db.execute("DELETE FROM waiting WHERE source=?", (source,))


def write_reason(db: Connection, uuid: str, at: int, report: str, forget: int) -> bool:
    """Keeps what the webhook told of an execution; False where it is known already. `forget`: what
    came before is not needed any more; both Unix ms."""
    db.execute("DELETE FROM reason WHERE at<?", (forget,))
    done = db.execute(
        "INSERT INTO reason (uuid, at, report) VALUES (?,?,?) ON CONFLICT (uuid) DO NOTHING",
        (uuid, at, report),
    )
    return done.rowcount > 0


def read_reasons(read: Read, uuids: Iterable[str]) -> dict[str, str]:
    """What the webhook told, by executionUuid."""
    found: dict[str, str] = {}
    wanted = list(uuids)
    for begin in range(0, len(wanted), 500):
        some = wanted[begin : begin + 500]
        marks = ",".join("?" * len(some))
        found.update(read(f"SELECT uuid, report FROM reason WHERE uuid IN ({marks})", some))
    return found


def write_blocks(db: Connection, workflow: str, version: int, blocks: str) -> None:
    """Keeps how the blocks of one version of a workflow are called."""
    db.execute(
        "INSERT INTO workflow_blocks (workflow, version, blocks) VALUES (?,?,?)"
        " ON CONFLICT (workflow, version) DO UPDATE SET blocks=excluded.blocks",
        (workflow, version, blocks),
    )
    db.execute(
        "DELETE FROM workflow_blocks WHERE rowid <= (SELECT max(rowid) FROM workflow_blocks) - ?",
        (_MOST_WORKFLOWS,),
    )


def read_blocks(read: Read, workflow: str, version: int) -> str | None:
    """The same; None where it is not known."""
    rows = read(
        "SELECT blocks FROM workflow_blocks WHERE workflow=? AND version=?", (workflow, version)
    )
    return rows[0][0] if rows else None
