"""Joining: which records become a span, which a log record, which nothing, and what is remembered.

A `Source` here stands for one source over several batches and processes: its `restart` loads what
was settled, as a crash does.
"""

import json
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_alloy.alloy.models import read_page
from otel_alloy.checkpoint.private import PrivateStore
from otel_alloy.checkpoint.remembered import IN_MEMORY
from otel_alloy.checkpoint.store import Open, Progress, RejectedRecord, State
from otel_alloy.mapping.convert import Role
from otel_alloy.pipeline.batch import Batch
from otel_alloy.pipeline.tracker import ExecutionTracker
from otel_alloy.testing.simulator import iso

T0 = 1_745_948_650_000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
OVERLAP = 2 * MINUTE
START, END, FAIL = "executionStarted", "executionFinished", "executionError"


def notification(identity: str, message: str | None, at: int, execution: str = "e") -> Any:
    found: dict[str, Any] = {
        "_id": identity,
        "message": message,
        "data": {"executionId": execution},
        "createdAt": iso(T0 + at),
        "startedAt": iso(T0),
    }
    return found


class Source:
    """A tracker with a store behind it. `made` are (role, `_id`) of everything settled."""

    def __init__(self, **options: Any) -> None:
        self.in_memory = options.pop("in_memory", IN_MEMORY)
        self.options = {"overlap_ms": OVERLAP, "incomplete_after_ms": DAY} | options
        self.store = PrivateStore()
        weakref.finalize(self, self.store.close)
        self.progress = Progress()
        self.made: list[tuple[Role, str | None]] = []
        self.rejected: list[RejectedRecord] = []
        self.restart()

    def restart(self) -> None:
        self.state = self.store.load("s", in_memory=self.in_memory)
        self.state.progress = replace(self.progress)
        self.tracker = ExecutionTracker("s", self.state, **self.options)

    def take(self, *entries: Any, batch: Batch | None = None) -> Batch:
        batch = batch or self.tracker.batch()
        page = read_page(json.dumps({"notifications": entries}).encode())
        self.tracker.take(batch, page.records, page.bad, now=T0)
        return batch

    def settle(self, batch: Batch, high: int | None = None) -> list[tuple[Role, str | None]]:
        """Delivers and settles; what was made."""
        made = [(x.role, x.notification.id) for x in batch.executions]
        self.tracker.advance(batch, None if high is None else T0 + high)
        self.store.settle("s", batch.settlement)
        self.progress = replace(batch.settlement.progress)
        self.tracker.settled(batch)
        self.made += made
        self.rejected += batch.settlement.rejected
        return made

    def page(self, *entries: Any, high: int | None = None) -> list[tuple[Role, str | None]]:
        return self.settle(self.take(*entries), high)

    @property
    def open(self) -> dict[str, Open]:
        return self.state.whole().open

    def give_up(self, now: int) -> list[tuple[Role, str | None]]:
        batch = self.tracker.batch()
        self.tracker.give_up(batch, T0 + now, 100)
        return self.settle(batch)


def forget_all(source: Source) -> None:
    """From here on nothing is held in memory from one batch to the next."""
    source.in_memory = 0
    source.restart()


BETWEEN = {
    "same process": lambda source: None,
    "after a restart": Source.restart,
    "in the file alone": forget_all,
}


@pytest.fixture(params=BETWEEN)
def between(request: pytest.FixtureRequest) -> Callable[[Source], None]:
    """What happens between two pages: nothing, a restart from the store, or more is remembered than
    memory may hold. What is promised must not depend on it."""
    return BETWEEN[request.param]


Between = Callable[[Source], None]


def test_start_then_end_is_one_span(between: Between) -> None:
    """The start is remembered, the end makes the span, with the start's `startedAt`."""
    source = Source()
    assert source.page(notification("a", START, 0)) == []
    between(source)
    assert list(source.open) == ["e"]
    batch = source.take(notification("b", END, 500))
    assert [x.started_at for x in batch.executions] == [iso(T0)]
    assert source.settle(batch) == [(Role.ENDED, "b")]
    between(source)
    assert source.open == {}


