"""A backfill's slices in the checkpoint's database.

With a file, a backfill holds a lock of its own, so a second one is refused; where processes share a
database, they share the slices (`claims.py`). A running `run` is not disturbed: both only meet in
short transactions. What a slice remembers of its records lies in the tables that sources use, under
a name that no source has. Only SQL may live here.
"""

from __future__ import annotations

from contextlib import ExitStack

from otel_alloy.checkpoint.claims import COLUMNS, Claims, LockedClaims
from otel_alloy.checkpoint.database import Connection, slice_unit
from otel_alloy.checkpoint.remembered import Remembered, forget_memory
from otel_alloy.checkpoint.sql_store import SqlStore, write_settlement
from otel_alloy.checkpoint.store import FROM_BEGIN, SINCE, Plan, Progress, Settlement, Slice, Store


class StoredSlices:
    """See `Slices`. `store`: opened without being exclusive; closed with this. `held`: see
    `open_slices`. `claims`: where several processes share the slices, so that no lock is held."""

    def __init__(self, store: Store, *, held: bool = False, claims: Claims | None = None) -> None:
        assert isinstance(store, SqlStore)
        self._store = store
        self._database = store.database
        self._claims = claims or LockedClaims(self._database)
        self._lock = ExitStack()
        if held or claims:
            return
        try:
            self._lock.enter_context(
                self._database.hold(
                    "backfill",
                    "another backfill is using this checkpoint",
                    "wait for its end, or stop it",
                )
            )
        except BaseException:
            store.close()
            raise

    def run_is_active(self) -> bool:
        """See `Slices.run_is_active`."""
        return self._store.run_is_active()

    def progress(self, source: str) -> Progress | None:
        """See `Slices.progress`."""
        return self._store.sources().get(source)

    def since(self, source: str, destination: str) -> int | None:
        """See `Slices.since`."""
        found = self._store.learned(source).get(SINCE + destination)
        if found == FROM_BEGIN:
            progress = self.progress(source)
            return None if progress is None else progress.begin
        return found

    def plan(self, source: str) -> Plan | None:
        """See `Slices.plan`."""

        def act(db: Connection) -> Plan | None:
            row = db.execute(
                "SELECT fingerprint, asked, start, before FROM backfill WHERE source=?", (source,)
            ).fetchone()
            if row is None:
                return None
            slices = db.execute(
                f"SELECT {COLUMNS} FROM slice WHERE source=? AND state!='done' ORDER BY start",
                (source,),
            )
            fingerprint, asked, start, before = row
            return Plan(fingerprint, asked, start, before, [Slice(*found) for found in slices])

        return self._database.transact(act)

    def begin(self, source: str, plan: Plan, after: Plan | None = None) -> bool:
        """See `Slices.begin`."""
        new = (source, plan.fingerprint, plan.asked, plan.start, plan.before)

        def act(db: Connection) -> bool:
            if after is None:
                written = db.execute(
                    "INSERT INTO backfill (source, fingerprint, asked, start, before)"
                    " VALUES (?,?,?,?,?) ON CONFLICT (source) DO NOTHING",
                    new,
                )
            else:
                written = db.execute(
                    "UPDATE backfill SET fingerprint=?, asked=?, start=?, before=? WHERE source=?"
                    " AND fingerprint=? AND asked=? AND start=? AND before=?",
                    (*new[1:], source, after.fingerprint, after.asked, after.start, after.before),
                )
            if not written.rowcount:
                return False
            rows = db.execute("SELECT number FROM slice WHERE source=?", (source,)).fetchall()
            old = [number for (number,) in rows]
            self._claims.forget(db, source, old)
            for number in old:
                forget_memory(db, _name(source, number))
            db.execute("DELETE FROM slice WHERE source=?", (source,))
            db.executemany(
                "INSERT INTO slice (source, warm, start, before, records) VALUES (?,?,?,?,0)",
                [(source, s.warm, s.start, s.before) for s in plan.slices],
            )
            return True

        return self._database.transact(act, call=("begin", *new))

    @property
    def leased(self) -> bool:
        """See `Slices.leased`."""
        return self._claims.leased

    def claim(self, source: str) -> Slice | None:
        """See `Slices.claim`."""
        return self._claims.claim(source)

    def release(self, source: str) -> None:
        """See `Slices.release`."""
        self._claims.release(source)

    def give_back(self, piece: Slice) -> None:
        """See `Slices.give_back`."""
        self._claims.give_back(piece)

    def holds(self, piece: Slice) -> bool:
        """See `Slices.holds`."""
        return self._claims.holds(piece)

    def claimed(self, source: str) -> int:
        """See `Slices.claimed`."""
        return self._claims.claimed(source)

    def load(self, piece: Slice) -> Remembered:
        """See `Slices.load`."""
        window = (piece.start, piece.before)
        progress = Progress(piece.high, window, piece.position, piece.start)
        return self._store.remembered(_name(piece.source, piece.number), progress)

    def settle(self, piece: Slice, settlement: Settlement) -> int:
        """See `Slices.settle`."""
        progress, name = settlement.progress, _name(piece.source, piece.number)

        def act(db: Connection) -> int:
            _count_records(db, piece, name, settlement)
            new = write_settlement(db, name, settlement)
            if progress.window is None:
                forget_memory(db, name)
                db.execute("UPDATE slice SET state='done' WHERE number=?", (piece.number,))
                self._claims.done(db, piece)
            else:
                start = progress.window[0]
                db.execute(
                    "UPDATE slice SET warm=?, start=?, position=?, high=? WHERE number=?",
                    (start, start, progress.position, progress.high, piece.number),
                )
            return new

        return self._database.transact(act, [slice_unit(piece.source, piece.number)], settlement)

    def settled(self, source: str) -> int | None:
        """See `Slices.settled`."""
        rows = self._database.read("SELECT records FROM slice WHERE source=?", (source,))
        counts = [records for (records,) in rows]
        return None if None in counts else sum(counts)

    def cut(self, piece: Slice, at: int, warm: int) -> bool:
        """See `Slices.cut`."""

        def act(db: Connection) -> bool:
            if self._claims.waiting(db, piece.source):
                return False
            db.execute("UPDATE slice SET before=? WHERE number=?", (at, piece.number))
            db.execute(
                "INSERT INTO slice (source, warm, start, before, records) VALUES (?,?,?,?,0)",
                (piece.source, warm, at, piece.before),
            )
            return True

        unit = slice_unit(piece.source, piece.number)
        return self._database.transact(act, [unit], ("cut", piece.number, at))

    def close(self) -> None:
        """See `Slices.close`."""
        self._claims.close()
        self._lock.close()
        self._store.close()


def _count_records(db: Connection, piece: Slice, name: str, settlement: Settlement) -> None:
    """Adds the records that a settlement brings to those of the slice; not what lies before it and
    was only read, nor one that was settled already and changed in place since."""
    start, before, high = db.execute(
        "SELECT start, before, high FROM slice WHERE number=?", (piece.number,)
    ).fetchone()
    new = {i: c for (i, _), c in settlement.known.items() if start <= c < before}
    for record_id in [i for i, c in new.items() if high is not None and c <= high]:
        if db.execute("SELECT 1 FROM seen WHERE source=? AND id=?", (name, record_id)).fetchone():
            del new[record_id]
    db.execute("UPDATE slice SET records=records+? WHERE number=?", (len(new), piece.number))


def _name(source: str, number: int) -> str:
    return f"{source}\x1f{number}"
