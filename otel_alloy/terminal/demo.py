"""What people see in `otel-alloy demo`: simulated executions as they arrive as spans.

The simulator plays Alloy, the embedded endpoint plays the collector, a small service plays the
customer's own that workflows call, and the receiver between them is handed in. Only choreography
and presentation live here; no setting is read, nothing is fetched or converted, and the receiver
is not imported.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from math import ceil
from typing import Protocol
from urllib.parse import urlsplit

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from otel_alloy.mapping import semconv
from otel_alloy.mapping.facts import ExecutionFacts
from otel_alloy.otlp.outcome import clean
from otel_alloy.runtime import Runtime
from otel_alloy.terminal import render
from otel_alloy.terminal.links import ID_WIDTH, TraceLinks
from otel_alloy.terminal.worth import Worth, WorthTable
from otel_alloy.testing.order_service import SCOPE as SERVICE_SCOPE
from otel_alloy.testing.order_service import OrderService
from otel_alloy.testing.otlp_endpoint import Item, OtlpEndpoint, Received, attributes
from otel_alloy.testing.simulator import Config, Simulator, Traffic, eventful, live, timeline


@dataclass(frozen=True, slots=True)
class Stage:
    """What the receiver of a demo is given: Alloy's base URL, the OTLP/HTTP base URL and the event
    that tells it to end; and what it is to tell, executions that are delivered, and in words where
    its page is."""

    alloy: str
    otlp: str
    stop: threading.Event
    settle: Callable[[Iterable[ExecutionFacts]], None]
    page: Callable[[str], None]


RunReceiver = Callable[[Stage], None]

_BACKLOG, _BACKLOG_SECONDS = 150, 3500.0
_LOST, _A_DAY = 2, 86_460.0
"""Executions that were given up by now, after `incomplete_after`."""
LOOKBACK_SECONDS = 25 * 3600.0
"""How far back the receiver has to begin."""
_RATE = 5.0  # executions per second
_RUNNING_IN = 15.0  # seconds of live traffic that have passed when the demo starts
_STOP_SECONDS = 10.0
_TICK = 0.1
_BAR, _WITH_BARS = 10, 120
"""Columns of the longest bar, and from how many columns on there are bars."""


class _View(Protocol):
    """What `_watch` shows: itself on a terminal, lines elsewhere, and a summary at the end."""

    left: float
    """Seconds until the demo ends."""
    page: str
    """Where the receiver's page is, in words; "" until that is known."""

    def settle(self, executions: Iterable[ExecutionFacts]) -> None: ...
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult: ...
    def lines(self) -> list[str]: ...
    def summary(self) -> RenderableType: ...