def test_start_and_end_in_one_page() -> None:
    """Within one batch nothing needs to be remembered as open."""
    source = Source()
    batch = source.take(notification("a", START, 0), notification("b", FAIL, 5))
    assert batch.settlement.opened == {} and batch.settlement.closed == {"e"}
    assert source.settle(batch) == [(Role.ENDED, "b")]


def test_a_record_is_made_once(between: Between) -> None:
    """What the overlap brings again, in any message, makes nothing; it is counted as repeated."""
    source = Source(started_logs=True)
    entries = [
        notification("a", START, 0),
        notification("b", END, 5),
        notification("c", "executionPaused", 6, "other"),
        notification("d", None, 7, "third"),
        [1],
    ]
    assert len(source.page(*entries, high=7)) == 3
    between(source)
    batch = source.take(*entries)
    assert (batch.received, batch.repeated, len(batch)) == (5, 5, 0)
    assert source.settle(batch, 7) == [] and len(source.rejected) == 2


def test_the_same_record_twice_in_a_page() -> None:
    """A page that holds a record twice makes it once."""
    source = Source()
    assert source.page(notification("a", END, 0), notification("a", END, 0)) == [(Role.ENDED, "a")]


@pytest.mark.parametrize(("first", "second"), [(FAIL, END), (END, FAIL), (END, END), (FAIL, FAIL)])
def test_a_second_terminal_record_is_a_log_record(
    between: Between, first: str, second: str
) -> None:
    """A retry that finishes an execution which had failed adds a log record, never a second span
    with the same ids."""
    source = Source()
    source.page(notification("a", first, 0), high=0)
    between(source)
    assert source.page(notification("b", second, MINUTE), high=MINUTE) == [(Role.ENDED_AGAIN, "b")]


def test_a_failed_execution_is_remembered_longer(between: Between) -> None:
    """A failure may be followed by a success hours later; it is remembered as long as an open
    execution, and then forgotten."""
    source = Source()
    source.page(notification("a", FAIL, 0), high=0)
    source.page(notification("x", END, 20 * HOUR, "x"), high=20 * HOUR)
    between(source)
    assert source.page(notification("b", END, 21 * HOUR), high=21 * HOUR) == [
        (Role.ENDED_AGAIN, "b")
    ]
    source.page(notification("y", END, 26 * HOUR, "y"), high=26 * HOUR)
    between(source)
    assert source.state.whole().ended == {}


def test_an_end_before_its_late_start(between: Between) -> None:
    """A start that becomes visible after its end opens nothing."""
    source = Source()
    assert source.page(notification("b", END, 500), high=500) == [(Role.ENDED, "b")]
    between(source)
    assert source.page(notification("a", START, 0)) == []
    assert source.open == {}
    between(source)
    assert source.give_up(30 * HOUR) == []


def test_changed_in_place(between: Between) -> None:
    """The same `_id` with a new message is news: it ends the execution that it opened."""
    source = Source()
    source.page(notification("a", START, 0), high=0)
    between(source)
    assert source.page(notification("a", END, 0)) == [(Role.ENDED, "a")]
    assert source.open == {}
    between(source)
    assert source.page(notification("a", END, 0)) == []


def test_what_only_time_tells_is_counted(between: Between) -> None:
    """A change in place, with or without another createdAt, a second end, an end of its own and a
    start without an end are noted, once each and with the batch that shows them; nothing is noted
    of what tells nothing."""
    source = Source()
    counted: list[dict[str, int]] = []

    def page(*entries: Any) -> None:
        batch = source.take(*entries)
        counted.append(batch.settlement.counted)
        source.settle(batch)
        between(source)

    page(*(notification(e, START, 0, e) for e in "abc"))
    page(notification("a", END, 0, "a"), notification("b", FAIL, 9, "b"))
    page(notification("x", END, MINUTE, "b"))
    page(notification("y", END, MINUTE, "c"))
    page(notification("y", END, MINUTE, "c"))
    page(notification("z", START, MINUTE, "d"))
    assert counted == [
        {},
        {"in_place": 2, "in_place_moved": 1},
        {"ended_again": 1},
        {"separate": 1},
        {},
        {},
    ]
    batch = source.tracker.batch()
    source.tracker.give_up(batch, T0 + 2 * DAY, 100)
    assert batch.settlement.counted == {"incomplete": 1}


