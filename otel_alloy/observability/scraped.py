"""The receiver's own metrics for a Prometheus that asks for them, instead of being sent them.

    GET /metrics    in Prometheus's text format, as OpenTelemetry's exporter for it writes them

Which metrics there are is `metrics`' business. It is asked for with `OTEL_METRICS_EXPORTER` and
listens where OTEL_EXPORTER_PROMETHEUS_HOST and _PORT say. Needs the extra `prometheus`.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import MetricsData
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from otel_alloy.http_server import Handler, Server
from otel_alloy.observability.births import Series, zero_at_first

log = logging.getLogger("otel_alloy")

MOST = 8
"""Connections at once: few ask."""
DEADLINE = 30.0
"""Seconds that a connection may last; Prometheus itself gives up after 10."""


class Scraped(PrometheusMetricReader):
    """A reader of the SDK that answers at `host` and `port` (0 is a free one) until it is shut
    down. Raises OSError where it cannot listen there."""

    def __init__(self, host: str, port: int) -> None:
        self._own = CollectorRegistry()
        super().__init__(registry=self._own, scope_info_enabled=False)
        self._told: set[Series] = set()
        self._one_at_a_time = threading.Lock()
        self._server = Server((host, port), _Handler, self, most=MOST, deadline=DEADLINE)
        self._server.start("metrics")
        self.url = f"{self._server.url}/metrics"

    def text(self) -> bytes:
        """What is answered now."""
        with self._one_at_a_time:
            return generate_latest(self._own)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Stops listening."""
        self._server.stop()
        super().shutdown(timeout_millis, **kwargs)

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        if metrics_data is not None:
            metrics_data = zero_at_first(metrics_data, self._told)
        super()._receive_metrics(metrics_data, timeout_millis, **kwargs)


def open_scraped(host: str, port: int) -> list[Scraped]:
    """One that listens; none where it cannot, which is logged: executions matter more."""
    try:
        opened = Scraped(host, port)
    except OSError as error:
        log.warning(
            "no metrics for Prometheus: cannot listen on %s:%s (%s); set "
            "OTEL_EXPORTER_PROMETHEUS_HOST and OTEL_EXPORTER_PROMETHEUS_PORT to another place",
            host,
            port,
            error.strerror or type(error).__name__,
        )
        return []
    log.info("metrics for Prometheus: %s", opened.url)
    return [opened]


class _Handler(Handler):
    server: Server[Scraped]
    server_version = "otel-alloy"
    sys_version = ""
    timeout = 5.0  # seconds for a request to arrive
    wbufsize = -1

    def do_GET(self) -> None:
        """Answers one request."""
        found = self.path.partition("?")[0] == "/metrics"
        body = self.server.owner.text() if found else b"there is /metrics\n"
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4 if found else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET
