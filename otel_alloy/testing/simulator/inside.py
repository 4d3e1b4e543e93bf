"""What runs inside an execution, as Alloy's other operations and its error webhook tell it: blocks,
what they took in and gave out, why one failed, how blocks are called.

Pure: all of it follows from the record of the execution's end alone, so that nothing is stored and
the same record always has the same inside. Failures cluster: most of a workflow's are in one of its
blocks, and those during an incident in that of the app. Every field that holds customers' data
holds ``PAYLOAD_CANARY``, and every reason an address or a token with ``REASON_CANARY``: neither may
be found in what a client makes of an answer.
"""

import hashlib
import itertools
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from otel_alloy.testing.simulator.incidents import Incident, incident_of
from otel_alloy.testing.simulator.records import Record, iso, millis

PAYLOAD_CANARY = "payload-canary"
"""Stands in every name and text of what a block took in or gave out."""
REASON_CANARY = "reason-canary"
"""Stands in the address and the token of a reason; each has one or both."""

BlockIds = Literal["connectorId", "blockId"]
FailedBlock = Literal["error", "status", "absent"]
ErrorShape = Literal["current", "2021"]
BlockNames = Literal["blocks", "connectors"]


class BlockOf(NamedTuple):
    """A block as its workflow has it."""

    id: str
    name: str
    type: str
    calls_app: bool


class Failure(NamedTuple):
    """Which block failed, when (ms), and what it said."""

    block: BlockOf
    at: int
    status: int
    reason: str


class _App(NamedTuple):
    """What a workflow does with an app, and what starts one."""

    trigger: str
    actions: tuple[str, ...]


_APPS = {
    "shopify": _App("New order", ("Create order", "Get order", "Update customer")),
    "netSuite": _App("Sales order changed", ("Create sales order", "Find customer")),
    "stripe": _App("New payment", ("Get charge", "List refunds")),
    "quickBooks": _App("Invoice changed", ("Create invoice", "Find account")),
    "hubSpot": _App("Contact changed", ("Find contact", "Update deal")),
    "salesforce": _App("Lead changed", ("Create lead", "Update account")),
    "xero": _App("Every night", ("List invoices", "Create payment")),
    "slack": _App("New message", ("Send message",)),
    "zendesk": _App("New ticket", ("Get ticket", "Update ticket")),
    "jira": _App("Issue changed", ("Create issue",)),
    "bigCommerce": _App("Stock changed", ("List inventory",)),
    "klaviyo": _App("Profile changed", ("Update profile",)),
    "shipStation": _App("Label printed", ("Get shipment",)),
    "googleSheets": _App("Row added", ("Read rows", "Append row")),
    "amazon": _App("Every hour", ("List orders",)),
    "dynamics": _App("Order changed", ("Create order",)),
    "gusto": _App("New employee", ("Get employee",)),
}
_OWN = (("filter", "Only paid ones"), ("customCode", "Map fields"), ("loop", "For each line"))
_APP_BLOCKS = slice(2, 4)
"""Where among a workflow's blocks those are that do something with an app."""
_REASONS = (
    (422, "The customer failed to create due to an invalid Id (request {case}): {mail} is taken"),
    (401, "Request failed with status code 401 (request {case}): Authorization: Bearer {token}"),
    (403, "Error: {mail} may not write orders (request {case}); access_token={token}"),
    (404, "No record for {mail} (request {case}), asked with api_key={token}"),
    (429, "Too many requests (request {case}), try again later; session_id={token} of {mail}"),
    (
        500,
        "Internal Server Error (request {case}) at https://api.example.com/v2?key={token}&to={mail}",
    ),
)
_INCIDENTS = {
    "down": (503, "Service Unavailable (request {case}): {app} does not answer, api_key={token}"),
    "expired": (
        401,
        "The connection to {app} has expired (request {case}): invalid_grant, {mail} has to connect"
        " it again",
    ),
}


def uuid_of(record: Record) -> str | None:
    """The execution's uuid, where the record has one."""
    data = record.get("data")
    found = data.get("executionUuid") if isinstance(data, dict) else None
    return found if isinstance(found, str) else None


def blocks_of(record: Record) -> tuple[BlockOf, ...]:
    """The blocks of a record's workflow, its trigger first. All copies of a workflow have the
    same."""
    parent = str(record.get("forgeWorkflowId") or record.get("workflowId"))
    workflow = record.get("forgeWorkflow")
    title = str(workflow.get("name", "")) if isinstance(workflow, dict) else ""
    return _laid_out(parent, title)


