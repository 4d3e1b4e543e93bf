"""Records that become visible later than anybody assumed: the overlap learns, the audit finds them.

The API is asked as with the default settings, the clock is the world's own.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_alloy.pipeline.events import Audited
from otel_alloy.testing.simulator import Config

from .scale import scaled
from .test_state_machine import MEMORY
from .world import World, log_key, span_key

DAY = 86_400
INTERVAL = 30
DEFAULTS: dict[str, Any] = {
    "overlap": 120,
    "incomplete_after": 4 * DAY,
    "page_size": 30,
    "requests_per_minute": 0,
}
UNAUDITED: dict[str, Any] = {**DEFAULTS, "audit": [], "overlap_max": 120}


def late_world(folder: Path, config: Config | None = None, **values: Any) -> World:
    world = World(folder, config, **values)
    world.later_than_assumed = True
    return world


def run(world: World, seconds: float, step: float = INTERVAL) -> None:
    """Cycles for so long."""
    until = world.clock.now + seconds
    while world.clock.now < until:
        world.cycle()
        world.clock.wait(step)


def missing(world: World) -> int:
    return sum(1 for key in world.wanted if key[0] == "span" and key not in world.taken)


def twice(world: World) -> list[Any]:
    return [key for key, number in world.taken.items() if number > 1]


def ends_dated_at_their_start(world: World) -> None:
    """24 executions of 25 s to 10 min, one a minute: each is shown when it ends, with the
    createdAt of its start; among others that are shown at once."""
    for number in range(24):
        model = world.execution()
        world.add(model, "executionFinished", late=25.0 * (number + 1))
        run(world, 30)
        world.add(world.execution(), "executionFinished")
        run(world, 30)


@pytest.mark.parametrize("audited", [True, False])
def test_executions_that_are_shown_at_their_end_with_the_time_of_their_start(
    tmp_path: Path, audited: bool
) -> None:
    """With default settings all 24 are delivered, once each, at the latest when the first age of
    the audit has passed. Without what this is about, some are lost: so the case is a real one."""
    world = late_world(tmp_path, **(DEFAULTS if audited else UNAUDITED))
    world.add(world.execution(), "executionFinished")
    run(world, 60)
    ends_dated_at_their_start(world)
    run(world, 1500)
    assert (missing(world) == 0) is audited
    assert not twice(world)
    world.close()


LAG = st.one_of(
    st.just(0), st.integers(1, 119), st.integers(120, 3600), st.integers(3600, DAY - 1200)
)


@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(["end", "end", "start and end", "second end", "deleted"]),
            LAG,
            LAG,
            st.sampled_from([1, 20, 60, 600, 4000]),
            st.booleans(),
        ),
        min_size=1,
        max_size=25,
    ),
    page_size=st.integers(1, 40),
)
@settings(max_examples=scaled(25, 500), deadline=None)
def test_whatever_the_lag_up_to_a_day(
    events: list[tuple[str, int, int, int, bool]], page_size: int
) -> None:
    """Starts, ends and second ends become visible up to a day late, in any order, and the process
    is started again now and then: with the audit on, nothing is lost and nothing is sent twice.
    Where records are also deleted, which a count cannot tell from what came late, the same with
    `audit_by_reading`."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        deletions = any(what == "deleted" for what, *_ in events)
        values = {**DEFAULTS, "page_size": page_size, "audit_by_reading": deletions}
        world = late_world(Path(folder), **values)
        world.cycle()  # the source begins an hour before this
        for what, first, second, pause, again in events:
            model = world.execution()
            if what == "start and end":
                world.add(model, "executionStarted", late=first)
                world.clock.wait(1)
                world.add(model, "executionFinished", late=second)
            elif what == "second end":
                world.add(model, "executionError", late=first)
                world.clock.wait(1)
                world.add(model, "executionFinished", late=second)
            else:
                world.add(model, "executionError", late=first)
            world.clock.wait(pause)
            world.cycle()
            if (
                what == "deleted"
                and log_key(model.records["executionError"], "executionError") in world.done
            ):
                world.remove(model, "executionError")
            if again:
                world.restart()
        run(world, 2.1 * DAY, step=900)
        world.check()
        lost = [key for key in world.wanted if key not in world.taken]
        assert not lost
        assert not twice(world)
        world.close()


@given(lags=st.lists(st.integers(0, 4000), min_size=1, max_size=20))
@settings(max_examples=scaled(25, 500), deadline=None)
def test_without_the_audit_the_overlap_is_what_there_is(lags: list[int]) -> None:
    """With `audit: off` and an overlap that may not grow: what becomes visible within the overlap
    is delivered, what comes later than that and a cycle is not."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        world = late_world(Path(folder), **UNAUDITED)
        expected: dict[Any, bool | None] = {}
        for lag in lags:
            model = world.execution()
            world.add(model, "executionFinished", late=lag)
            on_time, too_late = lag <= 120, lag > 120 + 3 * INTERVAL
            expected[span_key(model.uuid)] = True if on_time else False if too_late else None
            # Newer traffic, so that the overlap moves on.
            world.clock.wait(INTERVAL)
            world.add(world.execution(), "executionFinished")
            world.cycle()
        for _ in range(160):
            world.clock.wait(INTERVAL)
            world.add(world.execution(), "executionFinished")
            world.cycle()
        for key, delivered in expected.items():
            assert delivered is None or (key in world.taken) is delivered
        assert not twice(world)
        world.close()


def test_a_full_disk_delays_an_audit(tmp_path: Path) -> None:
    """Also where what is written is an audit's result: nothing ends, and it is written when there
    is room."""
    world = late_world(tmp_path, **DEFAULTS)
    for _ in range(5):
        world.add(world.execution(), "executionFinished")
        run(world, 60)
    delayed = 0
    for _ in range(60):
        world.disk_full = 3
        run(world, 30)
        delayed += not world.disk_full
    audits = [event for event in world.told if isinstance(event, Audited)]
    assert delayed and audits
    world.close()


@pytest.mark.parametrize(
    ("config", "by_reading", "found"),
    [
        (Config(), False, True),
        (Config(total_items="all"), False, False),
        (Config(total_items="all"), True, True),
        (Config(total_items="page"), True, True),
        (Config(total_items="missing"), True, True),
        (Config(created_at_filter="ignored"), False, False),
        (Config(created_at_filter="ignored"), True, True),
        (Config(ignore_sort_order=True), True, True),
    ],
)
def test_where_counts_cannot_be_had_it_is_read_again(
    tmp_path: Path, config: Config, by_reading: bool, found: bool
) -> None:
    """An API whose count cannot be relied on makes no false alarm; with `audit_by_reading` what is
    late is found all the same."""
    world = late_world(tmp_path, config, **{**DEFAULTS, "audit_by_reading": by_reading})
    for _ in range(5):
        world.add(world.execution(), "executionFinished")
        run(world, 60)
    world.add(world.execution(), "executionFinished", late=400)
    for _ in range(40):
        world.add(world.execution(), "executionFinished")
        run(world, 60)
    assert (missing(world) == 0) is found
    assert not twice(world)
    world.close()
