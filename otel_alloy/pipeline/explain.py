"""Why executions failed, asked for those who look: `tail` and `summary`.

They cannot wait as `run` does, so what is asked is bounded: by seconds, by requests where that is
wanted, and by what the request budget has left for it. What is not known by then is shown without.
What is asked and how answers are joined is in `inside.py`; nothing is delivered or stored here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from otel_alloy.errors import AlloyReceiverError, RequestRefused
from otel_alloy.mapping import semconv
from otel_alloy.mapping.enrichment import Enrichment
from otel_alloy.mapping.facts import ExecutionFacts
from otel_alloy.pipeline.inside import Case, Inquiry, NameStore
from otel_alloy.pipeline.reasons import Failure
from otel_alloy.runtime import Runtime

FRESH_MS = 30_000
"""An execution that ended so lately may not have its blocks and its error at Alloy yet: it is asked
for again."""
_PAUSE = 1.5
_AT_ONCE = 3
"""Requests that one look at a workflow and user takes at least: blocks, errors, names."""
_EACH, _ALL = 100, 20_000
_EVER = 1 << 63

Pair = tuple[str, str]
"""A workflow (the user's installed copy) and a user."""
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class AskedSource(Protocol):
    """What is asked of a source; see `AlloySource`."""

    def ask(self, path: str, parameters: Mapping[str, str]) -> bytes: ...

    def asks_in(self) -> float: ...

    def now(self) -> int: ...


class Newest(Generic[K, T]):
    """Things by key: of each key the newest `each`, and of all not more than `most`; then keys that
    have few go first. `moment`: how new one is."""

    def __init__(self, moment: Callable[[T], int], each: int = _EACH, most: int = _ALL) -> None:
        self._moment, self._each, self._most = moment, each, most
        self._things: dict[K, list[T]] = {}
        self._count = 0

    def add(self, key: K, thing: T) -> None:
        """Keeps one more."""
        some = self._things.setdefault(key, [])
        some.append(thing)
        self._count += 1
        if len(some) >= 2 * self._each:
            some.sort(key=self._moment)
            del some[: -self._each]
            self._count -= self._each
        if self._count > self._most:
            for few in sorted(self._things, key=lambda one: len(self._things[one])):
                if self._count <= self._most // 2:
                    break
                self._count -= len(self._things.pop(few))

    def of(self, key: K) -> Sequence[T]:
        """Those of a key, in no order."""
        return self._things.get(key, ())

    def all(self) -> list[T]:
        """All that are kept."""
        return [thing for some in self._things.values() for thing in some]


class _Spent(RequestRefused):
    """Nothing more may be asked now."""


class _Bounded:
    """A source that may be asked for a while. What would have to wait for the request budget beyond
    that is not asked."""

    def __init__(self, source: AskedSource, runtime: Runtime) -> None:
        self._source = source
        self._runtime = runtime
        self._until = 0.0
        self._left: int | None = 0

    def begin(self, seconds: float, requests: int | None) -> None:
        """From now on it may be asked for so long and so often."""
        self._until = self._runtime.monotonic() + seconds
        self._left = requests

    def lasts(self, seconds: float) -> bool:
        """Whether so much of the time is left."""
        return self._runtime.monotonic() + seconds < self._until

    def is_free(self) -> bool:
        """See `Allowance`."""
        return (self._left is None or self._left >= _AT_ONCE) and self._in_time()

    def spend(self, requests: int) -> None:
        """See `Allowance`."""
        if self._left is not None:
            self._left -= requests

    def ask(self, path: str, parameters: Mapping[str, str]) -> bytes:
        """See `AlloySource.ask`. Raises _Spent, a RequestRefused, where it is over."""
        if (self._left is not None and self._left < 0) or not self._in_time():
            raise _Spent("there is no room for another question")
        return self._source.ask(path, parameters)

    def _in_time(self) -> bool:
        return self.lasts(self._source.asks_in())


class Explainer:
    """Of one source. `told`: an execution's facts with what else is known of it; `complain`: is
    told of a question that fails. See `Inquiry` for the rest."""

    def __init__(
        self,
        source: AskedSource,
        names: NameStore,
        mask: Callable[[str], str | None],
        told: Callable[[ExecutionFacts, Enrichment], ExecutionFacts],
        runtime: Runtime,
        complain: Callable[[AlloyReceiverError], None],
    ) -> None:
        self._source = source
        self._told = told
        self._runtime = runtime
        self._complain = complain
        self._bounded = _Bounded(source, runtime)
        self._inquiry = Inquiry(self._bounded, names, mask, self._bounded, runtime, self._failed)
        self._failures: Newest[Pair, Failure] = Newest(lambda failure: failure.ended)

    def note(self, one: ExecutionFacts) -> None:
        """Remembers an execution that failed: an error may be its own."""
        case = _case(one)
        if case is not None:
            times = (0, _EVER) if one.adjusted else (one.start, one.end)
            self._failures.add((case.workflow, case.user), Failure(case.uuid, *times))

    def explain(
        self, ended: Sequence[ExecutionFacts], seconds: float, requests: int | None = None
    ) -> list[ExecutionFacts]:
        """The same executions, the failed ones with block and reason where those can be had within
        so many seconds and `requests`: first of the workflow and user with most of them."""
        cases = {at: case for at, one in enumerate(ended) if (case := _case(one)) is not None}
        groups: dict[Pair, list[Case]] = {}
        for case in cases.values():
            groups.setdefault((case.workflow, case.user), []).append(case)
        self._bounded.begin(seconds, requests)
        pairs = sorted(groups, key=lambda pair: -len(groups[pair]))
        while pairs:
            for pair in pairs:
                if self._inquiry.may_ask():
                    self._inquiry.ask(groups[pair], self._failures.of(pair), lambda case: True)
            fresh = (self._source.now() - FRESH_MS) * 1_000_000
            pairs = [p for p in pairs if any(c.lacks and c.ended > fresh for c in groups[p])]
            if not (self._inquiry.may_ask() and self._bounded.lasts(_PAUSE)):
                break
            if pairs and self._runtime.wait(_PAUSE):
                break
        found = list(ended)
        for at, case in cases.items():
            if case.steps is not None:
                found[at] = self._told(ended[at], self._inquiry.enrichment(case))
        return found

    def _failed(self, error: AlloyReceiverError, pause: float) -> None:
        if not isinstance(error, _Spent):
            self._complain(error)


def _case(one: ExecutionFacts) -> Case | None:
    """An execution that failed, as what is asked about; None for others, and where it does not tell
    enough for that."""
    known = one.attributes
    uuid, workflow = known.get(semconv.EXECUTION_UUID), known.get(semconv.WORKFLOW_INSTALLATION_ID)
    if one.outcome != "error" or not (uuid and workflow):
        return None
    version = known.get(semconv.WORKFLOW_VERSION)
    version = version if type(version) is int else None
    return Case(uuid, workflow, one.user_id or "", version, one.start, one.end, True)
