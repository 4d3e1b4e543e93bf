"""One API key's request budget, shared by replicas in a real PostgreSQL."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from otel_alloy.alloy.retry import BURST, Budget, PartOfBudget
from otel_alloy.checkpoint.shared_budget import SharedBudget, account_hash
from otel_alloy.errors import ShutdownRequested
from otel_alloy.runtime import system_runtime
from otel_alloy.testing.postgres_server import PostgresServer, installed_servers

from .counted import CountedDatabase

if TYPE_CHECKING:
    from conftest import Servers

PATIENCE = 60.0
RATE = 100
KEY = account_hash("https://alloy.example", "a secret key")


def sending_times(budgets: list[SharedBudget], each: int) -> list[float]:
    """When requests may be sent that so many budgets give at the same time; sorted."""
    clock = system_runtime().monotonic
    moments: list[float] = []

    def take(budget: SharedBudget) -> None:
        for _ in range(each):
            seconds = budget.take()
            moments.append(clock() + seconds)

    threads = [threading.Thread(target=take, args=[budget]) for budget in budgets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return sorted(moments)


def assert_within(moments: list[float], rate: float, burst: float) -> None:
    """In no stretch of time are there more than its share and the burst; what the database gave may
    come a second late."""
    for at, begin in enumerate(moments):
        for seconds in (0.1, 1.0, 3.0):
            sent = bisect_left(moments, begin + seconds) - at
            assert sent <= burst + rate * (seconds + 1)


def test_replicas_together_keep_to_the_budget(database: CountedDatabase) -> None:
    """Four replicas that ask as fast as they can get what the budget gives in all, no stretch of
    time has more, and it takes far fewer statements than requests."""
    budgets = [SharedBudget(lambda: database, KEY, RATE * 60, system_runtime()) for _ in range(4)]
    moments = sending_times(budgets, 150)
    assert len(moments) == 600
    assert_within(moments, RATE, BURST)
    assert moments[-1] - moments[0] >= (600 - BURST) / RATE - 0.5
    assert moments[-1] - moments[0] <= 600 / RATE + 4  # nearly nothing of it is wasted
    assert database.transactions < 100


def test_a_key_is_known_by_its_hash_alone(database: CountedDatabase) -> None:
    """Other keys have budgets of their own, and no key can be read in the database."""
    one = SharedBudget(lambda: database, KEY, 1, system_runtime())
    others = account_hash("https://alloy.example", "other")
    other = SharedBudget(lambda: database, others, 1, system_runtime())
    assert one.take() == 0.0
    assert one.take() > 30 and one.due() > 30
    assert other.due() == 0.0 and other.take() == 0.0
    rows = database.read("SELECT account FROM request_budget")
    assert len(rows) == 2 and not any("secret" in account for (account,) in rows)


@pytest.mark.parametrize("per_minute", [0, 60])
def test_what_alloy_holds_back_is_held_back_by_all(
    database: CountedDatabase, per_minute: int
) -> None:
    """A Retry-After that one replica got makes the others wait, also where no limit is set, and
    what is part of the budget too."""
    one = SharedBudget(lambda: database, KEY, per_minute, system_runtime())
    other = SharedBudget(lambda: database, KEY, per_minute, system_runtime())
    part: Budget = PartOfBudget(other, 10, system_runtime())
    one.hold(30.0)
    one.hold(5.0)
    assert 25 < one.take() <= 30 and 25 < other.take() <= 30.1 and 25 < part.take() <= 30.1
    assert 25 < other.due() <= 30.1


def test_a_lower_rate_of_its_own(database: CountedDatabase) -> None:
    """A backfill beside a run keeps to half of what is shared."""
    budget = SharedBudget(lambda: database, KEY, RATE * 60, system_runtime())
    budget.change(RATE * 60 // 2)
    moments = sending_times([budget], 200)
    assert moments[-1] - moments[0] >= (200 - BURST) / (RATE / 2) - 0.5


def test_without_the_database_nothing_is_sent(
    servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    """While the database does not answer, a request waits for it, and the log says so; the end of
    the process is not held up by that."""
    servers.server()  # or there is none here
    server = PostgresServer(next(iter(installed_servers().values()))).start()
    database = CountedDatabase(server.url)
    server.kill()
    machine = system_runtime()
    waited, up = threading.Event(), threading.Event()

    def wait(seconds: float) -> bool:
        waited.set()
        return not up.wait(PATIENCE)

    budget = SharedBudget(lambda: database, KEY, 60, replace(machine, wait=wait))
    got: list[float] = []
    thread = threading.Thread(target=lambda: got.append(budget.take()))
    with caplog.at_level(logging.WARNING, logger="otel_alloy"):
        thread.start()
        assert waited.wait(PATIENCE) and not got
    assert "no request may be sent without the budget" in caplog.text
    ending = SharedBudget(lambda: database, KEY, 60, replace(machine, wait=lambda seconds: True))
    with pytest.raises(ShutdownRequested):
        ending.take()
    server.start()
    up.set()
    thread.join(PATIENCE)
    assert got == [0.0]
    database.close()
    server.stop()
