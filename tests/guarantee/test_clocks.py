"""The API's clock is wrong for a while, or for good: nothing is passed unread or declared.

The real poller in a world whose `Date` and `lastFetched` are off, while records are created as
before. `OVERLAP` is a minute, `INCOMPLETE_AFTER` twenty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from otel_alloy.checkpoint.sqlite import SqliteStore
from otel_alloy.errors import CheckpointAhead, ConfigurationError
from otel_alloy.observability.status import Status
from otel_alloy.pipeline.events import ClocksCompared
from otel_alloy.pipeline.poller import Poller

from .world import INCOMPLETE_AFTER, OVERLAP, START, World

HOUR = 3600


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def end(world: World, number: int = 1) -> None:
    """So many executions end now."""
    for _ in range(number):
        world.add(world.execution(), "executionFinished")


def cycles(world: World, number: int, every: float = 30.0) -> None:
    """So many cycles, with an execution that ends before each."""
    for _ in range(number):
        world.clock.wait(every)
        end(world)
        assert world.cycle()
        world.check()


def stored(world: World) -> list[int]:
    """Every moment that the store keeps of the source."""
    assert world.poller is not None
    p = world.poller.tracker.state.progress
    moments = [p.high, p.position, p.begin, p.read_to, *(p.window or ())]
    return [moment for moment in moments if moment is not None]


def all_taken(world: World) -> bool:
    return world.wanted.keys() <= world.taken.keys()


@pytest.mark.parametrize("hours", [5, 25, -1, -30])
@pytest.mark.parametrize("since_start", [True, False])
@pytest.mark.parametrize("config", ["as described", "ignores filters"])
def test_wrong_for_a_while_and_corrected(
    world: World, hours: int, since_start: bool, config: str
) -> None:
    """Each record arrives in the cycle after it was created: before, while and after the clock is
    wrong, also over restarts. No moment that lies in the future is written down."""
    if config == "ignores filters":
        world.log.config = replace(world.log.config, created_at_filter="ignored")
    end(world, 3)
    if not since_start:
        cycles(world, 3)
    world.jump(hours * HOUR)
    for restart in (False, True, False):
        if restart:
            world.restart()
        cycles(world, 12)
        assert all_taken(world), "late while the clock is wrong"
        assert max(stored(world)) <= world.now + 1
    world.jump(0)
    cycles(world, 3)
    assert all_taken(world), "stalled after the correction"
    world.restart()
    cycles(world, 3)
    assert all_taken(world)
    assert max(world.taken.values()) == 1
    world.check_all_delivered()


@pytest.mark.parametrize("since_start", [True, False])
@pytest.mark.parametrize("restart", [True, False])
def test_records_are_stamped_by_the_wrong_clock_as_well(
    world: World, since_start: bool, restart: bool
) -> None:
    """Alloy as a whole is five hours ahead, then two, then right: what is created after a
    correction is older than what was read before it, and arrives all the same."""
    if not since_start:
        cycles(world, 3)
    for hours in (5, 2, 0):
        world.jump(hours * HOUR)
        for _ in range(6):
            world.clock.wait(30)
            created = world.now + hours * HOUR * 1000
            world.add(world.execution(), "executionFinished", created=created)
            assert world.cycle()
            world.check()
            assert max(stored(world)) <= world.now + 1
        assert all_taken(world)
        if restart:
            world.restart()
    assert max(world.taken.values()) == 1


@pytest.mark.parametrize("since_start", [True, False])
def test_no_execution_is_called_incomplete_by_a_wrong_clock(
    world: World, since_start: bool
) -> None:
    """25 hours ahead for longer than any doubt lasts: an execution that runs is left alone, and its
    end is delivered; one that really never ends is given up when its time has come."""
    running, lost = world.execution(), world.execution()
    world.clock.wait(1)
    for model in (running, lost):
        world.add(model, "executionStarted")
    if not since_start:
        world.cycle()
    world.jump(25 * HOUR)
    cycles(world, 30)  # fifteen minutes
    assert not [key for key in world.taken if key[2].endswith("incomplete")]
    world.add(running, "executionFinished")
    cycles(world, 1)
    assert all_taken(world)
    world.clock.wait(INCOMPLETE_AFTER)
    cycles(world, 3)
    assert world.poller is not None and not world.poller.tracker.state.open_count


def test_a_lasting_disagreement_costs_no_reading(world: World) -> None:
    """An hour behind for good: what is read beyond the certain time is not read in each cycle."""
    world.jump(-HOUR)
    cycles(world, 60)
    before, told = world.requests, sum(world.taken.values())
    cycles(world, 10)
    assert world.requests - before <= 3 * 10
    assert sum(world.taken.values()) - told == 2 * 10


@pytest.mark.parametrize("hours", [5, 25])
def test_not_ready_for_as_long_as_nothing_gets_through(world: World, hours: int) -> None:
    """What was thought settled by a clock that was ahead does not hide a stall afterwards."""
    status = Status(["default"], max_lag=600.0, runtime=world.runtime())

    def watch() -> None:
        while world.told:
            status(world.told.popleft())

    def whole_cycles() -> None:
        for _ in range(3):
            world.clock.wait(30)
            end(world)
            assert world.poller is not None
            world.poller.turn(once=True)
        watch()

    world.jump(hours * HOUR)
    world.cycle()
    whole_cycles()
    assert status.not_ready() == []
    assert status.report()["sources"][0]["clock"]["skew_seconds"] == hours * HOUR
    assert "ahead of this machine's" in status.report()["sources"][0]["clock"]["note"]
    (gauges,) = status.gauges()
    assert gauges.skew == hours * HOUR
    world.jump(0)
    whole_cycles()
    assert status.not_ready() == [] and status.report()["sources"][0]["clock"]["note"] is None
    world.clock.wait(700)  # nothing more is read
    assert "the lag is 7" in status.not_ready()[0]


def test_one_warning_while_they_differ(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Said once at WARNING, and once when it is over."""
    caplog.set_level("INFO")
    cycles(world, 2)
    world.jump(-HOUR)
    cycles(world, 5)
    world.jump(0)
    cycles(world, 5)
    said = [(r.levelname, r.getMessage()) for r in caplog.records if "clock" in r.getMessage()]
    assert [level for level, _ in said] == ["WARNING", "INFO"], said
    assert "3600 s behind this machine's" in said[0][1]
    assert [e for e in world.told if isinstance(e, ClocksCompared)]


