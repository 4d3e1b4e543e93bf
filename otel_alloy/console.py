"""What `otel-alloy run` shows: log lines, and a bar while a long window is drained.

Results go to standard output, everything else to standard error. No decision is taken here.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from otel_alloy.alloy.timestamps import to_text
from otel_alloy.receiver import Settled

_LINE_SECONDS = 5.0


class ConsoleHandler(logging.Handler):
    """Log records as lines above the progress bar."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one line: time, level, words."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        self._console.print(
            f"{at} {record.levelname:<7} {record.getMessage()}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


@dataclass(slots=True)
class Totals:
    """Sums over a run."""

    received: int = 0
    executions: int = 0
    spans: int = 0
    log_records: int = 0
    repeated: int = 0
    set_aside: int = 0
    requests: int = 0
    high: dict[str, int] = field(default_factory=dict)

    def add(self, event: Settled) -> None:
        """Adds one settled batch."""
        self.received += event.received
        self.executions += event.executions
        self.spans += event.spans
        self.log_records += event.log_records
        self.repeated += event.repeated
        self.set_aside += event.set_aside
        self.requests += event.requests
        if event.high is not None:
            self.high[event.source] = event.high

    def sentence(self) -> str:
        """The summary of a run."""
        words = (
            f"{self.spans} spans and {self.log_records} log records delivered from "
            f"{self.received} records in {self.requests} requests"
        )
        if self.repeated:
            words += f"; {self.repeated} were known already"
        if self.set_aside:
            words += f"; {self.set_aside} set aside (otel-alloy rejected list)"
        if self.high:
            words += f"; settled up to {to_text(min(self.high.values()))}"
        return words


class RunView:
    """Shows `Settled` events on `console`: a bar on a terminal, plain lines otherwise."""

    def __init__(self, console: Console) -> None:
        self.totals = Totals()
        self._log = logging.getLogger("otel_alloy")
        self._cycle: dict[str, Totals] = {}
        self._said = time.monotonic()
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %  {task.fields[spans]} spans"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )

    def __enter__(self) -> RunView:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: object) -> None:
        """Takes the receiver's events; others than `Settled` are not shown."""
        if not isinstance(event, Settled):
            return
        self.totals.add(event)
        cycle = self._cycle.setdefault(event.source, Totals())
        cycle.add(event)
        if self._bar is not None:
            self._show_bar(event, cycle)
        if event.last:
            if cycle.executions or cycle.set_aside:
                self._log.info("source %s: %s", event.source, cycle.sentence())
            self._cycle.pop(event.source)
        elif self._bar is None and time.monotonic() - self._said >= _LINE_SECONDS:
            self._said = time.monotonic()
            self._log.info(
                "source %s: %.0f %% of the window read, %d spans so far",
                event.source,
                100 * _share(event),
                cycle.spans,
            )

    def _show_bar(self, event: Settled, cycle: Totals) -> None:
        assert self._bar is not None
        task = self._tasks.get(event.source)
        if event.last:
            if task is not None:
                self._bar.remove_task(self._tasks.pop(event.source))
            return
        if task is None:
            task = self._tasks[event.source] = self._bar.add_task(event.source, total=1.0, spans=0)
        self._bar.update(task, completed=_share(event), spans=cycle.spans)


def _share(event: Settled) -> float:
    if event.high is None or event.before <= event.start:
        return 0.0
    return min(1.0, max(0.0, (event.high - event.start) / (event.before - event.start)))
