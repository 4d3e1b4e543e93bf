"""The dashboard's numbers, asked of a real Prometheus that a real receiver feeds through a real
Collector, all with the shipped configurations: what is shown is what happened, from the first
execution on, over restarts, by two replicas, and beside a backfill.

Intervals are short and Grafana's variables wide, so that what happens in a minute here is in every
range. What depends on hours is in test_queries.py.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from otel_alloy.mapping import semconv
from otel_alloy.mapping.ids import execution_ids
from otel_alloy.observability import metrics as telemetry
from otel_alloy.testing.otlp_endpoint import OtlpEndpoint, attributes
from otel_alloy.testing.replicas import Replicas
from otel_alloy.testing.simulator import (
    Record,
    Simulator,
    Traffic,
    millis,
    timeline,
)

from .conftest import (
    REPOSITORY,
    Collector,
    Prometheus,
    StartCollector,
    StartPrometheus,
    free_port,
    wait_until,
)
from .grafana import ALL, STACK, interpolate, queries

if TYPE_CHECKING:
    from conftest import Servers

COMMAND = Path(sys.executable).with_name("otel-alloy")
RANGE = "30m"
PANELS = {
    (query.panel, query.ref): query
    for query in queries()
    if query.panel and query.language == "promql"
}
VALUES: Mapping[str, str | Sequence[str]] = {
    "__range": RANGE,
    "__rate_interval": RANGE,
    "counting": "anchored",
    "workflow": ALL,
}
MINUTES = 30

EXECUTIONS, FAILED, MEDIAN, P95 = (2, "A"), (3, "A"), (4, "A"), (5, "A")
LAG, SET_ASIDE, PER_MINUTE, SHARE = (6, "A"), (7, "A"), (8, "A"), (9, "A")
BY_WORKFLOW, BY_WORKFLOW_FAILED = (11, "A"), (11, "B")
BY_INTEGRATION, BY_INTEGRATION_FAILED = (12, "A"), (12, "B")
DURATION_P95, BLOCKS, REQUESTS, QUEUE = (10, "B"), (29, "A"), (24, "A"), (25, "A")
SETTLED_PER_MINUTE = (23, "B")

Answer = dict[tuple[str, ...], float]


class Shown:
    """What the panels show of a Prometheus."""

    def __init__(self, server: Prometheus) -> None:
        self.server = server

    def ask(self, panel: tuple[int, str], **values: str | Sequence[str]) -> Answer:
        """A panel's numbers now, by the values of their labels in the order of their names."""
        return self._answer(interpolate(PANELS[panel], {**VALUES, **values}))

    def _answer(self, query: str) -> Answer:
        found = self.server.ask("query", query=query)["result"]
        return {
            tuple(value for _, value in sorted(one["metric"].items())): float(one["value"][1])
            for one in found
        }

    def one(self, panel: tuple[int, str]) -> float:
        """The number of a panel that has one."""
        (value,) = self.ask(panel).values()
        return value

    def count(self, expected: float, panel: tuple[int, str] = EXECUTIONS) -> None:
        """Waits until a panel shows a number."""
        wait_until(
            lambda: self.one(panel) >= expected,
            otherwise=f"{PANELS[panel].where} does not come to {expected}",
        )
        assert self.one(panel) == expected

    def check_all(self) -> None:
        """Every panel's query is answered, now and over time, without NaN and without a warning;
        every rule can be evaluated."""
        now = time.time()
        for query in PANELS.values():
            sent = interpolate(query, VALUES)
            spans = {"start": str(now - 120), "end": str(now), "step": "10"}
            for path, times in (("query", {}), ("query_range", spans)):
                for series in self.server.ask(path, query=sent, **times)["result"]:
                    points = series.get("values") or [series["value"]]
                    assert not [v for _, v in points if math.isnan(float(v))], query.where
        for group in self.server.ask("rules")["groups"]:
            for rule in group["rules"]:
                assert rule["health"] in ("ok", "unknown"), rule


