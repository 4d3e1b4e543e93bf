"""Durations and moments as people and HTTP headers write them, to and from seconds. Pure."""

from __future__ import annotations

import re
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from math import inf

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
"""By their first letters; people write `30sec`, `5 minutes` and `2 days`, too."""
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_DURATION = re.compile(
    r"([0-9]+(?:\.[0-9]+)?)"
    r"(?:(ms)|(s)(?:ec(?:ond)?s?)?|(m)(?:in(?:ute)?s?)?|(h)(?:(?:ou)?rs?)?|(d)(?:ays?)?|(w)(?:eeks?)?)"
)
_DELAY = re.compile(r"[0-9]+(\.[0-9]*)?")
_LONGEST_DELAY = 1e9
_LONGEST = 2e12
"""Seconds of a duration, some 60,000 years."""
_LONGEST_HEADER = 1000
_LONGEST_TEXT = 100


def parse_duration(value: object) -> float:
    """Seconds of `30s`, `1h30m`, `2 days`, or of a plain number of seconds, at most 2e12. Raises
    ValueError."""
    seconds = _seconds(value)
    if not abs(seconds) <= _LONGEST:
        raise ValueError("that is too long: write a duration such as 30s, 5m, 1h30m or 60d")
    return seconds


def _seconds(value: object) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) <= _LONGEST else inf
    text = str(value) if isinstance(value, str) else ""
    text = text.strip().lower().replace(" ", "") if len(text) <= _LONGEST_TEXT else ""
    if _NUMBER.fullmatch(text):
        return float(text)
    if not text or _DURATION.sub("", text):
        raise ValueError("write a duration such as 30s, 5m, 1h30m or 60d")
    return sum(float(n) * _UNITS["".join(unit)] for n, *unit in _DURATION.findall(text))


def written_duration(seconds: float) -> str:
    """A duration as a setting is written: `30s`, `90s`, `24h`, `0.25s`."""
    unit, length = next(
        (unit for unit in (("h", 3600), ("m", 60)) if seconds and seconds % unit[1] == 0), ("s", 1)
    )
    return f"{seconds / length:.12g}{unit}"


def duration_text(nanoseconds: int) -> str:
    """A duration for people: `96 ms`, `1.2 s`, `2 min 5 s`, `3 h 12 min`."""
    ms = nanoseconds // 1_000_000
    if ms < 1000:
        return f"{ms} ms"
    if ms < 60_000:
        return f"{ms // 1000}.{ms % 1000 // 100} s"
    seconds = ms // 1000
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def about(seconds: float) -> str:
    """A span of time for people, as exactly as it matters: `12 s`, `2 min 5 s`, `3 h 12 min`,
    `4 d 3 h`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 86_400:
        return duration_text(whole * 1_000_000_000)
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def retry_after(value: str | None, *, date: str | None = None, now: float) -> float | None:
    """Seconds that a `Retry-After` header asks to wait, from 0 to 1e9.

    `value`: a number, fractions allowed, or an HTTP-date (RFC 9110, 10.2.3). A date is counted
    from the answer's own `date` header where there is one, so that clocks which differ do no
    harm, else from `now` (Unix seconds). None where there is none or it cannot be understood.
    Never raises.
    """
    text = (value or "").strip()
    if len(text) <= _LONGEST_HEADER and _DELAY.fullmatch(text):
        return min(float(text), _LONGEST_DELAY)
    until = http_date(text)
    if until is None:
        return None
    sent = http_date(date)
    return min(max(until - (now if sent is None else sent), 0.0), _LONGEST_DELAY)


def http_date(value: str | None) -> float | None:
    """Unix seconds of an HTTP-date (RFC 9110, 5.6.7); None for what is none. Never raises."""
    if not value or len(value) > _LONGEST_HEADER:
        return None
    try:
        moment = parsedate_to_datetime(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, LookupError, AttributeError):
        return None
