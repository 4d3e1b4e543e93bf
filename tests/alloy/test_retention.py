"""A gap, which is what Alloy removed before it was read: told once where there may be one, whatever
the API makes of our requests, and never where a source or an account was only silent."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_alloy.alloy.retention import QUIET_MS
from otel_alloy.observability.metrics import GAP, Telemetry
from otel_alloy.observability.status import Status
from otel_alloy.pipeline.events import GapFound, Settled, tell_all
from otel_alloy.pipeline.receiver import Receiver
from otel_alloy.runtime import system_runtime
from otel_alloy.testing.simulator import iso

if TYPE_CHECKING:
    from conftest import Place

DAY = 86400.0
KEPT = 60 * DAY


class Account:
    """A `Place` whose Alloy forgets after 60 days, and a receiver that is started now and then."""

    def __init__(self, place: Place, **knobs: Any) -> None:
        self.place = place
        self.settings: dict[str, Any] = {}
        self.gaps: list[GapFound] = []
        self.status = Status(["default"], max_lag=900, runtime=system_runtime())
        self._number = 0
        place.alloy.configure(retention=KEPT, **knobs)

    def add(self, ago: float = 3600.0, user: str = "somebody") -> float:
        """An execution that ended so many seconds ago; its createdAt in seconds."""
        self._number += 1
        created = self.place.now - ago
        at = iso(round(created * 1000))
        self.place.alloy.store.add(
            {
                "_id": f"e{self._number}",
                "message": "executionFinished",
                "data": {"executionId": f"e{self._number}"},
                "userId": user,
                "startedAt": at,
                "completedAt": at,
                "createdAt": at,
            }
        )
        return created

    def receive(self, after: float = 0.0) -> int:
        """Lets time pass, then starts the receiver for one cycle; how many gaps it found."""
        self.place.now += after
        before = len(self.gaps)

        def note(event: object) -> None:
            if isinstance(event, GapFound):
                self.gaps.append(event)

        settings = self.place.settings(**self.settings)
        Receiver(settings, observe=tell_all(note, self.status)).run(once=True)
        return len(self.gaps) - before


@pytest.fixture
def account(place: Place) -> Account:
    return Account(place)


@pytest.fixture
def errors() -> Iterator[list[str]]:
    """The lines of the log at ERROR, so far."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Handler(logging.ERROR)
    logging.getLogger("otel_alloy").addHandler(handler)
    yield lines
    logging.getLogger("otel_alloy").removeHandler(handler)


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({}, True),
        ({"max_limit": 2}, True),
        ({"ignore_sort_order": True}, True),
        ({"ignore_filters": True}, True),
        ({"created_at_filter": "nothing"}, True),
        ({"ignore_filters": True, "ignore_sort_order": True}, False),
        ({"created_at_filter": "nothing", "ignore_sort_order": True}, False),
    ],
)
def test_a_pause_longer_than_alloy_keeps(
    place: Place, errors: list[str], knobs: dict[str, Any], told: bool
) -> None:
    """After such a pause the log says once, at ERROR, which time is concerned, what is known, what
    is only possible and what to do; metric and /status have it, and what is left is delivered. An
    API that neither filters nor sorts does not let it be told: then nothing is claimed."""
    account = Account(place, **knobs)
    settled = account.add()
    account.add(ago=5000)
    assert account.receive() == 0
    read = place.now
    place.now += 90 * DAY
    oldest = account.add(ago=40 * DAY)
    for days in (30, 20, 10):
        account.add(ago=days * DAY)
    reader = InMemoryMetricReader()
    telemetry = Telemetry([reader], {}, account.status, sources=["default"])
    assert account.receive() == int(told)
    place.assert_exactly_once(f"e{n}" for n in range(1, 7))
    assert account.receive(after=60) == 0  # once
    assert account.receive(after=2 * DAY) == 0
    shown = account.status.report()["sources"][0]["gap"]
    if not told:
        assert (errors, shown) == ([], None)
        telemetry.close()
        return
    (gap,) = account.gaps
    assert settled * 1000 < gap.after <= read * 1000 + 1000
    assert gap.oldest == round(oldest * 1000)
    (line,) = errors
    for words in (
        f"between {iso(gap.after)} and {iso(gap.oldest)} may be lost",
        "Known: ",
        "Possible, and nobody can tell: ",
        "`otel-alloy check`",
    ):
        assert words in line
    assert (shown["from"], shown["to"]) == (iso(gap.after), iso(gap.oldest))
    telemetry(gap)
    data = reader.get_metrics_data()
    assert data is not None
    metrics = {
        m["name"]: m["data"]["data_points"]
        for m in json.loads(data.to_json())["resource_metrics"][0]["scope_metrics"][0]["metrics"]
    }
    assert metrics[GAP.name][0]["value"] == (gap.oldest - gap.after) / 1000
    telemetry.close()


