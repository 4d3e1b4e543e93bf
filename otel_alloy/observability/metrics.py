"""The receiver's own metrics, over the SDK and its standard exporters.

`METRICS` defines every metric; the README's list is made from it. `Telemetry` is a watcher of the
receiver's events and measures nothing itself: it counts what the events say. Metrics are off
without `OTEL_METRICS_EXPORTER`, because many OTLP endpoints take only traces and logs.

Execution metrics are of live executions: a metric has the time at which it is counted, so a
backfill would show up as a peak of today. They carry the span's context for exemplars. No metric
has an attribute of a user, and every name from outside is cleaned.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal
from uuid import NAMESPACE_URL, uuid5

from otel_alloy.checkpoint.postgres_url import is_postgres
from otel_alloy.mapping import semconv
from otel_alloy.observability.destinations import DestinationGauges
from otel_alloy.observability.leases import LeaseGauges
from otel_alloy.observability.status import Gauges, Status
from otel_alloy.otlp.outcome import clean
from otel_alloy.otlp.senders import sdk_exporters
from otel_alloy.pipeline import events
from otel_alloy.pipeline.visibility import BOUNDS_SECONDS
from otel_alloy.settings.otlp import SCRAPED
from otel_alloy.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricReader

    from otel_alloy.mapping.facts import ExecutionFacts
    from otel_alloy.settings.models import Settings

SERVICE_NAME = "otel-alloy"
LIVE_SECONDS = 900
"""Executions that ended longer ago than this are not counted when they are settled."""
_LABEL_LENGTH = 200
_SHUTDOWN_MS = 5000.0

SOURCE = "runalloy.receiver.source"
SIGNAL = "runalloy.receiver.signal"
OUTCOME = "runalloy.receiver.delivery.outcome"
STAGE = "runalloy.receiver.stage"
STATUS_CODE = "http.response.status_code"

AGE = "runalloy.receiver.audit.age"
WEBHOOK_OUTCOME = "runalloy.receiver.webhook.outcome"
RULE = "runalloy.receiver.rule"
DESTINATION = "runalloy.receiver.destination"
DESTINATION_OUTCOME = "runalloy.receiver.distribution.outcome"

LEASE_BEFORE = "runalloy.receiver.lease.before"

STAGES = ("alloy", "traces", "logs", "checkpoint")

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BYTES = (1e3, 1e4, 1e5, 5e5, 1e6, 2e6, 3e6, 4e6, 1.6e7, 6.4e7)
_EXECUTION_SECONDS = (
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
    *(60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0),
)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `attributes`: all that its points may have; `read`: the values of a gauge by its
    second attribute, "" where it has only the source; `measure`: the value of one of
    destinations; `total`: of the process as a whole."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    unit: str
    description: str
    attributes: tuple[str, ...] = (SOURCE,)
    buckets: tuple[float, ...] = ()
    read: Callable[[Gauges], Mapping[str, float | None]] | None = None
    measure: Callable[[DestinationGauges], float] | None = None
    total: Callable[[LeaseGauges], float] | None = None


_counter = partial(Metric, "counter")
_gauge = partial(Metric, "gauge")
_histogram = partial(Metric, "histogram")

LAG = _gauge(
    "runalloy.receiver.lag",
    "s",
    "How far behind Alloy's clock: everything older is settled",
    read=lambda source: {"": source.lag},
)
CURSOR_AGE = _gauge(
    "runalloy.receiver.cursor.age",
    "s",
    "Age of the newest record that is settled; grows also while Alloy is silent",
    read=lambda source: {"": source.cursor_age},
)
OPEN = _gauge(
    "runalloy.receiver.executions.open",
    "{execution}",
    "Executions that started and have not ended",
    read=lambda source: {"": source.open},
)
UNREACHABLE = _gauge(
    "runalloy.receiver.unreachable",
    "{record}",
    "Records that Alloy counts and does not give: the checkpoint does not pass them",
    read=lambda source: {"": source.unreachable},
)
OVERLAP = _gauge(
    "runalloy.receiver.overlap",
    "s",
    "How much is read again each cycle for records that become visible late; grows by what is seen",
    read=lambda source: {"": source.overlap},
)
AUDIT_MISSING = _gauge(
    "runalloy.receiver.audit.missing",
    "{record}",
    "Records that Alloy counts and that the audit could not have",
    read=lambda source: {"": source.missing},
)
AUDITED_TO = _gauge(
    "runalloy.receiver.audit.audited_to",
    "s",
    "createdAt, as Unix time, up to which everything was held against Alloy's own count; by age in "
    "seconds",
    (SOURCE, AGE),
    read=lambda source: source.audited_to,
)
AUDIT_RECOVERED = _counter(
    "runalloy.receiver.audit.recovered",
    "{record}",
    "Records that only the audit found, and had delivered",
)
VISIBILITY_LAG = _histogram(
    "runalloy.receiver.visibility.lag",
    "s",
    "How long after its createdAt a record became visible, less what the interval explains",
    buckets=BOUNDS_SECONDS,
)
CLOCK_SKEW = _gauge(
    "runalloy.receiver.clock.skew",
    "s",
    "Alloy's clock minus this machine's, by the last answer",
    read=lambda source: {"": source.skew},
)
HELD = _gauge(
    "runalloy.receiver.held",
    "{source}",
    "1 while Alloy refuses what it had accepted before, or something before it does; 0 else",
    read=lambda source: {"": source.held},
)
FAILING = _gauge(
    "runalloy.receiver.attempts.failed",
    "{attempt}",
    "Attempts that failed in a row, by stage as in `retries`; 0 where it works",
    (SOURCE, STAGE),
    read=lambda source: {stage: source.failing.get(stage, 0) for stage in STAGES},
)
RECEIVED = _counter(
    "runalloy.receiver.records.received",
    "{record}",
    "Records read from Alloy, repeated ones included",
)
SETTLED = _counter(
    "runalloy.receiver.records.settled",
    "{record}",
    "New records that need nothing more: delivered, or remembered as a start",
)
REPEATED = _counter(
    "runalloy.receiver.records.repeated",
    "{record}",
    "Records that were known already, mostly from the overlap",
)
REJECTED = _counter(
    "runalloy.receiver.records.rejected",
    "{record}",
    "Records set aside; see `otel-alloy rejected list`",
)
REFUSED = _counter(
    "runalloy.receiver.records.refused",
    "{record}",
    "Spans (signal traces) and log records (logs) that the OTLP endpoint rejected of requests that "
    "it accepted; final, and counted in `records.settled`, as OTLP does not tell which",
    (SOURCE, SIGNAL),
)
GAP = _counter(
    "runalloy.receiver.gap",
    "s",
    "Span of createdAt whose records Alloy may have removed before they were read",
)
REQUESTS = _counter(
    "runalloy.receiver.requests",
    "{request}",
    "Requests to Alloy; without a status code where there was no usable answer",
    (SOURCE, STATUS_CODE, semconv.ERROR_TYPE),
)
RETRIES = _counter(
    "runalloy.receiver.retries",
    "{retry}",
    "Failures that are tried again, by stage: alloy, traces, logs, checkpoint",
    (SOURCE, STAGE),
)
HOOK_FAILURES = _counter(
    "runalloy.receiver.hook.failures",
    "{failure}",
    "Answers of the mapping's hook that were no use; the executions went on without it",
)
WEBHOOK_REPORTS = _counter(
    "runalloy.receiver.webhook.reports",
    "{report}",
    "Posts to the error webhook, by outcome: kept, known (it came before), failed (not stored), "
    "unreadable, refused (without the secret), too_large, limited",
    (WEBHOOK_OUTCOME,),
)
DELIVERY_DURATION = _histogram(
    "runalloy.receiver.delivery.duration",
    "s",
    "How long the OTLP endpoint took for a request",
    (SOURCE, SIGNAL, OUTCOME),
    _SECONDS,
)
DELIVERY_SIZE = _histogram(
    "runalloy.receiver.delivery.size",
    "By",
    "Size of an OTLP request before compression",
    (SOURCE, SIGNAL, OUTCOME),
    _BYTES,
)
EXECUTION_DURATION = _histogram(
    "runalloy.workflow.execution.duration",
    "s",
    "How long an execution took; live ones only, settled within 15 minutes of their end",
    (
        SOURCE,
        semconv.WORKFLOW_NAME,
        semconv.INTEGRATION_NAME,
        semconv.EXECUTION_OUTCOME,
        semconv.ERROR_TYPE,
    ),
    _EXECUTION_SECONDS,
)
BLOCK_ERRORS = _counter(
    "runalloy.workflow.block.errors",
    "{error}",
    "Failed executions by the block at which they failed, where that is known; live ones only",
    (
        SOURCE,
        semconv.WORKFLOW_NAME,
        semconv.BLOCK_NAME,
        semconv.BLOCK_TYPE,
        semconv.REASON_SOURCE,
    ),
)

FILTERED = _counter(
    "runalloy.receiver.executions.filtered",
    "{execution}",
    "Executions that a rule kept back from all destinations, by the rule's name",
    (SOURCE, RULE),
)
DESTINATION_EXECUTIONS = _counter(
    "runalloy.receiver.destination.executions",
    "{execution}",
    "Executions for destinations, by outcome: delivered, rejected (set aside), spilled (to be read "
    "again, for want of room), recalled (read again), missing (Alloy did not give them again), "
    "filtered (by the destination's rules)",
    (DESTINATION, DESTINATION_OUTCOME),
)
DESTINATION_WAITING = _gauge(
    "runalloy.receiver.destination.waiting",
    "{execution}",
    "Executions that lie in the outbox for a destination",
    (DESTINATION,),
    measure=lambda one: one.waiting,
)
DESTINATION_RECALL = _gauge(
    "runalloy.receiver.destination.recall",
    "{execution}",
    "Executions that are to be read again from Alloy for a destination",
    (DESTINATION,),
    measure=lambda one: one.recall,
)
DESTINATION_AGE = _gauge(
    "runalloy.receiver.destination.age",
    "s",
    "For how long the oldest execution has been in the outbox of a destination",
    (DESTINATION,),
    measure=lambda one: one.oldest,
)
DESTINATION_FAILING = _gauge(
    "runalloy.receiver.destination.failing",
    "{destination}",
    "1 while a destination fails, is paused, disabled or gone from the settings; 0 else",
    (DESTINATION,),
    measure=lambda one: one.failing,
)

LEASES = _gauge(
    "runalloy.receiver.leases",
    "{unit}",
    "Sources and destinations that this replica works at, where replicas share them",
    (),
    total=lambda leases: leases.held,
)
LEASE_UNOWNED = _gauge(
    "runalloy.receiver.lease.unowned",
    "{unit}",
    "Sources and destinations that no replica works at, as this one sees it",
    (),
    total=lambda leases: leases.unowned,
)
LEASE_TAKEOVERS = _counter(
    "runalloy.receiver.lease.takeovers",
    "{takeover}",
    "How often this replica began to work at a source or destination, by what became of the lease "
    "before: given_back or expired",
    (SOURCE, DESTINATION, LEASE_BEFORE),
)

METRICS = (
    *(LAG, CURSOR_AGE, OPEN, UNREACHABLE, CLOCK_SKEW, HELD, FAILING, RECEIVED, SETTLED, REPEATED),
    *(REJECTED, REFUSED, OVERLAP, VISIBILITY_LAG, AUDIT_MISSING, AUDIT_RECOVERED, AUDITED_TO),
    *(GAP, REQUESTS, RETRIES, HOOK_FAILURES, WEBHOOK_REPORTS),
    *(DELIVERY_DURATION, DELIVERY_SIZE, EXECUTION_DURATION, BLOCK_ERRORS),
    *(FILTERED, DESTINATION_EXECUTIONS, DESTINATION_WAITING, DESTINATION_RECALL),
    *(DESTINATION_AGE, DESTINATION_FAILING),
    *(LEASES, LEASE_UNOWNED, LEASE_TAKEOVERS),
)


def metrics_table() -> str:
    """`METRICS` as the table in the README."""
    lines = ["| metric | kind, unit | meaning | attributes |", "|---|---|---|---|"]
    for m in METRICS:
        names = ", ".join(f"`{a}`" for a in m.attributes)
        lines.append(f"| `{m.name}` | {m.kind}, `{m.unit}` | {m.description} | {names} |")
    return "\n".join(lines)


class Telemetry:
    """A watcher of events that counts them. `readers` take the metrics out; `resource` describes
    this process; the gauges come from `status`."""

    def __init__(
        self,
        readers: Iterable[MetricReader],
        resource: Mapping[str, Any],
        status: Status,
        *,
        sources: Iterable[str] = (),
    ) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.resources import Resource

        self._provider = MeterProvider(
            tuple(readers),
            resource=Resource(dict(resource), semconv.SCHEMA_URL),
            shutdown_on_exit=False,
        )
        meter = self._provider.get_meter(semconv.SCOPE_NAME, __version__, semconv.SCHEMA_URL)
        self._label = status.destination_label
        self._count: dict[Metric, Callable[..., None]] = {}
        for m in METRICS:
            if m.kind == "counter":
                self._count[m] = meter.create_counter(m.name, m.unit, m.description).add
            elif m.kind == "histogram":
                self._count[m] = meter.create_histogram(
                    m.name, m.unit, m.description, explicit_bucket_boundaries_advisory=m.buckets
                ).record
            else:
                meter.create_observable_gauge(
                    m.name, [_observations(m, status)], m.unit, m.description
                )
        for source in sources:  # 0 is a figure, too, and not the same as none
            for m in (RECEIVED, SETTLED, REPEATED, REJECTED, GAP, AUDIT_RECOVERED, HOOK_FAILURES):
                self._count[m](0, {SOURCE: source})
            for signal in ("traces", "logs"):
                self._count[REFUSED](0, {SOURCE: source, SIGNAL: signal})
            for stage in STAGES:
                self._count[RETRIES](0, {SOURCE: source, STAGE: stage})

    def __call__(self, event: object) -> None:
        """Takes an event."""
        count = self._count
        match event:
            case events.Received():
                count[RECEIVED](event.records, {SOURCE: event.source})
            case events.Requested():
                attributes: dict[str, str | int] = {SOURCE: event.source}
                if event.status is not None:
                    attributes[STATUS_CODE] = event.status
                if event.error is not None:
                    attributes[semconv.ERROR_TYPE] = event.error
                count[REQUESTS](1, attributes)
            case events.GapFound():
                count[GAP]((event.oldest - event.after) / 1000, {SOURCE: event.source})
            case events.SeenLate():
                lag, of = count[VISIBILITY_LAG], {SOURCE: event.source}
                for _ in range(event.on_time):
                    lag(0, of)
                for seconds in event.late:
                    lag(seconds, of)
            case events.Audited():
                count[AUDIT_RECOVERED](event.recovered, {SOURCE: event.source})
            case events.LeaseTaken():
                before = "expired" if event.takeover else "given_back"
                count[LEASE_TAKEOVERS](1, {**self._unit(event.unit), LEASE_BEFORE: before})
            case events.WebhookListens():
                for outcome in events.WEBHOOK_OUTCOMES:  # as above
                    count[WEBHOOK_REPORTS](0, {WEBHOOK_OUTCOME: outcome})
            case events.WebhookAnswered():
                count[WEBHOOK_REPORTS](1, {WEBHOOK_OUTCOME: event.outcome})
            case events.RequestRetried():
                count[RETRIES](1, {SOURCE: event.source, STAGE: "alloy"})
            case events.CheckpointWriteFailed():
                count[RETRIES](1, {SOURCE: event.source, STAGE: "checkpoint"})
            case events.ExportAttempted(source=source, report=report):
                if report.next_wait is not None:
                    count[RETRIES](1, {SOURCE: source, STAGE: report.signal})
                if report.bytes:
                    outcome = report.outcome.kind.value
                    delivery = {SOURCE: source, SIGNAL: report.signal, OUTCOME: outcome}
                    count[DELIVERY_DURATION](report.seconds, delivery)
                    count[DELIVERY_SIZE](report.bytes, delivery)
            case events.Settled():
                of = {SOURCE: event.source}
                count[SETTLED](event.counts.new, of)
                count[REPEATED](event.counts.repeated, of)
                count[REJECTED](event.counts.rejected, of)
                count[REFUSED](event.counts.refused_spans, {**of, SIGNAL: "traces"})
                count[REFUSED](event.counts.refused_log_records, {**of, SIGNAL: "logs"})
                count[HOOK_FAILURES](event.counts.hook_failures, of)
                self._executions(event)
            case events.Filtered():
                for rule, number in event.rules.items():
                    count[FILTERED](number, {SOURCE: event.source, RULE: clean(rule)})
                for name, number in event.destinations.items():
                    self._destination(name, "filtered", number)
            case events.DestinationSettled():
                delivered = event.executions - event.rejected
                self._destination(event.destination, "delivered", delivered)
                self._destination(event.destination, "rejected", event.rejected)
            case events.DestinationSpilled():
                self._destination(event.destination, "spilled", event.executions)
            case events.DestinationRecalled():
                self._destination(event.destination, "recalled", event.executions)
                self._destination(event.destination, "missing", event.missing)
            case _:
                pass

    def _unit(self, unit: str) -> dict[str, str]:
        kind, _, name = unit.partition(" ")
        return {SOURCE: name} if kind == "source" else {DESTINATION: self._label(name)}

    def _destination(self, name: str, outcome: str, executions: int) -> None:
        if executions:
            attributes = {DESTINATION: self._label(name), DESTINATION_OUTCOME: outcome}
            self._count[DESTINATION_EXECUTIONS](executions, attributes)

    def _executions(self, event: events.Settled) -> None:
        at = event.position
        oldest = at.now - LIVE_SECONDS * 1000
        if at.high is None or at.high < oldest or not event.counts.executions:
            return  # a batch of the past: the facts of its executions are not even made
        for facts in event.ended():
            if facts.end >= oldest * 1_000_000 and not facts.adjusted:
                self._execution(event.source, facts)

    def _execution(self, source: str, facts: ExecutionFacts) -> None:
        from opentelemetry.trace import (
            NonRecordingSpan,
            SpanContext,
            TraceFlags,
            set_span_in_context,
        )

        span = SpanContext(
            int.from_bytes(facts.trace_id),
            int.from_bytes(facts.span_id),
            is_remote=True,
            trace_flags=TraceFlags(TraceFlags.SAMPLED),
        )
        context = set_span_in_context(NonRecordingSpan(span))
        labels = _labels(EXECUTION_DURATION, source, facts)
        self._count[EXECUTION_DURATION](facts.seconds, labels, context=context)
        if facts.outcome == "error" and facts.block:
            self._count[BLOCK_ERRORS](1, _labels(BLOCK_ERRORS, source, facts), context=context)

    def close(self) -> None:
        """Sends the metrics a last time, within a few seconds."""
        self._provider.shutdown(_SHUTDOWN_MS)


def _labels(metric: Metric, source: str, facts: ExecutionFacts) -> dict[str, str]:
    """What the metric's attributes are of this execution. An id of a block is none of them: each
    user's copy of a workflow may have its own."""
    known = facts.attributes
    found = {key: clean(known[key], _LABEL_LENGTH) for key in metric.attributes if key in known}
    return {SOURCE: source} | found


