"""`otel-alloy tail`: executions as they end, one line each.

On a terminal a table that grows downwards, with one line of status below it; otherwise plain lines
or JSON, one object per line, complete and without colour. Only presentation and the rhythm of
reading live here; what is shown comes from `pipeline.query`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from otel_alloy.alloy.timestamps import to_text
from otel_alloy.mapping import semconv
from otel_alloy.mapping.facts import ExecutionFacts
from otel_alloy.pipeline.factory import Budgets
from otel_alloy.pipeline.query import (
    ExecutionQuery,
    Part,
    Told,
    Wanted,
    chosen_sources,
    report_words,
)
from otel_alloy.runtime import Runtime
from otel_alloy.settings.models import Settings
from otel_alloy.terminal import render
from otel_alloy.terminal.links import ID_WIDTH, TraceLinks

OVERLAP = 15.0
"""At most this many seconds are read again each time. `tail` does not promise, as `run` does, to
find what appears late, and reading often has to stay cheap."""
EXPLAINING = 4.0
"""So many seconds at most an execution that failed is not shown while its block and its reason are
asked for."""


def run_tail(
    settings: Settings,
    runtime: Runtime,
    *,
    source: str | None,
    wanted: Wanted,
    since: float,
    interval: float,
    as_json: bool,
    console: Console,
    links: TraceLinks,
    say: Callable[[str], None],
) -> None:
    """Shows executions until Ctrl-C, beginning with those that ended `since` (Unix ms, or seconds
    ago). `links`: how trace ids are shown; `say` prints a line on standard error. Raises Stop where
    the API cannot be read, and KeyboardInterrupt again, when the last line is shown."""
    render.tolerant(console)
    screen = console.is_terminal and not console.is_dumb_terminal and not as_json
    status = Status(interval, runtime.monotonic)
    view = Live(status, console=console, transient=True, refresh_per_second=4) if screen else None

    def report(event: Told) -> None:
        if view is not None:
            console.print(Text(report_words(event), "yellow"), soft_wrap=True)
        else:
            say(report_words(event))

    def show(query: ExecutionQuery, part: Part) -> None:
        for again, executions in ((False, part.executions), (True, part.again)):
            for one in query.explained(list(filter(wanted, executions)), EXPLAINING):
                status.count(one)
                if screen:
                    console.print(row(one, console.width, links, again=again))
                    continue
                address = links.address(one.trace_id, one.span_id)
                if as_json:
                    shown = json.dumps(as_object(one, again, address))
                else:
                    shown = line(one, again, address)
                print(shown, file=console.file, flush=True)

    with ExitStack() as stack:
        budgets = Budgets(settings, runtime)
        queries = [
            stack.enter_context(
                ExecutionQuery(
                    *(settings, each),
                    overlap=min(OVERLAP, each.overlap),
                    runtime=runtime,
                    report=report,
                    budgets=budgets,
                )
            )
            for each in chosen_sources(settings, source)
        ]
        interrupted: KeyboardInterrupt | None = None
        try:
            windows = [query.window(since) for query in queries]
            if view is not None:
                console.print(head(console.width))
                stack.enter_context(view)
            while True:
                for query, window in zip(queries, windows, strict=True):
                    for part in _in_order(query.follow(window)):
                        show(query, part)
                status.read(queries)
                if runtime.wait(interval):
                    break
                windows = [
                    query.next_window(window)
                    for query, window in zip(queries, windows, strict=True)
                ]
        except KeyboardInterrupt as error:
            interrupted = error
        stack.close()
        if screen:
            console.print(status.end(queries))
        if interrupted is not None:
            raise interrupted


def _in_order(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts as they come; those that were read newest first as one, at the end."""
    whole = Part([], [], None)
    for part in parts:
        if part.position is not None:
            yield part
        else:
            whole.executions.extend(part.executions)
            whole.again.extend(part.again)
    whole.executions.sort(key=lambda one: one.end)
    yield whole


