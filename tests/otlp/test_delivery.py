"""Guarantees of `delivery`: nothing lost, nothing sent twice, only the bad set aside, no hang.

The endpoint is a script and the clock stands still: `Runtime.wait` is injected and only counts.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_alloy.errors import ShutdownRequested
from otel_alloy.mapping.encode import Envelope as RealEnvelope
from otel_alloy.otlp.delivery import Delivered, Delivery, Rejection, Report
from otel_alloy.otlp.http import HttpSender
from otel_alloy.otlp.outcome import Headers, Kind, Outcome
from otel_alloy.runtime import Runtime, system_runtime
from otel_alloy.settings.otlp import OtlpSettings

from .otlp_servers import Answer, http_endpoint, status

OK = Outcome(Kind.DELIVERED)
REJECTED = Outcome(Kind.REJECTED, "bad record")
BROKEN = Outcome(Kind.UNEXPECTED, "HTTP 500")
LIMIT = 3_500_000


class Joined:
    """An envelope of nothing: items of the form b"<7>" one after the other."""

    overhead = 0

    def request(self, items: Sequence[bytes], piece: Sequence[int]) -> bytes:
        return b"".join(items)

    def headers(self, piece: Sequence[int]) -> Headers:
        return ()

    def apart(self, indexes: Sequence[int]) -> list[tuple[Sequence[int], dict[int, int]]]:
        return [(indexes, {})]

    def records(self, items: Sequence[bytes]) -> int:
        return sum(item.count(b"<") for item in items)


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

    def send(self, request: bytes, headers: Headers = ()) -> Outcome:
        self.requests.append(request)
        outcome = self.decide(items(request), len(self.requests))
        if outcome.kind is Kind.DELIVERED:
            self.accepted += items(request)
        return outcome

    def rest(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def runtime(
    wait: Callable[[float], bool], luck: float, clock: Callable[[], float] | None = None
) -> Runtime:
    """The machine's, but for the waits, the chance and, where given, the time."""
    machine = system_runtime()
    clock = clock or machine.monotonic
    return replace(machine, wait=wait, random=lambda: luck, monotonic=clock)


class Bench:
    """A `Delivery` between two scripts, with its waits and reports."""

    def __init__(
        self, traces: Script | None = None, logs: Script | None = None, *, most: int = LIMIT,
        stop_after: int = 10**9, luck: float = 0.5, clock: Callable[[], float] | None = None,
    ) -> None:  # fmt: skip
        self.traces, self.logs = traces or Script(), logs or Script()
        self.waits: list[float] = []
        self.reports: list[Report] = []
        self.stop_after = stop_after
        self.delivery = Delivery(
            self.traces, self.logs, max_request_bytes=most,
            runtime=runtime(self._wait, luck, clock), report=self.reports.append,
        )  # fmt: skip

    def _wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return len(self.waits) >= self.stop_after

    def spans(self, count: int) -> Mapping[int, Rejection]:
        return self.delivery.deliver(
            [item(i) for i in range(count)], [None] * count, Joined(), Joined()
        ).rejections


def refusing(bad: set[int], outcome: Outcome = REJECTED) -> Script:
    return Script(lambda indexes, _: outcome if bad & set(indexes) else OK)


def test_both_signals_are_delivered_in_one_request_each() -> None:
    """The normal case costs one request per signal and sets nothing aside."""
    bench = Bench()
    batch = [item(i) for i in range(1000)]
    done = bench.delivery.deliver(batch, batch, Joined(), Joined())
    assert done == Delivered({"traces": 1000, "logs": 1000}, {"traces": 0, "logs": 0}, {})
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
    nothing = Delivered({"traces": 0, "logs": 0}, {"traces": 0, "logs": 0}, {})
    assert bench.delivery.deliver([], [], Joined(), Joined()) == nothing
    assert bench.delivery.deliver([None], [None], Joined(), Joined()) == nothing
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
        def send(self, request: bytes, headers: Headers = ()) -> Outcome:
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


@pytest.mark.parametrize("count", [2, 4, 100])
def test_a_record_that_alone_is_answered_with_500_is_set_aside(count: int) -> None:
    """Everything else is taken, and the record alone is answered with 500 for five minutes more:
    it is at fault. The others do not wait for that, and are taken once."""
    bench = Bench(refusing({1}, BROKEN))
    assert bench.spans(count) == {1: Rejection(("traces",), "traces: HTTP 500")}
    assert sorted(bench.traces.accepted) == [i for i in range(count) if i != 1]
    alone = bench.waits[
        -next(i for i, r in enumerate(bench.traces.requests[::-1]) if r != b"<1>") :
    ]
    assert sum(alone) >= 300 and min(bench.waits) >= 2.5


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
@pytest.mark.parametrize("seconds", [100, 3600, 86_400])
def test_an_ailing_endpoint_costs_time_and_no_record(count: int, seconds: float) -> None:
    """500 for a hundred seconds, an hour, a day: nothing is set aside, everything is delivered
    once, and it says that it waits for a person."""
    bench = Bench()
    bench.traces.decide = lambda *_: BROKEN if sum(bench.waits) < seconds else OK
    assert bench.spans(count) == {}
    assert sorted(bench.traces.accepted) == list(range(count))
    assert all(r.for_a_person for r in bench.reports[2:-1] if r.next_wait is not None)
    after = next(i for i, r in enumerate(bench.reports) if r.outcome.kind is Kind.DELIVERED)
    assert len(bench.reports) - after <= 12  # it was tried smaller, and is not left in crumbs


