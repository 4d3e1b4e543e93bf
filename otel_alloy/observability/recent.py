"""What came through lately, from the receiver's events: for the page.

It is counted in memory from the start of this process on, minute by minute for an hour, and within
fixed bounds, however many executions and workflows there are. A failure counts in the minute in
which the execution ended, by Alloy's clock; what is settled counts in the minute in which that was
done. No personal data is kept: of an execution only when and how it ended, its workflow and its
ids. Nothing here is sent, printed or stored.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, field

from otel_alloy.mapping.facts import ExecutionFacts, Failed, Outcome
from otel_alloy.pipeline.events import Settled
from otel_alloy.runtime import Runtime

MINUTES = 60
"""How far back is counted, the running minute included."""
RATE_MINUTES = 5
"""The throughput is the mean of this running minute and so many before it."""
MOST_EXECUTIONS = 25
MOST_WORKFLOWS = 50
"""With failures in one minute, by name; the failures of all others are counted together."""
_NAME_LENGTH = 200

Workflow = tuple[str, str]
"""Name and id; the id is "" where it is not known."""
OTHERS: Workflow = ("", "")


@dataclass(frozen=True, slots=True)
class Last:
    """An execution that was settled. `end`: Unix ns."""

    source: str
    workflow: str
    outcome: Outcome
    end: int
    seconds: float
    trace_id: bytes
    span_id: bytes


@dataclass(frozen=True, slots=True)
class Lately:
    """What is known at one moment. `settled`, `failed`: by minute, the oldest first, None before
    the start of what is known. `rate`: executions settled per minute, over the last
    `rate_seconds`. `failures`: the workflow, how often it failed, and how many minutes ago the last
    time; most first. `others`: failures of those that are counted together. `last`: executions,
    newest end first."""

    since: float
    settled: list[int | None]
    failed: list[int | None]
    rate: float
    rate_seconds: float
    failures: list[tuple[Workflow, int, int]]
    others: int
    last: list[Last]


@dataclass(slots=True)
class _Minute:
    settled: int = 0
    failed: Counter[Workflow] = field(default_factory=Counter)


class Recent:
    """A watcher of events that can be asked from any thread."""

    def __init__(self, runtime: Runtime) -> None:
        self._clock = runtime.clock
        self._monotonic = runtime.monotonic
        self._since = runtime.clock()
        self._begun = runtime.monotonic()
        self._lock = threading.Lock()
        self._minutes: dict[int, _Minute] = {}
        self._last: deque[Last] = deque(maxlen=MOST_EXECUTIONS)

    def __call__(self, event: object) -> None:
        """Takes an event."""
        if not isinstance(event, Settled) or not event.counts.executions:
            return
        now = (event.position.now or int(self._clock() * 1000)) * 1_000_000
        glance = event.glance(MOST_EXECUTIONS, now - MINUTES * 60 * 1_000_000_000)
        here = self._monotonic()
        with self._lock:
            self._minute(here).settled += glance.ended
            for one in glance.failed:
                self._fails(here - max(0, now - one.end) / 1e9, one)
            self._last.extend(_last(event.source, one) for one in reversed(glance.newest))
            self._forget(here)

    def _minute(self, moment: float) -> _Minute:
        return self._minutes.setdefault(int(moment // 60), _Minute())

    def _fails(self, moment: float, one: Failed) -> None:
        failed = self._minute(moment).failed
        workflow = one.workflow[:_NAME_LENGTH], one.workflow_id[:_NAME_LENGTH]
        if workflow not in failed and len(failed) >= MOST_WORKFLOWS:
            workflow = OTHERS
        failed[workflow] += 1

    def _forget(self, now: float) -> None:
        oldest = int(now // 60) - MINUTES + 1
        for minute in [m for m in self._minutes if m < oldest]:
            del self._minutes[minute]

    def look(self) -> Lately:
        """What is known now."""
        with self._lock:
            now = self._monotonic()
            self._forget(now)
            minute = int(now // 60)
            begun = int(self._begun // 60)
            shown = range(minute - MINUTES + 1, minute + 1)
            counted = [(m, self._minutes.get(m, _Minute())) for m in shown]
            failures: Counter[Workflow] = Counter()
            ago: dict[Workflow, int] = {}
            for m, one in counted:
                failures.update(one.failed)
                ago.update(dict.fromkeys(one.failed, minute - m))
            others = failures.pop(OTHERS, 0)
            # What a first second brought is no rate of a minute.
            seconds = max(60.0, min(now - self._begun, RATE_MINUTES * 60 + now % 60))
            lately = [one.settled for _, one in counted[-RATE_MINUTES - 1 :]]
            return Lately(
                self._since,
                [_known(m >= begun, one.settled) for m, one in counted],
                [_known(m >= begun, one.failed.total()) for m, one in counted],
                sum(lately) * 60 / seconds,
                seconds,
                [(w, number, ago[w]) for w, number in failures.most_common()],
                others,
                sorted(self._last, key=lambda one: one.end, reverse=True),
            )


def _known(known: bool, number: int) -> int | None:
    return number or (0 if known else None)


def _last(source: str, facts: ExecutionFacts) -> Last:
    return Last(
        source,
        facts.workflow[:_NAME_LENGTH],
        facts.outcome,
        facts.end,
        facts.seconds,
        facts.trace_id,
        facts.span_id,
    )
