"""Real servers for the end-to-end tests: a Collector, Jaeger, VictoriaLogs, Prometheus and
Alertmanager, on ports of this host's loopback.

`servers/build.py` gets the programs; nothing is built here. Where one is missing, the tests that
need it are skipped with the command that brings it. With `CI` in the environment and Go at hand
they fail instead, since there the reason can only be a step that was forgotten.

Every server listens on ports that were free a moment before, keeps what it stores in the test's own
folder, and is stopped when the test ends, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import httpx
import pytest
import yaml

if TYPE_CHECKING:
    from .containers import Built

REPOSITORY = Path(__file__).parents[2]
BUILD = Path(__file__).parent / "servers" / "build.py"
APART = Path(__file__).with_name("apart.py")
COMMAND = Path(sys.executable).with_name("otel-alloy")
CONFIGURATIONS = REPOSITORY / "collector-config"

READY_WITHIN = 60.0
"""Seconds until a server answers. It takes one or two; a busy CI machine may need more."""
STOPS_WITHIN = 20.0
PAUSE = 0.05
STARTS = 3
"""A port that was free may be somebody else's by the time the server asks for it."""


def free_port() -> int:
    """A loopback port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(
    holds: Callable[[], bool],
    *,
    within: float = READY_WITHIN,
    pause: Callable[[float], object] | None = None,
    otherwise: str = "it did not come true",
) -> None:
    """Returns as soon as the condition holds; fails the test if it does not hold in time.

    A pause that watches something else meanwhile, such as a process, may raise to end the wait.
    """
    pause = pause or Event().wait
    deadline = time.monotonic() + within
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"{otherwise} (waited {within:g} s)")
        pause(PAUSE)


class StartError(Exception):
    """A server ended by itself; the message holds the end of what it said."""


@dataclass
class Server:
    """A running program. Its output is in a file, so that no full pipe can stop it."""

    command: Sequence[str | Path]
    environment: Mapping[str, str]
    health: str
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Returns when the server says that it is healthy. Raises StartError if it ends first."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(word) for word in self.command],
                cwd=REPOSITORY,
                env={"PATH": os.environ.get("PATH", ""), **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(
                self.healthy,
                pause=self.still_running,
                otherwise=f"{self.health} is not healthy; {self.log} has the reason",
            )
        except BaseException:
            self.kill()
            raise

    def healthy(self) -> bool:
        """Whether the server answers its health check with 200, now."""
        try:
            # trust_env: a proxy named in the environment has no business on loopback.
            return httpx.get(self.health, timeout=2, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def still_running(self, seconds: float) -> None:
        """Waits so long for the end that must not come, and raises StartError if it comes."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(timeout=seconds)
            raise StartError(f"{self.command[0]} ended with {code}:\n{self.output()[-2000:]}")

    def output(self) -> str:
        """Everything that the server has printed, over all its starts."""
        return self.log.read_text(errors="replace")

    def stop(self) -> int:
        """Asks the server to end, as a service manager would. Returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"{self.command[0]} did not stop within {STOPS_WITHIN:g} s of SIGTERM")

    def kill(self) -> None:
        """Ends the server as a crash would: at once, without a chance to write anything."""
        self.process.kill()
        self.process.wait()


@dataclass
class Collector(Server):
    """An OpenTelemetry Collector with one or more of our configurations."""

    grpc: str = ""
    """host:port of OTLP over gRPC."""
    http: str = ""
    """Base URL of OTLP over HTTP, as OTEL_EXPORTER_OTLP_ENDPOINT takes it."""


@dataclass
class Prometheus(Server):
    """Prometheus, and the questions that tests ask it."""

    url: str = ""
    """Base URL of its API, and of OTLP below `/api/v1/otlp`."""

    def ask(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of its API."""
        url = f"{self.url}/api/v1/{path}"
        answer = httpx.get(url, params=parameters, timeout=10, trust_env=False)
        answer.raise_for_status()
        return answer.json()["data"]

    def value(self, query: str) -> float | None:
        """The value that a query with one series has now; None where it has none."""
        found = self.ask("query", query=query)["result"]
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def alerts(self) -> dict[str, set[str]]:
        """The names of the alerts by state: pending, firing."""
        states: dict[str, set[str]] = {"pending": set(), "firing": set()}
        for alert in self.ask("alerts")["alerts"]:
            states[alert["state"]].add(alert["labels"]["alertname"])
        return states


