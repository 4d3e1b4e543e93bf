"""What the tests of this folder have found, each as its shortest story."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from otel_alloy.testing.simulator import Config

from .world import INCOMPLETE_AFTER, OVERLAP, World, log_key, span_key


def test_a_limit_that_the_api_lowers_is_no_end(tmp_path: Path) -> None:
    """Once pages of 50 were seen, one of 5 looked like the end of every window: with more than 5
    records in the overlap nothing new was ever read again."""
    world = World(tmp_path, page_size=50)
    for _ in range(60):
        world.clock.wait(0.1)
        world.add(world.execution(), "executionFinished")
    world.clock.wait(1)
    world.cycle()
    world.log.config = Config(max_limit=5)
    for _ in range(40):
        world.clock.wait(0.1)
        world.add(world.execution(), "executionFinished")
    world.clock.wait(1)
    world.cycle()
    world.check()
    assert all(key in world.taken for key in world.wanted)
    world.close()


def test_a_limit_that_is_lowered_unsaid_and_uncounted_is_no_end(tmp_path: Path) -> None:
    """An API that counts everything whatever was asked for, and names the page size that was asked
    for, answers with one record where it gave two: the end of every window, until the checkpoint
    had passed what followed. The second look before that asked the same again."""
    config = Config(max_limit=2, total_items="all", page_size="asked")
    world = World(tmp_path, config, page_size=2)
    for _ in range(2):
        world.add(world.execution(), "executionFinished")
    world.clock.wait(1)
    world.cycle()
    world.log.config = replace(config, max_limit=1)
    for _ in range(3):
        world.add(world.execution(), "executionFinished", late=1)
    world.clock.wait(0.001)
    world.add(world.execution(), "executionFinished")
    world.check_all_delivered()
    world.close()


def test_a_late_record_beside_the_first_one_after_a_pause(tmp_path: Path) -> None:
    """After a pause longer than the overlap nothing older can follow. That was said of the newest
    record that the window itself brought, too, so what was late beside it was passed by where the
    next cycles came late."""
    world = World(tmp_path)
    world.add(world.execution(), "executionFinished")
    world.clock.wait(1)
    world.cycle()
    world.clock.wait(3 * OVERLAP)
    world.add(world.execution(), "executionFinished", late=OVERLAP - 10)
    world.clock.wait(1)
    world.add(world.execution(), "executionFinished")
    world.clock.wait(1)
    world.cycle()
    world.clock.wait(2 * OVERLAP)
    world.add(world.execution(), "executionFinished")
    world.clock.wait(1)
    world.cycle()
    world.check_all_delivered()
    world.close()


def test_an_api_that_stops_keeping_order_loses_no_batch(tmp_path: Path) -> None:
    """What had been read of the window, but was not settled when the API gave itself away, counted
    as known afterwards and was never delivered."""
    world = World(tmp_path, page_size=4, batch_size=100)
    for _ in range(20):
        world.clock.wait(0.1)
        world.add(world.execution(), "executionFinished")
    world.clock.wait(1)

    def forget_order() -> None:
        world.log.config = Config(ignore_sort_order=True)

    world.ahead = 0
    world.meanwhile.extend([lambda: None] * 4)  # the probe's two requests, and two pages
    world.meanwhile.append(forget_order)
    world.cycle()
    world.check_all_delivered()
    world.close()


def test_an_order_that_a_page_of_ties_does_not_show(tmp_path: Path) -> None:
    """The newest page holds one millisecond only and the API always answers newest first: what
    was older counted as read."""
    world = World(tmp_path, Config(ignore_sort_order=True), page_size=3)
    for _ in range(5):
        world.clock.wait(0.1)
        world.add(world.execution(), "executionFinished")
    world.clock.wait(1)
    for _ in range(4):
        world.add(world.execution(), "executionFinished")
    world.clock.wait(1)
    world.cycle()
    world.check_all_delivered()
    world.close()


@pytest.mark.parametrize("arrivals", [2, 3, 4, 5])
def test_arrivals_at_the_top_are_no_end(tmp_path: Path, arrivals: int) -> None:
    """Newest first, as many records arrive between two pages as a page holds: the second page
    equals the first, which looked like the end of the log."""
    world = World(tmp_path, Config(created_at_filter="ignored"), page_size=4)
    for _ in range(30):
        world.clock.wait(10)
        world.add(world.execution(), "executionFinished")
    world.clock.wait(1)

    def arrive() -> None:
        for _ in range(arrivals):
            world.clock.wait(0.001)
            world.add(world.execution(), "executionFinished")

    world.ahead = 0
    world.meanwhile.extend([lambda: None] * 4)
    world.meanwhile.append(arrive)
    world.cycle()
    world.check_all_delivered()
    world.close()


def pass_the_overlap(world: World) -> None:
    """Newer traffic: what was there before lies behind every window to come."""
    world.clock.wait(3 * OVERLAP)
    world.add(world.execution(), "executionFinished")
    world.clock.wait(1)
    world.cycle()
    world.clock.wait(2 * OVERLAP)


def test_ends_in_place_are_asked_for_again_and_again(tmp_path: Path) -> None:
    """The first end that was found by asking, with its start no longer remembered, made the API
    count as one that writes ends as records of their own: no other was asked for after it."""
    world = World(tmp_path)
    first = world.execution()
    world.add(first, "executionStarted")
    world.clock.wait(1)
    world.cycle()
    pass_the_overlap(world)
    world.change(first, "executionFinished", renewed=False)
    second = world.execution()
    world.add(second, "executionStarted")
    world.clock.wait(1)
    world.cycle()
    pass_the_overlap(world)
    world.change(second, "executionError", renewed=False)
    world.check_all_delivered()
    for model in (first, second):
        ((message, record_id),) = model.records.items()
        assert log_key(record_id, message) in world.taken
    world.close()


def test_nothing_is_given_up_that_was_not_asked_for(tmp_path: Path) -> None:
    """After a long pause ten open executions were asked for and all others given up, although
    they had ended long ago."""
    world = World(tmp_path)
    models = [world.execution() for _ in range(25)]
    for model in models:
        world.add(model, "executionStarted")
    world.clock.wait(1)
    world.cycle()
    pass_the_overlap(world)
    for model in models[12:]:
        world.change(model, "executionFinished", renewed=False)
    world.restart()
    world.clock.wait(2 * INCOMPLETE_AFTER)
    for _ in range(4):
        world.cycle()
        world.clock.wait(30)
    assert all(log_key(m.records["executionFinished"], "executionFinished") in world.taken
               for m in models[12:])  # fmt: skip
    assert all(len(contents) == 1 for contents in world.bytes.values())
    world.close()


def test_a_late_second_end_makes_no_second_span(tmp_path: Path) -> None:
    """An execution that failed and finished shortly before the memory of it ends, and shows that
    late, while newer records are there already."""
    world = World(tmp_path)
    model = world.execution()
    world.add(model, "executionError")
    world.clock.wait(1)
    world.cycle()
    world.clock.wait(INCOMPLETE_AFTER - 10)
    world.add(model, "executionFinished", late=OVERLAP - 5)
    world.clock.wait(20)
    world.add(world.execution(), "executionFinished")
    world.clock.wait(1)
    world.cycle()
    world.check_all_delivered()
    assert world.taken[span_key(model.uuid)] == 1
    world.close()
