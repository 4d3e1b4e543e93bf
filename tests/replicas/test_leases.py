"""Leases in a real PostgreSQL: one owner at a time, and no write by any other."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from otel_alloy.checkpoint.leases import Leases, Presence, fence
from otel_alloy.errors import LeaseLost

from .counted import CountedDatabase

UNITS = [f"source s{n:02}" for n in range(40)]
LONG, NONE = 60.0, 0.0
PATIENCE = 60.0


def expire(database: CountedDatabase) -> None:
    """All leases end, as when nobody was there for long."""
    with database.held() as db:
        db.execute("UPDATE lease SET expires_at=clock_timestamp()")


def test_many_who_claim_at_once_share_without_waiting(database: CountedDatabase) -> None:
    """Eight replicas claim at the same moment: each unit has one owner, nobody gets more than it
    asked for, and all units are taken."""
    leases = Leases(database, LONG)
    leases.declare(UNITS)
    leases.declare(UNITS)  # what is there stays
    ready = threading.Barrier(8)
    taken: dict[str, list[str]] = {}

    def claim(owner: str) -> None:
        ready.wait(PATIENCE)
        taken[owner] = [one.unit for one in leases.claim(owner, UNITS, 5)]

    threads = [threading.Thread(target=claim, args=[f"r{n}"]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    taken["last"] = [one.unit for one in leases.claim("last", UNITS, 40)]
    assert all(len(taken[f"r{n}"]) <= 5 for n in range(8))
    assert Counter(unit for units in taken.values() for unit in units) == Counter(UNITS)
    held = {one.unit: one.owner for one in leases.board().leases}
    assert held == {unit: owner for owner, units in taken.items() for unit in units}


def test_taking_over_raises_the_epoch_and_ends_the_old_owner(database: CountedDatabase) -> None:
    """What is held is not taken; what has expired is, with the next epoch; then the old owner can
    neither renew nor write nor give back. What was given back is no takeover."""
    leases = Leases(database, LONG)
    leases.declare(UNITS[:2])
    (first,) = leases.claim("a", UNITS[:1], 1)
    assert (first.epoch, first.after) == (1, None)
    assert not leases.claim("b", UNITS[:1], 1)
    assert leases.renew("a", {UNITS[0]: 17}, None) == {UNITS[0]: 1}
    assert {one.unit: one.settled_to for one in leases.board().leases}[UNITS[0]] == 17
    expire(database)
    assert leases.renew("a", {}, None) == {UNITS[0]: 1}  # nobody was faster
    assert not leases.claim("b", UNITS[:1], 1)
    expire(database)
    (second,) = leases.claim("b", UNITS[:1], 1)
    assert (second.epoch, second.after) == (2, "a")
    assert leases.renew("a", {}, None) == {}
    with pytest.raises(LeaseLost, match="s00"):
        database.transact(lambda db: fence(db, UNITS[0], "a", 1))
    with pytest.raises(LeaseLost):  # its own name does not help, with the old epoch
        database.transact(lambda db: fence(db, UNITS[0], "b", 1))
    leases.release("a", {UNITS[0]: 1})
    database.transact(lambda db: fence(db, UNITS[0], "b", 2))
    leases.release("b", {UNITS[0]: 2})
    (third,) = leases.claim("c", UNITS[:1], 1)
    assert (third.epoch, third.after) == (3, None)


def test_a_transaction_that_is_fenced_is_not_overtaken(database: CountedDatabase) -> None:
    """While the owner's write is not committed, nobody takes the unit over, though its lease has
    expired: claiming passes it by without waiting. Two writes of one owner go side by side."""
    leases = Leases(database, NONE)
    leases.declare(UNITS[:1])
    ((unit, epoch),) = [(one.unit, one.epoch) for one in leases.claim("a", UNITS, 1)]
    with database.held() as one, database.held() as other:
        fence(one, unit, "a", epoch)
        fence(other, unit, "a", epoch)
        assert leases.claim("b", UNITS, 1) == []
    (taken,) = leases.claim("b", UNITS, 1)
    assert taken.epoch == epoch + 1


def test_a_takeover_before_the_write_is_committed_refuses_it(database: CountedDatabase) -> None:
    """A takeover that is under way makes the old owner's write wait, then fail."""
    leases = Leases(database, NONE)
    leases.declare(UNITS[:1])
    leases.claim("a", UNITS, 1)
    failures: list[BaseException] = []

    def write() -> None:
        try:
            database.transact(lambda db: fence(db, UNITS[0], "a", 1))
        except LeaseLost as error:
            failures.append(error)

    with database.held() as db:
        db.execute("UPDATE lease SET owner='b', epoch=2")
        thread = threading.Thread(target=write)
        thread.start()
        waiting = "SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE wait_event_type='Lock'"
        while not database.read(waiting)[0][0]:
            assert thread.is_alive()
    thread.join(PATIENCE)
    assert len(failures) == 1


def test_the_board_tells_who_is_there(database: CountedDatabase) -> None:
    """Replicas are there as long as they are heard; who leaves has given back all that it had."""
    leases = Leases(database, LONG)
    leases.declare(UNITS[:4])
    for name in ("a", "b", "c"):
        leases.renew(name, {}, Presence("1.2", "10.0.0.1:13133"))
        leases.claim(name, UNITS, 1)
    with database.held() as db:
        db.execute(
            "UPDATE replica SET heard_at=heard_at-interval '2 minutes',"
            " started_at=started_at-interval '1 hour' WHERE name='b'"
        )
    leases.leave("c")
    board = leases.board()
    assert [(one.name, one.alive) for one in board.replicas] == [("a", True), ("b", False)]
    assert board.replicas[0].address == "10.0.0.1:13133" and board.replicas[1].age > 3600
    owners: dict[str | None, list[Any]] = {}
    for lease in board.leases:
        owners.setdefault(lease.owner if lease.valid else None, []).append(lease)
    assert {owner: len(some) for owner, some in owners.items()} == {None: 2, "a": 1, "b": 1}
    assert all(one.left <= 0 for one in owners[None])
    with database.held() as db:
        db.execute("UPDATE replica SET heard_at=heard_at-interval '1 day' WHERE name='b'")
    leases.forget()
    assert [one.name for one in leases.board().replicas] == ["a"]
