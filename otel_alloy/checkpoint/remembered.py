"""What is remembered of one source: records, open executions, executions that have their span.

As long as it is little, all of it is in memory. From `IN_MEMORY` entries on it is in the database
alone, and of that what a page needs is recalled with the page, so that memory, the start and the
cost of a cycle do not grow with the number of executions that never end. Either way, what the batch
under way has changed is in memory at once and in the database with its settlement; a process that
dies in between begins again from that. The JSON of open executions is never kept in memory.

Only the three tables `seen`, `open_execution` and `ended_execution` may be touched here; what
`audits.py` keeps is only asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from otel_alloy.checkpoint.audits import read_known, read_spans
from otel_alloy.checkpoint.database import Connection, Read
from otel_alloy.checkpoint.known import Known, execution_number
from otel_alloy.checkpoint.store import Identity, Open, Progress, Seen, Settlement, State

IN_MEMORY = 10_000
"""So many entries at most are held in memory from one batch to the next."""

_TABLES = ("seen", "open_execution", "ended_execution")
_HOUR_MS = 3_600_000
_TOGETHER = 100
_SOME = f"({','.join('?' * _TOGETHER)})"
_OPEN = "SELECT execution, created, next_check, started_at FROM open_execution WHERE source=?"


class Remembered:
    """`owner`: the source's name in the tables, or a slice's. `progress` is kept for the tracker.
    `patience` calls what reads, and may call it again where that may succeed later.

    The order in which it is used: `recall` what a page needs, ask and change as often as it takes,
    then, when the settlement is written, `settled`. `due` and `late` are asked in between, when
    nothing is unsettled."""

    def __init__(
        self, read: Read, owner: str, progress: Progress, *, in_memory: int = IN_MEMORY
    ) -> None:
        self.progress = progress
        self.patience: Callable[[Callable[[], list[Any]]], list[Any]] = lambda act: act()
        self._reading = read
        self._owner = owner
        self._most = in_memory
        self._seen: dict[Identity, Seen] = {}
        self._open: dict[str, Open] = {}
        self._ended: dict[str, int] = {}
        self._spans: set[str] = set()
        self._known: dict[int, Known] = {}
        self._had: set[int] | None = None
        self.open_count = self._count_open()
        """How many executions have started and not ended."""
        few = [f"SELECT 1 FROM {table} WHERE source=? LIMIT ?" for table in _TABLES]
        counts = [
            self._read(f"SELECT count(*) FROM ({one}) AS few", owner, in_memory + 1)[0][0]
            for one in few
        ]
        self._whole = sum(counts) <= in_memory
        if self._whole:
            self._load()

    def _load(self) -> None:
        for i, message, created, ended in self._read(
            "SELECT id, message, created, ended FROM seen WHERE source=? ORDER BY created",
            self._owner,
        ):
            self._seen[i, message] = Seen(created, ended)
        self._take_open(self._read(f"{_OPEN} ORDER BY created", self._owner))
        self._ended.update(
            self._read(
                "SELECT execution, until FROM ended_execution WHERE source=? ORDER BY until",
                self._owner,
            )
        )
        self._spans.update(self._ended)
        self._spans.update(s.ended for s in self._seen.values() if s.ended is not None)

    # What is known --------------------------------------------------------------------------------

    def recall(self, settlement: Settlement, known: Iterable[tuple[Identity, str | None]]) -> None:
        """Brings into memory what there is of these records and executions, but for what the
        settlement changes."""
        if self._whole:
            return
        known = list(known)
        ids = {identity[0] for identity, _ in known}
        executions = {execution for _, execution in known if execution is not None}
        for i, message, created, ended in self._find(
            "SELECT id, message, created, ended FROM seen WHERE source=? AND id IN", ids
        ):
            self._seen.setdefault((i, message), Seen(created, ended))
        for select in (
            "SELECT execution FROM ended_execution WHERE source=? AND execution IN",
            "SELECT ended FROM seen WHERE source=? AND ended IN",
        ):
            self._spans.update(execution for (execution,) in self._find(select, executions))
        self._take_open(
            row
            for row in self._find(f"{_OPEN} AND execution IN", executions)
            if row[0] not in settlement.closed and row[0] not in self._open
        )

    def knows(self, identity: Identity) -> bool:
        """Whether this record is settled, or in the batch."""
        return identity in self._seen

    def was_settled(self, identity: Identity, created: int) -> bool:
        """Whether this record was settled, also where it is remembered no more: for as long as
        audits look back. `created`: its createdAt, Unix ms."""
        hour = created // _HOUR_MS
        known = self._known.get(hour)
        if known is None:
            start = hour * _HOUR_MS
            known = read_known(
                lambda select, values: self._read(select, *values),
                self._owner,
                start,
                start + _HOUR_MS,
            )
            self._known[hour] = known
        return (identity, created) in known

    def had_span(self, execution: str) -> bool:
        """Whether this execution got its span, also where that is remembered no more: for as long
        as audits look back."""
        if self._had is None:
            self._had = read_spans(lambda select, values: self._read(select, *values), self._owner)
        return execution_number(execution) in self._had

    def has_span(self, execution: str) -> bool:
        """Whether this execution has its span."""
        return execution in self._spans

    def started(self, execution: str) -> Open | None:
        """The execution's start, if it is open."""
        return self._open.get(execution)

    @property
    def read_up_to(self) -> int | None:
        """Up to where everything was read and settled, Unix ms; None where no record ever was, or
        where an older version wrote the checkpoint, which did not note it."""
        progress = self.progress
        noted = progress.read_to is not None or progress.window is not None
        if progress.high is None or not noted or self.newest_seen() is None:
            return None
        return max(progress.high, progress.read_to or 0)

    def newest_seen(self) -> int | None:
        """The newest createdAt among the records that are settled and remembered."""
        newest: int | None = self._read(
            "SELECT max(created) FROM seen WHERE source=?", self._owner
        )[0][0]
        return newest

    def due(self, now: int, most: int) -> list[str]:
        """Open executions that are to be asked for, longest due first. `now`: Unix ms."""
        return self._pick("created + next_check", now, most)

    def late(self, created: int, most: int) -> list[str]:
        """Open executions that started at `created` (Unix ms) or before, oldest first."""
        return self._pick("created", created, most)

    def _pick(self, what: str, until: int, most: int) -> list[str]:
        rows = self._read(
            f"{_OPEN} AND {what}<=? ORDER BY {what} LIMIT ?", self._owner, until, most
        )
        self._take_open(row for row in rows if row[0] not in self._open)
        return [execution for execution, *_ in rows]

    # What a batch changes -------------------------------------------------------------------------

    def remember(self, settlement: Settlement, identity: Identity, seen: Seen) -> None:
        """A record was taken."""
        settlement.seen[identity] = self._seen[identity] = seen
        if seen.ended is not None:
            self._spans.add(seen.ended)

    def remember_end(self, settlement: Settlement, execution: str, until: int) -> None:
        """An execution has its span, which is to be known up to a createdAt of `until`."""
        settlement.ended[execution] = self._ended[execution] = until
        self._spans.add(execution)

    def opened(self, settlement: Settlement, execution: str, opened: Open) -> None:
        """An execution started."""
        settlement.opened[execution] = self._open[execution] = opened
        settlement.closed.discard(execution)
        self.open_count += 1

    def closed(self, settlement: Settlement, execution: str) -> None:
        """An execution is open no more."""
        del self._open[execution]
        settlement.opened.pop(execution, None)
        settlement.asked.pop(execution, None)
        settlement.closed.add(execution)
        self.open_count -= 1

    def asked(self, settlement: Settlement, execution: str, next_check: int) -> None:
        """An execution was asked for; again at an age of `next_check` (ms)."""
        settlement.asked[execution] = self._open[execution].next_check = next_check

    def forget(self, settlement: Settlement, horizon: int) -> None:
        """Forgets what was created before `horizon` (Unix ms) and did not stay open."""
        settlement.forget_before = settlement.forget_ended_before = horizon
        # Not worth writing what the same transaction would delete.
        settlement.seen = {i: s for i, s in settlement.seen.items() if s.created >= horizon}
        if not self._whole:
            return
        for identity in [i for i, s in self._seen.items() if s.created < horizon]:
            ended = self._seen.pop(identity).ended
            if ended is not None and ended not in self._ended:
                self._spans.discard(ended)
        for execution in [e for e, until in self._ended.items() if until < horizon]:
            del self._ended[execution]
            self._spans.discard(execution)

    def forget_starts(self, settlement: Settlement, horizon: int) -> None:
        """Forgets open executions that started before `horizon` (Unix ms)."""
        settlement.forget_open_before = horizon
        for execution in [e for e, o in self._open.items() if o.created < horizon]:
            self.closed(settlement, execution)

    def settled(self, settlement: Settlement) -> None:
        """The settlement is written."""
        self._known.clear()
        self._had = None
        if self._whole:
            self._whole = len(self._seen) + len(self._open) + len(self._ended) <= self._most
        if self._whole:
            for execution, opened in settlement.opened.items():
                opened.original = _Stored(self, execution)
            return
        self._seen, self._open, self._ended, self._spans = {}, {}, {}, set()
        if settlement.forget_open_before:
            self.open_count = self._count_open()

    # Everything -----------------------------------------------------------------------------------

    def whole(self) -> State:
        """All that is settled, read from the file: for those who look at it as a whole."""
        state = State(self.progress)
        for i, message, created, ended in self._read(
            "SELECT id, message, created, ended FROM seen WHERE source=? ORDER BY created",
            self._owner,
        ):
            state.seen[i, message] = Seen(created, ended)
        for execution, *start in self._read(
            "SELECT execution, original, created, next_check, started_at FROM open_execution"
            " WHERE source=? ORDER BY created",
            self._owner,
        ):
            state.open[execution] = Open(*start)
        state.ended.update(
            self._read("SELECT execution, until FROM ended_execution WHERE source=?", self._owner)
        )
        return state

    def held(self) -> State:
        """What is in memory at this moment."""
        return State(self.progress, dict(self._seen), dict(self._open), dict(self._ended))

    def original(self, execution: str) -> str:
        """The JSON of an open execution's start."""
        text: str = self._read(
            "SELECT original FROM open_execution WHERE source=? AND execution=?",
            self._owner,
            execution,
        )[0][0]
        return text

    def _count_open(self) -> int:
        count: int = self._read("SELECT count(*) FROM open_execution WHERE source=?", self._owner)[
            0
        ][0]
        return count

    def _take_open(self, rows: Iterable[Any]) -> None:
        for execution, *start in rows:
            self._open[execution] = Open(_Stored(self, execution), *start)

    def _find(self, select: str, names: Iterable[str]) -> Iterator[Any]:
        wanted: list[str | None] = list(names)
        for at in range(0, len(wanted), _TOGETHER):
            some = wanted[at : at + _TOGETHER]
            some += [None] * (_TOGETHER - len(some))
            yield from self._read(f"{select} {_SOME}", self._owner, *some)

    def _read(self, select: str, *values: object) -> list[Any]:
        return self.patience(lambda: self._reading(select, values))


