"""Counters begin at 0 for whoever receives them.

What Prometheus calls an increase lies between two samples. A counter is exported for the first time
with what it has counted by then, and no sample before that: its first executions, its first gap or
its first rejected record would be in no graph and raise no alert. OTLP carries the moment at which
each series began, but Prometheus makes a sample of it only behind a feature flag. Hence an export
that tells of a series for the first time has another one before it: 0, at that moment. After a
restart that also says that the counter begins anew, where it has passed its old value by then.

Whoever asks for metrics instead, as Prometheus does that scrapes, gets no moment of the past. It is
told 0 of a series when it asks the first time that there is one, and what was counted when it asks
again (`zero_at_first`).

Only what is exported is added to here; nothing is counted. Deltas need no beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Buckets,
    DataPointT,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
)

_MS = 1_000_000
"""Of nanoseconds: two samples of one series within a millisecond are one to Prometheus."""

_HISTOGRAMS = (Histogram, ExponentialHistogram)

Series = tuple[str, frozenset[tuple[str, Any]]]


class FromZero(MetricExporter):
    """An exporter of the SDK, to which each cumulative counter and histogram is told from 0 on.

    Beginnings are a request of their own, as some backends take one point of a series in each. They
    are told until either request gets through: not lost with an endpoint that is away, and not in
    the way of the rest where it refuses them. The reader calls it from one thread at a time.
    """

    def __init__(self, exporter: MetricExporter) -> None:
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)
        self._exporter = exporter
        self._told: set[Series] = set()

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Sends what begins, then the metrics; the result is that of the metrics."""
        born: set[Series] = set()
        beginnings = self._beginnings(metrics_data, born)
        results = set()
        if born:
            results.add(self._exporter.export(beginnings, timeout_millis, **kwargs))
        results.add(result := self._exporter.export(metrics_data, timeout_millis, **kwargs))
        if MetricExportResult.SUCCESS in results:
            self._told |= born
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Passed on."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Passed on."""
        self._exporter.shutdown(timeout_millis, **kwargs)

    def _beginnings(self, data: MetricsData, born: set[Series]) -> MetricsData:
        """The beginnings of what has not been told of yet; its series go into `born`."""
        resources = [
            replace(
                resource,
                scope_metrics=[
                    replace(scope, metrics=list(self._of_scope(scope.metrics, born)))
                    for scope in resource.scope_metrics
                ],
            )
            for resource in data.resource_metrics
        ]
        return replace(data, resource_metrics=resources)

    def _of_scope(self, metrics: Iterable[Metric], born: set[Series]) -> Iterator[Metric]:
        for metric in metrics:
            data: Any = metric.data
            if not _rises(data):
                continue
            points = {(metric.name, _key(point)): point for point in data.data_points}
            new = points.keys() - self._told
            if new:
                born |= new
                zeros = [_zero(point) for key, point in points.items() if key in new]
                yield replace(metric, data=replace(data, data_points=zeros))


def zero_at_first(data: MetricsData, told: set[Series]) -> MetricsData:
    """The metrics for whoever asks for them, and cannot be told of an earlier moment: 0 of each
    series that is not in `told` yet, into which it goes, and all of the others."""

    def metric_of(metric: Metric) -> Metric:
        inner: Any = metric.data
        if not _rises(inner):
            return metric
        points = []
        for point in inner.data_points:
            key = (metric.name, _key(point))
            points.append(point if key in told else _zero(point))
            told.add(key)
        return replace(metric, data=replace(inner, data_points=points))

    resources = [
        replace(
            resource,
            scope_metrics=[
                replace(scope, metrics=[metric_of(metric) for metric in scope.metrics])
                for scope in resource.scope_metrics
            ],
        )
        for resource in data.resource_metrics
    ]
    return replace(data, resource_metrics=resources)


def _rises(data: Any) -> bool:
    """Whether its values rise from 0 on."""
    if not (getattr(data, "is_monotonic", False) or isinstance(data, _HISTOGRAMS)):
        return False
    return bool(data.aggregation_temporality == AggregationTemporality.CUMULATIVE)


def _key(point: DataPointT) -> frozenset[tuple[str, Any]]:
    return frozenset((point.attributes or {}).items())


def _zero(point: DataPointT) -> DataPointT:
    """What it was when the series began, or just before the point where that is the same moment."""
    at = min(point.start_time_unix_nano, point.time_unix_nano - _MS)
    begun = replace(point, start_time_unix_nano=at, time_unix_nano=at, exemplars=())
    match begun:
        case NumberDataPoint():
            return replace(begun, value=0)
        case HistogramDataPoint():
            empty = [0] * len(begun.bucket_counts)
            return replace(begun, count=0, sum=0, bucket_counts=empty, min=0, max=0)
        case ExponentialHistogramDataPoint():
            none = Buckets(offset=0, bucket_counts=())
            begun = replace(begun, positive=none, negative=none)
            return replace(begun, count=0, sum=0, zero_count=0, min=0, max=0)
