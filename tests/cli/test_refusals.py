"""Refusals that are not about the key, and moments in the future, as people meet them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from otel_alloy.testing.otlp_endpoint import Received

if TYPE_CHECKING:
    from conftest import Place


@pytest.mark.parametrize(
    ("outage", "words"),
    [("challenge", "with a page for browsers"), ("403:1", "and when to come back")],
)
def test_a_challenge_at_the_first_request_passes(place: Place, outage: str, words: str) -> None:
    """A 403 that is a proxy's, or says when to come back, is not about the key: `run --once` waits
    for it, says so, and delivers."""
    records = place.fill(5)
    place.alloy.script(outage, outage)
    done = place.once()
    assert words in done.err and "it says nothing of the API key" in done.err
    assert "Alloy answers again, after 2 failed attempts" in done.err
    place.assert_exactly_once(place.ended(records))


@pytest.mark.parametrize("outage", ["challenge", "challenge:60", "403:30", "401:5"])
def test_check_tells_a_challenge_from_a_refused_key(place: Place, outage: str) -> None:
    """Exit code 1, not 3, and another part than the key."""
    place.fill(5)
    place.alloy.configure(outage=outage)
    done = place.command("check", "--json")
    assert done.code == 1
    (finding,) = [f for f in json.loads(done.out)["findings"] if f["ok"] is False]
    assert finding["part"].endswith("request") and "nothing of the API key" in finding["answer"]


def test_check_where_a_key_is_refused_after_it_was_accepted(place: Place) -> None:
    """It is told as what it is, and not as a wrong key."""
    place.fill(50)
    place.alloy.script(None, None, "401")
    done = place.command("check", "--json")
    assert done.code == 1
    assert "after good answers with the same key" in done.out


@pytest.mark.parametrize(
    "knobs",
    [
        {"min_limit": 10},
        {"min_limit": 30},
        {"min_limit": 10, "max_limit": 40, "over_limit": "refuse"},
        {"refuse_filters": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("command", ["run", "backfill", "summary"])
def test_an_api_that_refuses_what_others_take(
    place: Place, knobs: dict[str, object], command: str
) -> None:
    """A least page size, a largest one, no filters at all: another shape is found, and all is
    read."""
    records = place.fill(60, days=1)
    place.alloy.configure(**knobs)
    words = {
        "run": ["run", "--once", "--since", "60d"],
        "backfill": ["backfill", "--from", "60d"],
        "summary": ["summary", "--since", "60d", "--json"],
    }[command]
    done = place.command(*words)
    assert done.code == 0, done.err
    if command == "summary":
        assert json.loads(done.out)["all"]["executions"] == len(set(place.ended(records)))
    else:
        place.assert_exactly_once(place.ended(records))
    if "over_limit" not in knobs:
        check = place.command("check", "--json")
        assert check.code == 0, check.out


def test_one_400_to_the_probe_is_not_taken_as_final(place: Place) -> None:
    """Once, for whatever reason."""
    records = place.fill(30)
    place.alloy.script(None, "400")
    place.once()
    place.assert_exactly_once(place.ended(records))


def test_once_holds_for_a_while(place: Place) -> None:
    """A key that is refused after it was accepted: held for at most a minute, then exit code 3; the
    same command goes on from what was settled."""
    records = place.fill(30)
    place.environment["OTEL_ALLOY_PAGE_SIZE"] = "10"
    place.environment["OTEL_ALLOY_BATCH_SIZE"] = "5"

    def refuse(received: Received) -> None:
        place.alloy.configure(outage="401")

    place.judge = refuse
    done = place.command("run", "--once", "--since", "60d")
    assert done.code == 3
    assert "held: trying again in" in done.err and "check ALLOY_API_KEY" in done.err
    place.judge = lambda received: None
    place.alloy.configure(outage=None)
    place.once()
    place.assert_exactly_once(place.ended(records))


# Moments in the future ---------------------------------------------------------------------------


def test_a_checkpoint_is_not_set_into_the_future(place: Place) -> None:
    """Refused with the remedy; with --force it is set, and `run` says so and how to mend it."""
    records = place.fill(5)
    place.once()
    refused = place.command("checkpoint", "set", "default", "2100-01-01")
    assert refused.code == 2
    assert "lies in the future" in refused.err and "--force" in refused.err
    shown = place.command("checkpoint", "show").out
    assert "2100" not in shown
    assert place.command("checkpoint", "set", "default", "2100-01-01", "--force").code == 0
    run = place.command("run", "--once")
    assert run.code == 1
    assert "otel-alloy checkpoint set default 6h" in run.err and "Traceback" not in run.err
    before = place.otlp.log_record_count
    assert place.command("checkpoint", "set", "default", records[-1]["createdAt"]).code == 0
    assert place.command("run", "--once").code == 0
    assert place.otlp.log_record_count == before + 1  # the last one again


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--once", "--since", "2100-01-01"],
        ["tail", "--since", "2100-01-01"],
        ["summary", "--since", "2100-01-01"],
        ["backfill", "--from", "2100-01-01"],
    ],
    ids=lambda words: words[0],
)
def test_a_period_that_begins_in_the_future(place: Place, words: list[str]) -> None:
    """Exit code 2, and nothing is written that a later command would go by."""
    records = place.fill(5)
    done = place.command(*words)
    assert done.code == 2, done.err
    assert "2100-01-01" in done.err and "Traceback" not in done.err
    place.once()
    place.assert_exactly_once(place.ended(records))


@pytest.mark.parametrize("hours", [5, -1])
def test_a_backfill_ends_by_the_earlier_clock(place: Place, hours: int) -> None:
    """And says that they differ."""
    import time

    place.now = time.time()
    place.fill(5)
    place.alloy.configure(clock_offset=hours * 3600)
    done = place.command("backfill", "--from", "59d", "--to", "2100-01-01")
    assert done.code == 0, done.err
    assert "the API's clock is" in done.err and "the range ends by the earlier" in done.err
    moment = time.strftime("%Y-%m-%dT%H", time.gmtime(place.now + min(0, hours) * 3600 - 120))
    assert f"ends at {moment}" in done.err


def test_check_compares_the_clocks(place: Place) -> None:
    """A difference is worth a note with what to do about it, and no failure."""
    import time

    place.now = time.time()
    place.fill(5)
    place.alloy.configure(clock_offset=-3600)
    done = place.command("check", "--json")
    assert done.code == 0
    (clock,) = [f for f in json.loads(done.out)["findings"] if f["part"].endswith("clock")]
    assert clock["ok"] is None and "set this machine's clock" in clock["remedy"]
    assert -3610 < clock["facts"]["skew_seconds"] < -3590
