"""Guarantees of `routing.headers`: what a customer is called cannot leave its place in a header,
and no two customers share one."""

from __future__ import annotations

import re
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_alloy.routing.headers import MISSING, Template, escaped

NAMES = ("user.id", "team.id")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("68110feaa81a0e507fbdd36a", "68110feaa81a0e507fbdd36a"),
        ("u_17-a.b", "u_17-a.b"),
        ("a\r\nX-Scope-OrgID: b", "a!0D!0AX-Scope-OrgID!3A!20b"),
        ("a\nb", "a!0Ab"), ("a\x00b", "a!00b"), ("\x7f", "!7F"), ("\u2028", "!E2!80!A8"),
        ("a|b", "a!7Cb"),  # two tenants at once, for Grafana's backends
        ("a:b", "a!3Ab"), ("../other", "..!2Fother"), (".", "!2E"), ("..", "!2E."),
        ("a,b", "a!2Cb"), ("a b", "a!20b"), (" a", "!20a"), ("a=b;c", "a!3Db!3Bc"),
        ("ann@example.com", "ann!40example.com"), ("Ann Müller", "Ann!20M!C3!BCller"),
        ("ａ", "!EF!BD!81"), ("\ud800", "!ED!A0!80"), ("%0d%0a", "!250d!250a"),
        ("!none", "!21none"), ("!40", "!2140"), ("{user.id}", "!7Buser.id!7D"), ("none", "none"),
        (None, "!none"),
        ("x" * 100, "x" * 100),
        ("x" * 101, f"!sha256-{sha256(b'x' * 101).hexdigest()}"),
    ],
)  # fmt: skip
def test_how_values_are_written(value: str | None, written: str) -> None:
    """Each byte that could mean something is escaped, and the usual id is as it was."""
    assert escaped(value) == written


values = st.none() | st.text(max_size=150) | st.text("!.a0|\r\nEnone2", max_size=12)


@given(values, values)
def test_no_two_values_are_written_alike(one: str | None, two: str | None) -> None:
    """Whatever they hold; and all that is written is what tenants may be called."""
    assert (escaped(one) == escaped(two)) == (one == two)
    assert re.fullmatch(r"[A-Za-z0-9_.!-]{0,100}", escaped(one))
    assert escaped(one) not in (".", "..")
    assert (escaped(one) == MISSING) == (one is None)


@given(*([st.none() | st.text("ab*!|", max_size=3)] * 4))
def test_two_fields_are_told_apart(
    a: str | None, b: str | None, c: str | None, d: str | None
) -> None:
    """A header of two fields is that of one pair of values only."""
    header = Template.of("X-Scope-OrgID", "t-{team.id}*{user.id}", NAMES)
    one = header.fill({"user.id": a, "team.id": b})
    two = header.fill({"user.id": c, "team.id": d})
    assert header.name == "x-scope-orgid" and one.startswith("t-")
    assert (one == two) == ((a, b) == (c, d))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("X-Scope-OrgID", "{team}", "resource_per, which holds user.id, team.id"),
        ("X-Scope-OrgID", "{workflow.id}", "not named in resource_per"),
        ("X-Scope-OrgID", "acme", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("X-Scope-OrgID", "{user.id", "braces around no field"),
        ("X-Scope-OrgID", "{{user.id}}", "braces around no field"),
        ("X-Scope-OrgID", "{}", "not named"),
        ("X-Scope-OrgID", "a\r\nb: {user.id}", "control characters"),
        ("X-Scope-OrgID", "ä{user.id}", "outside ASCII"),
        ("X-Scope-OrgID", " {user.id}", "space"),
        ("X-Scope-OrgID", "{user.id}{team.id}", "too close"),
        ("X-Scope-OrgID", "{user.id}-{team.id}", "too close"),
        ("X-Scope-OrgID: a\r\nX", "{user.id}", "can be no header's name"),
        ("", "{user.id}", "can be no header's name"),
        ("X Y", "{user.id}", "can be no header's name"),
        (":authority", "{user.id}", "can be no header's name"),
        ("x-bin", "{user.id}", "can be no header's name"),
        ("grpc-timeout", "{user.id}", "can be no header's name"),
        ("Host", "{user.id}", "belongs to the request itself"),
        ("content-length", "{user.id}", "belongs to the request itself"),
        ("Transfer-Encoding", "{user.id}", "belongs to the request itself"),
    ],
)
def test_mistakes(name: str, value: str, words: str) -> None:
    """What can be no header, or would not tell customers apart, is said with the remedy."""
    with pytest.raises(ValueError, match=re.escape(words)):
        Template.of(name, value, NAMES)