class Shown:
    """Executions as they are shown: a table while they come, and what they add up to. Fed from any
    thread."""

    def __init__(self, links: TraceLinks) -> None:
        self.executions: list[ExecutionFacts] = []
        """In order of arrival, each once."""
        self._links = links
        self._worth = Worth()
        self._seen: set[bytes] = set()
        self._printed = 0
        self._lock = threading.Lock()

    def add(self, one: ExecutionFacts) -> bool:
        """Adds one; False for one that was there before."""
        with self._lock:
            if one.trace_id + one.span_id in self._seen:
                return False
            self._seen.add(one.trace_id + one.span_id)
            self.executions.append(one)
            self._worth.add(one)
            return True

    def lines(self) -> list[str]:
        """One line of plain text for each execution since the last call."""
        with self._lock:
            new = self.executions[self._printed :]
            self._printed += len(new)
        links = self._links
        return [
            render.plain_line(
                one, render.clock_of(one), address=links.address(one.trace_id, one.span_id)
            )
            for one in new
        ]

    def now(self, console: Console, options: ConsoleOptions, more: dict[str, str]) -> RenderResult:
        """Figures, with `more` behind the number of executions, and below them those that came
        last, as many as there is room for under a title."""
        with self._lock:
            executions = list(self.executions)
        wide, bars = options.max_width >= render.WIDE, options.max_width >= _WITH_BARS
        durations = sorted(one.seconds for one in executions if one.outcome != "incomplete")
        errors = sum(one.outcome == "error" for one in executions)
        yield render.figures(
            {
                "executions": f"{len(executions):,}",
                **more,
                "errors": f"{errors:,}",
                "p50": render.span_of_time(render.percentile(durations, 0.5)),
                "p95": render.span_of_time(render.percentile(durations, 0.95)),
            }
        )
        table = render.new_table(expand=True)
        table.add_column("time", no_wrap=True, style="dim", width=8)
        table.add_column("", no_wrap=True, width=1)
        table.add_column("workflow", no_wrap=True, overflow="ellipsis", ratio=3)
        if wide:
            table.add_column("user", no_wrap=True, overflow="ellipsis", ratio=2)
        table.add_column("duration", no_wrap=True, justify="right", width=8)
        if bars:
            table.add_column("", no_wrap=True, width=_BAR)
        table.add_column("trace", no_wrap=True, width=ID_WIDTH)
        longest = render.percentile(durations, 0.95) or 1.0
        # Beside the rows: title (2), figures (4), the table's head (2), the end and one spare.
        room = max(1, (options.height or console.size.height) - 10)
        for one in executions[-room:]:
            table.add_row(*self._cells(one, longest, wide, bars))
        yield table
        yield Text()  # here the terminal echoes ^C, and breaks no row

    def _cells(
        self, one: ExecutionFacts, longest: float, wide: bool, bars: bool
    ) -> list[RenderableType]:
        mark, style = render.MARKS[one.outcome]
        color = {"error": "red", "incomplete": "yellow"}.get(one.outcome, "")
        user: list[RenderableType] = [Text(render.user_of(one))] if wide else []
        length = render.bar(one.seconds / longest, _BAR)
        bar: list[RenderableType] = [Text(length, color or "green")] if bars else []
        return [
            render.clock_of(one),
            Text(mark, style),
            Text(render.workflow_of(one), color),
            *user,
            render.took(one),
            *bar,
            self._links.id(one.trace_id, one.span_id),
        ]

    def sums(self) -> list[RenderableType]:
        """What they add up to by workflow, and the traces worth a look."""
        with self._lock:
            executions = list(self.executions)
        everything = render.Tally()
        groups: dict[str, render.Tally] = {}
        for one in executions:
            everything.add(one)
            label = render.workflow_of(one)
            groups.setdefault(one.workflow_id or label, render.Tally(label)).add(one)
        apart = render.apart({key: group.label for key, group in groups.items()})
        table = render.new_table(show_footer=True)
        table.add_column("workflow", "all", no_wrap=True, overflow="ellipsis", max_width=40)
        heads = ("executions", "errors", "     p50", "     p95")
        for head, total in zip(heads, everything.cells(), strict=True):
            table.add_column(head, total, justify="right", no_wrap=True)
        for key, group in sorted(groups.items(), key=lambda pair: -pair[1].executions):
            table.add_row(render.Named(group.label, apart.get(key, "")), *group.cells())
        return [table, Text(), WorthTable(self._worth, self._links)]


