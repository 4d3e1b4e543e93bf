"""The reference tables of the documentation, made from the code.

A page asks for one by its name in `TABLES`; `generated` writes it there. What a table says stands
in the code that it is about (`settings`, `metrics`, `cli`), in the registry of names (`semconv/`)
or in the file that people install (`alerts.yaml`, `values.yaml`); only how it is laid out is
decided here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import cleandoc
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
import yaml
from chart_values import VALUES, rows
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from registry import Reference, Registry, Signal

from otel_alloy.cli import commands
from otel_alloy.observability.metrics import METRICS, metrics_table
from otel_alloy.otlp.answers import answers_table
from otel_alloy.routing.rules import Rules
from otel_alloy.settings.destinations import (
    DestinationSettings,
    DestinationsPolicy,
    OutboxSettings,
)
from otel_alloy.settings.models import Settings, SourceSettings, Webhook

REPOSITORY = Path(__file__).parents[1]
REGISTRY = Registry()
ALERTS = REPOSITORY / "collector-config/grafana-stack/alerts.yaml"
VECTORS = REPOSITORY / "examples/correlate/vectors.json"
BLOCK_VECTORS = REPOSITORY / "tests/testdata/block-id-vectors.json"

_VARIABLES = {
    "api_key": "ALLOY_API_KEY",
    "api_key_file": "ALLOY_API_KEY_FILE",
    "endpoint": "ALLOY_ENDPOINT",
}
_FILE_ONLY = frozenset(("headers", "resource", "rules", "sources", "destinations"))
_OF_A_DESTINATION = {
    "match": "fields and values",
    "otlp": "as `otlp:` of the file",
    "privacy": "as `privacy:` of the file",
    "rules": "list of rules",
}
_APART = frozenset(
    ("privacy", "webhook", "environment", "destinations_policy", "outbox")
)  # documented by what they consist of


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as people write it; empty where that way of writing it does not exist."""

    key: str
    variable: str
    flag: str
    type: str
    default: str
    meaning: str


def source_settings() -> list[Setting]:
    """The settings that each source may have for itself."""
    return list(_settings(SourceSettings.model_fields))


def process_settings() -> list[Setting]:
    """The settings that there are once."""
    found = list(_settings(Settings.model_fields))
    for name, field in type(
        Settings.model_fields["privacy"].get_default(call_default_factory=True)
    ).model_fields.items():
        variable = f"OTEL_ALLOY_PRIVACY_{name.upper()}"
        key = field.alias or name
        meaning = f"what becomes of `{key}`"
        if field.alias:
            meaning += "; `hash` needs `privacy_key`"
        choices, default = _type(field), str(field.default)
        found.append(Setting(f"privacy: {key}", variable, "", choices, default, meaning))
    for name, field in Webhook.model_fields.items():
        variable = f"OTEL_ALLOY_WEBHOOK_{name.upper()}"
        meaning = field.description or ""
        found.append(Setting(f"webhook: {name}", variable, "", _type(field), "", meaning))
    for section, model in (("destinations_policy", DestinationsPolicy), ("outbox", OutboxSettings)):
        for name, field in model.model_fields.items():
            key, default = f"{section}: {name}", _default(name, field)
            found.append(Setting(key, "", "", _type(field), default, field.description or ""))
    return found


def _destination() -> str:
    return _table(
        ("key", "value", "default", "meaning"),
        (
            (
                _code(name),
                _OF_A_DESTINATION.get(name) or _type(field),
                "" if field.is_required() else _code(_default(name, field)) or "none",
                field.description or "",
            )
            for name, field in DestinationSettings.model_fields.items()
        ),
    )


def _settings(fields: dict[str, FieldInfo]) -> Iterator[Setting]:
    flags = _flags(commands.commands["run"])
    for name, field in fields.items():
        if name in _APART:
            continue
        variable = "" if name in _FILE_ONLY else _VARIABLES.get(name, f"OTEL_ALLOY_{name.upper()}")
        meaning = field.description or "the accounts, where there are several"
        yield Setting(
            name, variable, flags.get(name, ""), _type(field), _default(name, field), meaning
        )


def _flags(command: click.Command) -> dict[str, str]:
    return {
        option.name: "/".join((*option.opts, *option.secondary_opts))
        for option in command.params
        if isinstance(option, click.Option) and option.name
    }


def _type(field: FieldInfo) -> str:
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    if annotation is int:
        low, high = (_bound(field, name) for name in ("ge", "le"))
        return f"number, {low:,} to {high:,}" if high is not None else f"number, from {low:,} on"
    if annotation is float:
        return "duration" + _duration_bounds(field)
    if annotation == int | float | None:
        return "duration or timestamp"
    if get_origin(annotation) is dict:
        return "names and values"
    if get_origin(annotation) is tuple:
        if get_args(annotation)[0] is str:
            return "names of fields"
        one_source = SourceSettings in get_args(annotation)
        return "list of sources" if one_source else "durations, or `off`"
    words = {
        bool: "`true` or `false`",
        SecretStr: "secret text",
        Rules: "list of [rules](rules.md)",
    }
    return words.get(annotation, "text")  # type: ignore[arg-type]


