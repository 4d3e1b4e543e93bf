"""Run by the interpreter of an environment that has the propagator and knows nothing of this
repository: `python standalone.py vectors.json [--api-alone]`, with OTEL_PROPAGATORS set.

Every published vector has to come out of `opentelemetry.propagate`, as in a customer's service.
With `--api-alone` nothing but OpenTelemetry's API may have been loaded for it. Prints how many.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from opentelemetry.context import Context
from opentelemetry.propagate import extract
from opentelemetry.trace import SpanContext, get_current_span

HEADER = "x-alloy-executionuuid"


def found(values: str | list[str]) -> SpanContext:
    carrier: dict[str, Any] = {HEADER: values}
    return get_current_span(extract(carrier, Context())).get_span_context()


def main() -> None:
    vectors = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    by_uuid = {v["uuid"]: (v["trace_id"], v["span_id"]) for v in vectors["executions"]}
    headers = [(uuid, uuid) for uuid in by_uuid]
    headers += [(case["value"], case["uuid"]) for case in vectors["trimmed"]]
    for value, uuid in headers:
        context = found(value)
        assert (f"{context.trace_id:032x}", f"{context.span_id:016x}") == by_uuid[uuid], value
        assert context.is_remote and context.trace_flags == 1, value
    for case in vectors["ignored"]:
        assert not found(case["values"]).is_valid, case["why"]
    if "--api-alone" in sys.argv:
        heavy = {"opentelemetry.sdk", "opentelemetry.proto", "otel_alloy", "httpx", "pydantic"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    print(len(headers) + len(vectors["ignored"]))


main()
