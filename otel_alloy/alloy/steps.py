"""What Alloy's answers about the inside of an execution say, as values: its blocks, the errors of a
workflow, and how a workflow's blocks are called.

    GET /workflows/{workflowId}/logs?userId=     `read_steps`
    GET /workflows/{workflowId}/errors?userId=   `read_errors`
    GET /workflows/{workflowId}?userId=          `read_workflow`

The shapes are those of the vendor's reference pages, of several ages. What a block took in and gave
out is customers' payload: it is passed over (`skim`), and no value here has a place for it. Nothing
here asks, joins or waits. What is missing, or is not what it should be, is None or left out; the
one error is Unreadable.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass

from otel_alloy.alloy.models import Unreadable
from otel_alloy.alloy.skim import Names, Skim
from otel_alloy.alloy.timestamps import to_ns

LONGEST_ID = 200
"""Characters of an id, a name or a type; a longer one is none."""
LONGEST_MESSAGE = 8192
"""Characters of an error's message that are read; the rest is passed over."""


@dataclass(frozen=True, slots=True)
class Block:
    """One block of an execution, as it ran. `index`: its place among the blocks that ran, from 0.
    `id`: as in the workflow; None where Alloy tells none. `type`, `app`: where the answer has them;
    else the workflow does. `started`, `stopped`: Unix ns. `failed`: what Alloy says of it, None
    where it says nothing. `status_code`: of the app's HTTP answer, the highest where there are
    several."""

    index: int
    id: str | None = None
    type: str | None = None
    app: str | None = None
    started: int | None = None
    stopped: int | None = None
    failed: bool | None = None
    status_code: int | None = None


@dataclass(frozen=True, slots=True)
class ExecutionSteps:
    """One execution and its blocks in Alloy's order. `uuid`: the executionUuid of its notification
    (Alloy calls it `executionId` here). `finished`: whether Alloy says that it went well. Of a loop
    of more than `skim.MOST` blocks the first ones."""

    uuid: str
    started: int | None
    stopped: int | None
    finished: bool | None
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class BlockError:
    """One error of a workflow. `block`: the id of the block that failed or, in newer answers, the
    name of its app. `at`: Unix ns. `execution`: not the uuid, and, as `id`, Alloy's own id of the
    error, only in answers of 2021 and in what the error webhook posts.
    `message` holds what the app answered: personal data, until `privacy` has masked it."""

    workflow: str | None
    user: str | None
    block: str | None
    type: str | None
    at: int | None
    message: str | None
    execution: str | None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class BlockName:
    """A block as the workflow has it. `app`: the app that it calls; None where it calls none."""

    id: str
    name: str | None
    type: str | None
    app: str | None


@dataclass(frozen=True, slots=True)
class WorkflowBlocks:
    """How the blocks of one version of a workflow are called. `version`: None where Alloy tells
    none."""

    version: int | None
    blocks: tuple[BlockName, ...]


_DATA = Names("data")
_ERRORS = Names("data", "errors")
_EXECUTION = Names("executionId", "startedAt", "stoppedAt", "finished", "status", "results")
_RESULT = Names(
    *("connectorId", "blockId", "connector", "blockType", "type", "app", "startedAt", "stoppedAt"),
    *("error", "status", "finished", "statusCode", "data"),
)
_ITEM = Names("statusCode")
_OF_ERROR = (
    *("workflowId", "userId", "block", "blockId", "blockType", "errorOccurredAt", "createdAt"),
    *("message", "error", "executionId", "_id"),
)
_ERROR, _POSTED = Names(*_OF_ERROR), Names("data", *_OF_ERROR)
_WORKFLOW = Names("data", "version", "workflowVersion", "blocks", "connectors")
_MESSAGE = Names("message", "description")
_BLOCK = Names("id", "connectorId", "blockId", "name", "connectorName", "type", "connector")

_OWN = frozenset(
    (
        *("code", "condition", "customcode", "datastore", "delay", "filter", "foreach", "function"),
        *("if", "loop", "manual", "merge", "noop", "router", "schedule", "scheduler", "set"),
        *("start", "switch", "trigger", "wait", "webhook", "webhooktrigger", "manualtrigger"),
        *("scheduletrigger", "alloy"),
    )
)
"""Types of blocks that call no app, in small letters. The vendor lists none: inferred from its
documentation of blocks, and only the kind of a span hangs on it."""

