"""One trace in a real Jaeger: the service's spans come first, the execution's span afterwards."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from otel_alloy.alloy.timestamps import to_ns
from otel_alloy.testing.simulator import Config, Record, Simulator, live

from .conftest import Jaeger, StartJaeger, wait_until

COMMAND = Path(sys.executable).with_name("otel-alloy")


def trace_id(uuid: str) -> str:
    """By the published recipe, written down once more."""
    return hashlib.sha256(f"runalloy.execution:{uuid}".encode()).hexdigest()[:32]


def shown(jaeger: Jaeger, trace: str) -> list[dict[str, Any]]:
    """The trace as Jaeger's pages get it, with Jaeger's own warnings."""
    answer = httpx.get(f"{jaeger.query}/api/traces/{trace}", timeout=10, trust_env=False)
    answer.raise_for_status()
    (found,) = answer.json()["data"]
    assert not found.get("warnings")
    spans: list[dict[str, Any]] = found["spans"]
    return spans


@pytest.mark.e2e
def test_an_execution_and_the_service_that_it_called_are_one_tree(
    jaeger: StartJaeger,
    order_service: Callable[[str], AbstractContextManager[str]],
    tmp_path: Path,
) -> None:
    """With nothing but `OTEL_PROPAGATORS` set, the instrumented service's spans are in Jaeger
    before otel-alloy runs at all; once it has run, Jaeger shows each execution as the only root,
    the server span below it and that one's children, without a warning of its own."""
    backend = jaeger()
    with order_service(f"http://{backend.otlp}") as url:
        alloy = Simulator(Config(custom_api_url=f"{url}/orders"))
        alloy.store.feed(live(start=time.time(), rate=3, calls=True))
        with alloy:
            traces: list[str] = []

            def inside(record: Record) -> bool:
                """On a slow machine a call may outlast its simulated execution, which no real
                one can; Jaeger would take that for clock skew."""
                start, end = to_ns(record["startedAt"]), to_ns(record["completedAt"])
                assert start is not None and end is not None
                spans = backend.trace(trace_id(record["data"]["executionUuid"]))
                return len(spans) >= 3 and all(
                    start <= int(s["startTimeUnixNano"]) and int(s["endTimeUnixNano"]) <= end
                    for s in spans
                )

            def called() -> bool:
                ended = [r for r in alloy.store.records() if r["message"] != "executionStarted"]
                found = [trace_id(r["data"]["executionUuid"]) for r in ended if inside(r)]
                traces[:] = found[:3]
                return len(traces) == 3

            wait_until(called, otherwise="the service's spans did not arrive")
            for trace in traces:  # the execution's own span is not there yet
                assert all("parentSpanId" in span for span in backend.trace(trace))
            environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
            environment |= {
                "ALLOY_API_KEY": "any",
                "ALLOY_ENDPOINT": alloy.endpoint,
                "OTEL_ALLOY_STORAGE": f"sqlite:///{tmp_path}/checkpoint.db",
                "OTEL_TRACES_EXPORTER": "otlp",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://{backend.otlp}",
                "OTEL_ALLOY_ENRICH": "off",  # blocks have spans of their own below the root
                "OTEL_LOGS_EXPORTER": "console",  # Jaeger takes no log records
            }
            done = subprocess.run(
                [COMMAND, "run", "--once"],
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr
    wait_until(
        lambda: all(any("parentSpanId" not in s for s in backend.trace(t)) for t in traces),
        otherwise="the executions' spans did not arrive",
    )
    for trace in traces:
        spans = shown(backend, trace)
        assert not [span["warnings"] for span in spans if span.get("warnings")]
        by_id = {span["spanID"]: span for span in spans}
        above = {
            span["spanID"]: [r["spanID"] for r in span["references"] if r["refType"] == "CHILD_OF"]
            for span in spans
        }
        (root,) = [span for span, parents in above.items() if not parents]
        (server,) = [s for s, p in above.items() if p == [root]]
        assert by_id[server]["operationName"] == "POST /orders"
        below = {by_id[s]["operationName"] for s, p in above.items() if p == [server]}
        assert {"reserve stock", "print label"} <= below
        assert all(parent in by_id for parents in above.values() for parent in parents)
