"""How replicas share the work: evenly, within a lease time, and without moving what may stay."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from otel_alloy.pipeline.spread import moves, rest_seconds

LEASE = 15.0
MARGIN = LEASE / 5
CYCLE = 3.0
"""The longest that a unit is in the middle of something, s."""


@dataclass
class Row:
    """As in the database."""

    owner: str | None = None
    expires: float = 0.0
    taken: float = 0.0


@dataclass
class Replica:
    """One replica: when it looks next, until when each of its units is busy, what it is to give,
    and until when it may work at what it holds."""

    look: float
    busy: dict[str, float] = field(default_factory=dict)
    give: frozenset[str] = frozenset()
    until: dict[str, float] = field(default_factory=dict)


class Cluster:
    """Replicas over one table and one clock, in steps of a tenth of a second."""

    def __init__(self, units: int, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now = 0.0
        self.rows = {f"source {n}": Row() for n in range(units)}
        self.heard: dict[str, float] = {}
        self.replicas: dict[str, Replica] = {}
        self.moved = 0
        self.names = 0

    def join(self) -> None:
        self.names += 1
        self.replicas[f"r{self.names}"] = Replica(self.now)

    def leave(self, number: int, *, drains: bool) -> None:
        """A replica ends: it hands over what it has, or it dies."""
        name = sorted(self.replicas)[number % len(self.replicas)]
        del self.replicas[name]
        if drains:
            self.heard.pop(name, None)
            for row in self.rows.values():
                if row.owner == name:
                    row.owner, row.expires = None, self.now

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.1
            for name in self.chance.sample(sorted(self.replicas), len(self.replicas)):
                self._give(name)
                if self.replicas[name].look <= self.now:
                    self._look(name)
            self._only_one_at_work()

    def _valid(self) -> dict[str, str]:
        taken = sorted(self.rows.items(), key=lambda item: item[1].taken)
        return {u: r.owner for u, r in taken if r.owner is not None and r.expires > self.now}

    def _look(self, name: str) -> None:
        replica = self.replicas[name]
        self.heard[name] = self.now
        for unit, row in self.rows.items():
            if row.owner == name:
                row.expires = self.now + LEASE
                replica.until[unit] = self.now + LEASE - MARGIN
        owners = self._valid()
        live = [one for one, heard in self.heard.items() if heard + LEASE > self.now]
        plan = moves(name, list(self.rows), owners, live)
        replica.give = plan.give
        for free, most in plan.take.values():
            for unit in self.chance.sample(sorted(free), min(most, len(free))):
                row = self.rows[unit]
                row.owner, row.expires, row.taken = name, self.now + LEASE, self.now
                replica.until[unit] = self.now + LEASE - MARGIN
                replica.busy[unit] = self.now + self.chance.random() * CYCLE
                self.moved += 1
        lasting = [r.expires - self.now for r in self.rows.values() if r.owner not in (None, name)]
        replica.look = self.now + rest_seconds(LEASE, lasting, self.chance.random())

    def _give(self, name: str) -> None:
        """At the end of what it is at."""
        replica = self.replicas[name]
        for unit in replica.give:
            row = self.rows[unit]
            if row.owner == name and replica.busy.get(unit, 0.0) <= self.now:
                row.owner, row.expires = None, self.now
                del replica.until[unit]

    def _only_one_at_work(self) -> None:
        for unit, row in self.rows.items():
            working = [n for n, r in self.replicas.items() if r.until.get(unit, 0.0) > self.now]
            assert not working or working == [row.owner]

    def counts(self) -> list[int]:
        """How many units each replica holds."""
        owners = list(self._valid().values())
        return sorted(owners.count(name) for name in self.replicas)

    def assert_even(self) -> None:
        counts = self.counts()
        assert sum(counts) == len(self.rows), "a unit has no owner"
        assert counts[-1] - counts[0] <= 1, counts


EVENTS = st.lists(
    st.tuples(st.sampled_from(["join", "dies", "drains"]), st.integers(0, 9), st.floats(0, 40)),
    max_size=6,
)


def happen(cluster: Cluster, what: str, number: int) -> None:
    """One event; the last replica stays."""
    if what == "join" or len(cluster.replicas) == 1:
        cluster.join()
    else:
        cluster.leave(number, drains=what == "drains")


@settings(max_examples=60, deadline=None)
@given(units=st.integers(1, 40), events=EVENTS, seed=st.integers(0, 10**6))
def test_work_is_spread_within_a_lease_and_moves_no_more_than_it_must(
    units: int, events: list[tuple[str, int, float]], seed: int
) -> None:
    """After a replica joins, dies or drains, all is spread evenly within one lease time and a
    tenth; so much moves as has to, then nothing more; and no two are ever at work at one unit."""
    cluster = Cluster(units, seed)
    cluster.join()
    cluster.run(1.1 * LEASE)
    for what, number, _ in events:
        before = {name: 0 for name in cluster.replicas}
        for owner in cluster._valid().values():
            before[owner] += 1
        cluster.moved = 0
        happen(cluster, what, number)
        cluster.run(1.1 * LEASE + CYCLE)
        cluster.assert_even()
        least, more = divmod(units, len(cluster.replicas))
        kept = [before.get(name, 0) for name in cluster.replicas]
        larger = sum(had > least for had in kept)
        may_stay = sum(min(had, least) for had in kept) + min(larger, more)
        assert cluster.moved == units - may_stay
        cluster.run(3 * LEASE)
        assert cluster.moved == units - may_stay


@settings(max_examples=60, deadline=None)
@given(units=st.integers(1, 40), events=EVENTS, seed=st.integers(0, 10**6))
def test_events_in_the_middle_of_others(
    units: int, events: list[tuple[str, int, float]], seed: int
) -> None:
    """However close together replicas come and go, one lease time after the last of it all is
    spread evenly, and stays where it is."""
    cluster = Cluster(units, seed)
    cluster.join()
    for what, number, after in events:
        cluster.run(after)
        happen(cluster, what, number)
    cluster.run(2 * LEASE)
    cluster.assert_even()
    cluster.moved = 0
    cluster.run(3 * LEASE)
    assert not cluster.moved


def test_what_nobody_takes_is_taken_above_the_share() -> None:
    """A unit that only some replicas know, as in the middle of an update, does not wait for a place
    in their share."""
    units = ["source a", "source b", "source new"]
    owners = {"source a": "one", "source b": "other"}
    live = ["one", "other"]
    plan = moves("one", units, owners, live)
    first = {n: moves(n, units, owners, live).take for n in live}
    assert sorted(bool(take) for take in first.values()) == [False, True]
    late = {n: moves(n, units, owners, live, ["source new"]).take for n in live}
    assert all(take["source"][0] == ["source new"] for take in late.values())
    assert not plan.give


def test_each_kind_is_shared_out_by_itself() -> None:
    """Who has all sources gets no less of the destinations for it, and no more."""
    owners = {f"source {n}": "one" for n in range(4)}
    units = [*owners, *(f"destination {n}" for n in range(4))]
    plan = moves("two", units, owners, ["one", "two"])
    assert plan.take["destination"][1] == 2 and not plan.give
    assert len(moves("one", units, owners, ["one", "two"]).give) == 2
