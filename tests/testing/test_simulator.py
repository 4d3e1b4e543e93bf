"""What the stand-in of the Logs API promises to those who test against it."""

import ast
import http.client
import itertools
import json
import queue
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otel_alloy.testing.simulator as simulator_package
from otel_alloy.testing.simulator import (
    ODDITIES,
    Config,
    Fault,
    LogStore,
    Record,
    Simulator,
    Traffic,
    eventful,
    failure_of,
    generate,
    iso,
    live,
    millis,
    timeline,
)
from otel_alloy.testing.simulator.faults import choose
from otel_alloy.testing.simulator.inside import incident_at

NOW = 1_745_948_798.237
"""The ``lastFetched`` of the vendor's example: 2025-04-29T17:46:38.237Z."""
DAY = 86_400.0
SAMPLE: Record = {
    "_id": "68110feaa81a0e507fbdd36a",
    "message": "executionError",
    "data": {"executionId": "68110fea7d181f356acd1bf1", "executionUuid": "35SnGU0DUSNP5L26fsmnq"},
    "startedAt": "2025-04-29T17:44:10.336Z",
    "completedAt": "2025-04-29T17:44:10.432Z",
    "createdAt": "2025-04-29T17:44:10.432Z",
    "customVersion": False,
    "workflowVersion": 1,
    "teamId": "63fcaa053522280b5357aeec",
    "forgeWorkflowId": "67ef017d8eaeb50b18e635a1",
    "workflowId": "67ef01ed8eaeb50b18e646ea",
    "userId": "67a21c7d10e1dee8d5ec3a3d",
    "user": {"email": "eduardo.souza@runalloy.com", "fullName": "Eduardo Souza"},
    "forgeWorkflow": {
        "name": "order_id example",
        "integrationId": {
            "_id": "67d8875977ce6522e517a382",
            "name": "Eduardo looper",
            "blockId": "MuK2Kk9lu0v8N86brS3x",
            "icon": "https://cdn.runalloy.com/icons/alloy-logo.png",
        },
    },
}
FIRST = 1_745_948_650_432
"""``createdAt`` of the sample in ms."""


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def record(record_id: str, created: int = FIRST, **fields: Any) -> Record:
    """The vendor's sample under another id and time."""
    return {**SAMPLE, "_id": record_id, "createdAt": iso(created), **fields}


def store_of(*records: Record, clock: Clock | None = None, **knobs: Any) -> LogStore:
    store = LogStore(Config(**knobs), clock=clock or Clock())
    for item in records:
        store.add(item)
    return store


def ask(store: LogStore, *filters: tuple[str, str, str], **params: object) -> dict[str, Any]:
    status, body = ask_any(store, *filters, **params)
    assert status == 200, body
    return body


def ask_any(
    store: LogStore, *filters: tuple[str, str, str], **params: object
) -> tuple[int, dict[str, Any]]:
    texts = {name: str(value) for name, value in params.items()}
    if filters:
        texts["filters"] = json.dumps(
            [
                {
                    "columns": {"value": column},
                    "operators": {"value": operator},
                    "userinput": {"value": text},
                    "condition": {"value": "and"},
                }
                for column, operator, text in filters
            ]
        )
    answer = store.query(texts)
    return answer.status, json.loads(answer.body)


def ids(body: dict[str, Any]) -> list[str]:
    return [item["_id"] for item in body["notifications"]]


# The documented behaviour -------------------------------------------------------------------------


def test_the_vendors_example_comes_out_as_it_is_printed() -> None:
    """The vendor's example request, on a log with the vendor's example record, gets its answer."""
    body = ask(
        store_of(SAMPLE),
        ("message", "equals", "executionError"),
        workflowId="67ef017d8eaeb50b18e635a1",
        associatedUserId="67a21c7d10e1dee8d5ec3a3d",
        skip=0,
        limit=10,
        sortBy="createdAt",
        sortOrder="desc",
    )
    assert body == {
        "notifications": [SAMPLE],
        "lastFetched": "2025-04-29T17:46:38.237Z",
        "pagination": {"totalItems": 1, "totalPages": 1, "currentPage": 1, "pageSize": 10},
    }
    assert list(body["notifications"][0]) == list(SAMPLE)


def test_newest_ten_are_the_default() -> None:
    """Without parameters the answer holds the ten newest records, newest first."""
    body = ask(store_of(*(record(str(n), FIRST + n) for n in range(12))))
    assert ids(body) == [str(n) for n in range(11, 1, -1)]
    assert body["pagination"] == {
        "totalItems": 12,
        "totalPages": 2,
        "currentPage": 1,
        "pageSize": 10,
    }


@pytest.mark.parametrize(
    ("column", "operator", "text", "expected"),
    [
        ("message", "equals", "executionError", "ab"),
        ("message", "notequals", "executionError", "c"),
        ("message", "contains", "Fin", "c"),
        ("message", "notcontains", "Fin", "ab"),
        ("data.executionId", "equals", "e-b", "b"),
        ("data.executionId", "greaterthan", "e-a", "bc"),
        ("forgeWorkflowId", "equals", SAMPLE["forgeWorkflowId"], "ab"),
        ("forgeWorkflowId", "notequals", SAMPLE["forgeWorkflowId"], "c"),
        ("userId", "lessthan", "b", "ab"),
        ("forgeWorkflow.integrationId._id", "equals", "67d8875977ce6522e517a382", "ab"),
        ("forgeWorkflow.integrationId._id", "notequals", "67d8875977ce6522e517a382", "c"),
        ("workflowVersion", "equals", "1", "ab"),
        ("workflowVersion", "greaterthan", "9", "c"),
        ("workflowVersion", "lessthan", "10", "ab"),
        ("createdAt", "equals", iso(FIRST + 1), "b"),
        ("createdAt", "notequals", iso(FIRST + 1), "ac"),
        ("createdAt", "greaterthan", iso(FIRST), "bc"),
        ("createdAt", "greaterthan", iso(FIRST - 1), "abc"),
        ("createdAt", "lessthan", iso(FIRST + 1), "a"),
        ("createdAt", "lessthan", "2025-04-29T19:44:10.434+02:00", "ab"),
        ("createdAt", "contains", "10.433Z", "b"),
    ],
)
@pytest.mark.parametrize("sort_by", ["createdAt", "completedAt"])
def test_a_filter_finds(column: str, operator: str, text: str, expected: str, sort_by: str) -> None:
    """Each column compares in its own type, dates to the millisecond, however it is sorted."""
    store = store_of(
        record("a", FIRST, data={"executionId": "e-a"}, userId="a"),
        record("b", FIRST + 1, data={"executionId": "e-b"}, userId="a"),
        record(
            "c",
            FIRST + 2,
            data={"executionId": "e-c"},
            message="executionFinished",
            forgeWorkflowId="other",
            userId="c",
            forgeWorkflow="67ef017d8eaeb50b18e635a1",
            workflowVersion=10,
        ),
    )
    body = ask(store, (column, operator, text), sortBy=sort_by, sortOrder="asc")
    assert ids(body) == list(expected)
    assert body["pagination"]["totalItems"] == len(expected)


def test_filters_are_joined_by_and() -> None:
    """A record must meet every filter and both id parameters."""
    store = store_of(*(record(str(n), FIRST + n, userId=f"u{n % 2}") for n in range(6)))
    window = ("createdAt", "greaterthan", iso(FIRST)), ("createdAt", "lessthan", iso(FIRST + 5))
    assert ids(ask(store, *window, sortOrder="asc")) == ["1", "2", "3", "4"]
    assert ids(ask(store, *window, ("userId", "equals", "u0"), sortOrder="asc")) == ["2", "4"]
    assert ids(ask(store, *window, associatedUserId="u1", sortOrder="asc")) == ["1", "3"]
    assert ids(ask(store, *reversed(window), ("createdAt", "equals", iso(FIRST)))) == []


def test_workflow_id_means_the_parent() -> None:
    """``workflowId`` selects by ``forgeWorkflowId``, never by the record's own ``workflowId``."""
    store = store_of(SAMPLE)
    assert len(ids(ask(store, workflowId=SAMPLE["forgeWorkflowId"]))) == 1
    assert ids(ask(store, workflowId=SAMPLE["workflowId"])) == []


@pytest.mark.parametrize("sort_by", ["createdAt", "completedAt", "message", "userId"])
def test_sorting_both_ways(sort_by: str) -> None:
    """Each documented sort key orders the answer, and ``desc`` is the reverse of ``asc``."""
    values = ["2025-01-03T00:00:00.000Z", "2025-01-01T00:00:00.000Z", "2025-01-02T00:00:00.000Z"]
    store = store_of(
        *({**record(str(n), FIRST + n), sort_by: value} for n, value in enumerate(values))
    )
    assert ids(ask(store, sortBy=sort_by, sortOrder="asc")) == ["1", "2", "0"]
    assert ids(ask(store, sortBy=sort_by, sortOrder="desc")) == ["0", "2", "1"]


@given(
    times=st.lists(st.integers(0, 30), max_size=40),
    limit=st.integers(1, 12),
    descending=st.booleans(),
    after=st.integers(-1, 31),
    before=st.integers(-1, 31),
    version=st.sampled_from([None, "1", "2"]),
)
def test_pages_laid_side_by_side_are_the_whole_answer(
    times: list[int], limit: int, descending: bool, after: int, before: int, version: str | None
) -> None:
    """Whatever the page size, paging by ``skip`` gives what a plain filter and sort would."""
    records = [record(str(n), FIRST + at, workflowVersion=n % 2 + 1) for n, at in enumerate(times)]
    store = store_of(*records)
    filters = [
        ("createdAt", "greaterthan", iso(FIRST + after)),
        ("createdAt", "lessthan", iso(FIRST + before)),
    ]
    if version:
        filters.append(("workflowVersion", "equals", version))
    order = "desc" if descending else "asc"
    got: list[str] = []
    for skip in itertools.count(0, limit):
        body = ask(store, *filters, skip=skip, limit=limit, sortOrder=order)
        if not body["notifications"]:
            break
        assert len(body["notifications"]) <= limit
        got += ids(body)
    expected = [
        item["_id"]
        for item in sorted(records, key=lambda item: str(item["createdAt"]))
        if FIRST + after < (millis(item["createdAt"]) or 0) < FIRST + before
        and version in (None, str(item["workflowVersion"]))
    ]
    assert got == (expected[::-1] if descending else expected)
    assert body["pagination"]["totalItems"] == len(expected)


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"skip": "x"}, 400),
        ({"skip": "-1"}, 422),
        ({"skip": "1.5"}, 400),
        ({"limit": "0"}, 422),
        ({"limit": "1_0"}, 400),
        ({"limit": "9" * 400}, 400),
        ({"sortBy": "_id"}, 422),
        ({"sortOrder": "up"}, 422),
        ({"filters": "{"}, 400),
        ({"filters": "{}"}, 400),
        ({"filters": "[1]"}, 400),
        ({"filters": "[" * 50_000}, 400),
        ({"filters": '[{"columns":{"value":"message"}}]'}, 400),
    ],
)
def test_unreadable_parameters_are_refused(params: dict[str, str], status: int) -> None:
    """What the description does not allow is answered 400 or 422 with a JSON message."""
    answer = store_of(SAMPLE).query(params)
    assert answer.status == status
    assert json.loads(answer.body)["message"]


@pytest.mark.parametrize(
    "condition",
    [
        ("_id", "equals", "x"),
        ("completedAt", "greaterthan", iso(FIRST)),
        ("createdAt", "greaterthanorequals", iso(FIRST)),
        ("createdAt", "greaterthan", "yesterday"),
        ("workflowVersion", "equals", "one"),
    ],
)
def test_filters_outside_the_description_are_refused(condition: tuple[str, str, str]) -> None:
    """Other columns, other operators and values of another type are answered 422."""
    assert ask_any(store_of(SAMPLE), condition)[0] == 422


# The open questions -------------------------------------------------------------------------------


def test_limit_above_the_maximum() -> None:
    """It is clamped, reported as given or as asked, or refused with 400."""
    records = [record(str(n), FIRST + n) for n in range(5)]
    body = ask(store_of(*records, max_limit=2), limit=3)
    assert len(body["notifications"]) == 2
    assert body["pagination"]["pageSize"] == 2
    assert body["pagination"]["totalPages"] == 3
    body = ask(store_of(*records, max_limit=2, page_size="asked"), limit=3)
    assert len(body["notifications"]) == 2
    assert body["pagination"]["pageSize"] == 3
    refusing = store_of(*records, max_limit=2, over_limit="refuse")
    assert ask_any(refusing, limit=3)[0] == 400
    assert ask_any(refusing, limit=2)[0] == 200


def test_skip_past_the_end() -> None:
    """It gives an empty page, or 400."""
    assert ids(ask(store_of(SAMPLE), skip=2)) == []
    assert ask_any(store_of(SAMPLE, skip_past_end="refuse"), skip=2)[0] == 400
    assert ids(ask(store_of(SAMPLE, skip_past_end="refuse"), skip=1)) == []


def test_created_at_filter_that_is_not_honoured() -> None:
    """It can be ignored, or match nothing, while other filters keep working."""
    after = ("createdAt", "greaterthan", iso(FIRST))
    assert ids(ask(store_of(SAMPLE), after)) == []
    ignoring = store_of(SAMPLE, created_at_filter="ignored")
    assert len(ids(ask(ignoring, after))) == 1
    assert ids(ask(ignoring, after, ("message", "equals", "other"))) == []
    nothing = store_of(SAMPLE, created_at_filter="nothing")
    assert ids(ask(nothing, ("createdAt", "lessthan", iso(FIRST + 1)))) == []
    assert len(ids(ask(nothing))) == 1


def test_ignoring_filters_and_order() -> None:
    """All filters, and the sort order, can be ignored."""
    store = store_of(record("a"), record("b", FIRST + 1), ignore_filters=True)
    assert len(ids(ask(store, ("message", "equals", "other")))) == 2
    store = store_of(record("a"), record("b", FIRST + 1), ignore_sort_order=True)
    assert ids(ask(store, sortOrder="asc")) == ["b", "a"]


def test_ties() -> None:
    """Equal ``createdAt`` keep their order, or are shuffled anew for each answer."""
    records = [record(str(n), FIRST + n // 20) for n in range(40)]
    stable = store_of(*records)
    assert ids(ask(stable, limit=40, sortOrder="asc")) == [str(n) for n in range(40)]
    shuffled = store_of(*records, ties="shuffled")
    first, second = (ids(ask(shuffled, limit=40, sortOrder="asc")) for _ in range(2))
    assert first != second
    assert sorted(first[:20]) == sorted(second[:20]) == sorted(str(n) for n in range(20))
    assert len(ids(ask(shuffled, limit=7, skip=15, sortOrder="asc"))) == 7


def test_pagination_numbers_that_mislead() -> None:
    """``totalItems`` can count everything, and ``currentPage`` be a fraction or always 1."""
    records = [record(str(n), FIRST + n) for n in range(4)]
    narrow = ("createdAt", "equals", iso(FIRST))
    assert ask(store_of(*records), narrow)["pagination"]["totalItems"] == 1
    assert ask(store_of(*records, total_items="all"), narrow)["pagination"]["totalItems"] == 4
    for knob, expected in (("floor", 2), ("fraction", 2.5), ("constant", 1)):
        body = ask(store_of(*records, current_page=knob), skip=3, limit=2)
        assert body["pagination"]["currentPage"] == expected


def test_envelope() -> None:
    """The answer can be wrapped in ``data``."""
    assert ids(ask(store_of(SAMPLE, envelope=True))["data"]) == [SAMPLE["_id"]]


def test_a_record_can_become_visible_late() -> None:
    """Until ``visible_at`` no answer and no total shows it; then it stands at its ``createdAt``."""
    clock = Clock()
    store = store_of(record("a"), record("c", FIRST + 2), clock=clock)
    store.add(record("b", FIRST + 1), visible_at=NOW + 60)
    clock.now = NOW + 59.999
    assert ask(store)["pagination"]["totalItems"] == 2
    clock.now = NOW + 60
    assert ids(ask(store, sortOrder="asc")) == ["a", "b", "c"]


def test_a_record_can_change_and_vanish() -> None:
    """In place with its ``createdAt`` kept or moved; queries already made see it the next time."""
    store = store_of(record("a"), record("b", FIRST + 1), record("c", FIRST + 2))
    errors = ("message", "equals", "executionError")
    assert ids(ask(store, errors, sortOrder="asc")) == ["a", "b", "c"]
    store.change("a", message="executionFinished")
    assert ids(ask(store, errors, sortOrder="asc")) == ["b", "c"]
    store.change("a", createdAt=iso(FIRST + 5))
    assert ids(ask(store, sortOrder="asc")) == ["b", "c", "a"]
    store.remove("b")
    assert ids(ask(store, sortOrder="asc")) == ["c", "a"]
    assert store.remove_user(SAMPLE["userId"]) == 2
    assert len(store) == 0
    with pytest.raises(KeyError):
        store.remove("a")


def test_retention() -> None:
    """Records disappear at the configured age."""
    clock = Clock(FIRST / 1000)
    store = store_of(record("a"), record("b", FIRST + 1000), clock=clock, retention=60.0)
    clock.now += 60.5
    assert ids(ask(store)) == ["b"]


@pytest.mark.parametrize("missing", [*SAMPLE])
def test_any_field_may_be_missing(missing: str) -> None:
    """A record without one field, or with null in it, is served as it is."""
    without = {key: value for key, value in SAMPLE.items() if key != missing}
    for odd in (without, {**SAMPLE, missing: None}, {missing: SAMPLE[missing]}, {}):
        for sort_by in ("createdAt", "completedAt", "message", "userId"):
            assert ask(store_of(odd), sortBy=sort_by)["notifications"] == [odd]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2025-04-29T17:44:10.432Z", FIRST),
        ("2025-04-29T19:44:10.432999+02:00", FIRST),
        ("2025-04-29 17:44:10.432", FIRST),
        (FIRST, FIRST),
        ("1969-12-31T23:59:59.999Z", -1),
        ("0001-01-01T00:00:00+14:00", None),
        (10**18, None),
        ("yesterday", None),
        (True, None),
        (None, None),
    ],
)
def test_forms_of_time(value: object, expected: int | None) -> None:
    """Times are read in each form a record may carry, to the millisecond, or not at all."""
    assert millis(value) == expected
    if expected is not None:
        assert millis(iso(expected)) == expected


