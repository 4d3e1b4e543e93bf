"""How executions look on a terminal: what `demo`, `tail`, `summary` and `check` share.

One execution as its span tells it, and the small forms that it is shown in. No setting is read,
nothing is fetched and nothing printed here.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from typing import Any, Literal

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from otel_alloy.mapping import semconv
from otel_alloy.otlp.outcome import clean
from otel_alloy.testing.otlp_endpoint import attributes

MARKS = {"success": ("✓", "green"), "error": ("✗", "bold red"), "incomplete": ("…", "yellow")}
PLAIN_MARKS = {"success": "ok", "error": "error", "incomplete": "open"}
WIDE = 110
"""Columns from which on a table shows more."""

_WHO = (semconv.USER_FULL_NAME, semconv.USER_EMAIL, semconv.USER_ID, semconv.USER_HASH)
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_HEIGHTS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution as its span tells it; names are fit for one line of a terminal."""

    trace_id: str
    span_id: str
    ended: float
    """Seconds since the epoch."""
    seconds: float
    outcome: Literal["success", "error", "incomplete"]
    workflow: str
    user: str
    attributes: dict[str, Any] = field(default_factory=dict)
    """The span's own."""

    @classmethod
    def of(cls, span: Span) -> Execution:
        """Read from a span of this project's mapping; what is missing stays empty."""
        given = attributes(span.attributes)
        outcome: Literal["success", "error", "incomplete"] = "success"
        if span.status.code == Status.STATUS_CODE_ERROR:
            outcome = "error"
        elif given.get(semconv.EXECUTION_OUTCOME) == "incomplete":
            outcome = "incomplete"
        return cls(
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            ended=span.end_time_unix_nano / 1e9,
            seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
            outcome=outcome,
            workflow=clean(str(given.get(semconv.WORKFLOW_NAME) or span.name)),
            user=clean(next((str(given[key]) for key in _WHO if given.get(key)), "")),
            attributes=given,
        )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of ascending values; 0 of none. `share` is above 0, up to 1."""
    return ordered[ceil(share * len(ordered)) - 1] if ordered else 0.0


def clock(seconds: float) -> str:
    """The local time of day."""
    return datetime.fromtimestamp(seconds).strftime("%H:%M:%S")


def span_of_time(seconds: float) -> str:
    """A duration in at most eight characters."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


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
    """The same console; a mark that its encoding cannot write ends nothing."""
    if isinstance(console.file, io.TextIOWrapper):
        console.file.reconfigure(errors="replace")
    return console