_WENT = {
    **dict.fromkeys(("success", "succeeded", "finished", "completed"), True),
    **dict.fromkeys(("error", "failed", "failure", "errored"), False),
}


def read_steps(
    body: bytes, wanted: Container[str | None] | None = None
) -> Iterator[ExecutionSteps]:
    """The executions of an answer in its order, each as soon as it is read to its end. `wanted`:
    the uuids of those to read, None for all; the others cost next to nothing. Of those without a
    uuid nobody can say which they are, so they are left out. Raises Unreadable, also after some:
    what came before it is good."""
    skim = Skim(body)
    for _ in _entries(skim, _DATA):
        if (found := _execution(skim, wanted)) is not None:
            yield found


def failing(steps: ExecutionSteps) -> Block | None:
    """The block at which an execution failed, where the steps tell it: the last that failed as
    Alloy says; else the last that ran, if its app answered 400 or above. Else None."""
    for block in reversed(steps.blocks):
        if block.failed:
            return block
    last = steps.blocks[-1] if steps.blocks else None
    return last if last is not None and (last.status_code or 0) >= 400 else None


def read_errors(body: bytes) -> Iterator[BlockError]:
    """The errors of an answer, in its order. Raises Unreadable, also after some."""
    skim = Skim(body)
    for _ in _entries(skim, _ERRORS):
        if (found := _error(skim)) is not None:
            yield found


def read_posted_error(body: bytes) -> BlockError:
    """The one error that the error webhook posts. Raises Unreadable, also where it is no object."""
    skim = Skim(body)
    if skim.opens() != b"{":
        raise Unreadable("it is not an object")
    return _error_of(skim, _enveloped(skim, _POSTED))


def read_workflow(body: bytes) -> WorkflowBlocks:
    """The blocks of a workflow; those without an id are left out. Raises Unreadable."""
    skim = Skim(body)
    version: int | None = None
    blocks: list[BlockName] = []
    for name in _enveloped(skim, _WORKFLOW):
        if name in ("version", "workflowVersion"):
            version = _whole(skim, 0, 2**31)
        else:
            blocks += (block for _ in skim.items() if (block := _block(skim)) is not None)
    return WorkflowBlocks(version, tuple(blocks))


def app_of(type: str | None) -> str | None:
    """The app behind a block's type: `shopify` of `alloy.shopify`, `knoCommerce` of
    `knoCommerceTrigger`; None for the blocks that are Alloy's own."""
    name = (type or "").removeprefix("alloy.").strip()
    plain = re.sub(r"[^a-z]", "", name.casefold())
    if not plain or plain in _OWN:
        return None
    return name.removesuffix("Trigger") or None


def _entries(skim: Skim, names: Names) -> Iterator[None]:
    """Stands at each entry of the list that is the answer, or is in one of its members."""
    if skim.opens() == b"[":
        yield from skim.items()
    else:
        for _ in skim.members(names):
            yield from skim.items()


def _enveloped(skim: Skim, names: Names) -> Iterator[str]:
    """The members of an object, or of the object in its `data`."""
    for name in skim.members(names):
        if name == "data":
            yield from (inner for inner in skim.members(names) if inner != "data")
        else:
            yield name


def _execution(skim: Skim, wanted: Container[str | None] | None) -> ExecutionSteps | None:
    uuid: str | None = None
    started = stopped = finished = None
    blocks: tuple[Block, ...] = ()
    begins = skim.beginning()
    for name in skim.members(_EXECUTION):
        if name == "results":
            blocks = tuple(_result(skim, index) for index, _ in enumerate(skim.items()))
        elif name == "startedAt":
            started = _moment(skim)
        elif name == "stoppedAt":
            stopped = _moment(skim)
        elif name in ("finished", "status"):
            finished = _went(skim, finished)
        else:
            uuid = _word(skim)
            if wanted is not None and uuid not in wanted:
                skim.leave_before(begins)
                return None
    return ExecutionSteps(uuid, started, stopped, finished, blocks) if uuid else None


