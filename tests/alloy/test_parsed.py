"""What is only parsed is what the models make of it: any answer, byte for byte of what is sent."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from otel_alloy.alloy import models
from otel_alloy.alloy.models import Notification, Pagination, read_page
from otel_alloy.mapping.convert import Converter, Execution, Role, Unconvertible

TEXTS = (
    *("_id", "id", "message", "teamId", "forgeWorkflowId", "workflowId", "userId"),
    *("startedAt", "completedAt", "createdAt", "email", "fullName", "name", "blockId"),
    *("executionId", "executionUuid"),
)

numbers = st.sampled_from(
    (
        *("0", "1", "-0", "4", "4.0", "1.5", "1e0", "1e999", "NaN", "-Infinity", "01", "1."),
        *("9" * 30, "9" * 4300, "9" * 5000, "18446744073709551616", "-9223372036854775809"),
    )
)
texts = st.sampled_from(
    (
        *('"x"', '""', '"executionFinished"', '"executionError"', '"executionStarted"', '"4"'),
        *(
            '"\\ud83d\\ude00"',
            '"\\ud83d"',
            '"\\ude00"',
            '"\\u0000"',
            '"\x7f"',
            '"\u00e9"',
            '"true"',
        ),
        *('"2025-04-29T17:44:10.336Z"', '"2025-04-29T24:00:00.000Z"'),
        '"68110feaa81a0e507fbdd36a"',
    )
)
deep = st.integers(190, 210).map(lambda n: "[" * n + "]" * n)
plain = st.sampled_from(["null", "true", "false"]) | numbers | texts


def of(names: tuple[str, ...], values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """A JSON object of these names in any order, some of them twice or missing."""
    pairs = st.lists(st.tuples(st.sampled_from(names), values), max_size=2 * len(names))
    return pairs.map(lambda found: "{" + ",".join(f'"{k}":{v}' for k, v in found) + "}")


nested = st.one_of(
    of(("executionId", "executionUuid"), plain),
    of(("email", "fullName", "more"), plain),
    of(("_id", "id", "name", "blockId", "icon"), plain),
    of(
        ("name", "integrationId"),
        plain | of(("_id", "id", "name", "blockId"), plain),
    ),
)
anything = st.one_of(
    plain, plain, nested, st.lists(plain, max_size=2).map(lambda v: f"[{','.join(v)}]")
)
USUAL: dict[str, Any] = {
    "_id": "68110feaa81a0e507fbdd36a",
    "message": "executionError",
    "data": {"executionId": "68110fea7d181f356acd1bf1", "executionUuid": "35SnGU0DUSNP5L26fsmnq"},
    "startedAt": "2025-04-29T17:44:10.336Z",
    "completedAt": "2025-04-29T17:44:10.432Z",
    "createdAt": "2025-04-29T17:44:10.432Z",
    "customVersion": False,
    "workflowVersion": 1,
    "teamId": "t",
    "forgeWorkflowId": "f",
    "workflowId": "w",
    "userId": "u",
    "user": {"email": "e@example.com", "fullName": "E"},
    "forgeWorkflow": {
        "name": "n",
        "integrationId": {"_id": "i", "name": "n", "blockId": "b", "icon": "x"},
    },
}
NAMES = (*USUAL, "id", "more")


@st.composite
def entries(draw: st.DrawFn) -> str:
    """A usual record of which a few fields are missing, moved, doubled, or something else."""
    fields = [(name, json.dumps(value)) for name, value in USUAL.items()]
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(0, len(fields) - 1)))
        name = draw(st.sampled_from(NAMES))
        value = draw(anything | deep)
        change = draw(st.sampled_from(("drop", "exchange", "add", "move")))
        if change == "add" or not fields:
            fields.insert(at, (name, value))
        elif change == "drop":
            del fields[at]
        elif change == "exchange":
            fields[at] = (fields[at][0], value)
        else:
            fields.append(fields.pop(at))
    return "{" + ",".join(f'"{name}":{value}' for name, value in fields) + "}"


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """An answer of such records, with something around them; now and then no JSON at all."""
    found = draw(st.lists(entries() | anything, max_size=3))
    around = draw(
        st.lists(
            st.tuples(
                st.sampled_from(("pagination", "lastFetched", "more", "notifications", "data")),
                anything | of(("totalItems", "pageSize", "currentPage", "more"), plain),
            ),
            max_size=2,
        )
    )
    parts = [f'"notifications":[{",".join(found)}]', *(f'"{k}":{v}' for k, v in around)]
    body = "{" + ",".join(draw(st.permutations(parts))) + "}"
    spoiled = body.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(spoiled)))
        spoiled = (
            spoiled[:at]
            + draw(st.sampled_from((b"", b"\xff", b"\xed\xa0\x80", b",")))
            + (spoiled[at + draw(st.integers(0, 1)) :])
        )
    return spoiled


Read = tuple[list[Notification], Any, Pagination | None]


def read_as(function: Any, body: bytes) -> Read | None:
    with suppress(models._Unusual, ValidationError):
        found: Read = function(body)
        return found
    return None


def exported(notifications: list[Notification]) -> Iterator[object]:
    converter = Converter(started_logs=True)
    for notification in notifications:
        for role in Role:
            try:
                yield converter.convert(Execution(notification, role))
            except Unconvertible as error:
                yield str(error)


@settings(max_examples=400, deadline=None)
@given(answers())
def test_what_is_only_parsed_is_what_the_models_make_of_it(body: bytes) -> None:
    """Whatever the bytes are: where an answer is accepted as usual, the models accept it, too, and
    make the same of it, to the byte that is sent. What is not accepted is for the models."""
    parsed, judged = read_as(models._parsed, body), read_as(models._judged, body)
    if parsed is not None:
        assert judged is not None
        assert repr(parsed) == repr(judged)  # NaN is not equal to itself
        assert list(exported(parsed[0])) == list(exported(judged[0]))


@pytest.mark.parametrize(
    "change",
    (
        *({}, {"more": [1, {"deep": None}]}, {"user": "u"}, {"user": None}),
        *({"forgeWorkflow": "w"}, {"forgeWorkflow": {"name": "n", "integrationId": "i"}}),
        *({"message": None}, {"completedAt": None}, {"data": None}, {"createdAt": 1745948650}),
    ),
)
@pytest.mark.parametrize("missing", [(), ("customVersion",), ("user", "teamId"), ("data",)])
def test_usual_answers_are_only_parsed(change: dict[str, Any], missing: tuple[str, ...]) -> None:
    """References that are bare ids, fields that are null, missing or unknown: all of it is usual,
    as a whole API may be so."""
    entry = {k: v for k, v in (USUAL | change).items() if k not in missing}
    body = json.dumps({"notifications": [entry], "pagination": {"totalItems": 1}}).encode()
    (notification,), _, pagination = models._parsed(body)
    assert pagination == Pagination(totalItems=1)
    (record,) = read_page(body).records
    assert record.notification == notification == models._judged(body)[0][0]


def test_records_that_tell_the_same_share_it() -> None:
    """One object for all notifications of one workflow, version and user, also across answers and
    where the models had to judge; one that differs in anything has another."""
    other = USUAL | {"userId": "v"}
    first = read_page(json.dumps({"notifications": [USUAL, USUAL, other]}).encode()).records
    odd = USUAL | {"_id": 7}
    (judged,) = read_page(json.dumps({"notifications": [odd]}).encode()).records
    one, two, three = (r.notification.common for r in first)
    assert one is two is judged.notification.common
    assert three == replace(one, userId="v")
