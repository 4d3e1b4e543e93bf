"""The facts of one execution: what everything that shows or counts executions goes by.

`Converter.facts` makes them from a notification. They are exactly what the execution's span tells,
so whoever holds the span (the demo does) makes the same value from its fields. Text is as it is
sent; making it fit for a terminal or a metric is the business of those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from otel_alloy.mapping import semconv

Outcome = Literal["success", "error", "incomplete"]

_WHO = (semconv.USER_FULL_NAME, semconv.USER_EMAIL, semconv.USER_ID, semconv.USER_HASH)
_BLOCK = (semconv.BLOCK_NAME, semconv.BLOCK_ID, semconv.BLOCK_TYPE)


@dataclass(frozen=True, slots=True)
class ExecutionFacts:
    """An execution that ended, or whose end did not come."""

    trace_id: bytes
    span_id: bytes
    start: int
    """Unix ns, as `end`; never after it."""
    end: int
    workflow: str
    """The workflow's name, or `workflow execution` where it is not known: the span's name."""
    attributes: Mapping[str, Any]
    """The span's own, in their order; personal data as the privacy settings say."""
    reason: str = ""
    """Why it failed, where that is known: the description of the span's status."""

    @property
    def outcome(self) -> Outcome:
        """How it ended; `incomplete` where its end did not come."""
        outcome: Outcome = self.attributes.get(semconv.EXECUTION_OUTCOME, "success")
        return outcome

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.end - self.start) / 1e9

    @property
    def adjusted(self) -> bool:
        """Whether `start` or `end` stands in for a time that was missing or impossible."""
        return semconv.TIME_ADJUSTED in self.attributes

    @property
    def block(self) -> str:
        """How to call the block at which it failed: the name, else the id, the type, or ""."""
        return next((self.attributes[key] for key in _BLOCK if self.attributes.get(key)), "")

    @property
    def workflow_id(self) -> str | None:
        """The id of the workflow that was built, of which each user has a copy."""
        return self.attributes.get(semconv.WORKFLOW_ID)

    @property
    def user_id(self) -> str | None:
        """The id of the user that it ran for."""
        return self.attributes.get(semconv.USER_ID)

    @property
    def user(self) -> str:
        """How to call the user: the name, else the e-mail address, the id, the hash, or ""."""
        return next((self.attributes[key] for key in _WHO if self.attributes.get(key)), "")


class Failed(NamedTuple):
    """An execution that failed: when it ended (Unix ns), the workflow's name, and its id ("" where
    that is not known)."""

    end: int
    workflow: str
    workflow_id: str


@dataclass(frozen=True, slots=True)
class Glance:
    """Many executions at a glance: how many `ended`, those that `failed`, in their order, the facts
    of the `newest`, newest first, and those of the `last_failed`."""

    ended: int = 0
    failed: Sequence[Failed] = ()
    newest: Sequence[ExecutionFacts] = ()
    last_failed: ExecutionFacts | None = None
