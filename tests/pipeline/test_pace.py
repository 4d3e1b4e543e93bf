"""The interval follows the budget: new records first, and the arithmetic is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_alloy.alloy.cursor import Window
from otel_alloy.pipeline.events import Paced
from otel_alloy.pipeline.pace import Demand, Pace, Share


@given(
    rate=st.floats(0, 500),
    page=st.integers(1, 1000),
    budget=st.sampled_from([0, 6, 60, 600]),
    counts=st.integers(0, 1),
    longest=st.sampled_from([1.0, 30.0, 600.0]),
)
def test_no_interval_asks_for_more_than_the_share(
    rate: float, page: int, budget: float, counts: int, longest: float
) -> None:
    """It lies between a second and what is set, and needs no more of the budget than windows may
    take; where new records alone take that, it is what is set."""
    demand = Demand(rate, page, budget, counts)
    interval = demand.interval(longest)
    assert 1 <= interval <= longest
    if budget and interval < longest:
        assert demand.needed(interval) <= demand.share * budget * 1.000001
    if budget and demand.for_new > demand.share * budget:
        assert interval == longest


def paced(rate: float, page: int, budget: float, cycles: int = 20) -> Paced:
    pace = Pace("s", 30.0, budget, True, page, lambda: 0.0)
    before, told = 0, None
    for _ in range(cycles):
        window = Window(before, before + 30_000)
        pace.settled(int(rate * 30))
        told = pace.cycle(window, 0, reads=False)
        before = window.before
    assert told is not None
    return told


@pytest.mark.parametrize(
    ("rate", "page", "tight"), [(20, 100, False), (20, 30, False), (25, 30, True), (90, 100, True)]
)
def test_it_is_tight_before_it_falls_behind(rate: float, page: int, tight: bool) -> None:
    """The words hold the arithmetic, within the default budget of 60 requests a minute."""
    told = paced(rate, page, 60)
    assert told.tight is tight and told.needed <= 60
    assert f"{rate:.1f} records a second at {page} a page are {60 * rate / page:.0f}" in told.words
    assert told.words.endswith(f"{told.needed:.0f} requests a minute of 60")


def test_a_page_is_learned_from_windows_of_several() -> None:
    """Of several pages all but the last one are full; one page shows nothing."""
    pace = Pace("s", 30.0, 60, True, 100, lambda: 0.0)
    for pages, page in (([2], 100), ([2, 0, 1], 100), ([30, 29, 29, 4], 30), ([7], 30)):
        for records in pages:
            pace.received(records)
        pace.cycle(Window(0, 30_000), 0, reads=False)
        assert pace.page == page


@given(st.lists(st.tuples(st.floats(0, 60), st.integers(1, 40)), min_size=1), st.floats(0.01, 10))
def test_a_share_is_kept(work: list[tuple[float, int]], rate: float) -> None:
    """Whatever is spent when it is free, in the long run no more than the share is."""
    now, spent, last = 0.0, 0, 0
    share = Share(rate, lambda: now)
    share.change(rate, 30.0)
    for pause, requests in work:
        now += pause
        if share.is_free():
            share.spend(requests)
            spent, last = spent + requests, requests
    assert spent - last <= rate * (now + 30.0) + 1e-6
