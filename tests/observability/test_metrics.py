"""The receiver's own metrics: what is defined, documented and asked for by the alert rules is one
and the same, and what is counted is what happened."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_alloy.checkpoint.outbox import Backlog
from otel_alloy.errors import ConfigurationError, Throttled
from otel_alloy.http_server import Handler, Server
from otel_alloy.mapping import semconv
from otel_alloy.mapping.facts import ExecutionFacts
from otel_alloy.mapping.ids import execution_ids
from otel_alloy.observability import metrics as telemetry
from otel_alloy.observability.metrics import METRICS, SIGNAL, Telemetry
from otel_alloy.observability.status import Status
from otel_alloy.otlp.delivery import Report
from otel_alloy.otlp.outcome import Kind, Outcome
from otel_alloy.pipeline import events
from otel_alloy.pipeline.events import tell_all
from otel_alloy.pipeline.receiver import Receiver
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.otlp import otlp_exporters
from otel_alloy.testing.otlp_endpoint import attributes
from otel_alloy.version import __version__

if TYPE_CHECKING:
    from conftest import Place

REPOSITORY = Path(__file__).parents[2]
NOW = 5_000_000_000  # ms


class Measured:
    """A `Telemetry` whose metrics can be read back."""

    def __init__(self) -> None:
        self.status = Status(["one"], max_lag=900, runtime=system_runtime())
        self.reader = InMemoryMetricReader()
        self.telemetry = Telemetry([self.reader], {}, self.status, sources=["one"])
        self.tell = tell_all(self.status, self.telemetry)

    def points(self) -> dict[str, list[Any]]:
        """The points of every metric there is."""
        return {m.name: list(m.data.data_points) for m in self.metrics()}

    def metrics(self) -> list[Any]:
        data = self.reader.get_metrics_data()
        assert data is not None
        return [m for s in data.resource_metrics[0].scope_metrics for m in s.metrics]


@pytest.fixture
def measured() -> Iterator[Measured]:
    measured = Measured()
    yield measured
    measured.telemetry.close()


def settled(
    *facts: ExecutionFacts,
    high: int = NOW,
    ended: Callable[[], Iterable[ExecutionFacts]] | None = None,
) -> events.Settled:
    count = len(facts) or 1
    return events.Settled(
        source="one",
        cycle="c",
        counts=events.Counts(received=count, executions=count, spans=count, log_records=count),
        position=events.Position(high=high, start=0, before=NOW, last=True, now=NOW),
        ended=ended or (lambda: facts),
    )


def fact(
    outcome: str = "success",
    ago: float = 1.0,
    took: float = 2.0,
    workflow: str = "orders",
    adjusted: bool = False,
    **block: Any,
) -> ExecutionFacts:
    end = NOW * 1_000_000 - int(ago * 1e9)
    attributes: dict[str, str | bool] = {
        semconv.WORKFLOW_NAME: workflow,
        semconv.INTEGRATION_NAME: "crm",
        semconv.USER_ID: "somebody",
        semconv.EXECUTION_OUTCOME: outcome,
    }
    if outcome == "error":
        attributes[semconv.ERROR_TYPE] = "executionError"
    if adjusted:
        attributes[semconv.TIME_ADJUSTED] = True
    attributes |= {f"runalloy.{name.replace('_', '.')}": value for name, value in block.items()}
    ids = execution_ids("uuid-1")
    return ExecutionFacts(*ids, end - int(took * 1e9), end, workflow, attributes)


def everything(measured: Measured) -> None:
    """One of each event, so that every metric has a value."""
    tell = measured.tell
    tell(events.CycleBegan("one", "c", NOW - 1000, NOW - 5000, NOW))
    tell(events.ClocksCompared("one", -2.5, NOW))
    tell(events.Requested("one", 429, "Throttled"))
    tell(events.RequestRetried("one", Throttled("slow down (429)"), 1, 1.0))
    tell(events.Requested("one", 200, None))
    tell(events.Received("one", 3))
    for kind, wait in ((Kind.RETRY, 1.0), (Kind.DELIVERED, None)):
        report = Report("traces", Outcome(kind), 3, 1000, 0.02, 1, wait)
        tell(events.ExportAttempted("one", report))
    tell(events.CheckpointWriteFailed("one", "the disk is full", 2.0))
    where: dict[str, Any] = {
        "block_id": "b-1",
        "block_name": "Create order",
        "block_type": "alloy.shopify",
    }
    tell(settled(fact(), fact("error", **where, reason_source="errors")))
    tell(events.GapFound("one", NOW - 9000, NOW - 8000))
    tell(events.SeenLate("one", 2, (70.0,), 70.0, 135.0))
    tell(events.Audited("one", 600.0, NOW - 9000, NOW - 8000, 5, 4, 2, 1))
    tell(events.WebhookListens("127.0.0.1:8090"))
    tell(events.WebhookAnswered("kept"))
    tell(events.Filtered("one", {"beats": 2}, {"acme": 1}))
    for name in ("acme", "beta"):
        tell(events.DestinationSettled(name, 3, 1, 2.0))
    tell(events.DestinationSpilled("acme", 5))
    tell(events.DestinationRecalled("acme", 4, 1))
    backlogs = {"acme": Backlog(4, 900, 1000, 3, 500), "beta": Backlog()}
    known = frozenset(("acme", "beta"))
    tell(events.DestinationsLooked(known, backlogs, {}, {"acme": "HTTP 503"}))
    mine = frozenset(("source one", "destination acme"))
    tell(
        events.LeasesLooked("a", mine, (events.Holding("source one", "a", 1, 9.0),), ("source x",))
    )
    tell(events.LeaseTaken("source one", 1, False))
    tell(events.LeaseTaken("destination acme", 2, True))
    tell(events.CycleEnded("one", "c", NOW, NOW, 30.0))


def test_every_metric_is_defined_and_every_definition_is_a_metric(measured: Measured) -> None:
    """Names, units, descriptions and attributes of what is exported are those of `METRICS`."""
    everything(measured)
    exported = {m.name: m for m in measured.metrics()}
    assert set(exported) == {m.name for m in METRICS}
    assert len({m.name for m in METRICS}) == len(METRICS)
    for metric in METRICS:
        found = exported[metric.name]
        assert (found.unit, found.description) == (metric.unit, metric.description)
        used = {key for point in found.data.data_points for key in point.attributes}
        assert used == set(metric.attributes), metric.name
        if metric.buckets:
            (bounds,) = {tuple(p.explicit_bounds) for p in found.data.data_points}
            assert bounds == metric.buckets == tuple(sorted(metric.buckets))
        assert re.fullmatch(r"runalloy(\.[a-z_]+)+", metric.name)
        assert not metric.description.endswith(".")


def test_what_the_endpoint_rejects_is_counted_by_signal(measured: Measured) -> None:
    """`records.refused` tells how many spans and log records; no other counter changes its
    meaning."""
    event = settled(fact())
    counts = replace(event.counts, refused_spans=2, refused_log_records=3)
    measured.telemetry(replace(event, counts=counts))
    points = {m.name: m.data.data_points for m in measured.metrics()}
    refused = {
        str(p.attributes[SIGNAL]): p.value for p in points["runalloy.receiver.records.refused"]
    }
    assert refused == {"traces": 2, "logs": 3}
    assert sum(p.value for p in points["runalloy.receiver.records.settled"]) == 1
    assert sum(p.value for p in points["runalloy.receiver.records.rejected"]) == 0


def test_every_metric_is_documented() -> None:
    """The README's list is the one that the code makes."""
    assert telemetry.metrics_table() in (REPOSITORY / "README.md").read_text("utf-8")