@pytest.mark.parametrize("config", [{"max_limit": 0}, {"delay": -1.0}, {"fault_rate": {"tea": 1}}])
def test_impossible_knobs_are_refused(config: dict[str, Any]) -> None:
    """A value out of bounds is an error at once, with the name of the knob or fault."""
    with pytest.raises(ValueError, match=r"max_limit|delay|tea"):
        Config(**config)


# Traffic ------------------------------------------------------------------------------------------

WEEK = NOW - 7 * DAY


def test_traffic_is_a_function_of_its_arguments() -> None:
    """The same seed gives the same bytes, another seed other ids."""
    first, again = (list(generate(200, start=WEEK, end=NOW)) for _ in range(2))
    assert first == again
    other = list(generate(200, start=WEEK, end=NOW, traffic=Traffic(seed=2)))
    assert not {item["_id"] for item in first} & {item["_id"] for item in other}


def test_traffic_is_plausible() -> None:
    """Ids agree with times, uuids are nanoids, times are in order, and about 4 % fail."""
    records = list(generate(5000, start=WEEK, end=NOW, traffic=Traffic(lifecycle="terminal")))
    assert len(records) == len({item["_id"] for item in records}) == 5000
    for item in records:
        created = millis(item["createdAt"])
        assert created is not None
        assert int(item["_id"][:8], 16) == created // 1000
        assert re.fullmatch(r"[0-9a-f]{24}", item["data"]["executionId"])
        assert re.fullmatch(r"[A-Za-z0-9_-]{21}", item["data"]["executionUuid"])
        assert item["startedAt"] <= item["completedAt"] <= item["createdAt"] <= iso(int(NOW * 1e3))
        assert item["user"]["email"].endswith("@example.com")
        assert item.keys() == SAMPLE.keys()
    failed = sum(item["message"] == "executionError" for item in records)
    assert 0.025 < failed / 5000 < 0.055
    assert len({item["forgeWorkflow"]["name"] for item in records}) == 12
    parents = {item["workflowId"]: item["forgeWorkflowId"] for item in records}
    owners = {item["workflowId"]: item["userId"] for item in records}
    assert len(set(zip(parents.values(), owners.values(), strict=True))) == len(parents)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_error_rate_at_its_ends(rate: float) -> None:
    """Rate 0 means no failure and rate 1 nothing else."""
    traffic = Traffic(error_rate=rate, lifecycle="terminal")
    messages = {item["message"] for item in generate(300, start=WEEK, end=NOW, traffic=traffic)}
    assert messages == {"executionError" if rate else "executionFinished"}


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_clustered_failures(rate: float) -> None:
    """Failures over all are as many as without clusters, most of them at small rates in few hours
    of few apps and users: an app that is down fails for all of its workflows, an expired connection
    for all of one user's, at that app's block and with that reason; the same seed has the same."""
    traffic = Traffic(error_rate=rate, clustered=0.7, lifecycle="terminal")
    records = list(generate(10_000, start=WEEK, end=NOW, traffic=traffic))
    assert records[:300] == list(generate(10_000, start=WEEK, end=NOW, traffic=traffic))[:300]
    failed = [item for item in records if item["message"] == "executionError"]
    assert 0.7 * rate < len(failed) / len(records) < 1.3 * rate
    inside: list[Record] = []
    outside: list[Record] = []
    met = []
    for item in records:
        incident = incident_at(item, millis(item["startedAt"]) or 0)
        (outside if incident is None else inside).append(item)
        failure = failure_of(item)
        if incident is not None and failure is not None:
            met.append(incident)
            assert failure.block.type == f"alloy.{incident.app}"
            assert incident.app in failure.reason
            assert failure.status == (503 if incident.kind == "down" else 401)
    assert len(inside) < 0.1 * len(records)
    assert len(met) / len(inside) > 4 * (len(failed) - len(met)) / len(outside)
    assert {incident.kind for incident in met} == {"down", "expired"}