@lru_cache(maxsize=1024)
def _laid_out(parent: str, title: str) -> tuple[BlockOf, ...]:
    rng = random.Random(f"blocks:{parent}")
    squeezed = title.replace(" ", "").casefold()
    apps = sorted(
        (squeezed.index(app.casefold()), app) for app in _APPS if app.casefold() in squeezed
    )
    chosen = [app for _, app in apps] or rng.sample(sorted(_APPS), 2)
    first, last = chosen[0], chosen[-1] if len(chosen) > 1 else rng.choice(sorted(_APPS))
    own, own_name = rng.choice(_OWN)
    laid_out = [
        (f"{first}Trigger", _APPS[first].trigger, True),
        (own, own_name, False),
        (first, rng.choice(_APPS[first].actions), True),
        (last, rng.choice(_APPS[last].actions), True),
        ("slack", "Tell the team", True),
    ]
    return tuple(
        BlockOf(_uuid(rng), name, f"alloy.{type}", calls) for type, name, calls in laid_out
    )


def failure_of(record: Record) -> Failure | None:
    """Why the execution of a record failed; ``None`` where it did not. Two executions that start
    at the same moment as the same user's same workflow fail in the same block."""
    if record.get("message") != "executionError":
        return None
    blocks = blocks_of(record)
    parent = str(record.get("forgeWorkflowId") or record.get("workflowId"))
    weak = random.Random(f"weak:{parent}").choice(blocks[2:])
    where = (record.get("workflowId"), record.get("userId"), record.get("startedAt"))
    rng = random.Random(f"failing:{where}")
    block = weak if rng.random() < 0.8 else rng.choice(blocks[1:])
    status, words = rng.choice(_REASONS)
    started, ended = _times(record)
    incident = incident_at(record, started)
    if incident is not None:
        block = next(b for b in blocks[_APP_BLOCKS] if _app_of(b) == incident.app)
        status, words = _INCIDENTS[incident.kind]
    own = hashlib.sha256(f"reason:{_identity(record)}".encode()).digest()
    case = "".join(chr(ord("a") + byte % 26) for byte in own[:6])
    reason = words.format(
        app=_app_of(block),
        case=case,
        mail=f"{REASON_CANARY}.{own[6:9].hex()}@example.com",
        token=f"{REASON_CANARY}-{own[9:21].hex()}",
    )
    at = min(max(ended - 1, started), ended)
    return Failure(block, at, status if block.calls_app else 0, reason)


def incident_at(record: Record, at: int) -> Incident | None:
    """The incident that an execution with the fields of this record falls into, if it starts at
    ``at`` (ms)."""
    apps = (_app_of(block) for block in blocks_of(record)[_APP_BLOCKS])
    return incident_of(str(record.get("teamId")), str(record.get("userId")), apps, at)


def _app_of(block: BlockOf) -> str:
    return block.type.removeprefix("alloy.")


def steps_of(
    record: Record,
    *,
    ids: BlockIds = "connectorId",
    failed: FailedBlock = "status",
    payload_bytes: int = 0,
) -> Record:
    """An entry of ``GET /workflows/{workflowId}/logs``. ``ids``: the name of a block's id, by which
    the ages of this answer are told apart. ``failed``: how the block that failed shows: with an
    ``error``, with its app's ``statusCode`` alone, or not at all. ``payload_bytes``: about so many
    are given out by each block."""
    failure = failure_of(record)
    blocks = blocks_of(record)
    ran = blocks if failure is None else blocks[: blocks.index(failure.block) + 1]
    started, ended = _times(record)
    rng = random.Random(f"steps:{_identity(record)}")
    bounds = _bounds(ran, started, ended, rng)
    results: list[Record] = []
    for index, block in enumerate(ran):
        begin = min(bounds[index], max(ended - 1, started))
        fails = failure is not None and block == failure.block
        if fails and failed == "absent":
            continue
        status = failure.status if failure is not None and fails else 200
        item = _payload(rng, payload_bytes)
        if block.calls_app and status:
            item["statusCode"] = status
        item["id"] = _uuid(rng)
        result: Record = {
            "startedAt": iso(begin),
            "data": [[item]] if ids == "connectorId" else [item],
            "stoppedAt": iso(max(begin + 1, bounds[index + 1])),
            ids: block.id,
        }
        if failure is not None and fails and failed == "error":
            result["error"] = {"message": failure.reason, "stack": f"at {PAYLOAD_CANARY}"}
        results.append(result)
    entry: Record = {
        "executionId": uuid_of(record),
        "startedAt": iso(started),
        "stoppedAt": iso(ended),
    }
    if ids == "connectorId":
        entry["finished"] = failure is None
    else:
        entry["status"] = "success" if failure is None else "error"
    entry["results"] = results
    entry["inputs"] = [{ids: block.id, "data": _payload(rng, 0)} for block in ran]
    return entry


def _bounds(ran: Sequence[BlockOf], started: int, ended: int, rng: random.Random) -> list[int]:
    """When each block begins, and when the last one ends (ms). Most of the time goes into calls of
    apps; what is done by Alloy itself, and what waited for the start, takes a few hundredths."""
    weights = [
        rng.uniform(0.2, 1.0) * (1.0 if block.calls_app and index else 0.03)
        for index, block in enumerate(ran)
    ]
    reached = [0.0, *itertools.accumulate(weights)]
    return [started + round((ended - started) * part / reached[-1]) for part in reached]


