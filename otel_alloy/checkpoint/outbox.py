"""The outbox: what lies ready for each destination, until that has acknowledged it.

Executions get here with the settlement of their batch, encoded, so that whatever is sent again has
the same bytes. They leave it when they are acknowledged or set aside; or, where there is no room
for them, in exchange for a note of what is to be read again from Alloy (a `Recall`): a dozen bytes
each, and nothing is lost. What is stored where is the store's business; nothing here sends.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from zlib import compress, crc32, decompress

from otel_alloy.checkpoint.store import RejectedRecord

PACKET_BYTES = 256 * 1024
"""What one packet holds at most, before it is compressed; more only where one execution does."""
_LEVEL = 1
_RECALL_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One execution for one destination. `span`, `log`: the framed items, None where there is none.
    `created` (createdAt, Unix ms) and `record` (`_id`) are how it is found at Alloy again, None
    where it cannot be. `role`, `original`, `started_at`, `enrichment`: as in RejectedRecord."""

    span: bytes | None
    log: bytes | None
    created: int | None
    record: str | None
    role: str
    original: str
    started_at: str | None = None
    enrichment: str | None = None

    @property
    def size(self) -> int:
        """Bytes that it takes, before it is compressed."""
        texts = len(self.original) + len(self.enrichment or "")
        return len(self.span or b"") + len(self.log or b"") + texts


@dataclass(frozen=True, slots=True)
class Packet:
    """Entries of one source that were put into the outbox together, `at` (Unix ms, our clock)."""

    number: int
    destination: str
    source: str
    at: int
    executions: int
    size: int
    packed: bytes = field(repr=False)

    def entries(self) -> list[Entry]:
        """What it holds."""
        return unpack(self.packed)


@dataclass(frozen=True, slots=True)
class Want:
    """An execution that is to be read again: its record's createdAt (Unix ms), the CRC-32 of its
    `_id`, and what its notification does not tell."""

    created: int
    check: int
    role: str
    started_at: str | None = None
    enrichment: str | None = None


@dataclass(frozen=True, slots=True)
class Recall:
    """What is to be read again from a source for a destination: `wants`, in the order of their
    createdAt, from `first` to `last` (Unix ms)."""

    number: int
    destination: str
    source: str
    first: int
    last: int
    wants: Sequence[Want] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sent:
    """Packets of one destination that need nothing more. `rejected`: what of them was set aside."""

    destination: str
    numbers: Sequence[int]
    executions: int
    rejected: Sequence[RejectedRecord] = ()


@dataclass(slots=True)
class Backlog:
    """What waits for one destination: in the outbox, and to be read again from Alloy. `oldest`:
    when the oldest came into the outbox; `recall_from`: the oldest createdAt of what is to be read
    again; Unix ms. `delivered`: since ever; `missing`: what Alloy did not give again."""

    executions: int = 0
    bytes: int = 0
    oldest: int | None = None
    recall: int = 0
    recall_from: int | None = None
    paused_at: int | None = None
    delivered: int = 0
    delivered_at: int | None = None
    missing: int = 0
    error: str | None = None
    error_at: int | None = None


@dataclass(slots=True)
class Recalled:
    """What became of reading again. `left`: by the number of a recall, what of it is still wanted
    (nothing: it is done); `entries`: what was found, by destination and source; `missing`: how many
    executions Alloy did not give, by destination."""

    left: dict[int, Sequence[Want]] = field(default_factory=dict)
    entries: dict[tuple[str, str], list[Entry]] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)


