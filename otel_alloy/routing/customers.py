"""The customer on the resource: an execution's own values as resource attributes, and as headers.

Executions with the same values are a `Group`; a batch of several groups is delivered in requests
that hold several resources, as OTLP allows, so that there are no more of them than without groups.
Only where headers differ, requests have to be different ones.

All values come from what executions share (`common`), so a group is looked up by its identity, as
conversions are. Pure: nothing here is read or sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from otel_alloy.alloy.models import Common
from otel_alloy.mapping import semconv
from otel_alloy.mapping.convert import Execution
from otel_alloy.mapping.encode import Envelope, Value
from otel_alloy.routing.headers import Template
from otel_alloy.routing.subject import VERSION, Subject

Headers = tuple[tuple[str, str], ...]
_MOST = 10_000
"""Groups that are kept from batch to batch."""

ATTRIBUTES = {
    "user.id": semconv.USER_ID,
    "workflow.id": semconv.WORKFLOW_ID,
    "workflow.name": semconv.WORKFLOW_NAME,
    VERSION: semconv.WORKFLOW_VERSION,
    "integration.id": semconv.INTEGRATION_ID,
    "integration.name": semconv.INTEGRATION_NAME,
    "team.id": semconv.TEAM_ID,
}
"""The fields that may stand on the resource, and the attribute that each is there, as on spans."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """What the executions of one customer have in common. One object for the same values."""

    resource: Mapping[str, Value]
    envelope: Envelope
    headers: Headers


class Customers:
    """Tells the groups of executions. `fields`: of `ATTRIBUTES`; `templates`: headers made of them.
    `resource`: the attributes of the source. `envelope`: makes one of a resource. `clean`: a text
    as it may be sent."""

    def __init__(
        self,
        fields: Sequence[str],
        templates: Sequence[Template],
        resource: Mapping[str, Value],
        envelope: Callable[[Mapping[str, Value]], Envelope],
        clean: Callable[[str], str],
    ) -> None:
        self._fields = fields
        self._templates = templates
        self._resource = resource
        self._envelope = envelope
        self._clean = clean
        self._groups: dict[tuple[str | None, ...], Group] = {}
        self._known: dict[int, tuple[Common, Group]] = {}  # by the id of what they keep

    def groups(self, executions: Sequence[Execution]) -> list[Group]:
        """The group of each of them."""
        if len(self._groups) > _MOST or len(self._known) > _MOST:
            self._groups.clear()
            self._known.clear()
        known, found = self._known, []
        for execution in executions:
            common = execution.notification.common
            pair = known.get(id(common))
            if pair is None:
                pair = known[id(common)] = common, self._group(Subject(execution))
            found.append(pair[1])
        return found

    def _group(self, subject: Subject) -> Group:
        values = {field: subject.value(field) for field in self._fields}
        key = tuple(values.values())
        group = self._groups.get(key)
        if group is None:
            resource = {**self._resource, **self._attributes(values)}
            headers = tuple((one.name, one.fill(values)) for one in self._templates)
            group = self._groups[key] = Group(resource, self._envelope(resource), headers)
        return group

    def _attributes(self, values: Mapping[str, str | None]) -> dict[str, Value]:
        return {
            ATTRIBUTES[field]: int(value) if field == VERSION else self._clean(value)
            for field, value in values.items()
            if value is not None
        }


class GroupedEnvelope:
    """An envelope of several resources, for one batch: `groups[i]` is that of execution i."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = groups
        self.overhead = max((group.envelope.overhead for group in groups), default=0)

    def request(self, items: Sequence[bytes], piece: Sequence[int]) -> bytes:
        """The serialized request: each item under its resource, those in the order in which they
        come first."""
        parts: dict[int, tuple[Envelope, list[bytes]]] = {}
        for item, index in zip(items, piece, strict=True):
            group = self._groups[index]
            part = parts.get(id(group))
            if part is None:
                part = parts[id(group)] = group.envelope, []
            part[1].append(item)
        return b"".join([envelope.request(some) for envelope, some in parts.values()])

    def headers(self, piece: Sequence[int]) -> Headers:
        """Those of the customers in the piece, which are the same for all of them."""
        return self._groups[piece[0]].headers

    def apart(self, indexes: Sequence[int]) -> Iterator[tuple[list[int], Mapping[int, int]]]:
        """Those with the same headers together, group by group, so that a request that is cut off
        names few resources twice. A group costs its resource."""
        by_headers: dict[Headers, dict[int, list[int]]] = {}
        for index in indexes:
            group = self._groups[index]
            by_headers.setdefault(group.headers, {}).setdefault(id(group), []).append(index)
        for groups in by_headers.values():
            first, *others = groups.values()
            order, added = first, {}
            for members in others:
                added[members[0]] = self._groups[members[0]].envelope.overhead
                order += members
            yield order, added

    def records(self, items: Sequence[bytes]) -> int:
        """How many spans or log records the items hold together."""
        return self._groups[0].envelope.records(items)
