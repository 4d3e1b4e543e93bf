"""What the tests of the whole command share: an Alloy, an OTLP endpoint and a folder.

The command is the installed `otel-alloy`, started as people start it. Alloy and the endpoint
listen on sockets of the test process, so a test can look at every request and answer it as it
likes. Nothing here asserts anything about otel-alloy.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from otel_alloy.mapping import semconv
from otel_alloy.pipeline.receiver import Receiver
from otel_alloy.settings.models import Settings
from otel_alloy.testing.otlp_endpoint import Answer, OtlpEndpoint, Received, Signal, attributes
from otel_alloy.testing.postgres_server import (
    PgBouncer,
    PostgresServer,
    installed_servers,
    pgbouncer,
)
from otel_alloy.testing.simulator import Record, Simulator, Traffic, generate


def pytest_configure(config: pytest.Config) -> None:
    """Properties are tried with the same examples each time, so that what a change breaks is told
    from what it only happens to meet; the nightly size looks for new ones. A shell lets what it
    starts in the background ignore SIGINT, as would what we start."""
    nightly = os.environ.get("OTEL_ALLOY_TEST_SCALE", "").lower() == "nightly"
    hypothesis.settings.register_profile(
        "otel-alloy",
        derandomize=not nightly,
        deadline=None,  # the machine may have other work
    )
    hypothesis.settings.load_profile("otel-alloy")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
"""What reads the registry of names is there: `import registry`."""
COMMAND = Path(sys.executable).with_name("otel-alloy")
PATIENCE = 120.0
"""Seconds until a command that does not end fails its test; none needs a tenth of it."""
KEY = "key-of-the-tests"
TERMINAL = ("executionFinished", "executionError")


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str


class Place:
    """One Alloy, one OTLP endpoint, and one folder with the checkpoint."""

    def __init__(self, folder: Path, *, grpc: bool = False) -> None:
        self.folder = folder
        self.storage = folder / "checkpoint.db"
        self.now = 1_760_000_000.0
        """Seconds since the epoch by Alloy's clock; it stands still unless a test moves it."""
        self.alloy = Simulator(clock=lambda: self.now)
        self.judge: Callable[[Received], Answer | None] = lambda received: None
        """How the OTLP endpoint answers; None is a plain success."""
        self.otlp = OtlpEndpoint(lambda received: self.judge(received), grpc=grpc)
        self.environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(folder),
            "ALLOY_API_KEY": KEY,
            "OTEL_ALLOY_STORAGE": f"sqlite:///{self.storage}",
            "OTEL_ALLOY_REQUESTS_PER_MINUTE": "0",
            "OTEL_ALLOY_HEALTH_ENDPOINT": "",  # no fixed port
            "OTEL_ALLOY_ENRICH": "off",
        }
        self._started: list[subprocess.Popen[str]] = []

    def fill(
        self, executions: int, *, tied: int = 0, days: float = 59, **traffic: Any
    ) -> list[Record]:
        """Puts executions of the last `days` into Alloy's log and returns their records, oldest
        first. The ends of `tied` executions in the middle get one and the same createdAt."""
        records = sorted(
            generate(
                executions,
                start=self.now - days * 86400,
                end=self.now - 300,
                traffic=Traffic(**traffic),
            ),
            key=lambda record: str(record["createdAt"]),
        )
        ends = [r for r in records if r["message"] in TERMINAL]
        middle = ends[(len(ends) - tied) // 2 :][:tied]
        for record in middle:
            record["createdAt"] = middle[-1]["createdAt"]
        for record in records:
            self.alloy.store.add(record)
        return records

    @staticmethod
    def ended(records: Iterable[Record]) -> list[str]:
        """The executions whose end is among the records, once for each such record."""
        return [r["data"]["executionId"] for r in records if r["message"] in TERMINAL]

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Starts `otel-alloy` with these words and, besides the usual ones, these variables."""
        process = subprocess.Popen(
            [str(COMMAND), *words],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def command(self, *words: str, **environment: str) -> Finished:
        """Runs `otel-alloy` to its end."""
        return self.end(self.start(*words, **environment))

    def end(self, process: subprocess.Popen[str], within: float = PATIENCE) -> Finished:
        """Waits for the end of a command. Raises TimeoutExpired where it does not come."""
        out, err = process.communicate(timeout=within)
        return Finished(process.returncode, out, err)

    def once(self, *words: str, **environment: str) -> Finished:
        """`otel-alloy run --once --since 60d`, which has to succeed."""
        done = self.command("run", "--once", "--since", "60d", *words, **environment)
        assert done.code == 0, done.err
        return done

    def settings(self, **changes: Any) -> Settings:
        """The same as a library has it."""
        given = {
            "api_key": KEY,
            "endpoint": self.alloy.endpoint,
            "storage": f"sqlite:///{self.storage}",
            "requests_per_minute": 0,
            "enrich": "off",
            "since": "60d",
            "environment": {"OTEL_EXPORTER_OTLP_ENDPOINT": self.otlp.http_endpoint},
        }
        return Settings.model_validate(given | changes)

    def receive(self, **changes: Any) -> None:
        """One cycle of the library, in this process."""
        Receiver(self.settings(**changes)).run(once=True)

    def sent(self, signal: Signal) -> Counter[str]:
        """How often each execution (by its executionId) arrived as a span or log record."""
        return Counter(
            attributes(item.record.attributes)[semconv.EXECUTION_ID]
            for item in self.otlp.items(signal)
        )

    def bytes_sent(self, signal: Signal) -> Counter[bytes]:
        """How often each span or log record arrived, by its bytes."""
        return Counter(
            item.record.SerializeToString(deterministic=True) for item in self.otlp.items(signal)
        )

    def assert_exactly_once(self, executions: Iterable[str]) -> None:
        """Fails unless each of the executions, and no other, arrived once as span and as log."""
        wanted = Counter(executions)
        for kind in ("traces", "logs"):
            sent = self.sent(kind)
            lost, more = wanted - sent, sent - wanted
            assert not lost, f"{kind}: {len(lost)} of {len(wanted)} lost, e.g. {list(lost)[:3]}"
            assert not more, f"{kind}: {len(more)} sent too often, e.g. {list(more)[:3]}"

    def rejected(self) -> list[dict[str, Any]]:
        """What `otel-alloy rejected list --json` shows."""
        listed = self.command("rejected", "list", "--json")
        assert listed.code == 0, listed.err
        records: list[dict[str, Any]] = json.loads(listed.out)
        return records

    def __enter__(self) -> Place:
        self.alloy.start()
        self.otlp.__enter__()
        self.environment["ALLOY_ENDPOINT"] = self.alloy.endpoint
        self.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = self.otlp.http_endpoint
        return self

    def __exit__(self, *error: Any) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.alloy.stop()
        self.otlp.__exit__(*error)


@pytest.fixture(scope="module", autouse=True)
def _nothing_left_open() -> Iterator[None]:
    """What a test leaves open is told of where it was left, and not, by chance, in a later test:
    Python 3.13 says it of databases too, when they are collected."""
    yield
    gc.collect()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """An empty Alloy, an OTLP/HTTP endpoint that takes everything, and no checkpoint yet."""
    with Place(tmp_path) as here:
        yield here


@pytest.fixture
def grpc_place(tmp_path: Path) -> Iterator[Place]:
    """The same, and what is started sends over gRPC."""
    with Place(tmp_path, grpc=True) as here:
        here.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = here.otlp.grpc_endpoint
        here.environment["OTEL_EXPORTER_OTLP_PROTOCOL"] = "grpc"
        yield here


ORDERS = Path(__file__).parents[1] / "examples" / "correlate" / "python"
INSTRUMENT = Path(sys.executable).with_name("opentelemetry-instrument")


@contextmanager
def run_order_service(otlp: str) -> Iterator[str]:
    """The order service as its README starts it, on a free port; its URL."""
    assert INSTRUMENT.exists(), "install the extra `dev`: `make test` does"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = subprocess.Popen(
            [INSTRUMENT, "uvicorn", "orders:app", "--fd", str(listening.fileno())],
            cwd=ORDERS,
            env={
                "PATH": f"{INSTRUMENT.parent}{os.pathsep}{os.environ['PATH']}",
                "PYTHONDONTWRITEBYTECODE": "1",
                "OTEL_PROPAGATORS": "tracecontext,baggage,alloy",
                "OTEL_EXPORTER_OTLP_ENDPOINT": otlp,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[listening.fileno()],
        )
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            with urllib.request.urlopen(f"{url}/openapi.json", timeout=PATIENCE) as got:
                assert got.status == 200
            yield url
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def order_service() -> Callable[[str], AbstractContextManager[str]]:
    """Runs the example's order service under `opentelemetry-instrument`; its spans go to the OTLP
    address (gRPC) that it is called with, and it gives the service's URL."""
    return run_order_service


ENGINES = ("sqlite", "postgres oldest", "postgres newest", "pgbouncer")
"""What a checkpoint can lie in; see `storage`. Oldest and newest are those of this machine."""


def _missing(what: str) -> None:
    """Skips a test; fails it where the gate has seen to it that nothing is missing."""
    if os.environ.get("OTEL_ALLOY_TEST_POSTGRES") == "required":
        pytest.fail(f"{what} is not there")
    pytest.skip(f"{what} is not installed")


class Servers:
    """PostgreSQL servers by major version, started when first asked for."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._servers: dict[int, PostgresServer] = {}
        self._pooler: PgBouncer | None = None
        self._schemas = 0

    def server(self, which: int = 0) -> PostgresServer:
        """The oldest (0) or newest (-1) that this machine has."""
        found = installed_servers()
        if not found:
            _missing("PostgreSQL")
        major = list(found)[which]
        if major not in self._servers:
            server = PostgresServer(found[major])
            self._servers[major] = self._stack.enter_context(server)
        return self._servers[major]

    def pooler(self) -> PgBouncer:
        """PgBouncer before the oldest server."""
        if pgbouncer() is None:
            _missing("PgBouncer")
        if self._pooler is None:
            self._pooler = self._stack.enter_context(PgBouncer(self.server()))
        return self._pooler

    def storage(self, engine: str, folder: Path) -> str:
        """The URL of an empty checkpoint in one of ENGINES."""
        if engine == "sqlite":
            return f"sqlite:///{folder}/store.db"
        self._schemas += 1
        if engine == "pgbouncer":
            url = self.pooler().url
        else:
            url = self.server(-1 if engine == "postgres newest" else 0).url
        return f"{url}?schema=test_{self._schemas}"


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Real servers, for all tests of this process."""
    with ExitStack() as stack:
        yield Servers(stack)


@pytest.fixture(params=ENGINES)
def storage(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> str:
    """The URL of an empty checkpoint, in each engine."""
    return servers.storage(request.param, tmp_path)
