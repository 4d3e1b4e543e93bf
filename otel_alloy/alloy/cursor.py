"""How a window on createdAt is read: a page in, a decision out. No request is made here.

A cursor says what to ask next (`query`) and what an answer means (`advance`); `reader` asks.

`KeysetCursor` (the normal way): after a page, the next request starts at the page's last createdAt,
closed, so that records which share a millisecond are never cut apart. A full page of one
millisecond is a run that `exhaustive` reads as a whole. A request's cost is the same at the
millionth execution. Progress is by records received, never by records asked for.

`DescendingCursor` (where the API ignores the filter or the order): pages from the newest record
down, each overlapping the one before by one record, so that neither deletions nor an empty answer
can open a gap unseen, until a page lies wholly below the window.

**An end needs evidence.** An empty or short page is the end where the API itself counts no more
after it; where it does not count, the reader asks once more. Where it counts more, or where what
has to be there is not, the cursor says how many are missing, and the reader has to find them.

A window's upper bound is frozen when it begins: records that appear while it is read belong to the
next one, which starts an overlap earlier (`window_start` has the proof).

Nothing here remembers what was delivered; dropping what is known is the tracker's work.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, replace

from otel_alloy.alloy.models import BadRecord, Page, Record
from otel_alloy.alloy.query import Query

_BARREN_PAGES = 3
"""After so many pages in a row that bring nothing new, asking the same way is pointless."""
_BACK_AT_MOST = 6
"""So often in a row it is gone back, each time by more, to find a record that has to be there."""


@dataclass(frozen=True, slots=True)
class Window:
    """createdAt from `start` (inclusive) to `before` (exclusive), Unix ms."""

    start: int
    before: int


def window_start(high: int, overlap_ms: int, final: bool) -> int:
    """Where the next window begins (inclusive, Unix ms) after everything up to `high` is settled.

    A record may become visible up to `overlap_ms` after its createdAt. `high` is the newest
    createdAt settled and lies before the upper bound of the window that brought it, so a record
    that was not visible then has createdAt > high - overlap: the next window must begin there.
    `final`: a window that was begun more than an overlap after `high` last grew has been read to
    its end, so nothing at or below `high` can still appear.
    """
    return high + 1 if final else high - overlap_ms


@dataclass(frozen=True, slots=True)
class Reading:
    """What one page brings.

    `position`: once this is settled, the window may be continued from this createdAt (inclusive);
    None while only the whole window can be settled (newest first). `last`: the window is read.

    For the reader only: `sure`, whether the API's own count confirms that it is the last page;
    `missing`, how many records more have to be there although nothing follows, None where that
    cannot be told; `run`, a createdAt of which there are more than a page holds.
    """

    records: list[Record]
    bad: list[BadRecord]
    position: int | None
    last: bool
    sure: bool = True
    missing: int | None = 0
    run: int | None = None


class Filter(enum.Enum):
    """What the API makes of a createdAt filter."""

    HONOURED = "honoured"
    IGNORED = "ignored"
    MATCHES_NOTHING = "matches nothing"
    REFUSED = "refused"
    UNKNOWN = "not known yet"


class UnorderedApi(Exception):
    """The API did not do what ascending paging needs. `why`: what it does instead, in words."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(slots=True)
class Behaviour:
    """What an API has shown of itself so far; it outlives the windows.

    `finds_executions`: whether it filters by executionId. `counts_matches`: whether `totalItems`
    counts what matches a filter, None while that is not known; `counts`, whether it counts at all;
    `exceeds`, whether it ever counted more than a page, as one that counts pages would not.
    `largest`: the most records that it sends in one page.
    """

    filter: Filter = Filter.UNKNOWN
    ordered: bool = True
    finds_executions: bool = True
    counts_matches: bool | None = None
    counts: bool = True
    exceeds: bool = False
    largest: int = 0

    @property
    def newest_first(self) -> bool:
        """Whether it has to be read from the newest record down."""
        return not self.ordered or self.filter not in (Filter.HONOURED, Filter.UNKNOWN)

    def fills(self, page: Page) -> bool:
        """Whether the page is as large as this API makes them, so that more may follow."""
        most = self.largest if page.limit is None else min(self.largest, page.limit)
        return page.received > 0 and page.received >= most

    def count(self, query: Query, page: Page) -> int | None:
        """How many records match `query` by the API's own count; None where it does not tell, or
        is known to count something else under a filter."""
        total = page.total
        if total is None or total < 0 or not self.counts:
            return None
        if query.filtered and self.counts_matches is False:
            return None
        return total

    def remaining(self, query: Query, page: Page) -> int | None:
        """How many records follow this answer to `query` by the API's own count; None as above."""
        total = self.count(query, page)
        return None if total is None else max(0, total - query.skip - page.received)


