"""Durations as people and headers write them, to and from seconds. Pure."""

from __future__ import annotations

import re
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from math import isfinite

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|min|m|h|d|w)")


def parse_duration(value: object) -> float:
    """Seconds of `30s`, `1h30m`, `60d`, or of a plain number of seconds. Raises ValueError."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
        return float(value)
    text = str(value).strip().lower().replace(" ", "")
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not text or _DURATION.sub("", text):
        raise ValueError("write a duration such as 30s, 5m, 1h30m or 60d")
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))


def duration_text(nanoseconds: int) -> str:
    """A duration for people: `96 ms`, `1.2 s`, `2 min 5 s`, `3 h 12 min`."""
    ms = nanoseconds // 1_000_000
    if ms < 1000:
        return f"{ms} ms"
    if ms < 60_000:
        return f"{ms // 100 / 10} s"
    seconds = ms // 1000
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds of a `Retry-After` header: a number, or a date (RFC 9110, 10.2.3), of which `now`
    (Unix seconds) is taken off. None where it is neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
        return seconds if 0 <= seconds < 1e9 else None
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None