def test_incomplete_after_the_limit_and_its_end_later(between: Between) -> None:
    """An execution without an end becomes incomplete once, at the limit and not before; an end
    that comes later still is a log record, as its span is out."""
    source = Source()
    source.page(notification("a", START, 0), high=0)
    between(source)
    assert source.give_up(DAY - 1) == []
    assert source.give_up(DAY) == [(Role.INCOMPLETE, "a")]
    between(source)
    assert source.give_up(2 * DAY) == [] and source.open == {}
    late = 30 * DAY
    source.page(notification("x", END, late - 1, "x"), high=late - 1)
    between(source)
    assert source.page(notification("b", END, late), high=late) == [(Role.ENDED_AGAIN, "b")]


def test_open_executions_are_asked_for_ever_more_rarely(between: Between) -> None:
    """A record that changed in place is found by asking for its execution: after the overlap, then
    at twice the age each time, and once more before it is given up."""
    source = Source()
    source.page(notification("a", START, 0), high=0)
    asked = []
    for now in range(0, DAY + HOUR, MINUTE):
        if now % (7 * MINUTE) == 0:
            between(source)
        for execution in source.tracker.due(T0 + now, 10):
            batch = source.tracker.batch()
            source.tracker.asked(batch, execution, T0 + now)
            source.settle(batch)
            asked.append(now)
    assert asked[0] == OVERLAP and asked[-1] == DAY and len(asked) == 11
    assert all(later >= 2 * earlier for earlier, later in pairwise(asked[:-1]))


def test_after_a_pause_nothing_is_asked_for_twice(between: Between) -> None:
    """One that is asked for late is asked for again at twice the age that it has by then; nobody
    else has to wait meanwhile."""
    source = Source()
    source.page(*[notification(f"{n}", START, n, f"e{n}") for n in range(5)], high=0)
    between(source)
    asked = []
    while due := source.tracker.due(T0 + HOUR, 2):
        batch = source.tracker.batch()
        for execution in due:
            source.tracker.asked(batch, execution, T0 + HOUR)
        source.settle(batch)
        asked += due
    assert asked == [f"e{n}" for n in range(5)]
    assert source.tracker.due(T0 + 2 * HOUR - 10, 9) == []
    assert source.tracker.due(T0 + 2 * HOUR, 9) == ["e4", "e3", "e2", "e1", "e0"]


def test_without_an_overlap_nobody_is_asked_for_again_at_once() -> None:
    """The ages double from a second on, where they would begin at 0."""
    source = Source(overlap_ms=0)
    source.page(notification("a", START, 0))
    for now, next_one in ((0, 2_000), (2_000, 4_000)):
        assert source.tracker.due(T0 + now, 9) == ["e"]
        batch = source.tracker.batch()
        source.tracker.asked(batch, "e", T0 + now)
        source.settle(batch)
        assert source.tracker.due(T0 + next_one - 1, 9) == []


def test_what_cannot_be_asked_for_comes_after_the_others(between: Between) -> None:
    """A question that fails is put off, so that one execution does not keep the others waiting; it
    is given up at twice the limit, when asking had failed after the limit already."""
    source = Source()
    source.page(notification("a", START, 0, "bad"), notification("b", START, 1, "good"), high=1)
    between(source)
    moments, now = [], OVERLAP
    while source.open.get("bad"):
        for execution in source.tracker.due(T0 + now, 1):
            batch = source.tracker.batch()
            if execution == "bad":
                source.tracker.unanswered(batch, execution, T0 + now)
                moments.append(now)
            else:
                source.tracker.asked(batch, execution, T0 + now)
            source.settle(batch)
        now += MINUTE
    assert source.made == [(Role.INCOMPLETE, "b"), (Role.INCOMPLETE, "a")]
    assert 2 * DAY <= moments[-1] < 2.5 * DAY and len(moments) < 80