class KeysetCursor:
    """Reads a window in ascending order of createdAt. Raises UnorderedApi, once, from `advance`,
    when the API shows twice that it needs the other cursor: the window is to be read again then."""

    def __init__(self, window: Window, api: Behaviour) -> None:
        self._window = window
        self._api = api
        self._position = window.start
        self._skip = 0  # grows only where a page has no createdAt at all
        self._at_position: set[tuple[str, str]] = set()  # what was read of this millisecond
        self._barren = 0
        self._asked_from, self._asked_skip = window.start, 0
        self._received = 0  # by the last page
        self._short = 0  # records on a page that was looked on from, as it may be the last
        self._last: set[tuple[str, str]] = set()  # what the last page held
        self._expected = 0  # records from here on, by the answer before
        self._came_from = window.start
        self._checked: int | None = None  # where the way went back to, once
        self._accused = False  # the last answer was not what was asked for
        self._doubted: Page | None = None  # a first page, while it is asked what is before it
        self._suspect: int | None = None  # its createdAt, until it is known whether it is first

    def query(self, base: Query) -> Query:
        """What to ask next."""
        query = replace(base, after=self._position - 1, before=self._window.before, skip=self._skip)
        if self._doubted is None:
            return query
        return replace(query, limit=1, before=self._suspect)

    def advance(self, page: Page) -> Reading | None:
        """What the answer to `query` brings; None where another look is needed to tell."""
        asked = self.query(Query(page.limit or 1))
        doubted, suspect = self._doubted, self._suspect
        before = self._window.before if doubted is None or suspect is None else suspect
        times = page.created
        if times and not self._position <= min(times) <= max(times) < before:
            if self._accuse():  # one answer may be somebody else's, or an old one
                return None
            self._api.filter = Filter.IGNORED
            raise UnorderedApi(Filter.IGNORED.value)
        self._doubted = self._suspect = None
        if doubted is not None and suspect is not None:
            if not times:
                again = replace(asked, limit=doubted.limit or 1, before=self._window.before)
                return self._take(doubted, doubted.created, again)
            # Something is before it, which may have become visible since: then the same request
            # begins with that now.
            self._suspect = suspect
            return None
        misplaced = suspect is not None and (not times or times[0] >= suspect)
        if misplaced or times != sorted(times):
            if not misplaced and self._accuse():
                return None
            self._api.ordered = False
            raise UnorderedApi("not in ascending order")
        self._accused = False
        begins = self._position == self._window.start and not self._skip
        if begins and times and self._position < times[0] == times[-1] and self._api.fills(page):
            # A page of one millisecond shows no order: is anything before it?
            self._doubted, self._suspect = page, times[0]
            return None
        return self._take(page, times, asked)

    @property
    def known(self) -> frozenset[tuple[str, str]]:
        """What was read of the millisecond at which the next request begins."""
        return frozenset(self._at_position)

    def passed(self, run: int) -> None:
        """Everything of the millisecond `run` is read."""
        self._position, self._skip, self._at_position = run + 1, 0, set()
        self._expected = 0

    def look_on(self) -> None:
        """Asks for what follows the last page although it looked short, as the API may have lowered
        its limit; after an empty page, the same again. Of the answer, what is known is dropped."""
        self._position, self._expected = self._asked_from, 0
        self._at_position |= self._last
        self._skip, self._short = self._asked_skip + self._received, self._received

    @property
    def finished(self) -> bool:
        """Whether nothing of the window is left to ask for."""
        return self._position >= self._window.before

    def _accuse(self) -> bool:
        """Whether the answer is out of bounds or order for the first time in a row."""
        first, self._accused = not self._accused, True
        return first

    def _take(self, page: Page, times: list[int], asked: Query) -> Reading | None:
        """Accepts a page that is in order and moves on to its last createdAt. None where records
        before it are missing: then it is gone back to where it came from, once."""
        count = self._api.count(asked, page) if not asked.skip else None
        if count is not None and count < self._expected and self._checked != self._came_from:
            self._position = self._checked = self._came_from
            self._skip, self._expected, self._at_position = 0, 0, set()
            return None
        records = [r for r in page.records if r.identity not in self._at_position]
        bad = [b for b in page.bad if b.identity not in self._at_position]
        self._asked_from, self._asked_skip = self._position, asked.skip
        self._received = page.received
        self._last = {r.identity for r in page.records} | {b.identity for b in page.bad}
        if self._short and page.received >= self._short and (records or bad):
            self._api.largest = self._short  # as much again: it was a full page
        self._short = 0
        full = self._api.fills(page)
        position = times[-1] if times else self._position
        moved = position > self._position
        skipped = asked.skip > 0
        if moved:
            self._at_position, self._skip = self._at_position if skipped else set(), 0
        elif not times or skipped:
            self._skip += page.received
        self._at_position.update(r.identity for r in page.records if r.created in (position, None))
        self._at_position.update(b.identity for b in bad)
        if moved:
            self._came_from = self._position
        self._expected = 0 if count is None else count - sum(1 for t in times if t < position)
        self._position = position
        if full and times and times[0] == times[-1]:
            return Reading(records, bad, position, last=False, run=position)
        new = bool(records or bad)
        self._barren = 0 if new else self._barren + 1
        reading = Reading(records, bad, position, last=False)
        remaining = self._api.remaining(asked, page)
        if full and (moved or new) and not (skipped and self._barren):
            return reading
        if remaining or page.called_full:
            if not full and page.received:
                self._api.largest = page.received  # the API may have lowered its limit since
            if new or moved or (not remaining and self._barren < _BARREN_PAGES):
                return reading
        return replace(reading, last=True, sure=remaining == 0, missing=remaining or 0)


