"""How executions look on a terminal: what `demo`, `tail`, `summary` and `check` share.

The small forms in which an execution is shown. No setting is read, nothing is fetched and nothing
printed here.
"""

from __future__ import annotations

import io
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from otel_alloy.mapping.facts import ExecutionFacts
from otel_alloy.otlp.outcome import clean
from otel_alloy.privacy import LONGEST

MARKS = {"success": ("✓", "green"), "error": ("✗", "bold red"), "incomplete": ("…", "yellow")}
_PLAIN_MARKS = {"success": "ok", "error": "error", "incomplete": "open"}
WIDE = 110
"""From this many columns on, a table shows more."""

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_HEIGHTS = "▁▂▃▄▅▆▇█"


def workflow_of(facts: ExecutionFacts) -> str:
    """The workflow's name, fit for one line of a terminal."""
    return clean(facts.workflow)


def user_of(facts: ExecutionFacts) -> str:
    """How to call the user, fit for one line of a terminal; "" where that is not known."""
    return clean(facts.user)


def block_of(facts: ExecutionFacts) -> str:
    """How to call the block at which it failed, fit for one line; "" where that is not known."""
    return clean(facts.block)


def reason_of(facts: ExecutionFacts) -> str:
    """Why it failed, fit for one line; "" where that is not known or not to be told."""
    return clean(facts.reason, LONGEST)


def why_of(facts: ExecutionFacts) -> str:
    """Both of them: `at Create order: Invalid id`, or the part of it that is known."""
    block = block_of(facts)
    return ": ".join(part for part in (block and f"at {block}", reason_of(facts)) if part)


def clock_of(facts: ExecutionFacts) -> str:
    """The local time of day at which it ended."""
    return datetime.fromtimestamp(facts.end / 1e9).strftime("%H:%M:%S")


def took(facts: ExecutionFacts) -> str:
    """How long it took; `-` where its end did not come."""
    return "-" if facts.outcome == "incomplete" else span_of_time(facts.seconds)


def plain_line(
    facts: ExecutionFacts, ended: str, note: str = "", address: str | None = None
) -> str:
    """One execution without colour, and nothing shortened. `ended`: when; `note`: a remark;
    `address`: of its trace, where that is known."""
    words = f"{_PLAIN_MARKS[facts.outcome]:5}  {took(facts):>8}"
    told = (f"{workflow_of(facts)}{note}", user_of(facts), why_of(facts))
    name = ", ".join(part for part in told if part)
    link = f"  {address}" if address else ""
    return f"{ended}  {words}  {facts.trace_id.hex()}  {name}{link}"


