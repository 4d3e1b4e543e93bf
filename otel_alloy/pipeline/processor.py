"""Settling, written once: a batch is converted, delivered, and remembered.

The order is the guarantee. A batch is written to the store after each of its spans and log records
was acknowledged or set aside, and before the next batch is delivered. A crash at any point repeats
at most one batch, byte for byte. `run` and `backfill` hold one of these each; when to read, and
what, is theirs to decide.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from otel_alloy.alloy.models import Notification
from otel_alloy.alloy.source import AlloySource
from otel_alloy.checkpoint.store import RejectedRecord, Settlement
from otel_alloy.destinations.packing import Items
from otel_alloy.destinations.router import Plan
from otel_alloy.destinations.routing import Routing
from otel_alloy.errors import CheckpointUnwritable, ShutdownRequested, Unsettled
from otel_alloy.mapping.convert import Converter, Execution, Role, Unconvertible
from otel_alloy.mapping.encode import Envelope
from otel_alloy.otlp.delivery import Delivered, Delivery
from otel_alloy.otlp.delivery import Envelope as AnyEnvelope
from otel_alloy.pipeline.batch import Batch, FullBatch
from otel_alloy.pipeline.events import (
    CheckpointWriteFailed,
    Counts,
    Filtered,
    Observe,
    Position,
    Settled,
)
from otel_alloy.pipeline.source_log import SourceLog
from otel_alloy.pipeline.tracker import ExecutionTracker
from otel_alloy.routing.customers import Customers, GroupedEnvelope
from otel_alloy.runtime import Runtime

_UNWRITABLE_SECONDS = 2.0

T = TypeVar("T")


class BatchProcessor:
    """Settles the batches of one source, one at a time. `resource`: its attributes. `write`: puts a
    settlement into the store; raises CheckpointUnwritable where that may succeed later. `routing`:
    who gets what; None where the main destination gets everything. `destination`: the one that is
    delivered to, where that is not the main one. `customers`: whose values are on the resource,
    None: nobody's."""

    def __init__(
        self,
        source: AlloySource,
        converter: Converter,
        resource: Mapping[str, str | bool | int | float],
        envelope: Envelope,
        delivery: Delivery,
        write: Callable[[Settlement], int],
        runtime: Runtime,
        observe: Observe,
        log: SourceLog,
        routing: Routing | None = None,
        destination: str | None = None,
        customers: Customers | None = None,
    ) -> None:
        self._destination = destination
        self._source = source
        self._routing = routing
        self._converter = converter
        self._resource = resource
        self._envelope = envelope
        self._delivery = delivery
        self._write = write
        self._runtime = runtime
        self._observe = observe
        self._log = log
        self._customers = customers
        self._requests_told = 0
        self._hook_failures_told = 0

    def renew(self) -> Collection[str]:
        """Goes by the destinations as they are now, and names them."""
        return () if self._routing is None else self._routing.renew()

    def wants(self, notification: Notification) -> bool:
        """Whether anybody gets an execution that ended so."""
        if self._routing is None:
            return True
        return self._routing.wants(Execution(notification, Role.ENDED))

    def rest(self) -> None:
        """Gives back the connections to the endpoint until the next batch."""
        self._delivery.rest()

    def close(self) -> None:
        """Closes the connections to the endpoint."""
        self._delivery.close()

    def settle(self, tracker: ExecutionTracker, full: FullBatch) -> None:
        """Delivers what the batch holds, waits for the acknowledgement, writes the checkpoint.
        Raises Unsettled where the end was asked for before that; nothing of the batch is settled
        then."""
        try:
            self._settle(tracker, full)
        except ShutdownRequested:
            raise Unsettled from None

    def _settle(self, tracker: ExecutionTracker, full: FullBatch) -> None:
        batch = full.batch
        plan = None if self._routing is None else self._routing.plan(batch.executions)
        delivered = self._deliver(batch, plan)
        before = tracker.state.progress
        tracker.advance(batch, full.high)
        s = batch.settlement
        memory = s.seen or s.known or s.opened or s.closed or s.asked or s.ended
        changed = memory or s.rejected or s.enriched or s.outbox or s.filtered
        new = 0
        if changed or tracker.state.progress != before:
            new = self.write(s)
        tracker.settled(batch)
        if self._routing is not None and s.outbox:
            self._routing.settled(s.outbox)
        for rejected in s.rejected if new else ():
            self._log.complain(
                "set aside",
                f"set aside a record ({rejected.signals}): {rejected.reason}; see `otel-alloy "
                "rejected list`",
            )
        self._tell(tracker, full, delivered, new)
        if plan is not None and (plan.filtered or plan.held_back):
            self._observe(Filtered(self._source.name, plan.by_rule, plan.held_back))

    def write(self, settlement: Settlement) -> int:
        """Writes the settlement; a full disk is waited for, the delivery not repeated. How many of
        its rejected records had not been set aside before."""
        return self.patiently(lambda: self._write(settlement))

    def patiently(self, act: Callable[[], T]) -> T:
        """Does something with the store, again and again where that may succeed later. Raises
        ShutdownRequested where the end is asked for meanwhile."""
        while True:
            try:
                return act()
            except CheckpointUnwritable as error:
                name, wait = self._source.name, _UNWRITABLE_SECONDS
                self._observe(CheckpointWriteFailed(name, str(error), wait))
                if self._runtime.wait(wait):
                    raise ShutdownRequested from None

    def _deliver(self, batch: Batch, plan: Plan | None) -> Delivered:
        """What the endpoint took. What is refused or cannot be converted is set aside, with the
        resource that it belongs to."""
        spans: list[bytes | None] = []
        logs: list[bytes | None] = []
        for index, execution in enumerate(batch.executions):
            if plan is not None and not plan.main[index]:
                spans.append(None)
                logs.append(None)
                continue
            try:
                span, record = self._converter.convert(execution)
            except Unconvertible as error:
                span = record = None
                self._set_aside(batch, index, "source", str(error))
            spans.append(span)
            logs.append(record)
        envelope: AnyEnvelope = self._envelope
        if self._customers is not None:
            envelope = GroupedEnvelope(self._customers.groups(batch.executions))
        delivered = self._delivery.deliver(spans, logs, envelope, envelope)
        for index, rejection in delivered.rejections.items():
            self._set_aside(batch, index, ",".join(rejection.signals), rejection.reason)
        if plan is not None:
            self._route(batch, plan, spans, logs)
        rejected = batch.settlement.rejected
        rejected[:] = [r if r.destination else self._with_resource(r) for r in rejected]
        return delivered

    def _with_resource(self, rejected: RejectedRecord) -> RejectedRecord:
        resource = self._resource if rejected.resource is None else rejected.resource
        return replace(rejected, resource=resource, destination=self._destination)

    def _route(
        self,
        batch: Batch,
        plan: Plan,
        spans: Sequence[bytes | None],
        logs: Sequence[bytes | None],
    ) -> None:
        """Adds to the settlement what destinations get, and what rules kept back."""
        assert self._routing is not None

        def ready(index: int) -> Items | None:
            return (spans[index], logs[index]) if plan.main[index] else None

        def set_aside(index: int, reason: str, destination: str) -> None:
            if not plan.main[index]:  # else it is there already
                self._set_aside(batch, index, "source", reason, destination)

        settlement = batch.settlement
        settlement.outbox = self._routing.pack(
            plan, batch.executions, batch.original, ready, set_aside
        )
        settlement.filtered = plan.filtered
        settlement.at = self._runtime.now_ms()

    def _set_aside(
        self,
        batch: Batch,
        index: int,
        signals: str,
        reason: str,
        destination: str | None = None,
    ) -> None:
        execution = batch.executions[index]
        started_at = execution.started_at
        resource = None
        if self._customers is not None and destination is None:
            resource = self._customers.groups([execution])[0].resource
        batch.settlement.rejected.append(
            RejectedRecord(
                self._source.name,
                signals,
                reason,
                execution.role.value,
                batch.original(index),
                None if started_at is None else str(started_at),
                self._runtime.now_ms(),
                resource=resource,
                enrichment=None if execution.enrichment is None else execution.enrichment.text(),
                destination=destination,
            )
        )

    def _tell(
        self, tracker: ExecutionTracker, full: FullBatch, delivered: Delivered, rejected: int
    ) -> None:
        batch, requests, failures = full.batch, self._source.requests, self._converter.hook_failures
        counts = Counts(
            received=batch.received,
            repeated=batch.repeated,
            executions=len(batch),
            spans=delivered.acknowledged["traces"],
            log_records=delivered.acknowledged["logs"],
            rejected=rejected,
            refused_spans=delivered.rejected["traces"],
            refused_log_records=delivered.rejected["logs"],
            requests=requests - self._requests_told,
            hook_failures=failures - self._hook_failures_told,
        )
        self._requests_told, self._hook_failures_told = requests, failures
        position = Position(
            high=tracker.state.progress.high,
            start=full.window.start,
            before=full.window.before,
            last=full.last,
            now=self._source.now(),
            open=tracker.state.open_count,
        )
        self._observe(
            Settled(
                source=self._source.name,
                cycle=self._log.cycle,
                counts=counts,
                position=position,
                ended=lambda: self._converter.ended(batch.executions),
                glance=lambda newest, since: self._converter.glance(
                    batch.executions, newest, since
                ),
            )
        )