@dataclass(slots=True)
class Status:
    """The line below the table."""

    interval: float
    monotonic: Callable[[], float]
    shown: int = 0
    failed: int = 0
    running: int = 0
    at: float | None = None

    def count(self, one: ExecutionFacts) -> None:
        """Adds one that is shown."""
        self.shown += 1
        self.failed += one.outcome == "error"

    def read(self, queries: list[ExecutionQuery]) -> None:
        """Notes that all sources were read."""
        self.running = sum(query.running for query in queries)
        self.at = self.monotonic()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        live = self.at is not None
        parts = [("live  ", "bold green") if live else ("reading  ", "bold")]
        parts.append((f"{self.shown:,} shown", ""))
        if self.failed:
            parts.append((f"  {self.failed:,} failed", "red"))
        parts.append((f"  {self.running:,} running", "dim"))
        if self.at is not None:
            left = max(0.0, self.interval - (self.monotonic() - self.at))
            parts.append((f"  next look in {left:.0f} s  Ctrl-C ends", "dim"))
        yield Text.assemble(*parts, no_wrap=True, overflow="ellipsis")

    def end(self, queries: list[ExecutionQuery]) -> Text:
        """The last line."""
        requests = sum(query.requests for query in queries)
        words = f"{self.shown:,} shown, {self.failed:,} failed, {requests:,} requests"
        unreadable = sum(query.unreadable for query in queries)
        if unreadable:
            words += f", {unreadable:,} records could not be read"
        return Text(words, "dim")


_INDENT = 13
"""Where the workflow's name begins."""


def _columns(width: int) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(width=8, no_wrap=True)
    grid.add_column(width=1, no_wrap=True)
    grid.add_column(ratio=3, no_wrap=True, overflow="ellipsis")
    grid.add_column(ratio=2, no_wrap=True, overflow="ellipsis")
    grid.add_column(width=8, no_wrap=True, justify="right")
    if width >= render.WIDE:
        grid.add_column(width=ID_WIDTH, no_wrap=True)
    return grid


def head(width: int) -> Table:
    """The names of the columns."""
    grid = _columns(width)
    names = ("ended", "", "workflow", "user", "duration", "trace")
    grid.add_row(*(Text(name, "bold") for name in names[: len(grid.columns)]))
    return grid


def row(
    one: ExecutionFacts, width: int, links: TraceLinks, *, again: bool = False
) -> RenderableType:
    """One execution on a terminal of that width, its trace id whole: in a column of its own, or
    where that would leave too little for names in a line below, which has the address instead where
    the id is no link and there is room. A further line says where and why it failed."""
    grid = _columns(width)
    mark, style = render.MARKS[one.outcome]
    color = {"error": "red", "incomplete": "yellow"}.get(one.outcome, "")
    cells = [
        Text(render.clock_of(one), "dim"),
        Text(mark, style),
        Text(render.workflow_of(one) + (" (again)" if again else ""), color),
        Text(render.user_of(one)),
        Text(render.took(one), color),
    ]
    below = Table.grid(padding=(0, 0, 0, _INDENT), pad_edge=True, expand=True)
    below.add_column(no_wrap=True, overflow="ellipsis")
    trace = links.id(one.trace_id, one.span_id)
    address = links.plain(one.trace_id, one.span_id, width - _INDENT)
    if width >= render.WIDE:
        cells.append(trace)
        if address is not None:
            below.add_row(address)
    else:
        below.add_row(address or trace)
    grid.add_row(*cells)
    why = render.why_of(one)
    if why:
        below.add_row(Text(why, "dim"))
    return Group(grid, below) if below.row_count else grid


def line(one: ExecutionFacts, again: bool = False, address: str | None = None) -> str:
    """One execution for a pipe: nothing shortened, columns that `cut` and `awk` can take."""
    return render.plain_line(one, _iso(one.end), " (again)" if again else "", address)


def as_object(
    one: ExecutionFacts, again: bool = False, address: str | None = None
) -> dict[str, Any]:
    """One execution as JSON: what is asked for most, and all attributes under their own names.
    `again`: a further end of an execution that was shown before; `address`: of its trace."""
    return {
        "started": _iso(one.start),
        "ended": _iso(one.end),
        "seconds": round(one.seconds, 3),
        "outcome": one.outcome,
        "again": again,
        "workflow": render.workflow_of(one),
        "user": render.user_of(one),
        "block": render.block_of(one) or None,
        "reason": render.reason_of(one) or None,
        "execution_uuid": one.attributes.get(semconv.EXECUTION_UUID),
        "trace_id": one.trace_id.hex(),
        "span_id": one.span_id.hex(),
        "trace_url": address,
        "attributes": dict(one.attributes),
    }


def _iso(ns: int) -> str:
    return to_text(round(ns / 1e6))
