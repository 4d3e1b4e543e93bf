"""Rules: the first that matches decides, sampling is the same everywhere, and failures are kept
unless a rule says otherwise."""

import pickle
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_alloy.mapping.convert import Execution, Role
from otel_alloy.routing.match import Match
from otel_alloy.routing.rules import Rules
from otel_alloy.routing.subject import Subject

from .executions import anything, executions, matches, nearly, of_uuid, subject

actions: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"drop": True},
        {"keep": True},
        {"sample": 0.5},
        {"sample": 0.1, "errors": True},
        {"sample": 1},
        {"sample": "0.25", "errors": False},
    ]
)
rules = st.lists(
    st.builds(lambda match, action: {"match": match, **action}, matches, actions), max_size=5
)
MANY = [of_uuid(f"uuid-{number}") for number in range(20_000)]


def naive(given: list[dict[str, Any]], asked: Subject) -> tuple[bool, str | None]:
    """The documentation, line by line."""
    for number, rule in enumerate(given, 1):
        if not Match.parse(rule["match"], empty=True)(asked):
            continue
        name = f"rule {number}"
        if "sample" not in rule:
            return "keep" in rule, name
        if asked.outcome in ("error", "incomplete") and not rule.get("errors"):
            return True, name
        return asked.randomness >= (1 - float(rule["sample"])) * 2**56, name
    return True, None


@given(rules, executions)
def test_the_first_that_matches_decides(given: list[dict[str, Any]], execution: Execution) -> None:
    """As a naive reading decides, and the same again from a copy and from a new subject."""
    parsed = Rules.parse(given)
    decision = parsed.decide(Subject(execution))
    assert (decision.kept, decision.rule) == naive(given, Subject(execution))
    assert decision.why.startswith(decision.rule or "no rule matches")
    copy = pickle.loads(pickle.dumps(parsed))
    assert copy == parsed and copy.decide(Subject(execution)) == decision
    assert parsed.empty is (not given)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 1])
def test_a_sample_has_its_share(share: float) -> None:
    """Of 20,000 executions the share is kept, within five standard deviations."""
    parsed = Rules.parse([{"sample": share}])
    kept = sum(parsed.decide(one).kept for one in MANY)
    expected = share * len(MANY)
    assert abs(kept - expected) <= 5 * (expected * (1 - share)) ** 0.5


def test_a_small_sample_is_part_of_a_larger_one() -> None:
    """What is kept at 10 % is kept at 50 %, so that samples of several readers fit together."""
    tenth, half = (Rules.parse([{"sample": share}]) for share in (0.1, 0.5))
    assert all(half.decide(one).kept for one in MANY if tenth.decide(one).kept)
    assert any(half.decide(one).kept and not tenth.decide(one).kept for one in MANY)


@pytest.mark.parametrize(
    ("role", "message"),
    [(Role.ENDED, "executionError"), (Role.INCOMPLETE, "executionStarted")],
)
def test_failures_are_sampled_out_only_where_a_rule_says_so(role: Role, message: str) -> None:
    """Errors and executions without an end are kept by `sample`, and not with `errors: true`;
    `drop` drops them."""
    failures = [
        subject(role, message=message, data={"executionUuid": f"uuid-{number}"})
        for number in range(500)
    ]
    spared = Rules.parse([{"sample": 0.01}])
    assert all(spared.decide(one).kept for one in failures)
    assert "all that failed" in spared.decide(failures[0]).why
    asked_for = Rules.parse([{"sample": 0.01, "errors": True}])
    assert sum(asked_for.decide(one).kept for one in failures) < 50
    assert not any(Rules.parse([{"drop": True}]).decide(one).kept for one in failures)


def test_names_and_words() -> None:
    """A rule has the name that it is given, or its number, and says what it does in words."""
    parsed = Rules.parse(
        [
            {"name": "heartbeats", "match": {"workflow.name": "Heartbeat*"}, "drop": True},
            {"match": {"outcome": "error"}, "keep": True},
            {"sample": 0.1, "errors": True},
        ]
    )
    assert [rule.name for rule in parsed.rules] == ["heartbeats", "rule 2", "rule 3"]
    assert [rule.words for rule in parsed.rules] == ["drop", "keep", "sample 0.1, errors too"]
    beat = parsed.decide(subject(forgeWorkflow={"name": "Heartbeat 1"}))
    assert beat == (False, "heartbeats", "heartbeats drops it: workflow.name is Heartbeat*")
    assert Rules.parse([]) == Rules.parse(None) == Rules()
    assert Rules().empty and Rules().decide(subject()) == (
        *(True, None),
        "no rule matches, so it is kept",
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"drop": True}, "it has to be a list"),
        (["drop"], "rule 1: it has to be `match: …` and one of drop, keep, sample"),
        ([{}], "rule 1: it says not what to do; write one of drop: true"),
        ([{"drop": True, "keep": True}], "rule 1: it says drop and keep; write one of"),
        ([{"drop": False}], "rule 1: drop: write drop: true, or leave it out"),
        ([{"drop": True}, {"name": "x", "sample": 0}], "x: sample: write the part to keep, above"),
        ([{"sample": True}], "rule 1: sample: write the part to keep"),
        ([{"sample": 10}], "up to 1, such as 0.1"),
        ([{"sample": "10%"}], "up to 1, such as 0.1"),
        ([{"sample": float("nan")}], "up to 1, such as 0.1"),
        ([{"drop": True, "errors": True}], "errors stands with sample only"),
        ([{"sample": 0.5, "errors": "yes"}], "errors: write true or false"),
        ([{"drp": True}], "there is no 'drp'; did you mean drop? known are name, match"),
        ([{"match": {"user": "u"}, "drop": True}], "rule 1: match: there is no field 'user'"),
        ([{"name": "", "drop": True}], "rule 1: name: write text of 1 to 100 characters"),
        ([{"name": "a", "drop": True}, {"name": "a", "keep": True}], "a: two rules have this name"),
        ([{"name": "rule 2", "drop": True}, {"keep": True}], "rule 2: two rules have this name"),
        ([{"drop": 1}, {"keep": 1}], "rule 1: drop: write drop: true, or leave it out; rule 2: "),
    ],
)
def test_mistakes(given: object, words: str) -> None:
    """Each names its rule and the remedy; all of them are told."""
    with pytest.raises(ValueError, match=re.escape(words)):
        Rules.parse(given)


keys = st.sampled_from(["name", "match", "drop", "keep", "sample", "errors"])


@given(st.lists(nearly(keys), max_size=3) | anything)
def test_anything_is_rules_or_a_mistake(given: object) -> None:
    """Any JSON: rules, or a ValueError on one line, and never another error."""
    try:
        parsed = Rules.parse(given)
    except ValueError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert parsed.decide(subject()).why
