"""What is known of the backend behind an endpoint: who it is, where its address says so, and how
old a span or a log record may be there.

Only an address that belongs to a vendor, or a path that one program alone has, tells who it is. A
Collector, Jaeger and Tempo all listen at port 4318 under one path: what is behind such an address
is not known here, and not guessed. The ages are those of docs/backends.md, which names the source
of each; a test holds the two together. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from urllib.parse import urlsplit

from otel_alloy.settings.otlp import Exporter, OtlpSettings, Signal

_HOUR = 3600.0
_DAY = 86400.0
_PAGE = "docs/backends.md"
_OWN = "docs/backfill.md has the settings of your own ones, docs/backends.md what hosted ones do"


@dataclass(frozen=True, slots=True)
class Backend:
    """`hosts`: what the host's name ends with, empty where `path` tells; `path`: what the path has
    to be. `spans` and `logs`: seconds that they may be old, None where nobody says. `setting`: what
    changes that, where it is yours; {hours} is how many are needed."""

    name: str
    hosts: tuple[str, ...] = ()
    path: str = ""
    spans: float | None = None
    logs: float | None = None
    setting: str = ""

    def is_at(self, settings: OtlpSettings) -> bool:
        """Whether the endpoint is this backend's."""
        url = urlsplit(settings.endpoint if "//" in settings.endpoint else f"//{settings.endpoint}")
        host = (url.hostname or "").rstrip(".")
        if self.hosts:
            return any(host == one or host.endswith(f".{one}") for one in self.hosts)
        return re.fullmatch(self.path, url.path) is not None

    def age(self, signal: Signal) -> float | None:
        """Seconds that records of the signal may be old; None where nobody says."""
        return self.spans if signal == "traces" else self.logs


BACKENDS = (
    Backend("Grafana Cloud", ("grafana.net",)),
    Backend("Datadog", ("datadoghq.com", "datadoghq.eu", "ddog-gov.com"), logs=18 * _HOUR),
    Backend("New Relic", ("nr-data.net",), spans=_HOUR, logs=48 * _HOUR),
    Backend("Honeycomb", ("honeycomb.io",)),
    Backend("Dash0", ("dash0.com",), spans=6 * _HOUR),
    Backend("Elastic Cloud", ("elastic.cloud", "elastic-cloud.com")),
    Backend("Dynatrace", ("dynatrace.com",), spans=_HOUR, logs=24 * _HOUR),
    Backend("Splunk Observability Cloud", ("signalfx.com", "splunkcloud.com")),
    Backend("SigNoz", ("signoz.cloud",)),
    Backend(
        "VictoriaTraces",
        path=r"/insert/opentelemetry/v1/traces",
        spans=7 * _DAY,
        setting="-retentionPeriod={hours}h",
    ),
    Backend(
        "VictoriaLogs",
        path=r"/insert/opentelemetry/v1/logs",
        logs=7 * _DAY,
        setting="-retentionPeriod={hours}h",
    ),
    Backend(
        "OpenObserve",
        path=r"/api/[^/]+/v1/(traces|logs)",
        spans=5 * _HOUR,
        logs=5 * _HOUR,
        setting="ZO_INGEST_ALLOWED_UPTO={hours}",
    ),
    Backend(
        "Loki",
        path=r"/otlp/v1/logs",
        logs=7 * _DAY,
        setting="limits_config.reject_old_samples_max_age={hours}h, and for records an hour older "
        "than the newest one of their stream limits_config.shard_streams.time_sharding_enabled",
    ),
)
"""Hosts before paths: Grafana Cloud has Loki's path."""

_LEAST = 120.0
"""Seconds. What is younger is no matter anywhere; Tempo's search minds from here on."""


def backend_of(settings: OtlpSettings) -> Backend | None:
    """Whose endpoint it is; None where its address does not say."""
    return next((one for one in BACKENDS if one.is_at(settings)), None)


def age_warnings(exporters: Iterable[Exporter], age: float) -> list[str]:
    """What may become of records that are `age` seconds old at the endpoints that they go to."""
    if age <= _LEAST:
        return []
    sent = [one for one in exporters if one.name == "otlp"]
    unknown = [one for one in sent if backend_of(one.settings) is None]
    warnings = []
    if unknown:
        places = " and ".join(dict.fromkeys(one.settings.server for one in unknown))
        what = " and ".join(_RECORDS[one.signal] for one in unknown)
        warnings.append(
            f"whatever is behind {places} may refuse, drop or not find {what} as old as "
            f"{_words(age)}, and an endpoint may acknowledge what it drops: {_OWN}; try a day first"
        )
    for exporter in sent:
        backend = backend_of(exporter.settings)
        if backend is not None:
            warnings += _of(backend, exporter, age)
    return warnings


_RECORDS: dict[Signal, str] = {"traces": "spans", "logs": "log records", "metrics": "metrics"}


def _of(backend: Backend, exporter: Exporter, age: float) -> list[str]:
    what, limit = _RECORDS[exporter.signal], backend.age(exporter.signal)
    where = f"{backend.name} ({exporter.settings.server}{'' if backend.hosts else ', by its path'})"
    if limit is None:
        return [
            f"{where} does not say how old {what} may be, and these are up to {_words(age)} old: "
            f"try a day first ({_PAGE})"
        ]
    if age <= limit:
        return []
    if backend.setting:
        hours = ceil(age / _DAY) * 24
        remedy = f"set {backend.setting.format(hours=hours)}"
        return [f"{where} takes {what} of the last {_words(limit)} unless told otherwise: {remedy}"]
    return [
        f"{where} takes {what} of the last {_words(limit)}, and these are up to {_words(age)} old: "
        f"do not expect to see older ones ({_PAGE})"
    ]


def _words(seconds: float) -> str:
    """A span of time, at least as long."""
    if seconds < 2 * _HOUR:
        return f"{ceil(seconds / 60)} minutes"
    if seconds < 2 * _DAY:
        return f"{ceil(seconds / _HOUR)} hours"
    return f"{ceil(seconds / _DAY)} days"
