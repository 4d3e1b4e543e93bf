"""`AlloySource`: what is put together there acts together. Its client answers as it is told to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from otel_alloy.alloy.cursor import Filter, Window
from otel_alloy.alloy.events import Requested, RequestRetried
from otel_alloy.alloy.models import Page, read_page
from otel_alloy.alloy.on_demand import OnDemand
from otel_alloy.alloy.query import Query
from otel_alloy.alloy.retry import RequestBudget
from otel_alloy.alloy.source import AlloySource
from otel_alloy.errors import AccessRefused, RequestRefused, ShutdownRequested, Unavailable
from otel_alloy.testing.simulator import Config, LogStore, iso

from .virtual import VirtualTime

T0 = 1_745_948_650_000
NOW = T0 + 60_000


class Alloy:
    """A client that answers from a log of five records, a second apart, or raises what is next in
    `faults`; each request takes two seconds. `ahead`: how far its clock is before ours, ms."""

    def __init__(self, time: VirtualTime, ahead: int = 0, **knobs: Any) -> None:
        self._time = time
        self._store = LogStore(Config(**knobs), clock=lambda: (NOW + ahead) / 1000)
        self.faults: list[Exception] = []
        self.queries: list[Query] = []
        self.closed = False
        for number in range(5):
            created = iso(T0 + number * 1000)
            data = {"executionId": f"e{number % 2}"}
            entry = {"_id": f"r{number}", "createdAt": created, "data": data, "userId": "u"}
            self._store.add(entry)

    def fetch(self, query: Query) -> Page:
        self.queries.append(query)
        self._time.now += 2
        if self.faults:
            raise self.faults.pop(0)
        return read_page(self._store.query(query.parameters()).body)

    def get(self, path: str, parameters: Mapping[str, str]) -> bytes:
        raise RequestRefused("404")

    def close(self) -> None:
        self.closed = True


Assemble = Callable[..., tuple[AlloySource, Alloy, list[object]]]


@pytest.fixture
def assemble() -> Assemble:
    """Makes a source over an `Alloy` with these knobs; both, and what it tells."""

    def make(*, retry: bool = True, **knobs: Any) -> tuple[AlloySource, Alloy, list[object]]:
        time = VirtualTime(NOW / 1000)
        alloy = Alloy(time, **knobs)
        told: list[object] = []
        budget = RequestBudget(0, time.runtime)
        base = Query(2, user_id="u")
        source = AlloySource(
            "eu", OnDemand(lambda: alloy), base, budget, time.runtime, told.append, retry=retry
        )
        return source, alloy, told

    return make


def test_each_request_is_told(assemble: Assemble) -> None:
    """With its status, its error and how long it took; a retry after the request that failed."""
    source, alloy, told = assemble()
    error = Unavailable("away", after=7.0)
    error.status = 503
    alloy.faults = [error]
    assert source.look(Query(2)).received == 2
    assert told == [
        Requested("eu", 503, "Unavailable", 2.0),
        RequestRetried("eu", error, 1, 7.0),
        Requested("eu", 200, None, 2.0),
    ]
    assert source.requests == 2


def test_without_retries(assemble: Assemble) -> None:
    """What fails is raised at once."""
    source, alloy, told = assemble(retry=False)
    alloy.faults = [Unavailable("away")]
    with pytest.raises(Unavailable):
        source.probe()
    assert [type(event) for event in told] == [Requested]


def test_what_no_retry_mends(assemble: Assemble) -> None:
    """It is told and raised."""
    source, alloy, told = assemble()
    alloy.faults = [AccessRefused("no")]
    with pytest.raises(AccessRefused):
        source.probe()
    assert told == [Requested("eu", None, "AccessRefused", 2.0)]


def test_the_end_while_waiting() -> None:
    """It comes out as ShutdownRequested, and no further request is sent."""
    time = VirtualTime()
    time.stop_at = 1
    alloy = Alloy(time)
    budget = RequestBudget(0, time.runtime)
    source = AlloySource(
        "eu", OnDemand(lambda: alloy), Query(2), budget, time.runtime, lambda event: None
    )
    with pytest.raises(ShutdownRequested):
        source.probe()
    assert alloy.queries == []


def test_every_answer_teaches_the_clock(assemble: Assemble) -> None:
    """Also one that was only looked at."""
    source, _, _ = assemble(ahead=3_600_000)
    assert source.now() == NOW
    source.look(Query(1))
    assert source.clock.skew == 3_600_000 - 2000  # our clock went on while the request was sent
    assert source.now() == source.look_beyond() == NOW + 3_600_000
    assert source.certain() == source.earliest() == NOW + 2000


@pytest.mark.parametrize("verdict", [Filter.HONOURED, Filter.IGNORED])
def test_a_window_from_the_probe_to_its_end(assemble: Assemble, verdict: Filter) -> None:
    """The probe finds out about the API, and reading goes by it; every request has the base query's
    user."""
    source, alloy, _ = assemble(ignore_filters=verdict is Filter.IGNORED)
    source.probe()
    assert source.filter is verdict
    assert source.newest_first == (verdict is Filter.IGNORED)
    readings = list(source.read(Window(T0 + 1000, T0 + 4000)))
    found = {r.identity[0] for reading in readings for r in reading.records}
    assert found == {"r1", "r2", "r3"}
    assert {q.user_id for q in alloy.queries} == {"u"}


def test_what_another_found_out_is_taken_over(assemble: Assemble) -> None:
    """A worker that learns the verdict reads as if it had probed."""
    source, alloy, _ = assemble()
    source.learn(Filter.IGNORED)
    list(source.read(Window(T0, NOW)))
    assert not any(q.ascending for q in alloy.queries)


@pytest.mark.parametrize(("total_items", "counts"), [("filtered", True), ("all", False)])
def test_what_total_items_counts(assemble: Assemble, total_items: str, counts: bool) -> None:
    """The probe's two answers tell; a window's page carries the count."""
    source, _, _ = assemble(total_items=total_items)
    source.probe()
    assert source.counts_matches is counts
    page = source.page(Window(T0 + 1000, T0 + 4000), 1)
    assert (page.received, page.total) == (1, 3 if counts else 5)


def test_one_execution_and_the_oldest(assemble: Assemble) -> None:
    """Asked for by id; and what the account still has at all."""
    source, _, _ = assemble()
    assert {r.identity[0] for r in source.execution("e1")} == {"r1", "r3"}
    assert source.finds_executions and source.ordered
    assert source.oldest_beyond(T0 - 1) == T0
    assert source.oldest_beyond(T0) is None


def test_close(assemble: Assemble) -> None:
    """Closes the client."""
    source, alloy, _ = assemble()
    source.close()
    assert alloy.closed
