"""Where and why executions failed, in `tail` and `summary`: what is shown is what the stand-in
knows, masked; asking is bounded, and whoever cannot be asked holds up nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from otel_alloy.alloy.timestamps import to_text
from otel_alloy.mapping.facts import ExecutionFacts
from otel_alloy.pipeline.explain import Newest
from otel_alloy.pipeline.query import ExecutionQuery, Told
from otel_alloy.privacy import masked
from otel_alloy.runtime import Runtime, system_runtime
from otel_alloy.testing.simulator.inside import PAYLOAD_CANARY, REASON_CANARY, failure_of, uuid_of

if TYPE_CHECKING:
    from conftest import Place

    from otel_alloy.testing.simulator import Record
    from otel_alloy.testing.simulator.inside import Failure

ON = {"OTEL_ALLOY_ENRICH": "failed"}
QUESTIONS = 20
"""What `summary` may ask, as its documentation says."""


def failures(place: Place, count: int, **traffic: Any) -> dict[str, Failure]:
    """Executions of the last two hours in Alloy's log; the inside of those that failed, by uuid,
    where they have one."""
    found = {}
    for record in place.fill(count, days=1 / 12, **traffic):
        failure = failure_of(record)
        if failure is not None and (uuid := uuid_of(record)):
            found[uuid] = failure
    return found


def fail(place: Place, number: int, workflow: str = "copy") -> Record:
    """An execution that failed a second ago, for which all was quiet before."""
    ended = int(place.now * 1000) - 1000
    return {
        "_id": f"{number:024x}",
        "message": "executionError",
        "data": {"executionId": f"new-{number}", "executionUuid": f"uuid-{number}"},
        "startedAt": to_text(ended - 2000),
        **dict.fromkeys(("completedAt", "createdAt"), to_text(ended)),
        "forgeWorkflow": {"name": "Shopify orders"},
        "forgeWorkflowId": "w",
        "workflowId": workflow,
        "workflowVersion": 1,
        "userId": "u",
    }


def questions(place: Place) -> int:
    """How many were put about the inside of executions."""
    return sum("/workflows/" in request.path for request in place.alloy.requests)


def test_summary_tells_where_and_why(place: Place) -> None:
    """Each failure whose reason is known is counted under its own block and its own reason, masked;
    a reason that differs only in details is one; at most 20 questions are put."""
    truth = failures(place, 300, error_rate=0.2)
    done = place.command("summary", "--since", "3h", "--json", **ON)
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)["failures"]
    assert 10 <= told["reason_known"] <= told["block_known"] < told["total"]
    assert 10 <= questions(place) <= QUESTIONS
    known = Counter((one.block.name, masked(one.reason, "mask") or "") for one in truth.values())
    blocks = Counter(one.block.name for one in truth.values())
    for by in ("workflows", "customers"):
        shown: Counter[str] = Counter()
        for one in told[by]:
            assert (one["block"], one["reason"]) in known
            shown[one["block"]] += one["failures"]
        assert sum(shown.values()) == told["block_known"]
        assert shown <= blocks
    plain = place.command("summary", "--since", "3h", **ON).out
    words = f"Of {told['total']} failures the reason of {told['reason_known']} is known"
    assert words in plain
    assert told["workflows"][0]["reason"] in plain
    for text in (done.out, plain):
        assert REASON_CANARY not in text and PAYLOAD_CANARY not in text


def test_tail_tells_where_and_why(place: Place) -> None:
    """Each failure that is shown has its own block and its own reason, masked, as JSON and in a
    line; only a few, which the errors do not tell for certain, have none."""
    truth = failures(place, 60, error_rate=0.3)
    process = place.start("tail", "--errors", "--since", "3h", "--json", **ON)
    assert process.stdout is not None
    lines = [json.loads(process.stdout.readline()) for _ in range(len(truth))]
    process.kill()
    told = [one for one in lines if one["execution_uuid"] in truth]
    assert sum(one["reason"] is not None for one in told) > 0.7 * len(truth)
    for one in told:
        failure = truth[one["execution_uuid"]]
        assert one["block"] in (None, failure.block.name)
        assert one["reason"] in (None, masked(failure.reason, "mask"))
    process = place.start("tail", "--errors", "--since", "3h", **ON)
    assert process.stdout is not None
    plain = [process.stdout.readline() for _ in range(len(lines))]
    process.kill()
    whole = next(one for one in told if one["reason"])
    assert sum(f", at {whole['block']}: {whole['reason']}\n" in text for text in plain) >= 1


@pytest.mark.parametrize("command", ["summary", "tail"])
def test_what_is_dropped_is_not_shown_and_what_is_off_is_not_asked(
    place: Place, command: str
) -> None:
    """Under `privacy.error_message: drop` the block is shown, and no word of the reason; with
    `enrich: off` nothing is asked."""
    place.alloy.store.add(fail(place, 1))
    place.alloy.store.add({**fail(place, 2), "startedAt": "2025-10-01T00:00:00Z"})

    def shown(**variables: str) -> str:
        if command == "summary":
            return place.command("summary", "--json", **variables).out
        process = place.start("tail", "--json", **variables)
        assert process.stdout is not None
        text = process.stdout.readline()
        process.kill()
        return text

    text = shown(**ON, OTEL_ALLOY_PRIVACY_ERROR_MESSAGE="drop")
    assert questions(place) > 0
    assert '"reason": null' in text and '"block": null' not in text
    asked = questions(place)
    text = shown(OTEL_ALLOY_ENRICH="off")
    assert questions(place) == asked
    assert "runalloy.block" not in text


def test_an_api_that_does_not_tell_holds_up_nothing(place: Place) -> None:
    """Executions are shown without, and that the question failed is told once."""
    failures(place, 40, error_rate=0.5)
    place.alloy.configure(inside_faults={"404": 1.0})
    done = place.command("summary", "--since", "3h", "--json", **ON)
    assert done.code == 0
    told = json.loads(done.out)
    assert told["complete"] and told["failures"]["block_known"] == 0
    assert done.err.count("cannot ask why executions failed") == 1
    assert questions(place) == 1


class Watched:
    """A query whose waiting moves Alloy's clock, and ours."""

    def __init__(self, place: Place, **changes: Any) -> None:
        self.place = place
        self.waits: list[float] = []
        self.told: list[Told] = []
        settings = place.settings(enrich="failed", **changes)
        self.query = ExecutionQuery(
            settings,
            settings.sources[0],
            overlap=10,
            runtime=self._runtime(),
            report=self.told.append,
        )

    def _runtime(self) -> Runtime:
        def wait(seconds: float) -> bool:
            self.waits.append(seconds)
            self.place.now += seconds
            return False

        def now() -> float:
            return self.place.now

        return replace(system_runtime(), wait=wait, clock=now, monotonic=now)

    def read(self) -> list[ExecutionFacts]:
        window = self.query.window(600.0)
        return [one for part in self.query.read(window) for one in part.executions]

    def explained(self, *args: Any) -> tuple[Sequence[ExecutionFacts], float]:
        """And the seconds that it took."""
        began = self.place.now
        return self.query.explained(*args), self.place.now - began


