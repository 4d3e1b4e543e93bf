"""Request parameters to a checked question (the vendor's OpenAPI description of GET /logs).

Pure; knows neither records nor sockets. Whatever the description does not allow is refused, because
a stand-in that forgives teaches clients to be wrong.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from otel_alloy.testing.simulator.config import Config
from otel_alloy.testing.simulator.records import iso, millis

DEFAULT_LIMIT = 10
"""Records per page when ``limit`` is absent, as the example of the description."""
SORTS = ("createdAt", "completedAt", "message", "userId")
OPERATORS = ("equals", "notequals", "greaterthan", "lessthan", "contains", "notcontains")
COLUMNS: Mapping[str, Literal["text", "date", "number"]] = {
    "message": "text",
    "data.executionId": "text",
    "forgeWorkflowId": "text",
    "createdAt": "date",
    "userId": "text",
    "forgeWorkflow.integrationId._id": "text",
    "workflowVersion": "number",
}


class Refused(Exception):
    """A request the API does not take. ``status`` is 400 (unreadable) or 422 (not allowed)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Condition(NamedTuple):
    """One filter. ``value`` is ``text`` in the column's own type: text, ms, or a number."""

    column: str
    operator: str
    text: str
    value: str | int | float


class Query(NamedTuple):
    """What is asked for. ``limit`` is what will be given, ``asked`` what the request named."""

    conditions: tuple[Condition, ...]
    skip: int
    limit: int
    asked: int
    sort_by: str
    descending: bool


def parse(params: Mapping[str, str], config: Config) -> Query:
    """Read the parameters; an empty value counts as absent. Raises ``Refused``."""
    conditions = _filters(params.get("filters", ""))
    if conditions and config.refuse_filters:
        raise Refused(400, "filters are not taken")
    if config.ignore_filters:
        conditions = []
    for name, column in (("workflowId", "forgeWorkflowId"), ("associatedUserId", "userId")):
        if text := params.get(name):
            conditions.append(Condition(column, "equals", text, text))
    asked = _integer(params, "limit", DEFAULT_LIMIT, least=1)
    if asked < config.min_limit:
        raise Refused(400, f"limit must not be below {config.min_limit}")
    limit = asked
    if config.max_limit is not None and asked > config.max_limit:
        if config.over_limit == "refuse":
            raise Refused(400, f"limit must not exceed {config.max_limit}")
        limit = config.max_limit
    order = _one_of(params, "sortOrder", ("desc", "asc"))
    return Query(
        conditions=tuple(conditions),
        skip=_integer(params, "skip", 0, least=0),
        limit=limit,
        asked=asked,
        sort_by=_one_of(params, "sortBy", SORTS),
        descending=order == "desc" or config.ignore_sort_order,
    )


def predicate(condition: Condition) -> Callable[[Any], bool]:
    """A test for one column's value: text, ms or number as the column has it, ``None`` if absent.

    An absent value meets ``notequals`` and ``notcontains``, as in the document stores that such
    filters are handed to, and nothing else.
    """
    operator, text, wanted = condition.operator, condition.text, condition.value
    as_text = iso if COLUMNS[condition.column] == "date" else str
    tests: dict[str, Callable[[Any], bool]] = {
        "equals": lambda value: value is not None and bool(value == wanted),
        "notequals": lambda value: value is None or bool(value != wanted),
        "greaterthan": lambda value: value is not None and bool(value > wanted),
        "lessthan": lambda value: value is not None and bool(value < wanted),
        "contains": lambda value: value is not None and text in as_text(value),
        "notcontains": lambda value: value is None or text not in as_text(value),
    }
    return tests[operator]


def _filters(text: str) -> list[Condition]:
    if not text:
        return []
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused(400, "filters is not JSON") from None
    if not isinstance(entries, list):
        raise Refused(400, "filters must be an array")
    return [_condition(entry) for entry in entries]


def _condition(entry: object) -> Condition:
    column, operator = _part(entry, "columns"), _part(entry, "operators")
    text, joined = _part(entry, "userinput"), _part(entry, "condition", "and")
    if column not in COLUMNS:
        raise Refused(422, "filters names an unknown column")
    if operator not in OPERATORS:
        raise Refused(422, "filters names an unknown operator")
    if joined != "and":
        raise Refused(422, 'the condition of a filter must be "and"')
    value: str | int | float | None = text
    if COLUMNS[column] == "date" and "contains" not in operator:
        value = millis(text)
    elif COLUMNS[column] == "number" and "contains" not in operator:
        value = _number(text)
    if value is None:
        raise Refused(422, f"filters compares {column} with a value of another type")
    return Condition(column, operator, text, value)


def _part(entry: object, name: str, default: str | None = None) -> str:
    part = entry.get(name) if isinstance(entry, dict) else None
    if part is None and default is not None and isinstance(entry, dict):
        return default
    value = part.get("value") if isinstance(part, dict) else None
    if not isinstance(value, str):
        raise Refused(400, f'each filter needs "{name}": {{"value": TEXT}}')
    return value


def _number(text: str) -> int | float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _integer(params: Mapping[str, str], name: str, default: int, *, least: int) -> int:
    text = params.get(name, "")
    if not text:
        return default
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 15):
        raise Refused(400, f"{name} must be an integer")
    if int(text) < least:
        raise Refused(422, f"{name} must be at least {least}")
    return int(text)


def _one_of(params: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    value = params.get(name) or allowed[0]
    if value not in allowed:
        raise Refused(422, f"{name} must be one of {', '.join(allowed)}")
    return value