def _result(skim: Skim, index: int) -> Block:
    id = type = app = started = stopped = status = None
    went: bool | None = None
    error = False
    for name in skim.members(_RESULT):
        if name == "data":
            status = _highest(status, _answered(skim))
        elif name == "statusCode":
            status = _highest(status, _whole(skim, 100, 599))
        elif name == "error":
            error = _says_something(skim)
        elif name in ("status", "finished"):
            went = _went(skim, went)
        elif name == "startedAt":
            started = _moment(skim)
        elif name == "stoppedAt":
            stopped = _moment(skim)
        elif name in ("connectorId", "blockId"):
            id = _word(skim) or id
        elif name == "app":
            app = _word(skim)
        else:
            type = _word(skim) or type
    failed = True if error else None if went is None else not went
    return Block(index, id, type, app or app_of(type), started, stopped, failed, status)


def _answered(skim: Skim) -> int | None:
    """The highest `statusCode` of what a block gave out: a list of items, or of lists of them. Of
    the items only this is read."""
    highest: int | None = None
    for _ in skim.items():
        if skim.opens() == b"[":
            for _ in skim.items():
                highest = _highest(highest, _status(skim))
        else:
            highest = _highest(highest, _status(skim))
    return highest


def _status(skim: Skim) -> int | None:
    status: int | None = None
    for _ in skim.members(_ITEM):
        status = _whole(skim, 100, 599)
    return status


def _error(skim: Skim) -> BlockError | None:
    if skim.opens() != b"{":
        return None
    error = _error_of(skim, skim.members(_ERROR))
    return None if error.block is None and error.message is None else error


def _error_of(skim: Skim, members: Iterator[str]) -> BlockError:
    workflow = user = block = type = at = message = execution = id = None
    for name in members:
        if name in ("message", "error"):
            message = _message(skim) or message
        elif name in ("errorOccurredAt", "createdAt"):
            moment = _moment(skim)
            at = moment if name == "errorOccurredAt" and moment else at or moment
        elif name == "workflowId":
            workflow = _word(skim)
        elif name == "userId":
            user = _word(skim)
        elif name in ("block", "blockId"):
            block = _word(skim) or block
        elif name == "blockType":
            type = _word(skim)
        elif name == "_id":
            id = _word(skim)
        else:
            execution = _word(skim)
    return BlockError(workflow, user, block, type, at, message, execution, id)


def _block(skim: Skim) -> BlockName | None:
    id = name = type = None
    for member in skim.members(_BLOCK):
        if member in ("id", "connectorId", "blockId"):
            id = _word(skim) or id
        elif member in ("name", "connectorName"):
            name = _word(skim) or name
        else:
            type = _word(skim) or type
    return None if id is None else BlockName(id, name, type, app_of(type))


def _word(skim: Skim) -> str | None:
    """An id, a name or a type: a text, or a number as its digits."""
    value = skim.scalar(LONGEST_ID + 1)
    if isinstance(value, bool) or value is None:
        return None
    word = str(value)
    return word if 0 < len(word) <= LONGEST_ID else None


def _message(skim: Skim) -> str | None:
    """A message; one in an object is in its `message`."""
    if skim.opens() == b"{":
        found: str | None = None
        for _ in skim.members(_MESSAGE):
            found = _text(skim) or found
        return found
    return _text(skim)


def _text(skim: Skim) -> str | None:
    value = skim.scalar(LONGEST_MESSAGE)
    return value.strip() or None if isinstance(value, str) else None


def _moment(skim: Skim) -> int | None:
    return to_ns(skim.scalar(LONGEST_ID))


def _whole(skim: Skim, least: int, most: int) -> int | None:
    value = skim.scalar(LONGEST_ID)
    return value if type(value) is int and least <= value <= most else None


def _went(skim: Skim, before: bool | None) -> bool | None:
    """Whether it went well, as one more member says: no one that is not good outweighs it."""
    value = skim.scalar(LONGEST_ID)
    told = value if isinstance(value, bool) else _WENT.get(str(value).casefold())
    return before if told is None else told if before is None else told and before


def _says_something(skim: Skim) -> bool:
    """Whether the value is an object or a text with something in it, or true; it is not built."""
    return skim.size() > 2 if skim.opens() in b'{"' else skim.scalar(LONGEST_ID) is True


def _highest(one: int | None, other: int | None) -> int | None:
    return max(one or 0, other or 0) or None
