"""What `run` and `backfill` show: log lines, and a bar while there is much to read.

Results go to standard output, everything else to standard error. No decision is taken here. What
draws is imported where there is a terminal to draw on: a service has none, and is up sooner.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from otel_alloy.alloy.timestamps import to_text
from otel_alloy.durations import duration_text
from otel_alloy.pipeline.events import (
    Advanced,
    BackfillCounted,
    Counts,
    CycleEnded,
    Planned,
    Position,
    Settled,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from otel_alloy.mapping.facts import ExecutionFacts
    from otel_alloy.terminal.links import TraceLinks

_LINE_SECONDS = 30.0


class ConsoleHandler(logging.Handler):
    """Log records as lines above the progress bar; `observability.logging` makes the lines.
    `links`: makes a link of the trace id that a line names."""

    def __init__(self, console: Console, links: TraceLinks) -> None:
        super().__init__()
        self._console = console
        self._links = links

    def emit(self, record: logging.LogRecord) -> None:
        """Prints what the formatter makes of it."""
        try:
            line = self.format(record)
            trace = getattr(record, "trace", None) if self._links.hyperlinks else None
            words = line if trace is None else self._links.within(line, *trace)
            self._console.print(words, markup=False, highlight=False, soft_wrap=True)
        except Exception:
            self.handleError(record)


@dataclass(slots=True)
class Totals:
    """Sums over a run. `high`: how far each source is settled, createdAt in Unix ms; `failed`: how
    many executions failed, and `last_failed` the last of them, where that was looked for."""

    counts: Counts = field(default_factory=Counts)
    high: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    last_failed: ExecutionFacts | None = None

    def add(self, event: Settled) -> None:
        """Adds one settled batch."""
        self.counts += event.counts
        if event.position.high is not None:
            self.high[event.source] = event.position.high

    def look(self, event: Settled) -> None:
        """Adds what failed of a batch that is being observed."""
        if event.counts.executions:
            glance = event.glance(0, 0)
            self.failed += len(glance.failed)
            self.last_failed = glance.last_failed or self.last_failed

    def sentence(self) -> str:
        """The summary of a run."""
        sums = self.counts
        words = (
            f"{sums.spans} spans and {sums.log_records} log records delivered from "
            f"{sums.received} records in {sums.requests} requests"
        )
        if sums.repeated:
            words += f"; {sums.repeated} were known already"
        if sums.rejected:
            words += f"; {sums.rejected} set aside (otel-alloy rejected list)"
        words += _refused(sums)
        if self.last_failed is not None:
            last = self.last_failed.trace_id.hex()
            words += f"; {self.failed} failed, the last one is trace {last}"
        if self.high:
            words += f"; settled up to {to_text(min(self.high.values()))}"
        return words


class _View:
    """A bar on `console` where it is a terminal (unless not `bar`), with `words` behind the share
    done."""

    def __init__(
        self, console: Console | None, monotonic: Callable[[], float], bar: bool, words: str
    ) -> None:
        self.totals = Totals()
        self._monotonic = monotonic
        self._said = monotonic()
        self._log = logging.getLogger("otel_alloy")
        self._bar: Progress | None = None
        if bar and console is not None and console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %  " + words),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()


class RunView(_View):
    """Shows what is settled on `console`: a line per cycle that brought something, and meanwhile
    a bar on a terminal (unless not `bar`), else a line every 30 s."""

    def __init__(
        self, console: Console | None, monotonic: Callable[[], float], *, bar: bool = True
    ) -> None:
        super().__init__(console, monotonic, bar, "{task.fields[spans]} spans")
        self._cycle: dict[str, Totals] = {}
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, event: object) -> None:
        """Takes the receiver's events; shows `Settled` and `CycleEnded`."""
        if isinstance(event, CycleEnded):
            cycle = self._cycle.pop(event.source, None)
            self._hide_bar(event.source)
            if cycle is not None and (cycle.counts.executions or cycle.counts.rejected):
                self._say(event, f"source {event.source}: {cycle.sentence()}", cycle.last_failed)
            return
        if not isinstance(event, Settled):
            return
        self.totals.add(event)
        cycle = self._cycle.setdefault(event.source, Totals())
        cycle.add(event)
        cycle.look(event)
        if event.position.last:
            return
        if self._bar is not None:
            self._show_bar(event, cycle)
        elif self._monotonic() - self._said >= _LINE_SECONDS:
            self._said = self._monotonic()
            read = f"{100 * _share(event.position):.0f} % of the window read"
            done = f"{read}, {cycle.counts.spans} spans so far"
            self._say(event, f"source {event.source}: {done}")

    def _say(
        self, event: Settled | CycleEnded, words: str, named: ExecutionFacts | None = None
    ) -> None:
        more: dict[str, object] = {"source": event.source, "cycle": event.cycle}
        if named is not None:
            more["trace"] = named.trace_id, named.span_id
        self._log.info("%s", words, extra=more)

    def _show_bar(self, event: Settled, cycle: Totals) -> None:
        assert self._bar is not None
        task = self._tasks.get(event.source)
        if task is None:
            task = self._tasks[event.source] = self._bar.add_task(event.source, total=1.0, spans=0)
        self._bar.update(task, completed=_share(event.position), spans=cycle.counts.spans)

    def _hide_bar(self, source: str) -> None:
        if self._bar is not None and source in self._tasks:
            self._bar.remove_task(self._tasks.pop(source))