class Happened:
    """What a simulated Alloy has told of the last quarter of an hour, to be compared with what is
    shown."""

    def __init__(self, alloy: Simulator) -> None:
        since = (time.time() - telemetry.LIVE_SECONDS) * 1000
        records = [r for r in alloy.store.records() if (millis(r["createdAt"]) or 0) > since]
        self.records = len(records)
        self.ends = [r for r in records if r["message"] != "executionStarted"]
        self.failures = [r for r in self.ends if r["message"] == "executionError"]

    def by_workflow(self) -> Answer:
        """Executions."""
        return dict(Counter((r["forgeWorkflow"]["name"],) for r in self.ends))

    def by_integration(self) -> Answer:
        """Executions."""
        names = (r["forgeWorkflow"]["integrationId"]["name"] for r in self.ends)
        return dict(Counter((name,) for name in names))

    def failing_share(self) -> Answer:
        """By workflow, 0 where none failed."""
        failed: Counter[tuple[str, ...]] = Counter(
            (r["forgeWorkflow"]["name"],) for r in self.failures
        )
        return {name: failed[name] / number for name, number in self.by_workflow().items()}

    def bounds(self, quantile: float) -> tuple[float, float]:
        """Between which bounds of the histogram's buckets the duration of an execution lies, of
        which so many are shorter."""
        took = sorted(
            ((millis(r["completedAt"]) or 0) - (millis(r["startedAt"]) or 0)) / 1000
            for r in self.ends
        )
        at = took[min(len(took) - 1, math.ceil(quantile * len(took)) - 1)]
        edges = (0.0, *telemetry.EXECUTION_DURATION.buckets)
        upper = next(edge for edge in edges if edge >= at)
        return edges[edges.index(upper) - 1], upper


def shipped_flags(*, beginnings: bool) -> list[str]:
    """The flags that the example starts Prometheus with, less where its files are. `beginnings`:
    with the feature that makes samples of them, which own metrics do without."""
    compose = yaml.safe_load((REPOSITORY / "examples/grafana/compose.yaml").read_text("utf-8"))
    command = compose["services"]["prometheus"]["command"]
    flags = [w for w in command if not w.startswith(("--config.file", "--storage.tsdb.path"))]
    feature = ",created-timestamp-zero-ingestion"
    assert feature in "".join(flags)
    return flags if beginnings else [flag.replace(feature, "") for flag in flags]


