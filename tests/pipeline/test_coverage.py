"""How far is read while the clocks disagree. Values only; what it is good for is tested in
`tests/guarantee/test_clocks.py`."""

from __future__ import annotations

from otel_alloy.alloy.cursor import Window
from otel_alloy.pipeline.coverage import Coverage

OVERLAP = 60


def test_clocks_that_agree_leave_the_window_alone() -> None:
    """Nothing is read beyond it, whatever was read before."""
    coverage = Coverage(OVERLAP)
    for _ in range(3):
        extent = coverage.extent(Window(100, 200), 199, True, 0)
        assert (extent.window, extent.whole) == (Window(100, 200), Window(100, 200))
        coverage.saw(190)
        coverage.ended()


def test_two_ends() -> None:
    """What may be written down ends at the certain time, what is read at the latest."""
    extent = Coverage(OVERLAP).extent(Window(100, 200), 5000, False, 0)
    assert extent.window == Window(100, 200) and extent.whole == Window(100, 5001)


def test_what_was_read_is_not_read_again() -> None:
    """The next window begins an overlap before what was known when the last one began: that is all
    of which its reading is sure."""
    coverage = Coverage(OVERLAP)

    def window(newest: int) -> int:
        start = coverage.extent(Window(100, 200), 5000, False, 0).start
        coverage.saw(newest)
        coverage.ended()
        return start

    assert [window(newest) for newest in (1000, 2000, 3000, 3000)] == [100, 100, 940, 1940]


def test_a_window_that_was_not_read_to_its_end_counts_for_nothing() -> None:
    """As where records cannot be reached: the next one begins where it did."""
    coverage = Coverage(OVERLAP)
    for _ in range(4):
        assert coverage.extent(Window(100, 200), 5000, False, 0).start == 100
        coverage.saw(1000)


def test_a_jump_back_forgets() -> None:
    """New records may be older than those that were read: it is begun at what is written down."""
    coverage = Coverage(OVERLAP)
    for _ in range(3):
        coverage.extent(Window(100, 200), 5000, False, 0)
        coverage.saw(1000)
        coverage.ended()
    extent = coverage.extent(Window(100, 200), 5000, False, 1)
    assert extent.start == 100


def test_what_is_written_down_begins_no_later_than_it_ends() -> None:
    """Also where all that is left to read lies beyond the certain time."""
    coverage = Coverage(OVERLAP)
    for _ in range(3):
        extent = coverage.extent(Window(100, 200), 5000, False, 0)
        coverage.saw(4000)
        coverage.ended()
    assert extent.window == Window(200, 200) and extent.whole == Window(3940, 5001)
