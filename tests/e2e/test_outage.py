"""The Collector stops for five minutes and starts again: /readyz, /status, the metrics, the log and
the alert rules tell one story, with real processes on every side.

Time is scaled: everything that counts in minutes (the outage, the alert rules' durations, the
limits, the intervals) is divided by `SCALE`, so what happens in which order is the same.
`OTEL_ALLOY_TEST_SCALE=nightly` takes the real five minutes. With a folder in
`OTEL_ALLOY_TEST_TIMELINE` the story is written there, as docs/outage.md shows it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from otel_alloy.mapping import semconv
from otel_alloy.testing.otlp_endpoint import OtlpEndpoint, attributes
from otel_alloy.testing.simulator import Simulator, Traffic, live, millis

from .conftest import (
    CONFIGURATIONS,
    Collector,
    Prometheus,
    StartCollector,
    StartPrometheus,
    free_port,
    wait_until,
)

SCALE = 1 if os.environ.get("OTEL_ALLOY_TEST_SCALE") == "nightly" else 20
OUTAGE = 300.0 / SCALE
PATIENCE = 900.0 / SCALE + 60
COMMAND = Path(sys.executable).with_name("otel-alloy")
STACK = CONFIGURATIONS / "grafana-stack"
TERMINAL = ("executionFinished", "executionError")
SIGNALS = ("_spans", "_log_records", "_metric_points")
OF_OTEL_ALLOY = ("OtelAlloyStageFailing", "CollectorDown")

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def scaled(text: str, scale: float = SCALE) -> str:
    """Every duration in a text (5m), and the lag that counts as too much, divided by the scale."""

    def shorter(match: re.Match[str]) -> str:
        return f"{round(1000 * int(match[1]) * _UNITS[match[2]] / scale)}ms"

    text = re.sub(r"\b(\d+)([smhd])\b", shorter, text)
    return re.sub(r"(lag_seconds\)?) ([<>]) 900", rf"\1 \2 {900 / scale:g}", text)


def write_configuration(
    folder: Path, collector: str, alertmanager: str = "", scale: float = SCALE
) -> Path:
    """The stack's prometheus.yaml and alerts.yaml, scaled, for a Collector at this address, and
    for an Alertmanager, if there is one."""
    rules = yaml.safe_load((STACK / "alerts.yaml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            for key in {"expr", "for"} & set(rule):
                rule[key] = scaled(rule[key], scale)
    (folder / "alerts.yaml").write_text(yaml.safe_dump(rules))
    config = yaml.safe_load((STACK / "prometheus.yaml").read_text())
    config["global"] = {name: scaled(value, scale) for name, value in config["global"].items()}
    config["global"]["scrape_timeout"] = scaled("10s", scale)
    (scrape,) = (s for s in config["scrape_configs"] if s["job_name"] == "collector")
    scrape["static_configs"] = [{"targets": [collector]}]
    config["scrape_configs"] = [scrape]
    (told,) = config["alerting"]["alertmanagers"]
    told["static_configs"] = [{"targets": [alertmanager] if alertmanager else []}]
    path = folder / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


class Operated:
    """A running `otel-alloy run`, seen from outside."""

    def __init__(self, process: subprocess.Popen[str], log: Path, prometheus: Prometheus) -> None:
        self.process, self.log, self.prometheus = process, log, prometheus
        self.url = ""
        self.began = time.monotonic()
        self.timeline: list[tuple[float, str]] = []
        self._last: dict[str, str] = {}
        self._told = 0
        wait_until(self._has_health_port, otherwise="no health port in the log")

    def _has_health_port(self) -> bool:
        found = re.search(r"health: (http://\S+)/ ", self.log.read_text())
        self.url = found[1] if found else ""
        return bool(found)

    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        whole, _, _ = self.log.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def ready(self) -> bool:
        """What /readyz says."""
        return httpx.get(f"{self.url}/readyz", trust_env=False).status_code == 200

    def source(self) -> dict[str, Any]:
        """The source as /status shows it."""
        found: dict[str, Any] = httpx.get(f"{self.url}/status", trust_env=False).json()
        (source,) = found["sources"]
        assert found["ready"] is source["ready"]
        return dict(source)

    def failing(self) -> float | None:
        """The metric of what fails, as Prometheus has it."""
        return self.prometheus.value("max(runalloy_receiver_attempts_failed)")

    def look(self) -> None:
        """Writes down what has changed, whoever says it."""
        waits = {words.split(":")[0] for words in self.source()["waits_for"]}
        now = {
            "/readyz": "ready" if self.ready() else "not ready",
            "/status waits for": ", ".join(sorted(w.split(",")[0] for w in waits)) or "-",
            "metric attempts.failed": "above 0" if self.failing() else "0",
            "alerts firing": ", ".join(sorted(self.prometheus.alerts()["firing"])) or "none",
        }
        lines = self.lines()
        for line in lines[self._told :]:
            self.tell(f"log: {line['level']} {line['message']}")
        self._told = len(lines)
        for who, what in now.items():
            if self._last.get(who, "0" if who.startswith("metric") else "none") != what:
                self.tell(f"{who}: {what}")
                self._last[who] = what

    def tell(self, words: str) -> None:
        """One more line of the story."""
        self.timeline.append((time.monotonic() - self.began, words))

    def until(self, holds: Callable[[], bool], otherwise: str) -> None:
        """Looks on until something holds."""

        def looked() -> bool:
            self.look()
            return holds()

        pause = (lambda seconds: time.sleep(1)) if SCALE == 1 else None
        wait_until(looked, within=PATIENCE, pause=pause, otherwise=otherwise)


@contextmanager
def operated(
    alloy: str, collector: Collector, prometheus: Prometheus, folder: Path, metrics: str
) -> Iterator[Operated]:
    """`otel-alloy run` with what it needs, its own metrics sent to `metrics`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    environment |= {
        "ALLOY_API_KEY": "any",
        "ALLOY_ENDPOINT": alloy,
        "OTEL_ALLOY_STORAGE": f"sqlite:///{folder}/checkpoint.db",
        "OTEL_ALLOY_HEALTH_ENDPOINT": "127.0.0.1:0",
        "OTEL_ALLOY_LOG_FORMAT": "json",
        "OTEL_ALLOY_COLLECTION_INTERVAL": f"{30 / SCALE}s",
        "OTEL_ALLOY_READY_MAX_LAG": f"{900 / SCALE}s",
        "OTEL_ALLOY_REQUESTS_PER_MINUTE": "0",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.http,
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_METRIC_EXPORT_INTERVAL": str(60_000 // SCALE),
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": metrics,
    }
    log = folder / "otel-alloy.log"
    with log.open("w") as written:
        process = subprocess.Popen(
            [COMMAND, "run"], env=environment, stdout=subprocess.DEVNULL, stderr=written, text=True
        )
    try:
        yield Operated(process, log, prometheus)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.e2e
