"""Exporters that are installed for the SDK, fed from our own bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    KeyValue,
    KeyValueList,
)
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext

from otel_alloy.alloy.models import read_notification
from otel_alloy.mapping.convert import Converter, Execution, Role
from otel_alloy.mapping.encode import Envelope
from otel_alloy.mapping.hook import Correlation, GuardedHook, Hook
from otel_alloy.otlp.any_value import python_value
from otel_alloy.otlp.delivery import Delivery, Rejection
from otel_alloy.otlp.outcome import Kind
from otel_alloy.otlp.sdk import SdkSender, log_records, spans
from otel_alloy.otlp.senders import open_senders
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.otlp import otlp_exporters
from otel_alloy.testing.simulator import Simulator

RECORD = {
    "_id": "68110feaa81a0e507fbdd36a",
    "message": "executionError",
    "data": {"executionId": "68110fea7d181f356acd1bf1", "executionUuid": "35SnGU0DUSNP5L26fsmnq"},
    "startedAt": "2025-04-29T17:44:10.336Z",
    "completedAt": "2025-04-29T17:44:10.432Z",
    "createdAt": "2025-04-29T17:44:10.432Z",
    "customVersion": False,
    "workflowVersion": 1,
    "forgeWorkflow": {"name": "order_id example"},
}


ENVELOPE = Envelope({"service.name": "runalloy"}, "otel_alloy", "1", "https://example.com/1.0.0")
NO_SPAN = b"\x12\x02\xff\xff"  # framed as a span is, and none


def converted(hook: Hook | None = None) -> tuple[bytes, bytes]:
    """The framed span and log record of one execution."""
    attach = None if hook is None else GuardedHook(hook, "test", lambda: 0.0)
    execution = Execution(read_notification(json.dumps(RECORD)), Role.ENDED)
    span, log = Converter(attach=attach).convert(execution)
    assert span is not None
    assert log is not None
    return span, log


def delivered(traces: Any, items: Sequence[bytes]) -> tuple[dict[int, Rejection], list[float]]:
    """What a Delivery sets aside of spans that go to `traces`, and how long it waited; after 100
    waits it stops."""
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) >= 100

    runtime = replace(system_runtime(), wait=wait)
    with closing(
        Delivery(traces, traces, max_request_bytes=10**6, runtime=runtime, report=lambda _: None)
    ) as delivery:
        return dict(delivery.deliver(items, [], ENVELOPE, ENVELOPE).rejections), waits


@pytest.fixture
def requests() -> tuple[bytes, bytes]:
    """A traces and a logs request with one execution."""
    span, log = converted()
    return ENVELOPE.request([span]), ENVELOPE.request([log])


def test_sdk_objects_carry_all_that_the_bytes_carry(requests: tuple[bytes, bytes]) -> None:
    """Encoding the SDK objects again with the SDK's encoder gives the same messages."""
    traces, logs = requests
    assert encode_spans(spans(traces)) == ExportTraceServiceRequest.FromString(traces)
    assert encode_logs(log_records(logs)) == ExportLogsServiceRequest.FromString(logs)


