"""Links made of patterns that the user sets: what is taken, and what they can hold."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_alloy.errors import ConfigurationError
from otel_alloy.links import TraceUrl, UrlPattern
from otel_alloy.settings.loader import load_settings

TRACE, SPAN = bytes(range(16)), bytes(range(8))


@pytest.mark.parametrize(
    ("pattern", "link"),
    [
        ("http://localhost:16686/trace/{trace_id}", f"http://localhost:16686/trace/{TRACE.hex()}"),
        (
            "https://[::1]:3000/t/{trace_id}?uiFind={span_id}#{span_id}",
            f"https://[::1]:3000/t/{TRACE.hex()}?uiFind={SPAN.hex()}#{SPAN.hex()}",
        ),
        ("https://example.com?q=%7B{trace_id}%7D", f"https://example.com?q=%7B{TRACE.hex()}%7D"),
    ],
)
def test_a_pattern_makes_links(pattern: str, link: str) -> None:
    """Ids stand where the pattern has them, in hexadecimal; everything else stays as it is."""
    assert TraceUrl.parse(pattern).link(TRACE, SPAN) == link


@pytest.mark.parametrize(
    ("pattern", "word"),
    [
        ("localhost:16686/trace/{trace_id}", "http://"),
        ("javascript:alert('{trace_id}')", "http://"),
        ("file:///tmp/{trace_id}", "http://"),
        ("https:///trace/{trace_id}", "a host"),
        ("https://user:canary@example.com/{trace_id}", "after the host"),
        ("https://{trace_id}.example.com/", "a host"),
        ("https://example.com{trace_id}", "after the host"),
        ("https://example.com:99999/{trace_id}", "a host"),
        ("https://example.com/trace", "{trace_id} is missing"),
        ("https://example.com/{span_id}", "{trace_id} is missing"),
        ("https://example.com/{traceid}", "{trace_id} or {span_id}"),
        ("https://example.com/{trace_id}/{user.id}", "{trace_id} or {span_id}"),
        ("https://example.com/{{trace_id}}", "%7B"),
        ("https://example.com/{trace_id} x", "percent-encoded"),
        ("https://example.com/{trace_id}\x1b]8;;", "percent-encoded"),
        ("https://example.com/{trace_id}\n", "percent-encoded"),
        ("https://example.com/ü{trace_id}", "percent-encoded"),
        ("https://example.com/%zz{trace_id}", "percent-encoded"),
        (f"https://example.com/{'x' * 1500}{{trace_id}}", "longer than"),
    ],
)
def test_what_is_no_pattern(pattern: str, word: str) -> None:
    """Anything that is no web address with the trace's id is refused at the start, by the name of
    what was set, with what to write instead and without repeating what may be a secret."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings({}, {"ALLOY_API_KEY": "any", "OTEL_ALLOY_TRACE_URL": pattern})
    (mistake,) = caught.value.mistakes
    assert mistake.startswith("OTEL_ALLOY_TRACE_URL: ") and word in mistake
    assert "canary" not in mistake and mistake.isprintable()


def test_it_may_be_empty() -> None:
    """Not set, and set to nothing, there are no links."""
    for value in ({}, {"OTEL_ALLOY_TRACE_URL": ""}):
        assert load_settings({}, {"ALLOY_API_KEY": "any", **value}).traces is None


@given(st.text(min_size=1).filter(lambda text: text not in (".", "..")))
def test_no_value_leaves_its_place(value: str) -> None:
    """Whatever is filled in, the link is printable ASCII without what ends a URL, an escape
    sequence, an attribute or a string, and nothing of the value is a delimiter of URLs."""
    pattern = UrlPattern.parse("https://example.com/a/{one}/b", fields=("one",), required=())
    link = pattern.fill({"one": value})
    assert link is not None and re.fullmatch(r"https://example\.com/a/[A-Za-z0-9._~%-]+/b", link)


def test_a_value_that_is_missing_makes_no_link() -> None:
    """Half a link is none."""
    pattern = UrlPattern.parse("https://example.com/{a}/{b}", fields=("a", "b"), required=())
    for value in ({}, {"b": ""}, {"b": ".."}):
        assert pattern.fill({"a": "1", **value}) is None


@pytest.mark.parametrize(
    ("pattern", "word"),
    [
        ("https://example.com/{workflow.id}", "{execution.id} or {execution.uuid} is missing"),
        ("https://example.com/{execution.id}/{user.email}", "there is no {user.email}"),
        ("ftp://example.com/{execution.id}", "http://"),
    ],
)
def test_what_is_no_page_of_an_execution(pattern: str, word: str) -> None:
    """A pattern that cannot lead to one execution is refused at the start, and so is one that asks
    for personal data."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings({}, {"ALLOY_API_KEY": "any", "OTEL_ALLOY_EXECUTION_URL": pattern})
    (mistake,) = caught.value.mistakes
    assert mistake.startswith("OTEL_ALLOY_EXECUTION_URL: ") and word in mistake
