"""What every answer of an endpoint comes to: one table, and the reading of it. No sockets.

The specification's own lists are short, and real endpoints, and the proxies before them, keep to
them loosely. The rows come from what docs/otlp-endpoints.md quotes; a test holds that page and this
table together. Two rules decide what is not quoted there:

- lenient where a real backend is known to acknowledge so, strict where a proxy's page could pass
  for an acknowledgement;
- data is at fault only where an answer says so (400, 422, INVALID_ARGUMENT), or where the endpoint
  takes everything else.

`size` marks what a request that is merely too large may also be answered with: after a few tries it
is tried smaller (`otel_alloy.otlp.settling`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from otel_alloy.otlp.outcome import Kind

_HEADERS = "check OTEL_EXPORTER_OTLP_HEADERS"
_ENDPOINT = "check OTEL_EXPORTER_OTLP_ENDPOINT"
_PATH = "check the path of OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOBUF = "the endpoint does not take OTLP protobuf here; check OTEL_EXPORTER_OTLP_PROTOCOL"
_TLS = "check OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY"


@dataclass(frozen=True, slots=True)
class Rule:
    """A row: `kind` of outcome, whether it may depend on the `size` of the request, what a person
    may have to do, and whether the answer means that there is `no_signal` of this kind here."""

    kind: Kind
    size: bool = False
    remedy: str = ""
    no_signal: bool = False


def _all(codes: tuple[int, ...] | range, rule: Rule) -> dict[int, Rule]:
    return dict.fromkeys(codes, rule)


_BUSY = Rule(Kind.RETRY, size=True)
_FOUND_NOTHING = Rule(Kind.MISCONFIGURED, remedy=_PATH, no_signal=True)

HTTP: dict[int, Rule] = {
    **_all((400, 422), Rule(Kind.REJECTED)),
    **_all((401, 402, 498), Rule(Kind.MISCONFIGURED, remedy=_HEADERS)),
    # A web application firewall says 403 to a body that it finds too large.
    403: Rule(Kind.MISCONFIGURED, size=True, remedy=_HEADERS),
    **_all((404, 405, 410), _FOUND_NOTHING),
    **_all((406, 415), Rule(Kind.MISCONFIGURED, remedy=_PROTOBUF)),
    407: Rule(Kind.MISCONFIGURED, remedy="the proxy wants a user and a password"),
    413: Rule(Kind.TOO_LARGE),
    **_all((411, 414, 417, 426, 451, 463, 464, 505), Rule(Kind.MISCONFIGURED, remedy=_ENDPOINT)),
    **_all((431, 494), Rule(Kind.MISCONFIGURED, remedy="make OTEL_EXPORTER_OTLP_HEADERS shorter")),
    **_all((495, 496), Rule(Kind.MISCONFIGURED, remedy=_TLS)),
    497: Rule(Kind.MISCONFIGURED, remedy="write https:// in OTEL_EXPORTER_OTLP_ENDPOINT"),
    511: Rule(Kind.MISCONFIGURED, remedy="the network wants a login"),
    # 460 and 499 are a load balancer's and nginx's words for a request that took too long.
    **_all((408, 421, 423, 425, 429, 460, 499), _BUSY),
    501: _FOUND_NOTHING,
    **_all((502, 503, 504, 507, 509, 598, 599), _BUSY),
    508: Rule(Kind.MISCONFIGURED, remedy=_ENDPOINT),
    **_all(range(520, 531), _BUSY),  # Cloudflare's, for an origin that is away
}
"""By status code; those of 2xx are read by their body, see `otel_alloy.otlp.http`."""

_OTHER_HTTP = Rule(Kind.UNEXPECTED)
_OTHER_5XX = Rule(Kind.UNEXPECTED, size=True)
_REDIRECT = Rule(Kind.MISCONFIGURED, remedy=_ENDPOINT)

GRPC: dict[str, Rule] = {
    **dict.fromkeys(("CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "UNAVAILABLE"), _BUSY),
    **dict.fromkeys(("OUT_OF_RANGE", "DATA_LOSS"), _BUSY),
    "UNAUTHENTICATED": Rule(Kind.MISCONFIGURED, remedy=_HEADERS),
    "PERMISSION_DENIED": Rule(Kind.MISCONFIGURED, size=True, remedy=_HEADERS),
    "UNIMPLEMENTED": Rule(
        Kind.MISCONFIGURED, remedy="the endpoint offers no OTLP for this signal", no_signal=True
    ),
    "NOT_FOUND": Rule(Kind.MISCONFIGURED, remedy=_ENDPOINT),
    "INVALID_ARGUMENT": Rule(Kind.REJECTED),
    # Without RetryInfo and without telling words it may be either: see WORDS.
    "RESOURCE_EXHAUSTED": _OTHER_5XX,
    **dict.fromkeys(("INTERNAL", "UNKNOWN"), _OTHER_5XX),
    **dict.fromkeys(("FAILED_PRECONDITION", "ALREADY_EXISTS"), _OTHER_HTTP),
}
"""By name of the status code."""

_DOUBTFUL = frozenset((Kind.REJECTED, Kind.UNEXPECTED))

WORDS: tuple[tuple[re.Pattern[str], frozenset[Kind], Rule], ...] = (
    (
        re.compile(
            r"rate.?limit|quota|too many requests|throttl|live_traces_exceeded|"
            r"(high|due to|exceeds?d?|over) memory|memory (usage|limit|pressure)|"
            r"queue is full|overloaded|try again",
            re.IGNORECASE,
        ),
        frozenset((Kind.UNEXPECTED,)),
        _BUSY,
    ),
    (
        re.compile(r"trace_too_large|invalid (utf-8|wire|span|trace)", re.IGNORECASE),
        frozenset((Kind.UNEXPECTED,)),
        Rule(Kind.REJECTED),
    ),
    (
        re.compile(
            r"too (large|big|long)|larger than (the )?max|exceeds? (the )?(max|limit|size|allowed)|"
            r"(message|request|body|payload|content|entity|batch) ?(size|length)[^.]{0,40}"
            r"(exceed|limit|max)|max\w* (message|request|body|payload|content) ?(size|length)|"
            r"size limit|bytes? limit",
            re.IGNORECASE,
        ),
        _DOUBTFUL | {Kind.RETRY},
        Rule(Kind.TOO_LARGE),
    ),
)
"""Words of an answer, the kinds that they may change, and what to."""

_HTTP_BEHIND_GRPC = re.compile(r"^received http2 header with status: (\d{3})")
_IGNORED = re.compile(r"total ignored: ([0-9]{1,9}) out of [0-9]")
_ERRORS_LIKE = re.compile(r"\b([0-9]{1,9}) errors? like: ")
_ONE_ENTRY = re.compile(r"^entry (with timestamp|for stream) |\bignored, reason: ", re.MULTILINE)


def http_rule(code: int, words: str = "") -> Rule:
    """What HTTP status `code` comes to with `words` in its body."""
    rule = HTTP.get(code)
    if rule is None:
        rule = _REDIRECT if code < 400 else _OTHER_5XX if code >= 500 else _OTHER_HTTP
    return rule if rule.kind is Kind.RETRY else _by_words(rule, words)


def grpc_rule(name: str, words: str, asked: float | None) -> Rule:
    """What gRPC status `name` comes to with `words`; `asked`: seconds of a RetryInfo."""
    found = _HTTP_BEHIND_GRPC.search(words.lower())
    if found and not 200 <= int(found[1]) < 300:
        rule = http_rule(int(found[1]))
        # A proxy that answers in HTTP has not looked at the records.
        return Rule(Kind.MISCONFIGURED, remedy=_ENDPOINT) if rule.kind is Kind.REJECTED else rule
    rule = GRPC.get(name, _OTHER_HTTP)
    if name == "RESOURCE_EXHAUSTED" and asked is not None:
        return _BUSY
    if name in ("CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "UNAVAILABLE", "DATA_LOSS"):
        return rule  # the specification's own list: the words are the transport's
    return _by_words(rule, words)


def _by_words(rule: Rule, words: str) -> Rule:
    for pattern, kinds, other in WORDS:
        if rule.kind in kinds and pattern.search(words):
            return other
    return rule


_NOBODY = re.compile(r"refused", re.IGNORECASE)
_NO_SUCH_HOST = re.compile(
    r"name or service not known|name resolution|nodename nor servname|no address associated|"
    r"dns (query|resolution|server)|could not contact dns|domain name not found",
    re.IGNORECASE,
)


def unreached(place: str, words: str, via: str) -> str:
    """What to do where no connection to `place` comes about, by the system's words for it; empty
    where those say nothing. `via`: that it is through a proxy."""
    if via:
        return "check the proxy, or except the endpoint with NO_PROXY"
    if _NOBODY.search(words):
        return f"nothing listens at {place}; start the collector, or {_ENDPOINT}"
    if _NO_SUCH_HOST.search(words):
        return f"this machine knows no such host; {_ENDPOINT}"
    return ""


def for_signal(rule: Rule, signal: str) -> Rule:
    """`rule` with the remedy for an endpoint that has one of the signals only."""
    if not rule.no_signal:
        return rule
    off = f"set OTEL_{signal.upper()}_EXPORTER=none"
    if signal == "logs":  # by far the more frequent one, so it comes first
        jaeger = "if this endpoint takes no logs, as Jaeger takes none,"
        return replace(rule, remedy=f"{jaeger} {off}; otherwise {rule.remedy}")
    return replace(rule, remedy=f"{rule.remedy}; if this endpoint takes no {signal}, {off}")


def refused_of_many(words: str) -> int:
    """How many records a refusal says that it means, where it tells that the others were kept
    (Loki's 400); 0 where it tells nothing of the kind. A lower bound where one is quoted."""
    ignored = sum(int(found[1]) for found in _IGNORED.finditer(words))
    like = sum(int(found[1]) for found in _ERRORS_LIKE.finditer(words))
    return max(ignored, like) or (1 if _ONE_ENTRY.search(words) else 0)


def answers_table() -> str:
    """`HTTP` and `GRPC` as a table for people; docs/otlp-endpoints.md holds it."""
    rows: dict[Rule, list[str]] = {}
    for code, rule in sorted(HTTP.items()):
        rows.setdefault(rule, []).append(str(code))
    rows.setdefault(_REDIRECT, []).append("other 3xx")
    rows.setdefault(_OTHER_HTTP, []).append("other 4xx")
    rows.setdefault(_OTHER_5XX, []).append("500 and other 5xx")
    for name, rule in GRPC.items():
        rows.setdefault(rule, []).append(name)
    lines = ["| answer | outcome | tried smaller | remedy that is told |", "|---|---|---|---|"]
    for rule, answers in rows.items():
        smaller = (Kind.TOO_LARGE, Kind.REJECTED, Kind.UNEXPECTED)
        tried = "yes" if rule.size or rule.kind in smaller else ""
        remedy = for_signal(rule, "logs").remedy
        lines.append(f"| {', '.join(answers)} | {rule.kind.value} | {tried} | {remedy} |")
    return "\n".join(lines)