@contextmanager
def stack(
    collector: StartCollector,
    prometheus: StartPrometheus,
    folder: Path,
    *,
    beginnings: bool = False,
) -> Iterator[tuple[Collector, Shown, OtlpEndpoint]]:
    """Collector and Prometheus as they are shipped, with short intervals; an endpoint in the place
    of Tempo and Loki. `beginnings`: as in `shipped_flags`."""
    port = free_port()
    config = yaml.safe_load((STACK / "prometheus.yaml").read_text("utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(STACK / "alerts.yaml")]
    (scrape,) = (s for s in config["scrape_configs"] if s["job_name"] == "collector")
    scrape["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
    config["scrape_configs"] = [scrape]
    path = folder / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config))
    server = prometheus(path, *shipped_flags(beginnings=beginnings))
    with OtlpEndpoint(grpc=True) as backend:
        running = collector(
            "grafana-stack/collector.yaml",
            f"yaml:exporters::otlp_http/loki::endpoint: {backend.http_endpoint}",
            "yaml:connectors::span_metrics::metrics_flush_interval: 1s",
            environment={
                "TEMPO_OTLP_ENDPOINT": backend.grpc_endpoint,
                "PROMETHEUS_ENDPOINT": server.url,
                "COLLECTOR_METRICS_PORT": str(port),
            },
        )
        yield running, Shown(server), backend


def environment(alloy: Simulator, collector: Collector) -> dict[str, str]:
    """The variables of a receiver that sends its metrics each second."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "ALLOY_API_KEY": "any",
        "ALLOY_ENDPOINT": alloy.endpoint,
        "OTEL_ALLOY_HEALTH_ENDPOINT": "",
        "OTEL_ALLOY_COLLECTION_INTERVAL": "1s",
        "OTEL_ALLOY_REQUESTS_PER_MINUTE": "0",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.http,
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    }


@contextmanager
def receiver(folder: Path, variables: Mapping[str, str]) -> Iterator[None]:
    """`otel-alloy run`, until it is asked to end."""
    log = folder / "otel-alloy.log"
    storage = {"OTEL_ALLOY_STORAGE": f"sqlite:///{folder}/checkpoint.db"}
    with log.open("ab") as said:
        process = subprocess.Popen(
            [COMMAND, "run"], env={**variables, **storage}, stdout=said, stderr=said
        )
    try:
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def happen(alloy: Simulator, number: int, seed: int, *, ago: float = 0.0) -> None:
    """So many executions, that have ended a moment before, or `ago` seconds before that."""
    now = time.time() - ago
    traffic = Traffic(seed=seed, users=8, error_rate=0.25)
    alloy.store.feed(timeline(number, start=now - 120, end=now - 2, traffic=traffic))


def nothing_happened(shown: Shown) -> None:
    """Zeros where zero is a number, and nothing where there is nothing to show."""
    shown.check_all()
    assert [shown.one(panel) for panel in (EXECUTIONS, FAILED, SET_ASIDE)] == [0, 0, 0]
    for panel in (MEDIAN, P95, PER_MINUTE, SHARE, BY_WORKFLOW, BY_INTEGRATION, BLOCKS):
        assert shown.ask(panel) == {}, PANELS[panel].where


def blocks(backend: OtlpEndpoint, happened: Happened) -> Answer:
    """Failures by block's name, block's type and workflow, as the spans of these executions tell
    them when all have arrived."""
    wanted = {ids_of(record) for record in happened.ends}

    def arrived() -> dict[str, dict[str, Any]]:
        spans = (item.record for item in backend.items("traces"))
        return {
            span.trace_id.hex(): attributes(span.attributes)
            for span in spans
            if semconv.EXECUTION_OUTCOME in attributes(span.attributes)
        }

    wait_until(lambda: wanted <= arrived().keys(), otherwise="spans are missing")
    told = [one for trace, one in arrived().items() if trace in wanted]
    keys = (semconv.BLOCK_NAME, semconv.BLOCK_TYPE, semconv.WORKFLOW_NAME)
    failed = [one for one in told if one[semconv.EXECUTION_OUTCOME] == "error"]
    return dict(
        Counter(tuple(one[key] for key in keys) for one in failed if semconv.BLOCK_NAME in one)
    )


def is_shown(happened: Happened, shown: Shown, backend: OtlpEndpoint) -> None:
    """All that the panels say of executions is what happened."""
    shown.count(len(happened.ends))
    shown.check_all()
    assert shown.ask(BY_WORKFLOW) == happened.by_workflow()
    assert shown.ask(BY_INTEGRATION) == happened.by_integration()
    assert shown.one(FAILED) == pytest.approx(len(happened.failures) / len(happened.ends))
    for panel in (BY_WORKFLOW_FAILED, SHARE):
        assert shown.ask(panel) == pytest.approx(happened.failing_share()), PANELS[panel].where
    outcomes = {
        ("success",): len(happened.ends) - len(happened.failures),
        ("error",): len(happened.failures),
    }
    per_minute = {outcome: number / MINUTES for outcome, number in outcomes.items()}
    assert shown.ask(PER_MINUTE) == pytest.approx(per_minute)
    for panel, quantile in ((MEDIAN, 0.5), (P95, 0.95)):
        lower, upper = happened.bounds(quantile)
        assert lower <= shown.one(panel) <= upper, PANELS[panel].where
    known = blocks(backend, happened)
    assert sum(known.values()) > len(happened.failures) / 2
    most = Counter(known).most_common(10)
    assert sorted(shown.ask(BLOCKS).values()) == sorted(number for _, number in most)
    assert shown.ask(BLOCKS).items() <= known.items()
    (name,) = Counter(happened.by_workflow()).most_common(1)[0][0]
    assert shown.ask(BY_WORKFLOW, workflow=[name]) == {
        (name,): happened.by_workflow()[name,],
    }
    assert shown.one(SET_ASIDE) == 0


@pytest.mark.e2e
def test_the_numbers_of_one_receiver(
    collector: StartCollector, prometheus: StartPrometheus, tmp_path: Path
) -> None:
    """Before there is anything, before anything happened, after the first executions, after a
    restart as the same instance and more of them, and while a backfill brings older ones: each
    number is the one that it should be, and each dot leads to an execution."""
    with stack(collector, prometheus, tmp_path) as (running, shown, backend), Simulator() as alloy:
        nothing_happened(shown)
        happen(alloy, 20, 1, ago=86_400)
        variables = environment(alloy, running)
        with receiver(tmp_path, variables):
            wait_until(lambda: bool(shown.ask(LAG)), otherwise="no lag is told")
            nothing_happened(shown)
            happen(alloy, 60, 2)
            first = Happened(alloy)
            assert len(first.ends) == 60 and len(first.failures) > 5
            is_shown(first, shown, backend)
        with receiver(tmp_path, variables):
            happen(alloy, 25, 3)
            every = Happened(alloy)
            is_shown(every, shown, backend)
            done = subprocess.run(
                [COMMAND, "backfill", "--from", "3d"],
                env={
                    **variables,
                    "OTEL_ALLOY_STORAGE": f"sqlite:///{tmp_path}/checkpoint.db",
                },
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, done.stderr
            wait_until(
                lambda: len({i.record.trace_id for i in backend.items("traces")}) == 105,
                otherwise="the backfill does not arrive",
            )
            is_shown(every, shown, backend)
            assert shown.one(SETTLED_PER_MINUTE) == pytest.approx(every.records / MINUTES)
        names = shown.server.ask("label/instance/values")
        assert len([name for name in names if "127.0.0.1" not in name]) == 1
        assert shown.one(LAG) < 60
        assert {labels[-1] for labels in shown.ask(REQUESTS)} == {"200"}
        assert {"otlp_grpc/tempo", "otlp_http/loki", "otlp_http/prometheus"} <= {
            label for labels in shown.ask(QUEUE) for label in labels
        }
        assert set(exemplars(shown)) <= {ids_of(record) for record in every.ends}


def exemplars(shown: Shown) -> list[str]:
    """The traces of the dots in the graph of durations; there are some."""
    now = time.time()
    found = shown.server.ask(
        "query_exemplars",
        query=interpolate(PANELS[DURATION_P95], VALUES),
        start=str(now - 600),
        end=str(now),
    )
    traces = [one["labels"]["trace_id"] for series in found for one in series["exemplars"]]
    assert len(traces) > 5
    return traces


def ids_of(record: Record) -> str:
    """The trace id of an execution."""
    return execution_ids(record["data"]["executionUuid"])[0].hex()


@pytest.mark.e2e
def test_the_numbers_of_two_replicas(
    collector: StartCollector, prometheus: StartPrometheus, servers: Servers, tmp_path: Path
) -> None:
    """Two replicas on one machine share a source. While its lease moves, because the one that has
    it is killed, and because it ends in order, nothing is counted twice and nothing is missing."""
    url = servers.storage("postgres oldest", tmp_path)
    with stack(collector, prometheus, tmp_path) as (running, shown, backend), Simulator() as alloy:
        variables = environment(alloy, running)
        replicas = Replicas(tmp_path, url, {"lease": "4s"}, variables)
        try:
            victim = replicas.start()
            happen(alloy, 40, 4)
            is_shown(Happened(alloy), shown, backend)
            heir = replicas.start()
            victim.process.kill()
            replicas.gone(victim)
            happen(alloy, 30, 5)
            is_shown(Happened(alloy), shown, backend)
            last = replicas.start()
            heir.process.send_signal(signal.SIGTERM)
            replicas.gone(heir)
            happen(alloy, 20, 6)
            is_shown(Happened(alloy), shown, backend)
            assert replicas.running == [last]
        finally:
            replicas.close()
        names = shown.server.ask("label/instance/values")
        assert len([name for name in names if "127.0.0.1" not in name]) == 3
        takeovers = shown.server.value("sum(runalloy_receiver_lease_takeovers_total)")
        assert takeovers is not None and takeovers >= 3


@pytest.mark.e2e
def test_the_span_metrics_begin_at_zero(
    collector: StartCollector, prometheus: StartPrometheus, tmp_path: Path
) -> None:
    """What the Collector counts of the spans is there from the first one on, too, by what the
    example has Prometheus make of the time at which a series began."""
    with (
        stack(collector, prometheus, tmp_path, beginnings=True) as (running, shown, _),
        Simulator() as alloy,
    ):
        happen(alloy, 30, 7)
        query = f"sum(increase(traces_span_metrics_calls_total[{RANGE}] anchored))"
        with receiver(tmp_path, environment(alloy, running)):
            shown.count(30)
            wait_until(
                lambda: shown.server.value(query) == 30,
                otherwise="the span metrics do not begin at zero",
            )
