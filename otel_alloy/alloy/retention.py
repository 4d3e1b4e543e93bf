"""Whether Alloy has removed records before they were read.

Alloy keeps records for about 60 days (until 2025 its pages said: "stored for a maximum of 60
days"). A source that stood still for longer finds that what it would have read next is gone, and
nothing in the API says so.

**What can be known.** A record of the source was settled, so it existed; the whole account has
nothing as old any more, so whatever was created up to the oldest record that is left is gone: by
age, or because it was deleted. Whether there was anything between the last moment that was read
and that oldest record, nobody can tell. So a gap is always a possibility, and is told as one.

**What is no gap.** A fresh start, and a checkpoint that was moved by hand: no record was settled
there. A silent account or a narrow filter: `Progress.read_to` says that the source was read, and
the account's oldest record counts, not the filter's. An API with nothing in it, or one that
neither filters nor sorts by createdAt: nothing can be told, so nothing is claimed.

What remains: an account in which nothing happened for longer than Alloy keeps records, and then
something during a pause of a day or more, looks like a gap.

Nothing is asked while the source was read within a day, so a running source costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from otel_alloy.alloy.timestamps import to_text

QUIET_MS = 86_400_000
"""A source that was read within this time is not asked about; far below what Alloy keeps."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Everything up to `after` was read; `oldest` is the oldest createdAt that Alloy shows, that
    of one page where it does not sort. Unix ms."""

    after: int
    oldest: int

    def sentence(self) -> str:
        """What is known, what is only possible, and what to do."""
        after, oldest = to_text(self.after), to_text(self.oldest)
        return (
            f"executions between {after} and {oldest} may be lost. Known: everything up to {after} "
            f"was read; Alloy has removed all of that since, and the oldest record it shows is of "
            f"{oldest}. Possible, and nobody can tell: that records in between were removed too, "
            "before they were read. They cannot be fetched any more; what is left is delivered "
            "now. Never let a source stand still for longer than Alloy keeps records "
            "(`otel-alloy check` says how long that is)"
        )


def find_gap(
    oldest_beyond: Callable[[int], int | None], read_up_to: int | None, now: int
) -> Gap | None:
    """The gap before which a source stands; None where there is none or none can be told.

    `oldest_beyond`: `AlloySource.oldest_beyond`, whose errors come through. `read_up_to`:
    `Remembered.read_up_to`. `now`: Alloy's clock, Unix ms.
    """
    if read_up_to is None or now - read_up_to <= QUIET_MS:
        return None
    oldest = oldest_beyond(read_up_to)
    return None if oldest is None else Gap(read_up_to, oldest)
