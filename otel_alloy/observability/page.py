"""The page at `/` of the health endpoint: what a person looks at first.

One document, made anew for each request from what `status` and `recent` know. It loads nothing,
runs no script, and is bounded however many sources, destinations and workflows there are. Reasons
are not on it, as they may quote a record (`conditions`); of an execution it has the workflow's
name, the ids of its trace, and when and how it ended. Times are UTC, as nothing here knows whose
they are to be. What HTTP says of the page is the business of `health`.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from typing import Any

from otel_alloy.durations import about, duration_text
from otel_alloy.observability.conditions import (
    NO_LEASES,
    UNOWNED,
    Condition,
    Level,
    SourceView,
    View,
    condition_of,
    destination_condition,
    verdict,
)
from otel_alloy.observability.html import Html, element, text
from otel_alloy.observability.recent import MINUTES, Last, Lately
from otel_alloy.otlp.outcome import clean
from otel_alloy.version import __version__

REFRESH_SECONDS = 30
MOST_ROWS = 50
"""Of sources, destinations and replicas; of what is more, only the number is told."""
MOST_WORKFLOWS = 20
_NAME_LENGTH = 100
_DAY_NS = 86_400 * 10**9

Link = Callable[[bytes, bytes], str]
"""Where a trace is shown, by trace id and span id."""

_LEVELS: tuple[Level, ...] = ("bad", "waits", "good")
_OUTCOMES = {
    "success": ("good", "✓", "ok"),
    "error": ("bad", "✗", "failed"),
    "incomplete": ("waits", "…", "no end"),
}


class Page:
    """`view` and `look` tell what there is to show, `clock` the time (Unix seconds). `link`: where
    a trace is shown, None where that is not known."""

    def __init__(
        self,
        view: Callable[[], View],
        look: Callable[[], Lately],
        clock: Callable[[], float],
        link: Link | None = None,
    ) -> None:
        self._view = view
        self._look = look
        self._clock = clock
        self._link = link
        self._style = Html(files(__package__).joinpath("page.css").read_text("utf-8"))
        digest = b64encode(sha256(self._style.encode()).digest()).decode()
        self.policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'"
        )
        """Its Content-Security-Policy: its own style sheet, and nothing else."""

    def executions(self) -> dict[str, Any]:
        """What the page has of executions, ready to be written as JSON, for `/status`."""
        lately = self._look()
        return {
            "since": _iso(lately.since),
            "settled_per_minute": round(lately.rate, 1),
            "settled_last_hour": sum(number or 0 for number in lately.settled),
            "failures_last_hour": sum(number or 0 for number in lately.failed),
            "failures": [
                {
                    "workflow": clean(name, _NAME_LENGTH),
                    "workflow_id": clean(key, _NAME_LENGTH) or None,
                    "failures": number,
                }
                for (name, key), number, _ in lately.failures[:MOST_WORKFLOWS]
            ],
            "last": [
                {
                    "ended": _iso(one.end / 1e9),
                    "source": one.source,
                    "workflow": clean(one.workflow, _NAME_LENGTH),
                    "outcome": one.outcome,
                    "seconds": round(one.seconds, 3),
                    "trace_id": one.trace_id.hex(),
                    "trace_url": self._link and self._link(one.trace_id, one.span_id),
                }
                for one in lately.last
            ],
        }

    def html(self, *, refreshing: bool) -> str:
        """The document. `refreshing`: whether whoever asked gets it anew by itself."""
        view, lately, now = self._view(), self._look(), self._clock()
        whole = verdict(view)
        sections = (
            _figures(view, lately),
            _sources(view.sources, now),
            _throughput(lately),
            _failures(lately),
            _executions(lately, len(view.sources) > 1, now, self._link),
            None if view.destinations is None else _destinations(view.destinations),
            None if view.leases is None else _replicas(view.leases, view.leases_failing),
        )
        head = element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("title", f"{whole.state} · otel-alloy"),
            element("style", self._style),
        )
        body = element(
            "body",
            _head(whole, refreshing, now),
            element("main", sections),
            element(
                "footer",
                element(
                    "p",
                    f"otel-alloy {__version__}. Lag and states are those of now; what is counted "
                    "and listed is known since ",
                    _moment(lately.since),
                    ", when this process started.",
                ),
            ),
        )
        return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _head(whole: Condition, refreshing: bool, now: float) -> Html:
    if refreshing:
        turn = element("a", "Stop refreshing", href="/?refresh=off")
        often = f", and is made anew every {REFRESH_SECONDS} seconds"
    else:
        turn, often = element("a", "Refresh by itself", href="/"), ", and stays as it is"
    links = [turn, element("a", "Look again", href="/" if refreshing else "/?refresh=off")]
    links += [element("a", name, href=name) for name in ("/status", "/readyz", "/livez")]
    return element(
        "header",
        element("h1", whole.state, class_=whole.level),
        element("p", whole.advice),
        element("p", "This page is of ", _moment(now), often, ".", class_="faint"),
        element("nav", element("ul", [element("li", a) for a in links]), aria_label="This page"),
    )


def _figures(view: View, lately: Lately) -> Html:
    here = [one for one in view.sources if not one.elsewhere]
    lags = [one.lag for one in here if one.lag is not None]
    opened = [one.open for one in here if one.open is not None]
    failed = sum(number or 0 for number in lately.failed)
    settled = sum(number or 0 for number in lately.settled)
    waiting = view.destinations
    figures = [
        (
            "Lag" if len(here) == 1 else "Longest lag",
            about(max(lags)) if lags else "not known yet",
            "everything older is settled",
        ),
        ("Throughput", f"{_rate(lately.rate)} a minute", f"{settled:,} in the last hour"),
        ("Failures", f"{failed:,}", "in the last hour"),
        ("Open", f"{sum(opened):,}" if opened else "not known yet", "started, and not ended"),
    ]
    if waiting is not None:
        number = waiting["waiting"] + waiting["to_be_read_again"]
        figures.append(("For destinations", f"{number:,}", "executions wait"))
    return element(
        "dl",
        [
            element("div", element("dt", name), element("dd", figure), element("dd", note))
            for name, figure, note in figures
        ],
        class_="figures",
    )


def _rate(rate: float) -> str:
    return f"{rate:.1f}" if 0 < rate < 10 else f"{rate:,.0f}"


# Sources, destinations, replicas ------------------------------------------------------------------


def _sources(sources: Sequence[SourceView], now: float) -> Html:
    told = [(one, condition_of(one)) for one in sources]
    told.sort(key=lambda pair: (_LEVELS.index(pair[1].level), pair[0].elsewhere, pair[0].name))
    rows = [
        _row(
            element("th", _name(one.name), scope="row", class_="name"),
            _state(condition),
            element("td", "" if one.lag is None else about(one.lag), class_="number"),
            element("td", "" if one.open is None else f"{one.open:,}", class_="number"),
            element(
                "td",
                "not yet" if one.success is None else _ago(now - one.success),
                class_="short",
            ),
        )
        for one, condition in told[:MOST_ROWS]
    ]
    more = Counter(condition.level for _, condition in told[MOST_ROWS:])
    words: dict[Level, str] = {"bad": "do not get through", "waits": "wait", "good": "are well"}
    rest = ", ".join(f"{more[level]:,} {words[level]}" for level in _LEVELS if more[level])
    return _section(
        "Sources",
        _table(
            "Each source: an account or query of Alloy, the worst first",
            ("Source", "State", "Lag", "Open", "Last success"),
            rows,
            "There is no source.",
        ),
        element("p", f"And {more.total():,} more: {rest}.", class_="faint") if more else None,
    )


def _destinations(report: dict[str, Any]) -> Html:
    rows = [
        _row(
            element("th", _name(one["name"]), scope="row", class_="name"),
            _state(destination_condition(one["state"])),
            element("td", f"{one['waiting']:,}", class_="number"),
            element(
                "td",
                "" if one["oldest_seconds"] is None else about(one["oldest_seconds"]),
                class_="number",
            ),
            element("td", f"{one['to_be_read_again']:,}", class_="number"),
        )
        for one in report["shown"][:MOST_ROWS]
    ]
    more = report["not_shown"] + max(0, len(report["shown"]) - MOST_ROWS)
    wrong = report["number"] - report["states"].get("ok", 0)
    return _section(
        "Destinations",
        element(
            "p",
            f"{report['number']:,} besides the main one; "
            + ("all of them are well." if not wrong else f"{wrong:,} of them are not well."),
        ),
        _table(
            "Those in trouble, and those for which something waits",
            ("Destination", "State", "Waiting", "Oldest", "To be read again"),
            rows,
            "Nothing waits for any of them.",
        ),
        element("p", f"And {more:,} more.", class_="faint") if more else None,
    )


def _replicas(report: dict[str, Any], failing: bool) -> Html:
    held: dict[str, Counter[str]] = {report["replica"]: Counter()}
    for one in report["held"]:
        kind = one["unit"].partition(" ")[0]
        held.setdefault(one["owner"], Counter())[kind] += 1
    owners = sorted(held, key=lambda owner: (owner != report["replica"], owner))
    rows = [
        _row(
            element(
                "th",
                _name(owner),
                " (this one)" if owner == report["replica"] else None,
                scope="row",
                class_="name",
            ),
            element("td", f"{held[owner]['source']:,}", class_="number"),
            element("td", f"{held[owner]['destination']:,}", class_="number"),
        )
        for owner in owners[:MOST_ROWS]
    ]
    unowned = len(report["unowned"])
    more = len(owners) - len(rows)
    return _section(
        "Replicas",
        _notice(NO_LEASES) if failing else None,
        _notice(UNOWNED, f" ({unowned:,})") if unowned else None,
        _table(
            "How the replicas share the work",
            ("Replica", "Sources", "Destinations"),
            rows,
            "No replica works.",
        ),
        element("p", f"And {more:,} more.", class_="faint") if more else None,
    )


def _state(condition: Condition) -> Html:
    advice = element("p", _prose(condition.advice)) if condition.advice else None
    state = element("span", condition.state, class_=condition.level)
    return element("td", state, advice, class_="words")


def _notice(condition: Condition, more: str = "") -> Html:
    state = element("span", condition.state + more, class_=condition.level)
    return element("p", state, ". ", _prose(condition.advice))


# Executions ---------------------------------------------------------------------------------------


def _throughput(lately: Lately) -> Html:
    minutes = int(lately.rate_seconds / 60)
    over = "minute" if minutes == 1 else f"{minutes} minutes"
    return _section(
        "Throughput",
        element("p", f"{_rate(lately.rate)} executions settled a minute, over the last {over}."),
        _chart(lately.settled, "Executions settled by minute", ""),
    )


def _failures(lately: Lately) -> Html:
    counted = lately.failures[:MOST_WORKFLOWS]
    names = Counter(name for (name, _), _, _ in lately.failures)
    rows = [
        _row(
            element(
                "th",
                _name(name),
                element("p", element("code", clean(key, _NAME_LENGTH)))
                if names[name] > 1 and key
                else None,
                scope="row",
                class_="name",
            ),
            element("td", f"{number:,}", class_="number"),
            element("td", "within a minute" if not ago else f"{ago} min ago", class_="short"),
        )
        for (name, key), number, ago in counted
    ]
    rest = lately.failures[MOST_WORKFLOWS:]
    more = sum(number for _, number, _ in rest) + lately.others
    return _section(
        "Failures of the last hour",
        _chart(lately.failed, "Failures by minute", "failures"),
        _table(
            "Executions that ended with an error, by workflow",
            ("Workflow", "Failures", "Last"),
            rows,
            "None.",
        ),
        element("p", f"And {more:,} of other workflows.", class_="faint") if more else None,
    )


def _executions(lately: Lately, several: bool, now: float, link: Link | None) -> Html:
    heads = ("Ended (UTC)", "Outcome", "Workflow", "Duration", "Trace")
    return _section(
        "Last executions",
        _table(
            f"The last {len(lately.last)} that were settled, the newest end first",
            (*heads, "Source") if several else heads,
            [_execution(one, several, now, link) for one in lately.last],
            "None yet.",
        ),
    )


def _execution(one: Last, several: bool, now: float, link: Link | None) -> Html:
    level, mark, word = _OUTCOMES[one.outcome]
    ended = datetime.fromtimestamp(one.end / 1e9, UTC)
    today = abs(now * 1e9 - one.end) < _DAY_NS
    trace: str = one.trace_id.hex()
    if link is not None:
        trace = element("a", trace, href=link(one.trace_id, one.span_id))
    return _row(
        element(
            "td",
            element(
                "time",
                ended.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S"),
                datetime=_iso(one.end / 1e9),
            ),
            class_="short",
        ),
        element(
            "td",
            element("span", element("span", mark, aria_hidden="true"), f" {word}", class_=level),
            class_="short",
        ),
        element("th", _name(one.workflow), scope="row", class_="name"),
        element("td", duration_text(int(one.seconds * 1e9)), class_="number"),
        element("td", trace, class_="id"),
        element("td", _name(one.source)) if several else None,
    )


def _chart(values: Sequence[int | None], name: str, kind: str) -> Html:
    """Bars by minute. It is stretched to the width there is, so no text stands in it."""
    most = max((value or 0 for value in values), default=0)
    total = sum(value or 0 for value in values)
    unknown = next((at for at, value in enumerate(values) if value is not None), len(values))
    words = f"{name}: {total:,} in the last {MINUTES} minutes, at most {most:,} in one."
    bars = [
        element("rect", class_="bar", x=10 * at + 1, y=60 - height, width=8, height=height)
        for at, value in enumerate(values)
        if value and (height := max(2, round(58 * value / most)))
    ]
    if unknown:
        shade = element("rect", class_="unknown", x=0, y=0, width=10 * unknown, height=60)
        bars.insert(0, shade)
        words += f" Before the last {len(values) - unknown}, nothing was counted."
    picture = element(
        "svg",
        bars,
        element("rect", class_="ground", x=0, y=60, width=10 * len(values), height=1),
        viewBox=f"0 0 {10 * len(values)} 61",
        preserveAspectRatio="none",
        role="img",
        aria_label=words,
    )
    begin = f"{MINUTES} min ago" + (" (shaded: not counted)" if unknown else "")
    scale = (begin, f"at most {most:,} a minute", "now")
    return element(
        "figure",
        picture,
        element("figcaption", [element("span", one) for one in scale]),
        class_=kind or None,
    )


# Small parts --------------------------------------------------------------------------------------


def _section(title: str, *children: Html | None) -> Html:
    key = title.split()[0].lower()
    return element("section", element("h2", title, id=key), children, aria_labelledby=key)


def _table(caption: str, heads: Sequence[str], rows: Sequence[Html], none: str) -> Html:
    """A table that scrolls within itself where it is wider than the page."""
    if not rows:
        return element("p", none)
    numbers = ("Lag", "Open", "Waiting", "Oldest", "To be read again", "Failures", "Duration")
    columns = (*numbers, "Sources", "Destinations")
    head = [
        element("th", one, scope="col", class_="number" if one in columns else None)
        for one in heads
    ]
    table = element(
        "table",
        element("caption", element("span", caption)),
        element("thead", element("tr", head)),
        element("tbody", rows),
    )
    return element("div", table, class_="scroll", role="group", aria_label=caption, tabindex=0)


def _row(*cells: Html | None) -> Html:
    return element("tr", cells)


def _name(name: str) -> Html:
    """A name from outside: on one line, without what cannot be seen, and with whichever direction
    it has kept to itself."""
    return element("bdi", clean(name, _NAME_LENGTH))


def _prose(words: str) -> Html:
    """Words of ours in which commands stand between backticks."""
    parts = re.split("`([^`]+)`", words)
    return text([element("code", one) if at % 2 else one for at, one in enumerate(parts)])


def _moment(seconds: float) -> Html:
    at = datetime.fromtimestamp(seconds, UTC)
    return element("time", at.strftime("%Y-%m-%d %H:%M:%S UTC"), datetime=_iso(seconds))


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _ago(seconds: float) -> str:
    return f"{about(max(0.0, seconds))} ago"
