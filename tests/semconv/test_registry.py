"""The registry in `semconv/`: what it may say, and that the code says the same."""

from __future__ import annotations

import json
import pkgutil
import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.semconv._incubating import attributes as upstream
from opentelemetry.semconv.schemas import Schemas
from registry import FOLDER, Registry, Signal

from otel_alloy.mapping import semconv
from otel_alloy.observability import metrics, traces
from otel_alloy.otlp.outcome import Kind
from otel_alloy.pipeline import events
from otel_alloy.propagation.propagator import AlloyPropagator, call_attributes
from otel_alloy.routing import customers
from otel_alloy.version import __version__

from .live import Live

REGISTRY = Registry()
TESTDATA = Path(__file__).parents[1] / "testdata"


# What it may say ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("manifest.yaml", "dependencies:", "depends_on:", "dependencies"),
        ("manifest.yaml", "/schemas/0.1.0", "/schemas", "schema_url"),
        ("attributes.yaml", "id: runalloy.team.id", "id: runalloy.Team.id", "runalloy.team"),
        ("attributes.yaml", "id: runalloy.team.id", "id: team.id", "are referenced"),
        ("attributes.yaml", "id: runalloy.team.id", "id: runalloy.execution.id", "twice"),
        ("attributes.yaml", "id: runalloy.message", "id: runalloy.team", "namespace"),
        ("attributes.yaml", "examples: [1]", "examples: [one]", "is no int"),
        ("attributes.yaml", "examples: [expired]", "examples: [lost]", "lost"),
        ("attributes.yaml", "stability: development", "stability: experimental", "stability"),
        ("attributes.yaml", "brief: The Alloy account (`teamId`).", "note: It.", "brief"),
        (
            "attributes.yaml",
            "examples: [3]",
            "examples: [3]\n        deprecated: { reason: obsoleted, note: Gone. }",
            "deprecated and used",
        ),
        (
            "attributes.yaml",
            "examples: [3]",
            "examples: [3]\n        deprecated: { reason: renamed }",
            "renamed_to",
        ),
        (
            "spans.yaml",
            "ref: runalloy.execution.blocks",
            "ref: runalloy.block.index",
            "nothing has",
        ),
        ("spans.yaml", "ref: runalloy.team.id", "ref: runalloy.tenant.id", "not defined"),
        ("spans.yaml", "examples: [422]", "examples: [422, a]", "types"),
        ("spans.yaml", "extends: runalloy.block", "extends: runalloy.steps", "is no group"),
        ("spans.yaml", "span_kind: server", "span_kind: root", "span_kind"),
        ("spans.yaml", "conditionally_required: after an error\n", "required: yes\n", "required"),
        ("events.yaml", "name: runalloy.workflow.execution.other", "name: other", "to be called"),
        ("metrics.yaml", 'unit: "By"', 'unit: "bytes"', "unit"),
        ("metrics.yaml", "instrument: counter", "instrument: sum", "instrument"),
        ("entities.yaml", "role: identifying", "role: descriptive", "whose"),
        ("entities.yaml", "groups:", "attributes: []\ngroups:", "only `groups`"),
        ("entities.yaml", "definition/1", "definition/2", "another format"),
    ],
)
def test_a_mistake_is_found(tmp_path: Path, file: str, old: str, new: str, words: str) -> None:
    """What Weaver refuses, and what the naming rules of the semantic conventions forbid, is refused
    by the reader, which names it."""
    folder = tmp_path / "semconv"
    shutil.copytree(FOLDER, folder)
    text = (folder / file).read_text("utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(ValueError, match=words):
        registry = Registry(folder)
        for key in registry.upstream:
            registry.type(key)


def test_a_rename_goes_through_it(tmp_path: Path) -> None:
    """The former name of an attribute stays, with the new one, as long as nothing has it."""
    folder = tmp_path / "semconv"
    shutil.copytree(FOLDER, folder)
    former = (
        "      - id: runalloy.tenant.id\n        type: string\n        stability: development\n"
        "        brief: The Alloy account.\n        examples: [a]\n"
        "        deprecated: { reason: renamed, renamed_to: runalloy.team.id }\n"
    )
    with (folder / "attributes.yaml").open("a", encoding="utf-8") as file:
        file.write(former)
    registry = Registry(folder)
    assert registry.referenced == REGISTRY.referenced
    assert registry.attributes.keys() - REGISTRY.attributes.keys() == {"runalloy.tenant.id"}
    with (folder / "attributes.yaml").open("a", encoding="utf-8") as file:
        file.write(former.replace(".tenant.", ".owner.").replace("to: runalloy.team", "to: who"))
    with pytest.raises(ValueError, match="nowhere"):
        Registry(folder)


def test_it_has_the_versions_of_the_code() -> None:
    """It is of this version, and depends on the version of upstream that is named on what is
    sent."""
    assert REGISTRY.manifest.version == __version__
    (dependency,) = REGISTRY.manifest.dependencies
    version = semconv.SCHEMA_URL.rpartition("/")[2]
    assert dependency.schema_url == semconv.SCHEMA_URL
    assert dependency.registry_path.endswith(f"semantic-conventions@v{version}[model]")


def _upstream() -> dict[str, bool]:
    """The attributes of the conventions that are installed, and whether each is deprecated."""
    found: dict[str, bool] = {}
    for module in pkgutil.iter_modules(upstream.__path__, f"{upstream.__name__}."):
        source = Path(import_module(module.name).__file__ or "").read_text("utf-8")
        for part in source.split(": Final = ")[1:]:
            value, _, words = part.partition("\n")
            moved = "in favor of stable" in words.partition("\n")[2].partition("\n")[0]
            found[value.strip('"')] = words.startswith('"""\nDeprecated') and not moved
    return found


@pytest.mark.skipif(
    semconv.SCHEMA_URL not in {one.value for one in Schemas},
    reason="the installed opentelemetry-semantic-conventions are older than those that are used",
)
def test_upstream_has_what_is_referenced() -> None:
    """Each name that is not ours is one of upstream's, and not deprecated; but for `event.name`,
    which is sent on request alone."""
    known = _upstream()
    assert len(known) > 500
    assert {key: known.get(key) for key in REGISTRY.upstream} == {
        key: key == semconv.EVENT_NAME for key in REGISTRY.upstream
    }
    for event in REGISTRY.events.values():
        (named,) = (one for one in REGISTRY.of(event) if one.ref == semconv.EVENT_NAME)
        assert not named.required


# The code says the same ---------------------------------------------------------------------------


def _names(module: ModuleType) -> set[str]:
    return {
        value
        for name, value in vars(module).items()
        if name.lstrip("_").isupper() and isinstance(value, str) and "." in value
    }


def test_the_code_names_nothing_else() -> None:
    """Each constant of the code is an attribute or event of the registry, each event and each
    attribute of ours a constant of the code."""
    constants = set[str]().union(*map(_names, (semconv, metrics, traces)))
    constants -= {semconv.SCHEMA_URL}
    assert constants <= REGISTRY.referenced | set(REGISTRY.events)
    assert constants >= set(REGISTRY.attributes) | set(REGISTRY.events)
    assert _names(semconv) - {semconv.SCHEMA_URL} >= {
        key
        for one in (REGISTRY.spans["runalloy.execution"], *REGISTRY.events.values())
        for key in REGISTRY.keys(one)
    }


def test_metrics_are_those_of_the_registry() -> None:
    """Each metric of the code is in the registry and the other way round, in the same order, with
    the same instrument, unit, words and attributes."""
    assert [
        (m.name, m.kind, m.unit, f"{m.description}.", list(m.attributes)) for m in metrics.METRICS
    ] == [
        (name, m.instrument, m.unit, " ".join(m.brief.split()), REGISTRY.keys(m))
        for name, m in REGISTRY.metrics.items()
    ]


def test_values_are_those_of_the_registry() -> None:
    """Where the registry tells the values of an attribute, the code has these."""
    assert REGISTRY.values(metrics.STAGE) == set(metrics.STAGES)
    assert REGISTRY.values(metrics.OUTCOME) == {kind.value for kind in Kind}
    assert REGISTRY.values(metrics.WEBHOOK_OUTCOME) == set(events.WEBHOOK_OUTCOMES)


def test_resources_are_those_of_the_registry() -> None:
    """What `resource_per` may put on a resource is on one of the entities, and nothing else is."""
    assert set(customers.ATTRIBUTES.values()) == {
        key for entity in REGISTRY.entities.values() for key in REGISTRY.keys(entity)
    }


def test_service_span_attributes_are_those_of_the_headers() -> None:
    """What the propagator takes from Alloy's headers is what the registry has for service spans."""
    names = ("ExecutionUuid", "WorkflowId", "UserId", "BlockName", "BlockType")
    context = AlloyPropagator(sampled=True).extract({f"X-Alloy-{name}": "x" for name in names})
    assert set(call_attributes(context)) == set(REGISTRY.keys(REGISTRY.group("runalloy.call")))


# The golden pairs say the same --------------------------------------------------------------------


def _golden() -> dict[str, dict[str, Any]]:
    return {
        path.name.removesuffix(".expected.json"): json.loads(path.read_text("utf-8"))
        for path in TESTDATA.glob("*.expected.json")
    }


def _keys(item: dict[str, Any]) -> list[str]:
    return [one["key"] for one in item["attributes"]]


def _look(live: Live) -> list[str]:
    """What is wrong with the golden pairs."""
    found: list[str] = []
    for pair in _golden().values():
        for item in (pair["span"], *pair.get("blocks", [])):
            if item is not None:
                told = {name: item[name] for name in ("name", "kind", "attributes")}
                found += live.span(ParseDict(told, Span()))
        told = {
            name: pair["log"][name]
            for name in ("eventName", "severityNumber", "severityText", "attributes")
        }
        found += live.log_record(ParseDict(told, LogRecord()))
    return found


def test_golden_pairs_are_as_the_registry_says() -> None:
    """Spans and log records of all golden pairs are of its kinds, with the types, values and
    severities that it tells; and each kind has all its attributes somewhere in them, but for events
    that differ in what made them alone."""
    live = Live(REGISTRY)
    assert _look(live) == []
    for name, kind in REGISTRY.spans.items():
        if not name.startswith("runalloy.receiver."):
            assert live.seen[name] == set(REGISTRY.keys(kind)), name
    in_events = set[str]().union(*(live.seen[name] for name in REGISTRY.events))
    assert in_events == {key for one in REGISTRY.events.values() for key in REGISTRY.keys(one)}


def test_attributes_stand_in_the_order_in_which_they_are_written() -> None:
    """The order of a span's, a block's and an event's attributes is that of the golden pairs; the
    examples are those of the vendor's published error record, where that has the attribute."""
    spans, logs = REGISTRY.spans, REGISTRY.events
    for name, pair in _golden().items():
        written: list[tuple[dict[str, Any], Signal]] = [
            (pair["log"], logs[pair["log"]["eventName"]])
        ]
        written += [(pair["span"], spans["runalloy.execution"])] if pair["span"] else []
        written += [(block, spans["runalloy.block.app"]) for block in pair.get("blocks", [])]
        for item, kind in written:
            order = REGISTRY.keys(kind)
            assert _keys(item) == sorted(_keys(item), key=order.index), name
    pair = _golden()["vendor-sample"]
    for item in (pair["span"], pair["log"]):
        for one in item["attributes"]:
            (value,) = one["value"].values()
            assert str(REGISTRY.examples(one["key"])[0]) == str(value), one["key"]


def test_events_have_a_span_where_the_registry_says_so() -> None:
    """Each event is in the golden pairs, with a span where it says so; a second end has none."""
    seen = set()
    for name, pair in _golden().items():
        event = REGISTRY.events[pair["log"]["eventName"]]
        seen.add(event.name)
        with_span = event.annotations.span and name != "second-terminal"
        assert with_span == (pair["span"] is not None), name
    assert seen == set(REGISTRY.events)
