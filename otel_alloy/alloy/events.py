"""What reading from Alloy tells those who watch it; `otel_alloy.pipeline.events` has the rules."""

from __future__ import annotations

from dataclasses import dataclass

from otel_alloy.errors import RequestRefused, Retry, Stop


@dataclass(frozen=True, slots=True)
class Requested:
    """A request to Alloy has ended. `status`: of its HTTP answer, None where there was none.
    `error`: the name of the exception that was made of it, if any."""

    source: str
    status: int | None
    error: str | None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ClocksCompared:
    """Alloy's clock minus this machine's is `skew` seconds, so that it is `now` there (Unix ms).
    `words` say so where that is too much, or where it has jumped and is not believed yet; else
    None."""

    source: str
    skew: float
    now: int
    words: str | None = None


@dataclass(frozen=True, slots=True)
class RequestRetried:
    """A request to Alloy failed and is sent again after `wait` seconds; where `smaller` is True,
    at once and with half the page size. `attempt`: from 1. `held`: it is a refusal, which a person
    should know of at once."""

    source: str
    error: Retry | RequestRefused | Stop
    attempt: int
    wait: float
    smaller: bool = False
    held: bool = False
