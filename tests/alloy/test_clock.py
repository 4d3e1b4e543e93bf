"""The API's clock held against ours and against one that never jumps. Values only."""

from __future__ import annotations

import pytest

from otel_alloy.alloy.clock import ServerClock, skew_words
from otel_alloy.alloy.models import Page
from otel_alloy.testing.simulator import iso

T = 1_745_948_798_000
HOUR = 3_600_000
MINUTE = 60_000


class Times:
    """A clock that learns; `passed` ms of true time, of which our wall clock is `wrong` ms off."""

    def __init__(self, wrong: int = 0) -> None:
        self.clock = ServerClock()
        self.passed = 0
        self.wrong = wrong

    @property
    def ours(self) -> tuple[int, int]:
        return T + self.passed + self.wrong, self.passed

    def answer(self, ahead: int = 0, date: int | None = None, after: int = 1000) -> Times:
        """An answer whose `lastFetched` is `ahead` ms and whose `Date` is `date` ms ahead."""
        self.passed += after
        now = T + self.passed
        page = Page([], last_fetched=iso(now + ahead))
        page.server_date = now + (ahead if date is None else date)
        self.clock.learn(page, *self.ours)
        return self

    @property
    def span(self) -> tuple[int, int, int]:
        """certain, now and latest, against the true time."""
        true = T + self.passed
        clock = self.clock
        return (
            clock.certain(*self.ours) - true,
            clock.now(*self.ours) - true,
            clock.latest(*self.ours) - true,
        )


def test_clocks_that_agree_are_one() -> None:
    """Within a minute the API's clock is the time, whichever of the two is ahead."""
    for ahead in (0, 7000, -7000, MINUTE, -MINUTE):
        times = Times().answer(ahead)
        assert times.span == (ahead, ahead, ahead)
        assert times.clock.agrees(*times.ours) and skew_words(times.clock.skew) is None


@pytest.mark.parametrize("hours", [5, 25, -1, -30])
def test_a_jump_is_doubted_until_it_is_over(hours: int) -> None:
    """Our clock stays where it was, so the time before the jump goes on; both ends of the doubt
    are known; the first right answer ends it. However long it lasts, nothing certain follows it."""
    times = Times().answer()
    for _ in range(40):
        times.answer(hours * HOUR, after=MINUTE)
        certain, _, latest = times.span
        assert (certain, latest) == (min(0, hours * HOUR), max(0, hours * HOUR))
        assert not times.clock.agrees(*times.ours)
        assert times.clock.skew == hours * HOUR
        assert "the API's clock is" in (skew_words(times.clock.skew) or "")
    times.answer()
    assert times.span == (0, 0, 0) and times.clock.skew == 0


def test_the_time_goes_on_over_a_jump_that_only_the_api_makes() -> None:
    """Until many answers over ten minutes confirm it; then `now` is the API's, `certain` is not."""
    times = Times().answer()
    for _ in range(9):
        assert times.answer(5 * HOUR, after=MINUTE).span[1] == 0
        assert times.clock.doubted
    times.answer(5 * HOUR, after=MINUTE).answer(5 * HOUR, after=MINUTE)
    assert not times.clock.doubted
    assert times.span == (0, 5 * HOUR, 5 * HOUR)


def test_answers_of_one_moment_confirm_nothing() -> None:
    """However many there are: time has to pass as well."""
    times = Times().answer()
    for _ in range(100):
        times.answer(5 * HOUR, after=10)
    assert times.clock.doubted


def test_a_machine_that_slept() -> None:
    """Both clocks have moved on and the monotonic one has not: the second clock confirms it."""
    times = Times().answer()
    times.wrong = 8 * HOUR
    times.answer(8 * HOUR)
    assert times.span == (8 * HOUR,) * 3 and not times.clock.doubted


@pytest.mark.parametrize("wrong", [-5 * HOUR, 5 * HOUR])
def test_a_wrong_clock_of_ours(wrong: int) -> None:
    """The API's is `now`; the doubt reaches to ours, and that is said; corrected, it ends."""
    times = Times(wrong).answer()
    assert times.span == (min(0, wrong), 0, max(0, wrong))
    assert times.clock.skew == -wrong
    times.wrong = 0
    assert times.answer().span == (0, 0, 0)


@pytest.mark.parametrize("date", [5 * HOUR, -HOUR])
def test_of_two_clocks_of_theirs_the_one_that_agrees_with_ours_counts(date: int) -> None:
    """A wrong `Date` beside a right `lastFetched` moves nothing, and is said all the same."""
    times = Times().answer(0, date)
    assert times.span == (0, 0, 0)
    assert times.clock.skew == date
    assert times.clock.earliest(*times.ours) == T + times.passed + min(0, date)


def test_a_last_fetched_that_is_no_clock() -> None:
    """Hours behind while `Date` is right: neither used nor called a disagreement."""
    times = Times().answer(-3 * HOUR, 0)
    assert times.span == (0, 0, 0) and times.clock.skew == 0


def test_jumps_back_are_counted() -> None:
    """From any clock to an earlier one; forward is none."""
    times = Times().answer().answer(5 * HOUR)
    assert times.clock.setbacks == 0
    assert times.answer().clock.setbacks == 1
    assert times.answer(-HOUR).clock.setbacks == 2


def test_without_any_answer_ours_counts() -> None:
    """Also where answers tell no time."""
    clock = ServerClock()
    clock.learn(Page([]), T, 0)
    assert clock.certain(T, 0) == clock.now(T, 0) == clock.latest(T, 0) == clock.earliest(T, 0) == T
