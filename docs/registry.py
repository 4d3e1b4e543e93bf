"""The registry of what is sent (`semconv/`), read and checked, as values.

The files are in the format of OpenTelemetry Weaver. What Weaver would refuse is a mistake here too:
a key or a word that the format does not have, a name that is defined twice or nowhere, an attribute
without type or example. The upstream registry is not at hand: of an attribute that is only
referenced, the type is that of its examples, which every such reference therefore has.

Reference tables and tests read this; nothing that is installed does.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

FOLDER = Path(__file__).parents[1] / "semconv"
OURS = "runalloy."

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*([._][a-z0-9]+)*$")]
Text = Annotated[str, Field(pattern=r"^\S(.|\n)*\S$")]
Sentence = Annotated[str, Field(pattern=r"^[A-Za-z0-9`](.|\n)*\.$")]
Stability = Literal["stable", "development", "alpha", "beta", "release_candidate"]
Type = Literal["string", "int", "boolean", "double"]
Example = str | bool | int | float

_TYPES: dict[type, Type] = {str: "string", bool: "boolean", int: "int", float: "double"}


class _Part(BaseModel):
    """A mapping of a file, with the keys that it may have."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Deprecated(_Part):
    """Why a name is no longer used."""

    reason: Literal["renamed", "obsoleted", "uncategorized"]
    renamed_to: Name | None = None
    note: Sentence | None = None

    @model_validator(mode="after")
    def _told(self) -> Self:
        assert (self.reason == "renamed") == (self.renamed_to is not None), "renamed_to?"
        return self


class Member(_Part):
    """One of the values that an attribute may have."""

    id: Name
    value: str
    brief: Sentence
    stability: Stability
    deprecated: Deprecated | None = None


class Members(_Part):
    members: list[Member] = Field(min_length=1)


class Level(_Part):
    """Under which condition an attribute is there: exactly one of these."""

    conditionally_required: Text | None = None
    recommended: Text | None = None
    opt_in: Text | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        assert len(self.model_fields_set) == 1, "one level"
        return self


class Attribute(_Part):
    """The definition of an attribute of ours."""

    id: Name
    type: Type | Members
    stability: Stability
    brief: Sentence
    note: Sentence | None = None
    examples: list[Example] = Field(min_length=1)
    deprecated: Deprecated | None = None

    @property
    def members(self) -> list[Member]:
        """The values that it may have; empty where it may have any."""
        return [] if isinstance(self.type, str) else self.type.members

    @model_validator(mode="after")
    def _fits(self) -> Self:
        assert self.id.startswith(OURS), f"{self.id}: upstream's names are referenced"
        for example in self.examples:
            kind = self.type if isinstance(self.type, str) else "string"
            assert _TYPES[type(example)] == kind, f"{self.id}: {example!r} is no {kind}"
            values = [member.value for member in self.members]
            assert not values or example in values, f"{self.id}: {example!r}"
        return self


class Reference(_Part):
    """An attribute where it is used. What is not said here is as it is defined."""

    ref: Name
    brief: Sentence | None = None
    note: Sentence | None = None
    examples: list[Example] | None = None
    requirement_level: Literal["required", "recommended", "opt_in"] | Level
    role: Literal["identifying", "descriptive"] | None = None

    @property
    def required(self) -> bool:
        """Whether it is always there."""
        return self.requirement_level == "required"

    @property
    def present(self) -> str:
        """When it is there, in words."""
        level = self.requirement_level
        if isinstance(level, str):
            return {"required": "always", "recommended": "usually", "opt_in": "on request"}[level]
        return level.conditionally_required or level.recommended or level.opt_in or ""


class Severity(_Part):
    number: int = Field(ge=1, le=24)
    text: str


class Annotations(_Part):
    """What the format has no place for: an event's severity, and whether a span comes with it."""

    severity: Severity
    span: bool


class _Group(_Part):
    id: Name
    brief: Sentence
    note: Sentence | None = None
    deprecated: Deprecated | None = None


class Definitions(_Group):
    """Attributes of ours that belong together."""

    type: Literal["attribute_group"]
    display_name: str
    attributes: list[Attribute] = Field(min_length=1)


class Signal(_Group):
    """What attributes stand on."""

    stability: Stability
    extends: Name | None = None
    attributes: list[Reference] = []