def prometheus(metric: telemetry.Metric) -> set[str]:
    """What Prometheus calls a metric (UnderscoreEscapingWithSuffixes)."""
    name = metric.name.replace(".", "_") + {"s": "_seconds", "By": "_bytes"}.get(metric.unit, "")
    if metric.kind == "counter":
        return {name + "_total"}
    return {name + end for end in (("_bucket", "_count", "_sum") if metric.buckets else ("",))}


def test_alerts_and_dashboards_ask_for_metrics_that_exist() -> None:
    """Each name of ours in an alert rule or a dashboard's query is a metric, or one of its
    attributes."""
    known = {name for metric in METRICS for name in prometheus(metric)}
    labels = {a.replace(".", "_") for metric in METRICS for a in metric.attributes}
    folder = REPOSITORY / "collector-config" / "grafana-stack"
    asked = set()
    for path in (folder / "alerts.yaml", *folder.rglob("dashboards/*.json")):
        asked |= set(re.findall(r"\brunalloy_[a-z_]+", path.read_text("utf-8")))
    assert {name for name in asked if name.startswith("runalloy_receiver_")} <= known | labels
    assert asked <= known | labels
    assert {"runalloy_receiver_lag_seconds", "runalloy_receiver_requests_total"} <= asked


def test_values(measured: Measured) -> None:
    """Each event counts where it belongs, once."""
    everything(measured)
    points = measured.points()

    def value(metric: telemetry.Metric, **wanted: Any) -> Any:
        values = [
            p.value
            for p in points[metric.name]
            if {k.replace(".", "_"): v for k, v in p.attributes.items()}.items() >= wanted.items()
        ]
        assert len(values) == 1, values
        return values[0]

    assert value(telemetry.RECEIVED) == 3
    assert value(telemetry.SETTLED) == 2
    assert value(telemetry.REPEATED) == value(telemetry.REJECTED) == 0
    assert value(telemetry.REQUESTS, http_response_status_code=200) == 1
    assert value(telemetry.REQUESTS, http_response_status_code=429, error_type="Throttled") == 1
    for stage in ("alloy", "traces", "checkpoint"):
        assert value(telemetry.RETRIES, runalloy_receiver_stage=stage) == 1
    assert value(telemetry.FAILING, runalloy_receiver_stage="alloy") == 0
    assert value(telemetry.LAG) < 60
    assert value(telemetry.GAP) == 1
    for outcome in events.WEBHOOK_OUTCOMES:
        counted = value(telemetry.WEBHOOK_REPORTS, runalloy_receiver_webhook_outcome=outcome)
        assert counted == (outcome == "kept")
    assert sum(p.count for p in points[telemetry.DELIVERY_SIZE.name]) == 2
    assert sum(p.sum for p in points[telemetry.DELIVERY_DURATION.name]) == pytest.approx(0.04)