@dataclass
class Jaeger(Server):
    """Jaeger with our configuration, and the questions that tests ask it."""

    otlp: str = ""
    """host:port of OTLP over gRPC."""
    query: str = ""
    """Base URL of the query API."""

    def trace(self, trace_id: str) -> list[dict[str, Any]]:
        """The spans of one trace in OTLP's JSON form; an empty list if Jaeger has no such trace."""
        return self._spans(f"traces/{trace_id}", {})

    def search(
        self,
        service: str,
        *,
        since: datetime,
        until: datetime,
        operation: str = "",
        attributes: Mapping[str, str] | None = None,
        depth: int = 1000,
    ) -> list[dict[str, Any]]:
        """The spans of the traces that a search for the service and the time finds, and for the
        operation and the attributes where given."""
        between = (
            since.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            until.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        )
        # Jaeger 2.13 asks for the first spelling, later releases for the second.
        asked = {
            "query.service_name": service,
            "query.start_time_min": between[0],
            "query.start_time_max": between[1],
            "query.serviceName": service,
            "query.startTimeMin": between[0],
            "query.startTimeMax": between[1],
            "query.num_traces": str(depth),
            "query.searchDepth": str(depth),
        }
        if operation:
            asked |= {"query.operation_name": operation, "query.operationName": operation}
        if attributes:
            return self._tagged(service, attributes, since, until, depth)
        return self._spans("traces", asked)

    def _tagged(
        self,
        service: str,
        attributes: Mapping[str, str],
        since: datetime,
        until: datetime,
        depth: int,
    ) -> list[dict[str, Any]]:
        """The older search, as the newer one of this release takes no attributes."""
        asked = {
            "service": service,
            "tags": json.dumps(dict(attributes)),
            "start": str(int(since.timestamp() * 1e6)),
            "end": str(int(until.timestamp() * 1e6)),
            "limit": str(depth),
        }
        answer = httpx.get(f"{self.query}/api/traces", params=asked, timeout=10, trust_env=False)
        answer.raise_for_status()
        return [
            {"traceId": span["traceID"], "spanId": span["spanID"]}
            for trace in answer.json()["data"]
            for span in trace["spans"]
        ]

    def _spans(self, path: str, parameters: Mapping[str, str]) -> list[dict[str, Any]]:
        url = f"{self.query}/api/v3/{path}"
        answer = httpx.get(url, params=parameters, timeout=10, trust_env=False)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return []
        answer.raise_for_status()
        return [
            span
            for resource in answer.json()["result"].get("resourceSpans", [])
            for scope in resource["scopeSpans"]
            for span in scope.get("spans", [])  # a scope may be left empty by deduplication
        ]


