"""REMEMBER: what is settled, so that nothing is lost and nothing is sent twice.

The checkpoint is what a source would need to go on after a crash: how far it is settled, which
records inside the overlap are known, which executions are open, and what was set aside. It moves
in one transaction per settled batch and never before the endpoint has acknowledged. No key is
stored, and of records only the JSON of those that were set aside or have not ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from otel_alloy.checkpoint.postgres_url import is_postgres
from otel_alloy.errors import CheckpointError, ConfigurationError

if TYPE_CHECKING:
    from otel_alloy.checkpoint.database import Database, Fence
    from otel_alloy.checkpoint.holding import Terms
    from otel_alloy.checkpoint.known import Known
    from otel_alloy.checkpoint.outbox import Entry, Outbox
    from otel_alloy.checkpoint.remembered import Remembered

SCHEMA_VERSION = 6

SINCE = "since:"
"""Before a destination's name: the name of what is learned of when it was first there."""
FROM_BEGIN = -1
"""It was there when the source began."""

Identity = tuple[str, str]
"""(`_id`, `message`): the same `_id` with a new message is news."""


class HasText(Protocol):
    """Something that makes its text only when asked."""

    def text(self) -> str: ...


@dataclass(slots=True)
class Seen:
    """A settled record: its createdAt (Unix ms), and its execution where it ended one."""

    created: int
    ended: str | None = None


@dataclass(slots=True)
class Open:
    """An execution that started and has not ended. `original`: the start record's JSON, or what
    can give it; `created` (Unix ms) is the start record's; `next_check`: the age (ms) at which to
    ask for it again."""

    original: str | HasText
    created: int
    next_check: int
    started_at: str | None = None

    def text(self) -> str:
        """The start record's JSON."""
        if not isinstance(self.original, str):
            self.original = self.original.text()
        return self.original


@dataclass(slots=True)
class Progress:
    """How far a source is settled; times are Unix ms.

    `high`: newest createdAt with everything before it settled. `window`: (start, before) of a
    window that is being read; `position`: where to go on in it. `begin`: where the source began,
    nothing before it is read. `read_to`: upper bound of a window that was read to its end, noted
    now and then; it shows that the source was read also where there was nothing.
    """

    high: int | None = None
    window: tuple[int, int] | None = None
    position: int | None = None
    begin: int | None = None
    read_to: int | None = None