def test_one_failure_after_a_long_pause_gives_nothing_up(between: Between) -> None:
    """An execution that is older than twice the limit when it is asked for the first time is given
    up only where it cannot be asked for hours later either."""
    source = Source()
    source.page(notification("a", START, 0), high=0)
    between(source)
    assert source.tracker.due(T0 + 8 * DAY, 9) == ["e"]
    batch = source.tracker.batch()
    source.tracker.unanswered(batch, "e", T0 + 8 * DAY)
    assert source.settle(batch) == [] and source.tracker.due(T0 + 9 * DAY - 1, 9) == []
    assert source.tracker.due(T0 + 9 * DAY, 9) == ["e"]
    batch = source.tracker.batch()
    source.tracker.unanswered(batch, "e", T0 + 9 * DAY)
    assert source.settle(batch) == [(Role.INCOMPLETE, "a")]


def test_an_end_under_another_id_shows_that_nothing_has_to_be_asked_for(between: Between) -> None:
    """Once an end came under another `_id` than its start, asking by id is known to be idle."""
    source = Source()
    source.page(notification("a", START, 0, "e1"), notification("b", START, 0, "e2"))
    between(source)
    assert source.tracker.due(T0 + HOUR, 9) == ["e1", "e2"] and not source.tracker.separate
    source.page(notification("c", END, 5, "e1"))
    assert source.tracker.separate


def test_as_many_are_given_up_as_a_batch_may_hold(between: Between) -> None:
    """Those that never ended are given up in portions, longest open first."""
    source = Source()
    source.page(*[notification(f"{n}", START, n, f"e{n}") for n in range(5)], high=0)
    between(source)
    made = []
    while True:
        batch = source.tracker.batch()
        if not source.tracker.give_up(batch, T0 + 2 * DAY, 2):
            break
        made.append([identity for _, identity in source.settle(batch)])
    assert made == [["0", "1"], ["2", "3"], ["4"]]
    assert source.state.open_count == 0 and source.open == {}


def test_without_message_a_record_is_set_aside(between: Between) -> None:
    """A record that says nothing is kept with its JSON and the reason, once, and opens nothing."""
    source = Source()
    entry = notification("a", None, 0)
    assert source.page(entry, high=0) == []
    between(source)
    assert source.page(entry) == []
    (aside,) = source.rejected
    assert (aside.source, aside.signals, aside.role) == ("s", "source", "other")
    assert "message" in aside.reason and json.loads(aside.original) == entry


def test_an_unreadable_record_is_set_aside_once(between: Between) -> None:
    """What is no notification is kept with its JSON; its neighbours are made; the overlap does not
    bring it again."""
    source = Source()
    page = [notification("a", END, 0), ["no record"], notification("b", END, 1, "f")]
    assert source.page(*page, high=1) == [(Role.ENDED, "a"), (Role.ENDED, "b")]
    between(source)
    assert source.page(*page, high=1) == []
    (aside,) = source.rejected
    assert json.loads(aside.original) == ["no record"] and aside.signals == "source"


def test_a_message_of_tomorrow() -> None:
    """An unknown message makes a log record and neither opens nor closes anything."""
    source = Source()
    source.page(notification("a", START, 0))
    assert source.page(notification("b", "executionPaused", 5)) == [(Role.OTHER, "b")]
    assert list(source.open) == ["e"]


def test_terminal_without_any_identity() -> None:
    """A terminal record that names neither execution nor itself is handed on: converting it will
    fail, and only it is set aside."""
    source = Source()
    assert source.page({"message": END, "createdAt": iso(T0)}) == [(Role.OTHER, None)]


