"""The overlap follows what was seen: never shorter than configured, never longer than allowed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_alloy.pipeline.visibility import VisibilityLag

DAY = 86_400_000
NOW = 1_750_000_000_000


@given(st.lists(st.integers(0, 2 * DAY), min_size=1), st.integers(0, DAY), st.integers(0, DAY))
def test_the_overlap_covers_what_was_seen(lags: list[int], configured: int, beyond: int) -> None:
    """Where something came later than half of the overlap, the overlap covers it with a margin, as
    far as it may grow; it is kept over a restart."""
    most = configured + beyond
    seen = VisibilityLag()
    for lag in lags:
        seen.note(lag, NOW)
    again = VisibilityLag.read(seen.text())
    assert again == seen and sum(again.counts) == len(lags)
    overlap = again.overlap(configured, most)
    assert configured <= overlap <= most
    assert overlap >= min(most, max(lags) + 30_000) or max(lags) <= configured // 2
    if max(lags) <= configured // 2:
        assert overlap == configured


def test_a_bad_day_is_forgotten_after_two_weeks_at_most() -> None:
    """The histogram keeps it; the overlap does not."""
    seen = VisibilityLag()
    seen.note(DAY, NOW)
    for day in range(1, 15):
        seen.note(0, NOW + day * DAY)
        if day < 7:
            assert seen.overlap(120_000, DAY) == DAY
    assert seen.overlap(120_000, DAY) == 120_000
    assert seen.late == 1


@given(st.text() | st.none() | st.sampled_from(["[[1],0,0,0]", "[" * 100_000, "[1]", "{}", "[[]]"]))
def test_what_cannot_be_read_is_nothing_known(text: str | None) -> None:
    """A foreign text in the database stops nothing."""
    assert VisibilityLag.read(text) == VisibilityLag()
