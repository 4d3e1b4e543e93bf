"""`otel-alloy summary`: what ended in a period, by workflow and by customer.

Counts, error rate, percentiles and small charts, and of what failed the blocks and the reasons; as
JSON one document. Only adding up and presentation live here; what is added up comes from
`pipeline.query`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from otel_alloy.alloy.retry import HOLD_SECONDS
from otel_alloy.alloy.timestamps import to_text
from otel_alloy.mapping import semconv
from otel_alloy.mapping.facts import ExecutionFacts
from otel_alloy.pipeline.explain import Newest
from otel_alloy.pipeline.factory import Budgets
from otel_alloy.pipeline.query import (
    ExecutionQuery,
    Told,
    Wanted,
    chosen_sources,
    report_words,
)
from otel_alloy.runtime import Runtime
from otel_alloy.settings.models import Settings
from otel_alloy.terminal import render
from otel_alloy.terminal.links import TraceLinks
from otel_alloy.terminal.worth import Worth, WorthTable

By = Literal["workflow", "customer"]

_SLICES = 48
"""Columns of the chart over time."""
_PLAIN_WIDTH = 200
_QUESTIONS = 20
"""Requests that are spent at most on asking why executions failed, for those workflows and users
of which most did."""
_QUESTION_SECONDS = 30.0
_REASONS = 10
"""Rows of a table of reasons."""
_VARIES = re.compile(r"\([^()]*\)|\"[^\"]*\"|'[^']*'|\d+|\*\*\*")
"""What differs in a reason from case to case."""


@dataclass(slots=True)
class Why:
    """Failures of one workflow or customer that tell the same. `reason`: as one of them has it."""

    block: str
    reason: str
    failures: int = 0


class Summary:
    """What ended from `start` to `before` (Unix ms)."""

    def __init__(self, start: int, before: int) -> None:
        self.start, self.before = start, before
        self.all = render.Tally()
        self.groups: dict[By, dict[str, render.Tally]] = {"workflow": {}, "customer": {}}
        """By id, or by name where there is no id; "" where there is neither."""
        self.reasons: dict[By, dict[tuple[str, str, str], Why]] = {"workflow": {}, "customer": {}}
        """By the group's key, the block, and what in the reason does not differ by case."""
        self.worth = Worth()
        self.at_known_block = self.with_known_reason = 0
        self.asked = False
        """Whether it was asked why executions failed."""
        self.slices = [0] * _SLICES
        self.failed = [0] * _SLICES
        self.complete = False
        self.running = 0
        self.requests = 0
        self.unreadable = 0
        self.unreachable: int | None = 0
        self.read = 0
        self.counted: int | None = 0
        """Records that Alloy counts; None where it cannot count them."""

    def add(self, one: ExecutionFacts) -> None:
        """Adds one execution."""
        self.all.add(one)
        self.worth.add(one)
        for by, key, label in _groups_of(one):
            tally = self.groups[by].setdefault(key, render.Tally())
            if not tally.label or tally.label == key:
                tally.label = label  # a name, where only some records have it
            tally.add(one)
        share = (one.end / 1e6 - self.start) / max(1, self.before - self.start)
        place = min(_SLICES - 1, max(0, int(share * _SLICES)))
        self.slices[place] += 1
        self.failed[place] += one.outcome == "error"

    def explain(self, failed: Iterable[ExecutionFacts]) -> None:
        """Adds up why executions failed, which were added before."""
        self.asked = True
        for one in failed:
            block, reason = render.block_of(one), render.reason_of(one)
            self.at_known_block += bool(block)
            self.with_known_reason += semconv.REASON_SOURCE in one.attributes
            if block or reason:
                for by, key, _ in _groups_of(one):
                    alike = key, block, _VARIES.sub("*", reason)
                    self.reasons[by].setdefault(alike, Why(block, reason)).failures += 1

    def apart(self, by: By) -> dict[str, str]:
        """What tells groups with the same name apart, by their ids."""
        return render.apart({key: tally.label for key, tally in self.groups[by].items()})

    def top_reasons(self, by: By) -> list[tuple[str, str, Why]]:
        """Id and label of the group, and why its executions failed; the most frequent first."""
        found = [
            (key, self.groups[by][key].label, why) for (key, _, _), why in self.reasons[by].items()
        ]
        found.sort(key=lambda row: (-row[2].failures, row[1], row[2].block, row[2].reason))
        return found

    def ordered(self, by: By) -> list[tuple[str, render.Tally]]:
        """The groups, the largest first."""
        groups = self.groups[by].items()
        return sorted(groups, key=lambda pair: (-pair[1].executions, pair[1].label))

    def as_object(self, shown: tuple[By, ...], links: TraceLinks) -> dict[str, Any]:
        """As JSON."""
        names = {"workflow": "workflows", "customer": "customers"}
        lists = {
            names[by]: [
                {"id": key or None, "name": tally.label, **tally.as_object()}
                for key, tally in self.ordered(by)
            ]
            for by in shown
        }
        return {
            "from": to_text(self.start),
            "to": to_text(self.before),
            "complete": self.complete,
            "all": self.all.as_object(),
            "running": self.running,
            "unreadable": self.unreadable,
            "unreachable": self.unreachable,
            "records": {"read": self.read, "counted": self.counted},
            "requests": self.requests,
            **lists,
            "traces": self.worth.as_objects(links),
            "failures": {
                "asked": self.asked,
                "total": self.all.errors,
                "block_known": self.at_known_block,
                "reason_known": self.with_known_reason,
                **{
                    names[by]: [
                        {
                            "id": key or None,
                            "name": label,
                            "block": why.block or None,
                            "reason": why.reason or None,
                            "failures": why.failures,
                        }
                        for key, label, why in self.top_reasons(by)
                    ]
                    for by in shown
                },
            },
        }