@given(st.lists(st.floats(20, 250), min_size=1, max_size=8), st.integers(1, 60))
@settings(deadline=None)
def test_an_endpoint_that_comes_and_goes_costs_no_record(spells: list[float], count: int) -> None:
    """Spells of 500 to everything, with one request taken between: nothing is set aside."""
    bench = Bench()
    ends: list[float] = []

    def decide(indexes: list[int], number: int) -> Outcome:
        now = sum(bench.waits)
        if not ends:
            ends.extend(spells)
            ends[0] += now
        if now < ends[0]:
            return BROKEN
        if len(ends) > 1:
            ends.pop(0)
            ends[0] += now
        return OK

    bench.traces.decide = decide
    assert bench.spans(count) == {}
    assert sorted(bench.traces.accepted) == list(range(count))


def test_500_to_a_single_record_waits_for_an_endpoint_that_is_well() -> None:
    """Where there is nothing else that the endpoint could take, it is waited for."""
    with pytest.raises(ShutdownRequested):
        Bench(Script(lambda *_: BROKEN), stop_after=5000).spans(1)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(Kind.RETRY, "connection reset", size=True),
        Outcome(Kind.RETRY, "HTTP 503", 1.0, size=True),
        Outcome(Kind.UNEXPECTED, "HTTP 500", size=True),
        Outcome(Kind.MISCONFIGURED, "HTTP 403", size=True),
        Outcome(Kind.TOO_LARGE, "HTTP 413"),
    ],
)
def test_a_size_limit_with_another_face(outcome: Outcome) -> None:
    """An endpoint that takes up to 500 bytes, and says so in whatever words: everything arrives
    once, nothing is set aside, and the next batch does not run into it again."""
    bench = Bench(
        Script(lambda indexes, _: OK if len(bench.traces.requests[-1]) <= 500 else outcome)
    )
    assert bench.spans(1000) == {}
    assert sorted(bench.traces.accepted) == list(range(1000))
    known, sent = len(bench.waits), len(bench.traces.requests)
    assert bench.spans(1000) == {}
    assert len(bench.waits) == known
    assert sorted(bench.traces.accepted) == sorted([*range(1000)] * 2)
    assert max(map(len, bench.traces.requests[sent:])) <= 500


def test_a_learned_size_is_forgotten() -> None:
    """After ten minutes requests grow again, doubled with each success; no limit is for ever."""
    now = [0.0]
    bench = Bench(clock=lambda: now[0])
    full = Outcome(Kind.TOO_LARGE, "HTTP 413")
    bench.traces.decide = lambda *_: OK if len(bench.traces.requests[-1]) <= 500 else full
    bench.spans(1000)
    bench.traces.decide = lambda *_: OK
    bench.spans(1000)
    assert max(map(len, bench.traces.requests[-8:])) <= 500
    now[0] += 601
    for _ in range(2):
        bench.spans(1000)
    assert len(bench.traces.requests[-1]) > 3000


def test_an_outage_teaches_no_size() -> None:
    """What fails at any size and is well again goes on in whole batches."""
    broken = Outcome(Kind.RETRY, "HTTP 503", size=True)
    bench = Bench(Script(lambda _, n: broken if n <= 40 else OK))
    assert bench.spans(1000) == {}
    sent = len(bench.traces.requests)
    bench.spans(1000)
    assert len(bench.traces.requests) == sent + 1


def test_one_large_record_teaches_no_size() -> None:
    """A record that alone is too large is set aside, and the others keep going in whole batches."""
    bench = Bench(refusing({700}, Outcome(Kind.TOO_LARGE, "HTTP 413")))
    assert set(bench.spans(1000)) == {700}
    bench.traces.decide = lambda *_: OK
    sent = len(bench.traces.requests)
    bench.spans(1000)
    assert len(bench.traces.requests) == sent + 1


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


