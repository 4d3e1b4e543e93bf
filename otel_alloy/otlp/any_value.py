"""OTLP's `AnyValue` as Python values: the only decoder of it. Pure.

Total: every message has a value, whatever a sender put into it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue


def python_value(value: AnyValue) -> Any:
    """None, str, bool, int, float or bytes; a list of an array, a dict of a list of pairs."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [python_value(one) for one in value.array_value.values]
    if kind == "kvlist_value":
        return attributes(value.kvlist_value.values)
    return None if kind is None else getattr(value, kind)


def attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    """The attributes of a span, link, log record or resource; of equal keys the last one."""
    return {pair.key: python_value(pair.value) for pair in pairs}