def test_executions_are_counted_while_they_are_live(measured: Measured) -> None:
    """An execution that ended within 15 minutes counts with its duration, outcome and error type,
    and its exemplar leads to its span; neither an older one does, nor one whose times stand in for
    others."""
    adjusted = fact(took=9.0, adjusted=True)
    measured.tell(settled(fact(took=2.0), fact("error", took=3.0), fact(ago=901), adjusted))
    points = measured.points()[telemetry.EXECUTION_DURATION.name]
    by_outcome = {p.attributes[semconv.EXECUTION_OUTCOME]: p for p in points}
    assert {k: (p.count, p.sum) for k, p in by_outcome.items()} == {
        "success": (1, 2.0),
        "error": (1, 3.0),
    }
    assert by_outcome["error"].attributes[semconv.ERROR_TYPE] == "executionError"
    assert semconv.ERROR_TYPE not in by_outcome["success"].attributes
    trace_id, span_id = execution_ids("uuid-1")
    (exemplar,) = by_outcome["error"].exemplars
    assert exemplar.trace_id == int.from_bytes(trace_id)
    assert exemplar.span_id == int.from_bytes(span_id)


def test_failures_are_counted_by_block(measured: Measured) -> None:
    """Each live failure whose block is known counts once under the block's name and type, and never
    under an id, of which each user's copy has its own; a failure without a block does not count."""
    named: dict[str, Any] = {"block_name": "Create order", "block_type": "alloy.shopify"}
    measured.tell(
        settled(
            *(fact("error", **named, block_id=f"b-{number}") for number in range(3)),
            fact("error", **named, block_id="b-9", reason_source="webhook"),
            fact("error", block_id="b-8"),
            fact("error", ago=901, **named),
            fact("error"),
            fact(),
        )
    )
    points = measured.points()[telemetry.BLOCK_ERRORS.name]
    common = {telemetry.SOURCE: "one", semconv.WORKFLOW_NAME: "orders"}
    block = {semconv.BLOCK_NAME: "Create order", semconv.BLOCK_TYPE: "alloy.shopify"}
    counted = {tuple(sorted(p.attributes.items())): p.value for p in points}
    assert counted == {
        tuple(sorted((common | more).items())): count
        for more, count in (
            (block, 3),
            (block | {semconv.REASON_SOURCE: "webhook"}, 1),
            ({}, 1),
        )
    }


