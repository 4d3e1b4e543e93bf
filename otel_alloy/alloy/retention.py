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

from dataclasses import dataclass

from otel_alloy.alloy.reader import Reader
from otel_alloy.alloy.timestamps import to_text
from otel_alloy.checkpoint.store import State

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


def find_gap(reader: Reader, state: State, now: int) -> Gap | None:
    """The gap before which the source stands; None where there is none or none can be told.
    `now`: Alloy's clock, Unix ms. Raises what a request raises."""
    progress = state.progress
    if progress.high is None or not state.seen:
        return None  # no record of it was ever settled
    if progress.read_to is None and progress.window is None:
        return None  # written by an older version: it may have been read since
    after = max(progress.high, progress.read_to or 0)
    if now - after <= QUIET_MS:
        return None
    oldest = reader.oldest_beyond(after)
    return None if oldest is None else Gap(after, oldest)
