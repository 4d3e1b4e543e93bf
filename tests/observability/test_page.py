"""The page of the health endpoint as text: what is on it, what never is, and how much of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any, get_args

import pytest

from otel_alloy.errors import AccessRefused, Challenged, Throttled, Unavailable
from otel_alloy.links import TraceUrl
from otel_alloy.mapping.facts import Outcome
from otel_alloy.observability.conditions import (
    Failing,
    SourceView,
    View,
    condition_of,
    destination_condition,
    verdict,
)
from otel_alloy.observability.html import element
from otel_alloy.observability.page import MOST_ROWS, MOST_WORKFLOWS, Page
from otel_alloy.observability.recent import MOST_EXECUTIONS, Last, Lately
from otel_alloy.observability.status import Status
from otel_alloy.otlp.delivery import Report
from otel_alloy.otlp.outcome import Kind
from otel_alloy.otlp.outcome import Outcome as Sent
from otel_alloy.pipeline import events
from otel_alloy.runtime import system_runtime

NOW = 1_760_000_000.0
NOTHING = Lately(NOW - 60, [None] * 59 + [0], [None] * 59 + [0], 0.0, 60.0, [], 0, [])
WELL = SourceView("one", True, True, complete=True, resting=True, lag=3.0, open=2, success=NOW - 5)
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></style><h1>hacked</h1>",
    "' onclick='alert(1)",
    "&lt;b&gt; & &#60;",
    "\u202eetalever\u0007\x00\ud800 \u2028line",
    "x" * 5000,
)


def view(*sources: SourceView, **more: Any) -> View:
    """All of a receiver with these sources."""
    given = {
        "ready": all(one.ready for one in sources),
        "live": True,
        "leases_failing": False,
        "sources": list(sources),
        "leases": None,
        "destinations": None,
    }
    return View(**{**given, **more})


def html(shown: View, lately: Lately = NOTHING, trace_url: str = "") -> str:
    link = TraceUrl.parse(trace_url).link if trace_url else None
    return Page(lambda: shown, lambda: lately, lambda: NOW, link).html(refreshing=True)


def last(workflow: str = "orders", outcome: Outcome = "success", source: str = "one") -> Last:
    end = int((NOW - 10) * 1e9)
    return Last(source, workflow, outcome, end, 1.234, b"\xab" * 16, b"\xcd" * 8)


class Parsed(HTMLParser):
    """The elements of a document, in their order, and its text."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]


def test_names_from_outside_change_nothing_but_text() -> None:
    """Whatever names of workflows, sources, destinations and replicas hold, the document has the
    elements and attributes that it has with harmless ones; what cannot be seen is taken out."""

    def page(names: Iterable[str]) -> str:
        first, *_ = names = list(names)
        sources = [replace(WELL, name=name) for name in names]
        sources.append(replace(WELL, name="away", elsewhere=True, owner=first))
        lately = replace(
            NOTHING,
            failures=[((name, "same"), 3, 1) for name in names],
            last=[last(name, source=name) for name in names],
        )
        destination = {
            "state": "failing",
            "reason": "<b>",
            "waiting": 1,
            "oldest_seconds": 2.0,
            "to_be_read_again": 3,
        }
        destinations = {
            "number": len(names),
            "states": {"failing": len(names)},
            "waiting": 1,
            "to_be_read_again": 0,
            "not_shown": 0,
            "shown": [{"name": name, **destination} for name in names],
        }
        held = [{"unit": "source x", "owner": name} for name in names]
        leases = {"replica": first, "held": held, "unowned": ["source y"]}
        return html(view(*sources, destinations=destinations, leases=leases), lately)

    hostile = page(HOSTILE)
    plain = page([f"name {n}" for n in range(len(HOSTILE))])
    assert Parsed(hostile).elements == Parsed(plain).elements
    words = "".join(Parsed(hostile).words)
    assert "<script>alert(1)</script>" in words and "&lt;b&gt; & &#60;" in words
    assert not set("\u202e\x07\x00\ud800\u2028") & set(hostile)
    assert "x" * 200 not in words
    hostile.encode()


def test_elements_escape() -> None:
    """Text and attributes are escaped; what was made before is not escaped again."""
    inner = element("b", "<&>")
    assert element("p", inner, '"', [None, "x"], title='"<') == (
        '<p title="&quot;&lt;"><b>&lt;&amp;&gt;</b>&quot;x</p>'
    )
    assert element("rect", class_="bar", aria_label=None) == '<rect class="bar"/>'