def test_an_outage_can_be_had_for_a_moment() -> None:
    """There is a seed with which, at the moments asked for, the busiest workflow mostly fails."""
    traffic = eventful(Traffic(clustered=0.7, lifecycle="terminal"), NOW, NOW + 60)
    assert traffic == eventful(Traffic(clustered=0.7, lifecycle="terminal"), NOW, NOW + 60)
    records = list(generate(400, start=NOW, end=NOW + 60, traffic=traffic))
    by_workflow: dict[str, list[str]] = {}
    for item in records:
        by_workflow.setdefault(item["forgeWorkflow"]["name"], []).append(item["message"])
    busiest = max(by_workflow.values(), key=len)
    assert busiest.count("executionError") > len(busiest) / 3


@pytest.mark.parametrize(
    ("traffic", "expected"),
    [
        (Traffic(lifecycle="terminal"), {"T": 100}),
        (Traffic(lifecycle="two_records"), {"ST": 100}),
        (Traffic(lifecycle="in_place"), {"T": 100}),
        (Traffic(lifecycle="in_place_new_created_at"), {"T": 100}),
        (Traffic(lifecycle="vanishing"), {"T": 100}),
        (Traffic(never_ends=1), {"S": 100}),
        (Traffic(error_rate=1, second_terminal=1), {"STT": 100}),
    ],
)
def test_lifecycles(traffic: Traffic, expected: dict[str, int]) -> None:
    """Each way a start may become an end leaves the expected records per execution."""
    kinds = {"executionStarted": "S", "executionFinished": "T", "executionError": "T"}
    store = LogStore(clock=Clock())
    store.feed(timeline(100, start=WEEK, end=NOW, traffic=traffic))
    per_execution: dict[str, str] = {}
    for item in store.records():
        key = item["data"]["executionId"]
        per_execution[key] = "".join(sorted(per_execution.get(key, "") + kinds[item["message"]]))
    found = list(per_execution.values())
    assert {kind: found.count(kind) for kind in found} == expected
    by_id = sorted(
        generate(100, start=WEEK, end=NOW, traffic=traffic), key=lambda item: str(item["_id"])
    )
    assert by_id == sorted(store.records(), key=lambda item: str(item["_id"]))


@pytest.mark.parametrize("lifecycle", ["in_place", "in_place_new_created_at", "vanishing"])
def test_a_start_is_seen_before_it_turns(lifecycle: Any) -> None:
    """While it runs there is a start; at its end that record has changed in place or gone."""
    (execution,) = timeline(1, start=WEEK, end=NOW, traffic=Traffic(lifecycle=lifecycle))
    clock = Clock(execution.started / 1000)
    store = LogStore(clock=clock)
    store.feed([execution])
    (begun,) = store.records()
    assert begun["message"] == "executionStarted"
    assert "completedAt" not in begun
    clock.now = NOW
    (ended,) = store.records()
    assert ended["message"] != "executionStarted"
    assert (ended["_id"] == begun["_id"]) is lifecycle.startswith("in_place")
    assert (ended["createdAt"] == begun["createdAt"]) is (lifecycle == "in_place")


def test_late_records_and_ties_in_traffic() -> None:
    """Late records come after ``end`` at the latest by ``late_by``; a grid makes ties."""
    clock = Clock()
    store = LogStore(clock=clock)
    traffic = Traffic(lifecycle="terminal", late=1, late_by=7 * DAY, created_at_grid=3_600_000)
    store.feed(timeline(500, start=WEEK, end=NOW, traffic=traffic))
    assert 0 < len(store) < 500
    clock.now += 7 * DAY
    assert len(store) == 500
    assert len({item["createdAt"] for item in store.records()}) <= 7 * 24 + 1


def test_ends_that_bear_the_time_of_their_start() -> None:
    """With ``created_at="start"`` a record is visible at its end and dated at its start; bursts
    show late ones together; deletions take them away again."""
    clock = Clock()
    clock.now = WEEK
    store = LogStore(clock=clock)
    traffic = Traffic(
        lifecycle="terminal", created_at="start", late=1, late_by=DAY, late_burst=3600, deleted=0.5
    )
    store.feed(timeline(300, start=WEEK, end=NOW, traffic=traffic))
    known: set[str] = set()
    while clock.now < NOW + 2 * DAY:
        clock.now += 1800
        shown = {item["_id"]: item for item in store.records()}
        for name in shown.keys() - known:
            item = shown[name]
            assert item["createdAt"] == item["startedAt"]
            assert clock.now % 3600 < 1800, "between two bursts"
        known |= shown.keys()
    assert len(known) == 300
    assert 100 < len(store) < 200