# A checkpoint in the future ----------------------------------------------------------------------


def put(world: World, moment: int) -> None:
    """Moves the checkpoint by hand."""
    store = SqliteStore(world.path)
    store.set_high("default", moment)
    store.close()


@pytest.mark.parametrize("ahead", [120, 5 * HOUR, 400 * 24 * HOUR])
def test_a_checkpoint_in_the_future_is_said_and_mended(world: World, ahead: int) -> None:
    """Nothing is read or moved; it is not ready and names the command; after that command, all
    since then is delivered."""
    world.cycle()
    world.restart()
    put(world, world.now + ahead * 1000)
    end(world, 2)
    status = Status(["default"], max_lag=600.0, runtime=world.runtime())
    with pytest.raises(CheckpointAhead, match="checkpoint set default"):
        world.cycle()
    assert world.poller is not None and not world.taken
    with pytest.raises(CheckpointAhead):
        world.poller.turn(once=True)
    world.told.clear()

    world.restart()
    store = SqliteStore(world.path)
    poller = Poller(world.factory(), world.settings.sources[0], store, status)
    for _ in range(3):
        assert poller.turn() > 0
    store.close()
    assert any("lies in the future" in reason for reason in status.not_ready())
    assert status.report()["sources"][0]["cursor_ahead"]
    assert not world.taken
    put(world, world.now - 60_000)
    assert world.cycle()
    assert all_taken(world)


def test_a_little_ahead_is_no_future(world: World) -> None:
    """Half a minute is within what clocks may differ."""
    world.cycle()
    world.restart()
    put(world, world.now + 30_000)
    assert world.cycle()


def test_the_time_of_a_wrong_window_in_an_older_file(world: World) -> None:
    """A window that a wrong clock closed in the future, and its note of what was read, are held
    against the clocks."""
    cycles(world, 2)
    assert world.poller is not None
    progress = world.poller.tracker.state.progress
    progress.window = (progress.high or 0, world.now + 5 * HOUR * 1000)
    progress.read_to = world.now + 5 * HOUR * 1000
    cycles(world, 3)
    assert all_taken(world)
    world.clock.wait(OVERLAP)
    cycles(world, 1)
    assert max(stored(world)) <= world.now + 1


def test_since_the_future(tmp_path: Path) -> None:
    """A mistake of the user, told before anything is read or written."""
    world = World(tmp_path, since="2100-01-01")
    assert START < 4_000_000_000
    with pytest.raises(ConfigurationError, match=r"since: 2100-01-01.* lies in the future"):
        world.cycle()
    world.close()
