"""What is exported of a counter begins at 0: told once, when it is heard, and never in the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation

from otel_alloy.observability.births import FromZero

NEVER_MS = 3_600_000
MS = 1_000_000  # ns
Points = dict[tuple[str, str], Any]


class Endpoint(MetricExporter):
    """Keeps what it is sent. `answers`: whether it takes the next requests; then it takes all."""

    def __init__(self, **preferred: Any) -> None:
        super().__init__(**preferred)
        self.requests: list[Points] = []
        self.answers: list[bool] = []

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        points = [
            ((metric.name, str(point.attributes["of"])), point)
            for resource in metrics_data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
            if point.attributes
        ]
        assert len(dict(points)) == len(points), "two points of one series in one request"
        self.requests.append(dict(points))
        taken = self.answers.pop(0) if self.answers else True
        return MetricExportResult.SUCCESS if taken else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        pass


class Exported:
    """The SDK with an exporter that begins at 0, which exports when it is told to."""

    def __init__(self, **preferred: Any) -> None:
        self.endpoint = Endpoint(**preferred)
        reader = PeriodicExportingMetricReader(FromZero(self.endpoint), NEVER_MS)
        self.provider = MeterProvider([reader], shutdown_on_exit=False)
        self.meter = self.provider.get_meter("test")

    def export(self) -> list[Points]:
        """The requests of one export."""
        before = len(self.endpoint.requests)
        self.provider.force_flush()
        return self.endpoint.requests[before:]


@pytest.fixture
def exported() -> Iterator[Exported]:
    exported = Exported()
    yield exported
    exported.provider.shutdown()


def test_a_counter_is_told_from_zero_on(exported: Exported) -> None:
    """The first export of a series is preceded by its value when it began, 0, a millisecond before
    it at the latest; later exports are not, and a series that comes later has a beginning of its
    own."""
    counter = exported.meter.create_counter("counted")
    counter.add(7, {"of": "one"})
    begun, told = exported.export()
    series = ("counted", "one")
    assert {key: point.value for key, point in begun.items()} == {series: 0}
    assert told[series].value == 7
    latest = told[series].time_unix_nano - MS
    assert begun[series].time_unix_nano == min(told[series].start_time_unix_nano, latest)

    counter.add(1, {"of": "one"})
    (again,) = exported.export()
    assert again[series].value == 8

    counter.add(2, {"of": "two"})
    second, told = exported.export()
    assert second.keys() == {("counted", "two")}
    assert told.keys() == {series, ("counted", "two")}
    assert second["counted", "two"].time_unix_nano > begun[series].time_unix_nano


@pytest.mark.parametrize("exponential", [False, True])
def test_a_histogram_is_told_from_nothing_on(exponential: bool) -> None:
    """With the same buckets, all of them empty."""
    kind = {Histogram: ExponentialBucketHistogramAggregation()} if exponential else None
    exported = Exported(preferred_aggregation=kind)
    exported.meter.create_histogram("took").record(2.5, {"of": "one"})
    begun, told = exported.export()
    zero, value = begun["took", "one"], told["took", "one"]
    assert (zero.count, zero.sum, zero.min, zero.max) == (0, 0, 0, 0)
    assert (value.count, value.sum) == (1, 2.5)
    if exponential:
        assert (zero.scale, zero.zero_count) == (value.scale, 0)
        assert not zero.positive.bucket_counts and value.positive.bucket_counts
    else:
        assert zero.explicit_bounds == value.explicit_bounds
        assert sum(value.bucket_counts) == 1
        assert zero.bucket_counts == [0] * len(value.bucket_counts)
    exported.provider.shutdown()


def test_what_needs_no_beginning_gets_none(exported: Exported) -> None:
    """Neither what may fall, nor deltas."""
    exported.meter.create_up_down_counter("open").add(3, {"of": "one"})
    exported.meter.create_gauge("lag").set(3, {"of": "one"})
    assert [request.keys() for request in exported.export()] == [{("open", "one"), ("lag", "one")}]

    deltas = Exported(preferred_temporality={Counter: AggregationTemporality.DELTA})
    deltas.meter.create_counter("counted").add(3, {"of": "one"})
    assert [request["counted", "one"].value for request in deltas.export()] == [3]
    deltas.provider.shutdown()


def test_a_beginning_is_not_lost_with_an_endpoint_that_is_away(exported: Exported) -> None:
    """It is told again until a request gets through."""
    exported.meter.create_counter("counted").add(3, {"of": "one"})
    exported.endpoint.answers = [False, False]
    assert len(exported.export()) == 2
    begun, told = exported.export()
    assert (begun["counted", "one"].value, told["counted", "one"].value) == (0, 3)
    assert len(exported.export()) == 1


def test_a_beginning_that_is_refused_is_not_in_the_way(exported: Exported) -> None:
    """An endpoint that takes the metrics and not what lies before them, such as one whose answer
    got lost and that takes nothing out of order, is not asked again."""
    exported.meter.create_counter("counted").add(3, {"of": "one"})
    exported.endpoint.answers = [False, True]
    begun, told = exported.export()
    assert (begun["counted", "one"].value, told["counted", "one"].value) == (0, 3)
    assert len(exported.export()) == 1