class DemoView:
    """A demo whose endpoint is its own: what arrives there, fed from any thread."""

    def __init__(self, endpoint: str = "") -> None:
        self.endpoint = endpoint
        """The OTLP base URL, for display."""
        self.left = 0.0
        self.page = ""
        # What arrives here is not in the user's backend, so there is nothing to link to.
        self.shown = Shown(TraceLinks())
        self.spans = 0
        self.log_records = 0
        self._called: dict[bytes, list[Item]] = {}  # spans of the customer's service, by trace
        self._whole: list[Item] = []  # the newest trace that has them and the execution's span
        self._failed: list[Item] = []  # the newest execution that failed and tells why, its blocks
        self._lock = threading.Lock()

    def receive(self, received: Received) -> None:
        """Take in one export request; usable as the hook of `OtlpEndpoint`. Raises `DecodeError`
        for what is no OTLP."""
        items = list(received.items())
        with self._lock:
            for item in items:
                record = item.record
                if item.scope.name == SERVICE_SCOPE:
                    self._called.setdefault(record.trace_id, []).append(item)
                    continue
                if not isinstance(record, Span):
                    self.log_records += 1
                    continue
                self.spans += 1
                if is_block(record) or not self.shown.add(facts_of_span(record)):
                    continue
                if record.trace_id in self._called:
                    self._whole = [item, *self._called[record.trace_id]]
                if record.status.message:
                    blocks = (i for i in items if _is_below(i.record, record))
                    self._failed = [item, *blocks]

    def settle(self, executions: Iterable[ExecutionFacts]) -> None:
        """What is delivered is seen where it arrives."""

    def lines(self) -> list[str]:
        """One line of plain text for each execution since the last call."""
        return self.shown.lines()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self._lock:
            more = {"spans": f"{self.spans:,}", "log records": f"{self.log_records:,}"}
        yield _title(self.endpoint, self.left, self.page)
        yield from self.shown.now(console, options, more)

    def summary(self) -> RenderableType:
        """What arrived, by workflow, and the full ids of traces worth a look."""
        with self._lock:
            spans, log_records = self.spans, self.log_records
            whole, failed = list(self._whole), list(self._failed)
        if not self.shown.executions:
            return Text("No execution arrived.", "yellow")
        told = (
            f"{len(self.shown.executions):,} executions arrived as {spans:,} spans and"
            f" {log_records:,} log records."
        )
        parts = self.shown.sums()
        if failed:
            parts.append(Text("\nOne that failed: its blocks, and why", "bold"))
            parts.append(trace_tree(failed))
        if whole:
            parts.append(Text("\nOne trace, from Alloy into your service", "bold"))
            parts.append(trace_tree(whole))
        return Group(*parts, Text("\n" + told))


class RemoteView:
    """A demo that sends to somebody's own collector: what that has acknowledged."""

    def __init__(self, endpoint: str, links: TraceLinks) -> None:
        self.left = 0.0
        self.page = ""
        self.shown = Shown(links)
        self._endpoint = endpoint

    def settle(self, executions: Iterable[ExecutionFacts]) -> None:
        """Takes executions that were delivered."""
        for one in executions:
            self.shown.add(one)

    def lines(self) -> list[str]:
        """One line of plain text for each execution since the last call."""
        return self.shown.lines()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _title(self._endpoint, self.left, self.page)
        yield from self.shown.now(console, options, {})

    def summary(self) -> RenderableType:
        """What was delivered, and where to look at it."""
        delivered = len(self.shown.executions)
        if not delivered:
            return Text(f"No execution was delivered to {self._endpoint}.", "yellow")
        host = urlsplit(self._endpoint).hostname or "localhost"
        service = semconv.DEFAULT_SERVICE_NAME
        return Group(
            *self.shown.sums(),
            Text(
                f"\n{delivered:,} simulated executions were delivered to {self._endpoint}.\n"
                f"Where to look, for example:\n"
                f"  Jaeger   http://{host}:16686/search?service={service}\n"
                f"  Grafana  http://{host}:3000/explore (Tempo, service {service})"
            ),
        )


