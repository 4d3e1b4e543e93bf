"""What the SQL of the checkpoint asks of an engine, and what it may use.

The statements of this package are the common subset of SQLite and PostgreSQL: `?` for values,
`INSERT … ON CONFLICT (…) DO UPDATE SET x=excluded.x`, no negative LIMIT, no function of one engine
alone; names of tables are lower case, keywords are not. An engine (`sqlite.py`, `postgres.py`)
brings connections that take them. Nothing here knows a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from otel_alloy.checkpoint.holding import Terms

T = TypeVar("T")

REJECTED = "rejected"
"""The unit of work that sending rejected records again is."""
SLICE = "slice"
"""What the units begin with that are slices of a backfill."""

Read = Callable[[str, Sequence[object]], list[Any]]
"""A SELECT and its values; the rows. Raises CheckpointError."""


class Rows(Protocol):
    """What a statement gave. `lastrowid`: the number that an INSERT of one row has just given."""

    @property
    def rowcount(self) -> int: ...

    @property
    def lastrowid(self) -> int | None: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A transaction that is open."""

    def execute(self, sql: str, values: Sequence[Any] = ..., /) -> Rows: ...

    def executemany(self, sql: str, values: Iterable[Sequence[Any]], /) -> Rows:
        """The same statement for each; no two may have the same key."""
        ...


Fence = Callable[[Connection, str], None]
"""Checks in an open transaction that this process may still write for a unit of work, and keeps
others from taking it over until the transaction ends. Raises where it may not."""


class Hold(Protocol):
    """What is held alone."""

    def holds(self) -> bool:
        """Whether it still is, as far as is known: whether a request may be begun."""
        ...

    def check(self, db: Connection) -> None:
        """In an open transaction: keeps it held until that ends. Raises LeaseLost where it is no
        more."""
        ...


class Database(Protocol):
    """An engine. Methods may be called from several threads and raise CheckpointError, or
    CheckpointUnwritable where the same call may succeed later."""

    @property
    def place(self) -> str:
        """Where it is, for messages; without a secret."""
        ...

    def transact(
        self, act: Callable[[Connection], T], units: Sequence[str] = (), call: object = None
    ) -> T:
        """Does `act` in one transaction, all or nothing, durable when this returns; perhaps several
        times, each but the last undone. `units`: for which of them it settles (`source_unit` and
        so on). `call`: the same object, or an equal tuple, where a call that failed is made again:
        what that one has written after all is not written twice."""
        ...

    def read(self, select: str, values: Sequence[object] = ()) -> list[Any]:
        """The rows of a SELECT."""
        ...

    def hold(
        self, name: str, taken: str, remedy: str, terms: Terms | None = None
    ) -> AbstractContextManager[Hold]:
        """Keeps other processes from holding the same until it is left. Raises
        CheckpointError(taken, remedy) where one has it. `terms`: of the lease, where it is one."""
        ...

    def run_is_active(self) -> bool:
        """Whether a process is reading Alloy with this database now."""
        ...

    def close(self) -> None:
        """Releases it."""
        ...


def source_unit(source: str) -> str:
    """The unit of work that a source is."""
    return f"source {source}"


def slice_unit(source: str, number: int) -> str:
    """The unit of work that a slice of a backfill is."""
    return f"{SLICE} {number} {source}"


def destination_unit(destination: str) -> str:
    """The unit of work that a destination's outbox is."""
    return f"destination {destination}"