def _groups_of(one: ExecutionFacts) -> tuple[tuple[By, str, str], ...]:
    """The groups of an execution: by what, the id or what stands for it, and how it is called."""
    workflow = one.workflow_id or one.attributes.get(semconv.WORKFLOW_NAME, "")
    user = one.user_id or one.attributes.get(semconv.USER_HASH) or render.user_of(one)
    return (
        ("workflow", workflow, render.workflow_of(one)),
        ("customer", user, render.user_of(one) or "(no user named)"),
    )


def run_summary(
    settings: Settings,
    runtime: Runtime,
    *,
    source: str | None,
    wanted: Wanted,
    since: float,
    by: By | None,
    top: int,
    as_json: bool,
    console: Console,
    errors: Console,
    links: TraceLinks,
    say: Callable[[str], None],
) -> None:
    """Reads what ended `since` (Unix ms, or seconds ago) and shows it; after Ctrl-C, what was read
    until then, and raises KeyboardInterrupt again. `links`: how trace ids are shown. Raises Stop
    where the API cannot be read."""
    render.tolerant(console)
    shown: tuple[By, ...] = ("workflow", "customer") if by is None else (by,)
    progress = Progress(
        TextColumn("reading"),
        BarColumn(),
        TextColumn("{task.fields[executions]:,} executions, {task.fields[requests]:,} requests"),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )
    now = runtime.now_ms()
    begin = since if isinstance(since, int) else now - int(since * 1000)
    summary = Summary(begin, max(now, begin + 1))

    def report(event: Told) -> None:
        if errors.is_terminal:
            errors.print(Text(report_words(event), "yellow"), soft_wrap=True)
        else:
            say(report_words(event))

    interrupted: KeyboardInterrupt | None = None
    queries: list[ExecutionQuery] = []
    counted: list[int | None] = []
    failed: list[Newest[object, ExecutionFacts]] = []
    budgets = Budgets(settings, runtime)
    with ExitStack() as stack:
        try:
            stack.enter_context(progress)
            for each in chosen_sources(settings, source):
                task = progress.add_task(each.name, total=None, executions=0, requests=0)
                query = stack.enter_context(
                    ExecutionQuery(
                        settings,
                        each,
                        overlap=each.overlap,
                        runtime=runtime,
                        report=report,
                        budgets=budgets,
                        hold_at_most=HOLD_SECONDS,
                    )
                )
                queries.append(query)
                failed.append(Newest(lambda one: one.end))
                window = query.window(since)
                # Before it is read, so that what appears meanwhile is not missed in the reading.
                counted.append(query.count(window))
                if len(queries) == 1:
                    summary.start, summary.before = window.start, window.before
                for part in query.read(window):
                    for one in filter(wanted, part.executions):
                        summary.add(one)
                        if one.outcome == "error":
                            pair = one.attributes.get(semconv.WORKFLOW_INSTALLATION_ID)
                            failed[-1].add((pair, one.user_id), one)
                    if part.position is not None:
                        done = part.position - window.start
                        progress.update(task, total=window.before - window.start, completed=done)
                    progress.update(
                        task, executions=summary.all.executions, requests=query.requests
                    )
                if counted[-1] is not None and query.records < counted[-1]:
                    counted[-1] = query.count(window)  # some may have been deleted meanwhile
            summary.complete = True
            _ask_why(summary, queries, failed)
        except KeyboardInterrupt as error:
            interrupted = error
    summary.running = sum(query.running for query in queries)
    summary.requests = sum(query.requests for query in queries)
    summary.unreadable = sum(query.unreadable for query in queries)
    summary.read = sum(query.records for query in queries)
    summary.counted = None if None in counted else sum(number or 0 for number in counted)
    missing = [query.unreachable for query in queries]
    summary.unreachable = None if None in missing else sum(number or 0 for number in missing)
    if as_json:
        print(json.dumps(summary.as_object(shown, links), indent=2), file=console.file, flush=True)
    else:
        if not console.is_terminal:
            console.width = _PLAIN_WIDTH
        console.print(rendered(summary, shown, console, links, top))
    if interrupted is not None:
        raise interrupted


