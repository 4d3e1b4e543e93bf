"""Who works at what, where several replicas share the work: the policy alone, as a pure function.

Each replica decides for itself, from what the store shows of all: it gives back what it has above
its share and takes what is free up to its share. Shares differ by one at most; who has most already
has the larger ones, so that nothing moves that need not. Each kind of work (`source`,
`destination`, …) is shared out by itself, as one kind says nothing about what another costs.

Nothing here knows a clock, the store, or what a unit is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from zlib import crc32


@dataclass(frozen=True, slots=True)
class Moves:
    """What a replica has to do: units to give back when they rest, and to try to take, of each
    kind at most so many."""

    give: frozenset[str]
    take: Mapping[str, tuple[Collection[str], int]]


def kind_of(unit: str) -> str:
    """The kind of a unit: its first word (`otel_alloy.checkpoint.database`)."""
    return unit.partition(" ")[0]


def shares(held: Mapping[str, int], units: int) -> dict[str, int]:
    """How many of so many units each replica is to have; `held`: how many each has, also
    those that have none."""
    least, more = divmod(units, len(held))
    first = sorted(held, key=lambda name: (-held[name], crc32(name.encode()), name))
    return {name: least + (place < more) for place, name in enumerate(first)}


def moves(
    me: str,
    units: Collection[str],
    owners: Mapping[str, str],
    live: Collection[str],
    overdue: Collection[str] = (),
) -> Moves:
    """What `me` has to do. `units`: all that it knows of; `owners`: who validly holds which of
    them, by unit, those held longest first; `live`: the replicas that take part. `overdue`: what
    nobody has taken for long, although it is free, as where only some replicas know it: it is
    taken, whatever the share."""
    give: set[str] = set()
    take: dict[str, tuple[Collection[str], int]] = {}
    by_kind: dict[str, list[str]] = {}
    for unit in units:
        by_kind.setdefault(kind_of(unit), []).append(unit)
    for kind, all_of_kind in by_kind.items():
        known = set(all_of_kind)
        held = Counter({name: 0 for name in {me, *live}})
        held.update(owner for unit, owner in owners.items() if unit in known and owner in held)
        share = shares(held, len(known))[me]
        mine = [unit for unit, owner in owners.items() if owner == me and unit in known]
        give.update(mine[: max(0, len(mine) - share)])
        free = [unit for unit in all_of_kind if unit not in owners]
        late = [unit for unit in free if unit in overdue]
        if late or (free and len(mine) < share):
            take[kind] = (free, share - len(mine)) if len(mine) < share else (late, len(late))
    return Moves(frozenset(give), take)


def rest_seconds(lease: float, expires: Collection[float], chance: float) -> float:
    """For how long to rest until the next look, with leases of so many seconds: a third of that, or
    until just after the next of others' leases expires, in so many seconds each. `chance`, in
    [0, 1), spreads replicas that would look at the same moment."""
    regular = lease / 3 * (0.8 + 0.2 * chance)
    soon = min((left for left in expires if left >= 0), default=lease)
    return min(regular, soon + lease / 15 * (0.1 + 0.9 * chance))
