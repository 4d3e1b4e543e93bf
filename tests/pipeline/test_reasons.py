"""An error is given to an execution only where it can be nobody else's."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_alloy.alloy.steps import Block, BlockError, ExecutionSteps
from otel_alloy.pipeline.reasons import Failure, reason_of

SECOND = 1_000_000_000
MINUTES = 600 * SECOND


def execution(uuid: str, begun: float, ended: float, block: str | None = "b1") -> ExecutionSteps:
    blocks: tuple[Block, ...] = (Block(0, "b0", failed=False),)
    if block is not None:
        blocks += (Block(1, block, type="shopify", app="shopify", failed=True),)
    times = int(begun * SECOND) + MINUTES, int(ended * SECOND) + MINUTES
    return ExecutionSteps(uuid, *times, block is None, blocks)


def error(at: float, block: str = "b1", message: str = "no") -> BlockError:
    return BlockError("w", "u", block, None, int(at * SECOND) + MINUTES, message, None)


MINE = execution("mine", 10, 12)


@pytest.mark.parametrize(
    ("errors", "others", "found"),
    [
        ([error(11)], [], True),
        ([error(11, "shopify")], [], True),
        ([error(11, "Shopify")], [], True),
        ([error(11, "b2")], [], False),
        ([error(9)], [], False),
        ([error(13)], [], True),  # noted a moment after the end
        ([error(15)], [], False),
        ([error(11), error(11.5)], [], False),
        ([error(11), error(30)], [], True),
        ([error(11)], [execution("other", 9, 11.5)], False),
        ([error(11)], [execution("other", 9, 11.5, "b2")], True),
        ([error(11)], [execution("other", 9, 11.5, None)], True),
        ([error(11)], [execution("other", 20, 21)], True),
        ([error(11)], [replace(execution("other", 9, 11), blocks=(), finished=False)], False),
        ([], [], False),
    ],
)
def test_what_fits(errors: list[BlockError], others: list[ExecutionSteps], found: bool) -> None:
    """Workflow, user, block and time have to fit, one error and one execution."""
    assert (reason_of(MINE, errors, [MINE, *others], [], 0) is not None) is found


def test_what_is_not_known_may_be_the_owner() -> None:
    """Where the answer does not reach back far enough, or another failure of that moment has no
    steps yet, nothing is concluded."""
    assert reason_of(MINE, [error(11)], [MINE], [], 560 * SECOND) is None
    other = Failure("other", 9 * SECOND + MINUTES, 12 * SECOND + MINUTES)
    assert reason_of(MINE, [error(11)], [MINE], [other], 0) is None
    later = Failure("other", 19 * SECOND + MINUTES, 22 * SECOND + MINUTES)
    assert reason_of(MINE, [error(11)], [MINE], [later], 0) is not None
    assert reason_of(replace(MINE, blocks=()), [error(11)], [MINE], [], 0) is None


@given(st.integers(0, 2**32), st.integers(1, 30), st.floats(0, 1))
def test_never_anothers(seed: int, number: int, hidden: float) -> None:
    """Of executions that overlap at random, whatever share of the errors is not there yet: a
    reason that is given is the execution's own."""
    chance = random.Random(seed)
    all_of_them, owner = [], {}
    for index in range(number):
        begun = chance.uniform(0, 20)
        ended = begun + chance.uniform(0.1, 5)
        block = chance.choice(["b1", "b2", None])
        all_of_them.append(execution(f"e{index}", begun, ended, block))
        if block is not None:
            owner[f"e{index}"] = error(ended - 0.05, block, f"e{index}")
    errors = [e for e in owner.values() if chance.random() >= hidden]
    for one in all_of_them:
        found = reason_of(one, errors, all_of_them, [], 0)
        assert found is None or found is owner[one.uuid]
