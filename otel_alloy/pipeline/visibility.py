"""How late records become visible, learned from what is read, and what follows for the overlap.

The overlap rests on an assumption: that a record can be seen at most so long after its createdAt.
Nobody documents how long that is, so it is measured. The **visibility lag** of a record is how long
after its createdAt it was not to be seen yet: it was not in the window before, although that
covered its createdAt. What our own polling explains is thereby left out. Times and lengths are ms.
"""

from __future__ import annotations

import json
import logging
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

from otel_alloy.pipeline.batch import Batch
from otel_alloy.pipeline.events import Observe, SeenLate

BOUNDS_SECONDS = (
    *(0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0),
    *(120.0, 300.0, 600.0, 1800.0, 3600.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0),
)
"""Upper bounds of the histogram; what is later than the last is counted beyond it."""
_BOUNDS = tuple(int(seconds * 1000) for seconds in BOUNDS_SECONDS)
_PERIOD_MS = 7 * 86_400_000
_MARGIN = 1.5
_MARGIN_MS = 30_000


@dataclass(slots=True)
class VisibilityLag:
    """What was seen of a source: a histogram for all time, and the largest of the last one to two
    weeks, so that a single bad day does not cost reading again for ever."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(_BOUNDS) + 1))
    largest: int = 0
    before: int = 0
    turned: int = 0

    def note(self, lag: int, now: int, records: int = 1) -> None:
        """Counts `records` that were seen `lag` late."""
        self.counts[bisect_left(_BOUNDS, lag)] += records
        if now - self.turned >= _PERIOD_MS:
            self.before = self.largest if now - self.turned < 2 * _PERIOD_MS else 0
            self.largest, self.turned = 0, now
        self.largest = max(self.largest, lag)

    @property
    def recent(self) -> int:
        """The largest that was seen lately."""
        return max(self.largest, self.before)

    @property
    def late(self) -> int:
        """How many records were seen late at all."""
        return sum(self.counts[1:])

    def overlap(self, configured: int, most: int) -> int:
        """How much to read again: what is configured, or where records come later than half of it,
        what was seen and half as much again and 30 s, up to `most`."""
        if self.recent <= configured // 2:
            return configured
        return max(configured, min(most, int(self.recent * _MARGIN) + _MARGIN_MS))

    def text(self) -> str:
        """As the store keeps it."""
        return json.dumps([self.counts, self.largest, self.before, self.turned])

    @classmethod
    def read(cls, text: str | None) -> VisibilityLag:
        """From what `text` wrote; of anything else, nothing is known."""
        try:
            counts, *rest = json.loads(text or "")
            numbers = [*counts, *rest]
            if len(numbers) == len(_BOUNDS) + 4 and all(type(n) is int and n >= 0 for n in numbers):
                return cls(counts, *rest)
        except (ValueError, TypeError, RecursionError):
            pass
        return cls()


class VisibilityWatch:
    """Watches one source's batches. `configured`: its overlap, which grows up to `most` where
    records come late. `text`: what the store kept. `say`: tells people once that it grew."""

    def __init__(
        self,
        source: str,
        text: str | None,
        configured: int,
        most: int,
        observe: Observe,
        say: Callable[[int, str], None],
    ) -> None:
        self._source = source
        self._lag = VisibilityLag.read(text)
        self._configured = configured
        self._most = max(configured, most)
        self._observe = observe
        self._say = say
        self.overlap = self._lag.overlap(configured, self._most)
        """How much to read again, ms."""

    def _wanted(self) -> int:
        return self._lag.overlap(self._configured, self._most)

    def note(self, batch: Batch, now: int) -> None:
        """Learns from a batch that is about to be settled, and puts what was learned into it."""
        late, known = batch.late, len(batch.settlement.known)
        if not known:
            return
        self._lag.note(0, now, max(0, known - len(late)))
        for lag in late:
            self._lag.note(lag, now)
        batch.settlement.visibility = self._lag.text()
        grown = self._wanted()
        if grown > self.overlap:
            self._say(
                logging.WARNING,
                f"records become visible up to {_seconds(self._lag.recent)} after their createdAt, "
                f"so {_seconds(grown)} are read again instead of {_seconds(self._configured)} "
                "(overlap); what came later still is found by the audit",
            )
        self.overlap = grown
        self._observe(
            SeenLate(
                self._source,
                known - len(late),
                tuple(lag / 1000 for lag in late),
                self._lag.recent / 1000,
                grown / 1000,
            )
        )


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.0f} s"
