"""The request budget and the patience around one request; time, chance and waiting are given."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_alloy.alloy.events import RequestRetried
from otel_alloy.alloy.models import Page
from otel_alloy.alloy.query import Query
from otel_alloy.alloy.retry import RETRY_AFTER_CAP, Fetch, RequestBudget, RetryingFetch
from otel_alloy.errors import (
    AccessRefused,
    AlloyReceiverError,
    Challenged,
    RequestRefused,
    ShutdownRequested,
    Stop,
    Throttled,
    Unavailable,
)

from .virtual import VirtualTime


def patient(
    fetch: Fetch, time: VirtualTime, *, per_minute: int = 0, retry: bool = True
) -> tuple[RetryingFetch, list[RequestRetried]]:
    """`fetch` with patience around it, and what it tells."""
    told: list[Any] = []
    budget = RequestBudget(per_minute, time.runtime)
    return RetryingFetch("eu", fetch, budget, time.runtime, told.append, retry=retry), told


def failing(*errors: Exception) -> Fetch:
    left: Iterator[Exception] = iter(errors)

    def fetch(query: Query) -> Page:
        for error in left:
            raise error
        return Page([])

    return fetch


@given(st.integers(1, 600), st.lists(st.floats(0, 30), min_size=1, max_size=300))
def test_no_minute_sees_more_than_the_budget(per_minute: int, pauses: list[float]) -> None:
    """Whatever the caller's own pace, any 60 seconds hold at most one burst (40, or less) and one
    minute's refill: at the default of 60 never more than the 100 that the vendor names."""
    clock = VirtualTime()
    budget = RequestBudget(per_minute, clock.runtime)
    sent = []
    for pause in pauses:
        clock.now += pause
        clock.now += budget.take()
        sent.append(clock.now)
    most = per_minute + min(per_minute, 40)
    for index, moment in enumerate(sent):
        inside = sum(1 for other in sent[index:] if other < moment + 60 - 1e-6)
        assert inside <= most + 1e-6
    assert per_minute != 60 or most == 100


def test_a_budget_of_zero_is_no_limit() -> None:
    """0 never waits."""
    budget = RequestBudget(0, VirtualTime().runtime)
    assert [budget.take() for _ in range(1000)] == [0.0] * 1000


def test_the_budget_is_used_up_at_its_rate() -> None:
    """After the burst, requests go out evenly at the rate, retries among them."""
    clock = VirtualTime(chance=0.0)
    fetch, _ = patient(failing(*[Unavailable("away")] * 20), clock, per_minute=60)
    for _ in range(80):
        fetch(Query(10))
    assert fetch.requests == 100
    assert clock.now == pytest.approx(100.0 + 60.0)


@pytest.mark.parametrize(
    ("error", "chance", "expected"),
    [
        (Unavailable("away"), 1.0, [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]),
        (Unavailable("away"), 0.5, [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]),
        (Throttled("slow down"), 1.0, [2, 2, 2, 4, 8, 16, 32, 60, 60, 60]),
        (Unavailable("away", after=7.0), 1.0, [7.0] * 10),
        (Throttled("slow down", after=0.0), 1.0, [0.0] * 10),
        (Throttled("slow down", after=1e8), 1.0, [RETRY_AFTER_CAP] * 10),
    ],
)
def test_backoff(error: Exception, chance: float, expected: list[float]) -> None:
    """Exponential with full jitter up to a cap; `Retry-After` counts instead, up to its own cap;
    each retry is told before it is waited for."""
    clock = VirtualTime(chance=chance)
    fetch, told = patient(failing(*[error] * 10), clock)
    assert fetch(Query(10)).received == 0
    assert [t.wait for t in told] == expected
    assert [t.attempt for t in told] == list(range(1, 11))
    assert [w for w in clock.waits if w] == [w for w in expected if w]


def test_patience_has_no_end() -> None:
    """A server that is away for hours loses nothing: the same request is sent until it succeeds,
    and no wait grows beyond its cap."""
    clock = VirtualTime()
    fetch, told = patient(failing(*[Unavailable("away")] * 5000), clock)
    fetch(Query(10))
    assert fetch.requests == 5001 and max(t.wait for t in told) == 60