def run_demo(
    *,
    runtime: Runtime,
    seconds: float = 20.0,
    otlp_endpoint: str | None,
    links: TraceLinks,
    console: Console,
    run_receiver: RunReceiver,
) -> int:
    """Play the demo for `seconds` and print the summary; 0, or 1 if the receiver failed.

    `otlp_endpoint` is the OTLP/HTTP base URL to send to; `None` starts one that shows what arrives.
    `links`: how trace ids are shown that went to such an endpoint of the user's.
    `run_receiver` runs in a thread of its own, may use any API key, and has to return soon after
    its event is set. It should begin `LOOKBACK_SECONDS` ago and ask Alloy about once a second.
    Ctrl-C ends early, and cleanly, and is raised again as KeyboardInterrupt.
    """
    render.tolerant(console)
    if otlp_endpoint is not None:
        remote = RemoteView(otlp_endpoint, links)
        with _simulator(runtime, None) as simulator:
            code = _watch(runtime, remote, seconds, console, run_receiver, simulator, otlp_endpoint)
        return code if remote.shown.executions else 1
    view = DemoView()
    with OtlpEndpoint(view.receive, store=False) as endpoint:
        target = view.endpoint = endpoint.http_endpoint
        with (
            OrderService(target, runtime.wait) as service,
            _simulator(runtime, service.url) as simulator,
        ):
            code = _watch(runtime, view, seconds, console, run_receiver, simulator, target)
    return code if view.shown.executions else 1


def _simulator(runtime: Runtime, custom_api_url: str | None) -> Simulator:
    """Simulated Alloy with a past and live traffic, whose executions call `custom_api_url`. An app
    is down meanwhile, and some executions began a day ago and have never ended."""
    now = runtime.clock()
    joint = now - _RUNNING_IN
    simulator = Simulator(Config(custom_api_url=custom_api_url), clock=runtime.clock)
    usual = Traffic(error_rate=0.05, clustered=0.7, never_ends=0.004)
    usual = eventful(usual, joint, joint + 60)
    lost = replace(usual, never_ends=1.0)
    for executions, start, end, traffic in (
        (_LOST, now - LOOKBACK_SECONDS + 60, now - _A_DAY, lost),
        (_BACKLOG, now - _BACKLOG_SECONDS, joint, usual),
    ):
        simulator.store.feed(timeline(executions, start=start, end=end, traffic=traffic))
    calls = custom_api_url is not None
    simulator.store.feed(live(start=joint, rate=_RATE, traffic=usual, calls=calls))
    return simulator


