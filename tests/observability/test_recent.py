"""What came through lately: counted by minute, forgotten after an hour, and within bounds."""

from __future__ import annotations

import json
import threading
import tracemalloc
from dataclasses import replace

import pytest

from otel_alloy.alloy.models import read_notification
from otel_alloy.mapping.convert import Converter, Execution, Role
from otel_alloy.mapping.facts import Failed, Glance
from otel_alloy.observability.recent import (
    MINUTES,
    MOST_EXECUTIONS,
    MOST_WORKFLOWS,
    Recent,
)
from otel_alloy.pipeline import events
from otel_alloy.runtime import Runtime, system_runtime
from otel_alloy.testing.simulator import Traffic, generate

ALLOY = 5_000_000_000  # Alloy's clock, ms; far from ours


class Clock:
    """Our clock, which a test moves; both kinds begin in the middle of a minute."""

    def __init__(self) -> None:
        self.now = 600_030.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recent(clock: Clock) -> Recent:
    runtime: Runtime = replace(system_runtime(), clock=clock, monotonic=clock)
    return Recent(runtime)


def settled(glance: Glance, source: str = "one") -> events.Settled:
    at = events.Position(high=ALLOY, start=0, before=ALLOY, last=True, now=ALLOY)
    counts = events.Counts(executions=max(1, glance.ended))
    return events.Settled(
        source=source, counts=counts, position=at, glance=lambda newest, since: glance
    )


def failed(workflow: str = "orders", ago: float = 0.0, key: str = "w-1") -> Failed:
    return Failed(ALLOY * 1_000_000 - int(ago * 1e9), workflow, key)


def test_by_minute(recent: Recent, clock: Clock) -> None:
    """What is settled counts in the minute in which that was done, a failure in the one in which
    it ended, by Alloy's clock, however far that is from ours; before the start nothing is known,
    and after an hour it is forgotten."""
    recent(settled(Glance(30)))
    clock.now += 120
    recent(settled(Glance(6, [failed(), failed(ago=125), failed("other", ago=65)])))
    lately = recent.look()
    assert lately.settled[-4:] == [None, 30, 0, 6]
    assert lately.failed[-4:] == [None, 1, 1, 1]
    assert len(lately.settled) == len(lately.failed) == MINUTES
    assert lately.failures == [(("orders", "w-1"), 2, 0), (("other", "w-1"), 1, 1)]
    assert (lately.since, lately.rate, lately.rate_seconds) == (600_030.0, 36 / 2, 120)
    clock.now += 59 * 60
    lately = recent.look()
    assert lately.settled == [6, *[0] * 59]
    assert lately.failures == [(("orders", "w-1"), 1, 59)]
    clock.now += 60
    lately = recent.look()
    assert not lately.failures and lately.rate == 0
    assert set(lately.settled) == {0}


def test_a_failure_from_before_the_start(recent: Recent) -> None:
    """One that ended before this process began is counted where it belongs; one whose end lies in
    the future, by a doubtful clock, counts as of now."""
    recent(settled(Glance(2, [failed(ago=600), failed(ago=-600)])))
    lately = recent.look()
    assert lately.failed[-11:] == [1, *[None] * 9, 1]
    assert lately.settled[-11:] == [*[None] * 10, 2]


def test_the_first_second_is_no_rate(recent: Recent, clock: Clock) -> None:
    """What is brought in at the start is taken for a minute's work, not for a second's."""
    clock.now += 1
    recent(settled(Glance(800)))
    assert recent.look().rate == 800


def test_bounds(recent: Recent, clock: Clock) -> None:
    """However many executions, workflows and minutes there are, memory stays flat, nothing is left
    out of the sums, and long names are cut."""

    def hours(begin: int, end: int) -> int:
        """Bytes that are in use after these hours."""
        for minute in range(60 * begin, 60 * end):
            many = [failed(f"{minute} {n} ".ljust(5000, "x")) for n in range(70)]
            recent(settled(Glance(70, many)))
            clock.now += 60
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        after_two = hours(0, 2)
        assert hours(2, 6) < 1.1 * after_two < 5_000_000
    finally:
        tracemalloc.stop()
    lately = recent.look()
    assert len(lately.failures) <= MINUTES * MOST_WORKFLOWS
    told = sum(number for _, number, _ in lately.failures) + lately.others
    assert told == sum(number or 0 for number in lately.failed) == 59 * 70
    assert max(len(name) for (name, _), _, _ in lately.failures) == 200


def test_last_executions() -> None:
    """The newest of each batch are kept, with facts as the span has them; of a record that cannot
    be converted, and of what is no end, nothing is told. A glance costs the facts of a few."""
    records = [
        r
        for r in generate(200, start=ALLOY / 1000 - 3000, end=ALLOY / 1000, traffic=Traffic())
        if r["message"] in ("executionFinished", "executionError")
    ]
    executions = [Execution(read_notification(json.dumps(r)), Role.ENDED) for r in records]
    started = Execution(executions[0].notification, Role.STARTED)
    useless = Execution(read_notification('{"message": "executionError"}'), Role.ENDED)
    converter = Converter()
    facts = list(converter.ended(executions))
    since = facts[len(facts) // 2].end
    glance = converter.glance([started, *executions, useless], 10, since)
    assert glance.ended == len(executions) + 1
    assert list(glance.newest) == facts[:-11:-1]
    wanted = [
        (f.end, f.workflow, f.workflow_id) for f in facts if f.outcome == "error" and f.end >= since
    ]
    assert [tuple(one) for one in glance.failed] == wanted != []

    recent = Recent(system_runtime())
    for begin in range(0, len(executions), 40):
        part = executions[begin : begin + 40]
        recent(settled(converter.glance(part, MOST_EXECUTIONS, 0)))
    last = recent.look().last
    newest = sorted(facts[-40:], key=lambda one: one.end)[-1]
    assert len(last) == MOST_EXECUTIONS
    assert [one.end for one in last] == sorted((one.end for one in last), reverse=True)
    assert {one.trace_id for one in last} == {one.trace_id for one in facts[-MOST_EXECUTIONS:]}
    (shown,) = [one for one in last if one.trace_id == newest.trace_id]
    assert (shown.workflow, shown.outcome, shown.end, shown.seconds, shown.span_id) == (
        newest.workflow,
        newest.outcome,
        newest.end,
        newest.seconds,
        newest.span_id,
    )


def test_from_many_threads(recent: Recent) -> None:
    """Events of several sources come at once, and nothing of them is lost."""

    def tell(source: str) -> None:
        for _ in range(200):
            recent(settled(Glance(3, [failed(source)]), source))
            recent.look()

    threads = [threading.Thread(target=tell, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lately = recent.look()
    assert lately.settled[-1] == 2400
    assert sorted(number for _, number, _ in lately.failures) == [200] * 4
