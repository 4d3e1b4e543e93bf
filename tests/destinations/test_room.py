"""How much room there is: no more than allowed stays, and those with the most give way first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_alloy.checkpoint.outbox import Backlog
from otel_alloy.destinations.room import Room, rooms

sizes = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 10_000))


@given(sizes, st.integers(1, 8_000), st.integers(1, 20_000))
def test_what_stays_is_within_what_is_allowed(
    given_sizes: dict[str, int], one: int, total: int
) -> None:
    """Of each and of all; and nobody gives way who has less than another may keep."""
    backlogs = {name: Backlog(1, size, oldest=10) for name, size in given_sizes.items()}
    found = rooms(backlogs, Room(one, total, 60.0), before=5)
    kept = {name: min(size, found.get(name, size)) for name, size in given_sizes.items()}
    assert all(size <= one for size in kept.values())
    assert sum(kept.values()) <= total
    cut = [kept[name] for name in found]
    spared = [size for name, size in given_sizes.items() if name not in found]
    assert not cut or not spared or max(spared) <= max(cut) / 0.9 + 2


def test_who_waits_too_long_makes_room_for_that() -> None:
    """Whatever is older than allowed goes, however little it is."""
    backlogs = {"old": Backlog(1, 10, oldest=4), "new": Backlog(1, 10, oldest=5)}
    assert list(rooms(backlogs, Room(100, 100, 60.0), before=5)) == ["old"]