def _watch(
    runtime: Runtime,
    view: _View,
    seconds: float,
    console: Console,
    run_receiver: RunReceiver,
    simulator: Simulator,
    target: str,
) -> int:
    """Show `view` until the time is over, the receiver ends or somebody presses Ctrl-C."""
    stop = threading.Event()
    failures: list[BaseException] = []
    begin = threading.Event()  # nothing happens before Ctrl-C is looked after

    def work() -> None:
        begin.wait()
        stage = Stage(simulator.endpoint, target, stop, view.settle, show_page)
        try:
            run_receiver(stage)
        except BaseException as error:
            failures.append(error)

    terminal = console.is_terminal and not console.is_dumb_terminal

    def show_page(words: str) -> None:
        view.page = words
        if not terminal:
            told.append(words)

    level = logging.WARNING if isinstance(view, DemoView) else logging.INFO
    deadline = runtime.monotonic() + seconds
    view.left = seconds
    with _log_lines(level) as told:

        def print_lines() -> None:
            new = [] if terminal else view.lines()
            while told:
                new.append(told.popleft())
            for line in new:
                console.print(line, markup=False, highlight=False, soft_wrap=True)

        shown = Live(view, console=console, refresh_per_second=8) if terminal else nullcontext()
        with shown:
            receiver = runtime.spawn(work, "otel-alloy-demo")
            interrupted: KeyboardInterrupt | None = None
            try:
                begin.set()
                while receiver.is_alive() and view.left > 0:
                    receiver.join(min(view.left, _TICK))
                    view.left = deadline - runtime.monotonic()
                    print_lines()
            except KeyboardInterrupt as error:
                interrupted = error
            view.left = 0.0
            stop.set()
            begin.set()
            receiver.join(_STOP_SECONDS)
            print_lines()
    console.print(view.summary())
    if failures or receiver.is_alive():
        reason = failures[0] if failures else f"still busy after {_STOP_SECONDS:.0f} s"
        console.print(Text(f"\nThe receiver failed: {reason}", "red"))
        return 1
    for line in (
        "\nThe same with your own Alloy account and collector:",
        "  export OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318",
        "  export ALLOY_API_KEY=...; otel-alloy run",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if interrupted is not None:
        raise interrupted
    return 0


@contextmanager
def _log_lines(level: int) -> Iterator[deque[str]]:
    """Catch this package's log lines, which would break up the table, to print them above it."""
    told: deque[str] = deque()

    class Catch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(self.format(record))

    logger = logging.getLogger("otel_alloy")
    catch = Catch(level)
    before = logger.level, logger.propagate, logger.handlers
    logger.handlers = [catch]
    logger.propagate = False
    logger.setLevel(level)
    try:
        yield told
    finally:
        logger.level, logger.propagate, logger.handlers = before


def _title(endpoint: str, left: float, page: str) -> RenderableType:
    title = Table.grid(expand=True)
    title.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    title.add_column(no_wrap=True, justify="right")
    way = f"simulated Alloy → otel-alloy → {endpoint}"
    head = Text.assemble(("otel-alloy demo  ", "bold"), (way, "dim"))
    title.add_row(head, Text(f"{ceil(left)} s left" if left > 0 else "done", "dim"))
    if page and left > 0:
        title.add_row(Text(page, "dim"), "")
    return title


def facts_of_span(span: Span) -> ExecutionFacts:
    """What the span of an execution tells; the same as `Converter.facts` made of the execution."""
    return ExecutionFacts(
        span.trace_id,
        span.span_id,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.name,
        attributes(span.attributes),
        span.status.message,
    )


def is_block(span: Span) -> bool:
    """Whether a span is of a block of an execution."""
    return any(one.key == semconv.BLOCK_INDEX for one in span.attributes)


def _is_below(record: object, above: Span) -> bool:
    """Whether a record is the span of a block of the execution `above`."""
    return (
        isinstance(record, Span)
        and is_block(record)
        and (record.trace_id, record.parent_span_id) == (above.trace_id, above.span_id)
    )


def trace_tree(items: Iterable[Item]) -> Tree:
    """The spans among `items` (of one trace, say) as a tree: service, name, duration, and why it
    failed; children by start. A span that came twice appears once; one whose parent is not among
    them stands at the top, and where there are several of those, the top itself is hidden."""
    spans = {(i.record.trace_id, i.record.span_id): i for i in items if isinstance(i.record, Span)}
    below: dict[tuple[bytes, bytes] | None, list[Item]] = {}
    for item in sorted(spans.values(), key=_start):
        parent = item.record.trace_id, _span(item).parent_span_id
        below.setdefault(parent if parent in spans else None, []).append(item)
    top = Tree("", hide_root=True)
    waiting = [(top, item) for item in reversed(below.get(None, []))]
    while waiting:  # no recursion: a trace may be deeper than Python's stack
        branch, item = waiting.pop()
        children = below.get((item.record.trace_id, item.record.span_id), [])
        branch = branch.add(_label(item, children))
        waiting += [(branch, child) for child in reversed(children)]
    return top.children[0] if len(top.children) == 1 else top


def _span(item: Item) -> Span:
    assert isinstance(item.record, Span)
    return item.record


def _start(item: Item) -> int:
    return _span(item).start_time_unix_nano


def _label(item: Item, children: Iterable[Item]) -> Text:
    """What is the same as a child says is said there."""
    span = _span(item)
    below = {_span(child).status.message for child in children}
    service = clean(str(attributes(item.resource.attributes).get(semconv.SERVICE_NAME, "")))
    seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
    failed = "red" if span.status.code == Status.STATUS_CODE_ERROR else ""
    took = (f"  {render.span_of_time(seconds)}", "dim")
    reason = "" if span.status.message in below else clean(span.status.message)
    why = (f"  {reason}" if reason else "", "red")
    return Text.assemble(
        (f"{service}  " if service else "", "cyan"), (clean(span.name), failed), took, why
    )
