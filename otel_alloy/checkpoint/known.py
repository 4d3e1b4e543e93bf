"""Which records are settled, in 8 bytes each, for as long as audits look back.

A block holds what was settled together: a first createdAt and a 64-bit number a record, in rising
order: 26 bits of milliseconds after the first, 32 bits of a checksum of the `_id`, 6 bits for the
message. That tells a record for certain that is new, and takes a new one for known only where
another of the very same millisecond has the same checksum: one in four thousand million. Beside
it stand the executions that got their span, in 8 bytes each, so that what comes late makes no
second one. Pure: what is stored where is the store's business.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from struct import unpack
from zlib import crc32

from otel_alloy.checkpoint.store import Identity

SPAN_MS = 1 << 26
"""What one block spans at most, ms of createdAt (18 hours)."""
_ID_BITS, _MESSAGE_BITS = 32, 6
_SHIFT = _ID_BITS + _MESSAGE_BITS
_MESSAGE_MASK = (1 << _MESSAGE_BITS) - 1
_MESSAGES = {"executionStarted": 0, "executionFinished": 1, "executionError": 2}
"""Those that there are keep apart for certain: a record changes from one into another in place."""


@dataclass(frozen=True, slots=True)
class Block:
    """Records that were settled together, with createdAt from `first` to `last` (Unix ms)."""

    first: int
    last: int
    packed: bytes


def blocks(records: Iterable[tuple[Identity, int]]) -> Iterator[Block]:
    """Packs records with their createdAt (Unix ms), in as few blocks as their span allows."""
    created: list[int] = []
    identities: list[Identity] = []
    for identity, moment in records:
        identities.append(identity)
        created.append(moment)
    if not created:
        return
    lowest = min(created)
    ordered = [
        (c - lowest) << _SHIFT | x for c, x in zip(created, _checksums(identities), strict=True)
    ]
    ordered.sort()
    at = 0
    while at < len(ordered):
        base = ordered[at] >> _SHIFT
        end = bisect_left(ordered, (base + SPAN_MS) << _SHIFT)
        less = base << _SHIFT
        block = ordered[at:end]
        numbers = array("Q", [number - less for number in block] if less else block)
        last = lowest + (ordered[end - 1] >> _SHIFT)
        yield Block(lowest + base, last, _to_bytes(numbers))
        at = end


class Known:
    """The settled records of a stretch of createdAt, from the blocks that touch it. `start`
    (inclusive) and `before` (exclusive) in Unix ms."""

    def __init__(self, found: Iterable[Block], start: int, before: int) -> None:
        self.start, self.before = start, before
        entries: set[tuple[int, int]] = set()
        for block in found:
            numbers = _from_bytes(block.packed)
            low = bisect_left(numbers, max(0, start - block.first) << _SHIFT)
            high = bisect_left(numbers, max(0, before - block.first) << _SHIFT)
            mask = (1 << _SHIFT) - 1
            entries.update((block.first + (n >> _SHIFT), n & mask) for n in numbers[low:high])
        self._entries = sorted(entries)

    def __contains__(self, record: tuple[Identity, int]) -> bool:
        """Whether a record (its identity, its createdAt) was settled."""
        identity, created = record
        wanted = (created, _checksum(identity))
        at = bisect_left(self._entries, wanted)
        return at < len(self._entries) and self._entries[at] == wanted

    def records(self) -> Iterator[tuple[int, int]]:
        """The createdAt of each (Unix ms), and the CRC-32 of its `_id`; of one whose message
        changed in place perhaps twice."""
        return ((created, check >> _MESSAGE_BITS) for created, check in self._entries)

    def count(self, start: int, before: int) -> int:
        """How many records of this stretch are settled. One whose message changed in place counts
        once, as the API counts it."""
        low = bisect_left(self._entries, (start, 0))
        high = bisect_left(self._entries, (before, 0))
        return len({(c, check >> _MESSAGE_BITS) for c, check in self._entries[low:high]})


def pack_executions(executions: Iterable[str]) -> bytes:
    """Executions, to be looked up in what `unpack_executions` gives."""
    found = list(executions)
    return _to_bytes(array("Q", sorted(_object_ids(found) or map(execution_number, found))))


def unpack_executions(packed: Iterable[bytes]) -> set[int]:
    """The `execution_number` of all that were packed."""
    found: set[int] = set()
    for numbers in packed:
        found.update(_from_bytes(numbers))
    return found


def execution_number(execution: str) -> int:
    """64 bits that tell executions apart: of an ObjectId all but its time, else a digest."""
    (found,) = _object_ids([execution]) or (None,)
    if found is None:
        digest = blake2b(execution.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        found = int.from_bytes(digest, "big")
    return found


def _object_ids(executions: list[str]) -> Sequence[int] | None:
    """The numbers of all, where each is an ObjectId as Alloy writes them; else None."""
    if set(map(len, executions)) != {24}:
        return None
    text = "".join(executions)
    try:
        together = bytes.fromhex(text)
    except ValueError:
        return None
    if together.hex() != text:  # it had capital letters or spaces
        return None
    return unpack(f">{'4xQ' * len(executions)}", together)


def _to_bytes(numbers: array[int]) -> bytes:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _from_bytes(packed: bytes) -> array[int]:
    numbers = array("Q", packed[: len(packed) // 8 * 8])
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _checksum(identity: Identity) -> int:
    (found,) = _checksums([identity])
    return found


def _checksums(identities: Sequence[Identity]) -> Iterable[int]:
    """38 bits of each identity."""
    ids = [record_id for record_id, _ in identities]
    try:
        encoded = list(map(str.encode, ids))
    except UnicodeEncodeError:
        encoded = [record_id.encode("utf-8", "surrogatepass") for record_id in ids]
    told = [
        _other(message) if (number := _MESSAGES.get(message)) is None else number
        for _, message in identities
    ]
    return [
        check << _MESSAGE_BITS | number
        for check, number in zip(map(crc32, encoded), told, strict=True)
    ]


def _other(message: str) -> int:
    """Of a message that is not known."""
    rest = _MESSAGE_MASK + 1 - len(_MESSAGES)
    return len(_MESSAGES) + crc32(message.encode("utf-8", "surrogatepass")) % rest