def _bound(field: FieldInfo, name: str) -> Any:
    return next((getattr(m, name) for m in field.metadata if hasattr(m, name)), None)


def _duration_bounds(field: FieldInfo) -> str:
    low, high = _bound(field, "ge"), _bound(field, "le")
    words = f", from {_duration(low)}" if low else ""
    return words + (f", at most {_duration(high)}" if high else "")


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length and not seconds % length and (unit != "d" or seconds > 86400):
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


def _default(name: str, field: FieldInfo) -> str:
    value = field.default
    if field.is_required() or value is None or value == "" or name in _FILE_ONLY:
        return ""
    if isinstance(value, SecretStr):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(_duration(one) for one in value)
    return _duration(value) if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("|" + "|".join(map(_cell, cells)) + "|" for cells in lines)


def _cell(text: str) -> str:
    """One cell, in which a `|` ends nothing, not even in code."""
    return " " + text.replace("|", "\\|") + " " if text else " "


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _settings_table(settings: Iterable[Setting]) -> str:
    return _table(
        ("in the file, environment and command line", "value", "default", "meaning"),
        (
            (
                "<br>".join(_code(name) for name in (s.key, s.variable, s.flag) if name),
                s.type,
                _code(s.default),
                s.meaning,
            )
            for s in settings
        ),
    )


def _execution_attributes() -> str:
    span, *logs = REGISTRY.spans["runalloy.execution"], *REGISTRY.events.values()
    rows = []
    for one in REGISTRY.merged(span, *logs):
        named = [log for log in logs if one.ref in REGISTRY.keys(log)]
        records = "log record"
        if named != logs:  # the last word of each event's name
            records += " " + ", ".join(_code(log.name.rpartition(".")[2]) for log in named)
        where = ["span"] if one.ref in REGISTRY.keys(span) else []
        where += [records] if named else []
        rows.append((*_attribute(one), "both" if where == ["span", "log record"] else where))
    return _table(
        ("attribute and example", "type", "on", "meaning"),
        (
            (
                f"{key}<br>{example}",
                kind,
                on if isinstance(on, str) else "<br>".join(on),
                f"{meaning}<br>*Present {present}.*",
            )
            for key, kind, example, meaning, present, on in rows
        ),
    )


def _attribute(one: Reference) -> tuple[str, str, str, str, str]:
    """Key, type, example, meaning, and when it is there."""
    example, *_ = one.examples or REGISTRY.examples(one.ref)
    shown = str(example).lower() if isinstance(example, bool) else str(example)
    meaning = [one.brief or REGISTRY.brief(one.ref)]
    defined = REGISTRY.attributes.get(one.ref)
    if defined is not None:
        meaning += [defined.note] if defined.note else []
        meaning += [f"`{member.value}`: {_begun(member.brief)}" for member in defined.members]
    kind = REGISTRY.type(one.ref)
    return _code(one.ref), kind, _code(shown), " ".join(meaning), one.present


def _begun(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]


def _attributes_of(*groups: Signal) -> str:
    return _table(
        ("attribute", "type", "example", "meaning"),
        (
            (key, kind, example, f"{meaning}<br>*Present {present}.*")
            for key, kind, example, meaning, present in map(_attribute, REGISTRY.merged(*groups))
        ),
    )


def _own_spans() -> str:
    return _table(
        ("span", "kind", "name", "attributes"),
        (
            (
                span.brief,
                span.span_kind.upper(),
                (span.note or "").partition(". ")[0].removeprefix("Its name is ").rstrip("."),
                ", ".join(_code(one.ref) for one in REGISTRY.of(span)),
            )
            for name, span in REGISTRY.spans.items()
            if name.startswith("runalloy.receiver.")
        ),
    )


def _events() -> str:
    return _table(
        ("event", "severity", "span too", "meaning"),
        (
            (
                _code(event.name),
                f"{event.annotations.severity.text} {event.annotations.severity.number}",
                "yes" if event.annotations.span else "",
                event.brief,
            )
            for event in REGISTRY.events.values()
        ),
    )


def _buckets() -> str:
    return _table(
        ("histogram", "upper bounds of its buckets"),
        (
            (_code(m.name), ", ".join(f"{bound:g}" for bound in m.buckets))
            for m in METRICS
            if m.buckets
        ),
    )


def _commands() -> str:
    return "\n\n".join(_command(command, "otel-alloy") for command in commands.commands.values())


