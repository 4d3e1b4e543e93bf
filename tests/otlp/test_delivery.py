"""Guarantees of `delivery`: nothing lost, nothing sent twice, only the bad set aside, no hang.

The endpoint is a script and the clock stands still: `Runtime.wait` is injected and only counts.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_alloy.errors import ShutdownRequested
from otel_alloy.mapping.encode import Envelope as RealEnvelope
from otel_alloy.otlp.delivery import Delivery, Rejection, Report
from otel_alloy.otlp.http import HttpSender
from otel_alloy.otlp.outcome import Kind, Outcome
from otel_alloy.runtime import Runtime, system_runtime
from otel_alloy.settings.otlp import OtlpSettings

from .otlp_servers import Answer, http_endpoint, status

OK = Outcome(Kind.DELIVERED)
REJECTED = Outcome(Kind.REJECTED, "bad record")
LIMIT = 3_500_000


class Joined:
    """An envelope of nothing: items of the form b"<7>" one after the other."""

    overhead = 0

    def request(self, items: Sequence[bytes]) -> bytes:
        return b"".join(items)


def item(index: int) -> bytes:
    return b"<%d>" % index


def items(request: bytes) -> list[int]:
    return [int(part) for part in request.decode().strip("<>").split("><")]


@dataclass
class Script:
    """A sender that asks `decide(indexes, number of this request)` what to answer."""

    decide: Callable[[list[int], int], Outcome] = lambda *_: OK
    requests: list[bytes] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    closed: bool = False

    def send(self, request: bytes) -> Outcome:
        self.requests.append(request)
        outcome = self.decide(items(request), len(self.requests))
        if outcome.kind is Kind.DELIVERED:
            self.accepted += items(request)
        return outcome

    def close(self) -> None:
        self.closed = True


def runtime(wait: Callable[[float], bool], luck: float) -> Runtime:
    """The machine's, but for the waits and the chance."""
    return replace(system_runtime(), wait=wait, random=lambda: luck)


class Bench:
    """A `Delivery` between two scripts, with its waits and reports."""

    def __init__(
        self, traces: Script | None = None, logs: Script | None = None, *, most: int = LIMIT,
        stop_after: int = 10**9, luck: float = 0.5,
    ) -> None:  # fmt: skip
        self.traces, self.logs = traces or Script(), logs or Script()
        self.waits: list[float] = []
        self.reports: list[Report] = []
        self.stop_after = stop_after
        self.delivery = Delivery(
            self.traces, self.logs, max_request_bytes=most,
            runtime=runtime(self._wait, luck), report=self.reports.append,
        )  # fmt: skip

    def _wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return len(self.waits) >= self.stop_after

    def spans(self, count: int) -> dict[int, Rejection]:
        return self.delivery.deliver(
            [item(i) for i in range(count)], [None] * count, Joined(), Joined()
        )


def refusing(bad: set[int], outcome: Outcome = REJECTED) -> Script:
    return Script(lambda indexes, _: outcome if bad & set(indexes) else OK)


def test_both_signals_are_delivered_in_one_request_each() -> None:
    """The normal case costs one request per signal and sets nothing aside."""
    bench = Bench()
    batch = [item(i) for i in range(1000)]
    assert bench.delivery.deliver(batch, batch, Joined(), Joined()) == {}
    assert bench.traces.requests == bench.logs.requests == [b"".join(batch)]
    assert bench.waits == []
    assert {r.signal for r in bench.reports} == {"traces", "logs"}
    assert all(r.items == 1000 and r.attempt == 1 and r.next_wait is None for r in bench.reports)


def test_none_means_nothing_for_that_signal() -> None:
    """An execution without a span has only its log sent, and an empty batch sends nothing."""
    bench = Bench()
    bench.delivery.deliver([None, item(1)], [item(0), item(1)], Joined(), Joined())
    assert (bench.traces.accepted, bench.logs.accepted) == ([1], [0, 1])
    bench = Bench()
    assert bench.delivery.deliver([], [], Joined(), Joined()) == {}
    assert bench.delivery.deliver([None], [None], Joined(), Joined()) == {}
    assert bench.traces.requests == bench.logs.requests == []


