"""Spans of the receiver's own work: opt-in, of their own service, in the shape that is documented,
without a key, a user or a filter, and without an end in themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_alloy.observability import traces as own_traces
from otel_alloy.observability.metrics import SOURCE
from otel_alloy.testing.otlp_endpoint import Answer, Received, attributes

if TYPE_CHECKING:
    from conftest import Place


def own(place: Place) -> list[Span]:
    """The spans of the service `otel-alloy`; all others are executions."""
    return [
        item.record
        for item in place.otlp.items("traces")
        if isinstance(item.record, Span)
        and attributes(item.resource.attributes)["service.name"] == "otel-alloy"
    ]


def shown(span: Span) -> dict[str, Any]:
    return attributes(span.attributes)


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_a_cycle_is_a_trace(request: pytest.FixtureRequest, transport: str) -> None:
    """One span per cycle with the cycle's id, and below it one for each request to Alloy and each
    delivery, with what the semantic conventions of HTTP and gRPC clients ask for."""
    place: Place = request.getfixturevalue("place" if transport == "http" else "grpc_place")
    records = place.fill(30)
    done = place.once("--own-traces", OTEL_ALLOY_LOG_FORMAT="json")
    spans = own(place)
    (poll,) = [s for s in spans if not s.parent_span_id]
    children = [s for s in spans if s.parent_span_id]
    assert {s.parent_span_id for s in children} == {poll.span_id}
    assert {s.trace_id for s in spans} == {poll.trace_id}
    assert (poll.name, poll.kind) == ("poll", Span.SPAN_KIND_INTERNAL)
    lines = [json.loads(line) for line in done.err.splitlines()]
    assert (
        {line["cycle"] for line in lines if "cycle" in line}
        == {shown(poll)[own_traces.CYCLE]}
        != {""}
    )
    assert shown(poll) == {
        SOURCE: "default",
        own_traces.CYCLE: shown(poll)[own_traces.CYCLE],
        own_traces.RECEIVED: shown(poll)[own_traces.RECEIVED],
        own_traces.SETTLED: len(records),
        own_traces.REPEATED: shown(poll)[own_traces.RECEIVED] - len(records),
        own_traces.REJECTED: 0,
    }
    for child in children:
        assert child.kind == Span.SPAN_KIND_CLIENT
        assert poll.start_time_unix_nano <= child.start_time_unix_nano + 1_000_000
        assert child.start_time_unix_nano < child.end_time_unix_nano <= poll.end_time_unix_nano
    asked = [s for s in children if s.name == "GET /logs"]
    assert len(asked) == len(place.alloy.requests)
    port = int(place.alloy.endpoint.rpartition(":")[2])
    assert shown(asked[0]) == {
        SOURCE: "default",
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.full": place.alloy.endpoint + "/logs",
        "url.template": "/logs",
        "server.address": "127.0.0.1",
        "server.port": port,
    }
    delivered = [s for s in children if s.name != "GET /logs"]
    by_signal = {shown(s)["runalloy.receiver.signal"]: s for s in delivered}
    assert set(by_signal) == {"traces", "logs"}
    traces = shown(by_signal["traces"])
    assert traces["server.address"] in ("127.0.0.1", "localhost")
    if transport == "http":
        assert by_signal["traces"].name == "POST /v1/traces"
        assert traces["url.full"] == place.otlp.http_endpoint + "/v1/traces"
    else:
        assert by_signal["logs"].name == "opentelemetry.proto.collector.logs.v1.LogsService/Export"
        assert traces["rpc.system.name"] == "grpc"
        assert traces["rpc.method"] == by_signal["traces"].name


def test_failures(place: Place) -> None:
    """A failed request is an error with its type and status; its repetitions are counted."""
    place.fill(5)
    place.alloy.script("503", "429:0")
    asked = Counter[str]()

    def judge(received: Received) -> Answer | None:
        asked[received.signal] += 1
        return Answer(status=503) if asked["logs"] == 1 and received.signal == "logs" else None

    place.judge = judge
    place.once("--own-traces")
    children = [shown(s) | {"error": s.status.code == 2} for s in own(place) if s.parent_span_id]
    failed = [c for c in children if c["error"]]
    assert [
        (c.get("error.type"), c.get("http.response.status_code"), c.get(own_traces.RESEND_COUNT))
        for c in failed
    ] == [("503", 503, None), ("429", 429, 1), ("retry", None, None)]
    again = [c for c in children if own_traces.RESEND_COUNT in c and not c["error"]]
    assert [c[own_traces.RESEND_COUNT] for c in again] == [2, 1]


def test_nothing_personal(place: Place) -> None:
    """No key, no header, no user and no query is in any of these spans, also where a filter names
    a user and Alloy refuses the key."""
    records = place.fill(30)
    user = next(str(r["userId"]) for r in records if r.get("userId"))
    for environment in ({}, {"ALLOY_API_KEY": "canary-key"}):
        place.storage.unlink(missing_ok=True)
        place.command(
            *("run", "--once", "--since", "60d", "--own-traces", "--user-id", user),
            OTEL_EXPORTER_OTLP_HEADERS="x-token=canary-header",
            **environment,
        )
        place.alloy.configure(api_key="another")
    spans = own(place)
    assert [s for s in spans if not s.parent_span_id][-1].status.code == 2
    text = b"".join(s.SerializeToString() for s in spans)
    people = {user, "canary"}
    for record in records:
        if isinstance(record.get("user"), dict):
            people |= set(map(str, record["user"].values()))
    assert not [word for word in people if word.encode() in text]
    assert "?" not in str([shown(s) for s in spans])


def test_an_export_makes_no_spans(place: Place) -> None:
    """While cycles go on, the number of these spans is that of cycles, requests and deliveries:
    their own export adds none."""
    place.fill(3)
    process = place.start("run", "--own-traces", "--collection-interval", "1s", "--since", "60d")
    assert place.otlp.wait_for(
        lambda otlp: sum(not s.parent_span_id for s in own(place)) >= 4, timeout=60
    )
    process.terminate()
    assert place.end(process).code == 0
    names = Counter(s.name for s in own(place))
    assert names["POST /v1/traces"] == names["POST /v1/logs"] == 1
    assert set(names) == {"poll", "GET /logs", "POST /v1/traces", "POST /v1/logs"}
    assert names["GET /logs"] <= len(place.alloy.requests)


def test_an_endpoint_that_is_away(place: Place) -> None:
    """Where these spans cannot be sent, executions are delivered all the same, through another
    exporter than these, and the end comes soon."""
    records = place.fill(5)
    place.judge = lambda received: (
        Answer(status=503)
        if received.signal == "traces"
        and any(
            attributes(i.resource.attributes)["service.name"] == "otel-alloy"
            for i in received.items()
        )
        else None
    )
    place.once("--own-traces")
    place.assert_exactly_once(place.ended(records))
    assert own(place) == []


def test_off_costs_nothing(place: Place) -> None:
    """Unless asked for, nor with OTEL_SDK_DISABLED, there is no such span, and without the setting
    the SDK's tracing is not even imported."""
    place.fill(5)
    place.once()
    place.storage.unlink()
    place.once("--own-traces", OTEL_SDK_DISABLED="true")
    assert own(place) == []
    code = (
        "import sys\n"
        "from otel_alloy.settings.loader import load_settings\n"
        "from otel_alloy.observability.service import Operated\n"
        "import otel_alloy.pipeline.receiver\n"
        "settings = load_settings({}, {'ALLOY_API_KEY': 'k', 'OTEL_ALLOY_HEALTH_ENDPOINT': ''})\n"
        "from otel_alloy.runtime import system_runtime\n"
        "with Operated(settings, system_runtime(), {}): pass\n"
        "print([m for m in sys.modules if m.startswith('opentelemetry.sdk')"
        " or m == 'otel_alloy.observability.traces'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n", done.stderr
