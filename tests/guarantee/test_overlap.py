"""The overlap by counting: what it costs, what it finds, and what only the second reading sees.

The clock is the world's own; so small a page that the overlap is larger stands in for much traffic.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_alloy.pipeline.events import OverlapLooked
from otel_alloy.testing.simulator import Config

from .scale import scaled
from .test_late import DEFAULTS, INTERVAL, late_world, missing, twice
from .test_state_machine import MEMORY
from .world import World, span_key

COUNTED: dict[str, Any] = {**DEFAULTS, "page_size": 3, "audit": [], "overlap_max": 120}


def traffic(world: World, seconds: float, each: float = 5.0) -> None:
    """An execution ends every `each` seconds, and the source is read at its interval."""
    until = world.clock.now + seconds
    due = world.clock.now
    while world.clock.now < until:
        world.add(world.execution(), "executionFinished")
        if world.clock.now >= due:
            world.cycle()
            due += INTERVAL
        world.clock.wait(each)
    world.cycle()


def looks(world: World) -> list[str]:
    return [event.how for event in world.told if isinstance(event, OverlapLooked)]


def test_a_cycle_costs_its_new_records_and_one_count(tmp_path: Path) -> None:
    """With 24 records in the overlap and 6 new ones a cycle, all that is asked for is the pages of
    the new ones, one count, and each record once more."""
    world = World(tmp_path, **{**COUNTED, "adaptive": False, "page_size": 10})
    traffic(world, 1800)
    before, cycles, records = world.requests, world.cycles, len(world.executions)
    traffic(world, 3600)
    cycles, records = world.cycles - cycles, len(world.executions) - records
    # A page brings nine new records, as its first is the last one's; pieces of a bucket end early.
    again = records / 9 + records / 60
    assert world.requests - before <= 2 * cycles + again
    assert set(looks(world)[-100:]) == {"counted"}
    assert not missing(world) and not twice(world)
    world.close()


LATE = st.integers(0, 119)


@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(["end", "end", "start and end", "in place", "deleted", "restart"]),
            LATE,
            st.sampled_from([1, 5, 20]),
        ),
        min_size=10,
        max_size=40,
    ),
    page_size=st.integers(1, 4),
    adaptive=st.booleans(),
)
@settings(max_examples=scaled(25, 500), deadline=None)
def test_what_appears_within_the_overlap_is_found_at_once(
    events: list[tuple[str, int, int]], page_size: int, adaptive: bool
) -> None:
    """Whatever else happens in the same stretch, a record that becomes visible within the overlap
    is delivered by the next two cycles, once, unless a deletion hides it behind the count: then by
    the second reading."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        values = {**COUNTED, "page_size": page_size, "adaptive": adaptive}
        world = late_world(Path(folder), **values)
        deleted = False
        for what, late, pause in events:
            model = world.execution()
            if what == "restart":
                world.restart()
            elif what == "start and end":
                world.add(model, "executionStarted")
                world.clock.wait(1)
                world.add(model, "executionFinished", late=late)
            elif what == "in place":
                world.add(model, "executionStarted")
                world.cycle()
                world.clock.wait(1)
                world.change(model, "executionFinished", renewed=False)
            else:
                world.add(model, "executionFinished", late=late)
                if what == "deleted" and span_key(model.uuid) in world.done:
                    world.remove(model, "executionFinished")
                    deleted = True
            world.clock.wait(pause)
            world.cycle()
        for _ in range(120 // 15):
            world.clock.wait(15)
            world.add(world.execution(), "executionFinished")
            world.cycle()
        if deleted:
            traffic(world, 1500, each=25)
        world.check()
        assert not missing(world)
        assert not twice(world)
        world.close()


def hidden(world: World) -> Any:
    """A record that appears behind the same count that a deleted one leaves; its key."""
    traffic(world, 300)
    gone, late = world.execution(), world.execution()
    world.add(gone, "executionFinished")
    world.add(late, "executionFinished", late=40)
    world.clock.wait(5)
    world.add(world.execution(), "executionFinished")
    world.cycle()
    assert span_key(gone.uuid) in world.taken and span_key(late.uuid) not in world.taken
    world.clock.wait(37)
    world.remove(gone, "executionFinished")  # between two counts, as the other appears
    return span_key(late.uuid)


def test_a_deletion_hides_a_late_record_until_the_second_reading(tmp_path: Path) -> None:
    """A count cannot see it, so the overlap does not find it; it is delivered, once, when its
    bucket is read once more."""
    world = late_world(tmp_path, **{**COUNTED, "audit_bucket": 300, "adaptive": False})
    key = hidden(world)
    traffic(world, 150)
    assert key not in world.taken, "the case is a real one"
    traffic(world, 600)
    assert key in world.taken
    assert not twice(world) and not missing(world)
    world.close()


def test_where_a_count_fell_the_stretch_is_read(tmp_path: Path) -> None:
    """Once fewer are counted than are settled, the count is not believed as long as the overlap
    holds that moment: what appears there is found by reading, at once."""
    world = late_world(tmp_path, **{**COUNTED, "audit_bucket": 3600, "adaptive": False})
    traffic(world, 300)
    gone, late = world.execution(), world.execution()
    world.add(gone, "executionFinished")
    world.add(late, "executionFinished", late=60)
    world.clock.wait(5)
    world.add(world.execution(), "executionFinished")
    world.cycle()
    world.remove(gone, "executionFinished")
    world.add(world.execution(), "executionFinished")
    world.cycle()
    assert looks(world)[-1] == "read"
    world.clock.wait(60)
    world.cycle()
    assert span_key(late.uuid) in world.taken
    traffic(world, 300)
    assert looks(world)[-1] == "counted", "and afterwards counts are believed again"
    assert not twice(world) and not missing(world)
    world.close()


@pytest.mark.parametrize("again", [False, True])
def test_what_is_put_off_is_read_later(tmp_path: Path, again: bool) -> None:
    """Where nothing is counted and the budget is small, the overlap is read now and then; a late
    record is found then, also where the program was started in between."""
    values = {**COUNTED, "requests_per_minute": 60, "page_size": 10, "adaptive": False}
    values |= {"overlap": 600, "overlap_max": 600}
    world = late_world(tmp_path, Config(total_items="missing"), **values)
    found, seen = [], set()
    traffic(world, 900, each=1)
    for _ in range(4):
        traffic(world, 100, each=1)
        late = world.execution()
        world.add(late, "executionFinished", late=500)
        found.append(span_key(late.uuid))
        traffic(world, 200, each=1)
        seen |= set(looks(world))
        if again:
            world.restart()
    traffic(world, 1500, each=10)
    assert {"put off", "read"} <= seen
    assert all(key in world.taken for key in found)
    assert not twice(world) and not missing(world)
    world.close()


def test_the_interval_is_as_short_as_the_budget_allows(tmp_path: Path) -> None:
    """It follows the traffic down to a second and goes back to what is set in silence."""
    world = World(tmp_path, **{**COUNTED, "requests_per_minute": 60})
    world.cycle()
    poller = world.poller
    assert poller is not None
    for _ in range(60):
        world.add(world.execution(), "executionFinished")
        world.cycle()
        world.clock.wait(poller.interval)
    assert 1 <= poller.interval < 4
    silent = world.clock.now
    while poller.interval < INTERVAL:
        world.clock.wait(poller.interval)
        world.cycle()
    assert 200 < world.clock.now - silent < 300
    world.close()


def test_pages_grow_within_a_window_and_over_restarts(tmp_path: Path) -> None:
    """Pages of a backlog grow up to what Alloy gives, at no lost record and hardly a request more
    than the largest page needs; the size is remembered in the store."""
    world = World(tmp_path, Config(max_limit=250), **{**COUNTED, "page_size": 20})
    for _ in range(3000):
        world.clock.wait(0.01)
        world.add(world.execution(), "executionFinished")
    world.cycle()
    assert not missing(world) and not twice(world)
    assert world.requests < 3000 / 250 + 15
    world.restart()
    before = world.requests
    for _ in range(1000):
        world.clock.wait(0.01)
        world.add(world.execution(), "executionFinished")
    world.cycle()
    assert world.requests - before < 4 + 4000 / 250 + 5
    assert not missing(world) and not twice(world)
    world.close()


def test_an_api_that_refuses_larger_pages_costs_a_request(tmp_path: Path) -> None:
    """The refusal is noticed by nobody but the log, and nothing is lost."""
    config = Config(max_limit=20, over_limit="refuse")
    world = World(tmp_path, config, **{**COUNTED, "page_size": 20})
    for _ in range(400):
        world.clock.wait(0.01)
        world.add(world.execution(), "executionFinished")
    world.cycle()
    assert world.requests < 400 / 19 + 10
    assert not missing(world) and not twice(world)
    world.close()