@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=80),
    most=st.integers(60, 400),
)
def test_requests_keep_to_the_limit(sizes: list[int], most: int) -> None:
    """No request is longer than max_request_bytes, order is kept, and every item is in one."""
    envelope = RealEnvelope({"service.name": "runalloy"}, "otel_alloy", "1")
    sent: list[bytes] = []

    class Keep(Script):
        def send(self, request: bytes) -> Outcome:
            sent.append(request)
            return OK

    frames = [b"\x12" + bytes([size]) + b"\x2a" + bytes([size - 2]) + b"n" * (size - 2)
              for size in sizes if size > 1]  # fmt: skip
    limit = most + envelope.overhead
    bench = Bench(Keep(), most=limit)
    bench.delivery.deliver(frames, [], envelope, envelope)
    assert all(len(request) <= limit for request in sent)
    decoded = [ExportTraceServiceRequest.FromString(request) for request in sent]
    names = [s.name for r in decoded for s in r.resource_spans[0].scope_spans[0].spans]
    assert names == ["n" * (size - 2) for size in sizes if size > 1]


@pytest.mark.parametrize(("most", "requests"), [(5, 3), (6, 2), (8, 2), (9, 1)])
def test_the_limit_is_used_to_the_last_byte(most: int, requests: int) -> None:
    """Three records of 3 bytes: a request is as full as the limit allows and no fuller."""
    bench = Bench(most=most)
    bench.spans(3)
    assert len(bench.traces.requests) == requests


def test_a_record_above_the_limit_goes_alone() -> None:
    """The endpoint judges it; its neighbours are not delayed by it."""
    bench = Bench(most=6)
    bench.delivery.deliver([b"<1>", b"<22222222>", b"<3>", b"<4>"], [], Joined(), Joined())
    assert bench.traces.requests == [b"<1>", b"<22222222>", b"<3><4>"]


def test_retries_send_the_same_bytes_with_growing_waits() -> None:
    """Busy endpoints are asked again for ever, 1 s doubling to 60 s, jittered, same bytes."""
    busy = Outcome(Kind.RETRY, "busy")
    bench = Bench(Script(lambda _, n: busy if n <= 2000 else OK))
    assert bench.spans(5) == {}
    assert len(set(bench.traces.requests)) == 1
    assert bench.waits[:8] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert bench.waits[-1] == 30
    assert [r.attempt for r in bench.reports][:3] == [1, 2, 3]
    assert [r.next_wait for r in bench.reports][:3] == [0.5, 1, 2]


@pytest.mark.parametrize(("asked", "waited"), [(7.0, 7.0), (86400.0, 300.0), (0.0, 0.5)])
def test_what_the_endpoint_asks_for_is_honoured_and_capped(asked: float, waited: float) -> None:
    """Never before Retry-After, never longer than 300 s, never without any pause."""
    bench = Bench(Script(lambda _, n: Outcome(Kind.RETRY, "", asked) if n == 1 else OK))
    bench.spans(1)
    assert bench.waits == [waited]


def test_misconfigured_holds_for_ever_and_sets_nothing_aside() -> None:
    """A wrong key costs no data: slow retries, each reported, until it is right."""
    wrong = Outcome(Kind.MISCONFIGURED, "HTTP 401")
    bench = Bench(Script(lambda _, n: wrong if n <= 500 else OK), luck=0.0)
    assert bench.spans(5) == {}
    assert bench.waits[:6] == [2.5, 5, 10, 20, 30, 30]
    assert sum(r.outcome.kind is Kind.MISCONFIGURED for r in bench.reports) == 500


def test_unexpected_is_retried_slowly_and_then_split() -> None:
    """500 for one record: five tries each time, then that one alone is set aside."""
    bench = Bench(refusing({3}, Outcome(Kind.UNEXPECTED, "HTTP 500")))
    assert bench.spans(4) == {3: Rejection(("traces",), "traces: HTTP 500")}
    assert sorted(bench.traces.accepted) == [0, 1, 2]
    assert len(bench.traces.requests) == 5 + 1 + 5 + 1 + 5
    assert len(bench.waits) == 12 and min(bench.waits) >= 2.5


def test_a_short_outage_with_500_sets_nothing_aside() -> None:
    """Five hundred answers of 500 to everything: slow, but nothing is lost."""
    broken = Outcome(Kind.UNEXPECTED, "HTTP 500")
    bench = Bench(Script(lambda _, n: broken if n <= 500 else OK))
    assert bench.spans(1000) == {}
    assert sorted(bench.traces.accepted) == list(range(1000))


