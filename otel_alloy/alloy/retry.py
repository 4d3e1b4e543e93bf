"""How often to ask and when to ask again: the request budget and the retries around `fetch`.

A refusal (401, 403, 404, a redirect, 400 at every page size) is final only before the first good
answer: the key or the address is wrong then. Afterwards both have worked, so the refusal is the
API's business of the moment, such as a deployment: it is *held*, which means asked again, slowly
and loudly. What is not Alloy's refusal (`Retry.refusal`) is held from the first request on.

Nothing here knows what a page holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Protocol

from otel_alloy.alloy.events import RequestRetried
from otel_alloy.alloy.models import Page
from otel_alloy.alloy.page_size import LargerPages, PageSize
from otel_alloy.alloy.query import Query
from otel_alloy.errors import RequestRefused, Retry, ShutdownRequested, Stop, Throttled, TooLarge
from otel_alloy.runtime import Runtime

RETRY_AFTER_CAP = 300.0
"""Seconds: a longer `Retry-After` is cut to this."""

Fetch = Callable[[Query], Page]
"""One request: `AlloyClient.fetch`, or that with patience around it."""

HOLD_SECONDS = 60.0
"""For how long a command that ends by itself holds a refusal before it fails with it."""

_BACKOFF_FIRST, _BACKOFF_CAP = 0.5, 60.0
_HELD_FIRST, _HELD_CAP = 2.0, 300.0
_LARGER = (10, 30)
"""Page sizes to try where fewer records are refused: the API may know a least size."""
BURST = 40


class RequestBudget:
    """A token bucket of `per_minute` requests; 0 is no limit. Shared between threads.

    It starts with a burst of 40, so that a default of 60 stays within 100 requests in any minute,
    the only figure that the vendor publishes (for its MCP product).
    """

    def __init__(self, per_minute: int, runtime: Runtime) -> None:
        self._rate = per_minute / 60
        self._burst = float(min(per_minute, BURST))
        self._tokens = self._burst
        self._clock = runtime.monotonic
        self._at = self._clock()
        self._held_until = self._at
        self._lock = Lock()

    def change(self, per_minute: int) -> None:
        """Keeps to another rate from here on."""
        with self._lock:
            self._rate = per_minute / 60
            self._burst = float(min(per_minute, BURST))

    def hold(self, seconds: float) -> None:
        """Lets nobody send anything for so long."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock() + seconds)

    def due(self) -> float:
        """How many seconds a request that was taken now would have to wait."""
        with self._lock:
            now = self._clock()
            held = max(0.0, self._held_until - now)
            if not self._rate:
                return held
            tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
            return max(held, (1 - tokens) / self._rate)

    def take(self) -> float:
        """Takes one request and returns how many seconds to wait before sending it."""
        with self._lock:
            now = self._clock()
            held = max(0.0, self._held_until - now)
            if not self._rate:
                return held
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
            self._at = now
            self._tokens -= 1
            return max(held, -self._tokens / self._rate)


class Budget(Protocol):
    """Who says when a request may be sent: `RequestBudget`, or a part of one."""

    def hold(self, seconds: float) -> None: ...

    def due(self) -> float: ...

    def take(self) -> float: ...


class AdjustableBudget(Budget, Protocol):
    """One whose rate can be lowered, and raised again up to what it was."""

    def change(self, per_minute: int) -> None: ...


class PartOfBudget:
    """What may be asked of a budget that belongs to others first: at most so many a minute, within
    what the whole allows; 0 is no limit of its own."""

    def __init__(self, whole: Budget, per_minute: int, runtime: Runtime) -> None:
        self._whole = whole
        self._own = RequestBudget(per_minute, runtime)

    def hold(self, seconds: float) -> None:
        """See `RequestBudget.hold`: Alloy counts by key, so all wait."""
        self._whole.hold(seconds)

    def due(self) -> float:
        """See `RequestBudget.due`."""
        return max(self._whole.due(), self._own.due())

    def take(self) -> float:
        """See `RequestBudget.take`."""
        return max(self._own.take(), self._whole.take())