def test_partial_success_is_counted_and_not_sent_again() -> None:
    """The endpoint took the request but for two: what it rejected is not counted as delivered."""
    bench = Bench(Script(lambda *_: Outcome(Kind.DELIVERED, "too old", rejected=2)))
    batch = [item(i) for i in range(10)]
    done = bench.delivery.deliver(batch, [None] * 10, Joined(), Joined())
    assert done == Delivered({"traces": 8, "logs": 0}, {"traces": 2, "logs": 0}, {})
    assert len(bench.traces.requests) == 1
    assert bench.reports[0].outcome.rejected == 2


@pytest.mark.parametrize("said", [5, 6, 10**9])
def test_a_success_that_rejects_everything_sets_everything_aside(said: int) -> None:
    """`rejected_spans=5` of 5: which ones is known, so they are kept with the endpoint's words, and
    not sent again."""
    bench = Bench(Script(lambda *_: Outcome(Kind.DELIVERED, "too old", rejected=said)))
    batch = [item(i) for i in range(5)]
    done = bench.delivery.deliver(batch, [None] * 5, Joined(), Joined())
    assert set(done.rejections) == set(range(5)) and "too old" in done.rejections[0].reason
    assert done.acknowledged["traces"] == done.rejected["traces"] == 0
    assert len(bench.traces.requests) == 1


def test_a_success_that_rejects_spans_of_blocks() -> None:
    """An execution is delivered with the spans of its blocks and set aside only where the endpoint
    rejected as many spans as were sent. What it rejected otherwise is counted as it says; of the
    executions in that request, and of no other, as many are not called delivered."""
    blocks = b"".join(item(i) for i in range(10, 15))
    batch = [item(0) + blocks, item(1), item(2), item(3)]
    for said, refused, acknowledged, rejected in (
        (1, (), 3, 1),
        (5, (), 0, 5),
        (8, (), 0, 8),
        (9, (0, 1, 2, 3), 0, 0),
    ):
        outcome = Outcome(Kind.DELIVERED, "too old", rejected=said)
        done = Bench(Script(lambda *_, o=outcome: o)).delivery.deliver(
            batch, [None] * 4, Joined(), Joined()
        )
        assert tuple(done.rejections) == refused
        assert done.acknowledged["traces"] == acknowledged
        assert done.rejected["traces"] == rejected
    alone = Outcome(Kind.DELIVERED, "too old", rejected=3)
    bench = Bench(Script(lambda indexes, _: alone if 0 in indexes else OK), most=len(batch[0]))
    done = bench.delivery.deliver(batch, [None] * 4, Joined(), Joined())
    assert done == Delivered({"traces": 3, "logs": 0}, {"traces": 3, "logs": 0}, {})


def test_an_endpoint_that_takes_requests_and_rejects_all_of_them_is_put_on_probation() -> None:
    """It does not empty the source into the rejected table at full speed."""
    bench = Bench(Script(lambda items, _: Outcome(Kind.DELIVERED, "no", rejected=len(items))))
    for _ in range(30):
        assert len(bench.spans(10)) == 10
    assert len(bench.waits) >= 25


def kept(bad: set[int], counted: bool = True) -> Script:
    """Loki: takes all but the bad, and answers 400 where there are some."""

    def decide(indexes: list[int], _: int) -> Outcome:
        refused = len(bad & set(indexes))
        if not refused:
            return OK
        return Outcome(Kind.REJECTED, "entry too far behind", rejected=refused if counted else 1)

    return Script(decide)


@pytest.mark.parametrize("counted", [True, False])
@given(data=st.data())
@settings(deadline=None)
def test_loki_gets_a_good_record_three_times_at_most(data: st.DataObject, counted: bool) -> None:
    """Where a 400 tells that the others were kept, each of them is sent twice more at most, and the
    bad ones alone are set aside."""
    count = data.draw(st.integers(1, 1000))
    bad = data.draw(st.sets(st.integers(0, count - 1), max_size=12))
    bench = Bench(kept(bad, counted))
    assert set(bench.spans(count)) == bad
    times = Counter(i for request in bench.traces.requests for i in items(request))
    assert max((times[i] for i in range(count) if i not in bad), default=0) <= 3


def test_a_refusal_that_counts_everything_is_not_asked_again() -> None:
    """ "total ignored: 1000 out of 1000" is one request, not two thousand."""
    bench = Bench(kept(set(range(1000))))
    assert len(bench.spans(1000)) == 1000
    assert len(bench.traces.requests) == 1


@given(st.data())
@settings(deadline=None)
def test_a_good_record_is_sent_a_bounded_number_of_times(data: st.DataObject) -> None:
    """Beside one bad record among n, none goes out more often than 1 + ceil(log4(n)) times."""
    count = data.draw(st.integers(1, 1000))
    bench = Bench(refusing({data.draw(st.integers(0, count - 1))}))
    bench.spans(count)
    times = Counter(i for request in bench.traces.requests for i in items(request))
    depth = next(d for d in range(20) if 4**d >= count)
    assert max(times.values()) <= 1 + depth


