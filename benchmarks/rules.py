"""What rules and destinations cost for each execution: µs of one decision and of one look-up, the
least of several rounds, on one thread. `python benchmarks/rules.py`."""

from __future__ import annotations

import json
import timeit
from collections.abc import Callable
from typing import Any

from otel_alloy.alloy.models import read_notification
from otel_alloy.mapping.convert import Execution, Role
from otel_alloy.routing.index import Index
from otel_alloy.routing.match import Match
from otel_alloy.routing.rules import Rules
from otel_alloy.routing.subject import Subject

NOTIFICATION = {
    "_id": "68110feaa81a0e507fbdd36a",
    "message": "executionFinished",
    "data": {"executionId": "68110fea7d181f356acd1bf1", "executionUuid": "35SnGU0DUSNP5L26fsmnq"},
    "startedAt": "2025-04-29T17:44:10.336Z",
    "completedAt": "2025-04-29T17:44:10.432Z",
    "createdAt": "2025-04-29T17:44:10.432Z",
    "workflowVersion": 1,
    "teamId": "team",
    "forgeWorkflowId": "w_1",
    "userId": "u_7",
    "forgeWorkflow": {"name": "Orders", "integrationId": {"_id": "i_1", "name": "NetSuite"}},
}
TEN: list[dict[str, Any]] = [
    *({"match": {"user.id": f"u_{number}"}, "drop": True} for number in range(4)),
    *({"match": {"workflow.name": f"Beat {number}*"}, "drop": True} for number in range(3)),
    {"match": {"outcome": "error", "team.id": "team"}, "keep": True},
    {"match": {"workflow.id": ["a", "b"], "outcome": "success"}, "drop": True},
    {"match": {"workflow.version": ">=3"}, "drop": True},
]
"""Of which none matches, so that all are asked."""


def microseconds(what: Callable[[], object], times: int = 50_000) -> str:
    """Of one call, a new subject included, as each execution has its own."""
    return f"{min(timeit.repeat(what, number=times, repeat=9)) / times * 1e6:8.2f} µs"


def main() -> None:
    """Prints a line for each case."""
    execution = Execution(read_notification(json.dumps(NOTIFICATION)), Role.ENDED)
    cases = {
        "0 rules": [],
        "1 rule": TEN[:1],
        "10 rules": TEN,
        "1 rule that compares the duration": [{"match": {"duration": ">5s"}, "keep": True}],
        "1 rule that samples": [{"sample": 0.1}],
    }
    for words, given in cases.items():
        rules = Rules.parse(given)
        cost = microseconds(lambda rules=rules: rules.decide(Subject(execution)))  # type: ignore[misc]
        print(f"decide, {words:34} {cost}")
    more: dict[str, dict[str, Any]] = {
        "user.id": {},
        "user.id, team.id, outcome": {"team.id": "team", "outcome": "success"},
    }
    for words, fields in more.items():
        for count in (10, 1_000, 10_000):
            index = Index(
                {f"d{n}": Match.parse({**fields, "user.id": f"u_{n}"}) for n in range(count)}
            )
            assert index.find(Subject(execution)) == ["d7"]
            cost = microseconds(lambda index=index: index.find(Subject(execution)))  # type: ignore[misc]
            print(f"find, {count:6,} by {words:26} {cost}")


if __name__ == "__main__":
    main()