def test_names_from_outside_cannot_spoil_the_export(measured: Measured) -> None:
    """A workflow name with what no encoder takes, or of any length, becomes a short clean one."""
    measured.tell(settled(fact(workflow="a\ud800b\x00" + "x" * 5000)))
    (point,) = measured.points()[telemetry.EXECUTION_DURATION.name]
    name = point.attributes[semconv.WORKFLOW_NAME]
    assert name.encode().isascii() or name.endswith("…")
    assert len(name) <= 200


def test_no_metric_knows_a_user(place: Place) -> None:
    """Of real traffic, with real users, no attribute value of any metric is theirs."""
    records = place.fill(60, days=0.01)
    settings = place.settings()
    measured = Measured()
    telemetry_ = Telemetry([reader := InMemoryMetricReader()], {}, measured.status)
    Receiver(settings, observe=telemetry_).run(once=True)
    data = reader.get_metrics_data()
    assert data is not None
    text = data.to_json()
    telemetry_.close()
    measured.telemetry.close()
    assert telemetry.EXECUTION_DURATION.name in text
    users = {r["userId"] for r in records if "userId" in r}
    for record in records:
        if isinstance(record.get("user"), dict):
            users |= set(map(str, record["user"].values()))
    assert len(users) > 2
    assert not [user for user in users if user in text]


def test_facts_are_made_only_where_they_count(measured: Measured) -> None:
    """The facts of a batch's executions are made once by metrics, and not at all for a batch of the
    past, for one without executions, or by any other watcher."""
    made = 0

    def ended() -> list[ExecutionFacts]:
        nonlocal made
        made += 1
        return [fact()]

    measured.status(settled(ended=ended))
    past = settled(high=NOW - 901_000, ended=ended)
    measured.telemetry(past)
    measured.telemetry(replace(settled(ended=ended), counts=events.Counts(received=5, repeated=5)))
    assert made == 0
    measured.telemetry(settled(ended=ended))
    assert made == 1


@pytest.mark.parametrize(
    ("environment", "exporters"),
    [
        ({}, []),
        ({"OTEL_METRICS_EXPORTER": "none"}, []),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, ["otlp"]),
        ({"OTEL_METRICS_EXPORTER": " otlp, console"}, ["otlp", "console"]),
        ({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "True"}, []),
    ],
)
def test_which_exporters(environment: dict[str, str], exporters: list[str]) -> None:
    """Metrics are off unless asked for, and OTEL_SDK_DISABLED wins."""
    assert [one.name for one in otlp_exporters(environment).metrics] == exporters


def test_mistakes(place: Place) -> None:
    """An exporter that is not there, and a wrong OTLP variable for metrics, are told at once with
    exit code 2."""
    done = place.command("run", OTEL_METRICS_EXPORTER="statsd")
    assert (done.code, done.out) == (2, "")
    assert "OTEL_METRICS_EXPORTER is 'statsd'" in done.err
    assert "otlp" in done.err
    environment = {
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "pigeon",
    }
    status = Status(["default"], max_lag=900, runtime=system_runtime())
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"):
        settings = place.settings(environment=environment)
        telemetry.open_telemetry(settings, status, "p", time.monotonic)


