"""What the times in a sample of records tell `check`: of what moment createdAt is, and what follows
for the overlap.

Pure functions of the sample. A record that tells an end cannot have been there before that end, so
what its createdAt lies before it, that late it became visible, unless it is a start that changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from otel_alloy.alloy.models import TERMINAL, Record
from otel_alloy.alloy.timestamps import to_ms
from otel_alloy.check.finding import NOTHING_TO_DO, Finding
from otel_alloy.durations import duration_text
from otel_alloy.pipeline.visibility import VisibilityLag

_SOON_MS = 1000
_LONG_MS = 3000
"""From this duration on a start and an end can be told apart by their times."""
_FEW = 3
"""So many at least have to agree before anything is said of all."""


@dataclass(slots=True)
class Times:
    """The times of ended executions, compared. All lists are ms: `after_end`, how long after its
    end each was created (below 0: before it); `after_start`, the same for the start; of those that
    took long enough. `late`: of all, how long before its end, where it was. `longest`: duration.
    `undated`: ends that lack a time that can be read; `odd`: whose times contradict each other, or
    lie in the future."""

    ended: int = 0
    after_end: list[int] = field(default_factory=list)
    after_start: list[int] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    longest: int = 0
    undated: int = 0
    odd: int = 0

    @classmethod
    def of(cls, sample: Sequence[Record], now: int) -> Times:
        """Of the ends in a sample. `now`: Alloy's clock, Unix ms."""
        found = cls()
        for record in sample:
            n = record.notification
            if n.message not in TERMINAL:
                continue
            found.ended += 1
            begun, ended, created = to_ms(n.startedAt), to_ms(n.completedAt), to_ms(n.createdAt)
            if ended is None or created is None:
                found.undated += 1
            elif max(ended, created) > now + _SOON_MS or (begun is not None and begun > ended):
                found.odd += 1
            else:
                found._add(begun, ended, created)
        return found

    def _add(self, begun: int | None, ended: int, created: int) -> None:
        if ended - created > _SOON_MS:
            self.late.append(ended - created)
        if begun is None:
            return
        self.longest = max(self.longest, ended - begun)
        if ended - begun > _LONG_MS:
            self.after_end.append(created - ended)
            self.after_start.append(created - begun)

    @property
    def created_at(self) -> str:
        """Of what moment createdAt is: `end` (or later), `start`, `between` (neither), `mixed`, or
        `unknown`."""
        if len(self.after_end) < _FEW:
            return "unknown"
        ends = sum(after >= -_SOON_MS for after in self.after_end)
        starts = sum(abs(after) <= _SOON_MS for after in self.after_start)
        most = 0.9 * len(self.after_end)
        if ends >= most and not self.late:
            return "end"
        if starts >= most:
            return "start"
        return "mixed" if ends or starts else "between"


def times_finding(
    sample: Sequence[Record], now: int, overlap: int, overlap_max: int, separate: bool
) -> Finding:
    """What createdAt is the time of, and whether the overlap is long enough for it. `now`: Alloy's
    clock, Unix ms; `overlap` and the most that it may grow to, ms; `separate`: whether an end is
    known to be a record of its own."""
    times = Times.of(sample, now)
    largest = max(times.late, default=0)
    wanted = VisibilityLag(largest=largest).overlap(overlap, max(overlap, overlap_max))
    beyond = sum(late > overlap for late in times.late)
    ok: bool | None = True
    remedy = ""
    if times.late:
        ok = None
        words = f"{_said(times)}: an execution becomes visible up to {_text(largest)} after its "
        words += f"createdAt; the overlap of {_text(overlap)} "
        words += "covers that" if not beyond else "finds those that take less, the audit the others"
        if wanted > overlap:
            remedy = (
                f"set overlap to at least {-(-wanted // 1000)}s, to which `run` raises it itself"
            )
            if not separate:
                remedy += f"; {NOTHING_TO_DO} if such a record is a start that changed in place"
    elif times.after_end:
        apart = int(median(times.after_end))
        side = "after" if apart >= 0 else "before"
        words = (
            f"createdAt is the time of the end ({_text(abs(apart))} {side} it, median): the "
            "overlap need only cover how late records become visible"
        )
    elif times.ended:
        words = "no execution took long enough to tell the times of its start and its end apart"
    else:
        words = "no execution has ended yet; cannot be told"
    if times.undated or times.odd:
        words += f"; {times.undated + times.odd} of {times.ended} ends have no times to compare"
    return Finding.of(
        "createdAt",
        f"compared createdAt, startedAt and completedAt of {times.ended:,} ends",
        ok,
        words,
        remedy,
        **facts(times, overlap, wanted),
    )


def facts(times: Times, overlap: int, wanted: int) -> dict[str, object]:
    """The same for programs; seconds."""
    return {
        "created_at": times.created_at,
        "ended": times.ended,
        "compared": len(times.after_end),
        "after_end_seconds": _median(times.after_end),
        "after_start_seconds": _median(times.after_start),
        "late": len(times.late),
        "late_seconds": max(times.late, default=0) / 1000,
        "beyond_overlap": sum(late > overlap for late in times.late),
        "longest_seconds": times.longest / 1000,
        "undated": times.undated,
        "odd": times.odd,
        "overlap_seconds": overlap / 1000,
        "overlap_wanted_seconds": wanted / 1000,
    }


def _said(times: Times) -> str:
    kind = times.created_at
    if kind == "start":
        return "createdAt is the time of the start, although the record tells the end"
    if kind == "between":
        return "createdAt lies between start and end, although the record tells the end"
    late = len(times.late)
    verb = "has" if late == 1 else "have"
    return f"{late:,} of {times.ended:,} ends {verb} a createdAt from before the end"


def _text(ms: int) -> str:
    return duration_text(ms * 1_000_000)


def _median(values: Sequence[int]) -> float | None:
    return median(values) / 1000 if values else None
