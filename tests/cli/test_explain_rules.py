"""`otel-alloy check --explain`: which rule decides on an execution, and why; of a file, and of what
is found at Alloy. What it says is what the rules do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from otel_alloy.alloy.models import read_notification
from otel_alloy.alloy.timestamps import to_text
from otel_alloy.check.explain_rules import decided
from otel_alloy.mapping.convert import Execution, Role
from otel_alloy.routing.rules import Rules
from otel_alloy.settings.destinations import Destinations
from otel_alloy.settings.loader import load_settings
from otel_alloy.settings.models import Settings

if TYPE_CHECKING:
    from conftest import Finished, Place

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "rules.yaml"


def record(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "_id": f"{number:024x}",
        "message": "executionFinished",
        "data": {"executionId": f"execution-{number}", "executionUuid": f"uuid-{number}"},
        "startedAt": "2025-10-09T08:00:00.000Z",
        **dict.fromkeys(("completedAt", "createdAt"), "2025-10-09T08:00:02.000Z"),
        "forgeWorkflow": {"name": "Orders"},
        "forgeWorkflowId": "w",
        "workflowVersion": 3,
        "userId": "u_17",
    } | fields


def start_of(number: int) -> dict[str, Any]:
    created = {"createdAt": "2025-10-09T08:00:00.000Z", "completedAt": None}
    return record(number, _id=f"{number:023x}a", message="executionStarted", **created)


def explained(place: Place, content: object, *words: str) -> Finished:
    file = place.folder / "records.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return place.command("check", "--config", str(EXAMPLE), "--explain", str(file), *words)


def verdicts(done: Finished) -> list[dict[str, Any]]:
    assert done.code == 0, done.err
    return [one["verdicts"][0] for one in json.loads(done.out)["executions"]]


def test_each_rule_until_one_decides(place: Place) -> None:
    """Identity, what does not fit of each rule, and the outcome; no key is needed for a file, and
    nobody is asked. No name or address of a person is shown."""
    del place.environment["ALLOY_API_KEY"]
    person = {"email": "somebody@example.com", "fullName": "Some Body"}
    done = explained(place, record(1, user=person))
    assert (done.code, done.err) == (0, "")
    assert not place.alloy.requests and "omebody" not in done.out and "Some" not in done.out
    assert done.out.splitlines() == [
        "execution uuid-1 (executionId execution-1, _id 000000000000000000000001)",
        "  Orders, user u_17, success, 2.0 s",
        "  - failures (keep): no: outcome is success, not error or incomplete",
        "  - heartbeats (drop): no: workflow.name is Orders, not Heartbeat* or * (test)",
        "  - slow (keep): no: duration is 2.0 s, not >1m",
        "  - the largest customer (sample 0.1): decides",
        "  filtered: the largest customer keeps 10 % by trace id, and not this one",
    ]


def test_a_file_may_hold_what_the_api_gives(place: Place) -> None:
    """One notification, a list, or a whole answer with or without `data` around it, newest first:
    starts are joined with their ends as `run` joins them, and one that stands alone is shown."""
    end = record(2, startedAt=None, completedAt="2025-10-09T08:02:00.000Z", userId="u_1")
    again = record(2, _id="f" * 24, message="executionError", userId="u_1")
    again["createdAt"] = "2025-10-09T08:10:00.000Z"
    records = [again, end, start_of(2), start_of(3)]
    answer = {"notifications": records, "pagination": {"totalItems": 4}}
    seen = []
    for content in (records, answer, {"data": answer}, "\ufeff" + json.dumps(answer)):
        done = explained(place, content, "--json")
        told = json.loads(done.out)["executions"]
        assert [one["outcome"] for one in told] == ["started", "success", "error"]
        seen.append([one["rule"] for one in verdicts(done)])
    assert seen[0] == ["the largest customer", "slow", "failures"]
    assert all(one == seen[0] for one in seen)
    (alone,) = verdicts(explained(place, record(2, message="executionError"), "--json"))
    assert (alone["kept"], alone["rule"]) == (True, "failures")


def test_one_that_is_found_at_alloy(place: Place) -> None:
    """By its uuid, executionId or `_id`, among those of the last day: the same as from a file, and
    nothing is stored or sent."""
    for number in range(300):
        moment = int(place.now * 1000) - 3_600_000 + number * 1000
        times = dict.fromkeys(("completedAt", "createdAt"), to_text(moment))
        message = "executionError" if number == 150 else "executionFinished"
        one = record(number, startedAt=to_text(moment - 500), message=message, **times)
        place.alloy.store.add(one)
    words = ("check", "--config", str(EXAMPLE), "--json", "--explain")
    shown = [place.command(*words, which) for which in ("uuid-150", "execution-150", f"{150:024x}")]
    assert [verdicts(done)[0]["rule"] for done in shown] == ["failures"] * 3
    assert len({done.out for done in shown}) == 1
    original = next(r for r in place.alloy.store.records() if r["_id"] == f"{150:024x}")
    assert explained(place, original, "--json").out == shown[0].out
    assert not place.storage.exists() and place.otlp.span_count == 0
    gone = place.command(*words, "uuid-9999")
    assert gone.code == 1
    assert "it is not among the 300 records of the last 24 hours; give the uuid" in gone.err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "it is empty"),
        ("<html>", "it is an HTML page, not JSON"),
        ("{", "it is not JSON, or cut off"),
        ("17", "no list `notifications`"),
        ("[]", "there is no notification in it"),
        ("[17, {}]", "there is no notification in it"),
        ('{"a": 1}', "there is no notification in it"),
    ],
)
def test_a_file_without_executions(place: Place, content: str, words: str) -> None:
    """Exit code 1, the file, what is wrong with it and what to give instead."""
    done = explained(place, content)
    assert done.code == 1 and done.out == ""
    assert "records.json: " in done.err and words in done.err
    assert "give a notification, a list of them, or a whole answer" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ["--explain", ""],
        ["--explain", "nowhere/records.json"],
        ["--explain", "uuid", "--send-test"],
        ["--explain", "uuid", "--report", "-"],
    ],
)
def test_wrong_usage(place: Place, words: list[str]) -> None:
    """Exit code 2, and nobody is asked."""
    done = place.command("check", *words)
    assert done.code == 2 and "--explain" in done.err
    assert not place.alloy.requests
    folder = place.command("check", "--explain", str(place.folder))
    assert folder.code == 1 and "it is a folder, not a file" in folder.err


def test_the_example_is_that_of_the_documentation() -> None:
    """docs/rules.md shows the file that the tests above use, and it is accepted as it stands."""
    page = (REPOSITORY / "docs" / "rules.md").read_text("utf-8")
    example = EXAMPLE.read_text("utf-8")
    rules_alone = example[example.index("rules:\n") :]
    assert f"```yaml\n{rules_alone}```" in page
    rules = load_settings({}, {"ALLOY_API_KEY": "k"}, file=str(EXAMPLE)).rules
    assert [rule.name for rule in rules.rules] == [
        *("failures", "heartbeats", "slow", "the largest customer")
    ]


def test_destinations_are_told_each_by_itself() -> None:
    """Of each whether the execution goes there at all, and what its rules make of it; what the
    rules for all drop goes nowhere; what nothing matches goes to the main one."""
    execution = Execution(read_notification(json.dumps(record(1))), Role.ENDED)
    otlp = {"endpoint": "https://otel.acme.example"}
    dropped = [{"match": {"outcome": "success"}, "drop": True}, {"keep": True}]
    given = {
        "acme": {"match": {"user.id": "u_17"}, "otlp": otlp, "rules": dropped},
        "other": {"match": {"user.id": "u_18"}, "otlp": otlp},
    }
    settings = Settings.model_validate(
        {"api_key": "k", "destinations": given, "main_destination": "unmatched"}
    )
    found = Destinations(settings.destinations, {"third": "its file is wrong"})
    everywhere, main, acme, other, third = decided(execution, settings, found).verdicts
    assert (everywhere.kept, everywhere.rule, everywhere.steps) == (True, None, ())
    assert (main.kept, main.why) == (False, "main_destination is unmatched, and acme matches it")
    assert (acme.kept, acme.rule, len(acme.steps)) == (False, "rule 1", 1)
    assert (other.kept, other.steps) == (False, ())
    assert other.why == "it does not go there: user.id is u_17, not u_18"
    assert third.why == "it is disabled: its file is wrong"
    settings = settings.model_copy(update={"rules": Rules.parse(dropped)})
    (only,) = decided(execution, settings, found).verdicts
    assert (only.kept, only.rule) == (False, "rule 1")
