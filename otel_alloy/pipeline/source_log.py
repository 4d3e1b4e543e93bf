"""The log lines of one source: what happens becomes words, and repetitions are throttled.

An observer like any other. Words only: nothing is decided or counted here.
"""

from __future__ import annotations

import logging

from otel_alloy.alloy.timestamps import to_text
from otel_alloy.log_throttle import LogThrottle
from otel_alloy.otlp.outcome import Kind
from otel_alloy.pipeline.events import (
    Audited,
    CheckpointWriteFailed,
    ClocksCompared,
    CursorAhead,
    CycleEnded,
    ExportAttempted,
    Paced,
    Requested,
    RequestRetried,
    Unreached,
)
from otel_alloy.settings.otlp import OtlpExporters

log = logging.getLogger("otel_alloy")

_NAMES = {"traces": "spans", "logs": "log records"}


class SourceLog:
    """`throttle`: where several write about the same source. `cycle`: goes along with each line."""

    def __init__(self, source: str, throttle: LogThrottle) -> None:
        self.cycle = ""
        self._source = source
        self._throttle = throttle
        self._uncounted = False
        self._tight = False
        self._held = False
        self._clocks_apart = False

    def __call__(self, event: object) -> None:
        """Takes an event."""
        match event:
            case RequestRetried(held=True, error=error, wait=wait):
                self._hold(f"{error}; held: trying again in {wait:.1f} s")
            case Requested(error=None):
                self._held = False
                self._works_again("alloy", "Alloy answers again")
            case RequestRetried(error=error, smaller=True):
                self.say(logging.WARNING, f"{error}; trying half the page size")
            case RequestRetried(error=error, attempt=attempt, wait=wait) if attempt > 1:
                self.complain("alloy", f"{error}; trying again in {wait:.1f} s")
            case ExportAttempted():
                self._export(event)
            case CheckpointWriteFailed(reason=reason):
                self.complain("checkpoint", reason)
            case ClocksCompared(words=words):
                self._clocks(words)
            case CursorAhead(reason=reason):
                self.complain("ahead", reason, logging.ERROR)
            case Unreached(reason=reason):
                self.complain("unreachable", reason, logging.ERROR)
            case Audited():
                self._audited(event)
            case Paced():
                self._paced(event)
            case CycleEnded():
                self._works_again("unreachable", "what could not be reached is read")
                self._works_again("ahead", "the checkpoint does not lie in the future any more")

    def say(self, level: int, words: str) -> None:
        """A line, always."""
        more = {"source": self._source, "cycle": self.cycle}
        log.log(level, "source %s: %s", self._source, words, extra=more)

    def complain(self, topic: str, words: str, level: int = logging.WARNING) -> None:
        """A warning; repetitions on one topic become one line."""
        more = self._throttle.admit(topic)
        if more is not None:
            self.say(level, words + more)

    def _hold(self, words: str) -> None:
        """A refusal: an error the first time, then warnings now and then until it has passed."""
        first, self._held = not self._held, True
        more = self._throttle.admit("alloy")
        if first:
            self.say(logging.ERROR, words)
        elif more is not None:
            self.say(logging.WARNING, words + more)

    def _clocks(self, words: str | None) -> None:
        """That the clocks disagree, once, and that they agree again."""
        apart, self._clocks_apart = self._clocks_apart, words is not None
        if words is not None and not apart:
            self.say(
                logging.WARNING,
                f"{words}; nothing is passed by either alone, and what Alloy shows is delivered; "
                "set this machine's clock if it is wrong",
            )
        elif words is None and apart:
            self.say(logging.INFO, "the API's clock and this machine's agree again")

    def fallback(self, why: str) -> None:
        """That the API has to be read newest first."""
        self.say(
            logging.WARNING,
            f"this API does not page by createdAt ({why}); reading newest first, which costs more "
            "requests after a pause",
        )

    def exporters(self, exporters: OtlpExporters) -> None:
        """That an exporter of the SDK is chosen, and what that costs."""
        for exporter in exporters.executions:
            if exporter.off:
                self.say(
                    logging.INFO,
                    f"{exporter.variable} is none: {exporter.signal} are not sent, and count as "
                    "settled",
                )
            elif exporter.name != "otlp":
                self.say(
                    logging.WARNING,
                    f"{exporter.signal} go to the exporter {exporter.name!r}, which tells success "
                    "or failure only: no bad record can be found and set aside, and what it counts "
                    "as success is final",
                )

    def _export(self, event: ExportAttempted) -> None:
        report = event.report
        signal, outcome = report.signal, report.outcome
        if report.next_wait is not None:
            self.complain(
                signal,
                f"cannot deliver {signal}: {outcome.reason}; trying again in "
                f"{report.next_wait:.1f} s",
            )
        elif outcome.kind is Kind.DELIVERED:
            self._works_again(signal, f"{signal} are delivered again")
            if outcome.rejected:
                self.complain(
                    f"{signal}-partial",
                    f"the OTLP endpoint took a request of {report.items} {_NAMES[signal]} and "
                    f"rejected {min(outcome.rejected, report.items)} of them: "
                    f"{outcome.reason or 'it gives no reason'}",
                )
            elif outcome.reason:
                self.complain(
                    f"{signal}-advice",
                    f"the OTLP endpoint took {signal} and says: {outcome.reason}",
                )

    def _paced(self, event: Paced) -> None:
        """That new records take nearly all of the budget, once, and that they do not any more."""
        tight, self._tight = self._tight, event.tight
        if event.tight and not tight:
            self.say(
                logging.WARNING,
                f"the request budget is nearly used up by new records: {event.words}; raise "
                "requests_per_minute, or ask Alloy for larger pages, before this falls behind",
            )
        elif tight and not event.tight:
            self.say(logging.INFO, "the request budget has room again")

    def _audited(self, event: Audited) -> None:
        where = f"created between {to_text(event.start)} and {to_text(event.before)}"
        if event.recovered:
            self.complain(
                "recovered",
                f"the audit found {event.recovered} records that no window had brought, {where}, "
                "and delivered them",
            )
        if event.missing:
            self.complain(
                "missing",
                f"Alloy counts {event.api} records {where} and gives {event.settled}: "
                f"{event.missing} are missing; see `otel-alloy audit`",
                logging.ERROR,
            )
        if event.api is None and not self._uncounted:
            self._uncounted = True
            self.say(
                logging.INFO,
                "this API does not count what matches a filter, so nothing can be audited by its "
                "count; audit_by_reading reads it again instead",
            )

    def _works_again(self, topic: str, words: str) -> None:
        if failures := self._throttle.forget(topic):
            self.say(logging.INFO, f"{words}, after {failures} failed attempts")
