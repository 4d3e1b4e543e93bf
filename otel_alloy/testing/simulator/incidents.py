"""Why failures cluster: an app that is down for a while, and a user's connection that has expired.

Both follow from the account (its ``teamId``), the app, the user and the time alone, so that what
makes an execution fail and what tells the reason agree without anything being stored. How often an
incident makes one fail is decided in ``data``, what it says in ``inside``. Pure.
"""

import random
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple

Kind = Literal["down", "expired"]


class Incident(NamedTuple):
    """An app that is down, or that a user's connection does not reach any more."""

    kind: Kind
    app: str


class _Rhythm(NamedTuple):
    """In each stretch of ``slot`` ms there is, with the chance ``share``, one time of ``length`` ms
    in which it is so."""

    slot: int
    share: float
    length: int

    @property
    def part(self) -> float:
        """The part of all time in which it is so."""
        return self.share * self.length / self.slot


_HOUR = 3_600_000
_DOWN = _Rhythm(_HOUR, 0.08, _HOUR // 5)
_EXPIRED = _Rhythm(6 * _HOUR, 0.02, 3 * _HOUR)
_APPS = 2
"""How many apps a workflow calls."""
AFFECTED = 1 - (1 - _DOWN.part - _EXPIRED.part) ** _APPS
"""The share of all executions that fall into an incident."""


def incident_of(team: str, user: str, apps: Iterable[str], at: int) -> Incident | None:
    """What an execution falls into that starts at ``at`` (ms), the first that there is."""
    for app in apps:
        if _within(_DOWN, f"down:{team}:{app}", at):
            return Incident("down", app)
        if _within(_EXPIRED, f"expired:{team}:{user}:{app}", at):
            return Incident("expired", app)
    return None


def _within(rhythm: _Rhythm, what: str, at: int) -> bool:
    slot, place = divmod(at, rhythm.slot)
    begin = _begin(rhythm, what, slot)
    return begin is not None and begin <= place < begin + rhythm.length


@lru_cache(maxsize=4096)
def _begin(rhythm: _Rhythm, what: str, slot: int) -> int | None:
    """When in this slot it begins; ``None`` where it does not."""
    rng = random.Random(f"{what}:{slot}")
    if rng.random() >= rhythm.share:
        return None
    return rng.randrange(rhythm.slot - rhythm.length)
