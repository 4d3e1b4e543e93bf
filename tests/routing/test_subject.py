"""What rules can ask of an execution is what its span tells."""

from typing import Any

import pytest
from hypothesis import given

from otel_alloy.mapping import semconv
from otel_alloy.mapping.convert import Converter, Execution, Role, Unconvertible
from otel_alloy.mapping.ids import execution_ids
from otel_alloy.routing.subject import FIELDS, OUTCOMES, Subject

from .executions import executions, of_uuid, subject

ATTRIBUTES = {
    "workflow.id": semconv.WORKFLOW_ID,
    "workflow.name": semconv.WORKFLOW_NAME,
    "workflow.version": semconv.WORKFLOW_VERSION,
    "integration.id": semconv.INTEGRATION_ID,
    "integration.name": semconv.INTEGRATION_NAME,
    "user.id": semconv.USER_ID,
    "team.id": semconv.TEAM_ID,
    "outcome": semconv.EXECUTION_OUTCOME,
}


@given(executions)
def test_values_are_those_of_the_span(execution: Execution) -> None:
    """Every field has the value of its attribute, and none where there is no such attribute;
    duration and randomness are those of the span's times and trace id."""
    asked = Subject(execution)
    assert set(ATTRIBUTES) == set(FIELDS)
    assert asked.outcome in OUTCOMES
    assert asked.failed is (asked.outcome in ("error", "incomplete"))
    try:
        facts = Converter().facts(execution)
    except Unconvertible:
        assert asked.duration is None
        return
    if facts is None:  # has no span
        return
    for field, attribute in ATTRIBUTES.items():
        told = facts.attributes.get(attribute)
        assert asked.value(field) == (None if told is None else str(told)), field
    assert asked.randomness == int(facts.trace_id.hex()[-14:], 16)
    ended = execution.role is Role.ENDED
    assert asked.duration == (facts.seconds if ended and not facts.adjusted else None)


@pytest.mark.parametrize(
    ("role", "message", "outcome"),
    [
        (Role.ENDED, "executionFinished", "success"),
        (Role.ENDED, "executionError", "error"),
        (Role.ENDED_AGAIN, "executionFinished", "success"),
        (Role.ENDED_AGAIN, "executionError", "error"),
        (Role.INCOMPLETE, "executionStarted", "incomplete"),
        (Role.STARTED, "executionStarted", "started"),
        (Role.OTHER, "executionPaused", "other"),
    ],
)
def test_outcomes(role: Role, message: str, outcome: str) -> None:
    """A second end has the outcome that it tells itself."""
    assert subject(role, message=message).outcome == outcome


def test_a_duration_that_nobody_knows() -> None:
    """None where a time is missing or both are reversed, though the span has one that stands in;
    the start may be known from the start's own record."""
    assert subject().duration == 0.096
    assert subject(Role.ENDED_AGAIN).duration == 0.096
    assert subject(Role.INCOMPLETE).duration is None
    assert subject(startedAt=None).duration is None
    assert subject(startedAt="2025-04-29T17:44:11Z").duration is None
    joined = subject(startedAt=None).execution
    joined.started_at = "2025-04-29T17:44:10.000Z"
    assert Subject(joined).duration == 0.432


def test_randomness_is_of_the_executions_own_trace() -> None:
    """The last 56 bits of the computed trace id, also where a hook moved the execution; what has no
    id, and so is set aside as it is without rules, has the highest number."""
    trace_id, _ = execution_ids("35SnGU0DUSNP5L26fsmnq")
    moved = of_uuid("35SnGU0DUSNP5L26fsmnq")
    moved.execution.trace_id = bytes(16)
    assert moved.randomness == int(trace_id.hex()[18:], 16)
    nothing: dict[str, Any] = {"_id": None, "data": None}
    assert subject(**nothing).randomness == 2**56 - 1
