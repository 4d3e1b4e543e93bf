"""Every query in PromQL that is shipped, by Prometheus's own parser; and the dashboard's numbers
over hours, by its own tool for stories: the first executions, restarts, replicas, what was missing
for a while, nothing at all."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from .conftest import REPOSITORY
from .grafana import ALL, STACK, board, interpolate, queries

HOURS = 360
"""Minutes that the panels look back in these stories."""
EXACT: dict[str, str | Sequence[str]] = {
    "__range": f"{HOURS}m",
    "__rate_interval": "5m",
    "__tags": 'runalloy_workflow_name="orders"',
    "counting": "anchored",
    "workflow": ALL,
}
EXTRAPOLATED = EXACT | {"counting": "offset 0s"}
PANELS = {(q.panel, q.ref): q for q in queries() if q.panel and q.language == "promql"}
EXECUTIONS, FAILED, MEDIAN = (2, "A"), (3, "A"), (4, "A")
SET_ASIDE, PER_MINUTE, BY_WORKFLOW, SHARE = (7, "A"), (8, "A"), (11, "A"), (11, "B")

COUNT = "runalloy_workflow_execution_duration_seconds_count"
BUCKET = "runalloy_workflow_execution_duration_seconds_bucket"

Expected = Mapping[str, float]
"""Values by labels."""
Asked = tuple[int, tuple[int, str], Expected]
"""At which minute, which panel, what."""


def executions(outcome: str, values: str, instance: str = "a", workflow: str = "orders") -> str:
    """A series of executions, as promtool writes it."""
    labels = (
        f'instance="{instance}", runalloy_workflow_name="{workflow}", '
        f'runalloy_execution_outcome="{outcome}"'
    )
    return f"{COUNT}{{{labels}}} {values}"


def told(
    promtool: Path,
    folder: Path,
    series: Sequence[str],
    asked: Sequence[Asked],
    variables: Mapping[str, str | Sequence[str]] = EXACT,
) -> None:
    """Fails where a panel shows something else of these series, which have a sample a minute."""
    story = {
        "interval": "1m",
        "input_series": [
            {"series": one.rpartition("} ")[0] + "}", "values": one.rpartition("} ")[2]}
            for one in series
        ],
        "promql_expr_test": [
            {
                "expr": interpolate(PANELS[panel], variables),
                "eval_time": f"{minute}m",
                "exp_samples": [{"labels": k, "value": v} for k, v in expected.items()],
            }
            for minute, panel, expected in asked
        ],
    }
    file = folder / "story.yaml"
    file.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [story]}))
    done = subprocess.run(
        [promtool, "test", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.e2e
def test_every_query_is_one_to_prometheus(promtool: Path, tmp_path: Path) -> None:
    """Of panels in both ways to count, of data sources, of the variable's list, and of pages:
    Prometheus's parser takes each."""
    texts = [
        interpolate(query, values)
        for query in queries()
        if query.language == "promql"
        for values in (EXACT, EXTRAPOLATED, EXACT | {"workflow": ["a (b)", "c.d"]})
    ]
    for variable in board()["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.*), \w+\)", variable["query"]["query"])
            assert found is not None
            texts.append(found[1])
    for page in [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]:
        texts += re.findall(r"`((?:runalloy|otelcol)_\w+)`", page.read_text("utf-8"))
    rules = [{"record": f"query:{n}", "expr": text} for n, text in enumerate(texts)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(texts) > 90
    rules[0]["expr"] += ")"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    assert subprocess.run([promtool, "check", "rules", file], capture_output=True).returncode


@pytest.mark.e2e
def test_prometheus_takes_its_configuration(promtool: Path) -> None:
    """With its rules, and nothing that it would ignore."""
    done = subprocess.run(
        [promtool, "check", "config", "--lint-fatal", STACK / "prometheus.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.e2e
def test_nothing_is_zero(promtool: Path, tmp_path: Path) -> None:
    """Without data, and with counters that stand still: 0 executions, 0 failures, no duration."""
    asked: list[Asked] = [
        (30, EXECUTIONS, {"{}": 0}),
        (30, FAILED, {"{}": 0}),
        (30, SET_ASIDE, {"{}": 0}),
        (30, MEDIAN, {}),
        (30, BY_WORKFLOW, {}),
        (30, SHARE, {}),
        (30, PER_MINUTE, {}),
    ]
    told(promtool, tmp_path, [], asked)
    still = [
        executions("success", "7x400"),
        executions("error", "3x400"),
        *(f'{BUCKET}{{runalloy_workflow_name="orders", le="{le}"}} 10x400' for le in ("1", "+Inf")),
        'runalloy_receiver_records_rejected_total{instance="a"} 2x400',
    ]
    told(promtool, tmp_path, still, [(390, panel, shown) for _, panel, shown in asked[:-1]])


@pytest.mark.e2e
def test_the_first_executions_count(promtool: Path, tmp_path: Path) -> None:
    """A counter that begins at 0 shows all of what follows, at once and exactly, in each panel."""
    series = [
        executions("success", "_x100 0 30x20 31x300"),
        executions("error", "_x103 0 10x20 10x300"),
        executions("success", "_x100 0 5x300", workflow="invoices"),
        *(
            f'{BUCKET}{{runalloy_workflow_name="orders", le="{le}"}} _x100 0 {count}x300'
            for le, count in (("1", 0), ("2", 20), ("+Inf", 40))
        ),
        'runalloy_receiver_records_rejected_total{instance="a"} _x100 0 1x300',
    ]
    told(
        promtool,
        tmp_path,
        series,
        [
            (100, EXECUTIONS, {"{}": 0}),
            (101, EXECUTIONS, {"{}": 35}),
            (101, FAILED, {"{}": 0}),
            (101, SET_ASIDE, {"{}": 1}),
            (101, MEDIAN, {"{}": 2}),
            (104, EXECUTIONS, {"{}": 45}),
            (104, FAILED, {"{}": 10 / 45}),
            (
                104,
                BY_WORKFLOW,
                {
                    '{runalloy_workflow_name="orders"}': 40,
                    '{runalloy_workflow_name="invoices"}': 5,
                },
            ),
            (
                104,
                SHARE,
                {
                    '{runalloy_workflow_name="orders"}': 0.25,
                    '{runalloy_workflow_name="invoices"}': 0,
                },
            ),
            (
                105,
                PER_MINUTE,
                {
                    '{runalloy_execution_outcome="success"}': 7,
                    '{runalloy_execution_outcome="error"}': 2,
                },
            ),
            (300, EXECUTIONS, {"{}": 46}),
        ],
    )


@pytest.mark.e2e
def test_restarts_replicas_and_gaps_change_no_number(promtool: Path, tmp_path: Path) -> None:
    """Steady; a restart as the same instance, that has passed its old value by the next sample;
    a lease that moves between replicas and back; an hour without data in the middle; what happened
    before the dashboard's time is not in it."""
    for series, asked in (
        ([executions("success", "0+5x800")], [(700, EXECUTIONS, {"{}": 5 * HOURS})]),
        ([executions("success", "0+5x200 0 1100+5x199")], [(400, EXECUTIONS, {"{}": 2890})]),
        (
            [
                executions("success", "0+5x100 500x100 500+5x100"),
                executions("success", "_x100 0+5x100 500x100", instance="b"),
            ],
            [(300, EXECUTIONS, {"{}": 1490}), (150, BY_WORKFLOW, {ORDERS: 750})],
        ),
        (
            [executions("success", "0+5x100 _x60 900+5x100")],
            [(130, EXECUTIONS, {"{}": 500}), (250, EXECUTIONS, {"{}": 1345})],
        ),
    ):
        told(promtool, tmp_path, series, asked)


ORDERS = '{runalloy_workflow_name="orders"}'


@pytest.mark.e2e
def test_the_other_way_to_count_is_right_in_the_long_run(promtool: Path, tmp_path: Path) -> None:
    """Where the database does not know `anchored`."""
    told(
        promtool,
        tmp_path,
        [executions("success", "0+5x800")],
        [(700, EXECUTIONS, {"{}": 5 * HOURS})],
        EXTRAPOLATED,
    )


def test_the_panels_of_the_stories_are_those_of_the_dashboard() -> None:
    """By title, so that a number that moves is noticed."""
    titles = {panel["id"]: panel["title"] for panel in board()["panels"]}
    named = {n: titles[n] for n in (2, 3, 4, 7, 8, 11)}
    assert named == {
        2: "Executions",
        3: "Failed",
        4: "Median duration",
        7: "Records set aside",
        8: "Executions per minute",
        11: "By workflow",
    }
