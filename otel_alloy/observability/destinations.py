"""What is known of destinations, from the dispatcher's events: for `/status` and metrics.

There may be thousands of destinations, so what is shown is bounded: the report names those in
trouble, metrics the first hundred that were seen; all others are one, `(others)`. Nothing here is
sent, printed or stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from otel_alloy.alloy.timestamps import to_text
from otel_alloy.checkpoint.outbox import Backlog
from otel_alloy.pipeline import events

OTHERS = "(others)"
MOST_NAMES = 100
_MOST_SHOWN = 50


@dataclass(slots=True)
class DestinationGauges:
    """What is measured of a destination, or of all others together."""

    destination: str
    waiting: int = 0
    recall: int = 0
    oldest: float = 0.0
    """Seconds for which the oldest execution has waited."""
    failing: int = 0
    """How many destinations fail, are disabled or paused."""


class DestinationsView:
    """A watcher of events. Its owner sees to it that one thread at a time is in it."""

    def __init__(self) -> None:
        self._looked: events.DestinationsLooked | None = None
        self._filtered: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()
        self._names: dict[str, None] = {}

    def __call__(self, event: object) -> None:
        """Takes an event."""
        match event:
            case events.DestinationsLooked():
                self._looked = event
                for name in sorted({*event.known, *event.backlogs, *event.disabled}):
                    self.label(name)
            case events.DestinationSettled():
                self._totals["delivered"] += event.executions - event.rejected
                self._totals["rejected"] += event.rejected
            case events.DestinationSpilled():
                self._totals["to_be_read_again"] += event.executions
            case events.DestinationRecalled():
                self._totals["read_again"] += event.executions
                self._totals["missing"] += event.missing
            case events.Filtered():
                self._filtered.update(event.rules)

    def label(self, name: str) -> str:
        """What a destination is called in metrics."""
        if name not in self._names and len(self._names) >= MOST_NAMES:
            return OTHERS
        self._names[name] = None
        return name

    def filtered(self) -> dict[str, int]:
        """How many executions each rule kept back since the start."""
        return dict(self._filtered)

    def gauges(self, now_ms: int) -> list[DestinationGauges]:
        """What is measured, by destination."""
        found: dict[str, DestinationGauges] = {}
        looked = self._looked
        if looked is None:
            return []
        for name in sorted({*looked.known, *looked.backlogs, *looked.disabled}):
            backlog = looked.backlogs.get(name, Backlog())
            label = self.label(name)
            one = found.setdefault(label, DestinationGauges(label))
            one.waiting += backlog.executions
            one.recall += backlog.recall
            if backlog.oldest is not None:
                one.oldest = max(one.oldest, (now_ms - backlog.oldest) / 1000)
            one.failing += _state(looked, name, backlog) != "ok"
        return list(found.values())

    def report(self, now_ms: int) -> dict[str, Any] | None:
        """All of it, ready to be written as JSON; None where there are no destinations."""
        looked = self._looked
        if looked is None:
            return None
        names = sorted({*looked.known, *looked.backlogs, *looked.disabled})
        states = {n: _state(looked, n, looked.backlogs.get(n, Backlog())) for n in names}
        counts = Counter(states.values())
        waiting = {n: looked.backlogs.get(n, Backlog()) for n in names}
        worst = sorted(names, key=lambda n: (states[n] == "ok", -waiting[n].executions, n))
        shown = [
            n for n in worst if states[n] != "ok" or waiting[n].executions or waiting[n].recall
        ]
        return {
            "number": len(names),
            "states": dict(sorted(counts.items())),
            "waiting": sum(one.executions for one in waiting.values()),
            "waiting_bytes": sum(one.bytes for one in waiting.values()),
            "to_be_read_again": sum(one.recall for one in waiting.values()),
            "since_start": dict(sorted(self._totals.items())),
            "not_shown": max(0, len(shown) - _MOST_SHOWN),
            "shown": [
                _one(n, states[n], waiting[n], looked.failing, looked.disabled, now_ms)
                for n in shown[:_MOST_SHOWN]
            ],
        }


def _state(looked: events.DestinationsLooked, name: str, backlog: Backlog) -> str:
    if name in looked.disabled:
        return "disabled"
    if backlog.paused_at is not None:
        return "paused"
    if name in looked.failing:
        return "failing"
    return "ok" if name in looked.known else "removed"


def _one(
    name: str,
    state: str,
    backlog: Backlog,
    failing: Mapping[str, str],
    disabled: Mapping[str, str],
    now_ms: int,
) -> dict[str, Any]:
    oldest, since = backlog.oldest, backlog.recall_from
    return {
        "name": name,
        "state": state,
        "reason": disabled.get(name) or failing.get(name),
        "waiting": backlog.executions,
        "waiting_bytes": backlog.bytes,
        "oldest_seconds": None if oldest is None else round((now_ms - oldest) / 1000, 1),
        "to_be_read_again": backlog.recall,
        "to_be_read_again_from": None if since is None else to_text(since),
    }
