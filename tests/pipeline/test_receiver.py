"""The receiver as a library, cycle by cycle, while Alloy's log changes under its hands."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from otel_alloy.mapping import semconv
from otel_alloy.pipeline.events import Settled
from otel_alloy.pipeline.receiver import Receiver
from otel_alloy.testing.otlp_endpoint import Received
from otel_alloy.testing.simulator import Record, iso

if TYPE_CHECKING:
    from conftest import Place

    from otel_alloy.testing.simulator.faults import Answer

HOUR, DAY = 3600.0, 86400.0


def record(place: Place, execution: str, message: str, ago: float, **fields: Any) -> Record:
    """A record whose createdAt lies so many seconds back."""
    created = iso(round((place.now - ago) * 1000))
    return {
        "_id": f"{execution}-{message}",
        "message": message,
        "data": {"executionId": execution, "executionUuid": f"uuid-of-{execution}"},
        "startedAt": created,
        "completedAt": None if message == "executionStarted" else created,
        "createdAt": created,
    } | fields


def test_records_that_appear_late(place: Place) -> None:
    """A record that becomes visible up to the overlap after its createdAt is delivered once, also
    where newer ones were settled before it; what the overlap brings again is not."""
    place.alloy.store.add(record(place, "early", "executionFinished", ago=100))
    place.alloy.store.add(record(place, "newest", "executionFinished", ago=1))
    place.receive()
    place.assert_exactly_once(["early", "newest"])
    late = record(place, "late", "executionError", ago=50)
    place.now += 60
    place.alloy.store.add(late)
    place.receive()
    place.assert_exactly_once(["early", "newest", "late"])
    place.now += DAY
    place.receive()
    place.assert_exactly_once(["early", "newest", "late"])


@pytest.mark.parametrize(
    ("filters", "created_at", "after"),
    [
        *itertools.product(("honoured", "ignored"), ("kept", "renewed"), [30]),
        *itertools.product(("honoured", "ignored"), ["renewed"], (20 * 60, 20 * HOUR)),
        *itertools.product(["honoured"], ["kept"], (20 * 60, 20 * HOUR)),
    ],
)
def test_records_that_change_in_place(
    place: Place, filters: str, created_at: str, after: float
) -> None:
    """An execution whose one record turns from its start into its end is delivered when it has
    ended, and only once: also long after the overlap, as far as the API lets it be found."""
    place.alloy.configure(ignore_filters=filters == "ignored")
    place.alloy.store.add(record(place, "other", "executionFinished", ago=2 * HOUR))
    place.alloy.store.add(record(place, "slow", "executionStarted", ago=10))
    place.receive()
    place.assert_exactly_once(["other"])
    place.now += after
    now = iso(round((place.now - 1) * 1000))
    changed = {"message": "executionFinished", "completedAt": now}
    if created_at == "renewed":
        changed["createdAt"] = now
    place.alloy.store.change("slow-executionStarted", **changed)
    for _ in range(3):
        place.receive()
        place.now += HOUR
    place.assert_exactly_once(["other", "slow"])
    span = place.otlp.spans()[-1]
    assert span.end_time_unix_nano - span.start_time_unix_nano == (after + 9) * 10**9


@pytest.mark.parametrize("cycles", ["in one cycle", "in two"])
def test_an_execution_that_ends_twice(place: Place, cycles: str) -> None:
    """A second end of one execution, such as the success after a failure, is one more log record
    in its trace, and never a second span."""
    place.alloy.store.add(record(place, "again", "executionError", ago=10))
    if cycles == "in two":
        place.receive()
        place.now += 10 * HOUR
    place.alloy.store.add(record(place, "again", "executionFinished", ago=5))
    for _ in range(2):
        place.receive()
    (span,) = place.otlp.spans()
    assert {log.span_id for log in place.otlp.log_records()} == {span.span_id}
    assert [log.event_name for log in place.otlp.log_records()] == [
        semconv.EVENT_FAILED,
        semconv.EVENT_FINISHED,
    ]


def test_an_execution_without_an_end(place: Place) -> None:
    """Where the end of an execution never comes, it is told once, as incomplete."""
    place.alloy.store.add(record(place, "lost", "executionStarted", ago=10))
    for _ in range(4):
        place.receive()
        place.now += 11 * HOUR
    place.assert_exactly_once(["lost"])
    (log,) = place.otlp.log_records()
    assert log.event_name == semconv.EVENT_INCOMPLETE


def test_an_api_that_leaves_out_last_fetched(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `lastFetched` the `Date` header tells the API's clock."""
    query = place.alloy.store.query

    def without(parameters: Mapping[str, str]) -> Answer:
        answer = query(parameters)
        body = json.loads(answer.body)
        del body["lastFetched"]
        return answer._replace(body=json.dumps(body).encode())

    monkeypatch.setattr(place.alloy.store, "query", without)
    records = place.fill(500)
    for _ in range(2):
        place.receive()
        place.assert_exactly_once(place.ended(records))


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"ignore_sort_order": True},
        {"ignore_filters": True},
        {"ignore_filters": True, "ignore_sort_order": True},
        {"created_at_filter": "nothing"},
    ],
)
@pytest.mark.parametrize("share", ["newest", "all"])
def test_more_ties_than_a_page_at_the_end_of_the_log(
    place: Place, knobs: dict[str, Any], share: str
) -> None:
    """Records of one millisecond that fill several pages, and are the newest, hide nothing that is
    older, even from an API that does not sort as asked."""
    old = 0 if share == "all" else 20
    for number in range(120):
        ago = 10.0 if number >= old else 1000.0 - number
        place.alloy.store.add(record(place, f"e{number}", "executionFinished", ago=ago))
    place.alloy.configure(max_limit=30, **knobs)
    for _ in range(2):
        place.receive()
        place.assert_exactly_once(f"e{number}" for number in range(120))


