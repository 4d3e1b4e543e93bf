"""Exporters that are installed for the SDK, fed from our own bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_alloy.alloy.models import read_notification
from otel_alloy.mapping.convert import Converter, Execution, Role
from otel_alloy.mapping.encode import Envelope
from otel_alloy.otlp.installed import InstalledSender, log_records, spans
from otel_alloy.otlp.outcome import Kind
from otel_alloy.otlp.senders import sender_mistakes
from otel_alloy.testing.simulator import Simulator

COMMAND = Path(sys.executable).with_name("otel-alloy")
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


@pytest.fixture
def requests() -> tuple[bytes, bytes]:
    """A traces and a logs request with one execution."""
    execution = Execution(read_notification(json.dumps(RECORD)), Role.ENDED)
    span, log = Converter().convert(execution)
    assert span is not None
    assert log is not None
    envelope = Envelope({"service.name": "runalloy"}, "otel_alloy", "1")
    return envelope.request([span]), envelope.request([log])


def test_sdk_objects_carry_all_that_the_bytes_carry(requests: tuple[bytes, bytes]) -> None:
    """Encoding the SDK objects again with the SDK's encoder gives the same messages."""
    traces, logs = requests
    assert encode_spans(spans(traces)) == ExportTraceServiceRequest.FromString(traces)
    assert encode_logs(log_records(logs)) == ExportLogsServiceRequest.FromString(logs)


def test_console_exporters_are_loaded_and_fed(tmp_path: Path) -> None:
    """`console` comes with the SDK: the installed command prints each execution as a span and as
    a log record, and says once per signal that this exporter tells less."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    environment |= {"OTEL_TRACES_EXPORTER": "console", "OTEL_LOGS_EXPORTER": "console"}
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
    assert done.stderr.count("success or failure only") == 2


def test_a_failure_without_a_reason_is_retried(
    requests: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exporter that says FAILURE, or raises, loses nothing: the batch is sent again."""

    class Broken:
        def export(self, items: list[Any]) -> Any:
            raise RuntimeError("secret words")

        def shutdown(self) -> None:
            return None

    sender = InstalledSender("traces", "console")
    monkeypatch.setattr(sender, "_exporter", Broken())
    outcome = sender.send(requests[0])
    assert outcome.kind is Kind.RETRY
    assert "secret" not in outcome.reason


def test_an_exporter_that_is_not_installed_is_a_mistake_with_the_remedy() -> None:
    """The variable, its value and the installed names are told before anything connects."""
    (mistake,) = sender_mistakes({"OTEL_TRACES_EXPORTER": "zipkin-of-old"})
    assert "OTEL_TRACES_EXPORTER" in mistake
    assert "'zipkin-of-old'" in mistake
    assert "console" in mistake