def test_a_first_reading_that_was_interrupted(place: Place, account: Account) -> None:
    """Where the process dies while it reads for the first time, and what it was to read next is
    removed meanwhile, that is a gap too."""
    for days in (59, 58, 57):
        account.add(ago=days * DAY)
    settings = place.settings(page_size=1, batch_size=1)

    def die(event: object) -> None:
        if isinstance(event, Settled) and event.counts.spans:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Receiver(settings, observe=die).run(once=True)
    place.assert_exactly_once(["e1"])
    assert account.receive(after=2 * DAY + 1) == 1
    (gap,) = account.gaps
    assert (gap.oldest - gap.after) / 1000 == 2 * DAY
    place.assert_exactly_once(["e1", "e3"])


def test_a_shorter_pause(place: Place, account: Account, errors: list[str]) -> None:
    """A record as old as the checkpoint is still there: one more request, and no word."""
    account.add()
    account.receive()
    requests = len(place.alloy.requests)
    assert account.receive(after=30) == 0
    usual = len(place.alloy.requests) - requests
    requests = len(place.alloy.requests)
    place.now += 50 * DAY
    account.add()
    assert account.receive() == 0
    assert len(place.alloy.requests) - requests <= usual + 2
    assert errors == []


def test_a_fresh_start(place: Place, account: Account, errors: list[str]) -> None:
    """Asked for more than Alloy has, with records and without: that is no gap."""
    assert account.receive() == 0
    account.add(ago=59 * DAY)
    account.place.storage.unlink()
    place.alloy.store.remove("e1")
    assert account.receive() == 0
    place.now += 3 * DAY
    account.add(ago=DAY)  # the first one ever
    assert account.receive() == 0
    assert errors == []


def test_a_silent_account(account: Account, errors: list[str]) -> None:
    """Nothing happens for longer than Alloy keeps records, then something does."""
    account.add()
    account.receive()
    for _ in range(10):
        assert account.receive(after=8 * DAY) == 0
    account.add()
    assert account.receive(after=DAY / 2) == 0
    assert errors == []


def test_a_narrow_filter(account: Account, errors: list[str]) -> None:
    """One user does nothing for longer than Alloy keeps records while others do, and the receiver
    is started anew now and then."""
    account.settings = {"user_id": "rare"}
    account.add(user="rare")
    for _ in range(10):
        account.receive()
        account.place.now += 8 * DAY
        account.add(user="busy")
    account.add(user="rare")
    assert account.receive() == 0
    assert errors == []


def test_a_checkpoint_that_was_moved_back(place: Place, account: Account) -> None:
    """Moved by hand to before what Alloy keeps: nothing was settled there, so nothing is told."""
    account.add()
    account.receive()
    moment = iso(round((place.now - 90 * DAY) * 1000))
    assert place.command("checkpoint", "set", "default", moment).code == 0
    account.add(ago=60)
    assert account.receive(after=30) == 0


def test_nothing_is_left(account: Account, errors: list[str]) -> None:
    """An API with nothing in it shows no gap, neither at once nor when the next record comes."""
    account.add()
    account.receive()
    assert account.receive(after=90 * DAY) == 0
    account.add()
    assert account.receive(after=QUIET_MS / 2000) == 0
    assert errors == []


def test_deleted_users(place: Place, account: Account, errors: list[str]) -> None:
    """The executions of one user were deleted, others are as old: no gap."""
    account.add(ago=2 * DAY, user="stays")
    account.add(user="goes")
    account.receive()
    place.alloy.store.remove_user("goes")
    account.add(ago=60)
    assert account.receive(after=5 * DAY) == 0
    assert errors == []


def test_a_running_source_asks_for_nothing_more(place: Place, account: Account) -> None:
    """A source that rests for less than a day never looks for a gap."""
    account.add()
    account.receive()
    before = len(place.alloy.requests)
    account.receive(after=30)
    cost = len(place.alloy.requests) - before
    before = len(place.alloy.requests)
    account.receive(after=QUIET_MS / 1000 - 60)
    assert len(place.alloy.requests) - before == cost
