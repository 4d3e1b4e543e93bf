"""How many records to ask for, learned from refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_alloy.alloy.page_size import PageSize


def ask(size: PageSize, wanted: int, allowed: int) -> list[int]:
    """What is asked for until a page comes."""
    asked = []
    while True:
        asked.append(size.of(wanted))
        if asked[-1] <= allowed:
            size.accepted(asked[-1], wanted)
            return asked
        size.refused(asked[-1])


def test_it_grows_back_after_one_refusal() -> None:
    """One refusal halves it; eight good pages later it is whole again, and stays."""
    size = PageSize()
    assert ask(size, 100, 60) == [100, 50]
    sizes = [ask(size, 100, 1000)[-1] for _ in range(30)]
    assert sizes == [50] * 7 + [100] * 23


@given(st.integers(2, 1000), st.integers(1, 999))
def test_it_does_not_oscillate(wanted: int, allowed: int) -> None:
    """A size that stays refused is tried ever more seldom: of 5000 pages, a handful cost a second
    request."""
    size = PageSize()
    refused = sum(len(ask(size, wanted, allowed)) - 1 for _ in range(5000))
    assert refused <= 12 + 10 + 5000 // 1024


def test_a_size_that_is_refused_again_and_again_after_it_grew() -> None:
    """The time between two tries grows."""
    size = PageSize()
    waits = []
    for _ in range(5):
        assert ask(size, 100, 50)[-1] == 50
        pages = 0
        while size.of(100) == 50:
            ask(size, 100, 100)
            pages += 1
        waits.append(pages)
        ask(size, 100, 100)
    assert waits[0] == 7 and waits == sorted(waits) and waits[-1] >= 8 * waits[0]


@pytest.mark.parametrize("wanted", [1, 30])
def test_a_smaller_request_is_left_alone(wanted: int) -> None:
    """What is asked for less anyway neither changes nor counts."""
    size = PageSize()
    ask(size, 100, 60)
    for _ in range(20):
        assert ask(size, wanted, 60) == [wanted]
    assert size.of(100) == 50