class RetryingFetch:
    """`fetch` within the budget, retried until it succeeds or the end is asked for, which raises
    ShutdownRequested. `observe` is told of each retry as `RequestRetried`.

    Retry-After is honoured up to RETRY_AFTER_CAP; else exponential backoff with full jitter. A
    refused request is sent again with half the page size, as the limit may be what is refused, and
    one for a few records with more. The page tells which size it was. What is refused at every
    size, and any other refusal, is raised before the first good answer (`answered`), and held after
    it, for at most `hold_at_most` seconds where that is set; an answer that is too large at a page
    size of 1 is always held. Where `retry` is False, the first error is raised; only a small page
    size is tried larger. `larger`: how whole pages grow; None where they stay as they are set.
    """

    def __init__(
        self,
        source: str,
        fetch: Fetch,
        budget: Budget,
        runtime: Runtime,
        observe: Callable[[object], None],
        *,
        retry: bool = True,
        larger: LargerPages | None = None,
    ) -> None:
        self._source = source
        self._larger = larger
        self._fetch = fetch
        self._budget = budget
        self._runtime = runtime
        self._observe = observe
        self._retry = retry
        self._size = PageSize()
        self.requests = 0
        self.answered = False
        self.hold_at_most: float | None = None

    def __call__(self, query: Query) -> Page:
        """The answer."""
        return self._ask(query, self.answered)

    def attempt(self, query: Query) -> Page:
        """The answer to a request that the API may well refuse: RequestRefused is raised then."""
        return self._ask(query, False)

    def _ask(self, query: Query, hold_refused: bool) -> Page:
        attempt = 0
        held_since: float | None = None
        while True:
            try:
                return self._at_some_size(query)
            except (Retry, Stop, RequestRefused) as error:
                if not self._retry and isinstance(error, Retry) and error.after is not None:
                    self._budget.hold(min(error.after, RETRY_AFTER_CAP))
                refused = isinstance(error, RequestRefused) and not hold_refused
                refused = refused and not isinstance(error, TooLarge)
                if not self._retry or refused or (isinstance(error, Stop) and not self.answered):
                    raise
                attempt += 1
                held = not isinstance(error, Retry) or error.refusal
                wait = self._held_wait(error, attempt) if held else self._backoff(error, attempt)
                if held:
                    now = self._runtime.monotonic()
                    held_since = now if held_since is None else held_since
                    most = self.hold_at_most
                    if most is not None and now + wait - held_since > most:
                        raise
                self._observe(RequestRetried(self._source, error, attempt, wait, held=held))
                self._pause(wait)

    def _at_some_size(self, query: Query) -> Page:
        """The answer, at the largest size that is taken. Raises what `fetch` raises; RequestRefused
        where every size is refused."""
        larger = [limit for limit in _LARGER if limit > query.limit]
        growing = self._larger if self._retry else None
        whole = query.limit
        if growing is not None:
            query = query.limited(growing.of(whole))
        limit = self._size.of(query.limit)
        while True:
            self._pause(self._budget.take())
            self.requests += 1
            try:
                page = self._fetch(query.limited(limit) if limit != query.limit else query)
            except (RequestRefused, Retry) as refusal:
                refused = isinstance(refusal, RequestRefused)
                if growing is not None and limit > whole:
                    growing.failed(limit, refused)
                    if refused:
                        query = query.limited(growing.of(whole))
                        limit = self._size.of(query.limit)
                        self._observe(RequestRetried(self._source, refusal, 1, 0.0, smaller=True))
                        continue
                if isinstance(refusal, Retry):
                    raise
                too_large = isinstance(refusal, TooLarge)
                smaller = self._retry and 1 < limit <= query.limit
                if smaller:
                    self._size.refused(limit)
                    limit = self._size.of(query.limit)
                elif larger and not too_large:
                    limit = larger.pop(0)
                else:
                    if self._retry and not too_large:
                        self._size.forget()
                    raise
                self._observe(RequestRetried(self._source, refusal, 1, 0.0, smaller=smaller))
                continue
            if limit <= query.limit:
                self._size.accepted(limit, query.limit)
            if growing is not None and not growing.came(limit, page.received):
                query = query.limited(growing.of(whole))
                limit = self._size.of(query.limit)
                continue
            self.answered = True
            page.limit = limit
            return page

    def once(self, ask: Callable[[], bytes]) -> bytes:
        """What `ask`, which sends one request, brings, within the budget; its first error is
        raised. Others wait as long as Alloy wants it."""
        self._pause(self._budget.take())
        self.requests += 1
        try:
            return ask()
        except Retry as error:
            if error.after is not None:
                self._budget.hold(min(error.after, RETRY_AFTER_CAP))
            raise

    @contextmanager
    def impatient(self) -> Iterator[None]:
        """Raises the first error meanwhile, for a question that can be put off. Others wait as long
        as Alloy wants it."""
        before, self._retry = self._retry, False
        try:
            yield
        finally:
            self._retry = before

    def _backoff(self, error: Exception, attempt: int) -> float:
        """Seconds before a failure is tried again."""
        if isinstance(error, Retry) and error.after is not None:
            return min(error.after, RETRY_AFTER_CAP)
        ceiling = min(_BACKOFF_CAP, _BACKOFF_FIRST * 2.0 ** min(attempt - 1, 16))
        if isinstance(error, Throttled):
            ceiling = max(ceiling, 2.0)
        return self._runtime.random() * ceiling

    def _held_wait(self, error: Exception, attempt: int) -> float:
        """The same for a refusal: never at once, as it may be counted against us."""
        if isinstance(error, Retry) and error.after is not None:
            return min(max(1.0, error.after), RETRY_AFTER_CAP)
        ceiling = min(_HELD_CAP, _HELD_FIRST * 2.0 ** min(attempt - 1, 16))
        return ceiling * (0.5 + self._runtime.random() / 2)

    def _pause(self, seconds: float) -> None:
        if self._runtime.wait(seconds):
            raise ShutdownRequested
