"""Guarantees of `outcome` and `answers`: bounded words, understood waits."""

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from otel_alloy.otlp.messages import delivered, status_of
from otel_alloy.otlp.outcome import MAX_REASON, Kind, Outcome

from .otlp_servers import status


@given(st.text(st.characters(codec=None), max_size=5000))
def test_a_reason_is_one_short_printable_line(text: str) -> None:
    """Whatever an endpoint says can be logged: bounded, one line, encodable."""
    reason = Outcome(Kind.RETRY, text).reason
    assert len(reason) <= MAX_REASON
    assert reason.isprintable()
    reason.encode("utf-8")


def test_a_cut_reason_shows_that_it_was_cut() -> None:
    """A long reason ends with a visible mark."""
    long = "x" * (MAX_REASON + 1)
    assert Outcome(Kind.RETRY, long).reason == long[: MAX_REASON - 1] + "…"


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