@dataclass(slots=True)
class Waiting:
    """An execution that ended and waits for what else is known of it. `original`: its terminal
    record's JSON, or what can give it; `started_at`: what its start told; `since`: when it was
    seen, Unix ms by our clock; `enrichment`: what is known of it, once that does not change any
    more (`otel_alloy.mapping.enrichment`)."""

    uuid: str
    original: HasText
    started_at: str | None
    since: int
    enrichment: str | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A text that is there already."""

    whole: str

    def text(self) -> str:
        """It."""
        return self.whole


@dataclass(slots=True)
class State:
    """All that is remembered of one source, as a value; what is at work is `Remembered`. `ended`:
    executions whose span is settled and whose later records must not make another, with the
    createdAt (ms) until which to remember them."""

    progress: Progress = field(default_factory=Progress)
    seen: dict[Identity, Seen] = field(default_factory=dict)
    open: dict[str, Open] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """A record that was set aside: which signals refused it (`source` where it cannot be read or
    converted), why, and all that is needed to try again. `role` is a `Role` value, `at` Unix ms.
    `resource`: the attributes of the resource that it belongs to; None where they were not kept.
    `enrichment`: what was known of it beyond its notification. `destination`: the one that refused
    it; None: the main one."""

    source: str
    signals: str
    reason: str
    role: str
    original: str
    started_at: str | None = None
    at: int = 0
    number: int = 0
    resource: Mapping[str, str | bool | int | float] | None = None
    enrichment: str | None = None
    destination: str | None = None


@dataclass(slots=True)
class Settlement:
    """What one settled batch changes; written as a whole or not at all. `asked`: open executions,
    with their `next_check`. `known`: records that audits have to know as settled, with their
    createdAt; `spans`: executions that got their span. `visibility`: what `VisibilityLag.text`
    gives, where it changed. `counted`: what was seen of the API, and how often (see
    `Store.counted`). `waits`: executions that begin to wait for what else is known of them;
    `enriched`: those that waited and are delivered. `outbox`: what is to be delivered to
    destinations, put there `at` (Unix ms, our clock); `filtered`: how many executions a rule kept
    back, by createdAt (Unix ms) and the rule's name."""

    progress: Progress
    seen: dict[Identity, Seen] = field(default_factory=dict)
    opened: dict[str, Open] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    asked: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    rejected: list[RejectedRecord] = field(default_factory=list)
    known: dict[Identity, int] = field(default_factory=dict)
    spans: list[str] = field(default_factory=list)
    visibility: str | None = None
    counted: dict[str, int] = field(default_factory=dict)
    waits: dict[str, Waiting] = field(default_factory=dict)
    enriched: list[str] = field(default_factory=list)
    outbox: dict[str, list[Entry]] = field(default_factory=dict)
    filtered: dict[tuple[int, str], int] = field(default_factory=dict)
    at: int = 0
    forget_before: int = 0
    forget_ended_before: int = 0
    forget_open_before: int = 0
    forget_known_before: int = 0


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What an audit found, `age` ms after their end, about createdAt from `start` to `before` (Unix
    ms): how many records the API counts (None where it cannot tell) and how many are settled, in
    the end; `recovered`: how many of those only the audit brought. `at`: when, Unix ms."""

    age: int
    start: int
    before: int
    at: int
    api: int | None
    settled: int
    recovered: int = 0

    @property
    def missing(self) -> int:
        """Records that the API counts and that could not be had."""
        return max(0, (self.api or 0) - self.settled)

    @property
    def removed(self) -> int:
        """Records that are settled and that the API counts no more."""
        return 0 if self.api is None else max(0, self.settled - self.api)


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a backfill: createdAt from `start` (inclusive) to `before` (exclusive), Unix ms.

    `position`: where to go on in it, `high`: as in Progress; None before anything is settled. What
    lies between `warm` and `start` is to be read beforehand and not delivered.
    """

    number: int
    source: str
    warm: int
    start: int
    before: int
    position: int | None = None
    high: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The latest backfill of a source: what was `asked` for, in words, the range of createdAt that
    came of it, and its slices that are not done."""

    fingerprint: str
    asked: str
    start: int
    before: int
    slices: list[Slice]


class SourceStore(Protocol):
    """What reading a source needs of a store; see `Store`."""

    def load(self, source: str, fingerprint: str) -> Remembered: ...

    def settle(self, source: str, settlement: Settlement) -> int: ...

    def known(self, source: str, start: int, before: int) -> Known: ...

    def known_from(self, source: str) -> int | None: ...

    def visibility(self, source: str) -> str | None: ...

    def audited_to(self, source: str) -> dict[int, int]: ...

    def removes(self, source: str) -> bool: ...

    def write_audit(self, source: str, result: AuditResult) -> None: ...

    def learned(self, source: str) -> dict[str, int]: ...

    def write_learned(self, source: str, name: str, number: int | None) -> None: ...

    def waiting(self, source: str) -> dict[str, Waiting]: ...

    def write_enrichments(self, source: str, found: Mapping[str, str]) -> None: ...

    def reasons(self, uuids: Iterable[str]) -> dict[str, str]: ...

    def blocks(self, workflow: str, version: int) -> str | None: ...

    def write_blocks(self, workflow: str, version: int, blocks: str) -> None: ...


class RejectedHold(Protocol):
    """Sending rejected records again, which one process does at a time. Both raise LeaseLost where
    another one may be at it by now."""

    def going_on(self) -> None:
        """To be called before each batch is sent."""
        ...

    def drop(self, numbers: Iterable[int]) -> None:
        """Deletes what was delivered."""
        ...


class Store(Protocol):
    """What a checkpoint store does. Every method raises CheckpointError, with the remedy."""

    def add(self, sources: Mapping[str, str]) -> None:
        """Makes place for those of these sources that are new, by name with their fingerprints: one
        by one, as `load` does it, each would wait for the disk."""
        ...

    def load(self, source: str, fingerprint: str) -> Remembered:
        """What is remembered of the source, which is nothing where it is new. Refused when the
        fingerprint differs."""
        ...

    def settle(self, source: str, settlement: Settlement) -> int:
        """Writes a settlement in one transaction; how many of its rejected records had not been set
        aside before. A record is kept once. Raises CheckpointUnwritable where the same call
        may succeed later (disk full, read-only)."""
        ...

    def known(self, source: str, start: int, before: int) -> Known:
        """What is settled of a stretch of createdAt (Unix ms), as long as audits need it."""
        ...

    def known_from(self, source: str) -> int | None:
        """From which createdAt on `known` holds everything; None where the source never began."""
        ...

    def visibility(self, source: str) -> str | None:
        """What `VisibilityLag.text` gave last; None where nothing did."""
        ...

    def audited_to(self, source: str) -> dict[int, int]:
        """By age (ms), up to which createdAt (Unix ms) every stretch was audited."""
        ...

    def learned(self, source: str) -> dict[str, int]:
        """What was learned of the source, by name: `page_size`, how many records a page brings;
        `put_off` and `read_again_to`, createdAt as `otel_alloy.pipeline.overlap` says;
        SINCE and a destination's name, the createdAt before which it got nothing, or FROM_BEGIN."""
        ...

    def write_learned(self, source: str, name: str, number: int | None) -> None:
        """Keeps such a number; None forgets it. Raises CheckpointUnwritable as `settle`."""
        ...

    def waiting(self, source: str) -> dict[str, Waiting]:
        """The executions that wait for what else is known of them, longest first."""
        ...

    def write_enrichments(self, source: str, found: Mapping[str, str]) -> None:
        """Keeps what is known of waiting executions, by execution, for good: they are delivered
        with that. Raises CheckpointUnwritable as `settle`."""
        ...

    def write_reason(self, uuid: str, at: int, report: str, forget: int) -> bool:
        """Keeps what Alloy's error webhook told of an execution at `at` (Unix ms, our clock), until
        it is forgotten: what came before `forget` is now. False where it is known already. Raises
        CheckpointUnwritable as `settle`."""
        ...

    def reasons(self, uuids: Iterable[str]) -> dict[str, str]:
        """What the webhook told of these, by executionUuid, as far as it did."""
        ...

    def blocks(self, workflow: str, version: int) -> str | None:
        """How the blocks of one version of an installed workflow are called, as JSON; None where it
        is not known."""
        ...

    def write_blocks(self, workflow: str, version: int, blocks: str) -> None:
        """Keeps that."""
        ...

    def removes(self, source: str) -> bool:
        """Whether an audit of the last days found records settled that Alloy counts no more."""
        ...

    def write_audit(self, source: str, result: AuditResult) -> None:
        """Keeps a result, and moves its age on. Raises CheckpointUnwritable as `settle`."""
        ...

    def counted(self, source: str) -> dict[str, int]:
        """What only time tells of the API, and how often it was seen: `separate`, an end that was a
        record of its own (noted once a start of the program); `in_place`, a start that became its
        end under the same `_id`, and `in_place_moved`, with another createdAt; `ended_again`, a
        second end; `incomplete`, a start without an end."""
        ...

    def audits(self, source: str, start: int, before: int) -> list[AuditResult]:
        """The results of the last days about createdAt from `start` to `before` (Unix ms)."""
        ...

    def sources(self) -> dict[str, Progress]:
        """Every source that has a checkpoint."""
        ...

    def set_high(self, source: str, high: int) -> None:
        """Moves a source to a createdAt (Unix ms) by hand and forgets its window."""
        ...

    def reset(self, source: str) -> bool:
        """Forgets a source, but not its rejected records; False where it was not known."""
        ...

    @property
    def outbox(self) -> Outbox:
        """What lies ready for destinations."""
        ...

    def filtered(self, source: str, start: int, before: int) -> dict[str, int]:
        """How many executions each rule kept back, by its name, of createdAt from `start` to
        `before` (Unix ms), by whole minutes, as long as `known` is kept."""
        ...

    def rejected(
        self, numbers: Iterable[int] = (), *, after: int = 0, most: int = -1
    ) -> list[RejectedRecord]:
        """Rejected records, oldest first: all, or those with these numbers; of them at most `most`
        whose number is above `after`."""
        ...

    def rejected_by_destination(self) -> dict[str, int]:
        """How many records each destination but the main one has refused."""
        ...

    def run_is_active(self) -> bool:
        """Whether a process is reading Alloy with this store now."""
        ...

    def hold_rejected(self, terms: Terms | None = None) -> AbstractContextManager[RejectedHold]:
        """Keeps other processes from sending rejected records again meanwhile. Raises
        CheckpointError where one is at it. `terms`: of the lease, where it is one."""
        ...

    def drop_rejected(self, numbers: Iterable[int]) -> int:
        """Deletes rejected records; how many there were."""
        ...

    @property
    def shared(self) -> Database:
        """What replicas share besides."""
        ...

    def close(self) -> None:
        """Releases the store."""
        ...


