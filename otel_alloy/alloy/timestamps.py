"""Alloy's timestamps as integers, in every form that has been seen or is likely.

Seen: `2025-04-29T17:44:10.336Z`. Also taken: other fractions and offsets, no offset (read as
UTC), and epoch numbers (seconds up to 1e11, else milliseconds). Nothing here may read a clock.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_NS = 2**63 - 1  # backends keep times as signed 64-bit nanoseconds
_LONGEST = 100
_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999  # the years 1 and 9999
_OBJECT_ID = re.compile(r"[0-9a-fA-F]{24}")
_HOUR_24 = re.compile(r"[\dW-]{7,10}[^\d-]24")


def _moment(text: str) -> datetime:
    """The moment of an ISO 8601 text. Raises ValueError, also for the hour 24: Python takes it for
    midnight since 3.14, and a record has to give the same bytes on every Python."""
    if _HOUR_24.match(text):
        raise ValueError("there is no hour 24")
    return datetime.fromisoformat(text)


_SECOND_NS = {
    f":{minute:02d}:{second:02d}.": (60 * minute + second) * 10**9
    for minute in range(60)
    for second in range(60)
}
_MILLISECOND_NS = {f"{ms:03d}Z": ms * 10**6 for ms in range(1000)}


class _Hours(dict[str, int]):
    """Unix ns of `YYYY-MM-DDTHH`; executions of one hour share it. Raises ValueError also for the
    first and for the last hour that can be held, which need a closer look."""

    def __missing__(self, prefix: str) -> int:
        seconds = int((_moment(prefix + ":00:00+00:00") - _EPOCH).total_seconds())
        if not 0 < seconds < _MAX_NS // 10**9 - 3600:
            raise ValueError(prefix)
        if len(self) >= _KEPT:
            self.clear()
        self[prefix] = seconds * 10**9
        return seconds * 10**9


_KEPT = 16_384
_hours = _Hours()
_recent: dict[str, int] = {}
"""A record's times are often equal, and each is asked for more than once."""


def to_ns(value: object) -> int | None:
    """Unix nanoseconds of a timestamp; None when it is missing, unreadable or outside what OTLP
    and its backends can hold (1970 to 2262)."""
    if type(value) is str:
        found = _recent.get(value)
        if found is not None:
            return found
        if len(value) == 24:  # by far the most, so in as few steps as there can be
            try:
                found = _hours[value[:13]] + _SECOND_NS[value[13:20]] + _MILLISECOND_NS[value[20:]]
            except (KeyError, ValueError):
                pass
            else:
                if len(_recent) >= _KEPT:
                    _recent.clear()
                _recent[value] = found
                return found
        return _bounded(_from_text(value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not -1e18 < value < 1e18:  # also keeps out NaN and infinity
        return None
    return _bounded(int(value * 10**9) if abs(value) < 1e11 else int(value) * 10**6)


def _from_text(text: str) -> int | None:
    if len(text) > _LONGEST or not text.isascii() or "_" in text:
        return None
    text = text.strip()
    if 8 < len(text) < 32:  # first, as fromisoformat takes `1712010512345` for a day in 1712
        try:
            return to_ns(float(text))
        except ValueError:
            pass
    try:
        moment = _moment(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    except OverflowError:
        return None


def _bounded(ns: int | None) -> int | None:
    return ns if ns is not None and 0 < ns <= _MAX_NS else None


def to_ms(value: object) -> int | None:
    """Unix milliseconds, rounded down; None as for `to_ns`."""
    ns = to_ns(value)
    return None if ns is None else ns // 1_000_000


def to_text(ms: int) -> str:
    """Unix milliseconds in the form that Alloy itself writes; what lies outside of the years that
    it can name, as the nearest that lies inside."""
    moment = _EPOCH + timedelta(milliseconds=min(max(ms, _FIRST_MS), _LAST_MS))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def object_id_ns(identity: str | None) -> int | None:
    """Unix ns of the creation second that a 24-hex ObjectId carries in its first 8 digits (BSON
    specification), or None for any other id."""
    if identity is None or not _OBJECT_ID.fullmatch(identity):
        return None
    return _bounded(int(identity[:8], 16) * 10**9)
