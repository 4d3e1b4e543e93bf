"""What a running process shows of itself, put together: status, health port, metrics, own traces
and systemd.

Only the assembly for the command `run` lives here. A health port that is in use is a warning:
receiving goes on without it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from otel_alloy.observability.health import HealthServer
from otel_alloy.observability.logging import masked
from otel_alloy.observability.page import Page
from otel_alloy.observability.recent import Recent
from otel_alloy.observability.status import Status
from otel_alloy.observability.systemd import Systemd
from otel_alloy.pipeline.events import Observe, tell_all
from otel_alloy.runtime import Runtime
from otel_alloy.settings.models import Settings

if TYPE_CHECKING:
    from otel_alloy.observability.metrics import Telemetry

log = logging.getLogger("otel_alloy")


class Operated:
    """A context manager. `observe` takes the receiver's events. `environment`: the process's own,
    which names the service manager. `serve`: whether to open the health port."""

    def __init__(
        self,
        settings: Settings,
        runtime: Runtime,
        environment: Mapping[str, str],
        *,
        serve: bool = True,
    ) -> None:
        names = [source.name for source in settings.sources]
        mask = masked(settings)
        status = Status(names, max_lag=settings.ready_max_lag, runtime=runtime, mask=mask)
        process = runtime.short_id()
        self._systemd = Systemd(environment, status, runtime)
        self._telemetry: Telemetry | None = None
        if settings.otlp.metrics:
            from otel_alloy.observability.metrics import open_telemetry

            self._telemetry = open_telemetry(settings, status, process, runtime.monotonic)
        watchers: list[Observe] = [status, self._systemd]
        self._health = None
        if serve and settings.health_endpoint:
            recent = Recent(runtime)
            link = None if settings.traces is None else settings.traces.link
            page = Page(status.view, recent.look, runtime.clock, link)
            self._health = _health(settings.health_endpoint, status, page)
            if self._health is not None:
                watchers.append(recent)
        if self._telemetry is not None:
            watchers.append(self._telemetry)
        self._own_traces = None
        if settings.own_traces:
            from otel_alloy.observability.traces import open_own_traces

            self._own_traces = open_own_traces(settings, runtime, process)
            if self._own_traces is not None:
                watchers.append(self._own_traces)
        self.observe = tell_all(*watchers)

    @property
    def page_url(self) -> str | None:
        """Where a browser on this machine finds the page; None where there is none."""
        return None if self._health is None else self._health.page_url

    def stopping(self) -> None:
        """The end was asked for; may be called from a signal handler."""
        self._systemd.stopping()

    def __enter__(self) -> Operated:
        return self

    def __exit__(self, *error: object) -> None:
        self._systemd.close()
        if self._health is not None:
            self._health.close()
        if self._telemetry is not None:
            self._telemetry.close()
        if self._own_traces is not None:
            self._own_traces.close()


def _health(endpoint: str, status: Status, page: Page) -> HealthServer | None:
    try:
        server = HealthServer(endpoint, status, page)
    except OSError as error:
        log.warning(
            "no health port: cannot listen on %s (%s); set OTEL_ALLOY_HEALTH_ENDPOINT to another "
            "one, or to nothing to do without",
            endpoint,
            error.strerror or type(error).__name__,
        )
        return None
    log.info("health: %s/ (for programs: /livez, /readyz, /status)", server.url)
    return server
