"""Executions and rules of all kinds, for the properties of this folder."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from otel_alloy.alloy.models import Notification, read_page
from otel_alloy.mapping.convert import Execution, Role
from otel_alloy.routing.subject import OUTCOMES, Subject

SAMPLE: dict[str, Any] = {
    "_id": "68110feaa81a0e507fbdd36a",
    "message": "executionFinished",
    "data": {"executionId": "68110fea7d181f356acd1bf1", "executionUuid": "35SnGU0DUSNP5L26fsmnq"},
    "startedAt": "2025-04-29T17:44:10.336Z",
    "completedAt": "2025-04-29T17:44:10.432Z",
    "createdAt": "2025-04-29T17:44:10.432Z",
    "workflowVersion": 3,
    "teamId": "team",
    "forgeWorkflowId": "w_1",
    "workflowId": "copy",
    "userId": "u_17",
    "user": {"email": "somebody@example.com", "fullName": "Some Body"},
    "forgeWorkflow": {
        "name": "Orders to NetSuite",
        "integrationId": {"_id": "i_1", "name": "NetSuite", "blockId": "b"},
    },
}


def read(**fields: Any) -> Notification:
    """The sample with these fields, as a page of the API brings it."""
    page = read_page(json.dumps({"notifications": [SAMPLE | fields]}).encode())
    return page.records[0].notification


def execution(role: Role = Role.ENDED, **fields: Any) -> Execution:
    """The sample as an execution."""
    return Execution(read(**fields), role)


def subject(role: Role = Role.ENDED, **fields: Any) -> Subject:
    """The sample as rules see it."""
    return Subject(execution(role, **fields))


def of_uuid(uuid: str, **fields: Any) -> Subject:
    """The same of another execution."""
    return subject(data={"executionUuid": uuid}, **fields)


texts = st.sampled_from(["", "a", "b", "ab", "aab", "u_1", "u_17", "Orders", "orders"])
times = st.sampled_from(
    [
        "2025-04-29T17:44:10.336Z",
        "2025-04-29T17:44:10.432Z",
        "2025-04-29T17:44:15.336Z",
        "2025-04-29T17:45:10.336Z",
        "Invalid Date",
        None,
    ]
)


def perhaps(values: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with any of the fields, any of them null."""
    return st.fixed_dictionaries({}, optional={k: v | st.none() for k, v in values.items()})


executions = st.builds(
    lambda fields, role: execution(role, **fields),
    perhaps(
        {
            "message": st.sampled_from(["executionError", "executionFinished", "other"]),
            "data": perhaps({"executionId": texts, "executionUuid": st.text(max_size=5)}),
            "startedAt": times,
            "completedAt": times,
            "workflowVersion": st.integers(-3, 12) | st.integers(-(2**70), 2**70),
            "teamId": texts,
            "forgeWorkflowId": texts,
            "userId": texts,
            "user": texts | perhaps({"email": texts, "fullName": texts}),
            "forgeWorkflow": texts
            | perhaps(
                {
                    "name": texts,
                    "integrationId": texts | perhaps({"_id": texts, "name": texts}),
                }
            ),
        }
    ),
    st.sampled_from(Role),
)
"""Notifications with any field missing, null or a bare id, in any role."""

patterns = st.text("ab*u_1", min_size=1, max_size=6)


def some(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """One value, or a list of them."""
    return values | st.lists(values, min_size=1, max_size=3)


text_values = some(texts.filter(bool) | patterns)
matches: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            (
                *("workflow.id", "runalloy.workflow.name", "integration.id"),
                *("integration.name", "user.id", "team.id"),
            ),
            text_values,
        ),
        "workflow.version": some(st.integers(-2, 12) | st.sampled_from([">=3", "<0", "1*", "7"])),
        "outcome": some(st.sampled_from([*OUTCOMES, "s*", "*"])),
        "duration": some(st.sampled_from([">5s", ">=5s", "<500ms", "<=1m", ">96ms", "<=96ms"])),
    },
)
"""`match:` as people may write it."""

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
"""Any JSON, and the numbers that it does not have."""


def nearly(known: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Anything, and objects whose names are mostly known."""
    return anything | st.dictionaries(known | st.text(max_size=8), anything, max_size=4)
