"""The tree that a trace is shown as."""

from __future__ import annotations

import io
from itertools import permutations

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from rich.console import Console

from otel_alloy.terminal.demo import trace_tree
from otel_alloy.testing.otlp_endpoint import Item


def item(number: int, parent: int, name: str, start: int = 0, service: str = "shop") -> Item:
    span = Span(
        trace_id=b"t" * 16,
        span_id=number.to_bytes(8),
        parent_span_id=parent.to_bytes(8) if parent else b"",
        name=name,
        start_time_unix_nano=start,
        end_time_unix_nano=start + 96_000_000,
    )
    named = KeyValue(key="service.name", value=AnyValue(string_value=service))
    return Item(span, InstrumentationScope(), Resource(attributes=[named]))


def text(*items: Item) -> list[str]:
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(trace_tree(items))
    return console.export_text().splitlines()


def test_a_trace_is_one_tree_in_whatever_order_it_arrives() -> None:
    """The service's spans come first, the execution's minutes later: the tree is the same, with
    the execution as its root, children by start, and what came twice only once."""
    spans = [
        item(1, 0, "order sync", service="runalloy"),
        item(2, 1, "POST /orders"),
        item(3, 2, "print label", start=2),
        item(4, 2, "reserve stock", start=1),
    ]
    for order in permutations(spans):
        assert text(*order, order[0]) == [
            "runalloy  order sync  96 ms",
            "└── shop  POST /orders  96 ms",
            "    ├── shop  reserve stock  96 ms",
            "    └── shop  print label  96 ms",
        ]


def test_parents_that_are_missing_hide_nothing() -> None:
    """Spans whose parent is not there stand at the top; no spans are an empty tree; markup and
    control characters of a name are only text."""
    assert text(item(2, 1, "a"), item(4, 3, "b", start=1)) == [
        "shop  a  96 ms",
        "shop  b  96 ms",
    ]
    assert "".join(text()).strip() == ""
    (shown,) = text(item(1, 0, "[red]x\x1b[31m"))
    assert "[red]x" in shown and "\x1b" not in shown