CANARY = "canary-of-anna@example.com"


def test_no_word_of_others_and_no_personal_data() -> None:
    """Reasons of failures, which may quote a record, are on the page for no event that has one; nor
    does a view hold any of them."""
    status = Status(["one", "two"], max_lag=900, runtime=system_runtime())
    status(events.RequestRetried("one", Unavailable(CANARY, CANARY), 1, 2.0, held=True))
    refused = Report("logs", Sent(Kind.MISCONFIGURED, CANARY), 3, 100, 0.1, 5, 20.0)
    status(events.ExportAttempted("one", refused))
    status(events.CheckpointWriteFailed("one", CANARY, 2.0))
    status(events.Unreached("one", 3, 5, CANARY, 9.0))
    status(events.CursorAhead("one", 7, CANARY, 9.0))
    status(events.ClocksCompared("one", 2.0, 5, CANARY))
    status(events.Paced("one", 2.0, 1.0, 5.0, CANARY, True))
    status(events.SourceStopped("two", CANARY, "CheckpointError"))
    status(events.LeasesFailed(CANARY, 1.0))
    looked = events.DestinationsLooked(frozenset(["acme"]), {}, {"off": CANARY}, {"acme": CANARY})
    status(looked)
    assert "canary" in str(status.report())
    assert "canary" not in html(status.view()) and "canary" not in str(status.view().sources)


FAILING: dict[str, dict[str, Any]] = {
    "stopped: Alloy refuses its key": {"stopped": "AccessRefused"},
    "stopped": {"stopped": "CheckpointError"},
    "at another replica: b": {"elsewhere": True, "owner": "b"},
    "no replica works at it": {"elsewhere": True},
    "stuck": {"live": False},
    "its checkpoint lies in the future": {"ahead": True},
    "the checkpoint cannot be written; attempt 1, the next in 2 s": {
        "failing": (Failing("checkpoint", "unwritable", 1, 2.0, True),)
    },
    "Alloy refuses its key; attempt 3, the next in 5 min 0 s": {
        "held": True,
        "failing": (Failing("alloy", AccessRefused.__name__, 3, 300.0, True),),
    },
    "something before Alloy refuses": {
        "failing": (Failing("alloy", Challenged.__name__, 1, 9.0, False),)
    },
    "Alloy refuses what it accepted before": {
        "held": True,
        "failing": (Failing("alloy", Challenged.__name__, 1, 9.0, True),),
    },
    "Alloy asks to go slower": {"failing": (Failing("alloy", Throttled.__name__, 1, 9.0, False),)},
    "Alloy gives no usable answer; attempt 1, the next in a moment": {
        "failing": (Failing("alloy", Unavailable.__name__, 1, 0.1, False),)
    },
    "the OTLP endpoint does not take traces and logs; attempt 7": {
        "failing": (
            Failing("traces", "retry", 2, 9.0, False),
            Failing("logs", "retry", 7, 9, False),
        )
    },
    "the OTLP endpoint refuses traces and logs; attempt 2": {
        "failing": (
            *(
                Failing("traces", "misconfigured", 2, 9.0, True),
                Failing("logs", "retry", 7, 9, False),
            ),
            Failing("alloy", Unavailable.__name__, 1, 0.1, False),
        )
    },
    "Alloy counts records that it does not give": {
        "failing": (Failing("records", "unreached", 1, 9.0, True),)
    },
    "far behind": {"late": True},
    "it has begun": {"complete": False},
    "reading": {"resting": False},
    "up to date, but 4 records are missing": {"missing": 4},
    "up to date": {},
}


@pytest.mark.parametrize("state", FAILING)
def test_each_state_in_plain_words(state: str) -> None:
    """Each way in which a source can be has words, and those in which something is wrong say what
    to do."""
    source = replace(WELL, **FAILING[state])
    condition = condition_of(source)
    assert condition.state.startswith(state)
    needs = condition.level == "bad" or (condition.level == "waits" and source.complete)
    assert bool(condition.advice) >= needs
    shown = "".join(Parsed(html(view(source))).words)
    assert condition.state in shown and condition.advice.replace("`", "") in shown