@given(
    count=st.integers(1, 60),
    moods=st.lists(
        st.builds(Outcome, st.sampled_from(Kind), size=st.booleans(), rejected=st.integers(0, 70)),
        max_size=200,
    ),
    bad=st.sets(st.integers(0, 59), max_size=10),
    most=st.integers(3, 300),
)
@settings(deadline=None)
def test_nothing_is_settled_that_was_neither_taken_nor_set_aside(
    count: int, moods: list[Outcome], bad: set[int], most: int
) -> None:
    """Whatever the endpoint answers, in whatever sizes: each record is acknowledged once or set
    aside, never both; and the counts add up."""

    def decide(indexes: list[int], number: int) -> Outcome:
        if number <= len(moods):
            return moods[number - 1]
        return REJECTED if bad & set(indexes) else OK

    bench = Bench(Script(decide), most=most)
    batch = [item(i) for i in range(count)]
    done = bench.delivery.deliver(batch, [None] * count, Joined(), Joined())
    whole = [
        r for r in bench.reports
        if r.outcome.kind is Kind.DELIVERED and 0 < r.items <= r.outcome.rejected
    ]  # fmt: skip
    for record in range(count):
        taken = bench.traces.accepted.count(record)
        assert taken <= 1
        assert taken or record in done.rejections
    if not whole:
        assert sorted([*bench.traces.accepted, *done.rejections]) == list(range(count))
        assert len(done.rejections) + sum(done.acknowledged.values()) <= count


@given(
    count=st.integers(1, 200),
    bad=st.sets(st.integers(0, 199), max_size=10),
    kind=st.sampled_from([Kind.REJECTED, Kind.TOO_LARGE, Kind.UNEXPECTED]),
    busy=st.lists(st.booleans(), max_size=60),
)
@settings(deadline=None)
def test_a_healthy_endpoint_loses_no_good_record(
    count: int, bad: set[int], kind: Kind, busy: list[bool]
) -> None:
    """It refuses the bad ones in whatever way, and is busy now and then: no good one is set
    aside, and each is taken once."""
    bad = {i for i in bad if i < count}

    def decide(indexes: list[int], number: int) -> Outcome:
        if number <= len(busy) and busy[number - 1]:
            return Outcome(Kind.RETRY, "HTTP 503", size=True)
        return Outcome(kind, "no") if bad & set(indexes) else OK

    good = sorted(set(range(count)) - bad)
    if not good and kind is Kind.UNEXPECTED:
        return  # nothing vouches for the endpoint: it is waited for
    bench = Bench(Script(decide))
    refused = bench.spans(count)
    assert set(refused) == bad
    assert sorted(bench.traces.accepted) == good


@pytest.mark.parametrize("off", ["traces", "logs"])
def test_a_signal_that_is_off_counts_as_settled(off: str) -> None:
    """Nothing of it is sent or counted; the other one is delivered."""
    script = Script()
    delivery = Delivery(
        None if off == "traces" else script, None if off == "logs" else script,
        max_request_bytes=LIMIT, runtime=system_runtime(), report=lambda _: None,
    )  # fmt: skip
    batch = [item(i) for i in range(3)]
    with closing(delivery):
        done = delivery.deliver(batch, batch, Joined(), Joined())
    on = "logs" if off == "traces" else "traces"
    assert delivery.signals == (on,)
    assert done == Delivered({on: 3, off: 0}, {"traces": 0, "logs": 0}, {})  # type: ignore[dict-item]
    assert script.accepted == [0, 1, 2] and script.closed


def test_one_signal_waits_alone() -> None:
    """What one signal delivered is not sent again while the other retries or is refused."""
    busy = Outcome(Kind.RETRY, "busy")
    traces = Script(lambda _, n: busy if n < 50 else OK)
    bench = Bench(traces, refusing({2}))
    batch = [item(i) for i in range(8)]
    refused = bench.delivery.deliver(batch, batch, Joined(), Joined()).rejections
    assert refused == {2: Rejection(("logs",), "logs: bad record")}
    assert sorted(bench.logs.accepted) == [0, 1, 3, 4, 5, 6, 7]
    assert bench.traces.accepted == list(range(8))


def test_a_record_that_both_signals_refuse() -> None:
    """Both are named, with both reasons."""
    bench = Bench(refusing({1}), refusing({1}, Outcome(Kind.TOO_LARGE, "5 MB")))
    batch = [item(0), item(1)]
    refused = bench.delivery.deliver(batch, batch, Joined(), Joined()).rejections
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
            assert not delivery.deliver([item(1)], [None], Joined(), Joined()).rejections
    assert waits == [9.0]
    assert [r.body for r in endpoint.requests] == [item(1)] * 2
