"""Guarantees of `routing.customers`, with a real delivery between endpoints that fail: each
execution arrives under its own resource and with its own headers, and nowhere else."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_alloy.mapping import semconv
from otel_alloy.mapping.convert import Converter, Execution, Role
from otel_alloy.mapping.encode import Envelope
from otel_alloy.otlp.delivery import Delivery
from otel_alloy.otlp.outcome import Headers, Kind, Outcome
from otel_alloy.routing.customers import Customers, GroupedEnvelope
from otel_alloy.routing.headers import Template
from otel_alloy.runtime import system_runtime
from otel_alloy.testing.otlp_endpoint import attributes

from .executions import execution

ENVELOPE = partial(Envelope, scope_name="otel_alloy", scope_version="1")
FIELDS = ("user.id", "workflow.version", "team.id")
OUTCOMES = {
    "ok": Outcome(Kind.DELIVERED),
    "busy": Outcome(Kind.RETRY, "HTTP 503"),
    "broken": Outcome(Kind.UNEXPECTED, "HTTP 500"),
    "refused": Outcome(Kind.REJECTED, "HTTP 400"),
    "large": Outcome(Kind.TOO_LARGE, "HTTP 413"),
    "shut": Outcome(Kind.MISCONFIGURED, "HTTP 401"),
}


def customers(headers: dict[str, str], **resource: str) -> Customers:
    """Over `resource`, with a cleaner that shows where it was."""
    templates = [Template.of(name, value, FIELDS) for name, value in headers.items()]
    return Customers(FIELDS, templates, resource, ENVELOPE, str.lower)


@dataclass
class End:
    """An endpoint that answers as its script says and then takes everything."""

    signal: str
    script: list[str]
    requests: list[tuple[bytes, Headers]] = field(default_factory=list)
    taken: list[tuple[str, dict[str, Any], Headers]] = field(default_factory=list)
    """Execution, resource and headers."""

    def send(self, request: bytes, headers: Headers = ()) -> Outcome:
        self.requests.append((request, headers))
        word = self.script.pop() if self.script else "ok"
        if word == "ok":
            self.taken += [(uuid, resource, headers) for uuid, resource in self.read(request)]
        return OUTCOMES[word]

    def read(self, request: bytes) -> list[tuple[str, dict[str, Any]]]:
        found: list[tuple[Any, Any]] = []
        if self.signal == "traces":
            for outer in ExportTraceServiceRequest.FromString(request).resource_spans:
                for span in outer.scope_spans[0].spans:
                    found.append((span.attributes, outer))
        else:
            for over in ExportLogsServiceRequest.FromString(request).resource_logs:
                for record in over.scope_logs[0].log_records:
                    found.append((record.attributes, over))
        return [
            (str(attributes(own)[semconv.EXECUTION_UUID]), attributes(outer.resource.attributes))
            for own, outer in found
        ]

    def rest(self) -> None:
        pass

    def close(self) -> None:
        pass


def deliver(batch: list[Execution], who: Customers, traces: End, logs: End, most: int) -> set[int]:
    """Delivers it without waiting. What was set aside."""
    machine = replace(system_runtime(), wait=lambda _: False, random=lambda: 0.5)
    converted = [Converter().convert(one) for one in batch]
    envelope = GroupedEnvelope(who.groups(batch))
    delivery = Delivery(
        traces, logs, max_request_bytes=most, runtime=machine, report=lambda _: None
    )
    spans, records = zip(*converted, strict=True)
    return set(delivery.deliver(spans, records, envelope, envelope).rejections)


def expected(one: Execution) -> dict[str, Any]:
    """The resource that belongs to it."""
    n = one.notification
    own = {
        semconv.USER_ID: n.userId and n.userId.lower(),
        semconv.WORKFLOW_VERSION: n.workflowVersion,
        semconv.TEAM_ID: n.teamId and n.teamId.lower(),
    }
    return {"service.name": "s"} | {k: v for k, v in own.items() if v is not None and v != ""}


scripts = st.lists(st.sampled_from([*OUTCOMES, "ok", "ok", "ok"]), max_size=25)


@given(
    people=st.lists(
        st.tuples(
            st.sampled_from([None, "", "U_1", "u_2", "a|b"]),
            st.sampled_from([None, 1, 2]),
            st.sampled_from([Role.ENDED, Role.ENDED_AGAIN]),
        ),
        min_size=1,
        max_size=40,
    ),
    headers=st.sampled_from([{}, {"X-Scope-OrgID": "{user.id}"}, {"a": "{user.id}*{team.id}"}]),
    most=st.sampled_from([10_000, 2_000, 900, 300]),
    of_traces=scripts,
    of_logs=scripts,
)
def test_each_execution_arrives_under_its_own_resource(
    people: list[tuple[str | None, int | None, Role]],
    headers: dict[str, str],
    most: int,
    of_traces: list[str],
    of_logs: list[str],
) -> None:
    """Whatever fails and is cut: each is taken once under exactly its resource with exactly its
    headers, or set aside; and no request is longer than allowed unless it is of one execution."""
    batch = [
        execution(role, userId=user, user=None, workflowVersion=version,
                  data={"executionUuid": str(number)})
        for number, (user, version, role) in enumerate(people)
    ]  # fmt: skip
    who = customers(headers, **{"service.name": "s"})
    traces, logs = End("traces", of_traces), End("logs", of_logs)
    aside = deliver(batch, who, traces, logs, most)
    group = [who.groups([one])[0] for one in batch]
    for end in (traces, logs):
        for request, sent in end.requests:
            numbers = [int(uuid) for uuid, _ in end.read(request)]
            assert len(request) <= most or len(numbers) == 1
            assert {group[n].headers for n in numbers} == {sent}
        taken = Counter(int(uuid) for uuid, _, _ in end.taken)
        assert max(taken.values(), default=1) == 1
        for number, one in enumerate(batch):
            if one.role is Role.ENDED or end is logs:
                assert taken[number] or number in aside
        for uuid, resource, sent in end.taken:
            assert resource == expected(batch[int(uuid)])
            assert sent == group[int(uuid)].headers
    assert {len(sent) for _, sent in traces.requests + logs.requests} <= {len(headers)}


def test_no_more_requests_than_without_groups() -> None:
    """A thousand customers go in one request for each signal; with a header, each has its own."""
    batch = [execution(userId=f"u{n}", data={"executionUuid": str(n)}) for n in range(1000)]
    for headers, requests in (({}, 1), ({"t": "{user.id}"}, 1000), ({"t": "{team.id}"}, 1)):
        traces, logs = End("traces", []), End("logs", [])
        deliver(batch, customers(headers), traces, logs, 3_670_016)
        assert (len(traces.requests), len(logs.requests)) == (requests, requests)
        assert len(traces.taken) == 1000


def test_the_same_batch_gives_the_same_bytes() -> None:
    """Also where nothing of it is remembered, so that a repeat after a crash is the same."""
    users = ["b", "a", None, "b", "c", "a"]
    sent = []
    for _ in range(2):
        batch = [execution(userId=u, data={"executionUuid": str(n)}) for n, u in enumerate(users)]
        traces, logs = End("traces", []), End("logs", [])
        deliver(batch, customers({"t": "{user.id}"}, k="v"), traces, logs, 10_000)
        sent.append([traces.requests, logs.requests])
    assert sent[0] == sent[1]


def test_what_is_remembered_is_bounded_and_of_its_own() -> None:
    """More customers than are kept: each still has its own resource, and the same object in one
    batch."""
    who = customers({})
    for begin in range(0, 24_000, 4_000):
        batch = [execution(userId=f"u{n // 2}") for n in range(begin, begin + 4_000)]
        groups = who.groups(batch)
        assert [g.resource[semconv.USER_ID] for g in groups] == [
            f"u{n // 2}" for n in range(begin, begin + 4_000)
        ]
        assert all(one is two for one, two in zip(groups[::2], groups[1::2], strict=True))
    assert len(who._groups) <= 12_000


def test_a_request_of_many_customers_keeps_to_the_limit() -> None:
    """Each resource counts, wherever the cut falls."""
    batch = [execution(userId=f"u{n:0>90}", data={"executionUuid": str(n)}) for n in range(40)]
    for most in range(2_000, 12_000, 97):
        traces, logs = End("traces", []), End("logs", [])
        deliver(batch, customers({}), traces, logs, most)
        assert max(len(request) for request, _ in traces.requests + logs.requests) <= most
        assert len(traces.taken) == len(logs.taken) == len(batch)


def test_a_second_chance_mixes_no_tenants() -> None:
    """What an ailing endpoint refused one by one is sent once more when it takes something again:
    in requests of one tenant each."""
    batch = [execution(userId=f"u{n % 3}", data={"executionUuid": str(n)}) for n in range(60)]
    who = customers({"t": "{user.id}"})
    traces, logs = End("traces", ["refused"] * 60), End("logs", [])
    assert not deliver(batch, who, traces, logs, 1 << 20)
    for uuid, resource, headers in traces.taken:
        assert headers == (("t", resource["user.id"]),) == (("t", f"u{int(uuid) % 3}"),)
    assert sorted(int(uuid) for uuid, _, _ in traces.taken) == list(range(60))
