"""Reading an endpoint's answers: the protobuf messages of OTLP and google.rpc, and plain words.

Pure functions from bytes and text to values. No sockets; what a status code means belongs to
`answers`. Rules: opentelemetry-proto docs/specification.md, "OTLP/HTTP Response" and "OTLP/gRPC
Throttling".
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable
from typing import Any

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otel_alloy.otlp.outcome import Kind, Outcome
from otel_alloy.settings.otlp import Signal

MAX_ANSWER = 4 * 1024 * 1024
"""Bytes of an answer that are read at most (the OTLP specification's response limit)."""
MOST_JSON = 1024 * 1024
"""Bytes of one in JSON, which takes up to thirty times as much when it is read."""
MOST_WORDS = 1000
"""Characters of its words that are kept."""
_LONGEST_DELAY = 1e9
_MOST_REJECTED = 2**53

_WELL = frozenset(("ok", "success", "accepted"))


def delivered(signal: Signal, body: bytes, secrets: Iterable[str] = ()) -> Outcome:
    """`body` as an `Export*ServiceResponse`, partial success included.

    Raises `ValueError` where `body` is not such a message.
    """
    try:
        if signal == "traces":
            spans = ExportTraceServiceResponse.FromString(body).partial_success
            rejected, words = spans.rejected_spans, spans.error_message
        else:
            logs = ExportLogsServiceResponse.FromString(body).partial_success
            rejected, words = logs.rejected_log_records, logs.error_message
    except DecodeError as error:
        raise ValueError("not an OTLP answer") from error
    return Outcome(Kind.DELIVERED, _shown(words, secrets), rejected=_count(rejected))


def delivered_as_json(signal: Signal, body: bytes, secrets: Iterable[str] = ()) -> Outcome:
    """A JSON `body` as an acknowledgement: nothing, `{}`, `"OK"` (SignalFx), an object with
    `partialSuccess` (LangWatch), or one that says that all went well (OpenObserve). An object that
    says something else, or an error, may come from a proxy.

    Raises `ValueError` where `body` is none of these.
    """
    if len(body) > MOST_JSON:
        raise ValueError(f"JSON of more than {MOST_JSON} bytes")
    try:
        value = json.loads(body.removeprefix(codecs.BOM_UTF8)) if body.strip() else {}
    except (ValueError, RecursionError) as error:
        raise ValueError("not JSON") from error
    if isinstance(value, str) and value.lower() in _WELL:
        return Outcome(Kind.DELIVERED)
    if not isinstance(value, dict) or any(value.get(k) for k in ("error", "errors")):
        raise ValueError("not an OTLP answer")
    partial = value.get("partialSuccess", value.get("partial_success"))
    if isinstance(partial, dict):
        names = ("rejectedSpans", "rejected_spans")
        if signal == "logs":
            names = ("rejectedLogRecords", "rejected_log_records")
        rejected = next((_number(partial[n]) for n in names if n in partial), 0)
        words = partial.get("errorMessage", partial.get("error_message")) or ""
        words = words if isinstance(words, str) else ""
        return Outcome(Kind.DELIVERED, _shown(words, secrets), rejected=_count(rejected))
    well = (
        str(value.get("status", ""))[:20].lower() in _WELL
        or value.get("success") is True
        or (type(value.get("code")) is int and (value["code"] == 0 or 200 <= value["code"] < 300))
    )
    if value and not well:
        raise ValueError("not an OTLP answer")
    return Outcome(Kind.DELIVERED)


def _number(value: Any) -> int:
    """A protobuf int64 as JSON has it: a number, or text."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return 0


def status_of(body: bytes) -> tuple[str, float | None]:
    """Message and RetryInfo delay (seconds, None if absent) of a google.rpc.Status.

    What cannot be decoded has no words: `("", None)`.
    """
    try:
        status = Status.FromString(body)
        delay = None
        for detail in status.details:
            info = RetryInfo()
            if detail.Unpack(info):
                seconds = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
                delay = min(max(seconds, 0.0), _LONGEST_DELAY)
    except DecodeError:
        return "", None
    return status.message, delay


def _count(rejected: int) -> int:
    return min(max(rejected, 0), _MOST_REJECTED)


def _shown(words: str, secrets: Iterable[str]) -> str:
    shown = hide(words, secrets)
    return shown if len(shown) <= MOST_WORDS else shown[:MOST_WORDS] + "…[cut]"


def hide(text: str, secrets: Iterable[str]) -> str:
    """`text` with each of `secrets` replaced: an endpoint may echo the key it refuses."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
