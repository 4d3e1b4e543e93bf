"""What is known of leases, from the keeper's events: for `/status`, readiness and metrics.

Where replicas share the work, a source that another one works at is nothing that this one could be
behind with, or stuck at. Nothing here is sent, printed or stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from otel_alloy.checkpoint.database import source_unit
from otel_alloy.pipeline import events


@dataclass(frozen=True, slots=True)
class LeaseGauges:
    """What is measured of leases at one moment: units held here, and those that nobody holds."""

    held: int
    unowned: int


class LeasesView:
    """A watcher of events. Its owner sees to it that one thread at a time is in it."""

    def __init__(self) -> None:
        self._looked: events.LeasesLooked | None = None
        self._failing: str | None = None
        self._owners: dict[str, str] = {}  # by unit

    def __call__(self, event: object) -> None:
        """Takes an event."""
        match event:
            case events.LeasesLooked():
                self._looked, self._failing = event, None
                self._owners = {one.unit: one.owner for one in event.holdings}
            case events.LeasesFailed():
                self._failing = event.reason

    @property
    def failing(self) -> str | None:
        """Why leases cannot be kept at the moment; None where they can."""
        return self._failing

    def elsewhere(self, source: str) -> bool:
        """Whether this process has nothing to do with a source, as it does not hold its lease."""
        return self._looked is not None and source_unit(source) not in self._looked.mine

    def owner(self, source: str) -> str | None:
        """Who works at a source; None where nobody does."""
        return self._owners.get(source_unit(source))

    def gauges(self) -> LeaseGauges | None:
        """What is measured; None where nothing is shared."""
        if self._looked is None:
            return None
        return LeaseGauges(len(self._looked.mine), len(self._looked.unowned))

    def report(self) -> dict[str, Any] | None:
        """All of it, ready to be written as JSON; None where nothing is shared."""
        looked = self._looked
        if looked is None:
            return None
        return {
            "replica": looked.replica,
            "failing": self._failing,
            "held": [
                {
                    "unit": one.unit,
                    "owner": one.owner,
                    "epoch": one.epoch,
                    "expires_in": round(one.expires_in, 1),
                }
                for one in looked.holdings
            ],
            "unowned": list(looked.unowned),
        }
