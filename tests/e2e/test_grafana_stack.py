"""The Grafana stack's Collector and Prometheus, with free relatives of what cannot be run here:
Jaeger in the place of Tempo, as both take OTLP over gRPC, and VictoriaLogs behind the path at which
Loki takes OTLP. What Tempo and Loki themselves make of it is not shown."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx
import pytest

from otel_alloy.http_server import Handler, Server
from otel_alloy.mapping.ids import execution_ids

from .conftest import (
    CONFIGURATIONS,
    StartCollector,
    StartJaeger,
    StartPrometheus,
    StartVictoriaLogs,
    VictoriaLogs,
    wait_until,
)

if TYPE_CHECKING:
    from conftest import Place

LOKI = "/otlp/v1/logs"


class _Passes(Handler):
    """Takes what Loki takes, where Loki takes it; VictoriaLogs answers."""

    def do_POST(self) -> None:
        server: Server[VictoriaLogs] = self.server  # type: ignore[assignment]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, answer, kind = 404, b"not Loki's path", "text/plain"
        if self.path == LOKI:
            passed = {"Content-Type", "Content-Encoding"} & set(self.headers.keys())
            got = httpx.post(
                f"{server.owner.url}/insert/opentelemetry/v1/logs",
                content=body,
                # Loki makes a label of service.name; what is no label stands beside the line.
                headers={name: self.headers[name] for name in passed}
                | {"VL-Stream-Fields": "service.name"},
                trust_env=False,
            )
            status, answer = got.status_code, got.content
            kind = got.headers.get("Content-Type", "application/x-protobuf")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


@contextmanager
def at_lokis_path(logs: VictoriaLogs) -> Iterator[str]:
    """The base URL of what stands where Loki would."""
    server = Server(("127.0.0.1", 0), _Passes, logs)
    server.start("in the place of Loki")
    try:
        yield server.url
    finally:
        server.stop()


@pytest.mark.e2e
def test_each_execution_reaches_all_three(
    collector: StartCollector,
    jaeger: StartJaeger,
    victorialogs: StartVictoriaLogs,
    prometheus: StartPrometheus,
    place: Place,
) -> None:
    """One trace and one log record for each execution, joined by their ids, with the fields that
    the data sources and the dashboard ask for; in Prometheus, started with the stack's own file,
    the receiver's metrics and the span metrics under the names that are asked for, and exemplars
    that lead to the traces."""
    place.now = time.time()
    records = place.fill(60, days=0.02, lifecycle="terminal", error_rate=0.3)
    ids = Counter(execution_ids(r["data"]["executionUuid"])[0].hex() for r in records)
    traces, logs = jaeger(), victorialogs()
    metrics = prometheus(
        CONFIGURATIONS / "grafana-stack" / "prometheus.yaml",
        "--web.enable-otlp-receiver",
        "--enable-feature=exemplar-storage",
    )
    with at_lokis_path(logs) as loki:
        running = collector(
            "grafana-stack/collector.yaml",
            "yaml:connectors::span_metrics::metrics_flush_interval: 300ms",
            environment={
                "TEMPO_OTLP_ENDPOINT": traces.otlp,
                "LOKI_ENDPOINT": loki,
                "PROMETHEUS_ENDPOINT": metrics.url,
                "SPAN_METRICS_MAX_AGE": "24h",
            },
        )
        place.once(OTEL_EXPORTER_OTLP_ENDPOINT=running.http, OTEL_METRICS_EXPORTER="otlp")
        now, day = datetime.now(UTC), timedelta(days=1)
        wait_until(
            lambda: (
                len(logs.ask('{service.name="runalloy"}')) >= len(records)
                and len(traces.search("runalloy", since=now - day, until=now + day)) >= len(records)
            ),
            otherwise="not everything arrived",
        )
        found = traces.search("runalloy", since=now - day, until=now + day)
        assert Counter(span["traceId"] for span in found) == ids
        rows = logs.ask('{service.name="runalloy"}')
        assert Counter(row["trace_id"] for row in rows) == ids
        failed = sum(r["message"] == "executionError" for r in records)
        assert sum("failed" in row["event_name"] for row in rows) == failed

        calls = 'sum(traces_span_metrics_calls_total{runalloy_execution_outcome="error"})'
        wait_until(lambda: metrics.value(calls) == failed, otherwise="no span metrics")
        assert metrics.value("sum(traces_span_metrics_duration_seconds_count)") == len(records)
        wait_until(
            lambda: metrics.value("sum(runalloy_receiver_records_settled_total)") == len(records),
            otherwise="no metrics of the receiver",
        )
        exemplars = metrics.ask(
            "query_exemplars",
            query="traces_span_metrics_duration_seconds_bucket",
            start=str(place.now - 3600),
            end=str(place.now + 3600),
        )
        leading = {e["labels"]["trace_id"] for series in exemplars for e in series["exemplars"]}
        assert leading and leading <= ids.keys()
        assert running.stop() == 0