def _observations(metric: Metric, status: Status) -> Callable[[Any], list[Any]]:
    from opentelemetry.metrics import Observation

    def observe(options: object) -> list[Any]:
        if metric.measure is not None:
            return [
                Observation(metric.measure(one), {DESTINATION: one.destination})
                for one in status.destinations()
            ]
        if metric.total is not None:
            leases = status.leases()
            return [] if leases is None else [Observation(metric.total(leases), {})]
        assert metric.read is not None
        return [
            Observation(value, dict(zip(metric.attributes, (source.source, key), strict=False)))
            for source in status.gauges()
            for key, value in metric.read(source).items()
            if value is not None
        ]

    return observe


def open_telemetry(
    settings: Settings, status: Status, process: str, monotonic: Callable[[], float]
) -> Telemetry | None:
    """The metrics that `OTEL_METRICS_EXPORTER` and `OTEL_SDK_DISABLED` ask for; None for none.
    `process`: as in `resource`. `monotonic`: by which repeated failures are held back.

    Raises ConfigurationError where a variable is wrong.
    """
    otlp = settings.otlp
    if not otlp.metrics:
        return None
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    from otel_alloy.observability.births import FromZero
    from otel_alloy.observability.told import Outward, ToldMetrics

    words = "own metrics", "they come with the next export", "set OTEL_METRICS_EXPORTER=none"
    pushed = [exporter for exporter in otlp.metrics if exporter.name != SCRAPED]
    exporters = [
        ToldMetrics(exporter, Outward(chosen, *words, monotonic))
        for chosen, exporter in zip(pushed, sdk_exporters(*pushed), strict=True)
    ]
    readers: list[MetricReader] = [
        PeriodicExportingMetricReader(FromZero(exporter), otlp.metric_interval, otlp.metric_timeout)
        for exporter in exporters
    ]
    if len(pushed) < len(otlp.metrics):
        from otel_alloy.observability.scraped import open_scraped

        readers += open_scraped(*otlp.scraped_at)
    sources = [source.name for source in settings.sources]
    return Telemetry(readers, resource(settings, process), status, sources=sources)


def resource(settings: Settings, process: str) -> dict[str, str | bool | int | float]:
    """What describes a process: a service of its own, and an instance.

    The instance stays the same over restarts, where the storage lets one process in at a time. Of
    replicas one machine may run several, so each has one of its own, from `process`: what no other
    process is called. The SDK is told, as it makes this telemetry (not that of executions).
    """
    attributes = settings.resource(settings.sources[0].model_copy(update={"resource": {}}))
    place = process if is_postgres(settings.storage) else settings.storage
    return {
        "service.instance.id": str(uuid5(NAMESPACE_URL, f"{socket.gethostname()} {place}")),
        **attributes,
        semconv.SERVICE_NAME: SERVICE_NAME,
        "service.version": __version__,
        "telemetry.distro.version": __version__,
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": version("opentelemetry-sdk"),
    }
