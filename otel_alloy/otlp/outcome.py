"""What one sending came to, in the few words that the delivery policy decides by.

Only values and protocols live here: no I/O, no policy, no import of a transport.
"""

from __future__ import annotations

import enum
import unicodedata
from dataclasses import dataclass
from typing import Protocol

MAX_REASON = 400
"""Characters; a longer reason is cut with a visible mark."""


class Kind(enum.Enum):
    """What has to happen next with the records of a request."""

    DELIVERED = "delivered"
    """Acknowledged. Never sent again."""
    RETRY = "retry"
    """The endpoint or the way to it is busy or broken; the same bytes will pass later."""
    UNEXPECTED = "unexpected"
    """An answer that the protocol does not foresee (500): retried slowly, for ever unless the
    endpoint takes other records meanwhile."""
    REJECTED = "rejected"
    """At least one record of the request will never be taken."""
    TOO_LARGE = "too_large"
    """The request is too large; fewer records may pass."""
    MISCONFIGURED = "misconfigured"
    """The data is not at fault; a person has to change a setting here or there."""


def clean(text: str, limit: int = MAX_REASON) -> str:
    """`text` on one line, without control or lone surrogate characters, at most `limit` long."""
    printable = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text[: 8 * limit])
    line = " ".join(printable.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of sending one request once. `reason` is cleaned and bounded on creation."""

    kind: Kind
    reason: str = ""
    """Human words without secrets and control characters, at most `MAX_REASON` characters."""
    retry_after: float | None = None
    """Seconds the endpoint asked to wait, as it asked (not capped); None if it did not ask."""
    rejected: int = 0
    """Records that the endpoint says it refused while it took the others: of an accepted request
    (OTLP partial success), or of a refused one, in words (Loki's 400)."""
    size: bool = False
    """Whether a smaller request may fare better, whatever the answer calls it."""
    no_signal: bool = False
    """Whether the endpoint seems not to know the signal at all: there is nothing at this place."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", clean(self.reason))


Headers = tuple[tuple[str, str], ...]
"""Lower-case names and values, in ASCII."""


class Sender(Protocol):
    """Sends encoded `Export*ServiceRequest`s of one signal. One thread at a time."""

    def send(self, request: bytes, headers: Headers = ()) -> Outcome:
        """Send `request` once, with these headers besides those of the settings. Never raises for a
        fault of the endpoint, of the network or of the records."""
        ...

    def rest(self) -> None:
        """Give back a connection that nobody shares; the next request makes a new one."""
        ...

    def close(self) -> None:
        """Give back the connection; nothing may be sent afterwards."""
        ...
