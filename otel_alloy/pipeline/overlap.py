"""The overlap: what a window reads again for records that appear late, and what a count spares.

A record may become visible up to an overlap after its createdAt. Reading all of that again in each
cycle finds it, at several readings a record. Where the API counts what matches a filter, one
request does the same: the **count** of the stretch is held against what is settled of it, and only
where there is more is it looked for. The window then begins at the newest settled record.

The count is taken after the window's end was frozen and before the window is read, so what was not
visible to it was created less than an overlap before that end, and lies in the next stretch
(`cursor.window_start` has the rest of the proof).

What a count cannot see: a record that was deleted and one that came late, behind one number. So
where a count ever fell, the stretch is read as long as it holds that moment; and everything that
was counted is **read once more**, a bucket at a time, as far as the budget allows.

Where counts cannot be had, or records change in place, the overlap is read, but no more often than
its share of the budget allows. What was put off is remembered in the store, and the next reading
begins there. Times are Unix ms by Alloy's clock.
"""

from __future__ import annotations

import enum
from array import array
from bisect import bisect_left
from collections.abc import Generator, Iterable
from typing import Protocol
from zlib import crc32

from otel_alloy.alloy.cursor import Window
from otel_alloy.checkpoint.known import Known
from otel_alloy.checkpoint.store import Identity
from otel_alloy.pipeline.pace import Share
from otel_alloy.pipeline.search import Counted, Search

_READ_AGAIN_TO, _PUT_OFF = "read_again_to", "put_off"
"""As the store names them: up to where was read once more; and from where on the overlap is still
to be read."""
_PIECE_PAGES = 10
_FARTHEST_MS = 86_400_000
_ID_BITS = 22
_FAR = 1 << 62


class Look(enum.Enum):
    """How a cycle looks for what appeared late."""

    READING = "read"
    COUNTING = "counted"
    PUTTING_OFF = "put off"


class OverlapStore(Protocol):
    """What is asked of a store; see `Store`."""

    def known(self, source: str, start: int, before: int) -> Known: ...

    def known_from(self, source: str) -> int | None: ...

    def learned(self, source: str) -> dict[str, int]: ...

    def write_learned(self, source: str, name: str, number: int | None) -> None: ...


class SettledCount:
    """How many records of a stretch are settled, in 8 bytes each: createdAt and some bits of the
    `_id`, in order. One whose message changed in place counts once, as the API counts it."""

    def __init__(self, records: Iterable[tuple[int, int]]) -> None:
        self._numbers = array("Q", sorted({_number(created, check) for created, check in records}))

    def add(self, records: Iterable[tuple[Identity, int]]) -> None:
        """These records with their createdAt are settled."""
        numbers = self._numbers
        for number in sorted(
            _number(created, crc32(record_id.encode("utf-8", "surrogatepass")))
            for (record_id, _), created in records
        ):
            if not numbers or number > numbers[-1]:
                numbers.append(number)
            else:
                at = bisect_left(numbers, number)
                if numbers[at] != number:
                    numbers.insert(at, number)

    def count(self, start: int, before: int) -> int:
        """How many were created from `start` to before `before`."""
        low = bisect_left(self._numbers, start << _ID_BITS)
        return bisect_left(self._numbers, before << _ID_BITS) - low

    def forget(self, before: int) -> None:
        """Nothing before is asked for any more."""
        del self._numbers[: bisect_left(self._numbers, before << _ID_BITS)]


def _number(created: int, check: int) -> int:
    return max(created, 0) << _ID_BITS | check & ((1 << _ID_BITS) - 1)


