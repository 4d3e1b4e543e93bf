"""Reading windows: nothing is lost and little is asked for, whatever the API makes of our requests.

The reader runs against the simulator's `LogStore` without a socket, so that hypothesis can try
thousands of logs and ways to answer.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from otel_alloy.alloy.clock import ServerClock
from otel_alloy.alloy.cursor import Filter, Reading, UnorderedApi, Window, window_start
from otel_alloy.alloy.models import Page, Record, read_page
from otel_alloy.alloy.query import Query
from otel_alloy.alloy.reader import Reader
from otel_alloy.alloy.retry import RequestBudget, RetryingFetch
from otel_alloy.errors import RequestRefused
from otel_alloy.testing.simulator import Config, LogStore, iso

from .virtual import VirtualTime

T0 = 1_745_948_650_000
NOW = T0 + 3_600_000


class Log:
    """A log that `fetch` reads: it counts requests and can change before any of them."""

    def __init__(self, created: list[int], **knobs: Any) -> None:
        self.now = NOW
        self.store = LogStore(Config(**knobs), clock=lambda: self.now / 1000)
        self.queries: list[Query] = []
        self.pagination = True
        self.limit = 500
        self.before_request: Callable[[int], None] = lambda number: None
        for index, moment in enumerate(created):
            self.add(f"r{index}", moment)
        runtime = VirtualTime().runtime
        budget = RequestBudget(0, runtime)
        self.fetch = RetryingFetch("log", self._fetch, budget, runtime, lambda event: None)

    def add(self, identity: str, moment: int, visible: int | None = None) -> None:
        record = {"_id": identity, "message": "executionFinished", "createdAt": iso(moment)}
        self.store.add(record, visible_at=None if visible is None else visible / 1000)

    def _fetch(self, query: Query) -> Page:
        self.before_request(len(self.queries))
        self.queries.append(query)
        assert len(self.queries) < self.limit, "reading does not end"
        answer = self.store.query(query.parameters())
        if answer.status != 200:
            raise RequestRefused(str(answer.status))
        page = read_page(answer.body)
        page.pagination = page.pagination if self.pagination else None
        page.server_date = int(parsedate_to_datetime(answer.headers["Date"]).timestamp() * 1000)
        return page

    def config(self, **knobs: Any) -> Config:
        """The knobs as they are, but for these."""
        return replace(self.store.config, **knobs)

    def reader(self, page_size: int) -> Reader:
        return Reader(self.fetch, Query(page_size))


def read(reader: Reader, window: Window, most: int = 10_000) -> list[Reading]:
    """A window as the receiver reads it: once more from its start when paging has to change."""
    readings: list[Reading] = []
    try:
        for reading in reader.read(window):
            readings.append(reading)
            assert len(readings) < most
    except UnorderedApi:
        for reading in reader.read(window):
            readings.append(reading)
            assert len(readings) < most
    assert [r.last for r in readings].count(True) == 1 and readings[-1].last
    return readings


def identities(readings: list[Reading]) -> set[str]:
    return {r.identity[0] for reading in readings for r in reading.records}


def expected(created: list[int], window: Window) -> set[str]:
    return {f"r{i}" for i, moment in enumerate(created) if window.start <= moment < window.before}


@dataclass(frozen=True)
class Way:
    """One way in which the API may answer."""

    knobs: dict[str, Any]
    page_size: int
    effective: int


@st.composite
def ways(draw: st.DrawFn) -> Way:
    page_size = draw(st.integers(1, 12))
    maximum = draw(st.none() | st.integers(1, 12))
    over = draw(st.sampled_from(["clamp", "refuse"]))
    effective = page_size
    while maximum is not None and effective > maximum:
        effective = maximum if over == "clamp" else effective // 2
    knobs = {
        "max_limit": maximum,
        "over_limit": over,
        "page_size": draw(st.sampled_from(["asked", "given"])),
        "skip_past_end": draw(st.sampled_from(["empty", "refuse"])),
        "created_at_filter": draw(st.sampled_from(["date", "ignored", "nothing"])),
        "ignore_filters": draw(st.booleans()),
        "ignore_sort_order": draw(st.booleans()),
        "ties": draw(st.sampled_from(["stable", "shuffled"])),
        "total_items": draw(st.sampled_from(["filtered", "all"])),
        "current_page": draw(st.sampled_from(["floor", "fraction", "constant"])),
        "envelope": draw(st.booleans()),
    }
    return Way(knobs, page_size, effective)


logs = st.lists(st.integers(0, 60), max_size=60) | st.lists(st.integers(0, 5), max_size=40)


def longest_run(created: list[int]) -> int:
    return max((created.count(moment) for moment in set(created)), default=0)


@given(created=logs, way=ways(), start=st.integers(0, 61), length=st.integers(1, 70))
@settings(max_examples=600, deadline=None)
def test_every_record_of_the_window_is_read(
    created: list[int], way: Way, start: int, length: int
) -> None:
    """Any log with any ties, clamped or refused page sizes, filters that work, are ignored or
    match nothing, order kept or ignored: what is read over a window is what is in it, no more, and
    reading ends.

    Not promised, and left out: a run of equal createdAt that is longer than a page and shuffled in
    each answer; any shuffling in newest-first paging.
    """
    newest_first = (
        way.knobs["ignore_filters"]
        or way.knobs["ignore_sort_order"]
        or way.knobs["created_at_filter"] != "date"
    )
    run = longest_run(created)
    if way.knobs["ties"] == "shuffled":
        assume(run <= 1 if newest_first else run <= way.effective)
    created = [T0 + moment for moment in created]
    window = Window(T0 + start, T0 + start + length)
    log = Log(created, **way.knobs)
    reader = log.reader(way.page_size)
    if reader.api.filter is Filter.UNKNOWN:
        reader.probe()
    readings = read(reader, window)
    assert identities(readings) == expected(created, window)


@given(
    created=logs,
    size=st.integers(2, 12),
    start=st.integers(0, 61),
    stop_after=st.integers(0, 10),
)
@settings(max_examples=200, deadline=None)
def test_a_window_can_be_continued_anywhere(
    created: list[int], size: int, start: int, stop_after: int
) -> None:
    """After a stop at any page, a new process that begins at the last `position` reads the rest:
    both together are the window."""
    created = [T0 + moment for moment in created]
    window = Window(T0 + start, T0 + 100)
    log = Log(created)
    done: list[Reading] = []
    for reading in log.reader(size).read(window):
        done.append(reading)
        if len(done) > stop_after or reading.last:
            break
    position = done[-1].position
    assert position is not None
    rest = read(log.reader(size), Window(position, window.before))
    assert identities(done) | identities(rest) == expected(created, window)


@pytest.mark.parametrize("maximum", [None, 30])
@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 5000])
def test_a_drain_costs_what_its_pages_cost(maximum: int | None, count: int) -> None:
    """Requests for a window: its pages, 5 % and a constant; at any depth the same, as `skip` stays
    0 where createdAt differ."""
    log = Log([T0 + 7 * n for n in range(count)], max_limit=maximum)
    reader = log.reader(100)
    reader.probe()
    readings = read(reader, Window(T0, NOW))
    assert len(identities(readings)) == count
    pages = -(-count // (maximum or 100))
    assert len(log.queries) <= pages * 1.05 + (4 if count != 1 else 8)
    assert {q.skip for q in log.queries} <= {0, 1}


def test_a_run_longer_than_a_page_is_read_by_skip() -> None:
    """Thousands of records in one millisecond are read without a loop and without loss."""
    created = [T0] * 10 + [T0 + 1] * 2500 + [T0 + 2] * 10
    log = Log(created)
    readings = read(log.reader(100), Window(T0, T0 + 3))
    assert len(identities(readings)) == len(created)
    assert len(log.queries) <= 30


def test_idle_costs_one_request() -> None:
    """A window without records is one request, also one with the few records of the overlap."""
    log = Log([T0 + n for n in range(50)])
    reader = log.reader(100)
    reader.probe()
    for window, found in ((Window(T0 + 50, NOW), 0), (Window(T0 + 45, NOW), 5)):
        before = len(log.queries)
        assert len(identities(read(reader, window))) == found
        assert len(log.queries) - before == 1


@pytest.mark.parametrize(("over", "told"), [("clamp", True), ("refuse", True), ("refuse", False)])
def test_a_limit_that_sinks_in_the_middle_does_not_end_the_window(
    over: Literal["clamp", "refuse"], told: bool
) -> None:
    """When the API begins to clamp our page size and tells so in `pagination`, or to refuse it, the
    smaller pages after that are full pages, not the end of the window."""
    log = Log([T0 + n for n in range(400)])
    log.pagination = told

    def sink(number: int) -> None:
        if number == 2:
            log.store.config = Config(max_limit=60, over_limit=over)

    log.before_request = sink
    assert len(identities(read(log.reader(100), Window(T0, NOW)))) == 400
    assert len(log.queries) <= 12


# Late records ------------------------------------------------------------------------------------


@given(
    records=st.lists(
        st.tuples(st.integers(0, 150), st.sampled_from([0, 0, 20, 50, 59, 60])),
        min_size=10,
        max_size=40,
    ),
    pauses=st.lists(st.integers(1, 70), min_size=10, max_size=20),
    size=st.integers(2, 10),
    knobs=st.sampled_from(
        [{}, {"created_at_filter": "ignored"}, {"created_at_filter": "nothing"}, {"max_limit": 3}]
    ),
    slow=st.integers(0, 3),
)
@example(  # a record becomes visible while the order is looked at
    records=[
        *[(0, 20)] * 4,
        *[(4, 0), (15, 0), (15, 0), (15, 0), (15, 20), (15, 50), (15, 50), (17, 50), (15, 20)],
        *[(21, 60), (23, 60), (137, 50), (15, 60), (11, 60), (37, 59), (82, 0), (37, 59)],
        *[(15, 20), (134, 60), (104, 60), (67, 0), (130, 60)],
    ],
    pauses=[3, 8, 34, 52, 3, 3, 5, 11, 3, 6, 12, 55, 23, 3],
    size=2,
    knobs={},
    slow=3,
)
@settings(max_examples=400, deadline=None)
def test_late_records_within_the_overlap_are_found(
    records: list[tuple[int, int]],
    pauses: list[int],
    size: int,
    knobs: dict[str, Any],
    slow: int,
) -> None:
    """Cycle after cycle, with the windows that `window_start` gives, every record that becomes
    visible up to an overlap (60 here) after its createdAt is read, even while windows are read
    and time passes with every request.

    Not promised, and left out: newest-first paging while each request sees a page of new records.
    """
    overlap = 60
    created = sorted(records)
    visible = [moment + delay for moment, delay in records]
    busiest = max(sum(1 for w in visible if v <= w <= v + slow) for v in visible)
    assume("created_at_filter" not in knobs or busiest < size - 1)
    log = Log([], **knobs)
    log.now = T0 - 1000
    for index, (moment, delay) in enumerate(created):
        log.add(f"r{index}", T0 + moment, visible=T0 + moment + delay)

    def time_passes(number: int) -> None:
        log.now += slow

    log.before_request = time_passes
    reader = log.reader(size)
    log.now = T0
    high, grew, final = T0 - 1, T0, False
    found: set[str] = set()
    for pause in [*pauses, 600, 600]:
        begun = log.now
        start = max(1, window_start(high, overlap, final))
        if reader.api.filter is Filter.UNKNOWN:
            reader.probe()
        readings = read(reader, Window(start, max(log.now, start + 1)))
        found |= identities(readings)
        newest = max((r.created or 0 for x in readings for r in x.records), default=0)
        if newest > high:
            high, grew = newest, log.now
        final = begun - grew > overlap
        log.now += pause
    assert found == {f"r{index}" for index in range(len(created))}
    assert reader.api.ordered, "an API that sorts is not accused of the opposite"


def test_when_nothing_can_come_any_more_the_overlap_ends() -> None:
    """A finished overlap is not read again for ever: the next window begins after `high`."""
    assert window_start(1000, 60, final=False) == 940
    assert window_start(1000, 60, final=True) == 1001


# The probe ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("created", "knobs", "verdict"),
    [
        ([0, 1, 2], {}, Filter.HONOURED),
        ([0, 1, 2], {"created_at_filter": "ignored"}, Filter.IGNORED),
        ([0, 1, 2], {"ignore_filters": True}, Filter.IGNORED),
        ([0, 1, 2], {"created_at_filter": "nothing"}, Filter.MATCHES_NOTHING),
        ([0, 1, 2], {"ignore_sort_order": True}, Filter.HONOURED),
        ([5], {"created_at_filter": "nothing"}, Filter.MATCHES_NOTHING),
        ([5], {}, Filter.UNKNOWN),  # one record alone shows no difference
        ([5, 5], {"created_at_filter": "ignored"}, Filter.UNKNOWN),
        ([], {}, Filter.UNKNOWN),
    ],
)
def test_the_probe_finds_out(created: list[int], knobs: dict[str, Any], verdict: Filter) -> None:
    """Two requests tell what the API makes of a createdAt filter, and a third one where it seems to
    match nothing; nothing is claimed where the log cannot show it."""
    log = Log([T0 + moment for moment in created], **knobs)
    reader = log.reader(100)
    assert reader.probe().received == len(created)
    assert reader.api.filter is verdict
    assert len(log.queries) == bool(created) + 1 + (verdict is Filter.MATCHES_NOTHING)
    assert reader.api.newest_first == (verdict in (Filter.IGNORED, Filter.MATCHES_NOTHING))


def test_ignored_filters_show_themselves_without_a_probe() -> None:
    """Every record is held against the window: an API that ignores the filter is found out while
    reading, and the window is read newest first."""
    log = Log([T0 + n for n in range(30)], created_at_filter="ignored")
    reader = log.reader(10)
    with pytest.raises(UnorderedApi, match="ignored"):
        list(reader.read(Window(T0 + 20, NOW)))
    assert reader.api.filter is Filter.IGNORED and reader.api.newest_first
    assert identities(read(reader, Window(T0 + 20, NOW))) == {f"r{n}" for n in range(20, 30)}


def test_newest_first_stops_on_known_ground() -> None:
    """The fallback pages down only to the first page below the window, not through all the log."""
    log = Log([T0 + n for n in range(1000)], created_at_filter="ignored")
    reader = log.reader(10)
    reader.probe()
    before = len(log.queries)
    assert len(identities(read(reader, Window(T0 + 970, NOW)))) == 30
    assert len(log.queries) - before <= 5


def test_newest_first_survives_deletions() -> None:
    """Records that are deleted between two pages move later ones up; none of those is missed."""
    created = [T0 + n for n in range(60)]
    log = Log(created, created_at_filter="ignored")
    reader = log.reader(10)
    reader.probe()
    first = len(log.queries)

    def delete(number: int) -> None:
        if number == first + 2:
            for index in range(45, 60):
                log.store.remove(f"r{index}")

    log.before_request = delete
    found = identities(read(reader, Window(T0, NOW)))
    assert found >= {f"r{n}" for n in range(45)}


def test_new_records_while_reading_do_not_disturb() -> None:
    """Records that appear above the window move newest-first pages down; nothing is missed."""
    created = [T0 + n for n in range(60)]
    log = Log(created, created_at_filter="ignored")
    reader = log.reader(10)
    reader.probe()
    log.before_request = lambda number: log.add(f"new{number}", NOW + number)
    window = Window(T0, NOW)
    assert identities(read(reader, window)) == expected(created, window)


# Odd servers -------------------------------------------------------------------------------------


def page_of(*moments: int) -> bytes:
    entries = [
        {"_id": f"m{n}", "message": "executionFinished", "createdAt": iso(moment)}
        for n, moment in enumerate(moments)
    ]
    return json.dumps({"notifications": entries}).encode()


@pytest.mark.parametrize(
    "moments",
    [(T0 + 5,), (T0 + 5, T0 + 9), (T0 + 9, T0 + 5), (T0 + 5, T0 + 5), (1,), (NOW + 9,), ()],
)
@pytest.mark.parametrize("probe", [True, False])
def test_the_same_page_for_ever(moments: tuple[int, ...], probe: bool) -> None:
    """A mock server that knows one answer: reading ends after few requests and has found what of
    that answer lies in the window."""
    asked = 0

    def fetch(query: Query) -> Page:
        nonlocal asked
        asked += 1
        assert asked < 200
        return read_page(page_of(*moments))

    reader = Reader(fetch, Query(100))
    if probe:
        reader.probe()
    window = Window(T0, NOW)
    inside = {f"m{n}" for n, t in enumerate(moments) if T0 <= t < NOW}
    assert identities(read(reader, window)) == inside


def test_pages_of_unreadable_records_are_passed() -> None:
    """Full pages of nothing but bad records do not hold the window up: each is reported, the
    readable ones behind them arrive."""
    entries: list[Any] = [[n] for n in range(25)] + [
        {"_id": "good", "message": "executionError", "createdAt": iso(T0 + 5)}
    ]

    def fetch(query: Query) -> Page:
        cut = entries[query.skip : query.skip + query.limit]
        return read_page(json.dumps({"notifications": cut}).encode())

    readings = read(Reader(fetch, Query(10)), Window(T0, NOW))
    assert identities(readings) == {"good"}
    assert len({b.identity for r in readings for b in r.bad}) == 25


def test_asking_for_one_execution() -> None:
    """One request brings all notifications of an execution; where the API ignores the filter,
    others' records are not taken for its own, and after a second look that is known from then on.
    """

    def log_of(**knobs: Any) -> Log:
        log = Log([], **knobs)
        for n, execution in enumerate(("e1", "e2", "e1")):
            record = {"_id": f"x{n}", "data": {"executionId": execution}, "createdAt": iso(T0 + n)}
            log.store.add(record)
        return log

    for knobs in ({}, {"ignore_filters": True}):
        log = log_of(**knobs)
        reader = log.reader(10)
        records: list[Record] = reader.execution("e1")
        assert {r.identity[0] for r in records} == {"x0", "x2"}
        assert len(log.queries) == (2 if knobs else 1)
        assert reader.api.finds_executions == ("ignore_filters" not in knobs)
        reader.execution("e1")
        assert len(log.queries) == (3 if knobs else 2)
    assert log_of().reader(10).execution("nobody") == []


def test_an_api_that_counts_everything_is_not_looked_at_twice_for_each_execution() -> None:
    """Nothing comes of an execution, and the count says that more is there: whether it counts what
    matches is found out once, and does not cost pauses for each execution."""
    pauses: list[float] = []
    log = Log([1, 2, 3], total_items="all")
    reader = Reader(log.fetch, Query(10), pauses.append)
    for n in range(20):
        assert reader.execution(f"nobody {n}") == []
    assert pauses == [] and len(log.queries) <= 22


# The server's clock ------------------------------------------------------------------------------

OURS = 1_745_948_798_000


def told(fetched: int | None, date: int | None) -> Page:
    return Page([], last_fetched=None if fetched is None else iso(fetched), server_date=date)


@pytest.mark.parametrize(
    ("fetched", "date", "skew", "earliest"),
    [
        (OURS + 7_000, OURS + 7_999, 7_000, 7_000),  # both agree: the application's clock
        (OURS - 7_000, OURS - 7_000, -7_000, -7_000),
        (OURS - 3_600_000, OURS + 999, 999, -3_600_000),  # lastFetched is something else
        (None, OURS + 5_000, 5_000, 5_000),
        (OURS + 5_000, None, 5_000, 5_000),
        (OURS - 5_000, None, 0, -5_000),  # a clock that is late alone is not trusted
        (None, None, 0, 0),
    ],
)
def test_the_servers_clock(fetched: int | None, date: int | None, skew: int, earliest: int) -> None:
    """What the answers say about the time, and what is made of it when they disagree; for a first
    window's lower bound the earliest of all."""
    clock = ServerClock()
    clock.learn(told(fetched, date), OURS)
    assert clock.skew == skew
    assert clock.now(OURS + 10) == OURS + 10 + skew
    assert clock.earliest(OURS) == OURS + earliest


def test_an_iterator_is_lazy() -> None:
    """A page is asked for only when the one before it was taken: the receiver decides the pace."""
    log = Log([T0 + n for n in range(100)])
    pages: Iterator[Reading] = log.reader(10).read(Window(T0, NOW))
    assert log.queries == []
    next(pages)
    assert len(log.queries) == 1


def test_an_api_that_ignores_skip_and_always_promises_more_is_read_to_an_end() -> None:
    """The same full page again and again, each with a promise of more: a few requests, not a
    loop."""
    record = {"_id": "68110feaa81a0e507fbdd36a", "message": "executionFinished"}
    record["createdAt"] = "2025-04-29T17:44:10.432Z"
    pagination = {"totalItems": 10**9, "pageSize": 1}
    body = json.dumps({"notifications": [record], "pagination": pagination}).encode()
    asked: list[Query] = []

    def fetch(query: Query) -> Page:
        asked.append(query)
        return read_page(body)

    created = 1_745_948_650_432
    reader, window = Reader(fetch, Query(100)), Window(created, created + 1000)
    readings = read(reader, window)
    assert identities(readings) == {record["_id"]}
    assert len(asked) < 200
