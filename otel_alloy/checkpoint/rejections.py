"""Records that were set aside, in the checkpoint's database.

Only the tables `rejected` and `rejected_detail` may be touched here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256
from typing import Any

from otel_alloy.checkpoint.database import Connection, Read
from otel_alloy.checkpoint.store import RejectedRecord
from otel_alloy.errors import CheckpointError

_TOGETHER = 500
_SELECT = (
    "SELECT source, signals, reason, role, original, started_at, at, number, enrichment,"
    " destination, resource"
    " FROM rejected LEFT JOIN rejected_detail USING (number)"
)


def set_aside(db: Connection, record: RejectedRecord) -> bool:
    """Keeps a record; False where it is kept already. What both were refused by is put together."""
    parts = (record.source, record.role, record.original)
    text = "\0".join(parts if record.destination is None else (*parts, record.destination))
    identity = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    known = db.execute(
        "SELECT number, signals FROM rejected JOIN rejected_detail USING (number) WHERE identity=?",
        (identity,),
    ).fetchone()
    if known is not None:
        signals = ",".join(dict.fromkeys([*known[1].split(","), *record.signals.split(",")]))
        db.execute("UPDATE rejected SET signals=? WHERE number=?", (signals, known[0]))
        return False
    row = db.execute(
        "INSERT INTO rejected (source, signals, reason, role, original, started_at, at)"
        " VALUES (?,?,?,?,?,?,?)",
        (
            record.source,
            record.signals,
            record.reason,
            record.role,
            record.original,
            record.started_at,
            record.at,
        ),
    )
    resource = None if record.resource is None else json.dumps(record.resource)
    db.execute(
        "INSERT INTO rejected_detail (number, resource, identity, enrichment, destination)"
        " VALUES (?,?,?,?,?)",
        (row.lastrowid, resource, identity, record.enrichment, record.destination),
    )
    return True


def read_rejected(
    read: Read,
    place: str,
    numbers: Iterable[int],
    after: int,
    most: int,
) -> list[RejectedRecord]:
    """Those with these numbers (none: all), oldest first; of them at most `most` (-1: all) whose
    number is above `after`. `place`: for errors."""
    wanted = sorted(set(numbers))
    limit = "" if most < 0 else f" LIMIT {int(most)}"
    rows: list[Any] = []
    for begin in range(0, max(1, len(wanted)), _TOGETHER):
        some = wanted[begin : begin + _TOGETHER]
        among = f" AND number IN ({','.join('?' * len(some))})" if some else ""
        rows += read(f"{_SELECT} WHERE number>?{among} ORDER BY number{limit}", (after, *some))
    if most >= 0:
        rows = rows[:most]
    found = []
    for *fields, enrichment, destination, resource in rows:
        kept = _resource(place, fields[7], resource)
        one = RejectedRecord(*fields)
        found.append(replace(one, resource=kept, enrichment=enrichment, destination=destination))
    return found


def drop_rejected(db: Connection, numbers: Iterable[int]) -> int:
    """Deletes records; how many there were."""
    dropped = 0
    for number in numbers:
        db.execute("DELETE FROM rejected_detail WHERE number=?", (number,))
        dropped += db.execute("DELETE FROM rejected WHERE number=?", (number,)).rowcount
    return dropped


def _resource(
    place: str, number: object, text: object
) -> dict[str, str | bool | int | float] | None:
    """The resource attributes that are kept with a rejected record."""
    if text is None or text == "":
        return None
    try:
        kept = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        kept = ()
    if kept is None:
        return None
    if isinstance(kept, dict) and all(
        isinstance(value, str | bool | int | float) for value in kept.values()
    ):
        return kept
    raise CheckpointError(
        f"the resource of the rejected record {number} in {place} cannot be read",
        f"restore the file, or give the record up with `otel-alloy rejected drop {number}`",
    )
