"""How many records to ask for at once, learned from what the API gives and refuses. Pure.

`LargerPages` goes up from what is set, `PageSize` down from it. A refused size is halved. After a
number of pages that number is doubled again, so that one refusal does not slow a source down for
life; where the larger size is refused once more, twice as many pages pass before the next try. So a
size that stays refused costs one request in `_MOST_PAGES`.
"""

from __future__ import annotations

LARGEST = 1000
"""More are never asked for, unless that is set."""
_FIRST_PAGES, _MOST_PAGES = 8, 1024
_FULL_PAGES, _FAILURES = 2, 3
_RETRY_PAGES, _MOST_PATIENCE = 500, 100_000


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


class LargerPages:
    """How many records to ask for where more are wanted than was set: found out by trying, as a
    larger page costs fewer requests. `base`: what is set; `proven`: what was given before, as far
    as that is remembered.

    After two full pages twice as many are asked for, at most `most`. What comes says how large a
    page may be; where it brings no more than before, or is refused, the next try is made much
    later. A larger page that brings *fewer* records than a smaller one did shows nothing: the
    smaller one is asked for again, so that it is never taken for the end.
    """

    def __init__(self, base: int, proven: int = 0, most: int = LARGEST) -> None:
        self._base = base
        self._most = max(base, min(most, LARGEST))
        self.proven = min(max(base, proven), self._most)
        """So many records were given at once."""
        self._full = self._failures = 0
        self._wait = _FULL_PAGES
        self._patience = _RETRY_PAGES

    def of(self, wanted: int) -> int:
        """How many to ask for; of what is not a whole page, as many as wanted."""
        if wanted != self._base:
            return wanted
        if self._full >= self._wait and self.proven < self._most:
            return min(self.proven * 2, self._most)
        return self.proven

    def is_try(self, asked: int) -> bool:
        """Whether so many were never given before."""
        return asked > self.proven

    def came(self, asked: int, received: int) -> bool:
        """A page of `asked` brought so many records. False where it has to be asked for again, as
        it brought fewer than a smaller one did."""
        if asked < self._base:
            return True
        if not self.is_try(asked):
            self._failures = 0
            self._full = self._full + 1 if received >= self.proven else 0
            return True
        before = self.proven
        if received <= before or received < asked:
            self._try_later()
        if received > before:
            self.proven, self._full = received, 0
            self._wait = _FULL_PAGES if received == asked else self._wait
        return received >= before

    def failed(self, asked: int, refused: bool) -> None:
        """A request for so many failed; `refused`: it was not only the API's state of the moment.
        A size that was given before is given up where it is refused, or fails again and again."""
        if asked <= self._base:
            return
        if self.is_try(asked):
            self._try_later()
            return
        self._failures += 1
        if refused or self._failures >= _FAILURES:
            self.proven = self._base
            self._try_later()

    def _try_later(self) -> None:
        self._full = self._failures = 0
        self._patience = min(self._patience * 2, _MOST_PATIENCE)
        self._wait = self._patience
