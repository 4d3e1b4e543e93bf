"""The shapes of records: which fields are there, of what type and form, and how often.

Never a value: what cannot be told without one is not told. Pure.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from otel_alloy.alloy.models import ERROR, FINISHED, STARTED, Entry
from otel_alloy.alloy.timestamps import to_ns

_TIMES = ("startedAt", "completedAt", "createdAt")
_IDS = ("_id", "data.executionId", "data.executionUuid")
_FIELDS = (
    *("_id", "message", "data", "data.executionId", "data.executionUuid", *_TIMES),
    *("customVersion", "workflowVersion", "teamId", "forgeWorkflowId", "workflowId", "userId"),
    *("user", "user.email", "user.fullName", "forgeWorkflow", "forgeWorkflow.name"),
    *("forgeWorkflow.integrationId", "forgeWorkflow.integrationId._id"),
    *("forgeWorkflow.integrationId.name", "forgeWorkflow.integrationId.blockId"),
)
"""Those that the vendor describes. A name that it does not might be somebody's value."""
_MESSAGES = (STARTED, FINISHED, ERROR)
_TYPES = {str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
_TYPES |= {list: "list", dict: "object"}
_ALLOYS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_OBJECT_ID = re.compile(r"[0-9a-f]{24}")
_NANOID = re.compile(r"[A-Za-z0-9_-]{21}")


def shapes(entries: Iterable[Entry]) -> dict[str, Any]:
    """How many entries there are and, of each field that the vendor describes, how many are of each
    type, or missing although what it lies in is there; forms of times and ids; messages. `other`:
    how many entries have fields that are not described."""
    types: dict[str, Counter[str]] = {name: Counter() for name in _FIELDS}
    forms: dict[str, Counter[str]] = {name: Counter() for name in (*_IDS, *_TIMES)}
    messages: Counter[str] = Counter()
    records = others = no_objects = 0
    for entry in entries:
        records += 1
        whole = json.loads(entry.text())
        if not isinstance(whole, dict):
            no_objects += 1
            continue
        others += bool(whole.keys() - set(_FIELDS))
        for name, value in _values(whole):
            types[name][_type(value)] += 1
            if name in _TIMES:
                forms[name][_form_of_time(value)] += 1
            elif name in _IDS:
                forms[name][_form_of_id(value)] += 1
        message = whole.get("message")
        messages[message if message in _MESSAGES else "other"] += 1
    return {
        "records": records,
        "no objects": no_objects,
        "with fields that are not described": others,
        "types": {name: dict(found) for name, found in types.items() if found},
        "forms": {name: dict(found) for name, found in forms.items() if found},
        "messages": dict(messages),
    }


class _Missing:
    """Stands for a field that is not there."""


_MISSING = _Missing()


def _values(whole: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Each described field with its value, where what it lies in is an object."""
    for name in _FIELDS:
        *path, last = name.split(".")
        at: Any = whole
        for step in path:
            at = at.get(step) if isinstance(at, dict) else None
        if isinstance(at, dict):
            yield name, at.get(last, _MISSING)


def _type(value: object) -> str:
    if value == "":
        return "empty string"
    return "missing" if value is _MISSING else _TYPES.get(type(value), "other")


def _form_of_time(value: object) -> str:
    if value is _MISSING or value is None:
        return "none"
    if isinstance(value, str) and _ALLOYS.fullmatch(value):
        return "as described"
    if to_ns(value) is None:
        return "cannot be read"
    return "another text" if isinstance(value, str) else "a number"


def _form_of_id(value: object) -> str:
    if not isinstance(value, str):
        return "none" if value is _MISSING or value is None else "no text"
    if _OBJECT_ID.fullmatch(value):
        return "24 hexadecimal digits"
    return "21 of A-Z a-z 0-9 _ -" if _NANOID.fullmatch(value) else "other"