@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", ["around", "through"] if SCALE == 1 else ["around"])
def test_one_story(
    collector: StartCollector, prometheus: StartPrometheus, tmp_path: Path, way: str
) -> None:
    """Before: ready, nothing fires. During five minutes: still ready, because the lag is below its
    limit; /status, the log and a metric say what is waited for, and after two minutes an alert
    does. After: the log says that it goes on, with the number of attempts that the metric counted;
    no alert is left; all has arrived. `way`: whether its metrics go around the Collector or
    through it; then only CollectorDown can tell, and it does."""
    expected = set(OF_OTEL_ALLOY) if way == "around" else {"CollectorDown"}
    with OtlpEndpoint(grpc=True) as backend, Simulator() as alloy:
        metrics_port = free_port()
        server = prometheus(
            write_configuration(tmp_path, f"127.0.0.1:{metrics_port}"),
            "--web.enable-otlp-receiver",
            f"--query.lookback-delta={scaled('5m')}",
        )
        running = collector(
            "grafana-stack/collector.yaml",
            f"yaml:exporters::otlp_http/loki::endpoint: {backend.http_endpoint}",
            environment={
                "TEMPO_OTLP_ENDPOINT": backend.grpc_endpoint,
                "PROMETHEUS_ENDPOINT": server.url,
                "COLLECTOR_METRICS_PORT": str(metrics_port),
            },
        )
        alloy.store.feed(
            live(start=time.time() - 5, rate=2.0, traffic=Traffic(seed=3, error_rate=0))
        )
        metrics = (
            f"{server.url}/api/v1/otlp/v1/metrics"
            if way == "around"
            else f"{running.http}/v1/metrics"
        )
        with operated(alloy.endpoint, running, server, tmp_path, metrics) as alive:
            alive.until(
                lambda: (
                    alive.ready()
                    and bool(backend.log_records())
                    and alive.failing() == 0
                    and server.value('up{job="collector"}') == 1
                ),
                "it does not come up",
            )
            assert server.alerts()["firing"] == set()

            alive.tell("the Collector is stopped")
            stopped = time.monotonic()
            assert running.stop() == 0
            alive.until(lambda: expected <= server.alerts()["firing"], f"{expected} do not fire")
            alive.until(lambda: time.monotonic() - stopped >= OUTAGE, "time stands still")
            assert server.alerts()["firing"] == expected
            assert alive.ready()
            source = alive.source()
            assert source["lag_seconds"] >= OUTAGE - 45 / SCALE
            assert {"traces", "logs"} & {words.split(":")[0] for words in source["waits_for"]}
            if way == "around":
                lag = server.value("runalloy_receiver_lag_seconds")
                assert lag is not None and lag > OUTAGE / 2

            alive.tell("the Collector is started")
            started = time.time()
            running.start()
            alive.until(
                lambda: not server.alerts()["firing"] and alive.failing() == 0,
                "alerts are left after the end",
            )
            alive.until(
                lambda: "".join(alive.source()["waits_for"]).startswith("the next cycle"),
                "it still waits",
            )
            assert alive.ready()
            assert alive.source()["lag_seconds"] < 60
            retries = {
                name: server.value(
                    f'max(runalloy_receiver_retries_total{{runalloy_receiver_stage="{name}"}})'
                )
                for name in ("traces", "logs")
            }
            lines = alive.lines()
            check_names(server)
        wanted = {
            record["data"]["executionId"]
            for record in alloy.store.records()
            if record["message"] in TERMINAL and (millis(record["createdAt"]) or 0) < started * 1000
        }
        wait_until(lambda: wanted <= arrived(backend), otherwise="executions are missing")
    for name in ("traces", "logs"):
        told = [line for line in lines if name in line["message"]]
        ends = [line for line in told if line["level"] == "INFO"]
        if not told:
            continue  # while traces wait, a cycle's logs may have got through
        assert "cannot deliver" in told[0]["message"]
        (end,) = ends
        assert end is told[-1]
        assert end["message"].endswith(
            f"{name} are delivered again, after {retries[name]:.0f} failed attempts"
        )
        assert end["cycle"] == told[0]["cycle"]
    write_timeline(alive.timeline, way)


