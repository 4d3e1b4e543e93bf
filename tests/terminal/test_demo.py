"""The demo: what reaches the endpoint is what people see, on a terminal of any usual size and in a
pipe, and it always ends by itself with a summary and a truthful exit code."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import tempfile
import urllib.request
from collections.abc import Iterable

import pytest
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from rich.cells import cell_len
from rich.console import Console

from otel_alloy.links import TraceUrl
from otel_alloy.mapping import semconv
from otel_alloy.pipeline.events import Settled
from otel_alloy.pipeline.receiver import Receiver
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.models import Settings
from otel_alloy.terminal.demo import (
    LOOKBACK_SECONDS,
    DemoView,
    RunReceiver,
    Stage,
    facts_of_span,
    run_demo,
)
from otel_alloy.terminal.links import TraceLinks
from otel_alloy.terminal.render import percentile
from otel_alloy.testing.order_service import SCOPE
from otel_alloy.testing.otlp_endpoint import OtlpEndpoint, Received, Signal
from otel_alloy.testing.simulator.inside import PAYLOAD_CANARY, REASON_CANARY

START = 1_700_000_000_000_000_000


def span(
    number: int,
    *,
    seconds: float = 1.0,
    failed: bool = False,
    reason: str = "",
    workflow: str = "Shopify orders to NetSuite",
    more: dict[str, str] | None = None,
) -> Span:
    given = {semconv.WORKFLOW_NAME: workflow, semconv.USER_FULL_NAME: f"User {number}"}
    given[semconv.EXECUTION_OUTCOME] = "error" if failed else "success"
    given |= more or {}
    return Span(
        trace_id=number.to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        name=workflow,
        start_time_unix_nano=START,
        end_time_unix_nano=START + int(seconds * 1e9),
        status=Status(code=Status.STATUS_CODE_ERROR, message=reason) if failed else Status(),
        attributes=[KeyValue(key=k, value=AnyValue(string_value=v)) for k, v in given.items()],
    )


def traces(spans: Iterable[Span]) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])]
    )


def logs(count: int) -> ExportLogsServiceRequest:
    records = [LogRecord() for _ in range(count)]
    return ExportLogsServiceRequest(
        resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=records)])]
    )


def received(signal: Signal, message: Message) -> Received:
    return Received(signal, "http", {}, message.SerializeToString())


def view_of(spans: Iterable[Span]) -> DemoView:
    view = DemoView("http://127.0.0.1:4318")
    view.receive(received("traces", traces(spans)))
    return view


def printed(renderable: object, width: int = 80, height: int = 24) -> list[str]:
    """The lines as a terminal of that size shows them, without colours."""
    console = Console(file=io.StringIO(), width=width, height=height, _environ={})
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def play(
    run_receiver: RunReceiver,
    *,
    seconds: float = 0.05,
    otlp_endpoint: str | None = None,
    links: TraceLinks | None = None,
    terminal: bool = False,
    file: io.StringIO | None = None,
) -> tuple[int, str]:
    """Run the demo; the exit code and all that was written, to `file` if one is given."""
    file = file or io.StringIO()
    console = Console(
        file=file, width=80, height=24, force_terminal=terminal, _environ={"TERM": "xterm"}
    )
    code = run_demo(
        runtime=system_runtime(),
        seconds=seconds,
        otlp_endpoint=otlp_endpoint,
        links=links or TraceLinks(),
        console=console,
        run_receiver=run_receiver,
    )
    return code, file.getvalue()


def post(url: str, message: Message) -> None:
    request = urllib.request.Request(
        url, message.SerializeToString(), {"Content-Type": "application/x-protobuf"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()


def send_three(stage: Stage) -> None:
    post(f"{stage.otlp}/v1/traces", traces([span(1), span(2, failed=True), span(3)]))
    post(f"{stage.otlp}/v1/logs", logs(3))
    stage.stop.wait(30)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (100, 10)])
def test_the_table_fits_the_terminal_and_scrolls(width: int, height: int) -> None:
    """No line is wider and no frame higher than the terminal; the newest executions show last."""
    view = view_of(
        span(number, workflow="A workflow with a long name " * 3) for number in range(99)
    )
    lines = printed(view, width, height)
    assert len(lines) < height
    assert max(cell_len(line) for line in lines) <= width
    rows = [line for line in lines if "✓" in line]
    assert 1 <= len(rows) < height
    assert rows[-1].endswith(f"{98:032x}")
    assert not any(f"{0:032x}" in row for row in rows)


def test_a_row_tells_time_status_workflow_user_duration_and_trace() -> None:
    """Failures and executions without an end are told apart by a mark, not by colour alone."""
    open_end = {semconv.EXECUTION_OUTCOME: "incomplete"}
    view = view_of(
        [span(1, seconds=0.096), span(2, seconds=2.0, failed=True), span(3, more=open_end)]
    )
    rows = printed(view, 120)[-4:-1]
    assert [re.split(r"\s{2,}", row.strip())[1:5] for row in rows] == [
        ["✓", "Shopify orders to NetSuite", "User 1", "96 ms"],
        ["✗", "Shopify orders to NetSuite", "User 2", "2.0 s"],
        ["…", "Shopify orders to NetSuite", "User 3", "-"],
    ]
    assert all(re.match(r"\d\d:\d\d:\d\d  ", row) for row in rows)
    assert rows[1].count("█") > rows[2].count("█") > rows[0].count("█")
    assert [row[-32:] for row in rows] == [f"{number:032x}" for number in (1, 2, 3)]


def test_a_missing_name_or_user_is_shown_as_what_there_is() -> None:
    """Spans of any origin can be shown."""
    bare = Span(trace_id=b"\1" * 16, span_id=b"\1" * 8, name="workflow execution")
    hashed = span(2, more={semconv.USER_FULL_NAME: "", semconv.USER_HASH: "f00d"})
    shown = view_of([bare, hashed]).shown.executions
    assert [(one.workflow, one.user, one.seconds) for one in shown] == [
        ("workflow execution", "", 0.0),
        ("Shopify orders to NetSuite", "f00d", 1.0),
    ]


def test_the_figures_count_what_arrived_and_expose_doubles() -> None:
    """A span that arrives twice is two spans and one execution."""
    view = view_of([span(1), span(2, failed=True), span(3, seconds=9.0)])
    view.receive(received("traces", traces([span(1)])))
    view.receive(received("logs", logs(3)))
    figures = printed(view)[2].split()
    assert figures == ["3", "4", "3", "1", "1.0", "s", "9.0", "s"]
    assert "3 executions arrived as 4 spans and 3 log records." in printed(view.summary())


def test_plain_lines_come_once_with_the_full_trace_id() -> None:
    """For pipes and files: complete, nothing shortened, nothing repeated."""
    view = view_of([span(10), span(11, failed=True)])
    first, second = view.lines()
    assert first[8:] == f"  ok        1.0 s  {10:032x}  Shopify orders to NetSuite, User 10"
    assert second[8:] == f"  error     1.0 s  {11:032x}  Shopify orders to NetSuite, User 11"
    assert view.lines() == []


def test_the_summary_adds_up_by_workflow_and_names_traces_in_full() -> None:
    """Counts, error rate and percentiles by workflow, the most frequent first."""
    spans = [span(n, seconds=n, failed=n > 18, workflow="often") for n in range(1, 21)]
    spans.append(span(99, seconds=0.5, workflow="once"))
    lines = printed(view_of(spans).summary())
    table = [line.split() for line in lines[2:6]]
    assert table[0] == ["often", "20", "10.0%", "10.0", "s", "19.0", "s"]
    assert table[1] == ["once", "1", "-", "500", "ms", "500", "ms"]
    assert table[3] == ["all", "21", "9.5%", "10.0", "s", "19.0", "s"]
    assert any(line.startswith(f"slowest  {20:032x}") for line in lines)
    assert any(line.startswith(f"failed   {19:032x}") for line in lines)
    assert max(map(len, lines)) <= 80


def test_workflows_of_one_name_are_two_rows() -> None:
    """What has another id is another workflow, also where it is called the same."""
    spans = [span(n, more={semconv.WORKFLOW_ID: f"id-{n % 2}-of-it"}) for n in range(1, 6)]
    rows = [row for row in printed(view_of(spans).summary()) if row.startswith("Shopify")]
    assert [re.split(r"\s{2,}", row)[:2] for row in rows] == [
        ["Shopify orders to NetSuite id-1…", "3"],
        ["Shopify orders to NetSuite id-0…", "2"],
    ]


def test_percentiles_are_values_that_occurred() -> None:
    """Nearest rank, so that small numbers give no invented durations."""
    assert percentile([], 0.5) == 0
    assert percentile([7.0], 0.95) == 7
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2
    assert percentile([float(n) for n in range(1, 101)], 0.95) == 95


def test_in_a_pipe_each_execution_of_the_simulator_is_one_line() -> None:
    """The receiver finds a backlog at the simulator, and all that it sends is shown."""
    sent: list[Span] = []

    def run(stage: Stage) -> None:
        request = urllib.request.Request(
            f"{stage.alloy}/logs?limit=1000", headers={"Authorization": "Bearer any"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            found = json.load(answer)["notifications"]
        ends = [one for one in found if one["message"] != "executionStarted"]
        sent.extend(
            span(number, workflow=one["forgeWorkflow"]["name"]) for number, one in enumerate(ends)
        )
        post(f"{stage.otlp}/v1/traces", traces(sent))
        post(f"{stage.otlp}/v1/logs", logs(len(sent)))
        stage.stop.wait(30)

    code, output = play(run)
    assert code == 0
    assert len(sent) >= 150
    for one in sent:
        assert output.count(f"  {one.trace_id.hex()}  {one.name}, ") == 1
    count = len(sent)
    assert f"{count} executions arrived as {count} spans and {count} log records." in output
    assert "\x1b" not in output
    assert "  export OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318\n" in output
    assert "  export ALLOY_API_KEY=...; otel-alloy run\n" in output


def test_on_a_terminal_the_table_is_live_and_the_summary_follows() -> None:
    """Same content, drawn in place and in colour."""
    code, output = play(send_three, terminal=True)
    assert code == 0
    assert "\x1b[" in output
    assert output.index("✗") < output.index("Traces worth a look") < output.index("ALLOY_API_KEY")


@pytest.mark.parametrize("terminal", [False, True])
def test_ctrl_c_ends_early_with_the_summary(terminal: bool) -> None:
    """The receiver is asked to end, the summary is shown, and who asked is told on."""
    stopped: list[bool] = []
    shown = io.StringIO()

    def run(stage: Stage) -> None:
        post(f"{stage.otlp}/v1/traces", traces([span(1)]))
        os.kill(os.getpid(), signal.SIGINT)
        stopped.append(stage.stop.wait(30))

    with pytest.raises(KeyboardInterrupt):
        play(run, seconds=60.0, terminal=terminal, file=shown)
    assert stopped == [True]
    assert "1 executions arrived as 1 spans" in shown.getvalue()


def test_with_a_collector_of_ones_own_everything_goes_there() -> None:
    """No second endpoint is involved; what it acknowledged is shown, each once and with a link to
    where the user looks at traces, and so are places to look."""
    links = TraceLinks(TraceUrl.parse("http://jaeger.example/trace/{trace_id}"))

    def run(stage: Stage) -> None:
        stage.settle(facts_of_span(one) for one in (span(1), span(2, failed=True)))
        stage.settle([facts_of_span(span(1))])
        send_three(stage)

    with OtlpEndpoint() as mine:
        code, output = play(run, otlp_endpoint=mine.http_endpoint, links=links)
        assert (mine.span_count, mine.log_record_count) == (3, 3)
    assert code == 0
    assert f"2 simulated executions were delivered to {mine.http_endpoint}." in output
    assert "http://127.0.0.1:16686/search?service=runalloy" in output
    for number in (1, 2):
        (line,) = [x for x in output.splitlines() if f"User {number}" in x]
        assert line.endswith(f"  http://jaeger.example/trace/{number:032x}")
    worth = output.split("Traces worth a look\n")[1].splitlines()[:2]
    assert worth[1].strip() == f"http://jaeger.example/trace/{1:032x}"


def test_a_receiver_that_fails_ends_the_demo_at_once_and_is_named() -> None:
    """The reason is printed, the exit code is 1, and nobody waits for the time to pass."""

    def run(stage: Stage) -> None:
        raise OSError("no such table")

    code, output = play(run, seconds=60.0)
    assert code == 1
    assert "The receiver failed: no such table" in output


def test_a_demo_in_which_nothing_arrives_is_no_success() -> None:
    """An empty table is said to be one."""
    code, output = play(lambda *_: None, seconds=60.0)
    assert code == 1
    assert "No execution arrived." in output


@pytest.mark.parametrize("terminal", [False, True])
def test_the_page_is_named(terminal: bool) -> None:
    """Where the receiver's page is stands in a line of its own, for as long as it is there."""

    def run(stage: Stage) -> None:
        stage.page("page: http://127.0.0.1:1/")
        send_three(stage)

    _, output = play(run, seconds=1.0, terminal=terminal)
    assert "page: http://127.0.0.1:1/" in output
    assert "page: http://127.0.0.1:1/" not in output.split("Traces worth a look")[1]


