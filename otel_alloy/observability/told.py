"""The receiver's own metrics and spans on their way out: what becomes of them, said in the log.

As of everything else that fails there is one line now and then, with a count, until a line says
that it works again. Own telemetry holds up nothing: metrics come with the next export, spans of its
own work are lost. What the SDK's exporters log of it themselves is not shown
(`otlp.overheard`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_alloy.log_throttle import LogThrottle
from otel_alloy.otlp.overheard import cause, overhear
from otel_alloy.settings.otlp import Exporter

log = logging.getLogger("otel_alloy")


class Outward:
    """Exports of one kind. In words, `what` is sent, what follows `then` where that fails, and how
    to do `without`."""

    def __init__(
        self, exporter: Exporter, what: str, then: str, without: str, monotonic: Callable[[], float]
    ) -> None:
        otlp = exporter.name == "otlp"
        where = exporter.settings.place if otlp else f"the exporter {exporter.name}"
        self._words = f"{what} cannot be sent to {where}"
        self._again = f"{what} are sent to {where} again"
        self._then = then
        named = str(exporter.settings.place_of("OTEL_EXPORTER_OTLP_ENDPOINT"))
        self._remedy = f"check {named}, or {without}" if otlp else without
        self._throttle = LogThrottle(monotonic)

    def send(self, export: Callable[[], Any], success: Any, failure: Any) -> Any:
        """What `export` says; what it raises, or anything but success, is said and is `failure`."""
        with overhear() as heard:
            try:
                result = export()
            except Exception as error:
                result, raised = failure, f"it failed with {type(error).__name__}"
            else:
                raised = ""
        if result is success:
            if failures := self._throttle.forget(self):
                log.info("%s, after %d failures", self._again, failures)
            return result
        more = self._throttle.admit(self)
        if more is not None:
            why = cause(heard) or raised or "it does not say why"
            log.warning("%s: %s; %s; %s%s", self._words, why, self._then, self._remedy, more)
        return result

    def quietly(self, shut: Callable[[], Any]) -> Any:
        """Does what brings nothing to say."""
        with overhear():
            return shut()


class ToldMetrics(MetricExporter):
    """An exporter of metrics, of which `outward` tells."""

    def __init__(self, exporter: MetricExporter, outward: Outward) -> None:
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)
        self._exporter = exporter
        self._outward = outward

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Sends the metrics."""
        result: MetricExportResult = self._outward.send(
            lambda: self._exporter.export(metrics_data, timeout_millis, **kwargs),
            MetricExportResult.SUCCESS,
            MetricExportResult.FAILURE,
        )
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Passed on."""
        return bool(self._outward.quietly(lambda: self._exporter.force_flush(timeout_millis)))

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Passed on."""
        self._outward.quietly(lambda: self._exporter.shutdown(timeout_millis, **kwargs))


class ToldSpans(SpanExporter):
    """An exporter of spans, of which `outward` tells."""

    def __init__(self, exporter: SpanExporter, outward: Outward) -> None:
        self._exporter = exporter
        self._outward = outward

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Sends the spans."""
        result: SpanExportResult = self._outward.send(
            lambda: self._exporter.export(spans),
            SpanExportResult.SUCCESS,
            SpanExportResult.FAILURE,
        )
        return result

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Passed on."""
        return bool(self._outward.quietly(lambda: self._exporter.force_flush(timeout_millis)))

    def shutdown(self) -> None:
        """Passed on."""
        self._outward.quietly(self._exporter.shutdown)
