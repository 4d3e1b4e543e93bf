"""A real Prometheus that asks a running receiver for its metrics, as the chart's ServiceMonitor has
it: `OTEL_METRICS_EXPORTER=prometheus`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otel_alloy.observability.metrics import METRICS

from .conftest import CONFIGURATIONS, StartPrometheus, free_port, wait_until

if TYPE_CHECKING:
    from conftest import Place

pytestmark = pytest.mark.e2e

ALERTS = CONFIGURATIONS / "grafana-stack" / "alerts.yaml"


def test_the_alerts_stand_on_what_is_scraped(
    prometheus: StartPrometheus, place: Place, tmp_path: Path
) -> None:
    """Each metric has the name that it has where it is sent over OTLP, so that the alerts take it;
    they are healthy, and what was counted before the first look is in `increase()`."""
    place.fill(40, days=0.02)
    port = free_port()
    scrape = [{"targets": [f"127.0.0.1:{port}"]}]
    file = tmp_path / "prometheus.yaml"
    file.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "200ms", "evaluation_interval": "1s"},
                "rule_files": [str(ALERTS)],
                "scrape_configs": [{"job_name": "otel-alloy", "static_configs": scrape}],
            }
        )
    )
    place.start(
        *("run", "--since", "1h"),
        OTEL_METRICS_EXPORTER="prometheus",
        OTEL_EXPORTER_PROMETHEUS_HOST="127.0.0.1",
        OTEL_EXPORTER_PROMETHEUS_PORT=str(port),
    )
    running = prometheus(file)
    wait_until(
        lambda: (running.value("sum(runalloy_receiver_records_received_total)") or 0) >= 40,
        otherwise="nothing was counted",
    )
    wait_until(
        lambda: bool(running.value("sum(increase(runalloy_receiver_records_received_total[5m]))")),
        otherwise="what came first is lost",
    )
    known = set()
    for metric in METRICS:
        name = metric.name.replace(".", "_") + {"s": "_seconds", "By": "_bytes"}.get(
            metric.unit, ""
        )
        known |= {name, f"{name}_total", *(f"{name}_{end}" for end in ("bucket", "count", "sum"))}
    names = {n for n in running.ask("label/__name__/values") if n.startswith("runalloy_")}
    assert len(names) > 10
    assert names <= known

    def healths() -> set[str]:
        groups = running.ask("rules")["groups"]
        return {rule["health"] for group in groups for rule in group["rules"]}

    wait_until(lambda: "unknown" not in healths(), otherwise="the alerts are not evaluated")
    assert healths() == {"ok"}
