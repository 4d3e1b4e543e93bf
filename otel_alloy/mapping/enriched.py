"""What an execution's enrichment makes of its span and its log record.

Theory: few executions are enriched, so what was made of the notification is read again with the
protobuf library, changed, and serialized as before: deterministically, fields in ascending order.
Of blocks there are many; `encode` makes their spans.
The blocks' spans stand behind the execution's own in one piece of bytes, which is therefore
delivered, set aside and sent again as one. All of it follows from notification and enrichment
alone, so a repeat has the same bytes. `convert` asks for it; no time, no I/O and no setting is
here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

from opentelemetry.proto.logs.v1.logs_pb2 import SEVERITY_NUMBER_ERROR, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from otel_alloy.mapping import encode, semconv
from otel_alloy.mapping.encode import Value
from otel_alloy.mapping.enrichment import Enrichment, Step
from otel_alloy.mapping.ids import block_span_id

MOST_BYTES = 512 * 1024
"""What the spans of an execution's blocks may take together: room for a thousand and more, and far
below what an endpoint takes in one request. The further ones are left out; the one at which the
execution failed is not."""

Clean = Callable[[str], str]


def enriched_span(span: bytes, enrichment: Enrichment, identity: str, clean: Clean) -> bytes:
    """The framed `span` with what is known of the execution, and behind it the framed spans of its
    blocks. `identity`: what its ids were computed from; `clean` makes text fit to send."""
    scope = ScopeSpans.FromString(span)
    (own,) = scope.spans
    failed = own.status.code == Status.STATUS_CODE_ERROR
    own.MergeFromString(
        encode.span_attributes(_encoded(span_attributes(enrichment, failed, clean)))
    )
    if failed:
        own.status.message = reason_text(enrichment, clean)
    whole = scope.SerializeToString(deterministic=True)
    return b"".join([whole, *_blocks(own, enrichment, identity, clean)])


def enriched_log(record: bytes, enrichment: Enrichment, clean: Clean) -> bytes:
    """The framed log record `record` with where and why its execution failed; any other record as
    it is."""
    scope = ScopeLogs.FromString(record)
    (own,) = scope.log_records
    if own.severity_number != SEVERITY_NUMBER_ERROR:
        return record
    reason = enrichment.reason
    texts = {
        semconv.EXCEPTION_TYPE: reason.type if reason else None,
        semconv.EXCEPTION_MESSAGE: reason.message if reason else None,
    }
    values = _failure(enrichment, clean) | _texts(texts, clean)
    own.MergeFromString(encode.log_attributes(_encoded(values)))
    own.body.string_value += _sentence(enrichment, clean)
    return scope.SerializeToString(deterministic=True)


def span_attributes(enrichment: Enrichment, failed: bool, clean: Clean) -> dict[str, Value]:
    """What the span of an execution has beside what its notification tells; `failed`: whether it
    ended with an error."""
    found: dict[str, Value] = _failure(enrichment, clean) if failed else {}
    if enrichment.steps:
        found[semconv.EXECUTION_BLOCKS] = len(enrichment.steps)
    return found


def reason_text(enrichment: Enrichment, clean: Clean) -> str:
    """Why an execution failed, in Alloy's words; "" where that is not known or not to be told."""
    reason = enrichment.reason
    return clean(reason.message or "") if reason else ""


def _failure(enrichment: Enrichment, clean: Clean) -> dict[str, Value]:
    """At which block an execution failed, and where the reason is known from."""
    reason = enrichment.reason
    found = {} if enrichment.block is None else _block(enrichment.block)
    found[semconv.REASON_SOURCE] = reason.source if reason else None
    return _texts(found, clean)


def _block(step: Step) -> dict[str, str | None]:
    return {
        semconv.BLOCK_ID: step.id,
        semconv.BLOCK_NAME: step.name,
        semconv.BLOCK_TYPE: step.type,
    }


def _texts(values: Mapping[str, str | None], clean: Clean) -> dict[str, Value]:
    return {key: clean(value) for key, value in values.items() if value}


def _encoded(values: Mapping[str, Value]) -> list[bytes]:
    return [
        encode.attribute(key, value) if isinstance(value, str) else _number(key, value)
        for key, value in values.items()
    ]


@lru_cache(maxsize=1024, typed=True)
def _number(key: str, value: Value) -> bytes:
    """As `encode.attribute`, for the few numbers that places, counts and answers are."""
    return encode.attribute(key, value)


def _sentence(enrichment: Enrichment, clean: Clean) -> str:
    """How the log record's body goes on: ` at Create customer (shopify): Invalid id`, on one line,
    or the part of it that is known."""
    block, reason = enrichment.block, enrichment.reason
    place = why = ""
    if block is not None:
        called, app = block.name or block.id, block.app or block.type
        place = f"{called} ({app})" if called and app else called or app or ""
    if reason is not None:
        why = reason.message or reason.type or ""
    place, why = (clean(" ".join(text.split())) for text in (place, why))
    return (f" at {place}" if place else "") + (f": {why}" if why else "")


# The spans of the blocks --------------------------------------------------------------------------


def _blocks(own: Span, enrichment: Enrichment, identity: str, clean: Clean) -> Iterator[bytes]:
    """Framed, in the order of the steps, as many as there is room for."""
    items = list(_all_blocks(own, enrichment, identity, clean))
    failed = [step.failed for step in enrichment.steps]
    room = MOST_BYTES - sum(len(item) for item, kept in zip(items, failed, strict=True) if kept)
    for item, kept in zip(items, failed, strict=True):
        if not kept:
            room -= len(item)
        if kept or room >= 0:
            yield item


def _all_blocks(own: Span, enrichment: Enrichment, identity: str, clean: Clean) -> Iterator[bytes]:
    form = encode.ChildForm(own.trace_id, own.span_id, own.trace_state)
    earliest, latest = own.start_time_unix_nano, own.end_time_unix_nano
    previous = earliest
    for step in enrichment.steps:
        start, stop, adjusted = _times(step, earliest, latest, previous)
        previous = stop
        yield form.fill(
            block_span_id(identity, step.id or "", step.index),
            clean(step.name or step.id or f"block {step.index}"),
            bool(step.app),
            start,
            stop,
            _encoded(_block_attributes(step, adjusted, clean)),
            reason_text(enrichment, clean) if step.failed else None,
        )


def _block_attributes(step: Step, adjusted: bool, clean: Clean) -> dict[str, Value]:
    found: dict[str, Value] = {semconv.TIME_ADJUSTED: True} if adjusted else {}
    found |= _texts(_block(step), clean)
    found[semconv.BLOCK_INDEX] = step.index
    found |= _texts({semconv.SERVICE_PEER_NAME: step.app}, clean)
    if step.status_code is not None and 100 <= step.status_code <= 599:
        found[semconv.HTTP_RESPONSE_STATUS_CODE] = step.status_code
    return found


def _times(step: Step, earliest: int, latest: int, previous: int) -> tuple[int, int, bool]:
    """start and stop (Unix ns) within the execution's, and whether one had to be made up or moved.
    A start that is missing is the `previous` block's stop, or its own where that is earlier, a stop
    the start."""
    start = step.started
    if start is None:
        start = previous if step.stopped is None else min(previous, step.stopped)
    start = min(max(start, earliest), latest)
    stop = start if step.stopped is None else step.stopped
    stop = min(max(stop, start), latest)
    return start, stop, (start, stop) != (step.started, step.stopped)