class Group(Signal):
    """Attributes that stand together on several signals, or on what is not ours."""

    type: Literal["attribute_group"]


class Span(Signal):
    """One kind of span."""

    type: Literal["span"]
    span_kind: Literal["client", "server", "producer", "consumer", "internal"]


class Event(Signal):
    """One kind of log record."""

    type: Literal["event"]
    name: Name
    annotations: Annotations


class Metric(Signal):
    """One metric."""

    type: Literal["metric"]
    metric_name: Name
    instrument: Literal["counter", "gauge", "histogram", "updowncounter"]
    unit: Annotated[str, Field(pattern=r"^(\{[a-z]+\}|1|s|ms|By)$")]


class Entity(Signal):
    """What a resource may tell of."""

    type: Literal["entity"]
    name: Name

    @model_validator(mode="after")
    def _identified(self) -> Self:
        assert all(one.role for one in self.attributes), f"{self.id}: role?"
        assert any(one.role == "identifying" for one in self.attributes), f"{self.id}: whose?"
        return self


class Dependency(_Part):
    schema_url: str
    registry_path: str


class Manifest(_Part):
    """What the registry is called, and what it stands on."""

    schema_url: Annotated[str, Field(pattern=r"^https://[^/]+(/[^/]+)+/\d+\.\d+\.\d+$")]
    description: Sentence
    stability: Stability
    dependencies: list[Dependency] = Field(min_length=1, max_length=1)

    @property
    def version(self) -> str:
        """The version of this registry."""
        return self.schema_url.rpartition("/")[2]


_Any = Definitions | Group | Span | Event | Metric | Entity
_MODELS: dict[str, type[_Any]] = {
    "definitions": Definitions,
    "attribute_group": Group,
    "span": Span,
    "event": Event,
    "metric": Metric,
    "entity": Entity,
}