@pytest.mark.parametrize("wanted", [False, True])
def test_started_logs(wanted: bool) -> None:
    """A start is a log record only where asked for."""
    source = Source(started_logs=wanted)
    made = source.page(notification("a", START, 0))
    assert made == ([(Role.STARTED, "a")] if wanted else [])


def test_every_execution_has_its_json() -> None:
    """What may have to be set aside can be written down, also an incomplete one after a restart."""
    source = Source()
    source.page(notification("a", START, 0))
    batch = source.take(notification("b", END, 5, "f"))
    assert json.loads(batch.original(0))["_id"] == "b"
    source.settle(batch)
    source.restart()
    given_up = source.tracker.batch()
    source.tracker.give_up(given_up, T0 + DAY, 9)
    assert json.loads(given_up.original(0)) == notification("a", START, 0)


def test_progress_only_grows() -> None:
    """A batch that reaches less far (an overlap that brought nothing) moves nothing back."""
    source = Source()
    source.page(notification("a", END, 1000), high=1000)
    source.page(high=500)
    source.page(high=None)
    source.restart()
    assert source.state.progress == Progress(high=T0 + 1000)


def test_memory_is_bounded(between: Between) -> None:
    """A day of traffic: what is remembered is what the overlap and open or failed executions need,
    in memory and in the store alike."""
    source = Source()
    per_minute = 30
    for minute in range(26 * 60):
        at = minute * MINUTE
        entries = []
        for n in range(per_minute):
            name, moment = f"{minute}.{n}", at + n * 2000
            entries.append(notification(f"s{name}", START, moment, name))
            message = FAIL if n == 0 else END
            entries.append(notification(f"e{name}", message, moment + 1, name))
        source.page(*entries, high=at + (per_minute - 1) * 2000 + 1)
        if minute % 100 == 0:
            between(source)
    kept = 2 * per_minute * (OVERLAP // MINUTE + 1)
    whole = source.state.whole()
    assert len(whole.seen) <= kept
    assert len(whole.ended) <= (DAY + OVERLAP) // MINUTE + 1
    assert whole.open == {} and source.state.open_count == 0
    held = source.state.held()
    assert held == (whole if source.in_memory else State(whole.progress))
    assert len(source.state._spans) <= len(held.ended) + kept
    source.restart()
    assert source.state.whole() == whole


lives = st.lists(
    st.tuples(
        st.integers(0, 5),  # execution
        st.sampled_from([START, END, FAIL, "executionPaused"]),
        st.integers(0, 3 * MINUTE),  # createdAt
        st.integers(0, 2),  # which record of that kind
    ),
    max_size=30,
)


@given(
    lives,
    st.lists(st.booleans(), min_size=30, max_size=30),
    st.booleans(),
    st.sampled_from([0, 3, 10_000]),
)
@settings(max_examples=200, deadline=None)
def test_one_span_and_one_log_record_each(
    life: list[tuple[int, str, int, int]], restarts: list[bool], crash: bool, in_memory: int
) -> None:
    """Whatever arrives in whatever order, with each page read twice and restarts in between:
    exactly one span for each execution that ended, one log record for each terminal record, and
    what a process makes that died before settling is made again the same."""
    source = Source(in_memory=in_memory)
    for entry, restart in zip(life, restarts, strict=False):
        execution, message, at, which = entry
        one = notification(f"{message}{execution}.{which}", message, at, f"e{execution}")
        if crash:
            lost = [(x.role, x.notification.id) for x in source.take(one).executions]
            source.restart()
            assert source.page(one) == lost
        else:
            source.page(one)
        if restart:
            source.restart()
        assert source.page(one) == []
    source.give_up(2 * DAY)
    terminal = {(e, m, w) for e, m, _, w in life if m in (END, FAIL)}
    roles = Counter(role for role, _ in source.made)
    ended = {e for e, _, _ in terminal}
    started = {e for e, m, _, _ in life if m == START}
    assert roles[Role.ENDED] == len(ended)
    assert roles[Role.ENDED] + roles[Role.ENDED_AGAIN] == len(terminal)
    assert roles[Role.INCOMPLETE] == len(started - ended)
