"""The compose files: read by compose's own library, and run with the commands of their READMEs,
each service by runc in a network as compose would give it. otel-alloy is the image of
examples/docker; Collector, Jaeger, Prometheus and Alertmanager are built from source, so their
images are not proved. Tempo, Loki and Grafana are not run."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from .composed import Composed, resolved
from .conftest import REPOSITORY, wait_until
from .containers import Built, Image

pytestmark = pytest.mark.e2e

EXAMPLES = REPOSITORY / "examples"
SERVICES = {"jaeger": set(), "grafana": {"tempo", "loki", "grafana"}}
"""The examples, and their services that are not run."""


def commands(example: str) -> list[tuple[dict[str, str], list[str]]]:
    """Variables and profiles of each `docker compose up` in an example's README."""
    found = []
    for line in re.findall(
        r"^(.*docker compose .*up\b.*)$", (EXAMPLES / example / "README.md").read_text(), re.M
    ):
        before, after = line.split("docker compose ")
        given = dict(word.split("=", 1) for word in shlex.split(before))
        words = shlex.split(after)
        profiles = [words[i + 1] for i, word in enumerate(words) if word == "--profile"]
        assert [w for w in words if w not in (*profiles, "--profile")] == ["up", "--build"]
        found.append((given, profiles))
    return found


def of_program(program: Path, root: Path, **config: Any) -> Image:
    """An image with one program in it, which needs nothing else."""
    (root / "etc").mkdir(parents=True)
    shutil.copy(program, root / "program")
    for place, owner in config.pop("owned", {}).items():
        (root / place).mkdir()
        shutil.chown(root / place, owner, owner)
    return Image(root, {"Entrypoint": ["/program"], **config})


@pytest.mark.parametrize("example", SERVICES)
def test_compose_reads_it(manifests: Path, example: str) -> None:
    """With every command of the README; without a key it says what to set. What it mounts is there,
    what it builds is there, and nothing is opened but on the loopback."""
    file = EXAMPLES / example / "compose.yaml"
    with pytest.raises(AssertionError, match="set it to your Alloy API key"):
        resolved(manifests, file, [], {})
    told = commands(example)
    assert len(told) == 2
    for given, profiles in told:
        project = resolved(manifests, file, profiles, given)
        assert ("simulated-alloy" in project["services"]) is ("simulated" in profiles)
        for service in project["services"].values():
            for mount in service.get("volumes", []):
                if mount["type"] == "bind":
                    assert Path(mount["source"]).exists() and mount["read_only"] is True
                else:
                    assert mount["source"] in project["volumes"]
            for port in service.get("ports", []):
                assert port["host_ip"] == "127.0.0.1"
            if "build" in service:
                context = Path(service["build"]["context"])
                assert (context / service["build"]["dockerfile"]).is_file()


@pytest.fixture
def images(
    built: Built,
    otelcol_program: Path,
    jaeger_program: Path,
    prometheus_program: Path,
    alertmanager_program: Path,
    tmp_path: Path,
) -> Mapping[str, Image]:
    """By the names that the files use."""
    return {
        "otel-alloy": built.image,
        "otel/opentelemetry-collector-contrib": of_program(otelcol_program, tmp_path / "otelcol"),
        "jaegertracing/jaeger": of_program(jaeger_program, tmp_path / "jaeger"),
        **{
            f"prom/{program.name}": of_program(
                program, tmp_path / program.name, User="65534:65534", owned={program.name: 65534}
            )
            for program in (prometheus_program, alertmanager_program)
        },
    }


def composed(example: str, manifests: Path, images: Mapping[str, Image], folder: Path) -> Composed:
    """The example with simulated executions, as its README has it."""
    given, profiles = commands(example)[1]
    assert profiles == ["simulated"]
    project = resolved(manifests, EXAMPLES / example / "compose.yaml", profiles, given)
    folder.mkdir()
    found = Composed(project, images, folder)
    assert set(found.left_out) == SERVICES[example]
    return found


def until_there(stack: Composed, host: str, port: int, path: str, wanted: str) -> None:
    """Waits until a host's answer has what is wanted."""
    try:
        wait_until(
            lambda: wanted in str(stack.network.get(host, port, path)),
            within=120,
            otherwise=f"{host} has no {wanted}",
        )
    except BaseException:
        print(stack.said())
        raise


def test_jaeger(manifests: Path, images: Mapping[str, Image], tmp_path: Path) -> None:
    """Simulated executions come out in Jaeger; otel-alloy and all others go on."""
    with composed("jaeger", manifests, images, tmp_path / "stack") as stack:
        until_there(stack, "jaeger", 16686, "/api/v3/services", "runalloy")
        wait_until(stack.containers["otel-alloy"].healthy, otherwise="not healthy")
        running = {name: one.running() for name, one in stack.containers.items()}
        assert set(running) == {"otel-alloy", "simulated-alloy", "collector", "jaeger"}
        assert all(running.values()), stack.said()


def test_grafana(manifests: Path, images: Mapping[str, Image], tmp_path: Path) -> None:
    """The receiver's own metrics and those of the executions come out in Prometheus, which has the
    alerts and whom to tell of them; spans and log records stay in the Collector's queue, as nobody
    is there to take them."""
    with composed("grafana", manifests, images, tmp_path / "stack") as stack:
        query = "/api/v1/query?query="
        for metric in ("runalloy_receiver_lag_seconds", "traces_span_metrics_calls_total"):
            until_there(stack, "prometheus", 9090, query + metric, metric)
        until_there(stack, "prometheus", 9090, "/api/v1/alertmanagers", "alertmanager:9093")
        until_there(stack, "alertmanager", 9093, "/api/v2/status", "runalloy_receiver_source")
        rules = stack.network.get("prometheus", 9090, "/api/v1/rules")
        assert "'name': '" in str(rules) and "'health': 'err'" not in str(rules)
        assert all(one.running() for one in stack.containers.values()), stack.said()