def test_the_resource(place: Place) -> None:
    """Our own metrics are of the service `otel-alloy`, never of the one that executions have;
    OTEL_RESOURCE_ATTRIBUTES are added. Where one process at a time may use the storage, the
    instance is the same after a restart; replicas are one instance each, also on one machine."""
    settings = place.settings(
        environment={
            "OTEL_SERVICE_NAME": "workflows",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=eu",
        }
    )
    resource = telemetry.resource(settings, "p")
    assert resource["service.name"] == "otel-alloy"
    assert resource["deployment.environment.name"] == "eu"
    assert resource["telemetry.distro.name"] == "otel-alloy"
    assert resource["telemetry.distro.version"] == resource["service.version"] == __version__
    assert resource["telemetry.sdk.name"] == "opentelemetry"
    assert resource == telemetry.resource(settings, "q")
    other = telemetry.resource(place.settings(storage="sqlite:///other.db"), "p")
    assert resource["service.instance.id"] != other["service.instance.id"]
    shared = place.settings(storage="postgresql://user@host/database")
    instances = {telemetry.resource(shared, name)["service.instance.id"] for name in "pq"}
    assert len(instances) == 2


class Sink:
    """Takes OTLP/HTTP metrics on this machine."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], ExportMetricsServiceRequest]] = []
        self._server = Server(("127.0.0.1", 0), SinkHandler, self)
        self.endpoint = self._server.url
        self.close = self._server.stop
        self._server.start("metrics")


class SinkHandler(Handler):
    server: Server[Sink]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        message = ExportMetricsServiceRequest.FromString(body)
        self.server.owner.requests.append((self.path, dict(self.headers.items()), message))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.close()


def test_the_command_sends_its_metrics(place: Place, sink: Sink) -> None:
    """`run --once` with OTEL_METRICS_EXPORTER=otlp sends what it counted before it ends, to where
    OTEL_EXPORTER_OTLP_* say, with their headers; and without it sends none."""
    records = place.fill(30)
    place.once(OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=sink.endpoint + "/v1/metrics")
    assert sink.requests == []
    place.storage.unlink()
    place.once(
        OTEL_METRICS_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=sink.endpoint + "/v1/metrics",
        OTEL_EXPORTER_OTLP_METRICS_HEADERS="x-tenant=ours",
    )
    path, headers, message = sink.requests[-1]
    assert path == "/v1/metrics"
    assert headers["x-tenant"] == "ours"
    (of_resource,) = message.resource_metrics
    assert attributes(of_resource.resource.attributes)["service.name"] == "otel-alloy"
    found = {m.name: m for scope in of_resource.scope_metrics for m in scope.metrics}
    assert found[telemetry.SETTLED.name].sum.data_points[0].as_int == len(records)
    assert telemetry.LAG.name in found


def test_a_backfill_sends_no_metrics(place: Place, sink: Sink) -> None:
    """A backfill runs beside `run` on the same state: its counts would be taken for those of
    `run`, and its executions are of another day."""
    records = place.fill(30)
    done = place.command(
        *("backfill", "--from", "60d", "--own-traces"),
        OTEL_METRICS_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=sink.endpoint + "/v1/metrics",
    )
    assert done.code == 0, done.err
    place.assert_exactly_once(place.ended(records))
    assert sink.requests == []


def test_a_metrics_endpoint_that_is_away(place: Place) -> None:
    """Where metrics cannot be sent, executions are delivered all the same, and the end comes soon;
    the log says it in few lines."""
    records = place.fill(10)
    done = place.once(
        OTEL_METRICS_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT="http://127.0.0.1:1/v1/metrics?key=canary-4711",
        OTEL_METRIC_EXPORT_INTERVAL="100",
    )
    place.assert_exactly_once(place.ended(records))
    assert done.err.count("\n") < 12, done.err
    assert "canary" not in done.err
