"""What `check` finds out without asking anybody: how connections leave this machine, where that is
more than a plain connection, and what in the settings is probably not meant."""

from __future__ import annotations

from collections.abc import Iterator

from otel_alloy.check.finding import Finding
from otel_alloy.network import Route
from otel_alloy.settings.models import Settings, SourceSettings


def variable_findings(settings: Settings) -> Iterator[Finding]:
    """A note for each warning."""
    for warning in settings.warnings:
        yield Finding("configuration", "read the variables", None, warning)


def source_connection(settings: Settings, source: SourceSettings) -> Iterator[Finding]:
    """How Alloy is reached, where that is over TLS or through a proxy: which one, and whose
    certificates are trusted. Raises ConfigurationError where there is no way."""
    tls = source.endpoint.startswith("https:")
    part = f"Alloy ({source.name}): connection"
    yield from _finding(part, settings.network.route(source.endpoint), tls)


def endpoint_connections(settings: Settings) -> Iterator[Finding]:
    """The same for the OTLP endpoint, signal by signal."""
    for exporter in (*settings.otlp.executions, *settings.otlp.metrics):
        chosen = exporter.settings
        if exporter.name == "otlp":
            yield from _finding(
                f"OTLP {exporter.signal}: connection", chosen.route, not chosen.insecure
            )


def _finding(part: str, route: Route, tls: bool) -> Iterator[Finding]:
    proxy = str(route.proxy) if route.proxy else None
    trust = str(route.trust) if tls else None
    if proxy is None and trust is None:
        return
    words = [f"through the proxy {proxy}" if proxy else "directly"]
    if trust:
        words.append(f"certificates checked by {trust}")
    tried = "read the variables of proxies and certificates"
    yield Finding(part, tried, True, "; ".join(words), facts={"proxy": proxy, "trust": trust})
