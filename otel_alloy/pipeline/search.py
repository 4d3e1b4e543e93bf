"""Finds what Alloy has of a stretch and is not settled: by halving counts, or by reading.

Both the audit and the overlap look for records in this way. When to look, and what follows, is
theirs to say; delivering is the `recover` that is handed in. Times are Unix ms by Alloy's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Protocol

from otel_alloy.alloy.cursor import Reading, UnorderedApi, Window
from otel_alloy.alloy.models import BadRecord, Record
from otel_alloy.checkpoint.known import Known
from otel_alloy.errors import Unreachable

_SMALLEST_MS = 1000


class Counted(Protocol):
    """What is asked of a source."""

    def count(self, window: Window) -> int | None: ...

    def read(self, window: Window, *, sure: bool = True) -> Iterable[Reading]: ...


class KnowingStore(Protocol):
    """What is asked of a store; see `Store`."""

    def known(self, source: str, start: int, before: int) -> Known: ...


Recover = Callable[[Window, Sequence[Record], Sequence[BadRecord]], None]
"""Delivers and settles records that were missing. Raises what settling raises."""
Steps = Generator[None, None, int]
"""Work that pauses after each request; how many records were recovered."""


class Search:
    """`page`: so many records are read rather than halved once more."""

    def __init__(
        self, name: str, source: Counted, store: KnowingStore, page: int, recover: Recover
    ) -> None:
        self._name = name
        self._source = source
        self._store = store
        self._page = page
        self._recover = recover

    def by_count(self, window: Window, count: int) -> Steps:
        """Halves what differs until it can be read. `count`: what Alloy counts of the window."""
        recovered = 0
        pending = [(window, count)]
        while pending:
            part, told = pending.pop()
            if told == self.known(part).count(part.start, part.before):
                continue
            if told <= self._page or part.before - part.start <= _SMALLEST_MS:
                recovered += yield from self.by_reading(part)
                continue
            middle = (part.start + part.before) // 2
            first, second = Window(part.start, middle), Window(middle, part.before)
            left = self._source.count(first)
            yield
            if left is None:
                recovered += yield from self.by_reading(part)
                continue
            pending += [(second, max(0, told - left)), (first, left)]
        return recovered

    def by_reading(self, window: Window) -> Steps:
        """Reads a stretch and has delivered what is not settled. What cannot be reached is found
        by the count that follows."""
        try:
            return (yield from self._read(window))
        except UnorderedApi:  # raised once: from here on it is read newest first
            return (yield from self._read(window))

    def _read(self, window: Window) -> Steps:
        recovered = 0
        known = self.known(window)
        try:
            for reading in self._source.read(window):
                entries: list[Record | BadRecord] = [*reading.records, *reading.bad]
                if not all(_is_known(known, entry, entry.created) for entry in entries):
                    known = self.known(window)  # it may have been settled meanwhile
                records = [r for r in reading.records if not _is_known(known, r, r.created)]
                bad = [b for b in reading.bad if not _is_known(known, b, b.created)]
                if records or bad:
                    self._recover(window, records, bad)
                    recovered += len(records) + len(bad)
                yield
        except Unreachable:
            yield
        return recovered

    def known(self, window: Window) -> Known:
        """What is settled of a stretch."""
        return self._store.known(self._name, window.start, window.before)


def _is_known(known: Known, entry: Record | BadRecord, created: int | None) -> bool:
    return created is None or (entry.identity, created) in known