def test_console_exporters_are_loaded_and_fed(tmp_path: Path) -> None:
    """`console` comes with the SDK: the installed command prints each execution as a span, with
    the lists that a hook gave to a link, and as a log record, and says once per signal that this
    exporter tells less."""
    (tmp_path / "lists.py").write_text(
        "from opentelemetry.trace import SpanContext\n"
        "from otel_alloy import Correlation\n"
        "def hook(notification):\n"
        "    link = SpanContext(1, 2, is_remote=True), {'orders': ['o-17', 'o-18']}\n"
        "    return Correlation(links=[link])\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    environment |= {"OTEL_TRACES_EXPORTER": "console", "OTEL_LOGS_EXPORTER": "console"}
    environment |= {"OTEL_ALLOY_HOOK": "lists:hook", "PYTHONPATH": str(tmp_path)}
    with Simulator() as alloy:
        alloy.store.add(RECORD)
        environment |= {"ALLOY_API_KEY": "any", "ALLOY_ENDPOINT": alloy.endpoint}
        done = subprocess.run(
            [
                Path(sys.executable).with_name("otel-alloy"),
                "run",
                "--once",
                "--since",
                "2025-01-01",
            ],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("0x552ee3cef1041c5b427d7f9ec5f43d71") == 2
    assert "order_id example v1 failed after 96 ms" in done.stdout
    assert "o-17" in done.stdout and "o-18" in done.stdout
    assert done.stderr.count("success or failure only") == 2


def test_every_value_has_its_python_value() -> None:
    """Arrays, lists of pairs, bytes and nothing, in one another."""
    inner = KeyValueList(values=[KeyValue(key="k", value=AnyValue(bytes_value=b"\0"))])
    array = ArrayValue(values=[AnyValue(kvlist_value=inner), AnyValue(), AnyValue(int_value=-1)])
    assert python_value(AnyValue(array_value=array)) == [{"k": b"\0"}, None, -1]
    assert python_value(AnyValue(bool_value=False)) is False
    assert python_value(AnyValue(string_value="")) == ""


def test_lists_of_a_hook_reach_the_console() -> None:
    """A link's attribute that is a list is delivered at once by an exporter of the SDK."""
    attributes: dict[str, Any] = {"texts": ["a", "b"], "numbers": [1, 2.5], "none": []}
    link = SpanContext(1, 2, is_remote=True), attributes
    span, log = converted(lambda _: Correlation(links=(link,)))
    environment = {"OTEL_TRACES_EXPORTER": "console", "OTEL_LOGS_EXPORTER": "console"}
    senders = open_senders(otlp_exporters(environment), "test", system_runtime())
    for sender, item in zip(senders, (span, log), strict=True):
        assert sender is not None
        assert sender.send(ENVELOPE.request([item])).kind is Kind.DELIVERED
        sender.close()
    (read,) = spans(ENVELOPE.request([span]))
    assert read.links[0].attributes == attributes


def test_a_record_that_cannot_be_converted_is_set_aside() -> None:
    """It alone, at once and with its reason: trying again would end in the same way for ever."""
    span, _ = converted()
    refused, waits = delivered(
        SdkSender("traces", "console", ConsoleSpanExporter()), [span, NO_SPAN, span]
    )
    assert waits == []
    reason = "traces: cannot be converted for the exporter console (DecodeError)"
    assert refused == {1: Rejection(("traces",), reason)}


class Exporter:
    """Raises `error` for the names in `bad`."""

    def __init__(self, error: Exception, bad: str) -> None:
        self.error, self.bad = error, bad
        self.exported: list[str] = []

    def export(self, items: Sequence[Any]) -> SpanExportResult:
        if any(item.name == self.bad for item in items):
            raise self.error
        self.exported += [item.name for item in items]
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        return None


def named(name: str) -> bytes:
    """The framed span of an execution of the workflow `name`."""
    notification = read_notification(json.dumps(RECORD | {"forgeWorkflow": {"name": name}}))
    span, _ = Converter().convert(Execution(notification, Role.ENDED))
    assert span is not None
    return span


def test_a_record_that_an_exporter_chokes_on_is_set_aside() -> None:
    """Where an exporter raises what a mistake with the data raises, again and again, the record
    is found and the others are delivered."""
    exporter = Exporter(TypeError("secret words"), "bad")
    refused, waits = delivered(
        SdkSender("traces", "mine", exporter), [named("a"), named("bad"), named("c")]
    )
    assert refused == {1: Rejection(("traces",), "traces: the exporter mine failed with TypeError")}
    assert exporter.exported == ["a", "c"]
    assert min(waits) >= 2.5


@pytest.mark.parametrize("error", [RuntimeError("secret words"), ConnectionError(), TimeoutError()])
def test_a_failure_that_may_pass_is_retried(
    requests: tuple[bytes, bytes], error: Exception
) -> None:
    """An exporter that may have lost its connection loses nothing: the batch is sent again."""
    outcome = SdkSender("traces", "mine", Exporter(error, "order_id example")).send(requests[0])
    assert outcome.kind is Kind.RETRY
    assert "secret" not in outcome.reason
