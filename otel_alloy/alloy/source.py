"""One Alloy account or query, assembled once.

Client, request budget, retries, clock and reader are put together here and nowhere else; `run`,
`backfill`, `tail`, `summary` and `check` all read through it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from otel_alloy.alloy.clock import APART_MS, ServerClock, skew_words
from otel_alloy.alloy.cursor import Filter, Reading, Window
from otel_alloy.alloy.events import ClocksCompared, Requested
from otel_alloy.alloy.models import Page, Record
from otel_alloy.alloy.on_demand import OnDemand
from otel_alloy.alloy.page_size import LargerPages
from otel_alloy.alloy.query import Query
from otel_alloy.alloy.reader import Reader
from otel_alloy.alloy.retry import Budget, RetryingFetch
from otel_alloy.errors import AlloyReceiverError, ShutdownRequested
from otel_alloy.runtime import Runtime


class AlloySource:
    """Everything that is asked of one Alloy account or query.

    For one thread at a time, except that `read` may be iterated in another thread than its
    owner's. `base_query`: what every request has in common. `observe` is told `Requested`,
    `RequestRetried` and, while the clocks differ, `ClocksCompared`. Where `retry` is False, a
    request that fails is not sent again. `larger`: how pages grow beyond what `base_query` says.

    Every method that asks raises Stop or RequestRefused where only a person can help (before the
    first good answer, or where `hold_at_most` is over), and ShutdownRequested where the end was
    asked for while it waited.
    """

    def __init__(
        self,
        name: str,
        client: OnDemand,
        base_query: Query,
        budget: Budget,
        runtime: Runtime,
        observe: Callable[[object], None],
        *,
        retry: bool = True,
        larger: LargerPages | None = None,
    ) -> None:
        self.name = name
        self._larger = larger
        self.base_query = base_query
        self.clock = ServerClock()
        self._clocks_apart = False
        self._client = client
        self._budget = budget
        self._runtime = runtime
        self._observe = observe
        self._fetch = RetryingFetch(
            name, self._ask, budget, runtime, observe, retry=retry, larger=larger
        )
        self._reader = Reader(self._fetch, base_query, self._pause, self._fetch.attempt)

    def rest(self) -> None:
        """Closes the connections until something is asked again."""
        self._client.rest()

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    # What is known --------------------------------------------------------------------------------

    @property
    def requests(self) -> int:
        """How many requests were sent."""
        return self._fetch.requests

    @property
    def filter(self) -> Filter:
        """What the API makes of a createdAt filter."""
        return self._reader.api.filter

    def learn(self, verdict: Filter) -> None:
        """Takes over what somebody else found out about the filter, who had good answers then."""
        self._reader.api.filter = verdict
        self._fetch.answered = True

    @property
    def answered(self) -> bool:
        """Whether there was a good answer, so that key and address are right."""
        return self._fetch.answered

    def hold_at_most(self, seconds: float) -> None:
        """Holds a refusal for so long, then raises it; without this, until it passes."""
        self._fetch.hold_at_most = seconds

    @property
    def newest_first(self) -> bool:
        """Whether the API has to be read from the newest record down."""
        return self._reader.api.newest_first

    @property
    def ordered(self) -> bool:
        """Whether the API sorts as it is asked to, as far as was seen."""
        return self._reader.api.ordered

    @property
    def finds_executions(self) -> bool:
        """Whether the API filters by executionId, as far as was seen."""
        return self._reader.api.finds_executions

    @property
    def counts_matches(self) -> bool | None:
        """Whether `totalItems` counts what matches a filter; None where `probe` could not tell."""
        return self._reader.api.counts_matches

    @property
    def page_size(self) -> int:
        """How many records a page brings at most, as far as was seen."""
        return self._reader.api.largest or self.base_query.limit

    @property
    def proven_page(self) -> int:
        """How many records a page was found to bring where that is more than was set; 0 where it
        is not."""
        return 0 if self._larger is None else self._larger.proven

    def now(self) -> int:
        """The time by Alloy's clock, Unix ms."""
        return self.clock.now(*self._ours())

    def certain(self) -> int:
        """The latest time that both clocks, Alloy's and ours, have reached: what may be written
        down as read, or declare an end, lies before it."""
        return self.clock.certain(*self._ours())

    def look_beyond(self) -> int:
        """The earliest time that no clock has passed; that of `certain` and `now` where they agree.
        Up to here there may be records."""
        return self.clock.latest(*self._ours())

    def clocks_agree(self) -> bool:
        """Whether Alloy's clock and ours tell one time."""
        return self.clock.agrees(*self._ours())

    def earliest(self) -> int:
        """The earliest that any of the clocks may show, Unix ms: for a lower bound that must not be
        too late."""
        return self.clock.earliest(*self._ours())

    def is_ahead(self, moment: int) -> bool:
        """Whether a moment (Unix ms) lies in the future of every clock."""
        return moment > self.look_beyond() + APART_MS

    def clock_words(self) -> str | None:
        """What to tell people where Alloy's clock and ours disagree."""
        return skew_words(self.clock.skew, self.clock.doubted)

    def tell_clocks(self) -> None:
        """Tells `ClocksCompared`."""
        words = self.clock_words()
        self._clocks_apart = words is not None
        self._observe(ClocksCompared(self.name, self.clock.skew / 1000, self.now(), words))

    def _ours(self) -> tuple[int, int]:
        return self._runtime.now_ms(), int(self._runtime.monotonic() * 1000)

    # What is asked --------------------------------------------------------------------------------

    def probe(self) -> Page:
        """Finds out what the API makes of a createdAt filter (two requests); the page of the
        newest records."""
        return self._reader.probe()

    def read(self, window: Window, *, sure: bool = True) -> Iterator[Reading]:
        """The window's records, page by page, each asked for when it is wanted. `sure`: whether an
        end that the API's own count does not confirm is looked at twice.

        Raises UnorderedApi once, when the API shows that it has to be read newest first: read the
        window again then. Raises Unreachable where the API has records that it does not give."""
        return self._reader.read(window, sure=sure)

    def count(self, window: Window) -> int | None:
        """How many records of a window the API counts; None where it cannot be relied on for that
        (one request, up to three the first time)."""
        return self._reader.count(window)

    def execution(self, execution_id: str) -> list[Record]:
        """All notifications of one execution that the API still has (one request, as a rule).
        Raises the first error, as there are others to ask for: Retry, RequestRefused or
        AccessRefused."""
        with self._fetch.impatient():
            return self._reader.execution(execution_id)

    def look(self, query: Query) -> Page:
        """The answer to any query (one request)."""
        return self._fetch(query)

    def ask(self, path: str, parameters: Mapping[str, str]) -> bytes:
        """The body of the answer to another question than `GET /logs` (one request, within the
        budget). Raises the first error: Retry, RequestRefused or AccessRefused, as nothing depends
        on it."""
        return self._fetch.once(lambda: self._told(path, parameters))

    def asks_in(self) -> float:
        """For how many seconds a question asked now would wait for the request budget."""
        return self._budget.due()

    def page(self, window: Window, limit: int) -> Page:
        """The first page of a window, for what it counts (one request)."""
        bounds = replace(self.base_query, after=window.start - 1, before=window.before)
        return self._fetch(bounds.limited(limit))

    def oldest_beyond(self, moment: int) -> int | None:
        """The oldest createdAt that the whole account still has, where all of it is newer than
        `moment` (Unix ms); None where that is not so or cannot be told (one or two requests)."""
        return self._reader.oldest_beyond(moment)

    def _pause(self, seconds: float) -> None:
        if self._runtime.wait(seconds):
            raise ShutdownRequested

    def _ask(self, query: Query) -> Page:
        begun = self._runtime.monotonic()
        try:
            page = self._client.fetch(query)
        except AlloyReceiverError as error:
            self._tell(begun, error.status, type(error).__name__)
            raise
        self.clock.learn(page, *self._ours())
        if self.clock_words() is not None or self._clocks_apart:
            self.tell_clocks()
        self._tell(begun, 200, None)
        return page

    def _told(self, path: str, parameters: Mapping[str, str]) -> bytes:
        begun = self._runtime.monotonic()
        try:
            body = self._client.get(path, parameters)
        except AlloyReceiverError as error:
            self._tell(begun, error.status, type(error).__name__)
            raise
        self._tell(begun, 200, None)
        return body

    def _tell(self, begun: float, status: int | None, error: str | None) -> None:
        seconds = self._runtime.monotonic() - begun
        self._observe(Requested(self.name, status, error, seconds))
