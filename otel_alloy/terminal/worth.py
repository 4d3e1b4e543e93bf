"""Traces worth a look: what `demo` and `summary` end with.

Of any number of executions the slowest and a few that failed last are kept. What else is known of
them, and where they come from, is the business of those who add them.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from otel_alloy.mapping.facts import ExecutionFacts
from otel_alloy.terminal import render
from otel_alloy.terminal.links import ID_WIDTH, TraceLinks

_FAILED = 3
_INDENT = 9


class Worth:
    """The slowest execution, and the last ones that failed, of those that were added."""

    def __init__(self) -> None:
        self._slowest: ExecutionFacts | None = None
        self._failed: list[ExecutionFacts] = []

    def add(self, one: ExecutionFacts) -> None:
        """Adds one execution."""
        if one.outcome == "error":
            self._failed.append(one)
            self._failed.sort(key=lambda failed: -failed.end)
            del self._failed[_FAILED:]
        # How long one took that did not end is not known.
        if one.outcome != "incomplete" and (
            self._slowest is None or one.seconds > self._slowest.seconds
        ):
            self._slowest = one

    def traces(self) -> list[tuple[str, ExecutionFacts]]:
        """What they are worth a look for, and they, each once."""
        slowest = [] if self._slowest is None else [("slowest", self._slowest)]
        return slowest + [("failed", one) for one in self._failed if one is not self._slowest]

    def as_objects(self, links: TraceLinks) -> list[dict[str, Any]]:
        """As JSON."""
        return [
            {
                "why": why,
                "workflow": render.workflow_of(one),
                "seconds": round(one.seconds, 3),
                "trace_id": one.trace_id.hex(),
                "trace_url": links.address(one.trace_id, one.span_id),
            }
            for why, one in self.traces()
        ]


class WorthTable:
    """The traces of `worth`, ids whole; below each its address, where that is no link by itself and
    has room."""

    def __init__(self, worth: Worth, links: TraceLinks) -> None:
        self._traces = worth.traces()
        self._links = links

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("Traces worth a look", "bold")
        for why, one in self._traces:
            row = Table.grid(padding=(0, 2, 0, 0), expand=True)
            row.add_column(width=_INDENT - 2, no_wrap=True)
            row.add_column(width=ID_WIDTH, no_wrap=True)
            row.add_column(width=8, no_wrap=True, justify="right")
            row.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
            row.add_row(
                Text(why, "dim"),
                self._links.id(one.trace_id, one.span_id),
                render.span_of_time(one.seconds),
                Text(render.workflow_of(one)),
            )
            yield row
            room = options.max_width - _INDENT
            address = self._links.plain(one.trace_id, one.span_id, room)
            if address is not None:
                yield Text.assemble(" " * _INDENT, address, no_wrap=True)
