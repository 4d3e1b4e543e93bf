"""The stack's alerts on their way to people: Prometheus, Alertmanager with alertmanager.yaml, and a
webhook, all real. Time is scaled, as in test_outage."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from otel_alloy.http_server import Handler, Server

from .conftest import (
    CONFIGURATIONS,
    Prometheus,
    StartAlertmanager,
    StartPrometheus,
    free_port,
    wait_until,
)
from .servers.build import ALERTMANAGER_VERSION
from .test_outage import scaled, write_configuration

SCALE = 60
TELLING_SCALE = 300
"""Alertmanager's own waits; what Prometheus waits for is bounded by how soon it can scrape."""
STACK = CONFIGURATIONS / "grafana-stack"


class Webhook:
    """What takes Alertmanager's messages, and keeps them."""

    def __init__(self) -> None:
        self._messages: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def take(self, body: bytes) -> None:
        """Keeps one message."""
        with self._lock:
            self._messages.append(json.loads(body))

    def messages(self, status: str) -> dict[str, set[tuple[str, str]]]:
        """The last message of this status (firing, resolved) for each source: the names of its
        alerts in that status, with their stage."""
        with self._lock:
            return {
                message["groupLabels"].get("runalloy_receiver_source", ""): {
                    (
                        alert["labels"]["alertname"],
                        alert["labels"].get("runalloy_receiver_stage", ""),
                    )
                    for alert in message["alerts"]
                    if alert["status"] == status
                }
                for message in self._messages
                if message["status"] == status
            }


class _Takes(Handler):
    def do_POST(self) -> None:
        server: Server[Webhook] = self.server  # type: ignore[assignment]
        server.owner.take(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


class _Scraped(Handler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def served(handler: type[Handler], owner: object, port: int = 0) -> Iterator[str]:
    """An HTTP server on loopback; its URL."""
    server = Server(("127.0.0.1", port), handler, owner)
    server.start("a server of a test")
    try:
        yield server.url
    finally:
        server.stop()


def report(prometheus: Prometheus, attempts: dict[tuple[str, str], int]) -> None:
    """What receivers say of failed attempts in a row, by source and stage, and that none lags."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "otel-alloy"
    metrics = resource.scope_metrics.add().metrics
    failed = metrics.add(name="runalloy.receiver.attempts.failed", unit="{attempt}").gauge
    lag = metrics.add(name="runalloy.receiver.lag", unit="s").gauge
    now = httpx.get(f"{prometheus.url}/api/v1/query?query=time()", trust_env=False).json()
    at = int(float(now["data"]["result"][0]) * 1e9)
    for (source, stage), value in attempts.items():
        point = failed.data_points.add(time_unix_nano=at, as_int=value)
        point.attributes.add(key="runalloy.receiver.source").value.string_value = source
        point.attributes.add(key="runalloy.receiver.stage").value.string_value = stage
    lag.data_points.add(time_unix_nano=at, as_double=1.0)
    httpx.post(
        f"{prometheus.url}/api/v1/otlp/v1/metrics",
        content=request.SerializeToString(),
        headers={"Content-Type": "application/x-protobuf"},
        trust_env=False,
    ).raise_for_status()


def configuration(folder: Path, webhook: str) -> Path:
    """The stack's alertmanager.yaml, scaled, with the webhook's address in a file of the test's."""
    text = scaled((STACK / "alertmanager.yaml").read_text(), TELLING_SCALE)
    address = folder / "webhook-url"
    address.write_text(f"{webhook}/alerts?token=secret\n")
    assert text.count("/etc/alertmanager/webhook-url") == 1
    path = folder / "alertmanager.yaml"
    path.write_text(text.replace("/etc/alertmanager/webhook-url", str(address)))
    return path


@pytest.mark.e2e
def test_an_alert_and_its_end_reach_the_webhook_by_source(
    prometheus: StartPrometheus, alertmanager: StartAlertmanager, tmp_path: Path
) -> None:
    """Two sources that fail and a Collector that is away make three messages, each with the alerts
    of its own; when it is over, each is told once more, as resolved."""
    inbox, collector = Webhook(), free_port()
    failing = {("shop", "traces"): 4, ("shop", "logs"): 4, ("crm", "alloy"): 9}
    with served(_Takes, inbox) as webhook:
        told = alertmanager(configuration(tmp_path, webhook))
        asked = prometheus(
            write_configuration(
                tmp_path, f"127.0.0.1:{collector}", told.url.removeprefix("http://"), SCALE
            ),
            "--web.enable-otlp-receiver",
        )
        report(asked, failing)
        expected = {
            "shop": {("OtelAlloyStageFailing", "traces"), ("OtelAlloyStageFailing", "logs")},
            "crm": {("OtelAlloyStageFailing", "alloy")},
            "": {("CollectorDown", "")},
        }
        wait_until(lambda: inbox.messages("firing") == expected, otherwise="not all is told")
        assert {alert["labels"]["alertname"] for alert in told.alerts()} == {
            "OtelAlloyStageFailing",
            "CollectorDown",
        }
        report(asked, dict.fromkeys(failing, 0))
        with served(_Scraped, None, collector):
            wait_until(lambda: inbox.messages("resolved") == expected, otherwise="the end is not")
    assert "secret" not in told.output()


@pytest.mark.e2e
@pytest.mark.parametrize("severity", ["info", "warning", "critical"])
def test_who_hears_of_what(amtool: Path, severity: str) -> None:
    """amtool sends every severity that an alert has to the webhook, but `info` to nobody."""
    assert severity in (STACK / "alerts.yaml").read_text()
    file = f"--config.file={STACK / 'alertmanager.yaml'}"
    done = subprocess.run(
        [amtool, "config", "routes", "test", file, f"severity={severity}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (
        0,
        "nobody" if severity == "info" else "webhook",
    )


def test_the_release_is_the_one_of_the_example() -> None:
    """What is tested is what the compose file runs, which reads the same address."""
    text = (CONFIGURATIONS.parent / "examples" / "grafana" / "compose.yaml").read_text()
    assert f"image: prom/alertmanager:{ALERTMANAGER_VERSION}\n" in text
    assert "/etc/alertmanager/webhook-url" in text
