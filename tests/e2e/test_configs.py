"""The configuration and the examples that we ship: they parse, they fit together, real servers take
them, and they keep the promise that what is acknowledged is not lost.
"""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_alloy.settings.loader import load_settings
from otel_alloy.testing.otlp_endpoint import OtlpEndpoint, Signal, attributes

from .conftest import (
    CONFIGURATIONS,
    REPOSITORY,
    Collector,
    StartCollector,
    StartJaeger,
    config_arguments,
    free_port,
    wait_until,
)

if TYPE_CHECKING:
    from conftest import Place

EXAMPLES = REPOSITORY / "examples"
STACK = CONFIGURATIONS / "grafana-stack"
COLLECTORS = ["minimal.yaml", "jaeger.yaml", "grafana-stack/collector.yaml"]
BY_CUSTOMER = "by-customer.yaml"  # has no pipelines that personal-data.yaml could go on top of
ROUTING = "by-customer-routing.yaml"
VICTORIALOGS = "victorialogs.yaml"  # goes on top of jaeger.yaml
COMPOSE = sorted(EXAMPLES.glob("*/compose.yaml"))

# What minimal.yaml tells its reader to change, as the Collector takes it on the command line.
TO_A_BACKEND = [
    "yaml:service::extensions: [health_check, file_storage/queue]",
    *(
        f"yaml:service::pipelines::{signal}::exporters: [otlp_http/backend]"
        for signal in ("traces", "logs", "metrics")
    ),
]


def documents(path: Path) -> list[Any]:
    """Every document of a YAML or JSON file."""
    text = path.read_text(encoding="utf-8")
    return [json.loads(text)] if path.suffix == ".json" else list(yaml.safe_load_all(text))