def arrived(backend: OtlpEndpoint) -> set[str]:
    """The executions whose span arrived behind the Collector."""
    return {
        attributes(item.record.attributes)[semconv.EXECUTION_ID] for item in backend.items("traces")
    }


def check_names(server: Prometheus) -> None:
    """Every metric and label that the alert rules name is there, in a real Prometheus, or belongs
    to something that has not happened."""
    not_happened = {
        "runalloy_receiver_records_rejected_total",
        "runalloy_receiver_hook_failures_total",
        *(f"otelcol_exporter_send_failed{of}" for of in ("", *SIGNALS)),
        "runalloy_workflow_execution_duration_seconds_count",
        "runalloy_receiver_destination",  # there are none in this story
        "runalloy_receiver_distribution_outcome",
        "runalloy_receiver_destination_executions_total",
        "runalloy_receiver_destination_failing",
        "runalloy_receiver_lease_takeovers_total",  # nor replicas
        "runalloy_receiver_lease_unowned",
    }
    rules = (STACK / "alerts.yaml").read_text()
    asked = set(re.findall(r"\b(?:runalloy|otelcol)_\w+", rules))
    names = set(server.ask("label/__name__/values"))
    labels = set(server.ask("labels"))
    missing = asked - names - labels
    assert missing <= not_happened, missing


def write_timeline(timeline: list[tuple[float, str]], way: str) -> None:
    """For docs/outage.md."""
    if folder := os.environ.get("OTEL_ALLOY_TEST_TIMELINE"):
        path = Path(folder, f"timeline-{way}.txt")
        path.write_text("".join(f"{at:7.1f}  {words}\n" for at, words in timeline))
