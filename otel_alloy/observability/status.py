"""What is known of each source, from the receiver's events: the one place where health, metrics
and systemd look, so that they agree.

**Lag** is how far behind Alloy's clock the source is: everything older is settled. It grows while
something cannot be delivered, and is about one interval where there is nothing to read. **Cursor
age** is the age of the newest record that was settled; it also grows while Alloy is silent.

**Ready** means that executions get through: a cycle was completed, the lag is below the limit (or
two intervals, where those are longer), and nothing waits for a person. Where replicas share the
sources, that is asked of those that this one works at; one without work is ready. **Live** means
that the loop turns, also while it can only wait.

Nothing is sent, printed or stored here.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from otel_alloy.alloy.timestamps import to_text
from otel_alloy.observability.conditions import Failing, SourceView, View
from otel_alloy.observability.destinations import DestinationGauges, DestinationsView
from otel_alloy.observability.leases import LeaseGauges, LeasesView
from otel_alloy.pipeline import events
from otel_alloy.runtime import Runtime

PATIENCE = 900.0
"""Seconds of silence, beyond the wait that was announced, after which a source counts as stuck.
Longer than any single request may take."""


@dataclass(slots=True)
class _Trouble:
    """Something that fails at the moment; `until` is monotonic."""

    reason: str
    kind: str
    attempt: int
    until: float
    for_a_person: bool


@dataclass(slots=True)
class _Source:
    heard: float
    offset: float = 0.0  # Alloy's clock in seconds, minus monotonic
    settled_to: int | None = None
    known: bool = False  # whether settled_to is what was settled, not what was hoped for
    high: int | None = None
    cycle: str = ""
    complete: bool = False
    open: int | None = None
    success: float | None = None  # Unix seconds
    error: tuple[float, str, str] | None = None  # Unix seconds, what, reason
    trouble: dict[str, _Trouble] = field(default_factory=dict)
    resting: bool = False
    rest: float = 0.0
    quiet_until: float = 0.0
    stopped: str | None = None
    stopped_by: str = ""  # the name of the exception
    unreachable: tuple[int | None, int] | None = None  # how many, createdAt
    gap: tuple[float, int, int] | None = None  # Unix seconds, then createdAt from, to
    lateness: tuple[float, float] | None = None  # seconds: largest seen, overlap
    looked: events.OverlapLooked | None = None
    paced: events.Paced | None = None
    audited: dict[float, events.Audited] = field(default_factory=dict)  # the last, by age
    missing: dict[tuple[int, int], int] = field(default_factory=dict)  # by stretch
    recovered: int = 0
    held: tuple[float, str] | None = None  # Unix seconds, reason
    skew: float | None = None
    clock_words: str | None = None
    ahead: int | None = None  # createdAt


@dataclass(slots=True)
class _Webhook:
    """The listener for Alloy's errors, since it was opened."""

    listening: str | None  # host:port
    last_report: float | None = None  # Unix seconds
    answers: Counter[str] = field(default_factory=Counter)

    def report(self) -> dict[str, Any]:
        last = None if self.last_report is None else _text(self.last_report)
        return {"listening": self.listening, "last_report": last, "answers": dict(self.answers)}


@dataclass(frozen=True, slots=True)
class Gauges:
    """What is measured of a source at one moment; None where it is not known yet. Seconds."""

    source: str
    lag: float | None
    cursor_age: float | None
    open: int | None
    unreachable: int
    """Records that Alloy counts and does not give; 1 where they cannot be counted."""
    skew: float | None
    """Alloy's clock minus this machine's."""
    held: int
    """1 while Alloy refuses what it had accepted before, else 0."""
    missing: int | None
    """Records that Alloy counts and the audit could not have; None where nothing was audited."""
    audited_to: Mapping[str, float]
    """By age in seconds, the createdAt (Unix seconds) up to which everything was audited."""
    overlap: float | None
    """What is read again each cycle, for records that become visible late."""
    failing: Mapping[str, int]
    """Failed attempts in a row, by stage; only of what fails at the moment."""