class BackfillView(_View):
    """Shows how far a backfill is: a bar on a terminal (unless not `bar`), else a line every 30 s.

    The share done is of the records, if the API can tell how many there are, else of the time. The
    time and the requests that remain are estimated from those so far.
    """

    def __init__(
        self, console: Console | None, monotonic: Callable[[], float], *, bar: bool = True
    ) -> None:
        super().__init__(console, monotonic, bar, "{task.fields[words]}")
        self._lock = threading.Lock()
        self._plan = Planned("", 0, None)
        self._done = Totals()
        self._ms = 0
        self._begun = self._said
        self._task: TaskID | None = None
        self._counted: list[BackfillCounted] = []

    def __call__(self, event: object) -> None:
        """Takes the workers' events; shows `Planned`, `Settled` and `Advanced`."""
        with self._lock:
            if isinstance(event, BackfillCounted):
                self._counted.append(event)
            elif isinstance(event, Planned):
                self._plan, self._done, self._ms = event, Totals(), 0
                self._begun = self._said = self._monotonic()
                if self._bar is not None:
                    if self._task is not None:
                        self._bar.remove_task(self._task)
                    self._task = self._bar.add_task(event.source, total=1.0, words="")
            elif isinstance(event, Settled):
                self.totals.add(event)
                self._done.add(event)
                self._show()  # read newest first, a slice does not advance before its end
            elif isinstance(event, Advanced):
                self._ms += event.ms
                self._show()

    def sentence(self) -> str:
        """The summary of a backfill."""
        t = self.totals.counts
        words = (
            f"{t.executions} executions: {t.spans} spans and {t.log_records} log records delivered "
            f"from {t.received} records in {t.requests} requests; {t.rejected} set aside"
        )
        return words + (" (otel-alloy rejected list)" if t.rejected else "") + _refused(t)

    def counted(self) -> list[str]:
        """Of each source that is done: how many of the records that Alloy counts are settled."""
        from otel_alloy.terminal.render import of_counted

        several = len(self._counted) > 1
        return [
            (f"source {c.source}: " if several else "") + of_counted(c.settled, c.api, "settled")
            for c in self._counted
        ]

    @property
    def missing(self) -> int:
        """Records that Alloy counts and that are not settled."""
        return sum(
            max(0, c.api - c.settled)
            for c in self._counted
            if c.api is not None and c.settled is not None
        )

    def _show(self) -> None:
        plan, done = self._plan, self._done.counts
        share = self._ms / plan.ms if plan.ms else 1.0
        if plan.records:
            share = (done.received - done.repeated) / plan.records
        share = min(1.0, share)
        seconds = max(self._monotonic() - self._begun, 0.001)
        words = f"{done.executions} executions ({done.executions / seconds:.0f}/s)"
        if share:
            words += f", about {done.requests * (1 - share) / share:.0f} requests left"
        if self._bar is not None:
            if self._task is not None:
                self._bar.update(self._task, completed=share, words=words)
        elif self._monotonic() - self._said >= _LINE_SECONDS:
            self._said = self._monotonic()
            if share:
                words += f", about {duration_text(int(1 + seconds * (1 - share) / share) * 10**9)}"
            self._log.info(
                "source %s: %.0f %%, %s",
                plan.source,
                100 * share,
                words,
                extra={"source": plan.source},
            )


def _refused(counts: Counts) -> str:
    if not counts.refused:
        return ""
    return (
        f"; {counts.refused_spans} spans and {counts.refused_log_records} log records rejected by "
        "the OTLP endpoint, which took the rest of their requests (its words are in the log)"
    )


def _share(at: Position) -> float:
    if at.high is None or at.before <= at.start:
        return 0.0
    return min(1.0, max(0.0, (at.high - at.start) / (at.before - at.start)))