class Named:
    """A name in a cell; where others are called the same, with a `part` of its id behind it, which
    stays when the name has to be cut. `dim`: whether it only stands for others."""

    def __init__(self, name: str, part: str = "", *, dim: bool = False) -> None:
        self._name = Text(name, "dim" if dim else "", no_wrap=True, overflow="ellipsis")
        self._part = Text(f" {part}" if part else "", "dim", no_wrap=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        name = self._name.copy()
        name.truncate(max(1, options.max_width - self._part.cell_len), overflow="ellipsis")
        yield Text.assemble(name, self._part, no_wrap=True, overflow="ellipsis")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        whole = self._name.cell_len + self._part.cell_len
        return Measurement(min(whole, options.max_width), min(whole, options.max_width))


_SHORTEST = 4


def apart(names: Mapping[str, str]) -> dict[str, str]:
    """What tells those apart that have the same name: for their ids, which are the keys, the
    shortest part that only one of them begins or ends with, at least 4 characters: `…18e6`. Names
    that are there once, and what has no id but its name, are not among them."""
    alike: dict[str, list[str]] = {}
    for key, name in names.items():
        alike.setdefault(name, []).append(key)
    found: dict[str, str] = {}
    for name, keys in alike.items():
        ids = [key for key in keys if key not in ("", name)]
        if len(keys) == 1:
            continue
        longest = max(map(len, ids), default=0)
        for size in range(min(_SHORTEST, longest), longest + 1):
            if len({key[-size:] for key in ids}) == len(ids):
                found |= {key: _part(key, f"…{key[-size:]}") for key in ids}
                break
            if len({key[:size] for key in ids}) == len(ids):
                found |= {key: _part(key, f"{key[:size]}…") for key in ids}
                break
    return found


def _part(key: str, part: str) -> str:
    return clean(part if len(part) < len(key) else key)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of ascending values; 0 of none. `share` is above 0, up to 1."""
    return ordered[ceil(share * len(ordered)) - 1] if ordered else 0.0


@dataclass(slots=True)
class Tally:
    """Executions added up under one name."""

    label: str = ""
    executions: int = 0
    errors: int = 0
    incomplete: int = 0
    durations: array[float] = field(default_factory=lambda: array("d"))

    def add(self, one: ExecutionFacts) -> None:
        """Adds one; the duration of one that did not end is not known."""
        self.executions += 1
        self.errors += one.outcome == "error"
        if one.outcome == "incomplete":
            self.incomplete += 1
        else:
            self.durations.append(one.seconds)

    def merge(self, other: Tally) -> None:
        """Adds all that `other` has."""
        self.executions += other.executions
        self.errors += other.errors
        self.incomplete += other.incomplete
        self.durations.extend(other.durations)

    @property
    def rate(self) -> float:
        """The share of errors."""
        return self.errors / self.executions if self.executions else 0.0

    def percentiles(self) -> tuple[float, float]:
        """p50 and p95 of the durations, in seconds."""
        ordered = sorted(self.durations)
        return percentile(ordered, 0.5), percentile(ordered, 0.95)

    def cells(self) -> tuple[str, str, str, str]:
        """Executions, rate of errors, p50 and p95, as a table shows them."""
        p50, p95 = (span_of_time(s) if self.durations else "-" for s in self.percentiles())
        rate = f"{self.rate:.1%}" if self.errors else "-"
        return f"{self.executions:,}", rate, p50, p95

    def as_object(self) -> dict[str, Any]:
        """As JSON."""
        p50, p95 = self.percentiles()
        return {
            "executions": self.executions,
            "errors": self.errors,
            "incomplete": self.incomplete,
            "error_rate": round(self.rate, 4),
            "p50_seconds": round(p50, 3) if self.durations else None,
            "p95_seconds": round(p95, 3) if self.durations else None,
        }


def span_of_time(seconds: float) -> str:
    """A duration in at most eight characters."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def of_counted(had: int | None, counted: int | None, done: str) -> str:
    """How many records were had of those that Alloy counts, in words. `done`: what was done with
    them; None: where that cannot be told."""
    if had is None:
        return "an earlier version began this and counted nothing, so completeness is not shown"
    if counted is None:
        return (
            f"{had:,} records were {done}; this API does not count what matches a filter, so "
            "completeness cannot be shown"
        )
    words = f"{min(had, counted):,} of {counted:,} records that Alloy counts were {done}"
    if had > counted:
        words += f", and {had - counted:,} that it does not count any more"
    if had < counted:
        missing = counted - had
        words += f"; {missing:,} {'is' if missing == 1 else 'are'} missing"
    return words


def bar(share: float, width: int) -> str:
    """A bar of at most `width` cells, in steps of an eighth, and never quite nothing."""
    eighths = max(1, min(round(share * width * 8), width * 8))
    return _EIGHTHS[8] * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def columns(counts: Sequence[int]) -> str:
    """A column for each count, in steps of an eighth of the largest; a blank for none."""
    most = max(counts, default=0)
    return "".join(_HEIGHTS[ceil(8 * count / most) - 1] if count else " " for count in counts)


def new_table(*, expand: bool = False, show_footer: bool = False) -> Table:
    """An empty table in this project's style."""
    return Table(
        box=box.SIMPLE_HEAD,
        expand=expand,
        show_footer=show_footer,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def figures(values: dict[str, str]) -> RenderableType:
    """Numbers side by side, each above its name."""
    grid = Table.grid(expand=True, pad_edge=True)
    for _ in values:
        grid.add_column(justify="center", no_wrap=True, ratio=1)
    grid.add_row()
    grid.add_row(
        *(Text(value, "bold red" if name == "errors" else "bold") for name, value in values.items())
    )
    grid.add_row(*(Text(name, "dim") for name in values))
    grid.add_row()
    return grid


def tolerant(console: Console) -> Console:
    """The same console; a character that its encoding lacks is replaced, not an error."""
    if isinstance(console.file, io.TextIOWrapper):
        console.file.reconfigure(errors="replace")
    return console
