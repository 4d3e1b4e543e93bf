"""`otel-alloy audit`: what Alloy counts beside what is settled; what is missing is delivered."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from otel_alloy.testing.simulator import Traffic, generate, millis

if TYPE_CHECKING:
    from conftest import Place


def late(place: Place, number: int) -> list[str]:
    """Executions of two to six hours ago become visible only now; their ids."""
    records = list(
        generate(
            number,
            start=place.now - 6 * 3600,
            end=place.now - 2 * 3600,
            traffic=Traffic(seed=7, lifecycle="terminal"),
        )
    )
    for record in records:
        place.alloy.store.add(record)
    return place.ended(records)


def found(place: Place, code: int, *words: str) -> dict[str, Any]:
    done = place.command("audit", "--json", *words)
    assert done.code == code, done.err
    result: dict[str, Any] = json.loads(done.out)
    return result


@pytest.mark.parametrize("page", [30, 100])
def test_what_is_missing_is_delivered_and_shown(place: Place, page: int) -> None:
    """After a run of a day's records, late ones are counted, delivered once, and told: the table
    and the document agree, and a second audit finds nothing more."""
    records = place.fill(400, days=1)
    place.alloy.configure(max_limit=page)
    place.once()
    assert found(place, 0)["missing"] == 0
    more = late(place, 40)
    shown = place.command("audit")
    assert shown.code == 0, shown.err
    total = len(records) + 40
    assert f"{total:,} of {total:,} records that Alloy counts are settled." in shown.out
    place.assert_exactly_once([*place.ended(records), *more])
    again = found(place, 0)
    assert sum(one["recovered"] for one in again["stretches"]) == 40
    assert sum(one["settled"] for one in again["stretches"]) == total
    place.once()
    place.assert_exactly_once([*place.ended(records), *more])


def test_what_cannot_be_had_is_said(place: Place) -> None:
    """Records that Alloy counts and never gives: exit code 1, their number and their time."""
    records = place.fill(200, days=1)
    place.once()
    late(place, 3)
    times = sorted(millis(r["createdAt"]) or 0 for r in place.alloy.store.records())
    first = min(t for t in times if t not in {millis(r["createdAt"]) for r in records})
    place.alloy.configure(hidden=(first, first + 1))
    result = found(place, 1)
    assert result["missing"] == 1
    (stretch,) = [one for one in result["stretches"] if one["missing"]]
    assert (millis(stretch["start"]) or 0) <= first < (millis(stretch["before"]) or 0)
    place.alloy.configure(hidden=None)
    assert found(place, 0)["missing"] == 0


def test_beside_a_run_it_only_compares(place: Place) -> None:
    """A run holds the checkpoint: the audit counts, delivers nothing, and says who will."""
    place.fill(100, days=1)
    place.once()
    asked = len(place.alloy.requests)
    run = place.start("run", OTEL_ALLOY_AUDIT="off")
    while len(place.alloy.requests) == asked:
        assert run.poll() is None
    late(place, 5)
    sent = place.otlp.request_count
    done = place.command("audit")
    assert (done.code, place.otlp.request_count) == (1, sent), done.err
    assert "a run is active" in done.err and "5 are missing" in done.out
    run.terminate()
    place.end(run)


@pytest.mark.parametrize("knobs", [{"total_items": "all"}, {"ignore_filters": True}])
def test_an_api_that_does_not_count(place: Place, knobs: dict[str, Any]) -> None:
    """Completeness that cannot be shown is not claimed: exit code 1, and why."""
    place.fill(100, days=1)
    place.alloy.configure(**knobs)
    place.once()
    done = place.command("audit")
    assert done.code == 1
    assert "does not count" in done.out and "missing" not in done.out.splitlines()[-1]


def test_before_the_first_run_there_is_nothing_to_audit(place: Place) -> None:
    """It says so, and makes no checkpoint."""
    done = place.command("audit")
    assert done.code == 0 and "no checkpoint yet" in done.out
    assert not place.storage.exists()
