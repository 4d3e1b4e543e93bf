"""The Helm chart: Helm renders it, an API server would take what comes of it, and otel-alloy what
that tells it. Alerts, settings and documentation are those of the repository."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import CONFIGURATIONS, REPOSITORY
from .kubernetes import (
    assert_it_may_end_in_peace,
    assert_one_at_a_time,
    assert_probes_are_answered,
    assert_prometheus_finds_it,
    assert_references_meet,
    assert_replicas_share,
    judged,
    objects_of,
    of_kind,
    settings_in_pod,
    workload,
)

sys.path.insert(0, str(REPOSITORY / "docs"))
from chart_values import CHART, rows

SHARED = {"replicas": 3, "postgresql": {"secret": "database"}}
KEYS = "/run/secrets/otel-alloy"
VALUES: dict[str, dict[str, Any]] = {
    "default": {},
    "one account, replicas": SHARED,
    "many accounts": {
        **SHARED,
        "alloy": {"secret": "keys", "key": ""},
        "settings": {
            "shutdown_timeout": "1m30s",
            "lease": "40s",
            "sources": [
                {"name": "production", "api_key_file": f"{KEYS}/production"},
                {"name": "staging", "api_key_file": f"{KEYS}/staging", "page_size": 30},
            ],
        },
    },
    "destinations in a Secret": {
        "destinations": {"secret": "customers"},
        "metrics": False,
        "settings": {"shutdown_timeout": 5},
        "env": [{"name": "OTEL_ALLOY_SHUTDOWN_TIMEOUT", "value": "20.5"}],
    },
    "scraped": {
        **SHARED,
        "serviceMonitor": {
            "enabled": True,
            "labels": {"release": "prometheus"},
            "interval": "30s",
        },
        "networkPolicy": {
            "enabled": True,
            "metricsFrom": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}],
        },
    },
    "destinations in a ConfigMap": {**SHARED, "destinations": {"configMap": "customers"}},
    "everything": {
        **SHARED,
        "image": {"repository": "registry.example.com/a", "digest": f"sha256:{'0' * 64}"},
        "imagePullSecrets": [{"name": "registry"}],
        "env": [
            {
                "name": "OTEL_EXPORTER_OTLP_HEADERS",
                "valueFrom": {"secretKeyRef": {"name": "collector", "key": "headers"}},
            },
            {"name": "OTEL_ALLOY_OWN_TRACES", "value": "true"},
        ],
        "sqlite": {"storageClass": "fast"},
        "serviceAccount": {"annotations": {"a": "b"}},
        "networkPolicy": {
            "enabled": True,
            "healthFrom": [{"podSelector": {"matchLabels": {"app": "look"}}}],
        },
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "podAnnotations": {"a": "1"},
        "podLabels": {"team": "platform"},
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 1,
                        "preference": {"matchExpressions": [{"key": "x", "operator": "Exists"}]},
                    }
                ]
            }
        },
        "priorityClassName": "high",
    },
}
CUSTOMER = "match: {user.id: '1'}\notlp: {endpoint: https://otlp.example.com}\n"
REFERRED: list[dict[str, Any]] = [
    {"kind": kind, "metadata": {"name": name}, "stringData": entries}
    for kind, name, entries in (
        ("Secret", "otel-alloy", {"ALLOY_API_KEY": "a-key"}),
        ("Secret", "keys", {"production": "a-key", "staging": "another"}),
        ("Secret", "database", {"storage": "postgresql://a:b@postgres/c"}),
        ("Secret", "collector", {"headers": "authorization=x"}),
        ("Secret", "customers", {"acme.yaml": CUSTOMER}),
        ("ConfigMap", "customers", {"acme.yaml": CUSTOMER}),
    )
]
"""What the chart does not make, and names."""


def helm_run(helm: Path, folder: Path, values: Mapping[str, Any], *words: str) -> str:
    """What Helm prints, or where it refuses, its words."""
    file = folder / "values.json"
    file.write_text(json.dumps(values))  # which is YAML, too
    done = subprocess.run(
        [helm, *words, CHART, "--values", file],
        env={"HOME": str(folder), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout if done.returncode == 0 else f"refused: {done.stdout}{done.stderr}"


@pytest.mark.e2e
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
class TestRendered:
    def test_an_api_server_takes_it(
        self, helm: Path, manifests: Path, tmp_path: Path, values: dict[str, Any]
    ) -> None:
        """Helm finds nothing to say but that there is no icon; no object has a mistake, and its
        pods are as restricted as a namespace may ask for."""
        said = helm_run(helm, tmp_path, values, "lint", "--strict")
        assert "1 chart(s) linted, 0 chart(s) failed" in said
        assert "[WARNING]" not in said
        assert judged(manifests, helm_run(helm, tmp_path, values, "template", "try")) == ""

    def test_otel_alloy_takes_what_it_is_told(
        self, helm: Path, tmp_path: Path, values: dict[str, Any]
    ) -> None:
        """As the examples: variables, files, ports, paths, time to end; and one pod has a volume,
        where several share a database."""
        made = objects_of(helm_run(helm, tmp_path, values, "template", "try"))
        settings = settings_in_pod([*made, *REFERRED], tmp_path)
        assert_references_meet(made)
        assert_probes_are_answered(made, settings)
        assert_it_may_end_in_peace(made, settings)
        if values.get("replicas", 1) > 1:
            assert_replicas_share(made, settings)
        else:
            assert_one_at_a_time(made, settings)
        names = [source["name"] for source in values.get("settings", {}).get("sources", [])]
        assert [source.name for source in settings.sources] == (names or ["default"])
        assert bool(settings.destinations_dir) == bool(values.get("destinations"))
        (sent,) = settings.otlp.metrics or (None,)
        if values.get("serviceMonitor"):
            assert sent and sent.name == "prometheus"
            assert_prometheus_finds_it(made, settings)
        else:
            assert (sent is not None) is values.get("metrics", True)


@pytest.mark.e2e
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_what_follows_from_durations(helm: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    """Grace period and minReadySeconds are those of the settings, wherever those come from, as
    otel-alloy itself reads them; a grace period that is given is left as it is."""
    made = objects_of(helm_run(helm, tmp_path, values, "template", "try"))
    settings = settings_in_pod([*made, *REFERRED], tmp_path)
    spec = workload(made)["spec"]
    grace = spec["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace == 3 * math.ceil(settings.shutdown_timeout) + 15
    assert not settings.shared or spec["minReadySeconds"] == math.ceil(settings.lease)
    given = values | {"terminationGracePeriodSeconds": 7}
    made = objects_of(helm_run(helm, tmp_path, given, "template", "try"))
    assert workload(made)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 7


@pytest.mark.e2e
def test_what_cannot_be_is_refused(helm: Path, tmp_path: Path) -> None:
    """What is misspelt, or would make two processes of one file, is told before it is installed."""
    for values, words in (
        ({"replicas": 2}, "more than one needs a PostgreSQL"),
        ({"replica": 2}, "replica"),
        ({"image": {"digest": "latest"}}, "image/digest"),
        ({"settings": {"storage": "sqlite:///elsewhere.db"}}, "settings"),
        ({"destinations": {"secret": "a", "configMap": "b"}}, "not both"),
    ):
        said = helm_run(helm, tmp_path, values, "template", "try")
        assert said.startswith("refused: ")
        assert words in said


@pytest.mark.e2e
def test_alerts_are_those_that_are_tested(helm: Path, tmp_path: Path) -> None:
    """The rule holds what promtool tests, to the letter: no template touched it."""
    values = VALUES["everything"]
    rule = of_kind(
        objects_of(helm_run(helm, tmp_path, values, "template", "try")), "PrometheusRule"
    )
    alerts = CONFIGURATIONS / "grafana-stack" / "alerts.yaml"
    assert rule["spec"] == yaml.safe_load(alerts.read_text())


@pytest.mark.e2e
def test_changed_settings_make_new_pods(helm: Path, tmp_path: Path) -> None:
    """otel-alloy reads its file when it starts, so a change rolls the pods over."""
    chosen: list[dict[str, Any]] = [{}, {"settings": {"page_size": 30}}, {"image": {}}]
    templates = [
        workload(objects_of(helm_run(helm, tmp_path, values, "template", "try")))["spec"][
            "template"
        ]
        for values in chosen
    ]
    assert templates[0] == templates[2] != templates[1]


def test_readme_has_every_value() -> None:
    """The README's table, which is made from `values.yaml`, says something of each value."""
    text = (CHART / "values.yaml").read_text()
    named = {name for name, _, _ in rows(text)}
    for name, value in yaml.safe_load(text).items():
        inner = {f"{name}.{key}" for key in value} if isinstance(value, dict) else set()
        assert name in named or (inner and inner <= named), name


def test_schema_knows_every_value() -> None:
    """What the file has, the schema has, and the other way round."""
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert schema.keys() - {"global"} == values.keys()
    for name, inner in schema.items():
        if "properties" in inner:
            assert inner["properties"].keys() == values[name].keys()
