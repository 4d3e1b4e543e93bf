"""Guarantees of `durations.retry_after`, which reads what Alloy and OTLP endpoints ask for."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_alloy.durations import http_date, retry_after

SENT = "Wed, 21 Oct 2026 07:28:00 GMT"
NOW = 1_792_567_680.0 + 86_400  # a day after SENT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("1.5", 1.5),
        ("9" * 400, 1e9),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wednesday, 21-Oct-26 07:28:30 GMT", 30.0),
        ("Wed Oct 21 07:28:30 2026", 30.0),
        ("Wed, 21 Oct 2026 07:28:30 -0000", 30.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 1e9),
        ("Mon, 01 Jan 0001 00:00:00 +1400", 0.0),
        ("-3", None),
        ("+3", None),
        ("1e3", None),
        ("1e400", None),
        ("nan", None),
        ("inf", None),
        ("٣", None),
        ("1_0", None),
        ("soon", None),
        ("Wed, 21 Oct 0 07:28:30 GMT", 0.0),
        ("Wed, 21 Oct 99999999999999999999 07:28:30 GMT", None),
        ("Wed, 21 Oct 2026 07:28:30 +99999999999999999999", None),
        ("9" * 10**6, None),
        ("Wed, " * 200_000, None),
        ("", None),
        (None, None),
    ],
)
def test_both_forms_are_understood_and_the_rest_is_none(
    value: str | None, seconds: float | None
) -> None:
    """A number or one of HTTP's three forms of a date, by the sender's own clock (RFC 9110)."""
    begun = time.monotonic()
    assert retry_after(value, date=SENT, now=NOW) == seconds
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_without_a_date_of_the_answer_our_clock_serves(date: str | None) -> None:
    """`now` is used only where the answer does not tell its own time."""
    sent = datetime.fromtimestamp(NOW + 30, UTC)
    assert retry_after(format_datetime(sent, usegmt=True), date=date, now=NOW) == 30.0


PARTS = st.sampled_from(
    ["Wed,", "21", "Oct", "2026", "07:28:00", "GMT", "-0000", "+9999", "0", "99999999999", "-", ":"]
)
TEXTS = st.text(st.characters(codec=None)) | st.lists(PARTS).map(" ".join)


@given(value=TEXTS, date=st.none() | TEXTS, now=st.floats(0, 4e9))
def test_no_text_makes_it_fail(value: str, date: str | None, now: float) -> None:
    """Whatever a server sends: seconds within the documented bounds, or None."""
    seconds = retry_after(value, date=date, now=now)
    assert seconds is None or 0 <= seconds <= 1e9


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)))
def test_every_date_is_read_back(moment: datetime) -> None:
    """What the standard library writes as an HTTP-date is the same moment again."""
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    written = format_datetime(moment, usegmt=True)
    read = http_date(written)
    assert read == moment.timestamp() or moment.year < 100  # two digits mean a nearby century
