"""Receivers that share sources in a real PostgreSQL: who works at what, and what arrives."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from otel_alloy.checkpoint.store import open_store
from otel_alloy.pipeline.events import CycleEnded, LeasesLooked, LeaseTaken
from otel_alloy.pipeline.receiver import Receiver
from otel_alloy.testing.otlp_endpoint import Answer, Received

if TYPE_CHECKING:
    from conftest import Place

LEASE = 3.0
PATIENCE = 60.0


class Replica:
    """A receiver at work in threads of this process, and what it tells."""

    def __init__(self, place: Place, **settings: Any) -> None:
        self.mine: frozenset[str] = frozenset()
        self.unowned: tuple[str, ...] = ()
        self.takeovers: list[str] = []
        self.cycles: Counter[str] = Counter()
        self.told = threading.Condition()
        given = {"collection_interval": 1, "lease": LEASE, "audit": "off", **settings}
        self.receiver = Receiver(place.settings(**given), observe=self._see)
        self._thread = threading.Thread(target=self.receiver.run, daemon=True)
        self._thread.start()

    def _see(self, event: object) -> None:
        with self.told:
            match event:
                case LeasesLooked():
                    self.mine, self.unowned = event.mine, event.unowned
                case LeaseTaken(takeover=True):
                    self.takeovers.append(event.unit)
                case CycleEnded():
                    self.cycles[event.source] += 1
            self.told.notify_all()

    def until(self, done: Callable[[], bool]) -> None:
        """Waits for what it tells."""
        with self.told:
            assert self.told.wait_for(done, PATIENCE), (self.mine, self.unowned)

    def stop(self) -> None:
        self.receiver.stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def sources(number: int) -> list[dict[str, str]]:
    """So many, each of which gets all executions."""
    return [{"name": f"s{n}", "api_key": f"key-{n}"} for n in range(number)]


@contextmanager
def replicas(place: Place, number: int, **settings: Any) -> Iterator[list[Replica]]:
    some = [Replica(place, **settings) for _ in range(number)]
    try:
        yield some
    finally:
        for one in some:
            one.stop()


def test_three_replicas_share_and_hand_over(place: Place, storage: str) -> None:
    """Three replicas come to have three of nine sources each, and every execution is delivered
    once. When two of them end, the last one has all within a lease time, without a takeover: they
    were handed over. Nothing is delivered again for it."""
    records = place.fill(30)
    with replicas(place, 3, storage=storage, sources=sources(9)) as some:
        for one in some:
            one.until(lambda one=one: len(one.mine) == 3)  # type: ignore[misc]
        assert frozenset().union(*(one.mine for one in some)) == {f"source s{n}" for n in range(9)}
        for one in some:
            one.until(lambda one=one: all(one.cycles[u[7:]] for u in one.mine))  # type: ignore[misc]
        some[0].stop()
        some[1].stop()
        begun = monotonic()
        some[2].until(lambda: len(some[2].mine) == 9)
        assert monotonic() - begun < LEASE
        some[2].until(lambda: all(some[2].cycles[f"s{n}"] for n in range(9)))
        assert not any(one.takeovers for one in some)
    place.assert_exactly_once(place.ended(records) * 9)