@pytest.mark.parametrize("kind", [Kind.REJECTED, Kind.TOO_LARGE])
def test_the_bad_record_alone_is_set_aside(kind: Kind) -> None:
    """One bad record among 1,000: found within 1 + 2*log2(1000) requests; 999 delivered once."""
    for bad in (0, 1, 499, 500, 998, 999):
        bench = Bench(refusing({bad}, Outcome(kind, "no")))
        assert bench.spans(1000) == {bad: Rejection(("traces",), "traces: no")}
        assert sorted(bench.traces.accepted) == [i for i in range(1000) if i != bad]
        assert len(bench.traces.requests) <= 1 + 2 * 10
        assert bench.waits == []


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_isolation_is_exact_and_cheap(data: st.DataObject) -> None:
    """Whichever records are bad: those are set aside, all others delivered exactly once, and it
    takes at most 3 + 2*ceil(log2 n) requests per bad record."""
    count = data.draw(st.integers(1, 300))
    bad = data.draw(st.sets(st.integers(0, count - 1), max_size=40))
    bench = Bench(refusing(bad))
    assert set(bench.spans(count)) == bad
    assert sorted(bench.traces.accepted) == [i for i in range(count) if i not in bad]
    depth = math.ceil(math.log2(count)) if count > 1 else 0
    assert len(bench.traces.requests) <= 3 + 2 * depth * len(bad)


@given(
    count=st.integers(1, 60),
    moods=st.lists(st.sampled_from(Kind), max_size=200),
    bad=st.sets(st.integers(0, 59), max_size=10),
)
@settings(deadline=None)
def test_whatever_happens_each_record_is_settled_once(
    count: int, moods: list[Kind], bad: set[int]
) -> None:
    """Whatever it answers: each record is delivered once or set aside, never both or twice."""

    def decide(indexes: list[int], number: int) -> Outcome:
        if number <= len(moods):
            return Outcome(moods[number - 1])
        return REJECTED if bad & set(indexes) else OK

    bench = Bench(Script(decide))
    refused = bench.spans(count)
    assert sorted([*bench.traces.accepted, *refused]) == list(range(count))


@pytest.mark.parametrize("count", [1, 2, 19, 20])
def test_a_small_batch_of_poison_is_set_aside_at_once(count: int) -> None:
    """Where all records are bad there is nobody to vouch for the endpoint, and yet no hang."""
    bench = Bench(refusing(set(range(count))))
    assert set(bench.spans(count)) == set(range(count))
    assert bench.waits == []


def test_an_endpoint_that_refuses_everything_is_put_on_probation() -> None:
    """After 20 single refusals without one acceptance: slow, told as MISCONFIGURED, few requests;
    when it accepts again, everything is delivered and nothing is set aside."""
    bench = Bench(Script(lambda _, n: REJECTED if n <= 60 else OK))
    assert bench.spans(1000) == {}
    assert sorted(bench.traces.accepted) == list(range(1000))
    probation = [r for r in bench.reports if r.bytes == 0]
    assert probation and all(r.outcome.kind is Kind.MISCONFIGURED for r in probation)
    assert "one by one" in probation[0].outcome.reason
    assert [r.next_wait for r in probation][:6] == [3.75, 7.5, 15, 30, 45, 45]
    fast = next(i for i, r in enumerate(bench.reports) if r.bytes == 0)
    assert fast <= 1 + 10 + 20


def test_a_large_batch_of_poison_ends() -> None:
    """Even if all of 1,000 records are bad nothing hangs: at one a minute they are set aside."""
    bench = Bench(refusing(set(range(1000))))
    assert len(bench.spans(1000)) == 1000
    assert len(bench.waits) > 900


@pytest.mark.parametrize("bad", [range(30), range(470, 530), range(970, 1000), range(0, 1000, 12)])
def test_many_bad_records_among_good_ones_are_no_probation(bad: range) -> None:
    """Clusters at either end or spread: good records from elsewhere vouch for the endpoint."""
    bench = Bench(refusing(set(bad)))
    assert set(bench.spans(1000)) == set(bad)
    assert sorted(bench.traces.accepted) == [i for i in range(1000) if i not in bad]
    assert bench.waits == []


def test_probation_spans_batches_until_something_is_accepted() -> None:
    """A live tail of small batches does not run into the rejected table at full speed."""
    script = Script(lambda *_: REJECTED)
    bench = Bench(script)
    for _ in range(30):
        bench.spans(1)
    assert len(bench.waits) == 10
    script.decide = lambda *_: OK
    bench.spans(1)
    assert len(bench.waits) == 11
    bench.spans(1)
    assert len(bench.waits) == 11