def test_what_has_just_failed_is_asked_for_again(place: Place) -> None:
    """Where steps and errors come a moment later than the notification, they are shown all the
    same; where they do not come within the time, the execution is shown without."""
    place.alloy.store.add(fail(place, 1))
    place.alloy.configure(inside_late=3.0)
    watched = Watched(place)
    with watched.query:
        shown, took = watched.explained(watched.read(), 4.0)
        assert shown[0].block and shown[0].reason and 2 <= took <= 4
        place.alloy.store.add(fail(place, 2, "another"))
        place.alloy.configure(inside_late=60.0)
        window = watched.query.next_window(watched.query.window(600.0))
        parts = [one for part in watched.query.read(window) for one in part.executions]
        shown, took = watched.explained(parts, 4.0)
        assert [(one.block, one.reason) for one in shown] == [("", "")] and took <= 4
    assert not watched.told


@pytest.mark.parametrize(("requests", "most"), [(None, 1000), (0, 0), (3, 3), (7, 7)])
def test_questions_are_bounded(place: Place, requests: int | None, most: int) -> None:
    """No more are put than allowed; the workflow and user with most failures come first."""
    for number in range(12):
        place.alloy.store.add(fail(place, number, "often" if number % 2 else f"copy-{number}"))
    watched = Watched(place)
    with watched.query:
        ended = watched.read()
        shown, _ = watched.explained(ended, 4.0, requests)
    assert len(shown) == len(ended) == 12
    asked = [request.path for request in place.alloy.requests if "/workflows/" in request.path]
    assert len(asked) <= most
    assert not asked or "/workflows/often/" in asked[0]
    assert not watched.told


def test_asking_waits_for_the_budget_only_as_long_as_it_may(place: Place) -> None:
    """Where the request budget is used up, nothing is asked and nobody waits; what is to be read
    comes first."""
    place.alloy.store.add(fail(place, 1))
    watched = Watched(place, requests_per_minute=1)
    with watched.query:
        ended = watched.read()
        shown, took = watched.explained(ended, 4.0)
    assert list(shown) == ended and took == 0
    assert questions(place) == 0 and not watched.told


def test_the_newest_are_kept() -> None:
    """Of each key the newest, in whatever order they come; and where there are too many, keys that
    have few go."""
    newest: Newest[str, int] = Newest(lambda number: number, each=5, most=100)
    for number in (*range(50, 100), *range(50)):
        newest.add("busy", number)
    assert {95, 96, 97, 98, 99} <= set(newest.of("busy"))
    assert len(newest.of("busy")) < 10
    for number in range(1000):
        newest.add(f"rare-{number}", number)
    assert len(newest.all()) <= 100
    assert {95, 96, 97, 98, 99} <= set(newest.of("busy"))