class Registry:
    """All of it; of what is deprecated, attributes alone are kept. Raises ValueError for what is
    wrong, naming the file or the group."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.manifest = Manifest.model_validate(_yaml(folder / "manifest.yaml"))
        files = sorted(path for path in folder.glob("*.yaml") if path.name != "manifest.yaml")
        everything = [group for path in files for group in _groups(path)]
        self.groups = [group for group in everything if group.deprecated is None]
        self._by_id = {group.id: group for group in self.groups}
        self.attributes = {
            one.id: one
            for group in self.groups
            if isinstance(group, Definitions)
            for one in group.attributes
        }
        self._check()

    def _check(self) -> None:
        names = [group.id for group in self.groups]
        defined = [
            one.id for g in self.groups if isinstance(g, Definitions) for one in g.attributes
        ]
        for what in (names, defined):
            twice = {name for name in what if what.count(name) > 1}
            _demand(not twice, f"defined twice: {twice}")
        used = self.referenced | set(self.attributes)
        former = {key for key, one in self.attributes.items() if one.deprecated is not None}
        for name in used - former:
            inside = {one for one in used - former if one.startswith(f"{name}.")}
            _demand(not inside, f"{name} is also the namespace of {inside}")
        _demand(self.referenced.isdisjoint(former), f"deprecated and used: {former}")
        for key in former:
            after = self.attributes[key].deprecated
            new = after and after.renamed_to
            _demand(new is None or new in self.referenced, f"{key} became {new}, which is nowhere")
        for group in self.groups:
            _demand(group.id == _id(group), f"{group.id} is to be called {_id(group)}")
            if isinstance(group, Definitions):
                continue
            keys = self.keys(group)
            _demand(len(keys) == len(set(keys)), f"{group.id}: an attribute twice")
            for key in keys:
                ours = key.startswith(OURS)
                _demand(not ours or key in self.attributes, f"{group.id}: {key} is not defined")
                _demand(ours or bool(self.examples(key)), f"{group.id}: {key} has no example")
        idle = set(self.attributes) - former - self.referenced
        _demand(not idle, f"nothing has {idle}")

    @cached_property
    def spans(self) -> dict[str, Span]:
        """By their type: the id without `span.`."""
        return {g.id.partition(".")[2]: g for g in self.groups if isinstance(g, Span)}

    @cached_property
    def events(self) -> dict[str, Event]:
        """By name."""
        return {g.name: g for g in self.groups if isinstance(g, Event)}

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """By name."""
        return {g.metric_name: g for g in self.groups if isinstance(g, Metric)}

    @cached_property
    def entities(self) -> dict[str, Entity]:
        """By name."""
        return {g.name: g for g in self.groups if isinstance(g, Entity)}

    @cached_property
    def referenced(self) -> frozenset[str]:
        """The keys of all attributes that something has."""
        return frozenset(
            one.ref for g in self.groups if not isinstance(g, Definitions) for one in self.of(g)
        )

    @property
    def upstream(self) -> frozenset[str]:
        """Those of them that the upstream registry defines."""
        return self.referenced - set(self.attributes)

    def group(self, name: str) -> Group:
        """A group of attributes. Raises KeyError."""
        group = self._by_id[name]
        assert isinstance(group, Group), name
        return group

    def of(self, signal: Signal) -> list[Reference]:
        """The attributes of a signal or group, those that it extends first."""
        extended: list[Reference] = []
        if signal.extends is not None:
            base = self._by_id.get(signal.extends)
            if not isinstance(base, Group):
                raise ValueError(f"{signal.id} extends {signal.extends}, which is no group")
            extended = self.of(base)
        return [*extended, *signal.attributes]

    def keys(self, signal: Signal) -> list[str]:
        """The keys of the attributes of a signal or group, in the order in which they stand."""
        return [one.ref for one in self.of(signal)]

    def merged(self, *signals: Signal) -> list[Reference]:
        """The attributes of all of these, each once, as the first one has it: in the order in which
        those stand that have most."""
        first = {one.ref: one for signal in reversed(signals) for one in self.of(signal)}
        order: list[str] = []
        for signal in sorted(signals, key=lambda signal: -len(self.of(signal))):
            at = 0
            for key in self.keys(signal):
                if key in order:
                    at = order.index(key)
                else:
                    order.insert(at, key)
                at += 1
        return [first[key] for key in order]

    def examples(self, key: str) -> list[Example]:
        """What the attribute may be, as it is defined or as it is used."""
        if key in self.attributes:
            return self.attributes[key].examples
        return [example for one in self._uses(key) for example in one.examples or ()]

    def brief(self, key: str) -> str:
        """What the attribute is; "" where only upstream tells."""
        if key in self.attributes:
            return self.attributes[key].brief
        return next((one.brief for one in self._uses(key) if one.brief), "")

    def type(self, key: str) -> Type:
        """The type of its value. Raises ValueError where its examples are not of one."""
        if key in self.attributes:
            kind = self.attributes[key].type
            return kind if isinstance(kind, str) else "string"
        kinds = {_TYPES[type(example)] for example in self.examples(key)}
        if len(kinds) != 1:
            raise ValueError(f"{key}: examples of the types {kinds}")
        return kinds.pop()

    def values(self, key: str) -> frozenset[str]:
        """The values that an attribute of ours may have; empty where it may have any."""
        found = self.attributes.get(key)
        return frozenset() if found is None else frozenset(one.value for one in found.members)

    def _uses(self, key: str) -> Iterator[Reference]:
        for group in self.groups:
            if not isinstance(group, Definitions):
                yield from (one for one in group.attributes if one.ref == key)


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def _groups(path: Path) -> Iterator[_Any]:
    content = _yaml(path)
    _demand(set(content) == {"file_format", "groups"}, f"{path.name}: only `groups` is expected")
    _demand(content["file_format"] == "definition/1", f"{path.name}: in another format")
    for raw in content["groups"]:
        kind = "definitions" if str(raw.get("id")).startswith("registry.") else raw.get("type")
        _demand(kind in _MODELS, f"{path.name}: {raw.get('id')} is of no type that there is")
        try:
            yield _MODELS[kind].model_validate(raw)
        except ValidationError as error:
            raise ValueError(f"{path.name}: {raw.get('id')}: {error}") from None


def _id(group: _Group) -> str:
    """What the id has to be: of a signal its type and its name."""
    if isinstance(group, Event | Entity):
        return f"{group.type}.{group.name}"
    if isinstance(group, Metric):
        return f"metric.{group.metric_name}"
    if isinstance(group, Span):
        return f"span.{group.id.removeprefix('span.')}"
    prefix = "registry." if isinstance(group, Definitions) else ""
    return f"{prefix}{OURS}{group.id.removeprefix(prefix).removeprefix(OURS)}"


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