def walk(value: object) -> Iterator[tuple[str, object]]:
    """Every key of a nested structure with its value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key), inner
            yield from walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner)


# --- Files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        path
        for folder in (CONFIGURATIONS, EXAMPLES)
        for path in sorted(folder.rglob("*"))
        if path.suffix in {".yaml", ".json"}
    ],
    ids=lambda path: str(path.relative_to(REPOSITORY)),
)
def test_file_parses(path: Path) -> None:
    parsed = documents(path)
    assert parsed
    assert all(isinstance(document, dict) for document in parsed)


@pytest.mark.parametrize("name", [*COLLECTORS, BY_CUSTOMER, VICTORIALOGS])
def test_collector_acknowledges_only_what_is_safe(name: str) -> None:
    """No batch processor, which acknowledges what it holds in memory; a queue, where there is one,
    is on a disk that is written through, and it never gives up."""
    (config,) = documents(CONFIGURATIONS / name)
    if name == VICTORIALOGS:
        config = documents(CONFIGURATIONS / "jaeger.yaml")[0] | {"exporters": config["exporters"]}
    assert not [part for part in config["processors"] if part.partition("/")[0] == "batch"]
    remote = {k: v for k, v in config["exporters"].items() if k.startswith("otlp_")}
    assert remote
    for exporter in remote.values():
        storage = exporter["sending_queue"]["storage"]
        assert config["extensions"][storage]["fsync"] is True
        assert exporter["retry_on_failure"]["max_elapsed_time"] == "0s"
        # A gRPC server takes 4 MiB in one message.
        batch = exporter["sending_queue"]["batch"]
        assert batch["sizer"] == "bytes"
        assert batch["max_size"] < 4 * 2**20


def test_every_address_can_be_set() -> None:
    """What differs between two places is a variable with a default, never a fixed address."""
    fixed = re.compile(r"^[\w.-]+:\d+$|^https?://")
    for name in [*COLLECTORS, BY_CUSTOMER, VICTORIALOGS, "jaeger/config.yaml"]:
        (config,) = documents(CONFIGURATIONS / name)
        for key, value in walk(config):
            if key in {"endpoint", "logs_endpoint", "directory", "keys", "values", "host", "port"}:
                assert str(value).startswith("${env:"), f"{name}: {key}: {value}"
            assert not fixed.match(str(value)), f"{name}: {key}: {value}"


def test_readme_says_of_each_file_how_far_it_was_run() -> None:
    """Every file stands in the table, itself, with its folder or by a name that is nobody else's,
    with tests that exist; Tempo's and Loki's were run with nothing."""
    readme = (CONFIGURATIONS / "README.md").read_text("utf-8")
    (table,) = re.findall(r"\| file \| run with .*?\n\n", readme, re.DOTALL)
    rows = [[cell.strip() for cell in line.split(" | ")] for line in table.splitlines()[2:] if line]
    named = [name for cells in rows for name in re.findall(r"`([^`]+)`", cells[0])]
    paths = [path for path in CONFIGURATIONS.rglob("*") if path.is_file()]
    names = {path.relative_to(CONFIGURATIONS).as_posix(): path.name for path in paths}
    alone = {name for name, n in Counter(names.values()).items() if n == 1}
    missing = [
        path
        for path, name in names.items()
        if path not in named
        and not (name in alone and name in named)
        and not any(folder.endswith("/") and path.startswith(folder) for folder in named)
    ]
    assert missing == ["README.md"]
    for cells in rows:
        tests = re.findall(r"`(tests/[^`]+)`", cells[3])
        assert tests and all((REPOSITORY / test).is_file() for test in tests), cells
    never = " ".join(cells[0] for cells in rows if "nothing" in cells[1])
    assert "tempo.yaml" in never and "loki.yaml" in never


# --- Compose, systemd, Docker --------------------------------------------------------------------


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.parent.name)
class TestCompose:
    def test_fits_the_specification(self, path: Path) -> None:
        # The package brings the schema along; nothing is fetched.
        pytest.importorskip("check_jsonschema", reason="a part of the development extra")
        schema = ["--builtin-schema", "vendor.compose-spec"]
        done = subprocess.run(
            [sys.executable, "-m", "check_jsonschema", *schema, path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def test_images_are_pinned(self, path: Path) -> None:
        (compose,) = documents(path)
        for name, service in compose["services"].items():
            assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name

    def test_images_are_the_releases_that_the_tests_run(self, path: Path) -> None:
        (manifest,) = documents(Path(__file__).parent / "servers" / "collector-builder.yaml")
        (compose,) = documents(path)
        image = compose["services"]["collector"]["image"]
        assert image.endswith(f"-contrib:{manifest['dist']['version']}")

    def test_mounted_files_exist(self, path: Path) -> None:
        (compose,) = documents(path)
        for name, service in compose["services"].items():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                if source.startswith("."):
                    assert (path.parent / source).exists(), f"{name}: {volume}"
                    assert volume.endswith(":ro"), f"{name}: {volume}"
                else:
                    assert source in compose["volumes"], f"{name}: {volume}"
            if "build" in service:
                context = path.parent / service["build"]["context"]
                assert (context / service["build"]["dockerfile"]).is_file()

    def test_ports_are_open_on_this_host_only(self, path: Path) -> None:
        (compose,) = documents(path)
        ports = [p for service in compose["services"].values() for p in service.get("ports", [])]
        assert ports
        assert all(port.startswith("127.0.0.1:") for port in ports)

    def test_variables_are_read_by_the_mounted_configuration(self, path: Path) -> None:
        """A variable with a spelling mistake would silently leave the default in force."""
        (compose,) = documents(path)
        for name, service in compose["services"].items():
            mounted = [v.split(":")[0] for v in service.get("volumes", []) if v.startswith(".")]
            text = "".join((path.parent / m).read_text() for m in mounted if m.endswith(".yaml"))
            for variable in service.get("environment", {}):
                if text:
                    assert variable in text, f"{name}: {variable}"

    def test_receiver_takes_its_settings(self, path: Path) -> None:
        (compose,) = documents(path)
        environment = compose["services"]["otel-alloy"]["environment"]
        given = {k: re.sub(r"\$\{\w+:-?(.*)\}", r"\1", v) for k, v in environment.items()}
        load_settings({}, {**given, "ALLOY_API_KEY": "a-key"})


def test_systemd_unit_fits_the_receiver() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(EXAMPLES / "systemd" / "otel-alloy.service")
    service = unit["Service"]
    name, _, value = service["Environment"].partition("=")
    lines = (EXAMPLES / "systemd" / "environment.example").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    settings = load_settings({}, {**given, name: value})
    folder = f"/var/lib/{service['StateDirectory']}/"
    assert settings.storage.removeprefix("sqlite:///").startswith(folder)
    assert service["DynamicUser"] == "yes"
    assert service["Type"] == "notify"


# --- Dashboard ------------------------------------------------------------------------------


def test_data_sources_lead_to_each_other() -> None:
    (provisioning,) = documents(
        STACK / "grafana" / "provisioning" / "datasources" / "datasources.yaml"
    )
    sources = {source["uid"]: source for source in provisioning["datasources"]}
    assert set(sources) == {"prometheus", "tempo", "loki"}
    links = {
        (uid, str(value))
        for uid, source in sources.items()
        for key, value in walk(source)
        if key == "datasourceUid"
    }
    assert links == {
        ("prometheus", "tempo"),
        ("tempo", "loki"),
        ("tempo", "prometheus"),
        ("loki", "tempo"),
    }
    (compose,) = documents(EXAMPLES / "grafana" / "compose.yaml")
    for source in sources.values():
        host = httpx.URL(source["url"]).host
        assert host in compose["services"]


# --- Real servers --------------------------------------------------------------------------------


def traces(trace_id: str, *, ended: datetime | None = None) -> ExportTraceServiceRequest:
    """A request with one execution, as otel-alloy sends it; the same arguments, the same bytes."""
    end = int((ended or datetime.now(UTC)).timestamp()) * 10**9
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.attributes.add(key="service.name").value.string_value = "runalloy"
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "otel_alloy"
    span = scope_spans.spans.add(
        trace_id=bytes.fromhex(trace_id),
        span_id=bytes.fromhex(trace_id[:16]),
        name="order sync",
        kind=2,
        start_time_unix_nano=end - 96 * 10**6,
        end_time_unix_nano=end,
    )
    for key, value in {
        "runalloy.workflow.name": "order sync",
        "runalloy.execution.outcome": "success",
        "user.id": "customer-7",
        "user.email": "ann@example.com",
        "user.full_name": "Ann Example",
    }.items():
        span.attributes.add(key=key).value.string_value = value
    return request


def logs(trace_id: str) -> ExportLogsServiceRequest:
    """A request with the log record of one execution."""
    request = ExportLogsServiceRequest()
    resource_logs = request.resource_logs.add()
    resource_logs.resource.attributes.add(key="service.name").value.string_value = "runalloy"
    record = resource_logs.scope_logs.add().log_records.add(
        time_unix_nano=time.time_ns(),
        trace_id=bytes.fromhex(trace_id),
        span_id=bytes.fromhex(trace_id[:16]),
        event_name="runalloy.workflow.execution.finished",
    )
    record.body.string_value = "order sync v1 finished after 96 ms"
    record.attributes.add(key="user.email").value.string_value = "ann@example.com"
    return request


def items(request: ExportTraceServiceRequest | ExportLogsServiceRequest) -> list[Any]:
    """The spans or log records of a request."""
    if isinstance(request, ExportTraceServiceRequest):
        return [r for spans in request.resource_spans for s in spans.scope_spans for r in s.spans]
    return [r for logs in request.resource_logs for s in logs.scope_logs for r in s.log_records]


def post(
    collector: Collector, request: ExportTraceServiceRequest | ExportLogsServiceRequest
) -> httpx.Response:
    """Sends the request over HTTP."""
    signal = "traces" if isinstance(request, ExportTraceServiceRequest) else "logs"
    return httpx.post(
        f"{collector.http}/v1/{signal}",
        content=request.SerializeToString(),
        headers={"Content-Type": "application/x-protobuf"},
        timeout=10,
        trust_env=False,
    )


TRACE = "0af7651916cd43dd8448eb211c80319c"
OTHER_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.e2e
@pytest.mark.parametrize("overlay", [[], ["personal-data.yaml"]], ids=["plain", "personal-data"])
@pytest.mark.parametrize("name", [*COLLECTORS, "minimal.yaml to a backend", BY_CUSTOMER])
def test_collector_takes_the_configuration(
    otelcol_program: Path, name: str, overlay: list[str]
) -> None:
    file, _, to_a_backend = name.partition(" ")
    if file == BY_CUSTOMER:
        overlay = []
    parts = config_arguments([file, *(TO_A_BACKEND if to_a_backend else []), *overlay])
    done = subprocess.run(
        [otelcol_program, "validate", *parts], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("start", "configurations"),
    [("collector", [BY_CUSTOMER]), ("routing_collector", [BY_CUSTOMER, ROUTING])],
    ids=["filters", "routing"],
)
def test_each_customer_gets_what_is_theirs(
    request: pytest.FixtureRequest, start: str, configurations: list[str], place: Place
) -> None:
    """by-customer.yaml, alone and with by-customer-routing.yaml on top, by the older Collector that
    can be had with its connector: what otel-alloy sends with the customer on the resource comes out
    once, at its customer's endpoint or at our own; nothing of one customer reaches another."""
    collector: StartCollector = request.getfixturevalue(start)
    records = place.fill(300, lifecycle="terminal")
    users = Counter(record.get("userId") for record in records)
    (acme, _), (globex, _) = users.most_common(2)
    assert len(users) > 3
    with OtlpEndpoint() as of_acme, OtlpEndpoint() as of_globex:
        running = collector(
            *configurations,
            environment={
                "ACME_USER": str(acme),
                "GLOBEX_USER": str(globex),
                "ACME_ENDPOINT": of_acme.http_endpoint,
                "GLOBEX_ENDPOINT": of_globex.http_endpoint,
                "BACKEND_ENDPOINT": place.otlp.http_endpoint,
            },
        )
        place.once(OTEL_EXPORTER_OTLP_ENDPOINT=running.http, OTEL_ALLOY_RESOURCE_PER="user.id")
        ends = (of_acme, of_globex, place.otlp)
        signals: tuple[Signal, Signal] = ("traces", "logs")
        wait_until(
            lambda: all(sum(len(list(e.items(s))) for e in ends) >= len(records) for s in signals),
            otherwise="not everything came out",
        )
        for signal in signals:
            came = [
                Counter(attributes(i.record.attributes).get("user.id") for i in end.items(signal))
                for end in ends
            ]
            assert came[:2] == [{acme: users[acme]}, {globex: users[globex]}]
            others = {user or None: n for user, n in users.items() if user not in (acme, globex)}
            assert came[2] == others
        assert running.stop() == 0