class Overlap:
    """Of one source. `search` delivers what appeared in the overlap, `late` what appeared after
    it. `share`: of the budget, what reading again may take. `bucket`: what is read once more
    together, ms."""

    def __init__(
        self,
        name: str,
        source: Counted,
        store: OverlapStore,
        search: Search,
        late: Search,
        share: Share,
        bucket: int,
    ) -> None:
        self._name = name
        self._source = source
        self._store = store
        self._search = search
        self._late = late
        self._share = share
        self._bucket = bucket
        learned = store.learned(name)
        self._again = learned.get(_READ_AGAIN_TO)
        self._put_off = learned.get(_PUT_OFF)
        self._settled: SettledCount | None = None
        self._doubted_before = 0
        self._work: Generator[None, None, None] | None = None
        self.look = Look.READING
        """How the last window looked."""
        self.costs = False
        """Whether that took more than one request, or would have."""

    @property
    def read_again_to(self) -> int | None:
        """Up to where everything that was counted was read once more; None before the first."""
        return self._again

    def note(self, records: Iterable[tuple[Identity, int]]) -> None:
        """These records with their createdAt are about to be settled."""
        if self._settled is not None:
            self._settled.add(records)

    def pass_over(self) -> None:
        """Nothing is counted for a while: what is settled is looked up anew when it is again."""
        self._settled = None

    def start(self, window: Window, high: int, only_adds: bool, page: int) -> int:
        """Where a window that begins now has to be read from; `high`: the newest createdAt that is
        settled. `only_adds`: whether a record that is known cannot change any more. `page`: what
        one request brings. The overlap is read after a start, then counted. Raises what asking
        and settling raise."""
        start = window.start if self._put_off is None else min(window.start, self._put_off)
        self.look, self.costs = Look.READING, False
        settled = self._settled
        if settled is None:
            self._settled = _counted(self._store.known(self._name, start, _FAR))
            return start
        settled.forget(start)
        expected = settled.count(start, high)
        if expected <= page:  # reading is as cheap as counting
            return start
        if only_adds and start >= self._doubted_before and self._knows(start):
            count = self._source.count(Window(start, high))
            if count is not None:
                return high if self._confirmed(Window(start, high), count, settled) else start
        self.costs = True
        if self._share.is_free():
            self._share.spend(expected // page)
            return start
        self.look = Look.PUTTING_OFF
        if self._put_off is None:
            self._put_off = start
            self._store.write_learned(self._name, _PUT_OFF, start)
        return high

    def ended(self) -> None:
        """The window is read to its end."""
        if self._put_off is not None and self.look is not Look.PUTTING_OFF:
            self._put_off = None
            self._store.write_learned(self._name, _PUT_OFF, None)

    def _knows(self, start: int) -> bool:
        known_from = self._store.known_from(self._name)
        return known_from is not None and known_from <= start

    def _confirmed(self, stretch: Window, count: int, settled: SettledCount) -> bool:
        """Whether everything that Alloy counts of a stretch is settled, after what is not was
        looked for."""
        known = settled.count(stretch.start, stretch.before)
        if count < known:
            self._doubted_before = stretch.before
            return False
        if count > known:
            for _ in self._search.by_count(stretch, count):
                pass
            if count > settled.count(stretch.start, stretch.before):
                self._doubted_before = stretch.before  # it counts what it does not give
                return False
        self.look = Look.COUNTING
        if self._again is None:
            self._again = stretch.start // self._bucket * self._bucket
            self._store.write_learned(self._name, _READ_AGAIN_TO, self._again)
        return True

    def read_again(self, read_to: int, page: int, share: Share) -> bool:
        """Reads once more what is due of what was counted, as far as `share` is free. `read_to`:
        nothing after it is due. False where so much was never read again that it is given up:
        then it goes on where it can. Raises what asking and settling raise."""
        given_up = self._again is not None and self._again < read_to - _FARTHEST_MS - self._bucket
        if given_up:
            self._again = read_to // self._bucket * self._bucket - self._bucket
            self._work = None
        while share.is_free() and self._again is not None:
            if self._work is None:
                if self._again + self._bucket > read_to:
                    break
                self._work = self._bucket_again(self._again, page)
            work, self._work = self._work, None  # an exception ends it
            if next(work, self) is not self:
                self._work = work
                share.spend(1)
        return not given_up

    def _bucket_again(self, start: int, page: int) -> Generator[None, None, None]:
        whole = Window(start, start + self._bucket)
        settled = self._late.known(whole).count(whole.start, whole.before)
        pieces = settled // (_PIECE_PAGES * page) + 1
        length = -(-self._bucket // pieces)
        for begin in range(whole.start, whole.before, length):
            piece = Window(begin, min(begin + length, whole.before))
            yield from self._late.by_reading(piece)
        self._again = whole.before
        self._store.write_learned(self._name, _READ_AGAIN_TO, whole.before)


def _counted(known: Known) -> SettledCount:
    return SettledCount(known.records())
