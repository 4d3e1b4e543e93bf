"""What the receiver tells those who watch it: values only, no clock, no I/O.

Of one source, in this order: `CycleBegan`; perhaps `GapFound`; `Requested`, `RequestRetried`,
`Received`, `ExportAttempted`, `CheckpointWriteFailed` and `Settled` as often as it takes;
`CycleEnded`, `Unreached` or `CursorAhead`; at the very end perhaps `SourceStopped`. Besides,
`ClocksCompared` at least once a cycle, and while they differ. Events of one source come from
several threads, and watchers must neither block nor keep what an event lets them read. Of the
error webhook, which belongs to no source: `WebhookListens`, then `WebhookAnswered` for each post.
Of destinations: what `otel_alloy.destinations.events` has. Of replicas that share the work:
`LeasesLooked` or `LeasesFailed` every few seconds, `LeaseTaken`.

Times are Unix ms by Alloy's clock, durations seconds. `cycle` is a short id that the log lines of
the same cycle carry too. No event holds a secret; reasons are words that may be shown.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields

from otel_alloy.alloy.events import ClocksCompared, Requested, RequestRetried
from otel_alloy.destinations.events import (
    DestinationRecalled,
    DestinationSettled,
    DestinationsLooked,
    DestinationSpilled,
)
from otel_alloy.mapping.facts import ExecutionFacts, Glance
from otel_alloy.otlp.delivery import Report

__all__ = [
    "WEBHOOK_OUTCOMES",
    "Advanced",
    "Audited",
    "BackfillCounted",
    "CheckpointWriteFailed",
    "ClocksCompared",
    "Counts",
    "CursorAhead",
    "CycleBegan",
    "CycleEnded",
    "DestinationRecalled",
    "DestinationSettled",
    "DestinationSpilled",
    "DestinationsLooked",
    "ExportAttempted",
    "Filtered",
    "GapFound",
    "Holding",
    "LeaseTaken",
    "LeasesFailed",
    "LeasesLooked",
    "Observe",
    "OverlapLooked",
    "Paced",
    "Planned",
    "Position",
    "Received",
    "RequestRetried",
    "Requested",
    "SeenLate",
    "Settled",
    "SourceStopped",
    "Unreached",
    "WebhookAnswered",
    "WebhookListens",
    "tell_all",
]

Observe = Callable[[object], None]
"""Is told each event; does not block and does not raise."""


@dataclass(frozen=True, slots=True)
class CycleBegan:
    """A source begins to read. Everything up to `settled_to` was settled before; `high` is the
    newest createdAt among it, if there is any."""

    source: str
    cycle: str
    settled_to: int
    high: int | None
    now: int


@dataclass(frozen=True, slots=True)
class GapFound:
    """Records created between `after`, up to where all was read, and `oldest`, the oldest that
    Alloy shows, may be lost: Alloy has removed what is older (`otel_alloy.alloy.retention`)."""

    source: str
    after: int
    oldest: int


@dataclass(frozen=True, slots=True)
class Received:
    """A page was read: so many records, what is known already included."""

    source: str
    records: int


@dataclass(frozen=True, slots=True)
class ExportAttempted:
    """An OTLP request has ended, for better or worse."""

    source: str
    report: Report


@dataclass(frozen=True, slots=True)
class CheckpointWriteFailed:
    """The checkpoint cannot be written; tried again after `wait`."""

    source: str
    reason: str
    wait: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a settled batch held and what became of it. `received`: records, of which `repeated`
    were known. `executions`: what was to be delivered; `spans`, `log_records`: what the endpoint
    took. `rejected`: executions and records that were set aside. `refused_spans`,
    `refused_log_records`: what the endpoint rejected of requests that it accepted (OTLP's partial
    success), which is final and in none of the other figures. `hook_failures`: how often the
    mapping's hook failed. `requests`: sent to Alloy since the batch before."""

    received: int = 0
    repeated: int = 0
    executions: int = 0
    spans: int = 0
    log_records: int = 0
    rejected: int = 0
    refused_spans: int = 0
    refused_log_records: int = 0
    requests: int = 0
    hook_failures: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Both together."""
        names = [one.name for one in fields(self)]
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def new(self) -> int:
        """Records that need nothing more and were not known before."""
        return max(0, self.received - self.repeated - self.rejected)

    @property
    def refused(self) -> int:
        """Spans and log records that the endpoint rejected of requests that it accepted."""
        return self.refused_spans + self.refused_log_records


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a source is. `high`: newest createdAt with everything before it settled, None where
    nothing is. `start`, `before`: the window, of which `last` says whether it is read to its end.
    `now`: Alloy's clock. `open`: executions that have not ended."""

    high: int | None
    start: int
    before: int
    last: bool
    now: int = 0
    open: int = 0