@pytest.mark.parametrize("oddity", sorted(ODDITIES))
def test_oddities_are_served(oddity: str) -> None:
    """Odd records are valid JSON, differ from plain ones, and are all found at their time."""
    traffic = Traffic(lifecycle="terminal", odd={oddity: 1.0})
    odd = list(generate(60, start=WEEK, end=NOW, traffic=traffic))
    assert all(millis(item["createdAt"]) is not None for item in odd)
    store = store_of(*odd)
    body = ask(store, ("createdAt", "greaterthan", iso(0)), limit=100)
    key = json.dumps
    assert sorted(map(key, body["notifications"])) == sorted(map(key, odd))


def test_live_traffic_does_not_depend_on_how_often_it_is_read() -> None:
    """Reading each second or once at the end gives the same log."""
    logs = []
    for steps in (1, 600):
        clock = Clock()
        store = LogStore(clock=clock)
        store.feed(live(start=NOW, rate=2.0, traffic=Traffic(lifecycle="in_place")))
        for _ in range(steps):
            clock.now += 600 / steps
            body = ask(store, limit=1)
        assert body["lastFetched"] == iso(round((NOW + 600) * 1000))
        logs.append(list(store.records()))
    assert logs[0] == logs[1]
    assert 1000 < len(logs[0]) < 1400


# Over HTTP ----------------------------------------------------------------------------------------


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(Config(api_key="secret"), clock=Clock()) as running:
        running.store.add(SAMPLE)
        yield running


def connect(simulator: Simulator) -> "closing[http.client.HTTPConnection]":
    address = simulator.endpoint.removeprefix("http://")
    return closing(http.client.HTTPConnection(address, timeout=30))


def get(
    connection: http.client.HTTPConnection,
    path: str = "/logs",
    key: str | None = "bearer secret",
    method: str = "GET",
    **headers: str,
) -> tuple[http.client.HTTPResponse, bytes]:
    if key is not None:
        headers["Authorization"] = key
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer, answer.read()


def test_an_answer_over_http(simulator: Simulator) -> None:
    """Body and ``Date`` follow the simulator's clock; the connection is kept."""
    with connect(simulator) as connection:
        answer, body = get(connection, "/logs?" + urlencode({"limit": 3, "workflowId": "none"}))
        used = connection.sock
        assert json.loads(body)["lastFetched"] == "2025-04-29T17:46:38.237Z"
        assert answer.headers["Date"] == "Tue, 29 Apr 2025 17:46:38 GMT"
        assert answer.headers["Content-Type"].startswith("application/json")
        get(connection)
        assert used is not None
        assert connection.sock is used
    first, second = simulator.requests
    assert first.params == {"limit": "3", "workflowId": "none"}
    assert (first.number, first.status, first.time, second.number) == (1, 200, NOW, 2)


@pytest.mark.parametrize(
    ("key", "status"),
    [
        ("bearer secret", 200),
        ("Bearer secret", 200),
        ("Bearer other", 401),
        ("bearer bearer secret", 401),
        ("secret", 401),
        ("bearer ", 401),
        (None, 401),
    ],
)
def test_keys(simulator: Simulator, key: str | None, status: int) -> None:
    """Both spellings of bearer are taken, all else is 401; no key gets into the request log."""
    with connect(simulator) as connection:
        answer, body = get(connection, key=key)
    assert answer.status == status
    assert status == 200 or json.loads(body) == {"message": "Unauthorized"}
    assert "secret" not in repr(simulator.requests)


def test_other_refusals(simulator: Simulator) -> None:
    """403, unknown paths, other methods."""
    with connect(simulator) as connection:
        simulator.configure(forbidden=True)
        assert get(connection)[0].status == 403
        simulator.configure(forbidden=False)
        assert get(connection, "/metrics")[0].status == 404
        answer, _ = get(connection, method="POST")
        assert (answer.status, answer.headers["Allow"]) == (405, "GET")
        assert get(connection, method="HEAD")[1] == b""
        assert get(connection)[0].status == 200


def test_faults_that_are_whole_answers(simulator: Simulator) -> None:
    """Scripted faults come in order, one a request; then all is well again."""
    simulator.script("429", "429:2", Fault("503"), None, "500", "502", "html", "empty", "shape")
    simulator.script("redirect:/elsewhere", "slow:0")
    statuses = []
    with connect(simulator) as connection:
        for _ in range(12):
            answer, body = get(connection)
            statuses.append(answer.status)
            last = simulator.requests[-1]
            if last.fault == "429":
                assert answer.headers["Retry-After"] == (None if len(statuses) == 1 else "2")
            elif last.fault == "html":
                assert answer.headers["Content-Type"].startswith("text/html")
            elif last.fault == "empty":
                assert body == b""
            elif last.fault == "shape":
                assert "notifications" not in json.loads(body)
            elif last.fault == "redirect":
                assert answer.headers["Location"] == "/elsewhere"
            elif answer.status == 200:
                assert ids(json.loads(body)) == [SAMPLE["_id"]]
    assert statuses == [429, 429, 503, 200, 500, 502, 200, 200, 200, 302, 200, 200]


