"""What happens to destinations, for those who watch: values only, no clock, no I/O.

No event holds a secret; reasons are words that may be shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from otel_alloy.checkpoint.outbox import Backlog


@dataclass(frozen=True, slots=True)
class DestinationSettled:
    """Executions that a destination acknowledged, or of which one of their signals was set aside
    (`rejected`). `age`: for how long (s) the oldest of them lay in the outbox."""

    destination: str
    executions: int
    rejected: int
    age: float


@dataclass(frozen=True, slots=True)
class DestinationSpilled:
    """There was no room for so many executions of a destination: they are to be read again."""

    destination: str
    executions: int


@dataclass(frozen=True, slots=True)
class DestinationRecalled:
    """So many executions were read again for a destination; `missing`: what Alloy did not give."""

    destination: str
    executions: int
    missing: int


@dataclass(frozen=True, slots=True)
class DestinationsLooked:
    """How all destinations are. `backlogs`: what waits for each, by name, also of those that are in
    the settings no more; `disabled`: why those are that cannot be used; `failing`: why those fail
    that do at the moment."""

    known: frozenset[str]
    backlogs: Mapping[str, Backlog]
    disabled: Mapping[str, str]
    failing: Mapping[str, str]
