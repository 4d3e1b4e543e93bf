"""How far a source was read while the clocks disagree. In memory only; pure.

A window's upper bound says that everything before it is read for good, so it must not be later than
the API's true time when the window began. While the clocks disagree, that is only sure of the
earliest of them; but records are read up to the latest. So there are two ends: `window.before`,
which may be written down, and `reach`, to which is read. What was read between the two would come
again in every cycle. `Coverage` remembers how far that is, and lets the next window begin there; a
record that was read before a window began shows that the API's time had come so far.

It is forgotten where the API's clock jumps back: then new records may be older than those that were
read, and the next window begins at what was written down.
"""

from __future__ import annotations

from dataclasses import dataclass

from otel_alloy.alloy.cursor import Window


@dataclass(frozen=True, slots=True)
class Extent:
    """What a cycle reads: `window` as it may be written down; records from `start` to before
    `reach`. Unix ms."""

    window: Window
    start: int
    reach: int

    @property
    def whole(self) -> Window:
        """All that is to be read."""
        return Window(self.start, self.reach)


class Coverage:
    """`overlap`: ms that are read again each time, as records may appear so late; it may grow."""

    def __init__(self, overlap: int) -> None:
        self.overlap = overlap
        self._setbacks = 0
        self._newest: int | None = None  # of all that was read
        self._at_begin: int | None = None  # the same when the present window began
        self._floor: int | None = (
            None  # the same when the last window began that was read to its end
        )

    def extent(self, window: Window, latest: int, agreed: bool, setbacks: int) -> Extent:
        """What to read now, where `window` is what may be written down. `latest`, `agreed`: what
        the clocks say. `setbacks`: how often the API's has jumped back."""
        if setbacks != self._setbacks:
            self._setbacks = setbacks
            self._newest = self._floor = None
        self._at_begin = self._newest
        if agreed:
            return Extent(window, window.start, window.before)
        start = window.start
        if self._floor is not None:
            start = max(start, min(self._floor, latest) - self.overlap)
        reach = max(latest + 1, window.before, start + 1)
        return Extent(Window(min(start, window.before), window.before), start, reach)

    def saw(self, newest: int) -> None:
        """A record of this createdAt (Unix ms) was read."""
        self._newest = max(self._newest or 0, newest)

    def ended(self) -> None:
        """The present window is read to its end: what was older than the overlap when it began
        cannot appear any more."""
        self._floor = self._at_begin
