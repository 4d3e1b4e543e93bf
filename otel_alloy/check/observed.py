"""What an answer about the API's unknowns is made from, and how it is told: values only.

Lengths of time are told in steps, so that no time of a record can be told from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from otel_alloy.alloy.models import Entry
from otel_alloy.checkpoint.store import AuditResult
from otel_alloy.pipeline.visibility import BOUNDS_SECONDS, VisibilityLag

NOT_KNOWN = "not known yet"


@dataclass(slots=True)
class Observed:
    """What was seen of one source by asking. `facts`: of each finding, by its part; `entries`: the
    records that came; `past_end`: what a `skip` past the end gets; `current_page`: what is told
    where `skip` is no multiple of `limit`; `error`, `retry_after`: the kind of error that ended it,
    and whether that said how long to wait."""

    facts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    requests: int = 0
    past_end: str | None = None
    current_page: str | None = None
    error: str | None = None
    retry_after: bool | None = None


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a checkpoint has of the source."""

    lag: VisibilityLag
    counted: Mapping[str, int]
    audits: Sequence[AuditResult]


@dataclass(frozen=True, slots=True)
class Unknown:
    """One question; `number` is its place in the list. `answer` is None where it is not known yet,
    and `would_tell` says then what would tell."""

    number: str
    question: str
    answer: str | None
    evidence: Mapping[str, Any]
    would_tell: str

    def as_object(self) -> dict[str, Any]:
        """As JSON."""
        told = {"unknown": self.number, "question": self.question}
        told["answer"] = NOT_KNOWN if self.answer is None else self.answer
        if self.answer is None:
            told["would_tell"] = self.would_tell
        return {**told, "evidence": dict(self.evidence)}


def step(seconds: float) -> str:
    """A length of time in steps, in words."""
    for bound in BOUNDS_SECONDS:
        if seconds <= bound:
            return up_to(bound)
    return "more than 24 h"


def up_to(seconds: float) -> str:
    """A bound of such a step, in words."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"up to {seconds / length:g} {unit}"
    return f"up to {seconds:g} s" if seconds else "none"
