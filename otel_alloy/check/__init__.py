"""`otel-alloy check`: tries each part once and says what came back and what to do.

Each finding is one fact: what was tried, what came back, what to do. Nothing is stored and nothing
is retried; the request budget is kept; no execution is sent, and only `--send-test` sends anything
at all. The error webhook, where it is on, is tried within this machine. What the vendor does not
say of the API is told as far as a dozen requests can tell it.
They come in the order in which data flows: how Alloy is reached, Alloy, its records, the error
webhook, the checkpoint, the OTLP endpoint, destinations. So the first that fails is the one to
correct first.
Findings are values; `otel_alloy.terminal.check` shows them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from otel_alloy.check.alloy import alloy_findings
from otel_alloy.check.checkpoint import checkpoint_finding
from otel_alloy.check.connection import (
    endpoint_connections,
    source_connection,
    variable_findings,
)
from otel_alloy.check.destinations import destinations_findings
from otel_alloy.check.endpoint import endpoint_findings
from otel_alloy.check.finding import Finding
from otel_alloy.check.observed import Observed
from otel_alloy.check.report import Report
from otel_alloy.check.webhook import webhook_findings
from otel_alloy.checkpoint.postgres_url import place_of
from otel_alloy.pipeline.factory import Budgets, open_client
from otel_alloy.runtime import Runtime
from otel_alloy.settings.models import Settings


def check(
    settings: Settings,
    runtime: Runtime,
    *,
    send_test: bool = False,
    report: Report | None = None,
) -> Iterator[Finding]:
    """Findings in the order in which data flows. `report`: is told of each source."""
    names = ", ".join(s.name for s in settings.sources)
    privacy = settings.privacy
    yield Finding(
        "configuration",
        "read flags, environment and file",
        True,
        f"sources: {names}; checkpoint: {place_of(settings.storage)}; "
        f"user.email: {privacy.user_email}, user.full_name: {privacy.user_full_name}",
    )
    yield from variable_findings(settings)
    budgets = Budgets(settings, runtime)
    for source in settings.sources:
        yield from source_connection(settings, source)
        client = open_client(source, runtime, settings.network)
        seen = None if report is None else Observed()
        for finding in alloy_findings(source, runtime, budgets.of(source), client, seen):
            yield replace(finding, part=f"Alloy ({source.name}): {finding.part}")
        if report is not None and seen is not None:
            report.add(settings, source, seen)
    yield from webhook_findings(settings, runtime)
    yield checkpoint_finding(settings)
    yield from endpoint_connections(settings)
    if settings.main_destination != "none":
        yield from endpoint_findings(settings, runtime, send_test)
    yield from destinations_findings(settings, runtime)