class Outbox(Protocol):
    """What a store does for destinations. Methods may be called from several threads and raise
    CheckpointError; those that write, CheckpointUnwritable where the same call may succeed
    later."""

    def backlogs(self) -> dict[str, Backlog]:
        """Every destination of which anything is known."""
        ...

    def take(self, destination: str, most_bytes: int, most: int) -> list[Packet]:
        """The oldest packets of a destination, all of one source: so many bytes (compressed) and
        executions at most, but one at least where there is any."""
        ...

    def sent(self, done: Iterable[Sent], now: int) -> int:
        """Packets that need nothing more leave the outbox; how many rejected records had not been
        set aside before. `now`: Unix ms."""
        ...

    def spill(self, destination: str, room: int, before: int, keep: Collection[int]) -> int:
        """Exchanges the oldest packets for recalls: until the destination has no more than `room`
        bytes, and what came before `before` (Unix ms, our clock). Not those with the numbers
        `keep`, which are being sent, nor what could not be read again. How many executions."""
        ...

    def recalls(self, destination: str, source: str, most: int) -> list[Recall]:
        """The oldest recalls of a destination, `most` executions at most, but one recall at least
        where there is any."""
        ...

    def recall_range(self, destination: str) -> tuple[int, int] | None:
        """From which createdAt on (Unix ms) and to which something is to be read again; None where
        nothing is."""
        ...

    def recalled(self, found: Recalled, now: int) -> None:
        """Puts what was read again into the outbox, and notes what is still wanted."""
        ...

    def pause(self, destination: str, at: int | None) -> None:
        """Notes since when nothing is sent to it; None: it is sent again."""
        ...

    def failed(self, errors: Mapping[str, str | None], now: int) -> None:
        """Notes why destinations fail; None: not any more."""
        ...

    def drop(self, destination: str) -> int:
        """Forgets all that waits for a destination; how many executions."""
        ...


def packets(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Entries in groups, each of a packet's size. What cannot be read again from Alloy has packets
    of its own, as it stays in the outbox."""
    for stays in (False, True):
        group: list[Entry] = []
        size = 0
        for entry in entries:
            if (entry.created is None) is not stays:
                continue
            if group and size + entry.size > PACKET_BYTES:
                yield group
                group, size = [], 0
            group.append(entry)
            size += entry.size
        if group:
            yield group


def pack(entries: Sequence[Entry]) -> bytes:
    """Entries as bytes: a line of JSON that says where each part ends, then the parts."""
    heads, parts = [], []
    for e in entries:
        original = e.original.encode("utf-8", "surrogatepass")
        known = None if e.enrichment is None else e.enrichment.encode("utf-8", "surrogatepass")
        some = (e.span, e.log, original, known)
        lengths = [-1 if part is None else len(part) for part in some]
        heads.append([*lengths, e.created, e.record, e.role, e.started_at])
        parts += [part for part in some if part is not None]
    return compress(b"".join((json.dumps(heads).encode(), b"\n", *parts)), _LEVEL)


def unpack(packed: bytes) -> list[Entry]:
    """What `pack` made bytes of."""
    head, _, rest = decompress(packed).partition(b"\n")
    at = 0

    def part(length: int) -> bytes | None:
        nonlocal at
        if length < 0:
            return None
        at += length
        return rest[at - length : at]

    found = []
    for span, log, original, known, *more in json.loads(head):
        parts = part(span), part(log), part(original) or b"", part(known)
        text = parts[2].decode("utf-8", "surrogatepass")
        enrichment = None if parts[3] is None else parts[3].decode("utf-8", "surrogatepass")
        created, record, role, started_at = more
        found.append(Entry(parts[0], parts[1], created, record, role, text, started_at, enrichment))
    return found


def want(entry: Entry) -> Want:
    """What remains of an entry that there is no room for. It can be read again."""
    assert entry.created is not None and entry.record is not None
    check = record_check(entry.record)
    return Want(entry.created, check, entry.role, entry.started_at, entry.enrichment)


def record_check(record: str) -> int:
    """What tells records of one millisecond apart by their `_id`."""
    return crc32(record.encode("utf-8", "surrogatepass"))


def stretches(wants: Iterable[Want]) -> Iterator[list[Want]]:
    """In the order of their createdAt, an hour together at most: what is read again at once."""
    group: list[Want] = []
    for one in sorted(wants, key=lambda w: w.created):
        if group and one.created >= group[0].created + _RECALL_MS:
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def pack_wants(wants: Sequence[Want]) -> bytes:
    """Wants as bytes."""
    rows = [[w.created, w.check, w.role, w.started_at, w.enrichment] for w in wants]
    return compress(json.dumps(rows).encode(), 6)


def unpack_wants(packed: bytes) -> list[Want]:
    """What `pack_wants` made bytes of."""
    return [Want(*row) for row in json.loads(decompress(packed))]
