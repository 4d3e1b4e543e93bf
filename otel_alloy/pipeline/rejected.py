"""Sending again what was set aside: the store's rejected records through mapping and delivery.

A record goes only to the signals that refused it, with the resource that it belongs to, and leaves
the store only when those signals took it; it stays where all of them are off. What the settings say
of its customer by now (headers, attributes that its resource has not) goes with it. Nothing here
reads Alloy or moves a checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace

from otel_alloy.alloy.models import Unreadable, read_notification
from otel_alloy.checkpoint.holding import Terms
from otel_alloy.checkpoint.store import RejectedHold, RejectedRecord, Store
from otel_alloy.errors import ConfigurationError
from otel_alloy.mapping.convert import Converter, Execution, Role
from otel_alloy.mapping.enrichment import Enrichment
from otel_alloy.mapping.forms import envelope
from otel_alloy.otlp.delivery import Delivery
from otel_alloy.pipeline.factory import Factory, open_customers
from otel_alloy.routing.customers import Group, GroupedEnvelope, Headers
from otel_alloy.settings.destinations import DestinationSettings
from otel_alloy.settings.models import Settings

Resource = Mapping[str, str | bool | int | float]


@dataclass(frozen=True, slots=True)
class Retried:
    """`delivered`: numbers that left the store; `refused`: number -> why it stays."""

    delivered: list[int]
    refused: dict[int, str]


def retry_rejected(factory: Factory, store: Store, numbers: Iterable[int]) -> Retried:
    """Sends the rejected records `numbers` (none: all) again, in batches, each of which leaves the
    store when it is delivered; waits like `run` for an endpoint that does not answer, until the end
    is asked for. Raises ShutdownRequested then, CheckpointError where another process is at it, and
    LeaseLost where one may have begun, because this one was paused."""
    done = Retried([], {})
    numbers = list(numbers)
    most, last = factory.settings.batch_size, 0
    terms = Terms(factory.settings.lease, factory.runtime)
    with store.hold_rejected(terms) as hold, ExitStack() as stack:
        places: dict[str | None, _Place | ConfigurationError] = {}
        while records := store.rejected(numbers, after=last, most=most):
            last = records[-1].number
            for name in dict.fromkeys(record.destination for record in records):
                if name not in places:
                    places[name] = _place(factory, name, stack)
                at, some = places[name], [r for r in records if r.destination == name]
                if isinstance(at, ConfigurationError):
                    done.refused.update((r.number, str(at)) for r in some)
                    continue
                for group, alike in _by_resource(factory.settings, at, some, done):
                    hold.going_on()
                    _retry(at.convert, at.delivery, group, alike, hold, done)
    return done


@dataclass(frozen=True, slots=True)
class _Place:
    """Where records go: the main destination, or another one, whose settings are `one`."""

    one: DestinationSettings | None
    convert: Converter
    delivery: Delivery


def _place(factory: Factory, name: str | None, stack: ExitStack) -> _Place | ConfigurationError:
    try:
        there = replace(factory, alone=name)
        one = there.destination
        privacy = None if one is None else one.privacy.over(factory.settings.privacy)
        delivery = stack.enter_context(closing(there.delivery(lambda report: None)))
        return _Place(one, factory.converter(privacy), delivery)
    except ConfigurationError as error:
        if name is None:
            raise
        return error


def _by_resource(
    settings: Settings, at: _Place, records: list[RejectedRecord], done: Retried
) -> Iterable[tuple[Group, list[RejectedRecord]]]:
    customers = None if at.one else open_customers(settings, {}, at.convert)
    groups: dict[str, tuple[Group, list[RejectedRecord]]] = {}
    for record in records:
        resource = _resource(settings, at.one, record)
        if resource is None:
            done.refused[record.number] = (
                f"its source {record.source!r} is not configured, so its resource is not known; "
                "add the source to the settings, or drop the record"
            )
            continue
        headers: Headers = ()
        if customers is not None:
            with suppress(ValueError):  # what cannot be read is said where it is sent
                (customer,) = customers.groups([_execution(record)])
                resource, headers = {**customer.resource, **resource}, customer.headers
        key = json.dumps((resource, headers))
        if key not in groups:
            groups[key] = Group(resource, envelope(resource), headers), []
        groups[key][1].append(record)
    return groups.values()


def _resource(
    settings: Settings, one: DestinationSettings | None, record: RejectedRecord
) -> Resource | None:
    """The resource that was kept with the record; else, for a record of an older version, that of
    its source, where it is still configured."""
    if record.resource is not None:
        return record.resource
    known = [s for s in settings.sources if s.name == record.source]
    if not known:
        return None
    return settings.resource(known[0]) | ({} if one is None else one.resource)


def _retry(
    convert: Converter,
    delivery: Delivery,
    group: Group,
    records: list[RejectedRecord],
    hold: RejectedHold,
    done: Retried,
) -> None:
    batch: list[RejectedRecord] = []
    spans: list[bytes | None] = []
    logs: list[bytes | None] = []
    for record in records:
        refused_by = set(record.signals.split(","))
        if record.signals != "source" and refused_by.isdisjoint(delivery.signals):
            done.refused[record.number] = (
                f"{record.signals} are off; set OTEL_{record.signals.upper()}_EXPORTER=otlp, or "
                "drop the record"
            )
            continue
        try:
            span, log = _convert(convert, record)
        except ValueError as error:  # Unreadable, Unconvertible, or a role that there is not
            done.refused[record.number] = str(error)
            continue
        batch.append(record)
        spans.append(span)
        logs.append(log)
    grouped = GroupedEnvelope([group] * len(batch))
    delivered = delivery.deliver(spans, logs, grouped, grouped)
    rejected = sum(delivered.rejected.values())
    for index, record in enumerate(batch):
        if index in delivered.rejections:
            done.refused[record.number] = delivered.rejections[index].reason
        elif rejected:
            done.refused[record.number] = (
                f"the endpoint took the request, but rejected {rejected} of its records, and does "
                "not tell which; retry the numbers one by one"
            )
        else:
            done.delivered.append(record.number)
    hold.drop(r.number for r in batch if r.number not in done.refused)


def _execution(record: RejectedRecord) -> Execution:
    n = read_notification(record.original)
    if n.message is None:
        raise Unreadable("the record has no `message`")
    known = None if record.enrichment is None else Enrichment.read(record.enrichment)
    return Execution(n, Role(record.role), record.started_at, enrichment=known)


def _convert(convert: Converter, record: RejectedRecord) -> tuple[bytes | None, bytes | None]:
    span, log = convert.convert(_execution(record))
    if record.signals == "source":
        return span, log
    signals = record.signals.split(",")
    return (span if "traces" in signals else None), (log if "logs" in signals else None)
