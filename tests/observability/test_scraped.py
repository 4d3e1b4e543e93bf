"""Metrics for a Prometheus that asks for them: OTEL_METRICS_EXPORTER=prometheus."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpx
import pytest

pytest.importorskip("prometheus_client", reason="the extra `prometheus` is not installed")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View

from otel_alloy.observability.scraped import Scraped, open_scraped
from otel_alloy.settings.otlp import otlp_exporters

if TYPE_CHECKING:
    from conftest import Place


@pytest.fixture
def scraped() -> Iterator[tuple[Scraped, MeterProvider]]:
    reader = Scraped("127.0.0.1", 0)
    buckets = ExplicitBucketHistogramAggregation((1.0,))
    views = [View(instrument_name="waits", aggregation=buckets)]
    provider = MeterProvider([reader], shutdown_on_exit=False, views=views)
    yield reader, provider
    provider.shutdown()


def samples(reader: Scraped) -> dict[str, float]:
    """What is answered: value by series."""
    answer = httpx.get(reader.url, trust_env=False)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_a_counter_begins_at_zero(scraped: tuple[Scraped, MeterProvider]) -> None:
    """Whoever asks sees each counter and histogram at 0 first, and then what was counted, so that
    what came before the first look is in `increase()`; a gauge is what it is at once."""
    reader, provider = scraped
    meter = provider.get_meter("m")
    counter, waits = meter.create_counter("runs", unit="{run}"), meter.create_histogram("waits")
    meter.create_gauge("lag", unit="s").set(7)
    counter.add(5, {"a": "1"})
    waits.record(0.5)
    first = samples(reader)
    assert first['runs_total{a="1"}'] == first["waits_count"] == 0
    assert first["lag_seconds"] == 7
    counter.add(2, {"a": "2"})
    second = samples(reader)
    assert (second['runs_total{a="1"}'], second['runs_total{a="2"}']) == (5, 0)
    assert second['waits_bucket{le="1.0"}'] == second["waits_count"] == 1
    assert samples(reader)['runs_total{a="2"}'] == 2


def test_there_is_nothing_else(scraped: tuple[Scraped, MeterProvider]) -> None:
    """Another path is told what there is, and after the end nobody answers."""
    reader, provider = scraped
    assert httpx.get(reader.url + "/x", trust_env=False).status_code == 404
    assert httpx.head(reader.url, trust_env=False).content == b""
    provider.shutdown()
    with pytest.raises(httpx.ConnectError):
        httpx.get(reader.url, trust_env=False)


def test_a_port_that_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    """Is no reason to receive nothing: it is logged with what to set."""
    with socket.create_server(("127.0.0.1", 0)) as taken, caplog.at_level(logging.WARNING):
        assert open_scraped("127.0.0.1", taken.getsockname()[1]) == []
    assert "OTEL_EXPORTER_PROMETHEUS_PORT" in caplog.text


def test_where_it_listens() -> None:
    """As OpenTelemetry specifies; a port that is none is a mistake, where it matters."""
    wanted = {"OTEL_METRICS_EXPORTER": "otlp,prometheus"}
    found = otlp_exporters(wanted)
    assert (found.mistakes, found.scraped_at) == ([], ("localhost", 9464))
    there = {"OTEL_EXPORTER_PROMETHEUS_HOST": "0.0.0.0", "OTEL_EXPORTER_PROMETHEUS_PORT": "1"}
    assert otlp_exporters(wanted | there).scraped_at == ("0.0.0.0", 1)
    wrong = {"OTEL_EXPORTER_PROMETHEUS_PORT": "http"}
    (mistake,) = otlp_exporters(wanted | wrong).mistakes
    assert re.match(r"OTEL_EXPORTER_PROMETHEUS_PORT is 'http': write a port", mistake)
    assert otlp_exporters({"OTEL_METRICS_EXPORTER": "otlp"} | wrong).mistakes == []


def test_run_answers(place: Place) -> None:
    """`run` says where, and ends as ever."""
    place.fill(3)
    process = place.start(
        *("run", "--since", "60d", "--log-format", "json"),
        OTEL_METRICS_EXPORTER="prometheus",
        OTEL_EXPORTER_PROMETHEUS_HOST="127.0.0.1",
        OTEL_EXPORTER_PROMETHEUS_PORT="0",
    )
    assert process.stderr is not None
    url = ""
    while not url:
        (url, *_) = re.findall(r"metrics for Prometheus: ([^\"]+)", process.stderr.readline()) or [
            ""
        ]
    text = ""
    while "runalloy_receiver_lag_seconds{" not in text:
        text = httpx.get(url, trust_env=False).text
    assert 'service_name="otel-alloy"' in text
    process.terminate()
    assert place.end(process).code == 0
