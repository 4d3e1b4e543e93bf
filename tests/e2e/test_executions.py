"""Executions from simulated Alloy through otel-alloy and a real Collector into a real Jaeger."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceResponse,
)

from otel_alloy.alloy.models import read_notification
from otel_alloy.alloy.timestamps import to_text
from otel_alloy.mapping import semconv
from otel_alloy.mapping.convert import Converter, Execution, Role
from otel_alloy.mapping.encode import Envelope
from otel_alloy.settings.loader import load_settings
from otel_alloy.testing.simulator import Config, Simulator, Traffic, millis, timeline

from .conftest import Collector, Jaeger, StartCollector, StartJaeger, wait_until

COMMAND = Path(sys.executable).with_name("otel-alloy")
EXECUTIONS = 300


def ids(uuid: str) -> tuple[str, str]:
    """The ids by the published recipe, written down here once more so that a change is noticed."""
    digest = hashlib.sha256(f"runalloy.execution:{uuid}".encode()).hexdigest()
    return digest[:32], digest[32:48]


def receive(alloy: str, collector: Collector, folder: Path, protocol: str) -> None:
    """Runs the installed command once."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    environment |= {
        "ALLOY_API_KEY": "any",
        "ALLOY_ENDPOINT": alloy,
        "OTEL_ALLOY_STORAGE": f"sqlite:///{folder}/checkpoint.db",
        "OTEL_ALLOY_REQUESTS_PER_MINUTE": "0",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_ENDPOINT": (
            collector.http if protocol == "http/protobuf" else f"http://{collector.grpc}"
        ),
    }
    done = subprocess.run(
        [COMMAND, "run", "--once", "--since", "2d"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def text_attributes(span: dict[str, Any]) -> dict[str, str]:
    """A span's attributes, each value as text."""
    return {
        a["key"]: str(next(iter(a["value"].values()))).removesuffix("\n")
        for a in span.get("attributes", [])
    }


def found(jaeger: Jaeger, **search: Any) -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    return jaeger.search(
        "runalloy", since=now - timedelta(days=3), until=now + timedelta(hours=1), **search
    )


@pytest.mark.e2e
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_every_execution_is_found_in_jaeger_as_alloy_told_it(
    collector: StartCollector, jaeger: StartJaeger, tmp_path: Path, protocol: str
) -> None:
    """By service, operation, user and error, with ids, times, status and tags equal to the source;
    sent twice, each is shown once."""
    backend = jaeger()
    running = collector("jaeger.yaml", environment={"JAEGER_OTLP_ENDPOINT": backend.otlp})
    now = time.time()
    with Simulator(Config(max_limit=50)) as alloy:
        traffic = Traffic(seed=11, users=8, error_rate=0.2)
        alloy.store.feed(timeline(EXECUTIONS, start=now - 86400, end=now - 60, traffic=traffic))
        for attempt in ("first", "second"):  # the second has a checkpoint of its own: all again
            (tmp_path / attempt).mkdir()
            receive(alloy.endpoint, running, tmp_path / attempt, protocol)
        source = {
            ids(r["data"]["executionUuid"])[0]: r
            for r in alloy.store.records()
            if r["message"] != "executionStarted"
        }
    assert len(source) == EXECUTIONS
    ids_of = dict(ids(r["data"]["executionUuid"]) for r in source.values())
    wait_until(
        lambda: len({s["traceId"] for s in found(backend)}) == EXECUTIONS,
        otherwise="Jaeger does not find every execution",
    )

    spans: list[dict[str, Any]] = []
    blocks: list[dict[str, Any]] = []
    for span in found(backend):
        (blocks if "runalloy.block.index" in text_attributes(span) else spans).append(span)
    assert Counter(s["traceId"] for s in spans) == Counter(dict.fromkeys(source, 1))
    assert len({s["spanId"] for s in blocks}) == len(blocks), "a block is shown twice"
    assert all(s["parentSpanId"] == ids_of[s["traceId"]] for s in blocks)
    for span in spans:
        record = source[span["traceId"]]
        tags = text_attributes(span)
        uuid = record["data"]["executionUuid"]
        failed = record["message"] == "executionError"
        assert (span["traceId"], span["spanId"]) == ids(uuid)
        assert span["name"] == record["forgeWorkflow"]["name"]
        assert int(span["startTimeUnixNano"]) // 10**6 == millis(record["startedAt"])
        assert int(span["endTimeUnixNano"]) // 10**6 == millis(record["completedAt"])
        assert str(span.get("status", {}).get("code", "")) in (
            ("2", "STATUS_CODE_ERROR") if failed else ("", "0", "STATUS_CODE_UNSET")
        )
        assert tags["runalloy.execution.uuid"] == uuid
        assert tags["runalloy.workflow.id"] == record["forgeWorkflowId"]
        assert tags["runalloy.workflow.installation.id"] == record["workflowId"]
        assert tags["runalloy.workflow.version"] == str(record["workflowVersion"])
        assert tags["user.id"] == record["userId"]
        assert tags["user.email"] == record["user"]["email"]
        assert tags.get("error.type") == ("executionError" if failed else None)

    some = next(iter(source.values()))
    by_user = found(backend, attributes={"user.id": some["userId"]})
    assert {s["traceId"] for s in by_user} == {
        t for t, r in source.items() if r["userId"] == some["userId"]
    }
    name = some["forgeWorkflow"]["name"]
    assert {s["traceId"] for s in found(backend, operation=name)} == {
        t for t, r in source.items() if r["forgeWorkflow"]["name"] == name
    }
    by_error = found(backend, attributes={"error": "true"})
    assert {s["traceId"] for s in by_error} == {
        t for t, r in source.items() if r["message"] == "executionError"
    }


def envelope(resource: dict[str, Any], version: str) -> Envelope:
    return Envelope(resource, semconv.SCOPE_NAME, version)


@pytest.mark.e2e
def test_what_jaeger_shows_of_whom_it_comes_from(jaeger: StartJaeger) -> None:
    """Jaeger's process names what made the telemetry, and each span the scope with its version;
    sent again by another version, a span is shown once, also by a storage that keeps each copy.
    That is why no version is in the resource: such a span would be shown twice."""
    backend = jaeger(in_memory=True)
    settings = load_settings({}, {"ALLOY_API_KEY": "any"})
    resource = settings.resource(settings.sources[0])
    traces = {}
    for uuid, first, second in (
        ("scope", envelope(resource, "1.0.0"), envelope(resource, "1.1.0")),
        (
            "resource",
            envelope(resource | {"telemetry.distro.version": "1.0.0"}, "1.0.0"),
            envelope(resource | {"telemetry.distro.version": "1.1.0"}, "1.0.0"),
        ),
    ):
        now = to_text(int(time.time() * 1000))
        record = {
            "_id": uuid,
            "message": "executionFinished",
            "data": {"executionUuid": uuid},
            **dict.fromkeys(("startedAt", "completedAt", "createdAt"), now),
        }
        execution = Execution(read_notification(json.dumps(record)), Role.ENDED)
        span, _ = Converter().convert(execution)
        for around in (first, second):
            sent_to(backend.otlp, around.request([span or b""]))
        traces[uuid] = ids(uuid)[0]
    shown = {}
    for uuid, trace_id in traces.items():
        shown[uuid] = as_pages_get_it(backend, trace_id)
    (span_shown,) = shown["scope"]["spans"]
    process = shown["scope"]["processes"][span_shown["processID"]]
    assert process["serviceName"] == "runalloy"
    assert {tag["key"]: tag["value"] for tag in process["tags"]} == {
        "telemetry.distro.name": "otel-alloy"
    }
    tags = {tag["key"]: tag["value"] for tag in span_shown["tags"]}
    assert tags["otel.scope.name"] == "otel_alloy"
    assert tags["otel.scope.version"] in ("1.0.0", "1.1.0")
    assert len(shown["resource"]["spans"]) == 2


def as_pages_get_it(jaeger: Jaeger, trace_id: str) -> dict[str, Any]:
    """A trace from the API of Jaeger's own pages, as soon as it is there."""
    wait_until(lambda: bool(jaeger.trace(trace_id)), otherwise="Jaeger has no such trace")
    answer = httpx.get(f"{jaeger.query}/api/traces/{trace_id}", timeout=10, trust_env=False)
    found: dict[str, Any]
    (found,) = answer.json()["data"]
    return found


def sent_to(target: str, request: bytes) -> None:
    """Sends an ExportTraceServiceRequest over gRPC."""
    with grpc.insecure_channel(target) as channel:
        export = channel.unary_unary(
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            request_serializer=None,
            response_deserializer=ExportTraceServiceResponse.FromString,
        )
        assert not export(request, timeout=10).partial_success.rejected_spans