def test_ties_in_no_order(place: Place) -> None:
    """Records of one millisecond come in another order on each page, so a page may show one again
    and hide another: what is hidden is found by the next cycles, and nothing is sent twice."""
    for number in range(100):
        place.alloy.store.add(record(place, f"e{number}", "executionFinished", ago=10))
    place.alloy.configure(ties="shuffled")
    place.receive(page_size=60)
    assert max(place.sent("traces").values()) == 1
    for _ in range(12):
        place.receive(page_size=60)
    place.assert_exactly_once(f"e{number}" for number in range(100))


def test_running_on(place: Place) -> None:
    """`run` goes on from cycle to cycle: what appears later is delivered, once, until `stop`."""
    place.alloy.store.add(record(place, "first", "executionFinished", ago=5))
    settled: list[Settled] = []

    def observe(event: object) -> None:
        if isinstance(event, Settled):
            settled.append(event)

    receiver = Receiver(place.settings(collection_interval="1s"), observe=observe)
    thread = threading.Thread(target=receiver.run)
    thread.start()
    try:
        assert place.otlp.wait_for(lambda otlp: otlp.log_record_count == 1)
        place.now += 5
        place.alloy.store.add(record(place, "second", "executionFinished", ago=2))
        assert place.otlp.wait_for(lambda otlp: otlp.log_record_count == 2)
    finally:
        receiver.stop()
        thread.join(10)
    assert not thread.is_alive()
    place.assert_exactly_once(["first", "second"])
    assert sum(event.counts.spans for event in settled) == 2


def test_started_logs(place: Place) -> None:
    """With `started_logs` a start is a log record too, and still no span."""
    records = place.fill(50)
    place.receive(started_logs=True)
    assert place.otlp.log_record_count == len(records)
    assert place.otlp.span_count == 50
    place.receive(started_logs=True)
    assert place.otlp.log_record_count == len(records)


def test_batches_keep_to_their_size(place: Place) -> None:
    """No request holds more than `batch_size` executions and a page, or `max_request_bytes`."""
    place.fill(700, lifecycle="terminal")
    sizes: list[tuple[int, int]] = []

    def look(received: Received) -> None:
        sizes.append((sum(1 for _ in received.items()), len(received.body)))

    place.judge = look
    place.receive(batch_size=50, page_size=20, max_request_bytes=30_000)
    assert max(count for count, _ in sizes) <= 70
    assert max(size for _, size in sizes) <= 30_000
    assert place.otlp.span_count == 700