def _command(command: click.Command, path: str) -> str:
    """A command: usage, what it does, its arguments and options; below it those of a group."""
    path = f"{path} {command.name}"
    if isinstance(command, click.Group):
        parts = [f"## {path}", _help(command)]
        return "\n\n".join([*parts, *(_command(c, path) for c in command.commands.values())])
    context = click.Context(command, info_name=path)
    usage = " ".join(command.collect_usage_pieces(context))
    level = "#" * path.count(" ")
    parts = [f"#{level} {path}", f"```text\n{path} {usage}\n```", _help(command)]
    settings = {s.key for s in (*source_settings(), *process_settings())}
    options = [o for o in command.params if isinstance(o, click.Option) and not o.hidden]
    all_settings = "batch_size" in {o.name for o in options}
    rows = [_option(o, context) for o in options if not (all_settings and o.name in settings)]
    if rows:
        parts.append(_table(("option", "meaning", "default"), rows))
    if all_settings:
        parts.append("And a flag for each of the [settings](settings.md) that has one.")
    return "\n\n".join(parts)


def _help(command: click.Command) -> str:
    """What `--help` says, its examples as a block. A paragraph that click may not fill begins with
    a backspace; the only such ones are examples."""
    paragraphs = []
    for paragraph in cleandoc(command.help or "").split("\n\n"):
        if examples := re.match(r"\x08\nExamples?:\n", paragraph):
            paragraphs.append(f"```sh\n{cleandoc(paragraph[examples.end() :])}\n```")
        else:
            paragraphs.append(" ".join(paragraph.split()))
    return "\n\n".join(paragraphs)


def _option(option: click.Option, context: click.Context) -> tuple[str, str, str]:
    names = "/".join((*option.opts, *option.secondary_opts))
    if not option.is_flag:
        names += " " + option.make_metavar(context)
    words, _, told = (option.help or "").partition("  [default: ")
    shown = told.removesuffix("]")
    if option.show_default and option.default is not None:
        shown = str(option.default)
    words += " (required)" if option.required else ""
    return _code(names), words, _code(shown)


def alerts() -> dict[str, dict[str, Any]]:
    """The alert rules that are shipped, by name."""
    return {rule["alert"]: rule for rule in _rules() if "alert" in rule}


def _rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _alerts() -> str:
    return _table(
        ("alert", "severity", "after"),
        (
            (f"[{name}](#{name.lower()})", rule["labels"]["severity"], rule.get("for", "at once"))
            for name, rule in alerts().items()
        ),
    )


def alert(name: str) -> str:
    """What the rule `name` says of itself, and its condition, with what it takes from others."""
    rule = alerts()[name]
    description = rule["annotations"].get("description", "")
    words = f"**{rule['labels']['severity'].capitalize()}.** {description}".strip()
    recorded = [r for r in _rules() if r.get("record", "alert") in rule["expr"]]
    parts = [rule["expr"], *(f"# {r['record']}:\n{r['expr']}" for r in recorded)]
    condition = "\n".join(["```promql", *(part.strip() for part in parts), "```"])
    return f"{words}\n\n{_folded('Condition', condition)}"


def _folded(head: str, text: str) -> str:
    """What is shown when its head is clicked: by a forge as it stands, on the site by the
    extension `md_in_html`."""
    return f'<details markdown="1">\n<summary>{head}</summary>\n\n{text}\n\n</details>'


def _vectors() -> str:
    vectors = json.loads(VECTORS.read_text("utf-8"))["executions"]
    return _table(
        ("uuid", "trace id", "span id"),
        (
            (_code(v["uuid"]), _code(v["trace_id"]), _code(v["span_id"]))
            for v in vectors
            if len(v["uuid"]) < 40
        ),
    )


def _block_vectors() -> str:
    vectors = json.loads(BLOCK_VECTORS.read_text("utf-8"))
    return _table(
        ("uuid", "block id", "index", "span id"),
        (
            (_code(v["uuid"]), _code(v["block_id"]), str(v["index"]), _code(v["span_id"]))
            for v in vectors
        ),
    )


def _chart_values() -> str:
    return _table(
        ("value", "default", "meaning"),
        ((_code(name), _code(default), what) for name, default, what in rows(VALUES.read_text())),
    )


TABLES: dict[str, Callable[[], str]] = {
    "span and log record attributes": _execution_attributes,
    "block span attributes": lambda: _attributes_of(
        REGISTRY.spans["runalloy.block"], REGISTRY.spans["runalloy.block.app"]
    ),
    "service span attributes": lambda: _attributes_of(REGISTRY.group("runalloy.call")),
    "resource attributes": lambda: _attributes_of(REGISTRY.group("runalloy.resource.executions")),
    "events": _events,
    "own spans": _own_spans,
    "settings of a source": lambda: _settings_table(source_settings()),
    "settings of the process": lambda: _settings_table(process_settings()),
    "settings of a destination": _destination,
    "metrics": metrics_table,
    "answers of endpoints": answers_table,
    "buckets": _buckets,
    "commands": _commands,
    "alerts": _alerts,
    "vectors": _vectors,
    "block vectors": _block_vectors,
    "values of the chart": _chart_values,
    **{f"alert {name}": partial(alert, name) for name in alerts()},
}
