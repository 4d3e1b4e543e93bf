"""Asks for what a cursor decides, and finds out what the API makes of our parameters.

What a page means is decided in `cursor`; how often and how patiently is asked, in `retry`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from otel_alloy.alloy.cursor import (
    Behaviour,
    DescendingCursor,
    Filter,
    KeysetCursor,
    Reading,
    Window,
)
from otel_alloy.alloy.models import Page, Record
from otel_alloy.alloy.query import Query
from otel_alloy.alloy.retry import Fetch


class Reader:
    """Reads through `fetch`. `base`: what every request has in common (page size, workflow and
    user). `api`: what the API has shown of itself."""

    def __init__(self, fetch: Fetch, base: Query) -> None:
        self._fetch = fetch
        self._base = base
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
        page = self._get(replace(self._base, limit=1, after=moment - 1, before=moment + 1))
        if not page.received:
            self.api.filter = Filter.MATCHES_NOTHING
        elif any(t != moment for t in page.created):
            self.api.filter = Filter.IGNORED
        elif min(times) != moment:
            self.api.filter = Filter.HONOURED
            whole, matching = newest.total, page.total
            if whole is not None and matching is not None:
                self.api.counts_matches = matching < whole
        return newest

    def read(self, window: Window) -> Iterator[Reading]:
        """The window's records, page by page; each page is asked for when it is wanted. Raises
        what `fetch` raises, and UnorderedApi once when the API shows that it has to be read newest
        first: read the window again then."""
        cursor: KeysetCursor | DescendingCursor
        if self.api.newest_first:
            cursor = DescendingCursor(window, self.api)
        else:
            cursor = KeysetCursor(window, self.api)
        while True:
            reading = cursor.advance(self._get(cursor.query(self._base)))
            if reading is not None:
                yield reading
                if reading.last:
                    return

    def execution(self, execution_id: str) -> list[Record]:
        """All notifications of one execution that the API still has (one request). Where the
        answer has others', the API does not filter by executionId (`api.finds_executions`)."""
        page = self._get(replace(self._base, execution_id=execution_id))
        records = [r for r in page.records if r.notification.execution == execution_id]
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

    def _get(self, query: Query) -> Page:
        page = self._fetch(query)
        self.api.largest = max(self.api.largest, page.received)
        return page