def _ask_why(
    summary: Summary,
    queries: list[ExecutionQuery],
    failed: list[Newest[object, ExecutionFacts]],
) -> None:
    """Asks why executions failed, and adds it up. Sources have equal parts of the questions."""
    left = _QUESTIONS
    for number, (query, some) in enumerate(zip(queries, failed, strict=True)):
        before, sources = query.requests, len(queries) - number
        if query.explains and some.all():
            part = _QUESTION_SECONDS / len(queries)
            summary.explain(query.explained(some.all(), part, left // sources))
        left -= query.requests - before


def rendered(
    summary: Summary, shown: tuple[By, ...], console: Console, links: TraceLinks, top: int
) -> RenderableType:
    """The summary as a terminal of the console's width shows it, or as plain text."""
    screen = console.is_terminal
    wide = not screen or console.width >= render.WIDE
    span = render.span_of_time((summary.before - summary.start) / 1000)
    first, last = (_day(ms) for ms in (summary.start, summary.before))
    parts: list[RenderableType] = [
        Text.assemble(("otel-alloy summary  ", "bold"), (f"{first} to {last} ({span})", "dim"))
    ]
    if summary.all.executions:
        parts += _body(summary, shown, screen, wide, top)
        parts += [Text(), WorthTable(summary.worth, links)]
    elif summary.complete:
        parts.append(Text("\nNo execution ended in this time. Look further back with --since 7d."))
    if summary.unreadable:
        note = f"{summary.unreadable:,} records could not be read and are not counted."
        parts.append(Text("\n" + note, "yellow"))
    if summary.unreachable != 0:
        some = "Some" if summary.unreachable is None else f"{summary.unreachable:,}"
        note = f"{some} records that Alloy has were not given by it and are not counted."
        parts.append(Text("\n" + note, "yellow"))
    if summary.asked:
        parts.append(Text("\n" + of_reasons(summary), "dim"))
    parts.append(Text("\n" + of_records(summary), "dim"))
    if not summary.complete:
        note = "Interrupted: only what had been read until then is counted."
        parts.append(Text("\n" + note, "yellow"))
    return Group(*parts)


def of_reasons(summary: Summary) -> str:
    """Of how many failures block and reason are known, as a sentence."""
    reason, block = summary.with_known_reason, summary.at_known_block
    return (
        f"Of {summary.all.errors:,} failures the reason of {reason:,} is known, and the block of "
        f"{block:,}; {_QUESTIONS} questions are asked at most, where most failed."
    )


def of_records(summary: Summary) -> str:
    """How many of the records that Alloy counts were read, as a sentence."""
    counted = summary.counted
    if not summary.complete and counted is not None:
        return f"{summary.read:,} of {counted:,} records that Alloy counts were read."
    words = render.of_counted(summary.read, counted, "read")
    return words[0].upper() + words[1:] + "."


def _body(
    summary: Summary, shown: tuple[By, ...], screen: bool, wide: bool, top: int
) -> list[RenderableType]:
    everything = summary.all
    p50, p95 = everything.percentiles()
    numbers = {
        "executions": f"{everything.executions:,}",
        "errors": f"{everything.errors:,}",
        "error rate": f"{everything.rate:.1%}",
        "p50": render.span_of_time(p50),
        "p95": render.span_of_time(p95),
        "running": f"{summary.running:,}",
    }
    if everything.incomplete:
        numbers["incomplete"] = f"{everything.incomplete:,}"
    parts: list[RenderableType] = []
    if screen:
        parts.append(render.figures(numbers))
    else:
        parts.append(Text(", ".join(f"{name} {value}" for name, value in numbers.items()) + "\n"))
    parts.append(_chart(summary))
    for by in shown:
        parts += [Text(), _groups(summary, by, screen, wide, top)]
    for by in shown:
        if summary.reasons[by]:
            parts += [Text(), _reasons(summary, by, screen, top)]
    return parts


def _reasons(summary: Summary, by: By, screen: bool, top: int) -> RenderableType:
    """Why executions failed; a reason is as one of those has it that tell the same."""
    shown = render.new_table(expand=screen)
    shown.add_column(by, no_wrap=True, overflow="ellipsis", ratio=2 if screen else None)
    shown.add_column("failed", justify="right", no_wrap=True, width=6)
    shown.add_column("at", no_wrap=True, overflow="ellipsis", ratio=1 if screen else None)
    shown.add_column("because", no_wrap=True, overflow="ellipsis", ratio=4 if screen else None)
    apart = summary.apart(by)
    for key, label, why in summary.top_reasons(by)[: min(top, _REASONS) or None]:
        failures = Text(f"{why.failures:,}", "red")
        shown.add_row(
            render.Named(label, apart.get(key, "")),
            failures,
            Text(why.block or "-"),
            Text(why.reason or "-"),
        )
    return shown


def _chart(summary: Summary) -> RenderableType:
    each = render.span_of_time((summary.before - summary.start) / 1000 / _SLICES)
    grid = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(3):
        grid.add_column(no_wrap=True)
    for name, counts, style in (
        ("executions", summary.slices, "green"),
        ("errors", summary.failed, "red"),
    ):
        if any(counts):
            most = f"up to {max(counts):,} in {each}"
            grid.add_row(Text(name, "dim"), Text(render.columns(counts), style), Text(most, "dim"))
    return grid


def _groups(summary: Summary, by: By, screen: bool, wide: bool, top: int) -> RenderableType:
    ordered, apart, rest = summary.ordered(by), summary.apart(by), None
    rows = ordered
    if top and len(ordered) > top + 1:
        rest = render.Tally(f"{len(ordered) - top:,} others")
        for _, tally in ordered[top:]:
            rest.merge(tally)
        rows = [*ordered[:top], ("", rest)]
    largest = ordered[0][1].executions
    cells = 24 if wide else 8
    shown = render.new_table(expand=screen)
    shown.add_column(by, no_wrap=True, overflow="ellipsis", ratio=1 if screen else None)
    shown.add_column("executions", justify="right", no_wrap=True, width=10)
    shown.add_column("", no_wrap=True, width=cells)
    if wide:
        shown.add_column("errors", justify="right", no_wrap=True, width=6)
    shown.add_column("rate" if wide else "errors", justify="right", no_wrap=True, width=6)
    shown.add_column("p50", justify="right", no_wrap=True, width=8)
    shown.add_column("p95", justify="right", no_wrap=True, width=8)
    for key, tally in rows:
        executions, rate, p50, p95 = tally.cells()
        style = _alarm(tally, summary.all)
        count = [Text(f"{tally.errors:,}" if tally.errors else "-", style)] if wide else []
        length = "" if tally is rest else render.bar(tally.executions / largest, cells)
        shown.add_row(
            render.Named(
                tally.label, "" if tally is rest else apart.get(key, ""), dim=tally is rest
            ),
            executions,
            Text(length, "green"),
            *count,
            Text(rate, style),
            p50,
            p95,
        )
    return shown


def _alarm(tally: render.Tally, everything: render.Tally) -> str:
    """The style of a group's errors: bold where it fails twice as often as all together."""
    if not tally.errors:
        return "dim"
    return "bold red" if tally.errors >= 3 and tally.rate >= 2 * everything.rate else "red"


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000).strftime("%d %b %H:%M")
