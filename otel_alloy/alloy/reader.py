"""How a window on createdAt is read to its end, whatever the API makes of our parameters.

Ascending keyset (the normal way): after a page, the next request starts at the page's last
createdAt, closed, so that records which share a millisecond are never cut apart. `skip` serves
only inside a run of equal createdAt that is longer than a page. A request's cost is the same at
the millionth execution. Progress is by records received, never by records asked for.

Newest first (where the API ignores the filter or the order): pages from the newest record down,
each overlapping the one before by one record, so that deletions cannot open a gap unseen, until
a page lies wholly below the window.

The end is an empty page, or a page smaller than this API has shown it can send. A window's upper
bound is frozen when it begins: records that appear while it is read belong to the next one, which
starts an overlap earlier (`window_start` has the proof).

Nothing here remembers what was delivered; dropping what is known is the joiner's work.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace

from otel_alloy.alloy.models import BadRecord, Page, Record
from otel_alloy.alloy.query import Query
from otel_alloy.alloy.retry import Fetch

_BARREN_PAGES = 3


class Filter(enum.Enum):
    """What the API makes of a createdAt filter."""

    HONOURED = "honoured"
    IGNORED = "ignored"
    MATCHES_NOTHING = "matches nothing"
    UNKNOWN = "not known yet"


class UnorderedApi(Exception):
    """The API did not do what ascending paging needs; `verdict` and `ordered` say what it does."""

    def __init__(self, verdict: Filter, ordered: bool) -> None:
        super().__init__(verdict.value)
        self.verdict, self.ordered = verdict, ordered


@dataclass(frozen=True, slots=True)
class Window:
    """createdAt from `start` (inclusive) to `before` (exclusive), Unix ms."""

    start: int
    before: int


@dataclass(frozen=True, slots=True)
class Reading:
    """One page's worth of new ground.

    `position`: once this is settled, the window may be continued from this createdAt (inclusive);
    None while only the whole window can be settled (newest first). `last`: the window is read.
    """

    records: list[Record]
    bad: list[BadRecord]
    position: int | None
    last: bool


class Reader:
    """Reads windows through `fetch` for one source.

    `scope` holds what every request has in common (page size, workflow and user filters).
    """

    def __init__(self, fetch: Fetch, scope: Query) -> None:
        self._fetch = fetch
        self._scope = scope
        self.filter = Filter.UNKNOWN
        self.ordered = True
        self.finds_executions = True
        self._largest = 0

    @property
    def newest_first(self) -> bool:
        """Whether the fallback is in use."""
        return not self.ordered or self.filter in (Filter.IGNORED, Filter.MATCHES_NOTHING)

    def probe(self) -> Page:
        """Two requests that find out whether the createdAt filter works; the first one's page.

        The newest record's millisecond is asked for in ascending order: an API that ignores the
        filter answers with its oldest record instead, one that cannot compare dates with nothing.
        """
        newest = self._get(replace(self._scope, ascending=False))
        times = [r.created for r in newest.records if r.created is not None]
        if not times:
            return newest
        newest_time = max(times)
        page = self._get(
            replace(self._scope, limit=1, after=newest_time - 1, before=newest_time + 1)
        )
        if not page.received:
            self.filter = Filter.MATCHES_NOTHING
        elif any(r.created is not None and r.created != newest_time for r in page.records):
            self.filter = Filter.IGNORED
        elif min(times) != newest_time:
            self.filter = Filter.HONOURED
        return newest

    def read(self, window: Window) -> Iterator[Reading]:
        """The window's records, page by page. Raises what `fetch` raises, and UnorderedApi once
        when the API shows that it needs the fallback: read the window again then."""
        return self._descend(window) if self.newest_first else self._ascend(window)

    def execution(self, execution_id: str) -> list[Record]:
        """All notifications of one execution that the API still has (one request). Where the
        answer has others', the API does not filter by executionId (`finds_executions`)."""
        page = self._get(replace(self._scope, execution_id=execution_id))
        records = [r for r in page.records if r.notification.execution == execution_id]
        self.finds_executions = len(records) == page.received
        return records

    def oldest_beyond(self, moment: int) -> int | None:
        """The oldest createdAt that the whole account still has, where all of it is newer than
        `moment` (Unix ms); None where something as old is left, where there is nothing at all, or
        where this API does not let it be told. One request, or two where nothing as old is left.

        Workflow and user filters are left out: a source may be silent for longer than Alloy keeps
        records, an account hardly ever. An answer is believed for what it shows, not for what was
        asked: a record as old proves that nothing older than it was removed in order of age.
        """
        whole = Query(self._scope.limit)
        page = self._get(replace(whole, before=moment + 1))
        times = _created(page)
        if any(t <= moment for t in times):
            return None
        if not page.received and not self.newest_first:
            return min(_created(self._get(replace(whole, after=moment))), default=None)
        times = _created(self._get(whole))
        if not times or times != sorted(times) or times[0] == times[-1]:
            return None  # it does not sort as asked, so the oldest may be anywhere
        return times[0] if times[0] > moment else None

    def _get(self, query: Query) -> Page:
        page = self._fetch(query)
        self._largest = max(self._largest, page.received)
        return page

    def _times_within(self, page: Page, start: int, before: int) -> list[int]:
        """The page's createdAt. Raises UnorderedApi where the filter did not keep to the bounds."""
        times = [r.created for r in page.records if r.created is not None]
        if times and not start <= min(times) <= max(times) < before:
            self.filter = Filter.IGNORED
            raise UnorderedApi(Filter.IGNORED, True)
        return times

    def _ascend(self, window: Window) -> Iterator[Reading]:
        position, skip, barren = window.start, 0, 0
        at_position: set[tuple[str, str]] = set()
        while True:
            shown = self._largest
            query = replace(self._scope, after=position - 1, before=window.before, skip=skip)
            page = self._get(query)
            times = self._times_within(page, position, window.before)
            ordered = times == sorted(times)
            if page.limit is not None:
                shown = min(shown, page.limit)  # it may have been halved since
            full = page.received > 0 and page.received >= shown
            begins = position == window.start and not skip
            if begins and ordered and full and times and position < times[0] == times[-1]:
                # A page of one millisecond shows no order: is anything before it?
                earlier = self._get(replace(query, limit=1, before=times[0], skip=0))
                if self._times_within(earlier, position, times[0]):
                    # It may have become visible since: then the same request begins with it now.
                    again = self._times_within(self._get(query), position, window.before)
                    if again and again[0] < times[0]:
                        continue
                    ordered = False
            if not ordered:
                self.ordered = False
                raise UnorderedApi(self.filter, False)
            last_time = times[-1] if times else position
            fresh = [r for r in page.records if r.identity not in at_position]
            bad = [b for b in page.bad if b.identity not in at_position]
            nothing_new = not fresh and not bad
            barren = barren + 1 if skip and nothing_new else 0
            # An API that ignores `skip` would promise more for ever.
            more = page.promises_more(skip) and barren < _BARREN_PAGES
            exhausted = not page.received or ((not full or (skip > 0 and nothing_new)) and not more)
            if more and not full:
                self._largest = page.received  # the API may have lowered its limit since
            if last_time > position:
                at_position, skip = set(), 0
            else:
                skip += page.received
            at_position.update(r.identity for r in page.records if r.created in (last_time, None))
            at_position.update(b.identity for b in bad)
            position = last_time
            yield Reading(fresh, bad, position, exhausted)
            if exhausted:
                return

    def _descend(self, window: Window) -> Iterator[Reading]:
        filtered = self.filter is Filter.HONOURED
        query = replace(
            self._scope,
            ascending=False,
            after=window.start - 1 if filtered else None,
            before=window.before if filtered else None,
        )
        skip, step, repeats = 0, 0, 0
        previous: set[tuple[str, str]] = set()
        while True:
            page = self._get(replace(query, skip=skip))
            here = {r.identity for r in page.records} | {b.identity for b in page.bad}
            if skip and here and step > 1 and previous.isdisjoint(here):
                # Records above were deleted and what came after the last page moved up into it.
                skip, step = max(0, skip - step), step * 2
                continue
            times = [r.created for r in page.records if r.created is not None]
            below = (
                bool(times) and times == sorted(times, reverse=True) and times[-1] < window.start
            )
            # Once or twice may be as many new records at the top as a page holds; more is the end.
            repeats = repeats + 1 if skip and here <= previous else 0
            records = [
                r
                for r in page.records
                if r.identity not in previous
                and (r.created is None or window.start <= r.created < window.before)
            ]
            last = not page.received or below or repeats >= _BARREN_PAGES
            yield Reading(records, page.bad, None, last)
            if last:
                return
            step = page.received if page.received == 1 else page.received - 1
            skip += step
            previous = here


def _created(page: Page) -> list[int]:
    return [r.created for r in page.records if r.created is not None]


def window_start(high: int, overlap_ms: int, final: bool) -> int:
    """Where the next window begins (inclusive, Unix ms) after everything up to `high` is settled.

    A record may become visible up to `overlap_ms` after its createdAt. `high` is the newest
    createdAt settled and lies before the upper bound of the window that brought it, so a record
    that was not visible then has createdAt > high - overlap: the next window must begin there.
    `final`: a window that was begun more than an overlap after `high` last grew has been read to
    its end, so nothing at or below `high` can still appear.
    """
    return high + 1 if final else high - overlap_ms
