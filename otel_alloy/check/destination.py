"""What `destinations test` finds out about one of them: what `check` does for the main endpoint,
through the destination's own settings and the policy, in words that name its settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from otel_alloy.check.endpoint import Endpoint, findings_about
from otel_alloy.check.finding import Finding
from otel_alloy.errors import ConfigurationError
from otel_alloy.pipeline.distribution import (
    chosen_destination,
    destination_resource,
    open_destination,
)
from otel_alloy.runtime import Runtime
from otel_alloy.settings.models import Settings
from otel_alloy.settings.otlp_section import named


def destination_findings(
    settings: Settings, name: str, runtime: Runtime, send_test: bool
) -> Iterator[Finding]:
    """A finding for each signal; with `send_test` one more for each that was reached. One for each
    mistake where it cannot be tried."""
    try:
        one = chosen_destination(settings, runtime, name)
        endpoint = Endpoint(
            one.exporters(settings.network).executions,
            open_destination(settings, one, runtime),
            destination_resource(settings, one, settings.sources[0].name),
        )
    except ConfigurationError as error:
        for mistake in error.mistakes:
            words = named(mistake, name)
            yield Finding(f"destination {name}", "read its settings", False, words)
        return
    for found in findings_about(endpoint, settings, runtime, send_test):
        yield replace(
            found,
            part=f"{name}: {found.part}",
            tried=named(found.tried, name),
            answer=named(found.answer, name),
            remedy=named(found.remedy, name),
        )
