"""How often a source is read, and what its request budget is spent on: new records first.

From how many new records there are, and how many a page brings, follows how many requests they
cost. What is left of the budget makes the interval between two cycles shorter, down to a second,
or goes into reading again and audits, each within its share. No request is made here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp

from otel_alloy.alloy.cursor import Window
from otel_alloy.pipeline.events import Paced

_SHORTEST = 1.0
_SILENCE = 1 / 8
"""Of the time for which nothing new came, what a cycle may wait: what is silent is asked seldom."""
_MEMORY_SECONDS = 60.0
_NEW_COUNTED, _NEW_READ = 0.75, 0.4
"""Of the budget, what windows may take, where the overlap is counted, and where it is read."""
_ENRICH = 0.35
"""Of the budget, what questions for blocks and reasons may take."""
_PART_PAGE = 0.5
"""So full is the last page of a window, on average."""
_SEVERAL = 4
"""From so many pages on most of a window's are full."""
_TIGHT = 0.8
_LEAST_SHARE = 0.02
"""Of the budget, what each kind of side work keeps also where new records would take all of it."""
_SIDE_UNLIMITED = 2.5
"""Requests a second for side work where the budget has no limit: so that it takes no time from what
is new."""


class Share:
    """A part of a request budget, for work that has to leave the rest alone. What was spent is
    paid for by waiting. `per_second`: None is no limit."""

    def __init__(self, per_second: float | None, monotonic: Callable[[], float]) -> None:
        self._per_second = per_second
        self._monotonic = monotonic
        self._cycle = 0.0
        self._paid_at = monotonic()

    def change(self, per_second: float | None, cycle: float) -> None:
        """Keeps to another rate from here on. What was left over of the last `cycle` seconds may be
        spent later."""
        self._per_second, self._cycle = per_second, cycle

    def is_free(self) -> bool:
        """Whether something may be spent now."""
        return self._per_second is None or self._paid_at <= self._monotonic()

    def spend(self, requests: int) -> None:
        """So many were sent, or are about to be."""
        if self._per_second is not None:
            since = max(self._paid_at, self._monotonic() - self._cycle)
            self._paid_at = since + requests / self._per_second


@dataclass(frozen=True, slots=True)
class Demand:
    """What reading takes. `rate`: new records a second; `page`: records a page; `budget`: requests
    a minute, 0 for no limit; `counts`: requests a cycle that bring no records; `share`: of the
    budget, what windows may take."""

    rate: float
    page: int
    budget: float
    counts: int = 1
    share: float = _NEW_COUNTED

    @property
    def for_new(self) -> float:
        """Requests a minute for new records alone."""
        return 60 * self.rate / self.page

    def interval(self, longest: float) -> float:
        """The shortest interval (s) that the budget allows, at most `longest`."""
        if not self.budget:
            return min(longest, _SHORTEST)
        most = self.share * self.budget / 60
        left = most - self.rate / self.page
        beside = _PART_PAGE + self.counts
        if left * longest <= beside:
            return longest
        return min(longest, max(_SHORTEST, beside / left, (1 + self.counts) / most))

    def needed(self, interval: float) -> float:
        """Requests a minute at this interval (s): of each cycle the last page is full by half, and
        there is always one."""
        pages = max(1.0, self.rate * interval / self.page + _PART_PAGE)
        return 60 * (pages + self.counts) / interval

    @property
    def tight(self) -> bool:
        """Whether new records alone take nearly all of the budget."""
        return bool(self.budget) and self.for_new > _TIGHT * self.budget

    def words(self, interval: float) -> str:
        """The arithmetic, for people."""
        needed = self.needed(interval)
        found = (
            f"{self.rate:.1f} records a second at {self.page} a page are {self.for_new:.0f} "
            f"requests a minute, and {needed - self.for_new:.0f} more with a cycle each "
            f"{interval:.1f} s: {needed:.0f} requests a minute"
        )
        return found + (f" of {self.budget:.0f}" if self.budget else "; there is no limit")


class Pace:
    """Of one source. `longest`: the interval that is set, s; `adaptive`: whether it may be shorter.
    `budget`: requests a minute that are this source's, 0 for no limit. `page`: records asked for
    per request."""

    def __init__(
        self,
        name: str,
        longest: float,
        budget: float,
        adaptive: bool,
        page: int,
        monotonic: Callable[[], float],
    ) -> None:
        self._name = name
        self._longest = longest
        self._budget = budget
        self._adaptive = adaptive
        self._rate: float | None = None
        self._before: int | None = None
        self._records = 0
        self._pages: list[int] = []
        limit = self._budget / 60 if budget else None
        self.again = Share(None if limit is None else limit * 0.5, monotonic)
        """For reading the overlap again."""
        self.side = Share(_SIDE_UNLIMITED if limit is None else limit * 0.25, monotonic)
        """For audits, and for reading once more what was counted."""
        self.enrich = Share(None if limit is None else limit * _ENRICH, monotonic)
        """For the blocks and reasons of executions."""
        self.page = page
        """How many records a page brings, as far as was seen."""
        self.interval = longest
        """Seconds from the beginning of a cycle to the next one's."""

    def settled(self, records: int) -> None:
        """So many new records of the window are settled."""
        self._records += records

    def received(self, records: int) -> None:
        """A page of the window held so many records."""
        self._pages.append(records)

    def cycle(self, window: Window, silent_ms: int, reads: bool) -> Paced:
        """A window is read to its end, where the newest record was `silent_ms` old. `reads`:
        whether an overlap of more than a page is read again. What follows for the next ones."""
        before = window.before
        since = window.start if self._before is None else self._before
        seconds = max(0.001, (before - since) / 1000)
        now = self._records / seconds
        keep = 0.0 if self._rate is None else exp(-seconds / _MEMORY_SECONDS)
        self._rate = keep * (self._rate or 0.0) + (1 - keep) * now
        pages = sorted(self._pages)
        if len(pages) >= _SEVERAL and pages[-1] - pages[len(pages) // 2] <= 1:  # most were full
            self.page = max(1, pages[-1])
        self._before, self._records, self._pages = before, 0, []
        demand = Demand(self._rate, self.page, self._budget)
        if reads:
            demand = Demand(self._rate, self.page, self._budget, 0, _NEW_READ)
        self.interval = self._longest
        if self._adaptive:
            least = silent_ms / 1000 * _SILENCE
            self.interval = min(self._longest, max(demand.interval(self._longest), least))
        self._divide(demand)
        return Paced(
            self._name,
            self.interval,
            demand.needed(self.interval),
            self._budget,
            demand.words(self.interval),
            demand.tight,
        )

    def _divide(self, demand: Demand) -> None:
        """What windows do not need is left for the rest."""
        if not self._budget:
            self.side.change(_SIDE_UNLIMITED, self.interval)
            return
        limit, new = self._budget / 60, demand.for_new / self._budget
        left = 1 - demand.needed(self.interval) / self._budget
        side, again = max(_LEAST_SHARE, min(0.25, left)), max(_LEAST_SHARE, min(0.5, 0.95 - new))
        self.side.change(limit * side, self.interval)
        self.again.change(limit * again, self.interval)
        self.enrich.change(limit * max(_LEAST_SHARE, min(_ENRICH, 1 - new)), self.interval)
