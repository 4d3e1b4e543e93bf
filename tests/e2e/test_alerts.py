"""The alert rules, by Prometheus's own tool: they are sound, and each one fires when it should and
is silent when it should be."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_alloy.observability.metrics import METRICS

from .conftest import CONFIGURATIONS, REPOSITORY
from .servers.build import PROMETHEUS_VERSION

STACK = CONFIGURATIONS / "grafana-stack"
LABELS = ("runalloy_receiver_source", "runalloy_receiver_stage")


def rules() -> list[dict[str, Any]]:
    """Every alert rule."""
    groups = yaml.safe_load((STACK / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def run(promtool: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([promtool, *words], capture_output=True, text=True, check=False)


@pytest.mark.e2e
def test_rules_are_sound(promtool: Path) -> None:
    """promtool finds no mistake in the rules."""
    done = run(promtool, "check", "rules", "--lint-fatal", STACK / "alerts.yaml")
    assert done.returncode == 0, done.stderr


@pytest.mark.e2e
def test_every_alert_fires_when_it_should_and_only_then(promtool: Path) -> None:
    """The shipped stories hold: each asks for all alerts that fire at a moment, and each alert
    fires in at least one of them and is asked after where nothing may fire."""
    done = run(promtool, "test", "rules", STACK / "alerts.test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    stories = yaml.safe_load((STACK / "alerts.test.yaml").read_text())["tests"]
    questions = [question for story in stories for question in story["promql_expr_test"]]
    assert all('(ALERTS{alertstate="firing"})' in question["expr"] for question in questions)
    samples = [sample["labels"] for question in questions for sample in question["exp_samples"]]
    fire = {name for labels in samples for name in re.findall(r'alertname="(\w+)"', labels)}
    assert fire == {rule["alert"] for rule in rules()}
    (well,) = (story for story in stories if story["name"] == "all is well")
    series = " ".join(entry["series"] for entry in well["input_series"])
    for rule in rules():
        asked = set(
            re.findall(
                r"\b(?:runalloy_(?:receiver|workflow_execution)|up|otelcol)\w*", rule["expr"]
            )
        )
        names = {name for name in asked if not name.startswith(LABELS)}
        assert [name for name in names if name in series], rule["alert"]


def test_every_alert_says_what_to_do() -> None:
    """Each has a severity, a summary and a description with its remedy; the labels that a summary
    shows are kept by its expression."""
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert len(rule["annotations"]["description"]) > 60, rule["alert"]
        for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
            assert label in rule["expr"] or label in ("instance", "exporter"), rule["alert"]


def test_the_page_names_alerts_that_exist() -> None:
    """docs/outage.md speaks of alerts by the names that fire."""
    page = (REPOSITORY / "docs" / "outage.md").read_text("utf-8")
    named = set(re.findall(r"\b(?:OtelAlloy|Collector)[A-Z]\w+", page))
    assert named and named <= {rule["alert"] for rule in rules()}


def test_the_stories_are_about_metrics_that_exist() -> None:
    """A series in a story that no receiver has would prove nothing."""
    text = (STACK / "alerts.test.yaml").read_text()
    labels = {a.replace(".", "_") for metric in METRICS for a in metric.attributes}
    for series in re.findall(r"series: 'runalloy\w+\{(.*)\}'", text):
        assert set(re.findall(r"(\w+)=", series)) <= labels | {"job", "instance"}, series


def test_the_release_is_the_one_of_the_example() -> None:
    """What tests the rules is what the compose file runs."""
    (image,) = re.findall(
        r"image: prom/prometheus:v(\S+)", (REPOSITORY / "examples/grafana/compose.yaml").read_text()
    )
    major, minor, patch = image.split(".")
    assert f"v0.{major}{minor}.{patch}" == PROMETHEUS_VERSION
