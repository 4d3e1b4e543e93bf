"""How many records to ask for at once, learned from what the API refuses. Pure.

A refused size is halved. After a number of pages that number is doubled again, so that one refusal
does not slow a source down for life; where the larger size is refused once more, twice as many
pages pass before the next try. So a size that stays refused costs one request in `_MOST_PAGES`.
"""

from __future__ import annotations

_FIRST_PAGES, _MOST_PAGES = 8, 1024


class PageSize:
    """`wanted` is what the caller would like, `asked` what was asked for instead."""

    def __init__(self) -> None:
        self._most: int | None = None  # larger ones were refused
        self._good = 0  # pages of that size since
        self._patience = _FIRST_PAGES
        self._grown = False  # whether the size was doubled since the last refusal

    def of(self, wanted: int) -> int:
        """How many to ask for."""
        if self._most is None or wanted <= self._most:
            return wanted
        return min(wanted, self._most * 2) if self._good >= self._patience else self._most

    def accepted(self, asked: int, wanted: int) -> None:
        """A page of that size came."""
        if self._most is None or asked < self._most:
            return
        if asked == self._most:
            self._good += 1
            return
        self._most = asked if asked < wanted else None
        self._good, self._grown = 0, True

    def refused(self, asked: int) -> None:
        """That size was refused."""
        tried = self._most is not None and asked > self._most
        if tried or self._grown:
            self._patience = min(_MOST_PAGES, self._patience * 2)
        if not tried:
            self._most = max(1, asked // 2)
        self._good, self._grown = 0, False

    def forget(self) -> None:
        """Every size was refused, so it was not the size."""
        self._most, self._good, self._grown = None, 0, False