def test_what_retrying_cannot_mend_is_raised_at_once() -> None:
    """A refused key is raised without a second request."""
    fetch, told = patient(failing(AccessRefused("no")), VirtualTime())
    with pytest.raises(AccessRefused):
        fetch(Query(10))
    assert fetch.requests == 1 and told == []


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_shutdown_cuts_any_wait_short(stop_at: int) -> None:
    """Whether it waits for the budget or for a retry, shutdown ends it, without another request."""
    clock = VirtualTime()
    clock.stop_at = stop_at
    fetch, _ = patient(failing(*[Unavailable("away")] * 10), clock)
    with pytest.raises(ShutdownRequested):
        fetch(Query(10))
    assert fetch.requests == stop_at // 2


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_a_refused_limit_is_halved_and_remembered(asked: int, allowed: int) -> None:
    """An API that refuses page sizes above its bound is asked for half until it takes the request;
    later requests begin there, and the page tells which size was used."""
    sizes: list[int] = []

    def fetch(query: Query) -> Page:
        sizes.append(query.limit)
        if query.limit > allowed:
            raise RequestRefused("limit")
        return Page([])

    patiently, told = patient(fetch, VirtualTime())
    page = patiently(Query(asked))
    final = sizes[-1]
    assert page.limit == final <= allowed and (final == asked or final > allowed // 2 - 1)
    assert sizes == [asked >> n for n in range(len(sizes))] and len(told) == len(sizes) - 1
    assert all(t.smaller and not t.wait for t in told)
    sizes.clear()
    patiently(Query(asked))
    patiently(Query(1))
    assert sizes == [final, 1]


def test_a_request_that_no_size_makes_right_is_raised() -> None:
    """Where even one record is refused, the limit was not at fault: the refusal comes out after
    few requests, and nothing is waited for."""
    clock = VirtualTime()
    fetch, _ = patient(failing(*[RequestRefused("no")] * 20), clock)
    with pytest.raises(RequestRefused):
        fetch(Query(100))
    assert fetch.requests == 7 and set(clock.waits) == {0.0}


@pytest.mark.parametrize("error", [Unavailable("away"), Throttled("slow"), RequestRefused("no")])
def test_without_patience_the_first_error_is_raised(error: AlloyReceiverError) -> None:
    """`check` says what came back at once: one request, and nothing is retried."""
    fetch, told = patient(failing(error), VirtualTime(), retry=False)
    with pytest.raises(type(error)):
        fetch(Query(100))
    assert fetch.requests == 1 and told == []


@pytest.mark.parametrize(
    "error", [Throttled("429", after=900), Unavailable("x"), RequestRefused("400")]
)
def test_an_impatient_question_is_not_sent_again(error: AlloyReceiverError) -> None:
    """A question that can be put off raises its first error and halves no page; where Alloy wants
    everybody to wait, whoever asks next does, up to the cap."""
    time = VirtualTime()
    fetch, told = patient(failing(error), time)
    with pytest.raises(type(error)), fetch.impatient():
        fetch(Query(100))
    assert fetch.requests == 1 and told == [] and time.now == 100.0
    page = fetch(Query(100))
    assert page.limit == 100
    assert time.now == 100.0 + (RETRY_AFTER_CAP if isinstance(error, Throttled) else 0)


def test_impatience_ends_with_its_question() -> None:
    """What is asked after it is asked with patience again."""
    time = VirtualTime()
    fetch, told = patient(failing(Unavailable("x"), Unavailable("y")), time)
    with pytest.raises(Unavailable), fetch.impatient():
        fetch(Query(100))
    fetch(Query(100))
    assert fetch.requests == 3 and len(told) == 1


# Refusals ----------------------------------------------------------------------------------------

REFUSALS = [
    AccessRefused("401"),
    Stop("404"),
    Unavailable("200, but it is an HTML page", refusal=True),
    Challenged("403", after=7.0, refusal=True),
    RequestRefused("400"),
]


@pytest.mark.parametrize("error", REFUSALS, ids=str)
def test_a_refusal_after_a_good_answer_is_held(error: AlloyReceiverError) -> None:
    """It is asked again slowly, told as held each time, and the answer comes when it has passed."""
    clock = VirtualTime()
    down = [False]

    def fetch(query: Query) -> Page:
        if down[0] and clock.now < 1000:
            raise error
        return Page([])

    patiently, told = patient(fetch, clock)
    patiently(Query(100))
    down[0] = True
    patiently(Query(100))
    held = [t for t in told if t.held]
    assert held and [t.attempt for t in held] == list(range(1, len(held) + 1))
    assert all(t.wait == 7.0 for t in held) or [t.wait for t in held][:4] == [2, 4, 8, 16]
    assert all(1 <= t.wait <= 300 for t in held) and clock.now >= 1000


@pytest.mark.parametrize("error", REFUSALS[:2] + REFUSALS[4:], ids=str)
def test_a_refusal_before_any_good_answer_is_final(error: AlloyReceiverError) -> None:
    """The key or the address is wrong: it is raised without waiting."""
    clock = VirtualTime()
    patiently, told = patient(failing(*[error] * 20), clock)
    with pytest.raises(type(error)):
        patiently(Query(1))
    assert not any(t.held for t in told) and set(clock.waits) == {0.0}


@pytest.mark.parametrize("after", [None, 0.0, 1e9])
def test_what_is_not_alloys_refusal_is_held_from_the_start(after: float | None) -> None:
    """A challenge says nothing of the key; a `Retry-After` is honoured within bounds."""
    clock = VirtualTime()
    errors = [Challenged("403", after=after, refusal=True)] * 3
    patiently, told = patient(failing(*errors), clock)
    patiently(Query(10))
    waits = {None: [2, 4, 8], 0.0: [1, 1, 1], 1e9: [300, 300, 300]}
    assert [t.wait for t in told] == waits[after] and all(t.held for t in told)


@pytest.mark.parametrize("error", REFUSALS, ids=str)
def test_a_command_that_ends_holds_for_a_while(error: AlloyReceiverError) -> None:
    """`hold_at_most` seconds, then the refusal itself is raised."""
    clock = VirtualTime()
    good = [Page([])]

    def fetch(query: Query) -> Page:
        if good:
            return good.pop()
        raise error

    patiently, told = patient(fetch, clock)
    patiently.hold_at_most = 60.0
    patiently(Query(10))
    began = clock.now
    with pytest.raises(type(error)):
        patiently(Query(10))
    assert 20 <= clock.now - began <= 60 and any(t.held for t in told)


@pytest.mark.parametrize("retry", [True, False])
@pytest.mark.parametrize("least", [10, 30])
def test_a_few_records_that_are_refused_are_asked_for_as_more(retry: bool, least: int) -> None:
    """One 400 to `limit=1` is not taken as final: the API may know a least page size."""
    sizes: list[int] = []

    def fetch(query: Query) -> Page:
        sizes.append(query.limit)
        if query.limit < least:
            raise RequestRefused("400")
        return Page([])

    patiently, _ = patient(fetch, VirtualTime(), retry=retry)
    assert patiently(Query(1)).limit == least
    assert sizes == [n for n in (1, 10, 30) if n <= least]


def test_an_attempt_raises_what_the_api_does_not_take() -> None:
    """Also after a good answer, so that another way can be tried; the key is held even then."""
    clock = VirtualTime()
    errors = iter([None, AccessRefused("401"), RequestRefused("400"), RequestRefused("400")])

    def fetch(query: Query) -> Page:
        error = next(errors, RequestRefused("400"))
        if error is not None:
            raise error
        return Page([])

    patiently, told = patient(fetch, clock)
    patiently(Query(100))
    with pytest.raises(RequestRefused):
        patiently.attempt(Query(100))
    assert [type(t.error) for t in told if t.held] == [AccessRefused]


def test_the_page_size_grows_back() -> None:
    """One refusal does not halve pages for life."""
    refuse = [True]

    def fetch(query: Query) -> Page:
        if refuse and refuse.pop():
            raise RequestRefused("400")
        return Page([])

    patiently, _ = patient(fetch, VirtualTime())
    sizes = [patiently(Query(100)).limit for _ in range(12)]
    assert sizes == [50] * 8 + [100] * 4


def test_after_refusing_every_size_the_whole_one_is_asked_for() -> None:
    """It was not the size, so nothing is learned about it."""
    clock = VirtualTime()
    down = [False]

    def fetch(query: Query) -> Page:
        if down[0] and clock.now < 200:
            raise RequestRefused("400")
        return Page([])

    patiently, _ = patient(fetch, clock)
    patiently(Query(100))
    down[0] = True
    assert patiently(Query(100)).limit == 100
