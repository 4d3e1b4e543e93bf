"""The outbox in the checkpoint's database.

Only the tables `outbox`, `recall`, `destination` and `filtered` may be touched here; what a
destination refused goes to `rejected` in the same transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from otel_alloy.checkpoint.database import Connection, Database, Read, destination_unit
from otel_alloy.checkpoint.outbox import (
    Backlog,
    Entry,
    Packet,
    Recall,
    Recalled,
    Sent,
    pack,
    pack_wants,
    packets,
    stretches,
    unpack_wants,
    want,
)
from otel_alloy.checkpoint.rejections import set_aside
from otel_alloy.checkpoint.store import Settlement

_TOGETHER = 500
_MINUTE = 60_000


class StoredOutbox:
    """See `Outbox`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def backlogs(self) -> dict[str, Backlog]:
        """See `Outbox.backlogs`."""
        found: dict[str, Backlog] = {}
        rows = self._database.read(
            "SELECT name, paused_at, delivered, delivered_at, missing, error, error_at"
            " FROM destination",
            (),
        )
        for name, paused, delivered, at, missing, error, error_at in rows:
            found[name] = Backlog(
                paused_at=paused,
                delivered=delivered,
                delivered_at=at,
                missing=missing,
                error=error,
                error_at=error_at,
            )
        rows = self._database.read(
            "SELECT destination, sum(executions), sum(size), min(at) FROM outbox GROUP BY 1", ()
        )
        for name, executions, size, oldest in rows:
            one = found.setdefault(name, Backlog())
            one.executions, one.bytes, one.oldest = executions, size, oldest
        rows = self._database.read(
            "SELECT destination, sum(executions), min(first) FROM recall GROUP BY 1", ()
        )
        for name, executions, first in rows:
            one = found.setdefault(name, Backlog())
            one.recall, one.recall_from = executions, first
        return found

    def take(self, destination: str, most_bytes: int, most: int) -> list[Packet]:
        """See `Outbox.take`."""
        sizes = self._database.read(
            "SELECT number, source, executions, size FROM outbox WHERE destination=?"
            " ORDER BY number LIMIT ?",
            (destination, _TOGETHER),
        )
        chosen: list[int] = []
        executions = total = 0
        for number, source, some, size in sizes:
            if source != sizes[0][1]:
                continue
            executions, total = executions + some, total + size
            if chosen and (executions > most or total > most_bytes):
                break
            chosen.append(number)
        if not chosen:
            return []
        marks = ",".join("?" * len(chosen))
        rows = self._database.read(
            "SELECT number, destination, source, at, executions, size, packed FROM outbox"
            f" WHERE number IN ({marks}) ORDER BY number",
            chosen,
        )
        return [Packet(*row) for row in rows]

    def sent(self, done: Iterable[Sent], now: int) -> int:
        """See `Outbox.sent`."""
        every = list(done)

        def write(db: Connection) -> int:
            new = 0
            for one in every:
                gone = db.executemany(
                    "DELETE FROM outbox WHERE number=?", [(number,) for number in one.numbers]
                )
                if one.numbers and not gone.rowcount:
                    continue  # this was done, and could not be told
                new += sum(set_aside(db, rejected) for rejected in one.rejected)
                delivered = one.executions - len(one.rejected)
                db.execute(
                    "INSERT INTO destination (name, delivered, delivered_at) VALUES (?,?,?)"
                    " ON CONFLICT (name) DO UPDATE SET"
                    " delivered=destination.delivered+excluded.delivered,"
                    " delivered_at=excluded.delivered_at",
                    (one.destination, delivered, now),
                )
            return new

        units = dict.fromkeys(destination_unit(one.destination) for one in every)
        return self._database.transact(write, list(units))

    def spill(self, destination: str, room: int, before: int, keep: Collection[int]) -> int:
        """See `Outbox.spill`."""

        def write(db: Connection) -> int:
            rows = db.execute(
                "SELECT number, size, at, first FROM outbox WHERE destination=? ORDER BY number",
                (destination,),
            ).fetchall()
            total = sum(size for _, size, _, _ in rows)
            chosen = []
            for number, size, at, first in rows:
                if total <= room and at >= before:
                    break
                if number not in keep and first is not None:
                    chosen.append(number)
                    total -= size
            return sum(
                _exchange(db, destination, chosen[i : i + _TOGETHER])
                for i in range(0, len(chosen), _TOGETHER)
            )

        return self._database.transact(write, [destination_unit(destination)])

    def recalls(self, destination: str, source: str, most: int) -> list[Recall]:
        """See `Outbox.recalls`."""
        rows = self._database.read(
            "SELECT number, destination, source, first, last, executions, packed FROM recall"
            " WHERE destination=? AND source=? ORDER BY first LIMIT ?",
            (destination, source, _TOGETHER),
        )
        found: list[Recall] = []
        total = 0
        for number, _, _, first, last, executions, packed in rows:
            total += executions
            if found and total > most:
                break
            wants = unpack_wants(packed)
            found.append(Recall(number, destination, source, first, last, wants))
        return found

    def recall_range(self, destination: str) -> tuple[int, int] | None:
        """See `Outbox.recall_range`."""
        rows = self._database.read(
            "SELECT min(first), max(last) FROM recall WHERE destination=? HAVING count(*)>0",
            (destination,),
        )
        return tuple(rows[0]) if rows else None

    def recalled(self, found: Recalled, now: int) -> None:
        """See `Outbox.recalled`."""

        def write(db: Connection) -> None:
            for number, wants in found.left.items():
                if wants:
                    db.execute(
                        "UPDATE recall SET first=?, last=?, executions=?, packed=? WHERE number=?",
                        (*_span(wants), len(wants), pack_wants(wants), number),
                    )
                else:
                    db.execute("DELETE FROM recall WHERE number=?", (number,))
            for (destination, source), entries in found.entries.items():
                _put(db, destination, source, entries, now)
            for destination, executions in found.missing.items():
                db.execute(
                    "INSERT INTO destination (name, missing) VALUES (?,?)"
                    " ON CONFLICT (name) DO UPDATE SET"
                    " missing=destination.missing+excluded.missing",
                    (destination, executions),
                )

        names = dict.fromkeys([*(name for name, _ in found.entries), *found.missing])
        self._database.transact(write, list(map(destination_unit, names)), found)

    def pause(self, destination: str, at: int | None) -> None:
        """See `Outbox.pause`."""
        self._database.transact(
            lambda db: db.execute(
                "INSERT INTO destination (name, paused_at) VALUES (?,?)"
                " ON CONFLICT (name) DO UPDATE SET paused_at=excluded.paused_at",
                (destination, at),
            )
        )

    def failed(self, errors: Mapping[str, str | None], now: int) -> None:
        """See `Outbox.failed`."""
        rows = [(name, error, None if error is None else now) for name, error in errors.items()]
        self._database.transact(
            lambda db: db.executemany(
                "INSERT INTO destination (name, error, error_at) VALUES (?,?,?)"
                " ON CONFLICT (name) DO UPDATE SET error=excluded.error,"
                " error_at=excluded.error_at",
                rows,
            )
        )

    def drop(self, destination: str) -> int:
        """See `Outbox.drop`."""

        def write(db: Connection) -> int:
            dropped = 0
            for table in ("outbox", "recall"):
                row = db.execute(
                    f"SELECT sum(executions) FROM {table} WHERE destination=?", (destination,)
                ).fetchone()
                dropped += row[0] or 0
                db.execute(f"DELETE FROM {table} WHERE destination=?", (destination,))
            db.execute("DELETE FROM destination WHERE name=?", (destination,))
            return dropped

        return self._database.transact(write)


