"""What the simulator keeps and what happens to it: records, steps of their life, forms of time.

Inside the simulator a time is an integer of milliseconds since the epoch, as precise as the wire.
Nothing here knows of HTTP, parameters or random numbers.
"""

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, NamedTuple

Record = dict[str, Any]
"""One notification as JSON has it (the vendor's OpenAPI description of GET /logs)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1)
_MILLISECOND = timedelta(milliseconds=1)
_YEAR_1, _YEAR_10000 = -62_135_596_800_000, 253_402_300_800_000


class Step(NamedTuple):
    """Something that happens to the log at ``at`` (ms).

    ``add`` makes the record ``body`` visible; ``change`` sets the fields of ``body`` on the record
    with its ``_id``; ``remove`` takes that record away; ``call`` asks for a request to the
    customer's service, and ``report`` for one of the error webhook, with the headers and the JSON
    of ``body``.
    """

    at: int
    action: Literal["add", "change", "remove", "call", "report"]
    body: Record


class Execution(NamedTuple):
    """One execution: when it started (ms), and its steps, none earlier than that."""

    started: int
    steps: tuple[Step, ...]


@lru_cache(maxsize=512)
def _day(days: int) -> str:
    return (_EPOCH_DAY + timedelta(days=days)).isoformat()


def iso(milliseconds: int) -> str:
    """The wire form of a time, for example ``2025-04-29T17:44:10.432Z``."""
    seconds, fraction = divmod(milliseconds, 1000)
    days, seconds = divmod(seconds, 86_400)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{_day(days)}T{hours:02}:{minutes:02}:{seconds:02}.{fraction:03}Z"


def millis(value: object) -> int | None:
    """Milliseconds of an ISO 8601 text (UTC where it names no zone) or a number of milliseconds.

    Finer digits are cut off. ``None`` for whatever cannot be read or has no year of four digits.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        found = value
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        found = (moment - _EPOCH) // _MILLISECOND
    else:
        return None
    return found if _YEAR_1 <= found < _YEAR_10000 else None
