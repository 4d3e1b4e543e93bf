"""What a replica shows of leases: its own work decides whether it is ready, not that of others."""

from __future__ import annotations

from dataclasses import replace

from otel_alloy.observability.status import PATIENCE, Status
from otel_alloy.pipeline.events import (
    CycleBegan,
    CycleEnded,
    Holding,
    LeasesFailed,
    LeasesLooked,
    SourceStopped,
)
from otel_alloy.runtime import system_runtime


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def status(clock: Clock) -> Status:
    runtime = replace(system_runtime(), monotonic=clock, clock=clock)
    return Status(["one", "two"], max_lag=900.0, runtime=runtime)


def looked(*mine: str, one: str | None = "a", two: str | None = "b") -> LeasesLooked:
    """What `a` sees."""
    owners = {"source one": one, "source two": two}
    holdings = tuple(Holding(u, o, 3, 9.04) for u, o in owners.items() if o is not None)
    unowned = tuple(unit for unit, owner in owners.items() if owner is None)
    return LeasesLooked("a", frozenset(f"source {name}" for name in mine), holdings, unowned)


def test_a_replica_without_work_is_ready() -> None:
    """Before the first look nothing is known. Then a replica that holds nothing is ready and live,
    however long that goes on; it has no lag, and its report names who has the work."""
    clock = Clock()
    shown = status(clock)
    assert len(shown.not_ready()) == 2
    shown(looked(one="b"))
    clock.now += 2 * PATIENCE
    assert not shown.not_ready() and not shown.stuck() and not shown.gauges()
    report = shown.report()
    assert report["leases"]["held"][0] == {
        "unit": "source one",
        "owner": "b",
        "epoch": 3,
        "expires_in": 9.0,
    }
    assert report["leases"]["replica"] == "a" and report["leases"]["unowned"] == []
    assert [one["waits_for"] for one in report["sources"]] == [["nothing: b works at it"]] * 2
    assert all(one["ready"] for one in report["sources"])


def test_only_its_own_work_is_asked_for() -> None:
    """A source counts from when its lease is taken, begins anew after it was elsewhere, and is
    forgotten when it goes; one that stopped here for good stays known."""
    clock = Clock()
    shown = status(clock)
    shown(looked("one"))
    assert shown.not_ready() == ["source one: the first cycle is not complete"]
    shown(CycleBegan("one", "c", 0, None, 1_000_000))
    shown(CycleEnded("one", "c", 1_000_000, 1_000_000, 30.0))
    assert not shown.not_ready()
    clock.now += 10 * PATIENCE
    shown(looked(one="b"))
    assert not shown.not_ready()
    shown(looked("one"))
    assert shown.not_ready() == ["source one: the first cycle is not complete"]
    assert not shown.stuck()
    shown(SourceStopped("one", "the key is refused"))
    shown(looked(one=None))
    assert shown.not_ready() == ["source one: stopped: the key is refused"]
    gauges = shown.leases()
    assert gauges is not None and (gauges.held, gauges.unowned) == (0, 1)
    assert shown.report()["leases"]["unowned"] == ["source one"]


def test_without_the_database_it_is_not_ready_and_not_stuck() -> None:
    """While leases cannot be kept a replica says why, and waits; that is no reason to restart
    it."""
    clock = Clock()
    shown = status(clock)
    shown(looked("one"))
    for _ in range(3):
        clock.now += PATIENCE
        shown(LeasesFailed("the database does not answer", 1.0))
    assert "leases: the database does not answer" in shown.not_ready()
    assert not shown.stuck()
    shown(looked("one"))
    assert "leases: the database does not answer" not in shown.not_ready()


def test_nothing_shared_is_nothing_shown() -> None:
    """With a file there are no leases, and no metrics of them."""
    shown = status(Clock())
    assert shown.report()["leases"] is None and shown.leases() is None
