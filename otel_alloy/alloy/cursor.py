"""How a window on createdAt is read: a page in, a decision out. No request is made here.

A cursor says what to ask next (`query`) and what an answer means (`advance`); `reader` asks.

`KeysetCursor` (the normal way): after a page, the next request starts at the page's last createdAt,
closed, so that records which share a millisecond are never cut apart. `skip` serves only inside a
run of equal createdAt that is longer than a page. A request's cost is the same at the millionth
execution. Progress is by records received, never by records asked for.

`DescendingCursor` (where the API ignores the filter or the order): pages from the newest record
down, each overlapping the one before by one record, so that deletions cannot open a gap unseen,
until a page lies wholly below the window.

The end is an empty page, or a page smaller than this API has shown it can send. A window's upper
bound is frozen when it begins: records that appear while it is read belong to the next one, which
starts an overlap earlier (`window_start` has the proof).

Nothing here remembers what was delivered; dropping what is known is the tracker's work.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from otel_alloy.alloy.models import BadRecord, Page, Record
from otel_alloy.alloy.query import Query

_BARREN_PAGES = 3
"""So many pages in a row that bring nothing new are the end, whatever the API promises."""


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
    """

    records: list[Record]
    bad: list[BadRecord]
    position: int | None
    last: bool


class Filter(enum.Enum):
    """What the API makes of a createdAt filter."""

    HONOURED = "honoured"
    IGNORED = "ignored"
    MATCHES_NOTHING = "matches nothing"
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
    counts what matches a filter, None while that is not known. `largest`: the most records that it
    sends in one page.
    """

    filter: Filter = Filter.UNKNOWN
    ordered: bool = True
    finds_executions: bool = True
    counts_matches: bool | None = None
    largest: int = 0

    @property
    def newest_first(self) -> bool:
        """Whether it has to be read from the newest record down."""
        return not self.ordered or self.filter in (Filter.IGNORED, Filter.MATCHES_NOTHING)

    def fills(self, page: Page) -> bool:
        """Whether the page is as large as this API makes them, so that more may follow."""
        most = self.largest if page.limit is None else min(self.largest, page.limit)
        return page.received > 0 and page.received >= most


class KeysetCursor:
    """Reads a window in ascending order of createdAt. Raises UnorderedApi, once, from `advance`,
    when the API shows that it needs the other cursor: the window is to be read again then."""

    def __init__(self, window: Window, api: Behaviour) -> None:
        self._window = window
        self._api = api
        self._position = window.start
        self._skip = 0
        self._at_position: set[tuple[str, str]] = set()  # what was read of this millisecond
        self._barren = 0
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
        doubted, suspect = self._doubted, self._suspect
        self._doubted = self._suspect = None
        if doubted is not None and suspect is not None:
            if not self._times(page, suspect):
                return self._take(doubted, doubted.created)
            # Something is before it, which may have become visible since: then the same request
            # begins with that now.
            self._suspect = suspect
            return None
        times = self._times(page, self._window.before)
        misplaced = suspect is not None and (not times or times[0] >= suspect)
        if misplaced or times != sorted(times):
            self._api.ordered = False
            raise UnorderedApi("not in ascending order")
        begins = self._position == self._window.start and not self._skip
        if begins and times and self._position < times[0] == times[-1] and self._api.fills(page):
            # A page of one millisecond shows no order: is anything before it?
            self._doubted, self._suspect = page, times[0]
            return None
        return self._take(page, times)

    def _times(self, page: Page, before: int) -> list[int]:
        """The page's createdAt. Raises UnorderedApi where the filter did not keep to the bounds."""
        times = page.created
        if times and not self._position <= min(times) <= max(times) < before:
            self._api.filter = Filter.IGNORED
            raise UnorderedApi(Filter.IGNORED.value)
        return times

    def _take(self, page: Page, times: list[int]) -> Reading:
        """Accepts a page that is in order and moves on to its last createdAt."""
        records = [r for r in page.records if r.identity not in self._at_position]
        bad = [b for b in page.bad if b.identity not in self._at_position]
        last = self._ends(page, new=bool(records or bad))
        position = times[-1] if times else self._position
        if position > self._position:
            self._at_position, self._skip = set(), 0
        else:
            self._skip += page.received
        self._at_position.update(r.identity for r in page.records if r.created in (position, None))
        self._at_position.update(b.identity for b in bad)
        self._position = position
        return Reading(records, bad, position, last)

    def _ends(self, page: Page, new: bool) -> bool:
        """Whether nothing follows this page. `new`: whether it brings anything."""
        full, barren = self._api.fills(page), self._skip > 0 and not new
        self._barren = self._barren + 1 if barren else 0
        # An API that ignores `skip` would promise more for ever.
        if page.promises_more(self._skip) and self._barren < _BARREN_PAGES:
            if not full:
                self._api.largest = page.received  # the API may have lowered its limit since
            return False
        return not full or barren


class DescendingCursor:
    """Reads a window from the newest record down."""

    def __init__(self, window: Window, api: Behaviour) -> None:
        self._window = window
        self._filtered = api.filter is Filter.HONOURED
        self._skip = 0
        self._step = 0  # by how much `skip` last grew, or by how much to go back next
        self._repeats = 0
        self._previous: set[tuple[str, str]] = set()

    def query(self, base: Query) -> Query:
        """What to ask next."""
        query = replace(base, ascending=False, skip=self._skip)
        if not self._filtered:
            return query
        return replace(query, after=self._window.start - 1, before=self._window.before)

    def advance(self, page: Page) -> Reading | None:
        """What the answer to `query` brings; None where the way went past something."""
        here = {r.identity for r in page.records} | {b.identity for b in page.bad}
        if self._skip and here and self._step > 1 and self._previous.isdisjoint(here):
            # Records above were deleted and what came after the last page moved up into it.
            self._skip, self._step = max(0, self._skip - self._step), self._step * 2
            return None
        start, before, times = self._window.start, self._window.before, page.created
        below = bool(times) and times == sorted(times, reverse=True) and times[-1] < start
        # Once or twice may be as many new records at the top as a page holds; more is the end.
        self._repeats = self._repeats + 1 if self._skip and here <= self._previous else 0
        records = [
            r
            for r in page.records
            if r.identity not in self._previous
            and (r.created is None or start <= r.created < before)
        ]
        self._step = max(1, page.received - 1)
        self._skip += self._step
        self._previous = here
        last = not page.received or below or self._repeats >= _BARREN_PAGES
        return Reading(records, page.bad, None, last)
