"""Guarantees of `outcome` and `answers`: bounded words, understood waits."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_alloy.otlp.answers import delivered, retry_after, status_of
from otel_alloy.otlp.outcome import MAX_REASON, Kind, Outcome

from .far_end import status


@given(st.text(st.characters(codec=None), max_size=5000))
def test_a_reason_is_one_short_printable_line(text: str) -> None:
    """Whatever a far end says can be logged: bounded, one line, encodable."""
    reason = Outcome(Kind.RETRY, text).reason
    assert len(reason) <= MAX_REASON
    assert reason.isprintable()
    reason.encode("utf-8")


def test_a_cut_reason_shows_that_it_was_cut() -> None:
    """A long reason ends with a visible mark."""
    assert Outcome(Kind.RETRY, "x" * 301).reason == "x" * 299 + "…"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0.0),
        ("Wed, 21 Oct 2026 07:28:30 -0000", 30.0),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_in_both_forms(value: str | None, seconds: float | None) -> None:
    """Seconds and HTTP-dates are understood, dates by the far end's own clock; the rest is None."""
    assert retry_after(value, "Wed, 21 Oct 2026 07:28:00 GMT") == seconds


def test_retry_after_as_a_date_without_a_date_header() -> None:
    """Without the far end's clock ours serves: a moment long past means now."""
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


@given(st.binary(max_size=200))
def test_no_answer_makes_the_readers_fail_otherwise(body: bytes) -> None:
    """Any bytes give a result or the documented ValueError, nothing else."""
    status_of(body)
    with suppress(ValueError):
        assert delivered("traces", body).kind is Kind.DELIVERED


def test_status_with_retry_info() -> None:
    """Words and delay of a google.rpc.Status are read."""
    assert status_of(status("calm down", 2.5)) == ("calm down", 2.5)
    assert status_of(status("no")) == ("no", None)