class Slices(Protocol):
    """What a backfill remembers, beside what `run` does, which it never writes. With a file, one
    process at a time holds it; where processes share a database, each slice is held by a lease, and
    what is written of one raises LeaseLost where it has gone to another process. Methods may be
    called from several threads, and raise CheckpointError."""

    @property
    def leased(self) -> bool:
        """Whether slices are held by leases."""
        ...

    def run_is_active(self) -> bool:
        """Whether a `run` is reading with this store now."""
        ...

    def progress(self, source: str) -> Progress | None:
        """How far `run` is with the source; None where it never was."""
        ...

    def since(self, source: str, destination: str) -> int | None:
        """From which createdAt on `run` delivers to a destination, as far as it knows of it; None
        where it does not."""
        ...

    def plan(self, source: str) -> Plan | None:
        """The source's latest backfill; None where there was none. For a destination the source's
        name is that of both (`otel_alloy.pipeline.slice_worker`)."""
        ...

    def begin(self, source: str, plan: Plan, after: Plan | None = None) -> bool:
        """Forgets the source's backfill and writes a new one. The numbers of its slices are the
        store's to give. `after`: what `plan` has told; False, and nothing is written, where that
        is no longer so: another process was faster. Refused where one works at a slice of it."""
        ...

    def claim(self, source: str) -> Slice | None:
        """Takes the oldest slice that nobody works at; None where there is none."""
        ...

    def release(self, source: str) -> None:
        """Gives back what was claimed and is not done, but not what another live process has."""
        ...

    def give_back(self, piece: Slice) -> None:
        """Nobody works at a claimed slice any more, whether it is done or not."""
        ...

    def holds(self, piece: Slice) -> bool:
        """Whether a request for a claimed slice may be begun now."""
        ...

    def claimed(self, source: str) -> int:
        """Where there is nothing to claim: how many slices somebody works at, so that there may be
        later."""
        ...

    def load(self, piece: Slice) -> Remembered:
        """What a slice remembers, with its progress."""
        ...

    def settle(self, piece: Slice, settlement: Settlement) -> int:
        """As `Store.settle`, for a slice; a settlement without a window ends the slice.
        Raises CheckpointUnwritable where the same call may succeed later."""
        ...

    def settled(self, source: str) -> int | None:
        """How many records of the source's latest backfill are settled: each once, of those that
        have a createdAt; None where an older version counted none."""
        ...

    def cut(self, piece: Slice, at: int, warm: int) -> bool:
        """Ends a claimed slice at `at`; the rest becomes a slice of its own. Not where there is a
        slice that nobody works at: False then."""
        ...

    def close(self) -> None:
        """Releases the store."""
        ...


