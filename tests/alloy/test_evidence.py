"""An end is an end only with evidence: APIs whose paging, order or count cannot be relied on.

Whatever such an API does, one of two things is true: every record of the window is read, or the
reader says that some cannot be reached, and its position has not passed them.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_alloy.alloy.cursor import Filter, Reading, UnorderedApi, Window
from otel_alloy.alloy.reader import Reader
from otel_alloy.errors import Unreachable
from otel_alloy.testing.simulator import iso

from .test_reader import NOW, T0, Log

WINDOW = Window(T0, NOW)


class Outcome:
    """What reading a window brought: the names, how often each, and how it ended."""

    def __init__(self, reader: Reader, window: Window = WINDOW) -> None:
        self.readings: list[Reading] = []
        self.unreachable: Unreachable | None = None
        if reader.api.filter is Filter.UNKNOWN:
            reader.probe()
        for _ in range(2):
            try:
                self.readings.extend(reader.read(window))
                break
            except UnorderedApi:
                continue
            except Unreachable as error:
                self.unreachable = error
                break
        self.names = {r.identity[0] for x in self.readings for r in x.records}
        self.position = self.readings[-1].position if self.readings else None
        self.whole = bool(self.readings) and self.readings[-1].last


def tied(number: int, *, varied: bool = False, at: int = 5, **knobs: Any) -> Log:
    """A log with so many records of one createdAt, and some before and after. `varied`: they differ
    in what can be filtered by, else only in their execution."""
    log = Log([T0 + n for n in range(at)], **knobs)
    for n in range(number):
        log.store.add(
            {
                "_id": f"tie{n}",
                "message": ("executionFinished", "executionError")[n % 7 == 0 and varied],
                "userId": f"user{n % 5}" if varied else "user",
                "workflowVersion": n % 3 if varied else 1,
                "data": {"executionId": f"{n * 2654435761 % 2**64:024x}"},
                "createdAt": iso(T0 + at),
            }
        )
    for n in range(at):
        log.add(f"after{n}", T0 + at + 1 + n)
    log.limit = 2000
    return log


def names_of(log: Log) -> set[str]:
    return {str(record["_id"]) for record in log.store.records()}


@pytest.mark.parametrize("total", ["filtered", "all", "missing"])
@pytest.mark.parametrize("varied", [True, False])
def test_ties_in_another_order_in_each_answer(total: str, varied: bool) -> None:
    """400 records of one createdAt, pages clamped to 30: all are read, whatever is counted."""
    log = tied(400, varied=varied, ties="shuffled", max_limit=30, total_items=total)
    outcome = Outcome(log.reader(100))
    assert outcome.unreachable is None and outcome.whole
    assert outcome.names == names_of(log)
    assert len(log.queries) < 300


@pytest.mark.parametrize("ties", ["stable", "shuffled"])
@pytest.mark.parametrize("total", ["filtered", "all", "missing"])
def test_skip_is_ignored_and_ties_fill_more_than_a_page(ties: str, total: str) -> None:
    """They are read by narrowing the question, in bounded many requests."""
    log = tied(100, ties=ties, max_limit=30, total_items=total, ignore_skip=True)
    outcome = Outcome(log.reader(100))
    assert outcome.unreachable is None and outcome.whole
    assert outcome.names == names_of(log)
    assert len(log.queries) < 100


def test_ties_that_nothing_tells_apart_are_counted_and_not_passed() -> None:
    """`skip` is ignored and all records look alike: the number that cannot be reached is said, and
    reading does not go on behind them."""
    log = Log([T0] * 3 + [T0 + 5] * 100 + [T0 + 9], max_limit=30, ignore_skip=True)
    outcome = Outcome(log.reader(100))
    assert outcome.unreachable is not None
    assert outcome.unreachable.count == 40 and outcome.unreachable.moment == T0 + 5
    assert outcome.position == T0 + 5 and not outcome.whole
    assert "40 records" in str(outcome.unreachable)
    assert len(log.queries) < 200


@pytest.mark.parametrize("kind", ["empty", "short", "repeated"])
@pytest.mark.parametrize(
    "knobs", [{}, {"created_at_filter": "ignored"}, {"ignore_sort_order": True}]
)
@pytest.mark.parametrize("total", ["filtered", "missing", "all"])
def test_one_odd_answer_half_way(kind: str, knobs: dict[str, Any], total: str) -> None:
    """One empty, short or repeated page among good ones: all 500 records are read."""
    for at in range(3 if kind == "repeated" else 2, 10):
        log = Log([T0 + n for n in range(500)], total_items=total, **knobs)
        reader = log.reader(100)
        reader.probe()
        log.store.odd_pages.extend([None] * (at - 2) + [kind])
        outcome = Outcome(reader)
        assert outcome.unreachable is None and outcome.whole
        assert outcome.names == names_of(log), at


@pytest.mark.parametrize(
    "knobs", [{}, {"created_at_filter": "ignored"}, {"ignore_sort_order": True}]
)
def test_an_empty_answer_half_way_every_time(knobs: dict[str, Any]) -> None:
    """The API counts 500 and gives only some: it says how many are missing, and does not pass."""
    log = Log([T0 + n for n in range(500)], hidden=(T0 + 200, T0 + 210), **knobs)
    outcome = Outcome(log.reader(100))
    assert outcome.unreachable is not None and not outcome.whole
    missing = names_of(log) - outcome.names
    assert outcome.unreachable.count == len(missing) >= 10
    position = T0 if outcome.position is None else outcome.position
    assert all(int(name[1:]) + T0 >= position for name in missing)
    assert len(log.queries) < 300


@pytest.mark.parametrize("total", ["all", "page", "huge", "negative", "text", "missing"])
@pytest.mark.parametrize(
    "knobs", [{}, {"created_at_filter": "ignored"}, {"ignore_sort_order": True}]
)
@pytest.mark.parametrize("number", [0, 1, 7, 250])
def test_a_count_that_is_none_stops_nothing(total: str, knobs: dict[str, Any], number: int) -> None:
    """An API that pages well and counts nonsense is read to its end."""
    log = Log([T0 + n for n in range(number)], total_items=total, **knobs)
    for _ in range(2):
        outcome = Outcome(log.reader(100))
        assert outcome.unreachable is None
        assert outcome.names == names_of(log)
        assert outcome.whole


@given(
    created=st.lists(st.integers(0, 60), max_size=60) | st.lists(st.integers(0, 4), max_size=60),
    size=st.integers(1, 12),
    clamp=st.none() | st.integers(1, 12),
    ties=st.sampled_from(["stable", "shuffled"]),
    ignore_skip=st.booleans(),
    knobs=st.sampled_from(
        [
            {},
            {},
            {"created_at_filter": "ignored"},
            {"created_at_filter": "nothing"},
            {"ignore_filters": True},
            {"ignore_sort_order": True},
        ]
    ),
    total=st.sampled_from(["filtered", "all", "page", "huge", "missing"]),
    odd=st.sampled_from([{}, {"empty": 0.1}, {"short": 0.1}, {"repeated": 0.05}]),
    seed=st.integers(0, 99),
)
@settings(max_examples=400, deadline=None)
def test_all_is_read_or_it_is_said_that_it_is_not(
    created: list[int],
    size: int,
    clamp: int | None,
    ties: str,
    ignore_skip: bool,
    knobs: dict[str, Any],
    total: str,
    odd: dict[str, float],
    seed: int,
) -> None:
    """Any log and any such API, with a count that counts: nothing is missing unsaid, and nothing
    that is missing lies before the position; where nothing is odd, nothing is missing. Where the
    count is nonsense, the same, but for what two looks cannot tell: odd pages beside it."""
    if total != "filtered" and (odd or knobs):
        odd, knobs = {}, {}
    log = Log([], max_limit=clamp, ties=ties, ignore_skip=ignore_skip, total_items=total, **knobs)
    log.limit = 20_000
    for n, moment in enumerate(created):
        log.store.add(
            {
                "_id": f"r{n}",
                "message": "executionFinished",
                "data": {"executionId": f"{n * 2654435761 % 2**64:024x}"},
                "createdAt": iso(T0 + moment),
            }
        )
    reader = log.reader(size)
    reader.probe()
    log.store.config = log.config(odd_pages=odd, seed=seed)
    outcome = Outcome(reader)
    missing = names_of(log) - outcome.names
    if outcome.unreachable is None:
        assert not missing
        assert outcome.whole
        return
    assert not outcome.whole
    if outcome.position is not None:
        assert all(T0 + created[int(name[1:])] >= outcome.position for name in missing)
    if outcome.unreachable.count is not None and not odd:
        moment = outcome.unreachable.moment - T0
        there = [name for name in missing if created[int(name[1:])] == moment or knobs]
        assert outcome.unreachable.count == len(there)
    assert ignore_skip or odd or ties == "shuffled", "nothing hindered this API"
