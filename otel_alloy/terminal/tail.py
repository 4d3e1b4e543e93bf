"""`otel-alloy tail`: executions as they end, one line each.

On a terminal a table that grows downwards, with one line of status below it; otherwise plain lines
or JSON, one object per line, complete and without colour. Only presentation and the rhythm of
looking live here; what is shown comes from `look`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from otel_alloy.alloy.retry import Retrying
from otel_alloy.alloy.timestamps import to_text
from otel_alloy.mapping import semconv
from otel_alloy.pipeline.query import ExecutionQuery, Part, Wanted, chosen_sources, retry_words
from otel_alloy.settings.models import Settings
from otel_alloy.terminal.render import (
    MARKS,
    PLAIN_MARKS,
    WIDE,
    Execution,
    clock,
    span_of_time,
    tolerant,
)

OVERLAP = 15.0
"""Seconds that are read again each time, at most: this is a look, which `run`'s promise of
finding what appears later does not cover, and short steps are to stay cheap."""


def run_tail(
    settings: Settings,
    *,
    source: str | None,
    wanted: Wanted,
    since: float,
    interval: float,
    as_json: bool,
    console: Console,
    say: Callable[[str], None],
) -> None:
    """Shows executions until Ctrl-C, beginning with those that ended `since` (Unix ms, or seconds
    ago). `say` prints a line on standard error. Raises Stop where the API cannot be read."""
    tolerant(console)
    screen = console.is_terminal and not console.is_dumb_terminal and not as_json
    status = Status(interval)
    view = Live(status, console=console, transient=True, refresh_per_second=4) if screen else None

    def report(name: str, event: Retrying) -> None:
        words = retry_words(name, event)
        if view is not None:
            console.print(Text(words, "yellow"), soft_wrap=True)
        else:
            say(words)

    def show(part: Part) -> None:
        for again, executions in ((False, part.executions), (True, part.again)):
            for one in filter(wanted, executions):
                status.count(one)
                if screen:
                    console.print(row(one, console.width, again=again))
                else:
                    shown = json.dumps(as_object(one, again)) if as_json else line(one, again)
                    print(shown, file=console.file, flush=True)

    with ExitStack() as stack:
        looks = [
            stack.enter_context(
                ExecutionQuery(settings, each, overlap=min(OVERLAP, each.overlap), report=report)
            )
            for each in chosen_sources(settings, source)
        ]
        try:
            windows = [look.window(since) for look in looks]
            if view is not None:
                console.print(head(console.width))
                stack.enter_context(view)
            while True:
                for number, look in enumerate(looks):
                    for part in _in_order(look.follow(windows[number])):
                        show(part)
                status.looked(looks)
                Event().wait(interval)
                windows = [
                    look.next_window(window) for look, window in zip(looks, windows, strict=True)
                ]
        except KeyboardInterrupt:
            stack.close()
        if screen:
            console.print(status.end(looks))


def _in_order(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts as they come; those that were read newest first as one, at the end."""
    whole = Part([], [], None)
    for part in parts:
        if part.position is not None:
            yield part
        else:
            whole.executions.extend(part.executions)
            whole.again.extend(part.again)
    whole.executions.sort(key=lambda one: one.ended)
    yield whole


@dataclass(slots=True)
class Status:
    """The line below the table."""

    interval: float
    shown: int = 0
    failed: int = 0
    running: int = 0
    requests: int = 0
    at: float = 0.0

    def count(self, one: Execution) -> None:
        """Adds one that is shown."""
        self.shown += 1
        self.failed += one.outcome == "error"

    def looked(self, looks: list[ExecutionQuery]) -> None:
        """Notes that all sources were read."""
        self.running = sum(look.running for look in looks)
        self.requests = sum(look.requests for look in looks)
        self.at = time.monotonic()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        parts: list[tuple[str, str]] = [("live  ", "bold green")] if self.at else []
        if not self.at:
            parts.append(("reading  ", "bold"))
        parts.append((f"{self.shown:,} shown", ""))
        if self.failed:
            parts.append((f"  {self.failed:,} failed", "red"))
        parts.append((f"  {self.running:,} running", "dim"))
        if self.at:
            left = max(0.0, self.interval - (time.monotonic() - self.at))
            parts.append((f"  next look in {left:.0f} s  Ctrl-C ends", "dim"))
        text = Text.assemble(*parts, no_wrap=True, overflow="ellipsis")
        yield text

    def end(self, looks: list[ExecutionQuery]) -> Text:
        """The last line."""
        requests = sum(look.requests for look in looks)
        words = f"{self.shown:,} shown, {self.failed:,} failed, {requests:,} requests"
        unreadable = sum(look.unreadable for look in looks)
        if unreadable:
            words += f", {unreadable:,} records could not be read"
        return Text(words, "dim")


def _columns(width: int) -> Table:
    wide = width >= WIDE
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(width=8, no_wrap=True)
    grid.add_column(width=1, no_wrap=True)
    grid.add_column(ratio=3, no_wrap=True, overflow="ellipsis")
    grid.add_column(ratio=2, no_wrap=True, overflow="ellipsis")
    grid.add_column(width=8, no_wrap=True, justify="right")
    grid.add_column(width=32 if wide else 8, no_wrap=True)
    return grid


def head(width: int) -> Table:
    """The names of the columns."""
    grid = _columns(width)
    names = ("ended", "", "workflow", "user", "duration", "trace")
    grid.add_row(*(Text(name, "bold") for name in names))
    return grid


def row(one: Execution, width: int, *, again: bool = False) -> Table:
    """One execution on a terminal of that width."""
    grid = _columns(width)
    mark, style = MARKS[one.outcome]
    color = {"error": "red", "incomplete": "yellow"}.get(one.outcome, "")
    grid.add_row(
        Text(clock(one.ended), "dim"),
        Text(mark, style),
        Text(one.workflow + (" (again)" if again else ""), color),
        Text(one.user),
        Text(span_of_time(one.seconds), color),
        Text(one.trace_id if width >= WIDE else one.trace_id[:8], "cyan"),
    )
    return grid


def line(one: Execution, again: bool = False) -> str:
    """One execution for a pipe: nothing shortened, columns that `cut` and `awk` can take."""
    words = f"{PLAIN_MARKS[one.outcome]:5}  {span_of_time(one.seconds):>8}  {one.trace_id}"
    name = one.workflow + (" (again)" if again else "")
    return f"{_iso(one.ended)}  {words}  {name}, {one.user}".removesuffix(", ")


def as_object(one: Execution, again: bool = False) -> dict[str, Any]:
    """One execution as JSON: what one asks for most, and all attributes under their own names.
    `again`: a further end of an execution that was shown before."""
    return {
        "started": _iso(one.ended - one.seconds),
        "ended": _iso(one.ended),
        "seconds": round(one.seconds, 3),
        "outcome": one.outcome,
        "again": again,
        "workflow": one.workflow,
        "user": one.user,
        "execution_uuid": one.attributes.get(semconv.EXECUTION_UUID),
        "trace_id": one.trace_id,
        "span_id": one.span_id,
        "attributes": one.attributes,
    }


def _iso(seconds: float) -> str:
    return to_text(round(seconds * 1000))
