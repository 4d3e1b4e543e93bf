"""Kubernetes objects as tests look at them: judged as the API server would, and read as otel-alloy
would find them in its pod.

The judge is a program of our own around the API server's code (`servers/manifests`); no cluster is
asked.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from otel_alloy.observability.health import HealthServer
from otel_alloy.observability.page import Page
from otel_alloy.observability.recent import Recent
from otel_alloy.observability.status import Status
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.loader import load_settings
from otel_alloy.settings.models import Settings

Objects = Sequence[dict[str, Any]]


def judged(manifests: Path, text: str) -> str:
    """What the API server would say against these objects; empty where it takes them as they
    are."""
    done = subprocess.run(
        [manifests, "check", "-"], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    assert (done.returncode == 0) is (not done.stderr)
    return done.stderr


def objects_of(text: str) -> Objects:
    """All objects of a YAML stream."""
    return [one for one in yaml.safe_load_all(text) if one is not None]


def of_kind(objects: Objects, kind: str) -> dict[str, Any]:
    """The only object of ours of that kind."""
    (found,) = [
        one for one in objects if one["kind"] == kind and one["metadata"]["name"] != "postgres"
    ]
    return found


def workload(objects: Objects) -> dict[str, Any]:
    """The object that makes the receiver's pods."""
    kinds = {one["kind"] for one in objects}
    return of_kind(objects, "Deployment" if "Deployment" in kinds else "StatefulSet")


def entries(objects: Objects, kind: str, name: str) -> dict[str, str]:
    """What stands in a Secret or ConfigMap."""
    (found,) = [one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return {**found.get("data", {}), **found.get("stringData", {})}


def settings_in_pod(objects: Objects, folder: Path) -> Settings:
    """The settings that otel-alloy reads in its pod, whose volumes are laid out below `folder`.
    Raises ConfigurationError where it would not start, KeyError where a reference leads nowhere."""
    pod = workload(objects)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    places = [mount["mountPath"] for mount in container["volumeMounts"]]
    for mount in container["volumeMounts"]:
        for name, text in _files(objects, volumes.get(mount["name"], {})):
            file = folder / mount["mountPath"].lstrip("/") / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_moved(text, places, folder))
    given = {}
    for variable in container["env"]:
        value = variable.get("value")
        if value is None:
            key = variable["valueFrom"]["secretKeyRef"]
            value = entries(objects, "Secret", key["name"])[key["key"]]
        given[variable["name"]] = _moved(value, places, folder)
    return load_settings({}, given)


def _files(objects: Objects, volume: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for kind, name in (("secret", "secretName"), ("configMap", "name")):
        if kind in volume:
            held = entries(objects, kind[0].upper() + kind[1:], volume[kind][name])
            items = volume[kind].get("items", [{"key": key, "path": key} for key in held])
            yield from ((item["path"], held[item["key"]]) for item in items)


def _moved(text: str, places: Sequence[str], folder: Path) -> str:
    """The paths below the mounted places, below the folder instead."""
    below = "|".join(map(re.escape, places))
    return re.sub(rf"(?m)(?:^|(?<=[ \"]))(?=(?:{below})(?:/|$))", str(folder), text)


def assert_probes_are_answered(objects: Objects, settings: Settings) -> None:
    """Each probe asks for a path that the health server knows, at the port that it is told, where
    the kubelet can reach it."""
    (container,) = workload(objects)["spec"]["template"]["spec"]["containers"]
    host, _, port = str(settings.health_endpoint).rpartition(":")
    assert host == "0.0.0.0"
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    status = Status([], max_lag=settings.ready_max_lag, runtime=system_runtime())
    page = Page(status.view, Recent(system_runtime()).look, system_runtime().clock)
    server = HealthServer("127.0.0.1:0", status, page)
    try:
        for probe, path in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            asked = container[probe]["httpGet"]
            assert asked["path"] == path
            assert ports.get(asked["port"], asked["port"]) == int(port)
            assert httpx.get(server.url + path).status_code == 200
    finally:
        server.close()


def assert_prometheus_finds_it(objects: Objects, settings: Settings) -> None:
    """The ServiceMonitor leads to the Service, that to the pods, and there to the port at which
    otel-alloy answers, where it can be reached."""
    monitor, service = of_kind(objects, "ServiceMonitor"), of_kind(objects, "Service")
    pod = workload(objects)["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert (
        monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    )
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    (port,) = service["spec"]["ports"]
    assert endpoint["port"] == port["name"]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert settings.otlp.scraped_at == ("0.0.0.0", ports[port["targetPort"]])


def assert_it_may_end_in_peace(objects: Objects, settings: Settings) -> None:
    """The grace period is longer than sources, destinations and, with replicas, leases may take to
    end, each `shutdown_timeout`."""
    pod = workload(objects)["spec"]["template"]["spec"]
    steps = 3 if settings.shared else 2
    assert pod["terminationGracePeriodSeconds"] > steps * settings.shutdown_timeout


def assert_replicas_share(objects: Objects, settings: Settings) -> None:
    """Several replicas stand on PostgreSQL; updates and drained nodes take one at a time, and the
    next one only after the last one has had time for its share."""
    deployment, budget = of_kind(objects, "Deployment"), of_kind(objects, "PodDisruptionBudget")
    spec = deployment["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["replicas"] >= 2
    assert settings.shared
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1},
    }
    assert spec["minReadySeconds"] >= settings.lease
    assert budget["spec"]["maxUnavailable"] == 1
    selectors = [budget["spec"]["selector"], spec["selector"]]
    selectors += [
        one["labelSelector"] for one in spec["template"]["spec"]["topologySpreadConstraints"]
    ]
    for selector in selectors:
        assert selector["matchLabels"].items() <= labels.items()


def assert_one_at_a_time(objects: Objects, settings: Settings) -> None:
    """With SQLite there is one process, and never two: they would read and send the same."""
    found = workload(objects)
    spec = found["spec"]
    assert spec["replicas"] == 1
    assert not settings.shared
    # A StatefulSet ends the old pod before it starts the new one, always.
    assert found["kind"] == "StatefulSet" or spec["strategy"] == {"type": "Recreate"}
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    claims = {v["name"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
    claims |= {one["metadata"]["name"] for one in spec.get("volumeClaimTemplates", [])}
    kept = [m["mountPath"] for m in container["volumeMounts"] if m["name"] in claims]
    storage = settings.storage.removeprefix("sqlite:///")
    assert any(f"{place}/" in storage for place in kept)


def assert_references_meet(objects: Objects) -> None:
    """The pod's account is there, has no token, and nothing else comes along as a setting."""
    pod = workload(objects)["spec"]["template"]["spec"]
    account = of_kind(objects, "ServiceAccount")
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert account["automountServiceAccountToken"] is False
    assert pod["automountServiceAccountToken"] is False
    # A service by that name would otherwise come along as OTEL_ALLOY_PORT, which is no setting.
    assert pod["enableServiceLinks"] is False
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
