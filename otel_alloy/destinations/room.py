"""How much may lie in the outbox, and for whom there is how much room when it is too much. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from otel_alloy.checkpoint.outbox import Backlog

_LOWER = 0.9
"""Down to this part of what is allowed, so that not every execution makes room for the next."""


@dataclass(frozen=True, slots=True)
class Room:
    """`max_bytes`: of one destination, `total_bytes`: of all together; `max_age`: seconds."""

    max_bytes: int
    total_bytes: int
    max_age: float


def rooms(backlogs: Mapping[str, Backlog], room: Room, before: int) -> dict[str, int]:
    """For each destination that has to make room: how many bytes it may keep. Those with the most
    make it first. `before`: what came into the outbox before that moment (Unix ms) has to go."""
    found: dict[str, int] = {}
    level = _level([one.bytes for one in backlogs.values()], room.total_bytes)
    for name, one in backlogs.items():
        allowed = min(room.max_bytes, level)
        if one.bytes > allowed:
            found[name] = int(allowed * _LOWER)
        elif one.oldest is not None and one.oldest < before:
            found[name] = allowed
    return found


def _level(sizes: list[int], total: int) -> int:
    """The most that each may have, so that all together have no more than `total`."""
    left = total
    for number, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - number)
        if size > share:
            return share
        left -= size
    return total
