"""Which error of a workflow belongs to which of its executions. Pure; a guess is never made.

An error tells its workflow, its user, the block and the moment, and not its execution. It is the
reason of an execution only where it lies inside that execution's time, at the block at which that
failed, and nothing else fits either way: no second error, and no other execution that ran then and
may have failed there. Where not all executions of that time are known, nothing is concluded.
Times are Unix ns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from otel_alloy.alloy.steps import Block, BlockError, ExecutionSteps, failing

_SLACK_NS = 2_000_000_000
"""An error may be noted a little after its execution's end."""
BEFORE_NS = 60_000_000_000
"""Executions that began so long before another one are taken to be over when it ran, unless their
notification says otherwise."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed execution as its notification tells it: it may be an error's owner also where its
    steps are not known."""

    uuid: str
    started: int
    ended: int


def reason_of(
    execution: ExecutionSteps,
    errors: Sequence[BlockError],
    others: Iterable[ExecutionSteps],
    failures: Iterable[Failure],
    known_from: int,
) -> BlockError | None:
    """The error that is the reason of `execution`. `others`: the executions of the same workflow
    and user that the answer told, `failures`: those that notifications told; `known_from`: from
    which start on that is all of them."""
    block = failing(execution)
    if block is None or execution.started is None:
        return None
    if known_from > execution.started - BEFORE_NS:
        return None
    fitting = [error for error in errors if _fits(error, execution, block)]
    if len(fitting) != 1:
        return None
    (error,) = fitting
    told = {execution.uuid}
    for other in others:
        told.add(other.uuid)
        if other.uuid != execution.uuid and _may_own(error, other):
            return None
    for failure in failures:
        if failure.uuid not in told and _inside(error, failure.started, failure.ended):
            return None
    return error


def _fits(error: BlockError, execution: ExecutionSteps, block: Block) -> bool:
    named = (block.id, block.app, block.type)
    at_it = error.block is not None and error.block.casefold() in (
        name.casefold() for name in named if name
    )
    return at_it and _inside(error, execution.started, execution.stopped)


def _may_own(error: BlockError, other: ExecutionSteps) -> bool:
    """Whether an error may be another execution's: it ran then, and did not fail elsewhere."""
    if other.finished or not _inside(error, other.started, other.stopped):
        return False
    block = failing(other)
    return block is None or _fits(error, other, block)


def _inside(error: BlockError, started: int | None, ended: int | None) -> bool:
    """Whether its moment may lie within; a time that is not known may be any."""
    if error.at is None:
        return True
    after = started is None or error.at >= started
    return after and (ended is None or error.at <= ended + _SLACK_NS)
