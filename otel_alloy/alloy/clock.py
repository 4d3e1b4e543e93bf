"""The API's clock, learned from its answers and doubted. Pure: our own clocks are arguments.

`createdAt` comes from the API's clock, so windows go by it. It can be wrong for a while, or for
good, and so can ours. Nobody can say which; but each is held against the other, and the API's also
against our monotonic clock, which never jumps:

- **They agree** (within a minute): the API's is the time.
- **They differ.** `now` is the API's. `certain` is the earliest of all and `latest` the latest:
  between them lies the time. Only what is before `certain` may be written down as read, and only by
  it may an end be declared; what lies up to `latest` is read all the same.
- **The API's jumps** against the monotonic clock. The jump is doubted, which means that the times
  before and after it differ as above, until our clock agrees with it, or many answers over ten
  minutes do. A jump back is counted in `setbacks`: what was read by the clock before it may not be
  all there will be.

Where `lastFetched` and `Date` differ by more than five minutes, the one that agrees with our clock
counts, else `Date`.
"""

from __future__ import annotations

from dataclasses import dataclass

from otel_alloy.alloy.models import Page
from otel_alloy.alloy.timestamps import to_ms, to_text

_DISTRUST_MS = 300_000
APART_MS = 60_000
"""Clocks that differ by more do not agree."""
_CONFIRMING_ANSWERS, _CONFIRMING_MS = 10, 600_000


@dataclass(slots=True)
class _Jump:
    """A line that answers have been on since `begun`; `offset` is the API's clock minus our
    monotonic one."""

    offset: int
    begun: int
    answers: int = 1


class ServerClock:
    """The API's clock, from what its answers say. All times are ms: `now` is our wall clock (Unix),
    `monotonic` one that never jumps; without it, `now` stands in.

    With neither `Date` nor `lastFetched`, or with only a `lastFetched` behind our clock, ours
    counts.
    """

    def __init__(self) -> None:
        self._offset: int | None = None  # the API's clock minus monotonic, as far as it is trusted
        self._jump: _Jump | None = None
        self._told: int | None = None  # the last answer's own offset
        self._slowest = 0
        self.skew = 0
        """The API's clock minus ours by the last answer, ms; where one of two that it tells is far
        from ours, that one."""
        self.setbacks = 0
        """How often the API's clock has jumped back."""

    def learn(self, page: Page, now: int, monotonic: int | None = None) -> None:
        """Takes the clock from an answer that was received now."""
        monotonic = now if monotonic is None else monotonic
        fetched, date = to_ms(page.last_fetched), page.server_date
        told = [t for t in (fetched, date) if t is not None]
        if not told:
            return
        best = _best(fetched, date, now)
        said = date if date is not None else told[0]
        self.skew = (said if abs(best - now) <= APART_MS < abs(said - now) else best) - now
        self._slowest = min(told) - now
        offset = best - monotonic
        if self._told is not None and offset < self._told - APART_MS:
            self.setbacks += 1
        self._told = offset
        if self._offset is None or abs(offset - self._offset) <= APART_MS:
            self._offset, self._jump = offset, None
        elif abs(best - now) <= APART_MS:
            self._offset, self._jump = offset, None  # ours says the same
        elif self._jump is None or abs(offset - self._jump.offset) > APART_MS:
            self._jump = _Jump(offset, monotonic)
        else:
            self._jump.answers += 1
            lasted = monotonic - self._jump.begun >= _CONFIRMING_MS
            if lasted and self._jump.answers >= _CONFIRMING_ANSWERS:
                self._offset, self._jump = offset, None

    @property
    def doubted(self) -> bool:
        """Whether the API's clock has jumped and nothing confirms it yet."""
        return self._jump is not None

    def agrees(self, now: int, monotonic: int | None = None) -> bool:
        """Whether there is one time only."""
        return self.latest(now, monotonic) == self.certain(now, monotonic)

    def now(self, now: int, monotonic: int | None = None) -> int:
        """The API's time; where it has jumped and our clock has not, that before the jump."""
        if self._offset is None:
            return now
        monotonic = now if monotonic is None else monotonic
        before = monotonic + self._offset
        if self._jump is not None and abs(before - now) > APART_MS:
            return monotonic + self._jump.offset
        return before

    def certain(self, now: int, monotonic: int | None = None) -> int:
        """The latest time that every clock has reached; the API's where they agree."""
        return min(self._shown(now, monotonic))

    def latest(self, now: int, monotonic: int | None = None) -> int:
        """The earliest time that no clock has passed; the API's where they agree."""
        return max(self._shown(now, monotonic))

    def earliest(self, now: int, monotonic: int | None = None) -> int:
        """The earliest that anything of the API's may show, also what is no clock of it: for a
        lower bound that must not be too late."""
        return min(self.certain(now, monotonic), now + self._slowest)

    def _shown(self, now: int, monotonic: int | None = None) -> list[int]:
        """The times that differ by more than clocks may."""
        if self._offset is None:
            return [now]
        monotonic = now if monotonic is None else monotonic
        shown = [monotonic + self._offset]
        if self._jump is not None:
            shown.append(monotonic + self._jump.offset)
        if any(abs(time - now) > APART_MS for time in shown):
            shown.append(now)
        return shown


def _best(fetched: int | None, date: int | None, now: int) -> int:
    """What counts of what the API tells."""
    if fetched is None or date is None:
        return date if date is not None else max(fetched or now, now)
    if abs(fetched - date) <= _DISTRUST_MS:
        return fetched
    return fetched if abs(fetched - now) <= APART_MS < abs(date - now) else date


def skew_words(skew_ms: int, doubted: bool = False) -> str | None:
    """What to tell people of clocks that differ by so much (the API's minus ours); None where they
    agree."""
    if abs(skew_ms) <= APART_MS and not doubted:
        return None
    side = "ahead of" if skew_ms > 0 else "behind"
    words = f"the API's clock is {abs(skew_ms) / 1000:.0f} s {side} this machine's"
    if doubted:
        words += "; it has jumped, and is not believed yet"
    return words


def future_words(what: str, moment: int, latest: int) -> str:
    """That a moment lies in the future of both clocks, Unix ms."""
    return (
        f"{what} {to_text(moment)} lies in the future: the API's clock and this machine's say "
        f"{to_text(latest)} at most"
    )
