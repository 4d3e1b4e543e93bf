"""OTLP messages as bytes, by joining serialized fields. The only module that knows wire formats.

Theory (protobuf encoding specification): a message is the concatenation of its fields, each a tag
byte (`field number << 3 | wire type`) and a payload; payloads of type 2 carry their length as a
varint, type 1 are 8 bytes and type 5 are 4 bytes, little-endian. So what repeats between
executions (workflow, user, version) is serialized once and the bytes are joined afterwards: no
message objects, no copies of attributes. Fields are written in ascending order, as the protobuf
library does, so the bytes equal what it would make of the same message.

Field numbers are those of opentelemetry-proto 1.11 (`trace.proto`, `logs.proto`, `common.proto`).
No mapping decision may be taken here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from struct import Struct

from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Value = str | bool | int | float

SPAN_ATTRIBUTE, LOG_ATTRIBUTE = b"\x4a", b"\x32"
"""Tags of Span.attributes and LogRecord.attributes."""

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_SHORT_LENGTHS = tuple(_varint(n) for n in range(4096))


def length(number: int) -> bytes:
    """`number` (not negative) as a protobuf varint."""
    return _SHORT_LENGTHS[number] if number < 4096 else _varint(number)


def fit(value: Value) -> Value:
    """`value` as OTLP can carry it: an integer beyond 64 bits becomes text."""
    if isinstance(value, int) and not _INT64_MIN <= value <= _INT64_MAX:
        return str(value)
    return value


def any_value(value: Value) -> AnyValue:
    """`value` as OTLP's AnyValue."""
    value = fit(value)
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(string_value=value)


@lru_cache(maxsize=4096, typed=True)
def attribute(key: str, value: Value) -> bytes:
    """A serialized KeyValue, for what is encoded once and reused."""
    if isinstance(value, str):
        name, text = key.encode(), value.encode()
        text = b"\x0a" + length(len(text)) + text  # AnyValue.string_value
        # KeyValue.key and KeyValue.value
        return b"\x0a" + length(len(name)) + name + b"\x12" + length(len(text)) + text
    return KeyValue(key=key, value=any_value(value)).SerializeToString(deterministic=True)


class TextAttribute:
    """The field `attributes` for one key whose text differs every time.

    All that stands before the text depends on its length alone, and ids have one or two lengths:
    it is serialized once for each. `tag` is SPAN_ATTRIBUTE or LOG_ATTRIBUTE.
    """

    __slots__ = ("_heads", "_key", "_tag")

    def __init__(self, tag: bytes, key: str) -> None:
        name = key.encode()
        self._tag = tag
        self._key = b"\x0a" + length(len(name)) + name  # KeyValue.key
        self._heads: dict[int, bytes] = {}

    def head(self, size: int) -> bytes:
        """What stands before `size` bytes of UTF-8 text."""
        found = self._heads.get(size)
        if found is None:
            text = b"\x0a" + length(size)  # AnyValue.string_value
            value = b"\x12" + length(len(text) + size) + text  # KeyValue.value
            whole = length(len(self._key) + len(value) + size)
            found = self._tag + whole + self._key + value
            if len(self._heads) < 4096:
                self._heads[size] = found
        return found


_ITEM = b"\x12"  # ScopeSpans.spans and ScopeLogs.log_records are both field 2
_SPAN_TRACE_ID, _SPAN_SPAN_ID = b"\x0a\x10", b"\x12\x08"
_SPAN_NAME = b"\x2a"
_KIND_INTERNAL, _KIND_CLIENT = b"\x30\x01", b"\x30\x03"
_KIND_SERVER_AND_START = b"\x30\x02\x39"
_SPAN_END = b"\x41"
_SPAN_TIMES = Struct("<cQcQ").pack
_LOG_TIME, _LOG_OBSERVED = b"\x09", b"\x59"
_BODY_LENGTHS = 64
_LOG_TRACE_ID, _LOG_SPAN_ID = b"\x4a\x10", b"\x52\x08"

fixed64 = Struct("<Q").pack
"""Unix nanoseconds as the forms take them."""

STATUS_UNSET = b"\x7a\x00"
STATUS_ERROR = b"\x7a\x02\x18\x02"
HAS_IS_REMOTE, IS_REMOTE = 0x100, 0x200
"""Bits of Span.flags (about the parent) and Link.flags; bits 0 to 7 are W3C's trace flags."""
_SPAN_FLAGS = b"\x85\x01\x00\x01\x00\x00"  # parent known to be not remote (there is none)
_SPAN_FLAGS_PARENT = b"\x85\x01\x00\x03\x00\x00"  # parent known to be remote
_LOG_FLAGS_SAMPLED = b"\x45\x01\x00\x00\x00"


def span_name(name: str) -> bytes:
    """The field Span.name."""
    text = name.encode()
    return _SPAN_NAME + length(len(text)) + text


