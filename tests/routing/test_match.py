"""`match:` fits what it says, says what it fits, and a mistake in it is told with its remedy."""

import pickle
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otel_alloy.mapping.convert import Execution, Role
from otel_alloy.routing.match import KNOWN, Match, Pattern
from otel_alloy.routing.subject import Subject

from .executions import anything, executions, matches, nearly, subject


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({"user.id": "u_17"}, True),
        ({"user.id": "U_17"}, False),
        ({"user.id": ["u_1", "u_17"]}, True),
        ({"user.id": "u_*"}, True),
        ({"user.id": ["x*", "*7"]}, True),
        ({"user.id": "*"}, True),
        ({"workflow.name": "orders*"}, False),
        ({"workflow.name": "*to*Suite"}, True),
        ({"workflow.name": ".*"}, False),
        ({"user.id": "u_17", "outcome": "error"}, False),
        ({"user.id": "u_17", "outcome": ["error", "success"]}, True),
        ({"runalloy.workflow.id": "w_1", "runalloy.execution.outcome": "success"}, True),
        ({"integration.id": "i_1", "runalloy.integration.name": "Net*", "team.id": "team"}, True),
        ({"workflow.version": 3}, True),
        ({"workflow.version": "3"}, True),
        ({"workflow.version": ">=3"}, True),
        ({"workflow.version": "> 3"}, False),
        ({"workflow.version": [1, "<= 3"]}, True),
        ({"duration": ">95ms"}, True),
        ({"duration": ">96ms"}, False),
        ({"duration": ">=96ms"}, True),
        ({"duration": "<=0.096"}, True),
        ({"duration": "< 96ms"}, False),
        ({"duration": [">1m", "<100ms"]}, True),
        ({}, True),
        (None, True),
    ],
)
def test_what_fits(fields: object, fits: bool) -> None:
    """Exact text, patterns, lists, comparisons, several fields, and names with the telemetry's
    prefix."""
    assert Match.parse(fields, empty=True)(subject()) is fits


@pytest.mark.parametrize("field", KNOWN)
def test_what_is_missing_fits_nothing(field: str) -> None:
    """Not even a star: so `*` says that there is a value. An execution has an outcome always."""
    bare: dict[str, Any] = dict.fromkeys(
        ("workflowVersion", "teamId", "forgeWorkflowId", "userId", "user", "forgeWorkflow")
    )
    nothing = subject(Role.ENDED, startedAt=None, **bare)
    value = {"duration": ">=0s", "workflow.version": "*"}.get(field, "*")
    match = Match.parse({field: value})
    assert match(subject())
    if field == "outcome":
        assert match(nothing)
    else:
        assert not match(nothing) and match.why_not(nothing) == f"it has no {field}"


@example("a*a", "a")  # neither the ends nor what lies between may overlap
@example("*ab*b", "ab")
@example("*a*a*", "a")
@given(st.text("ab*", min_size=1, max_size=8), st.text("ab\n", max_size=12))
def test_patterns_are_what_a_regular_expression_makes_of_them(text: str, value: str) -> None:
    """Each star stands for any text, and all else for itself."""
    regex = ".*".join(re.escape(part) for part in text.split("*"))
    fits = re.fullmatch(regex, value, re.DOTALL) is not None
    assert Pattern.of(text + "*")(value) is bool(re.match(regex, value, re.DOTALL))
    if "*" in text:
        assert Pattern.of(text)(value) is fits


def test_a_pattern_takes_no_longer_than_the_text_is_long() -> None:
    """Fifty stars against a long text that nearly fits: a search that went back would not end."""
    assert not Pattern.of("a*" * 50 + "c")("a" * 1_000_000 + "b")


@given(matches, executions)
def test_what_is_told_is_what_is_done(fields: dict[str, Any], execution: Execution) -> None:
    """There is a reason why an execution does not fit exactly where it does not, and it names the
    first such field; all fields have to fit; a match survives pickling."""
    match, asked = Match.parse(fields, empty=True), Subject(execution)
    alone = {name: Match.parse({name: value})(asked) for name, value in fields.items()}
    why = match.why_not(asked)
    assert match(asked) is all(alone.values()) is (why is None)
    if why is not None:
        first = next(name for name, fits in alone.items() if not fits)
        assert first.removeprefix("runalloy.") in why
    assert pickle.loads(pickle.dumps(match)) == match


def test_words() -> None:
    """How a person reads it; of a long list the beginning."""
    match = Match.parse({"user.id": "u_17", "outcome": ["success", "error"]})
    assert match.words == "user.id is u_17 and outcome is success or error"
    assert match.why_not(subject(userId="u_1")) == "user.id is u_1, not u_17"
    assert Match.parse({}, empty=True).words == "anything"
    slow = Match.parse({"duration": "> 5s"})
    assert slow.words == "duration is >5s"
    assert slow.why_not(subject()) == "duration is 96 ms, not >5s"
    many = Match.parse({"user.id": [f"u_{number}" for number in range(5000)]})
    assert many.words == "user.id is u_0, u_1, u_2, u_3, u_4 or one of 4,995 more"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "name a field, such as user.id"),
        (None, "name a field, such as user.id"),
        ("u_17", "it has to be `field: value` lines"),
        ({"user.ids": "u"}, "no field 'user.ids'; did you mean user.id? known are workflow.id, "),
        ({"runalloy.workflow.nme": "u"}, "did you mean runalloy.workflow.name?"),
        ({"?": "u"}, "there is no field '?'; known are"),
        ({"user.email": "a@b.example"}, "user.email cannot be matched, as it is personal data"),
        ({"workflow.id": "a", "runalloy.workflow.id": "b"}, "workflow.id is given twice"),
        ({"user.id": ""}, "user.id: the text is empty"),
        ({"user.id": []}, "user.id: the list is empty"),
        ({"user.id": 17}, 'user.id: write text, a number in quotes ("17")'),
        ({"user.id": ["a", ["b"]]}, "user.id: write text"),
        ({"outcome": "sucess"}, "outcome: did you mean success? there are success, error, inc"),
        ({"outcome": "x*"}, "outcome: no outcome is like that"),
        ({"duration": "5s"}, 'duration: compare it, such as ">5s"'),
        ({"duration": 5}, 'duration: compare it, such as ">5s"'),
        ({"duration": ">5 parsecs"}, "duration: write a duration such as 30s"),
        ({"workflow.version": "v3"}, "workflow.version: write a whole number"),
        ({"workflow.version": True}, "workflow.version: write a whole number"),
        ({"workflow.version": ">3.5"}, "workflow.version: write a whole number"),
        ({"user.id": "", "outcome": "?"}, "user.id: the text is empty, which fits nothing"),
        ({"user.id": "", "outcome": "?"}, "outcome: there are success"),
    ],
)
def test_mistakes(given: object, words: str) -> None:
    """Each names the field and the remedy; all of them are told."""
    with pytest.raises(ValueError, match=re.escape(words)):
        Match.parse(given)


@given(nearly(st.sampled_from(KNOWN)) | anything)
def test_anything_is_a_match_or_a_mistake(given: object) -> None:
    """Any JSON: a match, or a ValueError on one line, and never another error."""
    try:
        match = Match.parse(given)
    except ValueError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert match.words and match(subject()) in (True, False)
