"""How often to ask and when to ask again: the request budget and the retries around `fetch`.

Nothing here knows what a page holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from otel_alloy.alloy.events import RequestRetried
from otel_alloy.alloy.models import Page
from otel_alloy.alloy.query import Query
from otel_alloy.errors import RequestRefused, Retry, ShutdownRequested, Throttled, TooLarge
from otel_alloy.runtime import Runtime

RETRY_AFTER_CAP = 300.0
"""Seconds: a longer `Retry-After` is cut to this."""

Fetch = Callable[[Query], Page]
"""One request: `AlloyClient.fetch`, or that with patience around it."""

_BACKOFF_FIRST, _BACKOFF_CAP = 0.5, 60.0
_BURST = 40


class RequestBudget:
    """A token bucket of `per_minute` requests; 0 is no limit. Shared between threads.

    It starts with a burst of 40, so that a default of 60 stays within 100 requests in any minute,
    the only figure that the vendor publishes (for its MCP product).
    """

    def __init__(self, per_minute: int, runtime: Runtime) -> None:
        self._rate = per_minute / 60
        self._burst = float(min(per_minute, _BURST))
        self._tokens = self._burst
        self._clock = runtime.monotonic
        self._at = self._clock()
        self._held_until = self._at
        self._lock = Lock()

    def change(self, per_minute: int) -> None:
        """Keeps to another rate from here on."""
        with self._lock:
            self._rate = per_minute / 60
            self._burst = float(min(per_minute, _BURST))

    def hold(self, seconds: float) -> None:
        """Lets nobody send anything for so long."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock() + seconds)

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


class RetryingFetch:
    """`fetch` within the budget, retried until it succeeds or the end is asked for, which raises
    ShutdownRequested. `observe` is told of each retry as `RequestRetried`.

    Retry-After is honoured up to RETRY_AFTER_CAP; else exponential backoff with full jitter. A
    refused request is sent again with half the page size, as the limit may be what is refused;
    at a page size of 1 the refusal is raised, but an answer that is too large is waited for. The
    page tells which size it was. Where `retry` is False, the first error is raised.
    """

    def __init__(
        self,
        source: str,
        fetch: Fetch,
        budget: RequestBudget,
        runtime: Runtime,
        observe: Callable[[object], None],
        *,
        retry: bool = True,
    ) -> None:
        self._source = source
        self._fetch = fetch
        self._budget = budget
        self._runtime = runtime
        self._observe = observe
        self._retry = retry
        self._largest_limit: int | None = None
        self.requests = 0

    def __call__(self, query: Query) -> Page:
        attempt = 0
        while True:
            if self._largest_limit is not None and query.limit > self._largest_limit:
                query = query.limited(self._largest_limit)
            self._pause(self._budget.take())
            self.requests += 1
            try:
                page = self._fetch(query)
                page.limit = query.limit
                return page
            except RequestRefused as refusal:
                if query.limit <= 1 and self._retry and isinstance(refusal, TooLarge):
                    attempt += 1
                    self._wait(refusal, attempt)
                    continue
                if query.limit <= 1 or not self._retry:
                    raise
                self._largest_limit = query.limit // 2
                self._observe(RequestRetried(self._source, refusal, 1, 0.0, smaller=True))
            except Retry as error:
                if not self._retry:
                    if error.after is not None:
                        self._budget.hold(min(error.after, RETRY_AFTER_CAP))
                    raise
                attempt += 1
                self._wait(error, attempt)

    @contextmanager
    def impatient(self) -> Iterator[None]:
        """Raises the first error meanwhile, for a question that can be put off. Others wait as long
        as Alloy wants it."""
        before, self._retry = self._retry, False
        try:
            yield
        finally:
            self._retry = before

    def _wait(self, error: Retry | TooLarge, attempt: int) -> None:
        wait = self._backoff(error, attempt)
        self._observe(RequestRetried(self._source, error, attempt, wait))
        self._pause(wait)

    def _backoff(self, error: Retry | TooLarge, attempt: int) -> float:
        if isinstance(error, Retry) and error.after is not None:
            return min(error.after, RETRY_AFTER_CAP)
        ceiling = min(_BACKOFF_CAP, _BACKOFF_FIRST * 2.0 ** min(attempt - 1, 16))
        if isinstance(error, Throttled):
            ceiling = max(ceiling, 2.0)
        return self._runtime.random() * ceiling

    def _pause(self, seconds: float) -> None:
        if self._runtime.wait(seconds):
            raise ShutdownRequested