def span_attributes(attributes: Sequence[bytes]) -> bytes:
    """The fields Span.attributes of serialized KeyValues, in order."""
    return b"".join([SPAN_ATTRIBUTE + length(len(a)) + a for a in attributes])


def log_attributes(attributes: Sequence[bytes]) -> bytes:
    """The fields LogRecord.attributes of serialized KeyValues, in order."""
    return b"".join([LOG_ATTRIBUTE + length(len(a)) + a for a in attributes])


def span_parent(span_id: bytes, trace_state: str) -> bytes:
    """The fields Span.trace_state and .parent_span_id. Rare, so protobuf's own objects do."""
    fields = Span(parent_span_id=span_id, trace_state=trace_state)
    return fields.SerializeToString(deterministic=True)


def span_link(
    trace_id: bytes,
    span_id: bytes,
    trace_state: str,
    flags: int,
    attributes: Mapping[str, Value | Sequence[Value]],
) -> bytes:
    """The field Span.links of one link; attributes in the order of their keys. Rare, as above."""
    link = Span.Link(trace_id=trace_id, span_id=span_id, trace_state=trace_state, flags=flags)
    for key, value in sorted(attributes.items()):
        if isinstance(value, str | bool | int | float):
            encoded = any_value(value)
        else:
            encoded = AnyValue(array_value=ArrayValue(values=[any_value(one) for one in value]))
        link.attributes.append(KeyValue(key=key, value=encoded))
    return Span(links=[link]).SerializeToString(deterministic=True)


class SpanForm:
    """A span that is ready but for its ids, times, and three texts.

    `name` and `attributes` (all but the texts: those `before` and those `after` them), `status`,
    `parent` (empty: a root) and `links` are serialized fields. `heads`: what stands before each
    text (TextAttribute.head), `size`: how many bytes the texts have together.
    """

    __slots__ = ("_begin", "_end", "_named", "_one", "_three", "_two")

    def __init__(
        self,
        name: bytes,
        before: bytes,
        heads: tuple[bytes, bytes, bytes],
        size: int,
        after: bytes,
        status: bytes,
        parent: bytes = b"",
        links: bytes = b"",
    ) -> None:
        flags = _SPAN_FLAGS_PARENT if parent else _SPAN_FLAGS
        self._named = parent + name + _KIND_SERVER_AND_START
        self._one, self._two, self._three = before + heads[0], heads[1], heads[2]
        self._end = after + links + status + flags
        constant = (self._named, self._one, self._two, self._three, self._end)
        ids_and_times = 18 + 10 + 8 + 9
        whole = length(ids_and_times + sum(map(len, constant)) + size)
        self._begin = _ITEM + whole + _SPAN_TRACE_ID

    def fill(
        self,
        trace_id: bytes,
        span_id: bytes,
        start: bytes,
        end: bytes,
        texts: tuple[bytes, bytes, bytes],
    ) -> bytes:
        """The framed `ScopeSpans.spans` item. Times are from `fixed64`; the texts have the length
        that was told."""
        one, two, three = texts
        return b"".join(
            (
                self._begin,
                trace_id,
                _SPAN_SPAN_ID,
                span_id,
                self._named,
                start,
                _SPAN_END,
                end,
                self._one,
                one,
                self._two,
                two,
                self._three,
                three,
                self._end,
            )
        )


class ChildForm:
    """The spans below one span, ready but for what each has of its own. `trace_state`: the
    parent's, which they share."""

    __slots__ = ("_ids", "_parent")

    def __init__(self, trace_id: bytes, parent_id: bytes, trace_state: str) -> None:
        self._ids = _SPAN_TRACE_ID + trace_id + _SPAN_SPAN_ID
        self._parent = span_parent(parent_id, trace_state)

    def fill(
        self,
        span_id: bytes,
        name: str,
        client: bool,
        start: int,
        end: int,
        attributes: Sequence[bytes],
        error: str | None,
    ) -> bytes:
        """The framed `ScopeSpans.spans` item, of kind CLIENT or else INTERNAL. `attributes`:
        serialized KeyValues; times are Unix nanoseconds. `error`: the description of a status
        ERROR, None where there is no error."""
        message = b"".join(
            (
                self._ids,
                span_id,
                self._parent,
                span_name(name),
                _KIND_CLIENT if client else _KIND_INTERNAL,
                _SPAN_TIMES(b"\x39", start, b"\x41", end),
                span_attributes(attributes),
                STATUS_UNSET if error is None else _status_error(error),
                _SPAN_FLAGS,
            )
        )
        return _ITEM + length(len(message)) + message


def _status_error(description: str) -> bytes:
    """The field Span.status of an error with a description ("": none)."""
    text = description.encode()
    status = b"\x12" + length(len(text)) + text + b"\x18\x02" if text else b"\x18\x02"
    return b"\x7a" + length(len(status)) + status


def log_head(severity_number: int, severity_text: str) -> bytes:
    """The fields LogRecord.severity_number and .severity_text."""
    text = severity_text.encode()
    return b"\x10" + length(severity_number) + b"\x1a" + length(len(text)) + text