@pytest.mark.parametrize("fault", ["drop", "truncate", "chunk"])
def test_faults_that_break_the_connection(simulator: Simulator, fault: str) -> None:
    """A client notices each, and the next connection is served."""
    simulator.script(fault)
    with connect(simulator) as connection, pytest.raises(http.client.HTTPException):
        get(connection)
    with connect(simulator) as connection:
        assert get(connection)[0].status == 200
    assert [entry.status for entry in simulator.requests] == [0 if fault == "drop" else 200, 200]
    assert simulator.requests[0].fault == fault


def test_fault_rates_are_decided_by_seed_and_number() -> None:
    """The same request gets the same fault in each run, at about the configured rate."""
    rates = {"429:1": 0.1, "drop": 0.1}
    first, again, other = (
        [choose(rates, seed, number) for number in range(1, 2001)] for seed in (1, 1, 2)
    )
    assert first == again != other
    assert 150 < first.count(Fault("429", "1")) < 250
    assert 150 < first.count(Fault("drop")) < 250


def test_a_slow_answer_does_not_hold_up_the_stop() -> None:
    """Stopping gives waiting answers up and breaks connections."""
    simulator = Simulator(clock=Clock()).start()
    simulator.script("slow:3600")
    failures: queue.SimpleQueue[type[Exception]] = queue.SimpleQueue()

    def client() -> None:
        with connect(simulator) as connection:
            try:
                get(connection)
            except (OSError, http.client.HTTPException) as error:
                failures.put(type(error))

    thread = threading.Thread(target=client)
    thread.start()
    while not simulator.requests:
        thread.join(0.001)
    simulator.stop()
    thread.join(30)
    assert failures.get(timeout=30)


def test_an_outage() -> None:
    """Stopped, it breaks and refuses connections; started again, the port is the same."""
    simulator = Simulator(clock=Clock())
    with simulator:
        endpoint = simulator.endpoint
        kept = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=30)
        assert get(kept)[0].status == 200
    with closing(kept), pytest.raises((OSError, http.client.HTTPException)):
        get(kept)
    with simulator, connect(simulator) as connection:
        assert simulator.endpoint == endpoint
        assert get(connection)[0].status == 200


def test_parallel_requests(simulator: Simulator) -> None:
    """Each request has its own number and its own answer."""

    def client() -> None:
        with connect(simulator) as connection:
            for _ in range(20):
                assert get(connection)[0].status == 200

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(entry.number for entry in simulator.requests) == list(range(1, 161))
    assert {entry.status for entry in simulator.requests} == {200}


def test_the_customers_service_is_called_before_the_record_is_seen() -> None:
    """A live execution calls it as a Custom API block does, with the uuid the log shows later."""
    received: queue.SimpleQueue[dict[str, str | None]] = queue.SimpleQueue()
    names = ["ExecutionUuid", "WorkflowId", "UserId", "BlockName", "BlockType"]

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.put({name: self.headers[f"X-Alloy-{name}"] for name in names})
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Service) as service:
        threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True).start()
        config = Config(custom_api_url=f"http://127.0.0.1:{service.server_port}/hook")
        clock = Clock()
        traffic = Traffic(lifecycle="terminal")
        execution = next(live(start=NOW, rate=1.0, traffic=traffic, calls=True))
        with Simulator(config, clock=clock) as simulator:
            simulator.store.feed([execution])
            assert execution.steps[0].action == "call"
            clock.now = execution.steps[0].at / 1000
            called = received.get(timeout=30)
            assert len(simulator.store) == 0
            clock.now += DAY
            (item,) = simulator.store.records()
        service.shutdown()
    assert called["ExecutionUuid"] == item["data"]["executionUuid"]
    assert called["WorkflowId"] == item["workflowId"]
    assert called["UserId"] == item["userId"]
    assert called["BlockName"]
    assert called["BlockType"]


def test_the_stand_in_shares_nothing_with_the_client() -> None:
    """It imports the standard library, itself and the bare server under it: shared code would hide
    shared mistakes."""

    for path in Path(simulator_package.__file__ or "").parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                modules = [node.module or ""]
            for module in modules:
                own = module.startswith(("otel_alloy.testing.simulator.", "otel_alloy.http_server"))
                assert own or module.split(".")[0] in sys.stdlib_module_names, (path.name, module)