def test_log_lines_of_the_receiver_are_printed_and_logging_is_put_back() -> None:
    """Warnings show among the lines of the demo; afterwards logging is as it was."""
    logger = logging.getLogger("otel_alloy")
    before = (logger.level, logger.propagate, list(logger.handlers))

    def run(stage: Stage) -> None:
        logging.getLogger("otel_alloy.pipeline.receiver").warning("the page was [truncated]")
        logging.getLogger("otel_alloy.pipeline.receiver").info("one cycle")
        send_three(stage)

    _, output = play(run)
    assert "the page was [truncated]\n" in output
    assert "one cycle" not in output
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


def test_the_summary_shows_one_trace_from_alloy_into_the_service() -> None:
    """The customer's service in the demo is called by an execution; its spans stand below the
    execution's, and are not counted as executions."""
    view = DemoView()
    execution = span(1)
    call = span(2)
    call.trace_id, call.parent_span_id, call.name = execution.trace_id, execution.span_id, "POST /x"
    request = traces([call])
    request.resource_spans[0].scope_spans[0].scope.name = SCOPE
    view.receive(received("traces", request))
    view.receive(received("traces", traces([execution])))
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(view.summary())
    shown = console.export_text()
    assert "1 executions arrived as 1 spans" in shown
    assert "One trace, from Alloy into your service" in shown
    assert "└── " in shown.split("One trace")[1]
    assert "POST /x" in shown


