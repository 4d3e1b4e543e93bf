"""What spans and log records of one kind have in common, serialized once.

The words, severities and attributes of each outcome are decided here; which one an execution has is
decided in `convert`, and the bytes are made in `encode`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from otel_alloy.mapping import encode, semconv
from otel_alloy.version import __version__


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """What executions of one outcome have in common, serialized but for `attributes`. `words`: the
    body's, after the workflow's name."""

    words: bytes
    attributes: Mapping[str, str]
    log_head: bytes
    log_event: bytes
    log_attributes: bytes
    log_event_attribute: bytes
    span_attributes: bytes
    span_status: bytes


def envelope(resource: Mapping[str, encode.Value]) -> encode.Envelope:
    """What stands around the spans or log records of a request: whose they are, what made them, and
    which version of the conventions their names follow."""
    return encode.Envelope(resource, semconv.SCOPE_NAME, __version__, semconv.SCHEMA_URL)


def _kind(
    words: str, severity: int, severity_text: str, event: str, outcome: str = "", error: str = ""
) -> Kind:
    pairs = ((semconv.EXECUTION_OUTCOME, outcome), (semconv.ERROR_TYPE, error))
    plain = {key: value for key, value in pairs if value}
    attributes = [encode.attribute(key, value) for key, value in plain.items()]
    return Kind(
        words.encode(),
        plain,
        encode.log_head(severity, severity_text),
        encode.log_event(event),
        encode.log_attributes(attributes),
        encode.log_attributes([encode.attribute(semconv.EVENT_NAME, event)]),
        encode.span_attributes(attributes),
        encode.STATUS_ERROR if error else encode.STATUS_UNSET,
    )


FINISHED = _kind(" finished after ", 9, "INFO", semconv.EVENT_FINISHED, "success")
FAILED = _kind(" failed after ", 17, "ERROR", semconv.EVENT_FAILED, "error", "executionError")
INCOMPLETE = _kind(" has not reported its end", 13, "WARN", semconv.EVENT_INCOMPLETE, "incomplete")
STARTED = _kind(" started", 9, "INFO", semconv.EVENT_STARTED)
OTHER = _kind(" reported something this version does not know", 9, "INFO", semconv.EVENT_OTHER)

_ADJUSTED = encode.attribute(semconv.TIME_ADJUSTED, True)
_SPAN_ADJUSTED = encode.span_attributes([_ADJUSTED])
_LOG_ADJUSTED = encode.log_attributes([_ADJUSTED])


def _text(key: str) -> tuple[Callable[[int], bytes], Callable[[int], bytes]]:
    span = encode.TextAttribute(encode.SPAN_ATTRIBUTE, key)
    log = encode.TextAttribute(encode.LOG_ATTRIBUTE, key)
    return span.head, log.head


_span_execution_id, _log_execution_id = _text(semconv.EXECUTION_ID)
_span_execution_uuid, _log_execution_uuid = _text(semconv.EXECUTION_UUID)
_span_notification_id, _log_notification_id = _text(semconv.NOTIFICATION_ID)
_, _log_record_uid = _text(semconv.LOG_RECORD_UID)
_, log_message = _text(semconv.MESSAGE)
"""What stands before the text of a message that is not known, for its length in bytes."""
_span_url, _log_url = _text(semconv.URL_FULL)


def url(text: bytes) -> tuple[bytes, bytes]:
    """Alloy's page of an execution as fields of span and log record, equally long."""
    return _span_url(len(text)) + text, _log_url(len(text)) + text


@dataclass(frozen=True, slots=True)
class Repeating:
    """What executions of one workflow, version and user have in common, serialized."""

    name: bytes
    span: bytes
    log: bytes


def span_form(
    common: Repeating,
    kind: Kind,
    adjusted: bool,
    execution: int,
    uuid: int,
    notification: int,
    url: int,
    parent: bytes = b"",
    links: bytes = b"",
) -> encode.SpanForm:
    """For ids of these lengths (bytes); one that is missing has length 0, and no head. `url`: the
    length of that field, which follows the last id; 0 where there is none. `parent`, `links`:
    serialized fields."""
    return encode.SpanForm(
        common.name,
        common.span,
        (
            _span_execution_id(execution) if execution else b"",
            _span_execution_uuid(uuid) if uuid else b"",
            _span_notification_id(notification) if notification else b"",
        ),
        execution + uuid + notification + url,
        kind.span_attributes + (_SPAN_ADJUSTED if adjusted else b""),
        kind.span_status,
        parent,
        links,
    )


def log_form(
    common: Repeating,
    kind: Kind,
    adjusted: bool,
    execution: int,
    uuid: int,
    notification: int,
    url: int,
    uid: int,
    message: bytes,
    event_attribute: bool,
) -> encode.LogForm:
    """As `span_form`. `message`: the serialized attribute, for a message that is not known.
    `event_attribute`: whether the event's name stands among the attributes too."""
    return encode.LogForm(
        kind.log_head,
        common.log,
        (
            _log_execution_id(execution) if execution else b"",
            _log_execution_uuid(uuid) if uuid else b"",
            _log_notification_id(notification) if notification else b"",
            message + (_log_record_uid(uid) if uid else b""),
        ),
        execution + uuid + notification + url + uid,
        kind.log_attributes
        + (kind.log_event_attribute if event_attribute else b"")
        + (_LOG_ADJUSTED if adjusted else b""),
        kind.log_event,
    )