def open_slices(url: str, *, held: bool = False, terms: Terms | None = None) -> Slices:
    """The same store for a backfill, beside a `run`. `held`: for a process that ends before its
    parent, which holds it. `terms`: of leases, where processes share it. Raises CheckpointError,
    also where another backfill uses a file."""
    from otel_alloy.checkpoint.claims import LeasedClaims
    from otel_alloy.checkpoint.holding import Terms
    from otel_alloy.checkpoint.slices import StoredSlices

    if not is_postgres(url):
        return StoredSlices(open_store(url, exclusive=False), held=held)
    terms = terms or Terms()
    tenures = terms.tenures()
    store = open_store(url, exclusive=False, fence=tenures.fence)
    return StoredSlices(store, claims=LeasedClaims(store.shared, terms, tenures))


def store_exists(url: str) -> bool:
    """Whether there is a store already at such a URL. Raises CheckpointError."""
    if is_postgres(url):
        with _postgres_extra():
            from otel_alloy.checkpoint.postgres import postgres_exists
        return postgres_exists(url)
    return _path(url).exists()


def store_file(url: str) -> Path | None:
    """The file that the store at such a URL is; None where it is none. Raises CheckpointError."""
    return None if is_postgres(url) else _path(url)


def open_store(url: str, *, exclusive: bool = True, fence: Fence | None = None) -> Store:
    """The store of a `sqlite:///relative/path` or `sqlite:////absolute/path` URL, made where there
    is none, or of a `postgresql://…` URL as libpq reads it.

    `exclusive`: for a process that reads Alloy; with a file, a second one is refused. `fence`:
    asked before each write of a unit of work, where replicas share them. Raises CheckpointError,
    and ConfigurationError where the extra `postgres` is missing.
    """
    if is_postgres(url):
        with _postgres_extra():
            from otel_alloy.checkpoint.postgres import PostgresDatabase
        from otel_alloy.checkpoint.sql_store import SqlStore

        return SqlStore(PostgresDatabase(url, fence=fence))
    from otel_alloy.checkpoint.sqlite import SqliteStore

    return SqliteStore(_path(url), exclusive=exclusive)


def open_shared(url: str) -> Database:
    """The database of a `postgresql://…` URL, for what replicas share besides the checkpoint.
    Raises as `open_store`."""
    with _postgres_extra():
        from otel_alloy.checkpoint.postgres import PostgresDatabase
    return PostgresDatabase(url)


@contextmanager
def _postgres_extra() -> Iterator[None]:
    """Around what imports psycopg: where the extra is missing, that is said."""
    try:
        yield
    except ImportError as error:
        raise ConfigurationError(
            [
                f"storage: PostgreSQL needs what is not installed ({error}): install otel-alloy "
                "with its extra `postgres`, or just what that brings: `pip install "
                "'psycopg[binary]' psycopg-pool`"
            ]
        ) from None


def _path(url: str) -> Path:
    prefix = "sqlite:///"
    if not url.startswith(prefix) or len(url) == len(prefix):
        raise CheckpointError(
            f"OTEL_ALLOY_STORAGE: {url.split(':')[0]}:… is no known store",
            "use sqlite:///path or postgresql://user@host/database",
        )
    return Path(url[len(prefix) :]).expanduser()
