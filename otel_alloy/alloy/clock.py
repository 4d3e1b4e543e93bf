"""The API's clock, learned from its answers. Pure: our own time is an argument."""

from __future__ import annotations

from otel_alloy.alloy.models import Page
from otel_alloy.alloy.timestamps import to_ms

_DISTRUST_MS = 300_000


class ServerClock:
    """The API's clock, from what its answers say, in Unix ms.

    `lastFetched` is the application's own clock and comes first; where it lies more than five
    minutes from the `Date` header it is something else, and `Date` is used. With neither, or with
    only a `lastFetched` behind our clock, ours counts: a window that ends too late costs nothing,
    one that always ends too early would never show a new record.
    """

    def __init__(self) -> None:
        self._skew = 0
        self._slowest = 0

    def learn(self, page: Page, now: int) -> None:
        """Takes the clock from an answer that was received at `now` (ours)."""
        fetched, date = to_ms(page.last_fetched), page.server_date
        told = [t for t in (fetched, date) if t is not None]
        if not told:
            return
        if fetched is None or date is None:
            best = date if date is not None else max(told[0], now)
        else:
            best = fetched if abs(fetched - date) <= _DISTRUST_MS else date
        self._skew = best - now
        self._slowest = min(told) - now

    @property
    def skew(self) -> int:
        """Server minus ours, ms."""
        return self._skew

    def now(self, now: int) -> int:
        """The server's time when ours is `now`."""
        return now + self._skew

    def earliest(self, now: int) -> int:
        """The earliest that any of the server's clocks may show: for a lower bound that must not
        be too late."""
        return now + min(self._skew, self._slowest)
