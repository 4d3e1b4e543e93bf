"""Grafana's files without Grafana: the dashboard is one that its types take, each variable and data
source is there, and every query in a language whose server is not run here is one that has been
read, about attributes that exist."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from registry import Registry

from otel_alloy.mapping import semconv
from otel_alloy.routing.customers import ATTRIBUTES

from .conftest import REPOSITORY
from .grafana import (
    ALL,
    STACK,
    Query,
    board,
    data_sources,
    documented,
    interpolate,
    queries,
    variables,
)
from .reviewed import (
    LOGQL,
    LOGQL_FIELDS,
    LOGQL_LABELS,
    SETTINGS,
    TRACEQL,
    TRACEQL_INTRINSICS,
)

REGISTRY = Registry()
BUILT_IN = {"__range", "__rate_interval", "__tags", "__trace"}
"""What Grafana puts in by itself."""


def test_the_dashboard_is_what_grafanas_types_say() -> None:
    """Read into Grafana's own types, with those of its panels and data sources, and written again,
    the dashboard is the same: it has no key that they do not know, and no value of another kind."""
    plugins = pytest.importorskip(
        "grafana_foundation_sdk.cog.plugins", reason="a part of the development extra"
    )
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import loki, prometheus, stat, table, tempo
    from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

    plugins.register_default_plugins()
    read = Dashboard.from_json(board())
    panels = [panel for panel in read.panels or [] if isinstance(panel, Panel)]
    kinds = {type(target) for panel in panels for target in panel.targets or []}
    assert kinds == {prometheus.Dataquery, tempo.TempoQuery, loki.Dataquery}
    assert {stat.Options, table.Options} <= {type(panel.options) for panel in panels}
    written = dict(leaves(json.loads(JSONEncoder().encode(read))))
    ours = {path: value for path, value in leaves(board()) if value not in ({}, [])}
    assert {path: written.get(path) for path in ours} == ours


def leaves(value: object, path: str = "", each: bool = False) -> Iterator[tuple[str, object]]:
    """What a nested structure holds at its ends, by path; with `each`, `*` for a list's number."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}".removeprefix("."), each)
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from leaves(inner, f"{path}.{'*' if each else number}", each)
    else:
        yield path, value


def test_every_variable_is_there_and_used() -> None:
    """Queries name variables of the dashboard or of Grafana; each of the dashboard's is used by a
    panel, the data sources with the type that they have."""
    templates = {variable["name"]: variable for variable in board()["templating"]["list"]}
    used: set[str] = set()
    for query in queries():
        named = variables(query.text)
        assert named <= templates.keys() | BUILT_IN, query.where
        used |= named
    for panel in board()["panels"]:
        for target in panel.get("targets", []):
            source = target["datasource"]
            name = source["uid"].strip("${}")
            assert templates[name]["query"] == source["type"], panel["title"]
            used.add(name)
    assert templates.keys() <= used
    assert {templates[name]["query"] for name in ("prometheus", "tempo", "loki")} == {
        source["type"] for source in data_sources().values()
    }