def test_the_routing_connector_knows_the_same_customers() -> None:
    """by-customer-routing.yaml names the pipelines and the conditions of the file that it goes on
    top of, each customer for both signals."""
    (base,), (over,) = documents(CONFIGURATIONS / BY_CUSTOMER), documents(CONFIGURATIONS / ROUTING)
    pipelines = base["service"]["pipelines"]
    for signal in ("traces", "logs"):
        router = over["connectors"][f"routing/{signal}"]
        routes = [entry["pipelines"] for entry in router["table"]] + [router["default_pipelines"]]
        assert sorted(name for (name,) in routes) == sorted(
            name for name in pipelines if name.startswith(f"{signal}/")
        )
        for entry in router["table"]:
            (name,) = entry["pipelines"]
            customer = name.partition("/")[2]
            ((condition,),) = base["processors"][f"filter/{customer}"][signal].values()
            assert condition == f"resource.{entry['condition']}".replace("==", "!=")
            assert entry["context"] == "resource"
    for name in pipelines.keys() - {"metrics"}:
        changed = over["service"]["pipelines"][name]
        assert changed == {"receivers": [f"routing/{name.partition('/')[0]}"], "processors": []}


@pytest.mark.e2e
def test_minimal_prints_both_signals(collector: StartCollector) -> None:
    running = collector("minimal.yaml")
    assert post(running, traces(TRACE)).status_code == 200
    assert post(running, logs(TRACE)).status_code == 200
    wait_until(lambda: f"order sync {TRACE}" in running.output(), otherwise="no span is printed")
    wait_until(lambda: "after 96 ms" in running.output(), otherwise="no log record is printed")
    assert running.stop() == 0


