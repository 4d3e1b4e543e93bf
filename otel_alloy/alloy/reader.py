"""Asks for what a cursor decides, and finds out what the API makes of our parameters.

What a page means is decided in `cursor`; how often and how patiently is asked, in `retry`; what
cannot be paged is read by `exhaustive`. Here an end is accepted or not:

- The API's own count, in the same answer, says that nothing follows: accepted, at no cost.
- It does not count: the same is asked once more, where the caller wants to be sure.
- It counts more: asked again, then whether it counts at all (a question that nothing matches), then
  read exhaustively; what is still missing is `Unreachable`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import replace

from otel_alloy.alloy.cursor import (
    Behaviour,
    DescendingCursor,
    Filter,
    KeysetCursor,
    Reading,
    UnorderedApi,
    Window,
)
from otel_alloy.alloy.exhaustive import Exhaustive
from otel_alloy.alloy.models import Page, Record
from otel_alloy.alloy.query import Query
from otel_alloy.alloy.retry import Fetch
from otel_alloy.alloy.timestamps import to_text
from otel_alloy.errors import RequestRefused, Unreachable

_LOOKS = (0.5, 2.0)
"""Seconds before each further look at an empty answer that contradicts itself."""
_BARREN_PASSES = 8
"""So many passes in a row without anything new are the end where the order changes."""
_NEVER_MS = 4_102_444_800_000  # 2100-01-01: nothing is of this time
_NOBODY = "0" * 24  # no workflow has this id


class Reader:
    """Reads through `fetch`. `base`: what every request has in common (page size, workflow and
    user). `pause`: waits so many seconds. `attempt`: as `fetch`, for what the API may refuse to
    answer by itself: raises RequestRefused then. `api`: what the API has shown of itself."""

    def __init__(
        self,
        fetch: Fetch,
        base: Query,
        pause: Callable[[float], None] = lambda seconds: None,
        attempt: Fetch | None = None,
    ) -> None:
        self._fetch = fetch
        self._attempt = attempt or fetch
        self._base = base
        self._pause = pause
        self._counts_tried = False
        self._deaf = False  # neither filters nor parameters change what comes
        self.api = Behaviour()

    def probe(self) -> Page:
        """Two requests that find out whether the createdAt filter works; the first one's page.

        The newest record's millisecond is asked for in ascending order: an API that ignores the
        filter answers with its oldest record instead, one that cannot compare dates with nothing.
        """
        newest = self._get(replace(self._base, ascending=False))
        times = newest.created
        if not times:
            return newest
        moment = max(times)
        question = replace(self._base, limit=1, after=moment - 1, before=moment + 1)
        page = self._try(question)
        if page is not None and not page.received:
            page = self._try(question)  # one empty answer shows nothing
        if page is None:
            self.api.filter = Filter.REFUSED
        elif not page.received:
            self.api.filter = Filter.MATCHES_NOTHING
        elif any(t != moment for t in page.created):
            self.api.filter = Filter.IGNORED
        elif min(times) != moment:
            self.api.filter = Filter.HONOURED
            whole, matching = newest.total, page.total
            if whole is not None and matching is not None:
                self.api.counts_matches = matching < whole
        return newest

    def read(self, window: Window, *, sure: bool = True) -> Iterator[Reading]:
        """The window's records, page by page; each page is asked for when it is wanted. `sure`:
        whether an end that nothing confirms is looked at twice.

        Raises what `fetch` raises; UnorderedApi once when the API shows that it has to be read
        newest first: read the window again then; and Unreachable where the API has records that it
        does not give: everything before the last `position` is read.
        """
        if self.api.newest_first:
            yield from self._descend(window)
        else:
            yield from self._ascend(window, sure)

    def _ascend(self, window: Window, sure: bool) -> Iterator[Reading]:
        cursor = KeysetCursor(window, self.api)
        looked, looking = not sure, False
        while True:
            reading = cursor.advance(self._get(cursor.query(self._base)))
            if reading is None:
                continue
            if reading.run is not None:
                yield reading
                yield from self._run(reading.run, cursor.known)
                cursor.passed(reading.run)
                if cursor.finished:
                    yield replace(reading, records=[], bad=[], last=True)
                    return
                continue
            if not reading.last or reading.sure:
                yield reading
                if reading.last:
                    return
            elif reading.missing and self._believed():
                rest = cursor.query(self._base)
                yield replace(reading, last=False)
                start, before = (rest.after or 0) + 1, window.before
                where = f"created between {to_text(start)} and {to_text(before)}"
                yield from self._exhaust(rest, cursor.known, start, where, reading.position)
                yield replace(reading, records=[], bad=[], last=True)
                return
            else:
                found = looking and bool(reading.records or reading.bad)
                again = not looked or found or bool(reading.missing)  # a count that is not believed
                looked = looking = True
                yield replace(reading, last=not again)
                if not again:
                    return
                cursor.look_on()

    def _run(self, moment: int, known: frozenset[tuple[str, str]]) -> Iterator[Reading]:
        """All of one millisecond."""
        question = replace(self._base, after=moment - 1, before=moment + 1)
        where = f"created at {to_text(moment)}"
        yield from self._exhaust(question, known, moment, where, moment, narrow=False)

    def _exhaust(
        self,
        question: Query,
        known: Set[tuple[str, str]],
        moment: int,
        where: str,
        position: int | None,
        narrow: bool = True,
    ) -> Iterator[Reading]:
        """Reads all that a question matches. Raises Unreachable where the API counts more."""
        whole = Exhaustive(
            self._once, self._try, self.api, question, known, self._believed, self._pause
        )
        for found in whole.read(narrow=narrow):
            if found.records or found.bad:
                yield Reading(found.records, found.bad, position, last=False)
        if whole.missing is None:
            self._believed()  # also tells whether a filter on createdAt does anything
            if question.after is not None and self.api.filter is Filter.IGNORED:
                raise UnorderedApi(Filter.IGNORED.value)
        if whole.missing != 0:
            raise Unreachable(whole.missing, moment, where)

    def _descend(self, window: Window) -> Iterator[Reading]:
        seen: set[tuple[str, str]] = set()
        barren = 0
        while barren <= _BARREN_PASSES:
            known = len(seen)
            cursor = DescendingCursor(window, self.api, seen)
            yield from self._down(window, cursor, seen)
            if not cursor.shuffled:
                break  # else some may have been on no page: once more
            barren = barren + 1 if len(seen) == known else 0
        yield Reading([], [], None, last=True)

    def _down(
        self, window: Window, cursor: DescendingCursor, seen: set[tuple[str, str]]
    ) -> Iterator[Reading]:
        """One pass from the newest record down."""
        looked = False
        while True:
            reading = cursor.advance(self._get(cursor.query(self._base)))
            if reading is None:
                continue
            yield replace(reading, last=False)
            missing = reading.missing
            if not reading.last:
                continue
            if reading.sure:
                return
            if missing is None or (missing and self._believed()):
                yield from self._rest(window, cursor, seen)
                return
            if looked and not missing:
                self._hold_against_oldest(window, cursor)
                return
            looked = True

    def _rest(
        self, window: Window, cursor: DescendingCursor, seen: set[tuple[str, str]]
    ) -> Iterator[Reading]:
        """What pages from the newest record down do not bring."""
        if not self._believed() and self._deaf and cursor.knows(self._get(self._base)):
            return  # it answers everything in the same way, from either end
        question = cursor.query(replace(self._base, skip=0))
        where = f"created since {to_text(window.start)}"
        for reading in self._exhaust(question, seen, window.start, where, None):
            seen.update(r.identity for r in reading.records)
            records = [
                r
                for r in reading.records
                if r.created is None or window.start <= r.created < window.before
            ]
            yield replace(reading, records=records)

    def _hold_against_oldest(self, window: Window, cursor: DescendingCursor) -> None:
        """An end that nothing confirms: raises Unreachable where the API has older records."""
        if self.api.filter is Filter.HONOURED:
            return
        oldest = min(self._get(self._base.limited(1)).created, default=None)
        if oldest is not None and (cursor.lowest is None or oldest < cursor.lowest):
            since = to_text(max(oldest, window.start))
            raise Unreachable(None, max(oldest, window.start), f"created since {since}")

    def _believed(self) -> bool:
        """Whether the API counts at all: it says 0 where nothing can match. One request or two, the
        first time, and only where its count contradicts what it gives."""
        if not self._counts_tried:
            nothing = [
                replace(self._base, limit=1, after=_NEVER_MS - 1, before=_NEVER_MS + 1),
                replace(self._base, limit=1, workflow_id=_NOBODY),
            ]
            answer = self._try(nothing[0], again=False)
            if answer is not None and answer.received:
                self.api.filter = Filter.IGNORED
                answer = self._try(nothing[1], again=False)
                self._deaf = answer is not None and answer.received > 0
            self.api.counts = answer is not None and not answer.received and answer.total == 0
            if not self.api.counts:
                self.api.counts_matches = False
            self._counts_tried = True
        return self.api.counts

    def count(self, window: Window) -> int | None:
        """How many records of a window the API counts (one request); None where it does not count
        what matches a filter, or that cannot be told. The first time, that is found out."""
        if self.api.newest_first or not self._counts_matches():
            return None
        question = replace(self._base, limit=1, after=window.start - 1, before=window.before)
        return self.api.count(question, self._once(question))

    def _counts_matches(self) -> bool:
        """Whether the API counts what matches a filter, and more than a page: it then says 0 where
        nothing can match, and does not always say 1 where one record is asked for."""
        if not self.api.exceeds:
            self._once(self._base.limited(1))
        if self.api.counts_matches is None and self.api.largest:
            nothing = replace(self._base, limit=1, after=_NEVER_MS - 1, before=_NEVER_MS + 1)
            answer = self._fetch(nothing)
            self.api.counts_matches = not answer.received and answer.total == 0
        return self.api.exceeds and self.api.counts_matches is True

    def execution(self, execution_id: str) -> list[Record]:
        """All notifications of one execution that the API still has (one request, as a rule).
        Where the answers have others', the API does not filter by executionId
        (`api.finds_executions`); one such answer shows nothing."""
        query = replace(self._base, execution_id=execution_id)
        page = self._once(query)
        if not page.received and self.api.remaining(query, page) and self._believed():
            page = self._get(query)
        records = _of(execution_id, page)
        if len(records) < page.received and self.api.finds_executions:
            page = self._once(query)
            records = _of(execution_id, page)
        self.api.finds_executions = len(records) == page.received
        return records

    def oldest_beyond(self, moment: int) -> int | None:
        """The oldest createdAt that the whole account still has, where all of it is newer than
        `moment` (Unix ms); None where something as old is left, where there is nothing at all, or
        where this API does not let it be told. One request, or two where nothing as old is left.

        Workflow and user filters are left out: a source may be silent for longer than Alloy keeps
        records, an account hardly ever. An answer is believed for what it shows, not for what was
        asked: a record as old proves that nothing older than it was removed in order of age.
        """
        whole = Query(self._base.limit)
        page = self._get(replace(whole, before=moment + 1))
        if any(t <= moment for t in page.created):
            return None
        if not page.received and not self.api.newest_first:
            return min(self._get(replace(whole, after=moment)).created, default=None)
        times = self._get(whole).created
        if not times or times != sorted(times) or times[0] == times[-1]:
            return None  # it does not sort as asked, so the oldest may be anywhere
        return times[0] if times[0] > moment else None

    def _try(self, query: Query, *, again: bool = True) -> Page | None:
        """The answer, as of `_get` where an empty one is to be looked at `again`; None where the
        API goes on refusing it, and meanwhile answers the same without filters."""
        ask = self._get if again else self._once
        plain = Query(query.limit, workflow_id=self._base.workflow_id, user_id=self._base.user_id)
        while True:
            for seconds in (*_LOOKS, 0.0):
                try:
                    return ask(query, self._attempt)
                except RequestRefused:
                    self._pause(seconds)
            try:
                self._attempt(plain)
                return None
            except RequestRefused:
                self._fetch(plain)  # it refuses everything: waited for, then all of it again

    def _get(self, query: Query, fetch: Fetch | None = None) -> Page:
        """The answer; an empty one that itself counts more is looked at again."""
        page = self._once(query, fetch)
        for seconds in _LOOKS:
            if page.received or not self.api.remaining(query, page):
                break
            self._pause(seconds)
            page = self._once(query, fetch)
        return page

    def _once(self, query: Query, fetch: Fetch | None = None) -> Page:
        page = (fetch or self._fetch)(query)
        self.api.largest = max(self.api.largest, page.received)
        if page.total is not None and page.total > query.skip + page.received:
            self.api.exceeds = True
        return page


def _of(execution_id: str, page: Page) -> list[Record]:
    return [r for r in page.records if r.notification.execution == execution_id]