def write_outbox(db: Connection, source: str, settlement: Settlement) -> None:
    """What a settlement has for destinations, and what rules kept back of it, in the transaction
    that is open."""
    for destination, entries in settlement.outbox.items():
        _put(db, destination, source, entries, settlement.at)
    db.executemany(
        "INSERT INTO filtered (source, minute, rule, executions) VALUES (?,?,?,?)"
        " ON CONFLICT (source, minute, rule)"
        " DO UPDATE SET executions=filtered.executions+excluded.executions",
        (
            (source, minute, rule, number)
            for (minute, rule), number in _by_minute(settlement.filtered).items()
        ),
    )
    if settlement.forget_known_before:
        db.execute(
            "DELETE FROM filtered WHERE source=? AND minute<?",
            (source, settlement.forget_known_before // _MINUTE),
        )


def _by_minute(filtered: Mapping[tuple[int, str], int]) -> dict[tuple[int, str], int]:
    found: dict[tuple[int, str], int] = {}
    for (created, rule), number in filtered.items():
        key = created // _MINUTE, rule
        found[key] = found.get(key, 0) + number
    return found


def read_filtered(read: Read, source: str, start: int, before: int) -> dict[str, int]:
    """How many executions each rule kept back of createdAt from `start` to `before` (Unix ms), by
    whole minutes."""
    rows = read(
        "SELECT rule, sum(executions) FROM filtered WHERE source=? AND minute>=? AND minute<?"
        " GROUP BY 1 ORDER BY 1",
        (source, start // _MINUTE, -(-before // _MINUTE)),
    )
    return dict(rows)


def forget_filtered(db: Connection, source: str) -> None:
    """Forgets what rules kept back of a source."""
    db.execute("DELETE FROM filtered WHERE source=?", (source,))


def _put(db: Connection, destination: str, source: str, entries: Sequence[Entry], at: int) -> None:
    for group in packets(entries):
        packed = pack(group)
        created = [entry.created for entry in group if entry.created is not None]
        first, last = (min(created), max(created)) if created else (None, None)
        db.execute(
            "INSERT INTO outbox (destination, source, at, first, last, executions, size, packed)"
            " VALUES (?,?,?,?,?,?,?,?)",
            (destination, source, at, first, last, len(group), len(packed), packed),
        )


def _exchange(db: Connection, destination: str, numbers: Sequence[int]) -> int:
    """Exchanges packets for recalls; how many executions they hold."""
    marks = ",".join("?" * len(numbers))
    wants: dict[str, list[Any]] = {}
    for row in db.execute(
        "SELECT number, destination, source, at, executions, size, packed FROM outbox"
        f" WHERE number IN ({marks})",
        numbers,
    ):
        packet = Packet(*row)
        wants.setdefault(packet.source, []).extend(map(want, packet.entries()))
    db.execute(f"DELETE FROM outbox WHERE number IN ({marks})", numbers)
    for source, some in wants.items():
        for group in stretches(some):
            db.execute(
                "INSERT INTO recall (destination, source, first, last, executions, packed)"
                " VALUES (?,?,?,?,?,?)",
                (destination, source, *_span(group), len(group), pack_wants(group)),
            )
    return sum(map(len, wants.values()))


def _span(wants: Sequence[Any]) -> tuple[int, int]:
    return wants[0].created, wants[-1].created