def block(of: Span, index: int, name: str, reason: str = "") -> Span:
    """The span of a block of an execution, which failed where there is a reason."""
    failed = Status(code=Status.STATUS_CODE_ERROR, message=reason)
    return Span(
        trace_id=of.trace_id,
        span_id=bytes([index + 1]) * 8,
        parent_span_id=of.span_id,
        name=name,
        start_time_unix_nano=START + index,
        end_time_unix_nano=START + index + 10**8,
        status=failed if reason else Status(),
        attributes=[KeyValue(key=semconv.BLOCK_INDEX, value=AnyValue(int_value=index))],
    )


def test_one_that_failed_is_shown_with_its_blocks_and_its_reason() -> None:
    """Blocks are spans and no executions; the newest failure that tells why stands in the summary
    as a tree, which says the reason once, at the block; nothing in it can write to the terminal."""
    reason = "Invalid \x1b[31m id\nof a customer"
    where = {semconv.BLOCK_NAME: "Create\x07 order"}
    older = span(1, failed=True, reason="too old")
    failed = span(2, failed=True, reason=reason, workflow="Orders", more=where)
    blocks = [block(failed, 0, "shopify trigger"), block(failed, 1, "Create\x07 order", reason)]
    view = view_of([older, failed, *blocks, span(3), span(4, failed=True)])
    assert [one.workflow_id for one in view.shown.executions] == [None] * 4
    (line,) = [line for line in view.lines() if "Orders" in line]
    assert line.endswith("  Orders, User 2, at Create order: Invalid [31m id of a customer")
    shown = "\n".join(printed(view.summary(), 120))
    assert "4 executions arrived as 6 spans" in shown
    tree = shown.split("One that failed: its blocks, and why\n")[1].split("\n\n")[0]
    assert [text.strip() for text in tree.splitlines()] == [
        "Orders  1.0 s",
        "├── shopify trigger  100 ms",
        "└── Create order  100 ms  Invalid [31m id of a customer",
    ]
    assert "\x1b" not in shown and "\x07" not in shown