def no_glance(newest: int, since: int) -> Glance:
    """Where a batch cannot be looked at: nothing is seen."""
    return Glance()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A batch was settled. `ended()` makes the facts of the batch's ended executions, only while
    the event is being observed; so does `glance(newest, since)`, of a few of them (`Glance`)."""

    source: str
    cycle: str = ""
    counts: Counts
    position: Position
    ended: Callable[[], Iterable[ExecutionFacts]] = field(default=tuple, repr=False, compare=False)
    glance: Callable[[int, int], Glance] = field(default=no_glance, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Filtered:
    """Of a settled batch, rules kept back so many executions: `rules`, for all destinations, by the
    rule's name; `destinations`, by destination, whose own rules did."""

    source: str
    rules: Mapping[str, int]
    destinations: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class SeenLate:
    """Records were seen for the first time: so many `on_time`, the others `late` by so many seconds
    each. `largest`: the most of the last one to two weeks; `overlap`: what is read again for it
    (`otel_alloy.pipeline.visibility`)."""

    source: str
    on_time: int
    late: tuple[float, ...]
    largest: float
    overlap: float


@dataclass(frozen=True, slots=True)
class OverlapLooked:
    """How a window looks for what appeared late: `read`, `counted` or `put off`
    (`otel_alloy.pipeline.overlap`). `read_again_to`: the createdAt up to which what was counted was
    read once more; None where nothing was."""

    source: str
    how: str
    read_again_to: int | None


@dataclass(frozen=True, slots=True)
class Paced:
    """How often a source is read: each `interval` seconds, which needs so many requests a minute of
    a `budget` (0: no limit). `words`: the arithmetic. `tight`: new records alone take nearly all of
    the budget (`otel_alloy.pipeline.pace`)."""

    source: str
    interval: float
    needed: float
    budget: float
    words: str
    tight: bool


@dataclass(frozen=True, slots=True)
class Audited:
    """Stretches of createdAt from `start` to `before` were held against Alloy's own count, `age`
    seconds after their end (`otel_alloy.pipeline.audit`). `api`: what Alloy counts, None where it
    does not; `settled`: what is settled, of which `recovered` was found by the audit; `missing`:
    what cannot be had."""

    source: str
    age: float
    start: int
    before: int
    api: int | None
    settled: int
    recovered: int
    missing: int


@dataclass(frozen=True, slots=True)
class CycleEnded:
    """A window was read to its end and settled: everything before `before`. The next cycle begins
    after `rest`."""

    source: str
    cycle: str
    before: int
    now: int
    rest: float


@dataclass(frozen=True, slots=True)
class Unreached:
    """A window could not be read to its end: from the createdAt `moment` on Alloy has so many
    records (`count`, None where that cannot be told) that it does not give. `reason` says so in
    words. Tried again after `rest`, at the next cycle."""

    source: str
    count: int | None
    moment: int
    reason: str
    rest: float


@dataclass(frozen=True, slots=True)
class CursorAhead:
    """The checkpoint, `moment`, lies in the future of every clock. Nothing is read until a person
    has moved it, as `reason` says, or its time has come; looked at again after `rest`."""

    source: str
    moment: int
    reason: str
    rest: float


@dataclass(frozen=True, slots=True)
class SourceStopped:
    """A source cannot go on. `reason` says what a person has to do; `error`: the name of the
    exception."""

    source: str
    reason: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Planned:
    """A backfill of a source begins or goes on: so many ms of createdAt are to be read, and in
    them so many `records` where the API can tell."""

    source: str
    ms: int
    records: int | None


@dataclass(frozen=True, slots=True)
class Advanced:
    """A backfill has settled so many ms of createdAt more."""

    source: str
    ms: int


@dataclass(frozen=True, slots=True)
class BackfillCounted:
    """A backfill of a source is done: so many records of its range are `settled` (None where that
    was not counted), and so many Alloy counts there (`api`, None where it does not)."""

    source: str
    settled: int | None
    api: int | None


@dataclass(frozen=True, slots=True)
class LeaseTaken:
    """This replica works at a unit from now on. `takeover`: another one had not given it back."""

    unit: str
    epoch: int
    takeover: bool


@dataclass(frozen=True, slots=True)
class Holding:
    """Who holds a unit, and for how many seconds more unless that is renewed."""

    unit: str
    owner: str
    epoch: int
    expires_in: float


@dataclass(frozen=True, slots=True)
class LeasesLooked:
    """What the replicas hold, as this `replica` sees it. `mine`: the units that it works at;
    `unowned`: those that nobody holds."""

    replica: str
    mine: frozenset[str]
    holdings: tuple[Holding, ...]
    unowned: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeasesFailed:
    """Leases cannot be kept at the moment, so they run out; tried again after `wait`."""

    reason: str
    wait: float


@dataclass(frozen=True, slots=True)
class WebhookListens:
    """Alloy's error webhook is received at `address` (`host:port`) from now on; None: no more."""

    address: str | None


@dataclass(frozen=True, slots=True)
class WebhookAnswered:
    """A post to the error webhook was answered. `outcome`: what became of it, one of
    `WEBHOOK_OUTCOMES`."""

    outcome: str


WEBHOOK_OUTCOMES = ("kept", "known", "failed", "unreadable", "refused", "too_large", "limited")
"""What becomes of a post; see the table in `otel_alloy/webhook/listener.py`."""


def tell_all(*watchers: Observe) -> Observe:
    """A watcher that passes each event on to all of these. One that fails is logged, and does not
    hold up the receiver."""

    def tell(event: object) -> None:
        for watcher in watchers:
            try:
                watcher(event)
            except Exception:
                logging.getLogger("otel_alloy").exception("a watcher failed; the receiver goes on")

    return tell