@dataclass
class VictoriaLogs(Server):
    """VictoriaLogs, and the questions that tests ask it."""

    url: str = ""
    """Base URL, with OTLP below `/insert/opentelemetry`."""

    def ask(self, query: str) -> list[dict[str, str]]:
        """The rows that a query in LogsQL gives over all time. What came in within the last second
        or two may be missing from them."""
        answer = httpx.post(
            f"{self.url}/select/logsql/query", data={"query": query}, timeout=10, trust_env=False
        )
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]

    def metric(self, name: str) -> float:
        """One of its own counters, all label values together."""
        text = httpx.get(f"{self.url}/metrics", timeout=10, trust_env=False).text
        lines = [line for line in text.splitlines() if re.match(rf"{name}[ {{]", line)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


@dataclass
class Alertmanager(Server):
    """Alertmanager, and what it knows."""

    url: str = ""
    """Base URL of its API and page."""

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that fire, as its API tells them."""
        answer = httpx.get(f"{self.url}/api/v2/alerts", timeout=10, trust_env=False)
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()
        return found


AnyServer = TypeVar("AnyServer", bound=Server)


class StartCollector(Protocol):
    """Starts a Collector with a configuration of ours, and overlays that go on top of it.

    Configurations are files below collector-config/ or anything else that the Collector takes
    after `--config`, such as `yaml:…`. The storage folder is the test's own: the second Collector
    with the same `storage` finds the queue of the first.
    """

    def __call__(
        self,
        *configurations: str | Path,
        environment: Mapping[str, str] = {},
        storage: str = "collector",
    ) -> Collector: ...


class StartJaeger(Protocol):
    """Starts Jaeger with our configuration; `otlp` asks for an address, e.g. that of a former one.

    The storage folder is the test's own, and the same for every Jaeger in one test. `in_memory`:
    with that storage instead, which keeps each copy of a span, as others but ours do.
    """

    def __call__(self, *, otlp: str | None = None, in_memory: bool = False) -> Jaeger: ...


class Apart(Protocol):
    """Runs commands as they stand in a folder, with a network and a /var/lib of their own, as
    `apart.py` tells. Each is a command line and the URL that says that it is ready, None where it
    ends by itself. Fails the test where one does not get ready or does not end well, a request is
    refused, or a text is not found at its URL. Returns what all of them said.

    `called`: how build.py calls a program, where it is not what people call it.
    """

    def __call__(
        self,
        folder: Path,
        commands: Sequence[tuple[str, str | None]],
        *,
        posts: Sequence[tuple[str, bytes]] = (),
        found: Sequence[tuple[str, str]] = (),
        called: Mapping[str, str] = {},
    ) -> str: ...


class StartVictoriaLogs(Protocol):
    """Starts VictoriaLogs; `arguments` are flags besides address and folder."""

    def __call__(self, *arguments: str) -> VictoriaLogs: ...


class StartAlertmanager(Protocol):
    """Starts one Alertmanager alone, with a configuration file."""

    def __call__(self, configuration: Path) -> Alertmanager: ...


class StartPrometheus(Protocol):
    """Starts Prometheus with a configuration file; `arguments` are further flags."""

    def __call__(self, configuration: Path, *arguments: str) -> Prometheus: ...


def program(name: str) -> Path:
    """The program's path; skips the test, or fails it in CI, if build.py has none."""
    found = subprocess.run(
        [sys.executable, BUILD, "--where", name],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode == 0:
        return Path(found.stdout.rstrip("\n").partition("\t")[2])
    missing = f"no {name} here: run `python {BUILD.relative_to(REPOSITORY)}`"
    if os.environ.get("CI") and shutil.which("go"):
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def otelcol_program() -> Path:
    """The Collector's program."""
    return program("otelcol")


@pytest.fixture(scope="session")
def jaeger_program() -> Path:
    """Jaeger's program."""
    return program("jaeger")


@pytest.fixture(scope="session")
def otelcol_routing_program() -> Path:
    """The older Collector that has the routing connector."""
    return program("otelcol-routing")


@pytest.fixture(scope="session")
def victorialogs_program() -> Path:
    """VictoriaLogs's program."""
    return program("victoria-logs")


@pytest.fixture(scope="session")
def alertmanager_program() -> Path:
    """Alertmanager's program."""
    return program("alertmanager")


@pytest.fixture(scope="session")
def amtool() -> Path:
    """The program that checks Alertmanager's configuration, and says which way an alert goes."""
    return program("amtool")


@pytest.fixture(scope="session")
def promtool() -> Path:
    """The program that checks and tests Prometheus's rules."""
    return program("promtool")


@pytest.fixture(scope="session")
def manifests() -> Path:
    """The program that judges Kubernetes manifests."""
    return program("manifests")


@pytest.fixture(scope="session")
def helm() -> Path:
    """Helm."""
    return program("helm")


@pytest.fixture(scope="session")
def prometheus_program() -> Path:
    """Prometheus's program."""
    return program("prometheus")


def needs_namespaces(*programs: str) -> None:
    """Skips where this is not root, a program is missing, or the kernel gives no namespaces. Root
    in CI fails instead: the gate installs the programs."""
    missing = [name for name in programs if shutil.which(name) is None]
    if os.geteuid() != 0:
        pytest.skip("needs root")
    apart = ["unshare", "--mount", "--pid", "--net", "--fork", "true"]
    if shutil.which("unshare") is None or subprocess.run(apart, capture_output=True).returncode:
        missing.append("namespaces")
    if missing:
        words = f"without {', '.join(missing)} (Debian: `apt-get install runc iproute2 systemd`)"
        if os.environ.get("CI"):
            pytest.fail(words)
        pytest.skip(words)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The image of examples/docker, built once for all processes of pytest."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    needs_namespaces("runc", "ip")
    from .containers import build_once

    return build_once(shared / "image", program("buildkitd"), program("buildctl"))


def config_arguments(configurations: Sequence[str | Path]) -> list[str]:
    """The `--config` arguments for files of ours and for anything that names its own scheme."""
    return [
        f"--config={CONFIGURATIONS / part if isinstance(part, Path) or ':' not in part else part}"
        for part in configurations
    ]


class Running:
    """The servers that a test has started; stops them in reverse order, those that still run."""

    def __init__(self) -> None:
        self.servers: list[Server] = []

    def start(self, make: Callable[[], AnyServer]) -> AnyServer:
        """Makes a server, with new ports each time, until one starts."""
        for attempt in range(STARTS):
            server = make()
            try:
                server.start()
            except StartError as error:
                if "address already in use" not in str(error) or attempt == STARTS - 1:
                    raise
            else:
                self.servers.append(server)
                return server
        raise AssertionError("unreachable")

    def stop_all(self) -> None:
        """Kills what the test left running; a test that wants an orderly end stops it itself."""
        for server in reversed(self.servers):
            if server.process.poll() is None:
                server.kill()


@pytest.fixture(scope="session")
def unshare() -> list[str]:
    """The command that gives another one a network and mounts of its own; skips the test where
    that is not allowed, or fails it where OTEL_ALLOY_TEST_NAMESPACES is `required`."""
    words = ["unshare", "--map-root-user", "--net", "--mount"]
    try:
        done = subprocess.run([*words, "true"], capture_output=True, text=True, check=False)
        why = done.stderr.strip() if done.returncode else ""
    except FileNotFoundError:
        why = "there is no unshare"
    if why and os.environ.get("OTEL_ALLOY_TEST_NAMESPACES") == "required":
        pytest.fail(f"no network of one's own can be had here: {why}")
    if why:
        pytest.skip(f"no network of one's own can be had here: {why}")
    return words


@pytest.fixture
def apart(unshare: list[str], tmp_path: Path) -> Apart:
    """Runs commands apart from this machine."""

    def run(
        folder: Path,
        commands: Sequence[tuple[str, str | None]],
        *,
        posts: Sequence[tuple[str, bytes]] = (),
        found: Sequence[tuple[str, str]] = (),
        called: Mapping[str, str] = {},
    ) -> str:
        names = {"otelcol-contrib": "otelcol", **called}
        programs = tmp_path / "programs"
        programs.mkdir()
        # The first word that is neither `env` nor a variable.
        for name in {re.sub(r"^env (\S+=\S* )+", "", line).split()[0] for line, _ in commands}:
            ours = name == "otel-alloy"
            (programs / name).symlink_to(COMMAND if ours else program(names.get(name, name)))
        done = subprocess.run(
            [*unshare, sys.executable, APART],
            input=json.dumps(
                {
                    "folder": str(folder),
                    "commands": commands,
                    "posts": [(url, body.hex()) for url, body in posts],
                    "found": found,
                }
            ),
            env={"PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        ends = "\n".join(f"$ {end['command']}\n{end['said'][-3000:]}" for end in told["commands"])
        assert not told["wrong"], f"{told['wrong']}\n{ends}"
        codes = {end["command"]: end["code"] for end in told["commands"]}
        assert codes == {line: 0 for line, _ in commands}, ends
        return "\n".join(end["said"] for end in told["commands"])

    return run


@pytest.fixture
def running() -> Iterator[Running]:
    """Stops every server of this test, also when the test failed."""
    servers = Running()
    try:
        yield servers
    finally:
        servers.stop_all()


def collectors(program: Path, running: Running, folder: Path) -> StartCollector:
    """Starts Collectors of this program, which keep what they store below the folder."""

    def start(
        *configurations: str | Path,
        environment: Mapping[str, str] = {},
        storage: str = "collector",
    ) -> Collector:
        def make() -> Collector:
            grpc, http, health, metrics = (free_port() for _ in range(4))
            return Collector(
                command=[program, *config_arguments(configurations)],
                environment={
                    "COLLECTOR_GRPC_ENDPOINT": f"127.0.0.1:{grpc}",
                    "COLLECTOR_HTTP_ENDPOINT": f"127.0.0.1:{http}",
                    "COLLECTOR_HEALTH_ENDPOINT": f"127.0.0.1:{health}",
                    "COLLECTOR_METRICS_PORT": str(metrics),
                    "COLLECTOR_STORAGE": str(folder / storage),
                    **environment,
                },
                health=f"http://127.0.0.1:{health}/",
                log=folder / f"{storage}.log",
                grpc=f"127.0.0.1:{grpc}",
                http=f"http://127.0.0.1:{http}",
            )

        return running.start(make)

    return start


@pytest.fixture
def collector(otelcol_program: Path, running: Running, tmp_path: Path) -> StartCollector:
    """Starts Collectors."""
    return collectors(otelcol_program, running, tmp_path)


@pytest.fixture
def routing_collector(
    otelcol_routing_program: Path, running: Running, tmp_path: Path
) -> StartCollector:
    """Starts Collectors that have the routing connector."""
    return collectors(otelcol_routing_program, running, tmp_path)


@pytest.fixture
def jaeger(jaeger_program: Path, running: Running, tmp_path: Path) -> StartJaeger:
    """Starts Jaegers."""

    def start(*, otlp: str | None = None, in_memory: bool = False) -> Jaeger:
        config = CONFIGURATIONS / "jaeger" / "config.yaml"
        if in_memory:
            settings = yaml.safe_load(config.read_text("utf-8"))
            backends = settings["extensions"]["jaeger_storage"]["backends"]
            backends["main"] = {"memory": {"max_traces": 10_000}}
            config = tmp_path / "jaeger-in-memory.yaml"
            config.write_text(yaml.safe_dump(settings), "utf-8")

        def make() -> Jaeger:
            query, query_grpc, health = (free_port() for _ in range(3))
            address = otlp or f"127.0.0.1:{free_port()}"
            return Jaeger(
                command=[jaeger_program, "--config", config],
                environment={
                    "JAEGER_OTLP_ENDPOINT": address,
                    "JAEGER_QUERY_ENDPOINT": f"127.0.0.1:{query}",
                    "JAEGER_QUERY_GRPC_ENDPOINT": f"127.0.0.1:{query_grpc}",
                    "JAEGER_HEALTH_ENDPOINT": f"127.0.0.1:{health}",
                    "JAEGER_STORAGE": str(tmp_path / "jaeger"),
                    "JAEGER_UI_CONFIG": str(CONFIGURATIONS / "jaeger" / "config-ui.json"),
                },
                health=f"http://127.0.0.1:{health}/status",
                log=tmp_path / "jaeger.log",
                otlp=address,
                query=f"http://127.0.0.1:{query}",
            )

        return running.start(make)

    return start


@pytest.fixture
def victorialogs(victorialogs_program: Path, running: Running, tmp_path: Path) -> StartVictoriaLogs:
    """Starts VictoriaLogs."""

    def start(*arguments: str) -> VictoriaLogs:
        def make() -> VictoriaLogs:
            address = f"127.0.0.1:{free_port()}"
            return VictoriaLogs(
                command=[
                    victorialogs_program,
                    f"-httpListenAddr={address}",
                    f"-storageDataPath={tmp_path / 'victorialogs'}",
                    *arguments,
                ],
                environment={},
                health=f"http://{address}/health",
                log=tmp_path / "victorialogs.log",
                url=f"http://{address}",
            )

        return running.start(make)

    return start


@pytest.fixture
def alertmanager(alertmanager_program: Path, running: Running, tmp_path: Path) -> StartAlertmanager:
    """Starts Alertmanager."""

    def start(configuration: Path) -> Alertmanager:
        def make() -> Alertmanager:
            address = f"127.0.0.1:{free_port()}"
            return Alertmanager(
                command=[
                    alertmanager_program,
                    f"--config.file={configuration}",
                    f"--web.listen-address={address}",
                    f"--storage.path={tmp_path / 'alertmanager'}",
                    "--cluster.listen-address=",
                ],
                environment={},
                health=f"http://{address}/-/ready",
                log=tmp_path / "alertmanager.log",
                url=f"http://{address}",
            )

        return running.start(make)

    return start


@pytest.fixture
def prometheus(prometheus_program: Path, running: Running, tmp_path: Path) -> StartPrometheus:
    """Starts Prometheus."""

    def start(configuration: Path, *arguments: str) -> Prometheus:
        def make() -> Prometheus:
            address = f"127.0.0.1:{free_port()}"
            return Prometheus(
                command=[
                    prometheus_program,
                    f"--config.file={configuration}",
                    f"--web.listen-address={address}",
                    f"--storage.tsdb.path={tmp_path / 'prometheus'}",
                    *arguments,
                ],
                environment={},
                health=f"http://{address}/-/ready",
                log=tmp_path / "prometheus.log",
                url=f"http://{address}",
            )

        return running.start(make)

    return start
