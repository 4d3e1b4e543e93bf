"""Sending again what was set aside: the store's `rejected` records through mapping and delivery.

A record goes only to the signals that refused it, and leaves the store only when both of those
took it. Nothing here reads Alloy or moves a checkpoint.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from otel_alloy.alloy.models import Unreadable, read_notification
from otel_alloy.checkpoint.store import RejectedRecord, Store
from otel_alloy.mapping import semconv
from otel_alloy.mapping.convert import Converter, Execution, Role, Unconvertible
from otel_alloy.mapping.encode import Envelope
from otel_alloy.otlp.delivery import Delivery
from otel_alloy.otlp.senders import open_senders
from otel_alloy.pipeline.factory import converter
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.models import Settings
from otel_alloy.version import USER_AGENT, __version__


@dataclass(frozen=True, slots=True)
class Retried:
    """`delivered`: numbers that left the store; `refused`: number -> why it stays."""

    delivered: list[int]
    refused: dict[int, str]


def retry_rejected(
    settings: Settings, store: Store, numbers: Iterable[int], stop: threading.Event
) -> Retried:
    """Sends the set-aside records `numbers` (none: all) again; waits like `run` for an
    endpoint that is away, until `stop`. Raises ShutdownRequested then."""
    kept = store.rejected(numbers)
    refused: dict[int, str] = {}
    delivered: list[int] = []
    convert = converter(settings)
    runtime = system_runtime(stop)
    delivery = Delivery(
        *open_senders(settings.otlp, USER_AGENT, runtime),
        max_request_bytes=settings.max_request_bytes,
        runtime=runtime,
        report=lambda report: None,
    )
    try:
        for source in dict.fromkeys(r.source for r in kept):
            known = [s for s in settings.sources if s.name == source]
            resource = settings.resource(known[0] if known else settings.sources[0])
            envelope = Envelope(resource, semconv.SCOPE_NAME, __version__)
            batch: list[RejectedRecord] = []
            spans: list[bytes | None] = []
            logs: list[bytes | None] = []
            for record in (r for r in kept if r.source == source):
                try:
                    span, log = _convert(convert, record)
                except (Unreadable, Unconvertible) as error:
                    refused[record.number] = str(error)
                    continue
                batch.append(record)
                spans.append(span)
                logs.append(log)
            answers = delivery.deliver(spans, logs, envelope, envelope) if batch else {}
            for index, record in enumerate(batch):
                if index in answers:
                    refused[record.number] = answers[index].reason
                else:
                    delivered.append(record.number)
            store.drop_rejected(r.number for i, r in enumerate(batch) if i not in answers)
    finally:
        delivery.close()
    return Retried(delivered, refused)


def _convert(convert: Converter, record: RejectedRecord) -> tuple[bytes | None, bytes | None]:
    n = read_notification(record.original)
    if n.message is None:
        raise Unreadable("the record has no `message`")
    span, log = convert.convert(Execution(n, Role(record.role), record.started_at))
    if record.signals == "source":
        return span, log
    signals = record.signals.split(",")
    return (span if "traces" in signals else None), (log if "logs" in signals else None)