class DescendingCursor:
    """Reads a window from the newest record down. `seen`: identities of what earlier passes over
    the window brought; what this one brings is added.

    `shuffled`, after the end: records of one createdAt came in another order in another answer, so
    that some may have been on no page.
    """

    def __init__(self, window: Window, api: Behaviour, seen: set[tuple[str, str]]) -> None:
        self._window = window
        self._api = api
        self._filtered = api.filter is Filter.HONOURED
        self._seen = seen
        self._skip = 0
        self._step = 0  # by how much `skip` last grew, or by how much to go back next
        self._overlaps = False  # whether the next page has to begin with a known record
        self._back = 0  # how often in a row it did not
        self._repeats = 0  # pages in a row without anything new
        self._previous: dict[tuple[str, str], int | None] = {}
        self._mine: dict[tuple[str, str], int | None] = {}
        self.lowest: int | None = None
        self.shuffled = False

    def query(self, base: Query) -> Query:
        """What to ask next."""
        query = replace(base, ascending=False, skip=self._skip)
        if not self._filtered:
            return query
        return replace(query, after=self._window.start - 1, before=self._window.before)

    def knows(self, page: Page) -> bool:
        """Whether all of it was on the last page that was not empty."""
        return self._entries(page).keys() <= self._previous.keys()

    def advance(self, page: Page) -> Reading | None:
        """What the answer to `query` brings; None where the way went past something."""
        asked = self.query(Query(page.limit or 1))
        here, remaining = self._entries(page), self._api.remaining(asked, page)
        if self._skip and self._overlaps and self._previous.keys().isdisjoint(here):
            # Records above were deleted and what came after the last page moved up into it; or the
            # answer is empty for no reason; or equal createdAt come in any order.
            self._back += 1
            if self._back <= _BACK_AT_MOST:
                self._skip, self._step = max(0, self._skip - self._step), self._step * 2
                return None
            if not here:
                return Reading([], [], None, last=True, sure=False, missing=remaining or None)
        start, before, times = self._window.start, self._window.before, page.created
        below = bool(times) and times == sorted(times, reverse=True) and times[-1] < start
        repeats = self._skip > 0 and bool(here) and here.keys() <= self._previous.keys()
        only_known = repeats and self._overlaps and page.received == 1
        self._repeats = self._repeats + 1 if repeats and not only_known else 0
        if self._repeats == 1 and page.received > 1:
            return None  # perhaps only once; else as many new records came at the top
        self._note_order(here)
        records = [
            r
            for r in page.records
            if r.identity not in self._seen and (r.created is None or start <= r.created < before)
        ]
        bad = [b for b in page.bad if b.identity not in self._seen]
        if not here.keys() <= self._mine.keys():
            self._back = 0
        self._mine.update(here)
        self._seen.update(here)
        if times:
            self.lowest = min(times) if self.lowest is None else min(self.lowest, *times)
        reading = Reading(records, bad, None, last=False)
        if here:
            self._overlaps, self._previous = page.received > 1, here
            self._step = max(1, page.received - 1)
            self._skip += self._step
        if below:
            return replace(reading, last=True)
        ignored = self._repeats >= _BARREN_PAGES  # `skip` is
        if here and not ignored and not (only_known and remaining == 0):
            return reading
        total = self._api.count(asked, page)
        missing = None if total is None else max(remaining or 0, total - len(self._seen), 0)
        if ignored:
            return replace(reading, last=True, sure=missing == 0, missing=missing)
        return replace(reading, last=True, sure=missing == 0, missing=missing or 0)

    def _note_order(self, here: dict[tuple[str, str], int | None]) -> None:
        """Whether records of one createdAt were seen in two orders."""
        again = [(i, created) for i, created in here.items() if i in self._mine]
        if self._overlaps and next(iter(here), None) == next(reversed(self._previous), None):
            again = again[1:]  # where the pages overlap
        if again:
            ties = Counter(self._mine.values())
            self.shuffled = self.shuffled or any(ties[created] > 1 for _, created in again)

    @staticmethod
    def _entries(page: Page) -> dict[tuple[str, str], int | None]:
        records: dict[tuple[str, str], int | None] = {r.identity: r.created for r in page.records}
        return records | {b.identity: None for b in page.bad}
