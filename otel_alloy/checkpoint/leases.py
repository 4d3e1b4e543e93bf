"""Leases: which replica works at what, in the database that they share.

One row per unit of work: owner, **epoch**, and when the lease expires. All times are the
database's, so no replica's clock matters. Taking over raises the epoch, and each write checks owner
and epoch in its own transaction (`fence`), where it keeps the row from changing hands until it is
committed: a replica that slept cannot move what is no longer its own. A replica may renew what has
expired as long as nobody has taken it, as nobody else has worked at it then.

Nothing here outlives its transaction, so a pooler between may give each one another session.
PostgreSQL only; whose turn it is to take what is not decided here (`otel_alloy.pipeline.spread`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from otel_alloy.checkpoint.database import Connection, Database
from otel_alloy.errors import LeaseLost

# In one order, as whoever locks several does it: then nobody waits in a circle.
_MINE = "SELECT unit FROM lease WHERE owner=? ORDER BY unit FOR UPDATE"
_SECONDS = "make_interval(secs => ?::double precision)"
_FORGOTTEN_LEASES = 100
"""A replica that has not been heard for so many lease times is forgotten."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A unit's row. `owner`: who has it, or had it last; None where it was given back. `left`: for
    how many seconds it is still held; negative: for how long it has been free. `settled_to`: up to
    when (Unix ms) a source was, when it was last renewed."""

    unit: str
    owner: str | None
    epoch: int
    left: float
    settled_to: int | None = None

    @property
    def valid(self) -> bool:
        """Whether its owner holds it."""
        return self.owner is not None and self.left > 0


@dataclass(frozen=True, slots=True)
class Replica:
    """A process that takes part. `age`, `heard`: seconds since it began, and since it was heard;
    `alive`: whether that is less than its lease time. `address`: of its health port, where it has
    one."""

    name: str
    version: str
    address: str | None
    age: float
    heard: float
    alive: bool


@dataclass(frozen=True, slots=True)
class Presence:
    """What a replica says of itself; see `Replica`."""

    version: str
    address: str | None


@dataclass(frozen=True, slots=True)
class Board:
    """What all replicas see: leases, those held longest first, and who takes part."""

    leases: Sequence[Lease]
    replicas: Sequence[Replica]


@dataclass(frozen=True, slots=True)
class Taken:
    """A lease that was taken. `after`: whose it was, where that one did not give it back."""

    unit: str
    epoch: int
    after: str | None


class Leases:
    """`seconds`: how long a lease lasts unless it is renewed. Methods raise CheckpointError."""

    def __init__(self, database: Database, seconds: float) -> None:
        self._database = database
        self._seconds = seconds

    def declare(self, units: Collection[str]) -> None:
        """Makes rows for those of these units that have none."""

        def act(db: Connection) -> None:
            db.execute(
                "INSERT INTO lease (unit, epoch, expires_at, taken_at)"
                " SELECT unit, 0, clock_timestamp(), clock_timestamp()"
                " FROM unnest(?::text[]) AS t (unit) ON CONFLICT (unit) DO NOTHING",
                (sorted(units),),
            )

        if units:
            self._database.transact(act)

    def absent(self, owner: str) -> None:
        """Says that a replica takes part no more, as it ends; it may still hold something."""

        def act(db: Connection) -> None:
            db.execute("DELETE FROM replica WHERE name=?", (owner,))

        self._database.transact(act)

    def renew(
        self, owner: str, settled: Mapping[str, int], present: Presence | None
    ) -> dict[str, int]:
        """Renews all that a replica holds: the epochs, by unit. `settled`: up to when (Unix ms)
        units are, for whoever looks. `present`: what it says of itself; None where it takes part
        no more."""

        def act(db: Connection) -> dict[str, int]:
            if present is not None:
                db.execute(
                    "INSERT INTO replica (name, version, address, started_at, heard_at, lease)"
                    " VALUES (?, ?, ?, clock_timestamp(), clock_timestamp(), ?)"
                    " ON CONFLICT (name) DO UPDATE SET heard_at=excluded.heard_at",
                    (owner, present.version, present.address, self._seconds),
                )
            rows = db.execute(
                f"UPDATE lease SET expires_at=clock_timestamp()+{_SECONDS}, settled_to=coalesce("
                "(SELECT t.at FROM unnest(?::text[], ?::bigint[]) AS t (unit, at)"
                " WHERE t.unit=lease.unit), settled_to)"
                f" WHERE unit=ANY(ARRAY({_MINE})) RETURNING unit, epoch",
                (self._seconds, list(settled), list(settled.values()), owner),
            )
            return dict(rows.fetchall())

        return self._database.transact(act)

    def claim(self, owner: str, units: Collection[str], most: int) -> list[Taken]:
        """Takes up to `most` of these units, whichever are free and nobody else is just taking."""

        def act(db: Connection) -> list[Any]:
            return db.execute(
                "UPDATE lease SET owner=?, epoch=epoch+1, last_owner=owner,"
                f" taken_at=clock_timestamp(), expires_at=clock_timestamp()+{_SECONDS}"
                " WHERE unit=ANY(ARRAY(SELECT unit FROM lease WHERE unit=ANY(?)"
                " AND expires_at<=clock_timestamp() ORDER BY random() LIMIT ?"
                " FOR UPDATE SKIP LOCKED)) RETURNING unit, epoch, last_owner",
                (owner, self._seconds, list(units), most),
            ).fetchall()

        return [Taken(*row) for row in self._database.transact(act)]

    def release(self, owner: str, held: Mapping[str, int]) -> None:
        """Gives units back, with their epochs: anybody may take them at once."""

        def act(db: Connection) -> None:
            db.execute(
                "UPDATE lease SET owner=NULL, expires_at=clock_timestamp() WHERE owner=? AND"
                f" unit=ANY(ARRAY({_MINE})) AND (unit, epoch) IN"
                " (SELECT * FROM unnest(?::text[], ?::bigint[]))",
                (owner, owner, list(held), list(held.values())),
            )

        if held:
            self._database.transact(act)

    def leave(self, owner: str) -> None:
        """A replica ends: all that it holds is given back, and it takes part no more."""

        def act(db: Connection) -> None:
            db.execute(
                "UPDATE lease SET owner=NULL, expires_at=clock_timestamp()"
                f" WHERE unit=ANY(ARRAY({_MINE}))",
                (owner,),
            )
            db.execute("DELETE FROM replica WHERE name=?", (owner,))

        self._database.transact(act)

    def board(self) -> Board:
        """What there is."""
        leases = self._database.read(
            "SELECT unit, owner, epoch,"
            " date_part('epoch', expires_at-clock_timestamp()), settled_to"
            " FROM lease ORDER BY taken_at, unit"
        )
        replicas = self._database.read(
            "SELECT name, version, address,"
            " date_part('epoch', clock_timestamp()-started_at),"
            " date_part('epoch', clock_timestamp()-heard_at),"
            " clock_timestamp()<heard_at+make_interval(secs => lease)"
            " FROM replica ORDER BY name"
        )
        return Board(
            [Lease(*row) for row in leases],
            [Replica(*row) for row in replicas],
        )

    def forget(self) -> None:
        """Forgets replicas that have not been heard for long."""

        def act(db: Connection) -> None:
            db.execute(
                "DELETE FROM replica"
                " WHERE heard_at<clock_timestamp()-make_interval(secs => lease*?)",
                (_FORGOTTEN_LEASES,),
            )

        self._database.transact(act)


def take(db: Connection, unit: str, owner: str, seconds: float) -> int:
    """Takes a unit whose row the open transaction has locked, and found free; its epoch."""
    row = db.execute(
        "UPDATE lease SET owner=?, epoch=epoch+1, last_owner=owner, taken_at=clock_timestamp(),"
        f" expires_at=clock_timestamp()+{_SECONDS} WHERE unit=? RETURNING epoch",
        (owner, seconds, unit),
    ).fetchone()
    return int(row[0])


def fence(db: Connection, unit: str, owner: str, epoch: int) -> None:
    """Holds, in a transaction, the lease that its writes need: nobody takes it over before the
    transaction ends. Raises LeaseLost where somebody has."""
    row = db.execute(
        "SELECT 1 FROM lease WHERE unit=? AND owner=? AND epoch=? FOR SHARE", (unit, owner, epoch)
    ).fetchone()
    if row is None:
        raise LeaseLost(unit)
