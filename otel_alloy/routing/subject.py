"""What can be asked of an execution: the values that its span carries, before they are cleaned,
cut or hashed for sending.

Personal data is no field: e-mail address and name would otherwise stand in rules, and in what is
told of them. Each value is computed when it is asked for, since most executions are asked for one
or two; what takes time is computed once.
"""

from __future__ import annotations

from collections.abc import Callable

from otel_alloy.alloy.models import ERROR, Integration, Workflow
from otel_alloy.mapping.convert import Execution, Role, Unconvertible, identities_of, times_of
from otel_alloy.mapping.encode import fit
from otel_alloy.mapping.ids import execution_ids

DURATION = "duration"
VERSION = "workflow.version"
OUTCOME = "outcome"
OUTCOMES = ("success", "error", "incomplete", "started", "other")

_MOST_RANDOM = (1 << 56) - 1
_NOT_ASKED = -1.0
_ENDED, _ENDED_AGAIN = Role.ENDED, Role.ENDED_AGAIN  # for speed: an enum finds its members slowly
_UNENDED = {Role.INCOMPLETE: "incomplete", Role.STARTED: "started", Role.OTHER: "other"}


class Subject:
    """One execution, as rules and destinations see it."""

    __slots__ = ("_duration", "_randomness", "common", "execution")

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.common = execution.notification.common
        self._duration: float | None = _NOT_ASKED
        self._randomness = -1

    def value(self, field: str) -> str | None:
        """The value of a field of `FIELDS`; None where the execution has none, or "". Raises
        KeyError for any other."""
        return FIELDS[field](self)

    @property
    def outcome(self) -> str:
        """One of `OUTCOMES`. A second end has the outcome that it tells itself."""
        role = self.execution.role
        if role is _ENDED or role is _ENDED_AGAIN:
            return "error" if self.execution.notification.message == ERROR else "success"
        return _UNENDED[role]

    @property
    def failed(self) -> bool:
        """Whether it ended with an error, or did not report its end."""
        return self.outcome in ("error", "incomplete")

    @property
    def duration(self) -> float | None:
        """Seconds from start to end; None for what has not ended, and where one of the two is
        missing or they are reversed, so that nobody can tell."""
        if self._duration == _NOT_ASKED:
            self._duration = self._seconds()
        return self._duration

    @property
    def randomness(self) -> int:
        """The last 56 bits of the execution's own trace id, which samplers take for a random number
        (W3C Trace Context level 2). A hook that moves the execution to another trace does not
        change it. What has no id at all is never sampled out: it has the highest number."""
        if self._randomness < 0:
            try:
                uuid, execution, record = identities_of(self.execution.notification)
            except Unconvertible:
                self._randomness = _MOST_RANDOM
            else:
                trace_id, _ = execution_ids(uuid or execution or record)
                self._randomness = int.from_bytes(trace_id[9:], "big")
        return self._randomness

    def _seconds(self) -> float | None:
        role = self.execution.role
        if role is not _ENDED and role is not _ENDED_AGAIN:
            return None
        try:
            start, end, _, adjusted = times_of(self.execution)
        except Unconvertible:
            return None
        return None if adjusted else (end - start) / 1e9


def _workflow_id(subject: Subject) -> str | None:
    workflow = subject.common.forgeWorkflow
    return subject.common.forgeWorkflowId or (workflow if type(workflow) is str else None) or None


def _workflow_name(subject: Subject) -> str | None:
    workflow = subject.common.forgeWorkflow
    return (workflow.name or None) if type(workflow) is Workflow else None


def _workflow_version(subject: Subject) -> str | None:
    version = subject.common.workflowVersion
    return None if version is None else str(fit(version))


def _integration_id(subject: Subject) -> str | None:
    workflow = subject.common.forgeWorkflow
    integration = workflow.integrationId if type(workflow) is Workflow else None
    if type(integration) is Integration:
        return integration.id or None
    return integration or None if type(integration) is str else None


def _integration_name(subject: Subject) -> str | None:
    workflow = subject.common.forgeWorkflow
    integration = workflow.integrationId if type(workflow) is Workflow else None
    return (integration.name or None) if type(integration) is Integration else None


def _user_id(subject: Subject) -> str | None:
    user = subject.common.user
    return subject.common.userId or (user if type(user) is str else None) or None


def _team_id(subject: Subject) -> str | None:
    return subject.common.teamId or None


def _outcome(subject: Subject) -> str:
    return subject.outcome


FIELDS: dict[str, Callable[[Subject], str | None]] = {
    "workflow.id": _workflow_id,
    "workflow.name": _workflow_name,
    VERSION: _workflow_version,
    "integration.id": _integration_id,
    "integration.name": _integration_name,
    "user.id": _user_id,
    "team.id": _team_id,
    OUTCOME: _outcome,
}
"""The fields whose values are text. Functions of a module, so that what holds them can be
pickled."""


def duration_of(subject: Subject) -> float | None:
    """See `Subject.duration`."""
    return subject.duration
