"""What a source's batches need to know of destinations: who gets what, as which bytes, and whom to
tell. Put together once for each source.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from otel_alloy.checkpoint.outbox import Entry
from otel_alloy.destinations.packing import Items, Packer
from otel_alloy.destinations.router import Plan
from otel_alloy.mapping.convert import Execution


class Selection(Protocol):
    """Who gets what: `Router`, or a part of what it says."""

    def renew(self) -> Collection[str]: ...

    def wants(self, execution: Execution) -> bool: ...

    def plan(self, executions: Sequence[Execution]) -> Plan: ...


class Routing:
    """`arrived`: is told how many executions lie in the outbox since now, by destination."""

    def __init__(
        self, router: Selection, packer: Packer, arrived: Callable[[Mapping[str, int]], None]
    ) -> None:
        self._router = router
        self._packer = packer
        self._arrived = arrived

    def renew(self) -> Collection[str]:
        """Goes by the destinations as they are now, and names them."""
        return self._router.renew()

    def wants(self, execution: Execution) -> bool:
        """Whether anybody gets it."""
        return self._router.wants(execution)

    def plan(self, executions: Sequence[Execution]) -> Plan:
        """Who gets each execution of a batch."""
        return self._router.plan(executions)

    def pack(
        self,
        plan: Plan,
        executions: Sequence[Execution],
        original: Callable[[int], str],
        ready: Callable[[int], Items | None],
        set_aside: Callable[[int, str, str], None],
    ) -> dict[str, list[Entry]]:
        """See `Packer.pack`."""
        return self._packer.pack(plan, executions, original, ready, set_aside)

    def settled(self, outbox: Mapping[str, Sequence[Entry]]) -> None:
        """The store has what was packed."""
        self._arrived({name: len(entries) for name, entries in outbox.items()})
