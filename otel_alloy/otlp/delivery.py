"""Delivers batches, both signals side by side; `settling` is what happens to each signal.

A signal that is off has no sender: nothing of it is sent, and it counts as settled. Nothing here
opens a socket, or knows what is sent. Time, chance and threads come from a `Runtime`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from otel_alloy.errors import ShutdownRequested
from otel_alloy.otlp.delivered import Delivered, Rejection, delivered_of
from otel_alloy.otlp.outcome import Sender
from otel_alloy.otlp.settling import Envelope, Report, Settling, SignalBatch, SignalState
from otel_alloy.otlp.stepwise import Stepwise
from otel_alloy.runtime import Runtime
from otel_alloy.settings.otlp import Signal

__all__ = ["Delivered", "Delivery", "Envelope", "Rejection", "Report"]


class Delivery:
    """Delivers batch after batch to the senders of the two signals; None where a signal is off. One
    thread at a time.

    `report`, and `wait`, `random` and `monotonic` of `runtime`, are called from two threads.
    """

    def __init__(
        self,
        traces: Sender | None,
        logs: Sender | None,
        *,
        max_request_bytes: int,
        runtime: Runtime,
        report: Callable[[Report], None],
    ) -> None:
        self._traces = None if traces is None else SignalState("traces", traces)
        self._logs = None if logs is None else SignalState("logs", logs)
        self._max_request_bytes = max_request_bytes
        self._runtime = runtime
        self._report = report

    @property
    def signals(self) -> tuple[Signal, ...]:
        """Those that are on."""
        return tuple(s.signal for s in (self._traces, self._logs) if s is not None)

    def deliver(
        self,
        spans: Sequence[bytes | None],
        logs: Sequence[bytes | None],
        traces_envelope: Envelope,
        logs_envelope: Envelope,
    ) -> Delivered:
        """Deliver a batch, both signals side by side; return when every record is settled.

        `spans[i]` and `logs[i]` are the framed records of execution i, None where it has none; the
        framed spans of its blocks stand behind its own.
        A request keeps to `max_request_bytes` unless a single record is larger; that is sent
        alone, for the endpoint to judge. Raises ShutdownRequested where a wait was cut short: then
        nothing of the batch is settled.
        """
        stop = threading.Event()
        log_batch = SignalBatch("logs", _present(logs, self._logs), logs_envelope, stop)
        span_batch = SignalBatch("traces", _present(spans, self._traces), traces_envelope, stop)
        helper = None
        if span_batch.items:
            helper = self._runtime.spawn(lambda: self._run(self._traces, span_batch), "otlp-traces")
        self._run(self._logs, log_batch)
        if log_batch.error is not None and not isinstance(log_batch.error, Exception):
            raise log_batch.error  # KeyboardInterrupt does not wait for the other signal.
        if helper is not None:
            helper.join()
        errors = [e for e in (log_batch.error, span_batch.error) if e is not None]
        if errors:
            raise next((e for e in errors if not isinstance(e, ShutdownRequested)), errors[0])
        return delivered_of([span_batch, log_batch])

    def stepwise(
        self, spans: Sequence[bytes | None], logs: Sequence[bytes | None], envelope: Envelope
    ) -> Stepwise:
        """The same for whoever does not wait in it: a delivery that is advanced step by step. One
        at a time."""
        stop = threading.Event()
        signals = []
        for items, state in ((spans, self._traces), (logs, self._logs)):
            if state is not None:
                batch = SignalBatch(state.signal, _present(items, state), envelope, stop)
                signals.append((batch, self._settling(state, batch).steps()))
        return Stepwise(signals, self._runtime)

    def _settling(self, state: SignalState, batch: SignalBatch) -> Settling:
        return Settling(state, batch, self._max_request_bytes, self._runtime, self._report)

    def rest(self) -> None:
        """Give back the connections until the next batch."""
        for state in (self._traces, self._logs):
            if state is not None:
                state.sender.rest()

    def close(self) -> None:
        """Close the senders."""
        for state in (self._traces, self._logs):
            if state is not None:
                state.sender.close()

    def _run(self, state: SignalState | None, batch: SignalBatch) -> None:
        if state is None:
            return
        try:
            self._settling(state, batch).run()
        except BaseException as error:
            batch.error = error
            batch.stop.set()


def _present(items: Sequence[bytes | None], state: SignalState | None) -> dict[int, bytes]:
    if state is None:
        return {}
    return {i: item for i, item in enumerate(items) if item is not None}
