"""When a batch is full, and how pages become batches."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

from otel_alloy.alloy.cursor import Reading, UnorderedApi, Window
from otel_alloy.alloy.models import Record, read_page
from otel_alloy.checkpoint.private import PrivateStore
from otel_alloy.pipeline.batch import BatchPolicy, FullBatch, batches
from otel_alloy.pipeline.tracker import ExecutionTracker
from otel_alloy.runtime import system_runtime
from otel_alloy.testing.simulator import iso

T0 = 1_750_000_000_000
WINDOW = Window(T0, T0 + 1000)


@pytest.mark.parametrize(
    ("executions", "received", "seconds", "full"),
    [
        (99, 99, 0.9, False),
        (100, 100, 0.0, True),  # as many executions as asked for
        (0, 199, 0.0, False),
        (0, 200, 0.0, True),  # twice as many records: starts and repeats count by half
        (0, 0, 1.0, True),  # whatever a second brought
    ],
)
def test_full(executions: int, received: int, seconds: float, full: bool) -> None:
    """By executions, by records, or by age, whichever comes first."""
    assert BatchPolicy(100, 1.0).is_full(executions, received, seconds) is full


def test_rest() -> None:
    """A batch may grow for what is left of its second, never for less than nothing."""
    policy = BatchPolicy(100, 1.0)
    assert (policy.rest(0.25), policy.rest(3.0)) == (0.75, 0.0)


def records(*offsets: int) -> list[Record]:
    rows = ", ".join(
        f'{{"_id": "r{at}", "message": "executionFinished", "data": {{"executionId": "e{at}"}},'
        f' "createdAt": "{iso(T0 + at)}"}}'
        for at in offsets
    )
    return read_page(f'{{"notifications": [{rows}]}}'.encode()).records


class Pages:
    """Readings by script: None is "nothing within the time", an exception is raised."""

    def __init__(self, *script: Reading | UnorderedApi | None) -> None:
        self.script = list(script)
        self.closed = False

    def get(self, timeout: float) -> Reading | None:
        one = self.script.pop(0)
        if isinstance(one, UnorderedApi):
            raise one
        return one

    def close(self) -> None:
        self.closed = True


def run(pages: Pages, found: list[FullBatch] | None = None) -> tuple[list[FullBatch], list[int]]:
    found = [] if found is None else found
    received: list[int] = []
    runtime = replace(system_runtime(), monotonic=lambda: 0.0)
    policy = BatchPolicy(2)
    with closing(PrivateStore()) as store:
        tracker = ExecutionTracker(
            "s", store.load("s"), overlap_ms=60_000, incomplete_after_ms=10**9
        )
        try:
            for full in batches(WINDOW, pages, tracker, policy, runtime, received.append):
                found.append(full)
                tracker.advance(full.batch, full.high)
        finally:
            assert pages.closed
    return found, received


def test_pages_become_batches() -> None:
    """Pages are put together until a batch is full; each one says how far everything is settled
    with it, and the last one that the window is read."""
    found, received = run(
        Pages(
            Reading(records(1), [], T0 + 1, False),
            Reading(records(2), [], T0 + 2, False),
            Reading(records(3), [], T0 + 3, True),
        )
    )
    assert [(len(f.batch), f.high, f.last) for f in found] == [
        (2, T0 + 2, False),
        (1, T0 + 3, True),
    ]
    assert [f.batch.settlement.progress.window for f in found] == [(T0, T0 + 1000), None]
    assert received == [1, 1, 1]


def test_a_slow_api_does_not_hold_back_what_came() -> None:
    """When a second is over, what came in it is settled, though the batch is not full."""
    found, _ = run(
        Pages(
            Reading(records(1), [], T0 + 1, False),
            None,
            None,  # nothing came: no empty batch
            Reading([], [], T0 + 1, True),
        )
    )
    assert [(len(f.batch), f.last) for f in found] == [(1, False), (0, True)]


def test_an_empty_window_is_settled_too() -> None:
    """Nothing there: the first window says from where on everything is settled."""
    (only,), _ = run(Pages(Reading([], [], T0, True)))
    assert (only.high, only.last, only.batch.settlement.progress.begin) == (T0, True, T0)


def test_an_api_that_does_not_sort() -> None:
    """What was read before that was noticed is settled, and says nothing of how far the window
    is: it is to be read again from its start."""
    pages = Pages(Reading(records(5), [], T0 + 5, False), UnorderedApi("not in ascending order"))
    found: list[FullBatch] = []
    with pytest.raises(UnorderedApi):
        run(pages, found)
    (only,) = found
    assert (len(only.batch), only.high, only.last) == (1, None, False)
    progress = only.batch.settlement.progress
    assert (progress.window, progress.position) == ((T0, T0 + 1000), None)