@pytest.mark.e2e
@pytest.mark.parametrize("signal", ["traces", "logs"])
def test_an_item_that_is_too_large_takes_nothing_else_along(
    collector: StartCollector, signal: Signal
) -> None:
    """minimal.yaml with the changes that it names sends to a backend. Of a request with one item
    above max_size everything else arrives; that is why the README wants 0.163 or newer."""
    too_large, others = "x" * 3_100_000, [f"{number:032x}" for number in range(1, 9)]
    request: Any = traces(TRACE) if signal == "traces" else logs(TRACE)
    request.ClearField(f"resource_{'spans' if signal == 'traces' else 'logs'}")
    for number, trace_id in enumerate(others):
        request.MergeFrom(traces(trace_id) if signal == "traces" else logs(trace_id))
        if number == 2:
            request.MergeFrom(traces(TRACE) if signal == "traces" else logs(TRACE))
            (held,) = items(request)[-1:]
            held.attributes.add(key="payload").value.string_value = too_large
    with OtlpEndpoint() as backend:
        running = collector(
            "minimal.yaml", *TO_A_BACKEND, environment={"BACKEND_ENDPOINT": backend.http_endpoint}
        )
        assert post(running, request).status_code == 200
        wait_until(
            lambda: len(list(backend.items(signal))) >= len(others), otherwise="items are missing"
        )
        came = Counter(item.record.trace_id.hex() for item in backend.items(signal))
        assert came == Counter(others)
        assert running.stop() == 0


@pytest.mark.e2e
def test_personal_data_is_masked(collector: StartCollector) -> None:
    environment = {"DEBUG_VERBOSITY": "detailed"}
    running = collector("minimal.yaml", "personal-data.yaml", environment=environment)
    assert post(running, traces(TRACE)).status_code == 200
    assert post(running, logs(TRACE)).status_code == 200
    wait_until(lambda: "after 96 ms" in running.output(), otherwise="no log record is printed")
    wait_until(lambda: "customer-7" in running.output(), otherwise="no span is printed")
    assert "ann@example.com" not in running.output()
    assert "Ann Example" not in running.output()
    assert running.output().count("user.email: Str(****)") == 2