@dataclass(frozen=True, slots=True)
class _Stored:
    """An open execution's JSON, read when it is wanted."""

    memory: Remembered
    execution: str

    def text(self) -> str:
        return self.memory.original(self.execution)


def write_memory(db: Connection, owner: str, settlement: Settlement) -> None:
    """Writes what a settlement changes in what `owner` remembers, in the transaction that is open,
    but for its progress and what is set aside."""
    db.executemany(
        "INSERT INTO seen (source, id, message, created, ended) VALUES (?,?,?,?,?)"
        " ON CONFLICT (source, id, message)"
        " DO UPDATE SET created=excluded.created, ended=excluded.ended",
        [(owner, i, m, s.created, s.ended) for (i, m), s in settlement.seen.items()],
    )
    db.executemany(
        "INSERT INTO open_execution (source, execution, original, created, next_check, started_at)"
        " VALUES (?,?,?,?,?,?) ON CONFLICT (source, execution) DO UPDATE SET"
        " original=excluded.original, created=excluded.created, next_check=excluded.next_check,"
        " started_at=excluded.started_at",
        [
            (owner, e, o.text(), o.created, o.next_check, o.started_at)
            for e, o in settlement.opened.items()
        ],
    )
    db.executemany(
        "UPDATE open_execution SET next_check=? WHERE source=? AND execution=?",
        [(next_check, owner, e) for e, next_check in settlement.asked.items()],
    )
    db.executemany(
        "DELETE FROM open_execution WHERE source=? AND execution=?",
        [(owner, e) for e in settlement.closed],
    )
    db.executemany(
        "INSERT INTO ended_execution (source, execution, until) VALUES (?,?,?)"
        " ON CONFLICT (source, execution) DO UPDATE SET until=excluded.until",
        [(owner, e, until) for e, until in settlement.ended.items()],
    )
    db.execute("DELETE FROM seen WHERE source=? AND created<?", (owner, settlement.forget_before))
    db.execute(
        "DELETE FROM ended_execution WHERE source=? AND until<?",
        (owner, settlement.forget_ended_before),
    )
    db.execute(
        "DELETE FROM open_execution WHERE source=? AND created<?",
        (owner, settlement.forget_open_before),
    )


def forget_memory(db: Connection, owner: str) -> None:
    """Forgets all that `owner` remembers."""
    for table in _TABLES:
        db.execute(f"DELETE FROM {table} WHERE source=?", (owner,))