def error_of(record: Record, shape: ErrorShape = "current") -> Record | None:
    """An entry of ``GET /workflows/{workflowId}/errors``; ``None`` where nothing failed."""
    failure = failure_of(record)
    if failure is None:
        return None
    if shape == "current":
        return {
            "workflowId": record.get("workflowId"),
            "block": failure.block.type.removeprefix("alloy."),
            "errorOccurredAt": iso(failure.at),
            "message": failure.reason,
        }
    data = record.get("data")
    return {
        "_id": _object_id(f"error:{_identity(record)}", failure.at),
        "workflowId": record.get("workflowId"),
        "executionId": data.get("executionId") if isinstance(data, dict) else None,
        "blockId": failure.block.id,
        "blockType": failure.block.type,
        "error": failure.reason,
        "createdAt": iso(failure.at),
        "updatedAt": iso(failure.at),
        "__v": 0,
    }


def workflow_of(record: Record, names: BlockNames = "blocks") -> Record:
    """What ``GET /workflows/{workflowId}`` says of a record's workflow."""
    workflow = record.get("forgeWorkflow")
    blocks = []
    for block in blocks_of(record):
        app = block.type.removeprefix("alloy.")
        icon = app.removesuffix("Trigger") if block.calls_app else "alloy-logo"
        link = f"https://icons.example.com/{icon}.png"
        if names == "blocks":
            blocks.append({"name": block.name, "id": block.id, "type": block.type, "icon": link})
        else:
            blocks.append(
                {
                    "connectorName": block.name,
                    "connectorId": block.id,
                    "connector": app,
                    "icon": link,
                }
            )
    return {
        "workflowId": record.get("workflowId"),
        "name": workflow.get("name") if isinstance(workflow, dict) else None,
        "createdAt": "2024-11-03T12:42:48.304Z",
        "updatedAt": "2024-11-03T13:12:45.522Z",
        "installed": True,
        "active": True,
        "version": record.get("workflowVersion"),
        names: blocks,
    }


def webhook_of(record: Record) -> Record | None:
    """What the error webhook posts of a record: ``{"headers": ..., "json": ...}``; ``None`` where
    nothing failed."""
    failure, body = failure_of(record), error_of(record, "2021")
    if failure is None or body is None:
        return None
    headers = {
        "X-Alloy-WorkflowId": record.get("workflowId"),
        "X-Alloy-UserId": record.get("userId"),
        "X-Alloy-BlockName": failure.block.name,
        "X-Alloy-BlockType": failure.block.type,
        "X-Alloy-ExecutionUuid": uuid_of(record),
    }
    sent = {name: value for name, value in headers.items() if isinstance(value, str)}
    return {"headers": sent, "json": body}


def ended_at(record: Record) -> int:
    """When the execution of a record ended, in ms."""
    return _times(record)[1]


def _times(record: Record) -> tuple[int, int]:
    ended = millis(record.get("completedAt"))
    ended = millis(record.get("createdAt")) if ended is None else ended
    started = millis(record.get("startedAt"))
    ended = ended or started or 0
    return (ended if started is None else min(started, ended)), ended


def _identity(record: Record) -> str:
    data = record.get("data")
    execution = data.get("executionId") if isinstance(data, dict) else None
    return str(uuid_of(record) or execution or record.get("_id"))


def _payload(rng: random.Random, size: int) -> dict[str, Any]:
    """What a customer's data looks like, with a canary wherever data can be; as in the vendor's
    examples request headers are among it."""
    mark = f"{PAYLOAD_CANARY}-{rng.getrandbits(32):08x}"
    found: dict[str, Any] = {
        "json": {
            "email": f"{mark}@example.com",
            "statusCode": 999,
            f"custom_{mark}": mark,
            "lines": [{"sku": mark, "quantity": rng.randint(1, 9), "note": f'"{mark}" \\ {{['}],
        },
        "headers": {"authorization": f"Bearer {mark}", "x-real-ip": mark},
        "meta": {"url": f"https://h.example/?{mark}", "x-request-id": mark, "cookie": mark},
        "binary": {mark: {"data": mark, "fileName": mark}},
        "error": mark if rng.random() < 0.1 else None,
    }
    if size:
        words = f'{mark} says "so", and goes on about nothing in particular, as long texts do. '
        found["json"]["text"] = words * (size // len(words) + 1)
    return found


def _uuid(rng: random.Random) -> str:
    digits = f"{rng.getrandbits(128):032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _object_id(name: str, at: int) -> str:
    return f"{at // 1000 & 0xFFFFFFFF:08x}{hashlib.sha256(name.encode()).hexdigest()[:16]}"