def test_verdict_agrees_with_readiness() -> None:
    """The page's first words are those of /readyz and /livez: what is not ready there is not ready
    here, and the other way round."""
    unready = replace(WELL, name="two", ready=False, late=True)
    begun = SourceView("new", False, True)
    away = replace(unready, elsewhere=True, ready=True, owner="b")
    for shown, word, level in (
        (view(WELL), "Ready", "good"),
        (view(WELL, away), "Ready", "good"),
        (view(), "Ready", "good"),
        (view(WELL, begun), "Starting", "waits"),
        (view(WELL, unready), "Not ready", "bad"),
        (view(WELL, unready, begun), "Not ready", "bad"),
        (view(WELL, leases_failing=True), "Not ready", "bad"),
        (view(replace(WELL, live=False), live=False), "Stuck", "bad"),
        (view(replace(WELL, missing=1)), "Ready", "waits"),
        (view(WELL, destinations=report(3, failing=1)), "Ready", "waits"),
    ):
        told = verdict(shown)
        assert (told.state, told.level) == (word, level), shown
        assert f"<title>{word} · otel-alloy</title>" in html(shown)
        assert f'<h1 class="{level}">{word}</h1>' in html(shown)
    assert "1 of 2 sources" in verdict(view(WELL, unready)).advice


def report(number: int, **states: int) -> dict[str, Any]:
    """Of destinations, as `DestinationsView` makes it."""
    names = [(f"d{n}", state) for state, count in states.items() for n in range(count)]
    shown = [
        {
            "name": name,
            "state": state,
            "reason": None,
            "waiting": 5,
            "oldest_seconds": 61.0,
            "to_be_read_again": 0,
        }
        for name, state in names
    ]
    return {
        "number": number,
        "states": {"ok": number - len(names), **states},
        "waiting": 5 * len(names),
        "to_be_read_again": 0,
        "not_shown": max(0, len(shown) - 50),
        "shown": shown[:50],
    }


def test_nothing_yet() -> None:
    """Before anything is known the page says so, and since when it counts."""
    shown = "".join(Parsed(html(view(SourceView("one", False, True)))).words)
    assert shown.count("not known yet") == 2 and "not yet" in shown
    assert "None yet." in shown and "known since 2025-10-09 08:52:20 UTC" in shown
    assert "Destinations" not in shown and "Replicas" not in shown
    assert "There is no source." in html(view())


def test_thousands_are_counted_and_a_few_shown() -> None:
    """However many sources, destinations, replicas and workflows there are, the page stays small,
    shows the worst, and says how many more there are."""
    sources = [replace(WELL, name=f"s{n:05}") for n in range(5000)]
    sources[4000] = replace(sources[4000], ready=False, late=True)
    sources[3000] = replace(sources[3000], missing=2)
    held = [{"unit": f"source s{n}", "owner": f"r{n:04}"} for n in range(3000)]
    leases = {"replica": "r2999", "held": held, "unowned": ["source a", "source b"]}
    lately = replace(
        NOTHING,
        failures=[((f"w{n}", ""), 5000 - n, 0) for n in range(3000)],
        others=7,
        last=[last()] * MOST_EXECUTIONS,
    )
    document = html(view(*sources, destinations=report(4000, failing=600), leases=leases), lately)
    assert len(document) < 100_000
    parsed = Parsed(document)
    words = "".join(parsed.words)
    rows = parsed.tags().count("tr")
    assert rows == 3 * (MOST_ROWS + 1) + MOST_WORKFLOWS + 1 + MOST_EXECUTIONS + 1
    assert words.index("s04000") < words.index("s03000") < words.index("s00000")
    assert "And 4,950 more: 4,950 are well." in words
    assert "4,000 besides the main one; 600 of them are not well." in words
    assert "And 550 more." in words and "r2999 (this one)" in words and "And 2,950 more." in words
    rest = sum(5000 - n for n in range(MOST_WORKFLOWS, 3000)) + 7
    assert f"And {rest:,} of other workflows." in words


def test_traces_are_links_where_it_is_known_where_they_are() -> None:
    """With `trace_url` a trace id is a link, without it text; both times it is whole."""
    lately = replace(NOTHING, last=[last()])
    document = html(view(WELL), lately, "https://traces.example/t/{trace_id}?s={span_id}&x=1")
    address = f"https://traces.example/t/{'ab' * 16}?s={'cd' * 8}&amp;x=1"
    assert f'<a href="{address}">{"ab" * 16}</a>' in document
    plain = Parsed(html(view(WELL), lately))
    assert "ab" * 16 in plain.words
    assert all(str(a.get("href", "/")).startswith("/") for tag, a in plain.elements if tag == "a")


