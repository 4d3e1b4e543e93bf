"""Who works at which slice of a backfill.

With a file one process has all of them, under a lock, and a claim is a word in the slice's row. In
a database that processes share, a claim is a lease of the slice's own: what nobody's valid lease
covers is free, and each write of a slice is fenced by its epoch. Only SQL may live here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from otel_alloy.checkpoint.database import SLICE, Connection, Database, slice_unit
from otel_alloy.checkpoint.holding import Holding, Terms
from otel_alloy.checkpoint.leases import take
from otel_alloy.checkpoint.store import Slice
from otel_alloy.checkpoint.tenures import Tenures
from otel_alloy.errors import CheckpointError

COLUMNS = "number, source, warm, start, before, position, high"
_THEIRS = ", ".join(f"s.{name}" for name in COLUMNS.split(", "))
_UNIT = f"'{SLICE} ' || s.number || ' ' || s.source"  # `slice_unit`
_FREE = f"""FROM slice AS s {{}}JOIN lease AS l ON l.unit={_UNIT}
 WHERE s.source=? AND s.state!='done'"""


class Claims(Protocol):
    """What differs; see `Slices` for what the names mean. `waiting`, `forget` and `done` take part
    in a transaction that is open."""

    leased: bool

    def claim(self, source: str) -> Slice | None: ...

    def release(self, source: str) -> None: ...

    def give_back(self, piece: Slice) -> None: ...

    def holds(self, piece: Slice) -> bool: ...

    def claimed(self, source: str) -> int: ...

    def waiting(self, db: Connection, source: str) -> int:
        """How many slices anybody may claim."""
        ...

    def forget(self, db: Connection, source: str, numbers: Sequence[int]) -> None:
        """These slices are about to be deleted. Refused where another process is at one."""
        ...

    def done(self, db: Connection, piece: Slice) -> None:
        """A slice has come to its end."""
        ...

    def close(self) -> None: ...


class LockedClaims:
    """Of a process that has all slices, as long as it holds the lock of the file."""

    leased = False

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, source: str) -> Slice | None:
        """See `Slices.claim`."""

        def act(db: Connection) -> Slice | None:
            while True:
                row = db.execute(
                    f"SELECT {COLUMNS} FROM slice WHERE source=? AND state='waiting'"
                    " ORDER BY start LIMIT 1",
                    (source,),
                ).fetchone()
                if row is None:
                    return None
                taken = db.execute(
                    "UPDATE slice SET state='claimed' WHERE number=? AND state='waiting'", row[:1]
                )
                if taken.rowcount:  # else another one was faster
                    return Slice(*row)

        return self._database.transact(act, call=("claim", source))

    def release(self, source: str) -> None:
        """See `Slices.release`: those of a process that died."""
        self._database.transact(
            lambda db: db.execute(
                "UPDATE slice SET state='waiting' WHERE source=? AND state='claimed'", (source,)
            )
        )

    def give_back(self, piece: Slice) -> None:
        """See `Slices.give_back`: the next process does."""

    def holds(self, piece: Slice) -> bool:
        """See `Slices.holds`."""
        return True

    def claimed(self, source: str) -> int:
        """See `Slices.claimed`."""
        return self._database.transact(lambda db: _count(db, source, "claimed"))

    def waiting(self, db: Connection, source: str) -> int:
        """See `Claims.waiting`."""
        return _count(db, source, "waiting")

    def forget(self, db: Connection, source: str, numbers: Sequence[int]) -> None:
        """See `Claims.forget`: there is no other process."""

    def done(self, db: Connection, piece: Slice) -> None:
        """See `Claims.done`."""

    def close(self) -> None:
        """See `Slices.close`."""


class LeasedClaims:
    """Of one process of several. `tenures`: those that fence the database's writes."""

    leased = True

    def __init__(self, database: Database, terms: Terms, tenures: Tenures) -> None:
        self._database = database
        self._seconds = terms.seconds
        self._monotonic = terms.runtime.monotonic
        self._tenures = tenures
        self._holding = Holding(database, terms, tenures)

    def claim(self, source: str) -> Slice | None:
        """See `Slices.claim`."""

        def act(db: Connection) -> tuple[Slice, int] | None:
            # Slices of an older version, or that were cut off, have no lease yet.
            db.execute(
                "INSERT INTO lease (unit, epoch, expires_at, taken_at)"
                f" SELECT {_UNIT}, 0, clock_timestamp(), clock_timestamp()"
                " FROM slice AS s WHERE s.source=? AND s.state!='done'"
                " ON CONFLICT (unit) DO NOTHING",
                (source,),
            )
            # Both rows are locked, so both are as they are now and not as they were.
            row = db.execute(
                f"SELECT {_THEIRS} {_FREE.format('')} AND l.expires_at<=clock_timestamp()"
                " ORDER BY s.start LIMIT 1 FOR UPDATE OF s, l SKIP LOCKED",
                (source,),
            ).fetchone()
            if row is None:
                return None
            piece = Slice(*row)
            return piece, take(db, _unit(piece), self._tenures.owner, self._seconds)

        asked = self._monotonic()
        taken = self._database.transact(act, call=("claim", source))
        if taken is None:
            return None
        piece, epoch = taken
        self._tenures.begin(_unit(piece), epoch, asked)
        return piece

    def release(self, source: str) -> None:
        """See `Slices.release`: what this process has; that of one that died expires by itself."""
        rows = self._database.read(
            "SELECT number FROM slice WHERE source=? AND state!='done'", (source,)
        )
        for (number,) in rows:
            self._holding.give(slice_unit(source, number))

    def give_back(self, piece: Slice) -> None:
        """See `Slices.give_back`."""
        self._holding.give(_unit(piece))

    def holds(self, piece: Slice) -> bool:
        """See `Slices.holds`."""
        return self._tenures.holds(_unit(piece))

    def claimed(self, source: str) -> int:
        """See `Slices.claimed`: also what has come free since there was nothing to claim."""
        rows = self._database.read(
            "SELECT count(*) FROM slice WHERE source=? AND state!='done'", (source,)
        )
        return int(rows[0][0])

    def waiting(self, db: Connection, source: str) -> int:
        """See `Claims.waiting`."""
        row: Any = db.execute(
            f"SELECT count(*) {_FREE.format('LEFT ')}"
            " AND (l.unit IS NULL OR l.expires_at<=clock_timestamp())",
            (source,),
        ).fetchone()
        return int(row[0])

    def forget(self, db: Connection, source: str, numbers: Sequence[int]) -> None:
        """See `Claims.forget`. Leases go before slices, as whoever settles locks them in that
        order."""
        units = [slice_unit(source, number) for number in numbers]
        held = db.execute(
            "SELECT 1 FROM lease WHERE unit=ANY(?) AND owner!=? AND expires_at>clock_timestamp()",
            (units, self._tenures.owner),
        ).fetchone()
        if held is not None:
            raise CheckpointError(
                "another process is working at this backfill",
                "stop it, and wait until its lease has expired; or share the work: repeat its "
                "command without --restart",
            )
        db.execute("DELETE FROM lease WHERE unit=ANY(?)", (units,))

    def done(self, db: Connection, piece: Slice) -> None:
        """See `Claims.done`."""
        db.execute("DELETE FROM lease WHERE unit=?", (_unit(piece),))

    def close(self) -> None:
        """See `Slices.close`."""
        self._holding.close()


def _unit(piece: Slice) -> str:
    return slice_unit(piece.source, piece.number)


def _count(db: Connection, source: str, state: str) -> int:
    row = db.execute(
        "SELECT count(*) FROM slice WHERE source=? AND state=?", (source, state)
    ).fetchone()
    return int(row[0])