def test_partial_success_is_delivered_and_reported() -> None:
    """The endpoint took the request: not sent again; the refused number is reported."""
    bench = Bench(Script(lambda *_: Outcome(Kind.DELIVERED, "too old", rejected=2)))
    assert bench.spans(10) == {}
    assert len(bench.traces.requests) == 1
    assert bench.reports[0].outcome.rejected == 2


def test_one_signal_waits_alone() -> None:
    """What one signal delivered is not sent again while the other retries or is refused."""
    busy = Outcome(Kind.RETRY, "busy")
    traces = Script(lambda _, n: busy if n < 50 else OK)
    bench = Bench(traces, refusing({2}))
    batch = [item(i) for i in range(8)]
    refused = bench.delivery.deliver(batch, batch, Joined(), Joined())
    assert refused == {2: Rejection(("logs",), "logs: bad record")}
    assert sorted(bench.logs.accepted) == [0, 1, 3, 4, 5, 6, 7]
    assert bench.traces.accepted == list(range(8))


def test_a_record_that_both_signals_refuse() -> None:
    """Both are named, with both reasons."""
    bench = Bench(refusing({1}), refusing({1}, Outcome(Kind.TOO_LARGE, "5 MB")))
    batch = [item(0), item(1)]
    refused = bench.delivery.deliver(batch, batch, Joined(), Joined())
    assert refused == {1: Rejection(("traces", "logs"), "traces: bad record; logs: 5 MB")}


@pytest.mark.parametrize("kind", [Kind.RETRY, Kind.MISCONFIGURED, Kind.UNEXPECTED])
@pytest.mark.parametrize("signal", ["traces", "logs", "both"])
def test_shutdown_ends_every_wait(kind: Kind, signal: str) -> None:
    """Asked to stop while waiting, `deliver` raises and settles nothing; no thread stays."""
    never = Script(lambda *_: Outcome(kind, "no"))
    bench = Bench(
        never if signal != "logs" else None, never if signal != "traces" else None, stop_after=2
    )
    batch = [item(i) for i in range(3)]
    with pytest.raises(ShutdownRequested):
        bench.delivery.deliver(batch, batch, Joined(), Joined())
    assert not [t for t in threading.enumerate() if t.name == "otlp-traces"]


def test_shutdown_ends_probation() -> None:
    """The waits of a probation end too."""
    with pytest.raises(ShutdownRequested):
        Bench(Script(lambda *_: REJECTED), stop_after=3).spans(100)


@pytest.mark.parametrize("signal", ["traces", "logs"])
def test_a_bug_in_one_signal_comes_out_and_stops_the_other(signal: str) -> None:
    """An exception of a sender is raised to the caller, from whichever thread, without a hang."""

    def explode(*_: object) -> Outcome:
        raise ZeroDivisionError

    never = Script(lambda *_: Outcome(Kind.RETRY))
    bench = Bench(
        Script(explode) if signal == "traces" else never,
        Script(explode) if signal == "logs" else never,
    )
    with pytest.raises(ZeroDivisionError):
        bench.delivery.deliver([item(0)], [item(0)], Joined(), Joined())


def test_close_closes_both() -> None:
    """Both senders are closed."""
    bench = Bench()
    bench.delivery.close()
    assert bench.traces.closed and bench.logs.closed


def test_over_a_real_socket() -> None:
    """With a real HTTP endpoint: 503 with Retry-After, then accepted; the bytes are the same."""
    with http_endpoint() as endpoint:
        endpoint.answer = Answer(503, status("busy"), {"Retry-After": "9"})
        waits: list[float] = []

        def wait(seconds: float) -> bool:
            waits.append(seconds)
            endpoint.answer = Answer()
            return False

        timing = runtime(wait, 0.0)
        senders = [
            HttpSender(OtlpSettings(s, endpoint=f"{endpoint.url}/v1/{s}"), "test", timing)
            for s in ("traces", "logs")
        ]
        with closing(
            Delivery(
                *senders, max_request_bytes=LIMIT, runtime=timing, report=lambda _: None,
            )
        ) as delivery:  # fmt: skip
            assert delivery.deliver([item(1)], [None], Joined(), Joined()) == {}
    assert waits == [9.0]
    assert [r.body for r in endpoint.requests] == [item(1)] * 2