def test_panels_have_their_place() -> None:
    """Ids and titles are unique, and no panel lies on another one."""
    panels = board()["panels"]
    for key in ("id", "title"):
        assert len({panel[key] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells


def test_what_counts_can_be_counted_in_two_ways() -> None:
    """Each range of a counter in a panel has `$counting` behind it: exact where Prometheus can, and
    what any database takes where it cannot."""
    (counting,) = (v for v in board()["templating"]["list"] if v["name"] == "counting")
    assert [option["value"] for option in counting["options"]] == ["anchored", "offset 0s"]
    assert counting["current"]["value"] == "anchored"
    ranges = 0
    for query in queries():
        if query.panel and query.language == "promql":
            found = re.findall(r"\[\$__\w+\]( \$counting)?", query.text)
            assert all(found), query.where
            ranges += len(found)
    assert ranges > 30


def test_a_chosen_workflow_is_escaped_as_its_language_needs_it() -> None:
    """A name with dots and brackets reaches the server as one that is meant letter by letter, in
    the quotes that the query has."""
    values: dict[str, Any] = dict.fromkeys(BUILT_IN, "1m") | {
        "service": "runalloy",
        "counting": "anchored",
        "customer": "span.user.id",
        "slower": "10s",
        "workflow": ["Orders (EU) v1.2"],
    }
    meant = {
        "promql": r'runalloy_workflow_name=~"Orders \\(EU\\) v1\\.2"',
        "traceql": r"span.runalloy.workflow.name=~`Orders \(EU\) v1\.2`",
        "logql": r"runalloy_workflow_name=~`Orders \(EU\) v1\.2`",
    }
    seen: dict[str, int] = defaultdict(int)
    for query in queries():
        if "workflow" in variables(query.text):
            seen[query.language] += 1
            assert meant[query.language] in interpolate(query, values), query.where
            everything = interpolate(query, values | {"workflow": ALL})
            assert re.search(r'=~["`]\.\*["`]', everything), query.where
    assert seen.keys() == meant.keys()


def _read(language: str) -> set[str]:
    """What the files say in a language: Grafana's, README and pages."""
    found = {query.text for query in queries() if query.language == language}
    for page, text in documented():
        of_logs = text.startswith("{service_name")
        if of_logs == (language == "logql"):
            found.add(text)
        assert of_logs or re.match(r"\{ (resource|span)\.", text), f"{page}: {text}"
    return found


def test_every_query_of_tempo_has_been_read() -> None:
    """The table of TraceQL has each query of the files and no other; each attribute in it is one of
    a span or its resource, and each other name one of TraceQL's own."""
    assert _read("traceql") == {one.query for one in TRACEQL}
    assert len({one.says for one in TRACEQL}) == len(TRACEQL)
    resource = REGISTRY.group("runalloy.resource.executions")
    on = {
        "resource": {*REGISTRY.keys(resource), *ATTRIBUTES.values()},
        "span": {key for span in REGISTRY.spans.values() for key in REGISTRY.keys(span)},
    }
    customers = [v for v in board()["templating"]["list"] if v["name"] == "customer"]
    chosen = " ".join(option["value"] for option in customers[0]["options"])
    for query in (*(one.query for one in TRACEQL), chosen):
        for scope, key in re.findall(r"\b(resource|span)\.([a-z_.]+)", query):
            assert key in on[scope], f"{key}: {query}"
        plain = re.sub(r'"[^"]*"|`[^`]*`|\b(resource|span)\.[a-z_.]+|\$\w+', "", query)
        words = set(re.findall(r"[A-Za-z_]+", plain))
        assert words <= TRACEQL_INTRINSICS | {
            *("error", "server", "count_over_time", "quantile_over_time", "by", "topk"),
            *("select", "with", "most_recent", "true"),
        }, query


def test_every_query_of_loki_has_been_read() -> None:
    """The table of LogQL has each query of the files and no other; each name in it is a label that
    Loki makes, a field of a log record or one of its attributes, and each outcome exists."""
    assert _read("logql") == {one.query for one in LOGQL}
    assert len({one.says for one in LOGQL}) == len(LOGQL)
    attributes = {
        key.replace(".", "_") for event in REGISTRY.events.values() for key in REGISTRY.keys(event)
    }
    outcomes = REGISTRY.values(semconv.EXECUTION_OUTCOME)
    for one in LOGQL:
        for label in re.findall(r"\{(\w+)=", one.query):
            assert label in LOGQL_LABELS, one.query
        fields = re.findall(r"\| (\w+)=", one.query)
        fields += re.sub(r"\s", "", "".join(re.findall(r"by \(([^)]*)\)", one.query))).split(",")
        assert set(fields) - {""} <= attributes | LOGQL_FIELDS, one.query
        assert set(re.findall(r'execution_outcome="([^"]*)"', one.query)) <= outcomes
    tags = data_sources()["tempo"]["jsonData"]["tracesToLogsV2"]["tags"]
    assert {tag["value"] for tag in tags} <= LOGQL_LABELS
    (field,) = data_sources()["loki"]["jsonData"]["derivedFields"]
    assert field["matcherRegex"] in LOGQL_FIELDS


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_been_read(name: str) -> None:
    """The file has the settings of the table, with these values and no others, for the release that
    the compose file runs."""
    reviewed = SETTINGS[name]
    found: dict[str, Any] = defaultdict(list)
    for path, value in leaves(yaml.safe_load((STACK / name).read_text("utf-8")), each=True):
        found[path].append(value)
    assert {path: v[0] if len(v) == 1 else v for path, v in found.items()} == reviewed.values
    compose = (REPOSITORY / "examples" / "grafana" / "compose.yaml").read_text("utf-8")
    assert f"image: {reviewed.release}\n" in compose


def test_a_query_without_a_value_for_its_variable_is_a_mistake() -> None:
    """Nothing is sent with a hole in it."""
    with pytest.raises(KeyError):
        interpolate(Query("here", "promql", "rate(x[$__rate_interval])"), {})
