"""How many records to ask for, learned from refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_alloy.alloy.page_size import LARGEST, LargerPages, PageSize


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


def pages(larger: LargerPages, base: int, gives: int, number: int) -> list[tuple[int, int]]:
    """So many full pages of an API that gives at most `gives`: what was asked, and what came."""
    found: list[tuple[int, int]] = []
    while len(found) < number:
        asked = larger.of(base)
        came = min(asked, gives)
        if larger.came(asked, came):
            found.append((asked, came))
    return found


@given(st.integers(1, 500), st.integers(1, 2000))
def test_pages_grow_to_what_is_given(base: int, gives: int) -> None:
    """After a few dozen full pages each brings as much as the API gives, up to 1,000; what was
    learned holds from the first page of the next start on."""
    larger = LargerPages(base)
    came = [received for _, received in pages(larger, base, gives, 60)]
    most = min(max(LARGEST, base), max(gives, 1))
    assert came[-1] == min(most, gives) or gives < base
    assert sorted(came) == came
    again = LargerPages(base, larger.proven)
    assert pages(again, base, gives, 1)[0][1] == came[-1]


@given(st.integers(1, 100), st.integers(0, 99))
def test_a_larger_page_with_fewer_records_is_asked_for_again(base: int, fewer: int) -> None:
    """An API that answers a limit which it does not like with fewer records than it could, or with
    none, is never taken at its word: the page that is used is the one that was given before."""
    larger = LargerPages(base)
    for _ in range(1000):
        asked = larger.of(base)
        received = base if asked == base else min(fewer, base - 1)
        if not larger.came(asked, received):
            assert larger.of(base) == base
    assert larger.proven == base


@pytest.mark.parametrize(("refused", "failures"), [(True, 1), (False, 3)])
def test_what_was_given_before_is_given_up(refused: bool, failures: int) -> None:
    """At once where it is refused, and where it fails three times in a row; then what is set."""
    larger = LargerPages(100, 800)
    assert larger.of(100) == 800
    for _ in range(failures):
        assert larger.of(100) == 800
        larger.failed(800, refused)
    assert larger.of(100) == 100
    tries = [asked for asked, _ in pages(larger, 100, 1000, 1100)]
    assert tries[-1] == 1000 and tries[900] == 100, "and it goes up again, much later"


def test_small_questions_stay_small() -> None:
    """What is not a whole page is asked for as it is."""
    larger = LargerPages(100, 1000)
    assert [larger.of(limit) for limit in (1, 2, 30)] == [1, 2, 30]