def test_what_status_has_of_executions() -> None:
    """/status tells of executions what the page does, cleaned and within the same bounds, with
    links where there are any."""
    many = [((f"w{n}", ""), 900 - n, 0) for n in range(900)]
    lately = replace(NOTHING, failures=many, failed=[None] * 59 + [7], last=[last(HOSTILE[5])])
    link = TraceUrl.parse("http://traces.example/{trace_id}").link
    for given, address in ((None, None), (link, f"http://traces.example/{'ab' * 16}")):
        told = Page(lambda: view(WELL), lambda: lately, lambda: NOW, given).executions()
        assert told["failures_last_hour"] == 7 and len(told["failures"]) == MOST_WORKFLOWS
        assert told["failures"][0] == {"workflow": "w0", "workflow_id": None, "failures": 900}
        assert told["last"] == [
            {
                "ended": "2025-10-09T08:53:10Z",
                "source": "one",
                "workflow": "etalever line",
                "outcome": "success",
                "seconds": 1.234,
                "trace_id": "ab" * 16,
                "trace_url": address,
            }
        ]


def test_outcomes_times_and_workflows_of_one_name() -> None:
    """Outcomes are words, not colours alone; an execution of another day has its date; workflows
    that share a name are told apart by their ids."""
    old = replace(last(outcome="incomplete"), end=int((NOW - 90_000) * 1e9))
    lately = replace(
        NOTHING,
        last=[last(outcome="error"), last(), old],
        failures=[(("orders", "w-1"), 2, 0), (("orders", "w-2"), 1, 5), (("bills", "w-3"), 1, 0)],
    )
    words = Parsed(html(view(WELL), lately)).words
    for word in (" failed", " ok", " no end", "08:53:10", "2025-10-08 07:53:20"):
        assert word in words, word
    assert "w-1" in words and "w-2" in words and "w-3" not in words
    assert {"success", "error", "incomplete"} == set(get_args(Outcome))


def test_the_chart_says_in_words_what_it_draws() -> None:
    """Each chart has a bar for each minute that has any, none wider or higher than the picture, and
    words that tell the same; what was before the start is shaded."""
    settled = [None] * 50 + [0, 1, 2, 300, 0, 0, 0, 0, 0, 4]
    parsed = Parsed(html(view(WELL), replace(NOTHING, settled=settled)))
    charts = [a for tag, a in parsed.elements if tag == "svg"]
    assert [a["role"] for a in charts] == ["img", "img"]
    label = charts[0]["aria-label"] or ""
    assert "307 in the last 60 minutes, at most 300 in one." in label and "last 10" in label
    bars = [a for tag, a in parsed.elements if tag == "rect" and a["class"] == "bar"]
    assert [(int(a["x"] or 0) - 1) // 10 for a in bars] == [51, 52, 53, 59]
    assert all(int(a["y"] or 0) + int(a["height"] or 0) == 60 for a in bars)
    assert min(int(a["height"] or 0) for a in bars) == 2


def test_structure() -> None:
    """The document says its language, has one first heading and then only second ones; every table
    has a caption and every head of a row or column its scope; ids are unique."""
    lately = replace(NOTHING, last=[last()], failures=[(("orders", ""), 1, 0)])
    held = [{"unit": "source one", "owner": "r"}]
    leases = {"replica": "r", "held": held, "unowned": []}
    shown = view(WELL, destinations=report(2, failing=1), leases=leases)
    parsed = Parsed(html(shown, lately))
    assert parsed.elements[0] == ("html", {"lang": "en"})
    headings = [tag for tag in parsed.tags() if tag[0] == "h" and tag[1:].isdigit()]
    assert headings == ["h1", *["h2"] * 6]
    tags = parsed.tags()
    assert tags.count("table") == tags.count("caption") == tags.count("tbody") == 5
    assert all(a["scope"] in ("row", "col") for tag, a in parsed.elements if tag == "th")
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(ids) == len(set(ids)) == 6
    assert not {"script", "img", "iframe", "form", "input", "object"} & set(tags)
    assert not [a for _, a in parsed.elements if "style" in a or any(k[:2] == "on" for k in a)]


def test_destinations_have_words() -> None:
    """Each state of a destination that is not well says what to do."""
    for state in ("failing", "disabled", "paused", "removed"):
        assert destination_condition(state).advice and destination_condition(state).level != "good"
    assert destination_condition("ok").level == "good"
