"""The operations on one workflow: its executions' steps, its errors, how its blocks are called.

Pure, as ``store``, whose records it answers from: what is inside an execution follows from its
record (``inside``). ``workflowId`` is the user's installed copy here: a parent's id is not found.
"""

import json
import random
from collections.abc import Mapping
from email.message import Message
from email.utils import formatdate

from otel_alloy.testing.simulator.config import Config
from otel_alloy.testing.simulator.faults import Answer
from otel_alloy.testing.simulator.inside import (
    ended_at,
    error_of,
    steps_of,
    uuid_of,
    workflow_of,
)
from otel_alloy.testing.simulator.query import Refused
from otel_alloy.testing.simulator.records import Record
from otel_alloy.testing.simulator.store import LogStore

PREFIX = "/workflows/"
MOST_STEPS = 30
"""The largest ``limit`` of the steps; the vendor's description."""


def answer(
    store: LogStore, path: str, params: Mapping[str, str], headers: Message, told: float
) -> Answer:
    """The answer to one authorized ``GET``. ``told``: what the header ``Date`` says (seconds). 400,
    404 and 422 with ``{"message": ...}`` for what these operations do not take."""
    sent = {
        "Date": formatdate(told, usegmt=True),
        "Content-Type": "application/json; charset=utf-8",
    }
    try:
        if not headers.get("x-api-version"):
            raise Refused(400, "x-api-version is required")
        body: object = {"data": _data(store, path, params)}
    except Refused as refused:
        return Answer(refused.status, sent, json.dumps({"message": refused.message}).encode())
    return Answer(200, sent, json.dumps(body, separators=(",", ":")).encode("ascii"))


def _data(store: LogStore, path: str, params: Mapping[str, str]) -> object:
    config = store.config
    workflow, _, operation = path.removeprefix(PREFIX).partition("/")
    if operation not in ("", "logs", "errors"):
        raise Refused(404, "Not Found")
    user = params.get("userId")
    if not user:
        raise Refused(400, "userId is required")
    records = store.of_workflow(workflow, user)
    if not records:
        raise Refused(404, "Workflow not found")
    if operation == "":
        return workflow_of(records[-1], config.block_names)
    ends = _ends(records, store.advance() - round(config.inside_late * 1000))
    if operation == "errors":
        errors = [error_of(record, config.error_shape) for record in ends]
        return [error for error in errors if error is not None]
    limit, page = _number(params, "limit", 10), _number(params, "page", 1)
    if limit > MOST_STEPS:
        raise Refused(400, f"limit must not exceed {MOST_STEPS}")
    if params.get("order", "desc") == "asc":
        ends.reverse()
    return [_steps(record, config) for record in ends[(page - 1) * limit : page * limit]]


def _ends(records: list[Record], until: int) -> list[Record]:
    """The ends of executions up to that moment (ms), newest first; a failure is not outweighed by
    another end of the same execution."""
    ends: dict[object, Record] = {}
    for record in records:
        message, data = record.get("message"), record.get("data")
        if message in ("executionError", "executionFinished") and ended_at(record) <= until:
            execution = data.get("executionId") if isinstance(data, dict) else None
            key = uuid_of(record) or execution or record.get("_id")
            if message == "executionError" or key not in ends:
                ends[key] = record
    return sorted(ends.values(), key=ended_at, reverse=True)


def _steps(record: Record, config: Config) -> Record:
    entry = steps_of(
        record,
        ids=config.block_ids,
        failed=config.failed_block,
        payload_bytes=config.payload_bytes,
    )
    rng = random.Random(f"{config.seed}:steps:{entry['executionId']}")
    if rng.random() < config.steps_without_uuid:
        del entry["executionId"]
    return entry


def _number(params: Mapping[str, str], name: str, default: int) -> int:
    text = params.get(name) or str(default)
    if not (text.isascii() and text.isdecimal() and 0 < len(text) < 9 and int(text) > 0):
        raise Refused(422, f"{name} must be a positive integer")
    return int(text)