def test_the_receiver_brings_block_and_reason_into_the_demo() -> None:
    """What the real receiver makes of the simulator's failures: at the end one of them is shown
    with its blocks, each of which took its time, and why it failed, and no word of what is masked.
    Some executions have not ended within a day."""
    told: set[str] = set()

    def run(stage: Stage) -> None:
        with tempfile.TemporaryDirectory() as folder:
            environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": stage.otlp}
            settings = Settings.model_validate(
                {
                    "api_key": "any",
                    "endpoint": stage.alloy,
                    "storage": f"sqlite:///{folder}/demo.db",
                    "collection_interval": 1,
                    "initial_lookback": LOOKBACK_SECONDS,
                    "requests_per_minute": 0,
                    "enrich_timeout": 2,
                    "environment": environment,
                }
            )
            receiver = Receiver(settings, observe=lambda event: watch(event, receiver))
            receiver.run()

    def watch(event: object, receiver: Receiver) -> None:
        for one in event.ended() if isinstance(event, Settled) else ():
            told.add("reason" if one.reason else one.outcome)
        if {"reason", "incomplete"} <= told:
            receiver.stop()

    code, output = play(run, seconds=60.0)
    assert code == 0
    tree = output.split("One that failed: its blocks, and why\n")[1].split("\n\n")[0]
    assert "├── " in tree and "└── " in tree
    assert "  0 ms" not in tree
    assert re.search(r"^\S+  open +-  ", output, re.MULTILINE)
    assert REASON_CANARY not in output and PAYLOAD_CANARY not in output