class Status:
    """A watcher of events that can be asked from any thread. `mask` makes reasons fit to show."""

    def __init__(
        self,
        sources: Iterable[str],
        *,
        max_lag: float,
        runtime: Runtime,
        mask: Callable[[str], str] = str,
    ) -> None:
        self._max_lag = max_lag
        self._mask = mask
        self._monotonic = runtime.monotonic
        self._now = runtime.clock
        self._lock = threading.Lock()
        begun = runtime.monotonic()
        self._sources = {name: _Source(begun, quiet_until=begun) for name in sources}
        self._webhook: _Webhook | None = None
        self._destinations = DestinationsView()
        self._leases = LeasesView()

    def __call__(self, event: Any) -> None:
        """Takes an event."""
        with self._lock:
            self._take_webhook(event)
            self._destinations(event)
            self._take_leases(event)
            source = self._sources.get(getattr(event, "source", ""))
            if source is None:
                return
            source.heard = self._monotonic()
            source.quiet_until = max(source.quiet_until, source.heard)
            source.resting = False
            self._take(source, event)

    def _take_webhook(self, event: object) -> None:
        match event:
            case events.WebhookListens():
                self._webhook = _Webhook(event.address)
            case events.WebhookAnswered() if self._webhook is not None:
                self._webhook.answers[event.outcome] += 1
                if event.outcome in ("kept", "known"):
                    self._webhook.last_report = self._now()

    def _take_leases(self, event: object) -> None:
        here = {name for name in self._sources if not self._leases.elsewhere(name)}
        self._leases(event)
        now = self._monotonic()
        for name, source in self._sources.items():
            if self._leases.elsewhere(name):
                # What was known of it is not true for long.
                if name in here and source.stopped is None:
                    self._sources[name] = _Source(now, quiet_until=now)
            elif name not in here or self._leases.failing is not None:
                source.heard = now
                source.quiet_until = max(source.quiet_until, now)

    def _take(self, source: _Source, event: object) -> None:
        match event:
            case events.CycleBegan():
                source.cycle = event.cycle
                if not source.known:  # by Alloy's clock as far as it is known
                    source.settled_to = event.settled_to
                source.high = event.high
                self._learn(source, event.now)
            case events.GapFound():
                source.gap = self._now(), event.after, event.oldest
            case events.Requested(error=None):
                source.trouble.pop("alloy", None)
                source.held = None
            case events.RequestRetried(held=held):
                words, kind = str(event.error), type(event.error).__name__
                self._fails(source, "alloy", kind, words, event.attempt, event.wait, held)
                if held:
                    since = self._now() if source.held is None else source.held[0]
                    source.held = since, self._mask(words)
            case events.ExportAttempted(report=report):
                if report.next_wait is None:
                    source.trouble.pop(report.signal, None)
                else:
                    self._fails(
                        source,
                        report.signal,
                        report.outcome.kind.value,
                        report.outcome.reason,
                        report.attempt,
                        report.next_wait,
                        report.for_a_person,
                    )
            case events.CheckpointWriteFailed():
                words = event.reason
                self._fails(source, "checkpoint", "unwritable", words, 1, event.wait, True)
            case events.Settled():
                source.trouble.pop("checkpoint", None)
                source.success = self._now()
                at = event.position
                source.open = at.open
                if at.high is not None:
                    source.high = at.high
                    self._settled_to(source, at.high, at.now)
                self._learn(source, at.now)
            case events.CycleEnded():
                source.complete = source.resting = True
                source.success = self._now()
                self._settled_to(source, event.before, event.now)
                source.trouble.clear()
                source.unreachable = source.ahead = None
                source.rest = event.rest
                source.quiet_until = source.heard + event.rest
                self._learn(source, event.now)
            case events.ClocksCompared():
                source.skew = event.skew
                source.clock_words = event.words
                self._learn(source, event.now)
            case events.CursorAhead():
                attempt = source.trouble["checkpoint"].attempt + 1 if source.ahead else 1
                source.trouble.clear()
                source.ahead = event.moment
                source.resting = True
                source.rest = event.rest
                self._fails(source, "checkpoint", "ahead", event.reason, attempt, event.rest, True)
            case events.Unreached():
                attempt = source.trouble["records"].attempt + 1 if source.unreachable else 1
                source.trouble.clear()
                source.unreachable = event.count, event.moment
                source.resting = True
                source.rest = event.rest
                words = event.reason
                self._fails(source, "records", "unreached", words, attempt, event.rest, True)
            case events.SeenLate():
                source.lateness = event.largest, event.overlap
            case events.OverlapLooked():
                source.looked = event
            case events.Paced():
                source.paced = event
            case events.Audited():
                source.audited[event.age] = event
                source.recovered += event.recovered
                source.missing = {
                    (start, before): number
                    for (start, before), number in source.missing.items()
                    if not event.start <= start < before <= event.before
                }
                if event.missing:
                    source.missing[event.start, event.before] = event.missing
            case events.SourceStopped():
                source.stopped, source.stopped_by = self._mask(event.reason), event.error
                source.error = self._now(), "source", source.stopped
            case _:
                pass

    def _settled_to(self, source: _Source, moment: int, now: int) -> None:
        known = source.settled_to if source.known else None
        if known is not None and now:  # a clock may have been corrected since
            known = min(known, now)
        source.settled_to = moment if known is None else max(known, moment)
        source.known = True

    def _learn(self, source: _Source, now: int) -> None:
        source.offset = now / 1000 - source.heard

    def _fails(
        self,
        source: _Source,
        what: str,
        kind: str,
        reason: str,
        attempt: int,
        wait: float,
        person: bool,
    ) -> None:
        words = self._mask(reason)
        source.error = self._now(), what, words
        source.trouble[what] = _Trouble(words, kind, attempt, source.heard + wait, person)
        source.quiet_until = max(source.quiet_until, source.heard + wait)

    def gauges(self) -> list[Gauges]:
        """What is measured, source by source."""
        with self._lock:
            return [
                Gauges(
                    name,
                    self._lag(s),
                    self._behind(s, s.high),
                    s.open,
                    0 if s.unreachable is None else s.unreachable[0] or 1,
                    s.skew,
                    int(s.held is not None),
                    sum(s.missing.values()) if s.audited else None,
                    {f"{age:.0f}": e.before / 1000 for age, e in s.audited.items()},
                    None if s.lateness is None else s.lateness[1],
                    {stage: trouble.attempt for stage, trouble in s.trouble.items()},
                )
                for name, s in self._here()
            ]

    def destinations(self) -> list[DestinationGauges]:
        """What is measured, destination by destination."""
        with self._lock:
            return self._destinations.gauges(int(self._now() * 1000))

    def leases(self) -> LeaseGauges | None:
        """What is measured of leases; None where nothing is shared."""
        with self._lock:
            return self._leases.gauges()

    def destination_label(self, name: str) -> str:
        """What a destination is called in metrics."""
        with self._lock:
            return self._destinations.label(name)

    def _behind(self, source: _Source, moment: int | None) -> float | None:
        if moment is None:
            return None
        return max(0.0, self._monotonic() + source.offset - moment / 1000)

    def _limit(self, source: _Source) -> float:
        return max(self._max_lag, 2 * source.rest)

    def _lag(self, source: _Source) -> float | None:
        return self._behind(source, source.settled_to)

    def not_ready(self) -> list[str]:
        """Why executions do not get through, one sentence each; empty where they do."""
        with self._lock:
            failing = self._leases.failing
            return [
                *([] if failing is None else [f"leases: {self._mask(failing)}"]),
                *(
                    f"source {name}: {reason}"
                    for name, source in self._here()
                    for reason in self._reasons(source)
                ),
            ]

    def _here(self) -> list[tuple[str, _Source]]:
        """The sources that this process works at, or should."""
        return [
            (name, source)
            for name, source in self._sources.items()
            if source.stopped is not None or not self._leases.elsewhere(name)
        ]

    def _reasons(self, source: _Source) -> list[str]:
        if source.stopped is not None:
            return [f"stopped: {source.stopped}"]
        reasons = [
            f"{what}: {trouble.reason}"
            for what, trouble in source.trouble.items()
            if trouble.for_a_person
        ]
        lag, limit = self._lag(source), self._limit(source)
        if lag is not None and lag > limit:
            reasons.append(f"the lag is {lag:.0f} s, more than {limit:.0f} s (ready_max_lag)")
        if not source.complete:
            reasons.append("the first cycle is not complete")
        return reasons

    def stuck(self) -> list[str]:
        """Sources that have been silent for too long, one sentence each; empty while the loop
        turns. A source that stopped with a reason is not stuck."""
        with self._lock:
            now = self._monotonic()
            return [
                f"source {name}: nothing happened for {now - source.heard:.0f} s"
                for name, source in self._here()
                if _is_stuck(source, now)
            ]

    def waiting(self) -> list[str]:
        """What the sources wait for, one sentence each; empty where all of them rest or work."""
        with self._lock:
            return [
                f"source {name}: {words}"
                for name, source in self._here()
                for words in self._waits(source)
            ]

    def _waits(self, source: _Source) -> list[str]:
        now = self._monotonic()
        return [
            f"{what}: {t.reason}; attempt {t.attempt}, next in {max(0.0, t.until - now):.0f} s"
            for what, t in source.trouble.items()
        ]

    def view(self) -> View:
        """All of it as values, without reasons of sources."""
        with self._lock:
            failing = self._leases.failing is not None
            sources = [self._view(name, s) for name, s in self._sources.items()]
            return View(
                ready=not failing and all(one.ready for one in sources),
                live=all(one.live for one in sources),
                leases_failing=failing,
                sources=sources,
                leases=self._leases.report(),
                destinations=self._destinations.report(int(self._now() * 1000)),
            )

    def _view(self, name: str, source: _Source) -> SourceView:
        elsewhere = source.stopped is None and self._leases.elsewhere(name)
        lag, now = self._lag(source), self._monotonic()
        return SourceView(
            name,
            ready=elsewhere or not self._reasons(source),
            live=elsewhere or not _is_stuck(source, now),
            elsewhere=elsewhere,
            owner=self._leases.owner(name) if elsewhere else None,
            stopped=None if source.stopped is None else source.stopped_by,
            failing=tuple(
                Failing(stage, t.kind, t.attempt, max(0.0, t.until - now), t.for_a_person)
                for stage, t in source.trouble.items()
            ),
            held=source.held is not None,
            ahead=source.ahead is not None,
            complete=source.complete,
            resting=source.resting,
            lag=lag,
            late=lag is not None and lag > self._limit(source),
            open=source.open,
            success=source.success,
            missing=sum(source.missing.values()),
            gap=source.gap is not None,
        )

    def report(self) -> dict[str, Any]:
        """All of it, ready to be written as JSON."""
        not_ready, stuck = self.not_ready(), self.stuck()
        with self._lock:
            return {
                "ready": not not_ready,
                "not_ready": not_ready,
                "live": not stuck,
                "stuck": stuck,
                "webhook": None if self._webhook is None else self._webhook.report(),
                "leases": self._leases.report(),
                "filtered": self._destinations.filtered(),
                "destinations": self._destinations.report(int(self._now() * 1000)),
                "sources": [self._one(name, s) for name, s in self._sources.items()],
            }

    def _one(self, name: str, source: _Source) -> dict[str, Any]:
        lag = self._lag(source)
        error = None
        if source.error is not None:
            at, what, reason = source.error
            error = {"at": _text(at), "stage": what, "reason": reason}
        gap = None
        if source.gap is not None:
            at, after, oldest = source.gap
            gap = {"found_at": _text(at), "from": to_text(after), "to": to_text(oldest)}
        unreachable = None
        if source.unreachable is not None:
            count, moment = source.unreachable
            unreachable = {"records": count, "from": to_text(moment)}
        held = None
        if source.held is not None:
            since, reason = source.held
            held = {"since": _text(since), "reason": reason}
        waits = self._waits(source)
        if source.stopped is not None:
            waits = ["a person: it has stopped"]
        elif not waits and source.resting:
            left = max(0.0, source.quiet_until - self._monotonic())
            waits = [f"the next cycle, in {left:.0f} s"]
        elsewhere = source.stopped is None and self._leases.elsewhere(name)
        if elsewhere:
            owner = self._leases.owner(name)
            waits = [
                "a replica that takes it" if owner is None else f"nothing: {owner} works at it"
            ]
        return {
            "source": name,
            "ready": elsewhere or not self._reasons(source),
            "cursor": None if source.high is None else to_text(source.high),
            "settled_up_to": None if source.settled_to is None else to_text(source.settled_to),
            "lag_seconds": None if lag is None else round(lag, 1),
            "open_executions": source.open,
            "cycle": source.cycle,
            "last_success": None if source.success is None else _text(source.success),
            "last_error": error,
            "gap": gap,
            "unreachable": unreachable,
            "overlap_seconds": None if source.lateness is None else source.lateness[1],
            "visibility_lag_seconds": None if source.lateness is None else source.lateness[0],
            "overlap": self._overlap(source),
            "requests": self._requests(source),
            "audit": self._audit(source),
            "held": held,
            "clock": {
                "skew_seconds": None if source.skew is None else round(source.skew, 1),
                "note": source.clock_words,
            },
            "cursor_ahead": None if source.ahead is None else to_text(source.ahead),
            "waits_for": waits,
        }

    @staticmethod
    def _overlap(source: _Source) -> dict[str, Any] | None:
        """How the last window looked for what appeared late."""
        if source.looked is None:
            return None
        again = source.looked.read_again_to
        return {
            "look": source.looked.how,
            "read_once_more_to": None if again is None else to_text(again),
        }

    @staticmethod
    def _requests(source: _Source) -> dict[str, Any] | None:
        """What reading costs, with the arithmetic."""
        paced = source.paced
        if paced is None:
            return None
        return {
            "interval_seconds": round(paced.interval, 1),
            "needed_per_minute": round(paced.needed, 1),
            "budget_per_minute": paced.budget or None,
            "note": paced.words,
        }

    @staticmethod
    def _audit(source: _Source) -> dict[str, Any]:
        """What the audit found since the start, with the last result of each age."""
        return {
            "missing": sum(source.missing.values()),
            "recovered": source.recovered,
            "ages": [
                {
                    "age_seconds": age,
                    "audited_to": to_text(last.before),
                    "alloy": last.api,
                    "settled": last.settled,
                }
                for age, last in sorted(source.audited.items())
            ],
        }


def _is_stuck(source: _Source, now: float) -> bool:
    return source.stopped is None and now > source.quiet_until + PATIENCE


def _text(seconds: float) -> str:
    return to_text(int(seconds * 1000))