def log_event(event_name: str) -> bytes:
    """The field LogRecord.event_name."""
    text = event_name.encode()
    return b"\x62" + length(len(text)) + text


class LogForm:
    """A log record that is ready but for its ids, times, body, and four texts; as `SpanForm`.
    `head` and `event` are serialized fields."""

    __slots__ = ("_begins", "_end", "_event", "_four", "_head", "_one", "_size", "_three", "_two")

    def __init__(
        self,
        head: bytes,
        before: bytes,
        heads: tuple[bytes, bytes, bytes, bytes],
        size: int,
        after: bytes,
        event: bytes,
    ) -> None:
        self._head = head
        self._one, self._two, self._three, self._four = before + heads[0], *heads[1:]
        self._end = after + _LOG_FLAGS_SAMPLED + _LOG_TRACE_ID
        self._event = event
        constant = (head, before, *heads, self._end, event)
        times_and_ids = 9 + 9 + 16 + 10
        self._size = times_and_ids + sum(map(len, constant)) + size
        self._begins: dict[int, tuple[bytes, bytes]] = {}

    def _begin(self, size: int) -> tuple[bytes, bytes]:
        """What stands before the time, and between it and a body of so many bytes."""
        text = b"\x0a" + length(size)  # AnyValue.string_value
        body_head = b"\x2a" + length(len(text) + size) + text
        whole = length(self._size + len(body_head) + size)
        if len(self._begins) >= _BODY_LENGTHS:
            self._begins.clear()
        found = self._begins[size] = _ITEM + whole + _LOG_TIME, self._head + body_head
        return found

    def fill(
        self,
        trace_id: bytes,
        span_id: bytes,
        time: bytes,
        observed: bytes,
        body: bytes,
        texts: tuple[bytes, bytes, bytes, bytes],
    ) -> bytes:
        """The framed `ScopeLogs.log_records` item. `body` is UTF-8 text, times are from `fixed64`;
        the texts have the length that was told."""
        one, two, three, four = texts
        size = len(body)
        begin, body_head = self._begins.get(size) or self._begin(size)
        return b"".join(
            (
                begin,
                time,
                body_head,
                body,
                self._one,
                one,
                self._two,
                two,
                self._three,
                three,
                self._four,
                four,
                self._end,
                trace_id,
                _LOG_SPAN_ID,
                span_id,
                _LOG_OBSERVED,
                observed,
                self._event,
            )
        )


class Envelope:
    """Resource and scope around items: an ExportTraceServiceRequest or ExportLogsServiceRequest
    (both have the same field numbers). `overhead`: bytes that a request adds to its items, at
    most. `schema_url`: of the names in all of it (ResourceSpans, ScopeSpans and their like for log
    records: field 3 of each)."""

    def __init__(
        self,
        resource: Mapping[str, Value],
        scope_name: str,
        scope_version: str,
        schema_url: str = "",
    ) -> None:
        message = Resource(
            attributes=[KeyValue(key=k, value=any_value(v)) for k, v in sorted(resource.items())]
        ).SerializeToString(deterministic=True)
        scope = InstrumentationScope(name=scope_name, version=scope_version).SerializeToString()
        schema = schema_url.encode()
        self._resource = b"\x0a" + length(len(message)) + message
        self._scope = b"\x0a" + length(len(scope)) + scope
        self._schema = b"\x1a" + length(len(schema)) + schema if schema else b""
        self.overhead = len(self._resource) + len(self._scope) + 2 * len(self._schema) + 12

    def request(self, items: Sequence[bytes], _: Sequence[int] = ()) -> bytes:
        """The serialized request with `items` (framed spans, or framed log records), whichever
        executions they are of. Joined with another one, it is one with what both hold."""
        schema = self._schema
        size = len(self._scope) + sum(map(len, items)) + len(schema)
        scoped = b"\x12" + length(size)
        total = len(self._resource) + len(scoped) + size + len(schema)
        head = (b"\x0a", length(total), self._resource, scoped, self._scope)
        return b"".join((*head, *items, schema, schema))

    def headers(self, _: Sequence[int]) -> tuple[tuple[str, str], ...]:
        """None: every request is sent as the settings say."""
        return ()

    def apart(self, indexes: Sequence[int]) -> list[tuple[Sequence[int], Mapping[int, int]]]:
        """All may share a request."""
        return [(indexes, {})]

    def records(self, items: Sequence[bytes]) -> int:
        """How many spans or log records the items hold together: behind an execution's span there
        may be those of its blocks."""
        return sum(map(_frames, items))


def _frames(item: bytes) -> int:
    """How many framed messages stand one behind the other."""
    at = count = 0
    while at < len(item):
        size = shift = 0
        more = 0x80
        while more:
            at += 1
            more = item[at] & 0x80
            size |= (item[at] & 0x7F) << shift
            shift += 7
        at += 1 + size
        count += 1
    return count