@pytest.mark.e2e
def test_old_executions_reach_jaeger_and_a_repeat_changes_nothing(
    collector: StartCollector, jaeger: StartJaeger
) -> None:
    backend = jaeger()
    running = collector("jaeger.yaml", environment={"JAEGER_OTLP_ENDPOINT": backend.otlp})
    ended = datetime.now(UTC) - timedelta(days=59)
    for _ in range(2):
        assert post(running, traces(TRACE, ended=ended)).status_code == 200
    assert post(running, logs(TRACE)).status_code == 200
    # Whatever was sent before this one is in the same queue before it.
    assert post(running, traces(OTHER_TRACE)).status_code == 200
    wait_until(
        lambda: bool(backend.trace(TRACE) and backend.trace(OTHER_TRACE)),
        otherwise="Jaeger does not know the traces",
    )
    (span,) = backend.trace(TRACE)
    assert span["name"] == "order sync"
    hour = timedelta(hours=1)
    found = backend.search("runalloy", since=ended - hour, until=ended + hour)
    assert [other["traceId"] for other in found] == [TRACE]


@pytest.mark.e2e
def test_what_is_acknowledged_survives_a_crash(
    collector: StartCollector, jaeger: StartJaeger
) -> None:
    """Jaeger is away, the Collector takes an execution and is killed; both come back."""
    address = f"127.0.0.1:{free_port()}"
    environment = {"JAEGER_OTLP_ENDPOINT": address}
    first = collector("jaeger.yaml", environment=environment)
    assert post(first, traces(TRACE)).status_code == 200
    first.kill()
    backend = jaeger(otlp=address)
    assert backend.trace(TRACE) == []
    collector("jaeger.yaml", environment=environment)
    wait_until(lambda: bool(backend.trace(TRACE)), otherwise="the execution is lost")


@pytest.mark.e2e
def test_full_queue_refuses_with_an_answer_that_asks_for_a_retry(
    collector: StartCollector,
) -> None:
    """Nothing is dropped: otel-alloy waits on 503 and sends again."""
    nobody = {"JAEGER_OTLP_ENDPOINT": f"127.0.0.1:{free_port()}"}
    queue = "exporters::otlp_grpc/jaeger::sending_queue"
    running = collector(
        "jaeger.yaml",
        f"yaml:{queue}::queue_size: 1000",
        f"yaml:{queue}::batch::min_size: 900",
        environment=nobody,
    )
    answers = [post(running, traces(TRACE)).status_code for _ in range(10)]
    assert answers[0] == 200
    assert answers[-1] == 503
    assert set(answers) == {200, 503}


@pytest.mark.e2e
def test_span_metrics_count_recent_executions_only(collector: StartCollector) -> None:
    """Neither what ended long ago nor the blocks of an execution are counted."""
    running = collector(
        "grafana-stack/collector.yaml",
        "yaml:exporters::debug::verbosity: detailed",
        "yaml:service::pipelines::metrics::exporters: [debug]",
        "yaml:connectors::span_metrics::metrics_flush_interval: 200ms",
        environment={"TEMPO_OTLP_ENDPOINT": f"127.0.0.1:{free_port()}"},
    )
    yesterday = datetime.now(UTC) - timedelta(days=1)
    assert post(running, traces(OTHER_TRACE, ended=yesterday)).status_code == 200
    with_block = traces(TRACE)
    spans = with_block.resource_spans[0].scope_spans[0].spans
    block = spans.add(trace_id=spans[0].trace_id, span_id=b"of-block", name="Create customer")
    block.start_time_unix_nano = block.end_time_unix_nano = spans[0].end_time_unix_nano
    block.attributes.add(key="runalloy.block.index").value.int_value = 0
    assert post(running, with_block).status_code == 200
    wait_until(
        lambda: "traces.span.metrics.calls" in running.output(), otherwise="nothing is counted"
    )
    counted = running.output()
    assert "runalloy.workflow.name: Str(order sync)" in counted
    assert f"Trace ID: {TRACE}" in counted
    assert OTHER_TRACE not in counted
    assert "Create customer" not in counted


@pytest.mark.e2e
def test_jaeger_takes_the_configuration(jaeger_program: Path) -> None:
    config = CONFIGURATIONS / "jaeger" / "config.yaml"
    done = subprocess.run(
        [jaeger_program, "validate", "--config", config],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
