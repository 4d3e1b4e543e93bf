"""Alloy's timestamps as integers, held against `datetime`."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otel_alloy.alloy.timestamps import object_id_ns, to_ms, to_ns, to_text

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
LAST = datetime(2262, 4, 11, tzinfo=UTC)

zones = st.builds(lambda minutes: timezone(timedelta(minutes=minutes)), st.integers(-1439, 1439))
moments = st.datetimes(EPOCH.replace(tzinfo=None), LAST.replace(tzinfo=None), timezones=zones)


def nanoseconds(moment: datetime) -> int | None:
    ns = (moment - EPOCH) // MICROSECOND * 1000
    return ns if 0 < ns < 2**63 else None


@given(moments)
@example(datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC))
def test_every_iso_form_is_what_datetime_says(moment: datetime) -> None:
    """Whatever form `datetime` writes (fractions of 0, 3 or 6 digits, any offset, blank or T)
    is read to the same nanosecond, the fast form of Alloy among them."""
    expected = nanoseconds(moment)
    for text in (moment.isoformat(), moment.isoformat(" "), f" {moment.isoformat()} "):
        assert to_ns(text) == expected
    utc = moment.astimezone(UTC)
    assert to_ns(utc.replace(tzinfo=None).isoformat()) == expected  # no offset: UTC
    assert to_ns(utc.replace(tzinfo=None).isoformat() + "Z") == expected
    whole_ms = utc.replace(microsecond=utc.microsecond // 1000 * 1000, tzinfo=None)
    text = whole_ms.isoformat(timespec="milliseconds") + "Z"
    assert len(text) == 24 and to_ns(text) == nanoseconds(whole_ms.replace(tzinfo=UTC))


@given(st.integers(1, 9_000_000_000_000))
def test_text_and_milliseconds_round_trip(ms: int) -> None:
    """What we write into a filter is the form that Alloy writes, and reads back as the same ms."""
    text = to_text(ms)
    assert to_ms(text) == ms and len(text) == 24 and text[10] == "T" and text[-1] == "Z"


@given(
    st.text() | st.none() | st.booleans() | st.lists(st.integers()) | st.integers() | st.floats()
)
def test_anything_gives_a_time_that_otlp_can_hold_or_none(value: Any) -> None:
    """No JSON value raises; what comes out fits signed 64-bit nanoseconds after 1970."""
    ns = to_ns(value)
    assert ns is None or 0 < ns < 2**63


@pytest.mark.parametrize(
    ("value", "ns"),
    [
        (1_745_948_650, 1_745_948_650_000_000_000),  # seconds
        (1_745_948_650.5, 1_745_948_650_500_000_000),
        (1_745_948_650_336, 1_745_948_650_336_000_000),  # milliseconds
        ("1745948650336", 1_745_948_650_336_000_000),
        ("1712010512345", 1_712_010_512_345_000_000),  # looks like a day in 1712
        ("1745948650", 1_745_948_650_000_000_000),
        ("20250429", 1_745_884_800_000_000_000),  # a day
        ("2025-04-29", 1_745_884_800_000_000_000),
        ("20250429T174410Z", 1_745_948_650_000_000_000),
        ("2025-04-29T24:00:00.000Z", None),  # midnight to Python since 3.14
        ("2025-04-29T24:00Z", None),
        ("2025-04-24T00:24:24Z", 1_745_454_264_000_000_000),
        ("2025-04-29T17:44:60.336Z", None),
        ("2025-02-30T17:44:10.336Z", None),
        ("2025-04-29T17:44:1a.336Z", None),
        ("0001-01-01T00:00:00.000Z", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59.999Z", None),
        ("1970-01-01T00:00:00.000Z", None),
        ("", None),
        ("Invalid Date", None),
        (True, None),
        (0, None),
        (-1, None),
        (float("nan"), None),
        (float("inf"), None),
        ({"$date": 1}, None),
    ],
)
def test_odd_forms(value: object, ns: int | None) -> None:
    """Numbers are seconds or milliseconds by their size, as text too; the rest is no time."""
    assert to_ns(value) == ns
    assert to_ms(value) == (None if ns is None else ns // 1_000_000)


def test_the_second_in_an_object_id() -> None:
    """An ObjectId tells when it was made; another id tells nothing."""
    assert object_id_ns("68110feaa81a0e507fbdd36a") == 1_745_948_650_000_000_000
    for other in (None, "", "35SnGU0DUSNP5L26fsmnq", "z" * 24, "0" * 24, "68110feaa81a0e507fbdd36"):
        assert object_id_ns(other) is None
