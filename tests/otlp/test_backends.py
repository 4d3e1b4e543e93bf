"""What a backfill warns of: the backend that is there as far as its address tells, and no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_alloy.otlp.backends import BACKENDS, age_warnings, backend_of
from otel_alloy.settings.otlp import otlp_exporters

DAY = 86400.0
P = "OTEL_EXPORTER_OTLP_"


def warnings(age: float, **variables: str) -> list[str]:
    exporters = otlp_exporters({P + name: value for name, value in variables.items()})
    assert not exporters.mistakes
    return age_warnings(exporters.executions, age)


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({}, []),
        ({"ENDPOINT": "http://collector:4318"}, []),
        ({"ENDPOINT": "https://tempo.example"}, []),
        ({"ENDPOINT": "https://jaeger:4317", "PROTOCOL": "grpc"}, []),
        ({"ENDPOINT": "https://otlp-gateway-prod-eu.grafana.net/otlp"}, ["Grafana Cloud"] * 2),
        ({"ENDPOINT": "https://otlp.us5.datadoghq.com"}, ["Datadog"] * 2),
        ({"ENDPOINT": "https://otlp.eu01.nr-data.net:4317", "PROTOCOL": "grpc"}, ["New Relic"] * 2),
        ({"ENDPOINT": "https://api.eu1.honeycomb.io"}, ["Honeycomb"] * 2),
        ({"ENDPOINT": "https://abc.live.dynatrace.com/api/v2/otlp"}, ["Dynatrace"] * 2),
        ({"ENDPOINT": "https://api.eu-west-1.dash0.com"}, ["Dash0"] * 2),
        ({"ENDPOINT": "https://ingest.us.signoz.cloud:443"}, ["SigNoz"] * 2),
        ({"ENDPOINT": "http://localhost:5080/api/default"}, ["OpenObserve"] * 2),
        (
            {
                "TRACES_ENDPOINT": "http://a:10428/insert/opentelemetry/v1/traces",
                "LOGS_ENDPOINT": "http://a:9428/insert/opentelemetry/v1/logs",
            },
            ["VictoriaTraces", "VictoriaLogs"],
        ),
        ({"LOGS_ENDPOINT": "http://localhost:3100/otlp/v1/logs"}, ["Loki"]),
        # Only what belongs to a vendor is the vendor's.
        ({"ENDPOINT": "https://honeycomb.io.example"}, []),
        ({"ENDPOINT": "https://nothoneycomb.io"}, []),
    ],
)
def test_whose_endpoint_it_is(variables: dict[str, str], names: list[str]) -> None:
    """Told by the vendor's host, or by a path that one program alone has; Collector, Jaeger and
    Tempo cannot be told apart, so nobody is named."""
    exporters = otlp_exporters({P + name: value for name, value in variables.items()})
    found = [backend_of(one.settings) for one in exporters.executions]
    assert [one.name for one in found if one is not None] == names
    told = " ".join(age_warnings(exporters.executions, 60 * DAY))
    assert {one.name for one in BACKENDS if f"{one.name} (" in told} == set(names)
    assert ("whatever is behind" in told) == (None in found)
    assert "Tempo" not in told and "Jaeger" not in told


def test_what_is_known_and_what_is_not() -> None:
    """A limit is told with both ages, one that can be changed with its setting, and one that nobody
    tells as that."""
    relic = {"ENDPOINT": "https://otlp.nr-data.net"}
    assert warnings(1.5 * DAY, **relic) == [
        "New Relic (https://otlp.nr-data.net) takes spans of the last 60 minutes, and these are up "
        "to 36 hours old: do not expect to see older ones (docs/backends.md)"
    ]
    assert len(warnings(60 * DAY, **relic)) == 2
    assert warnings(1800, **relic) == []
    victoria = warnings(10 * DAY, TRACES_ENDPOINT="http://a:1/insert/opentelemetry/v1/traces")
    assert victoria[1] == (
        "VictoriaTraces (http://a:1, by its path) takes spans of the last 7 days unless told "
        "otherwise: set -retentionPeriod=240h"
    )
    (honey, _) = warnings(10 * DAY, ENDPOINT="https://api.honeycomb.io")
    assert honey == (
        "Honeycomb (https://api.honeycomb.io) does not say how old spans may be, and these are up "
        "to 10 days old: try a day first (docs/backends.md)"
    )
    (unknown,) = warnings(10 * DAY, ENDPOINT="http://user:secret@collector:4318/x?key=secret")
    assert unknown.startswith(
        "whatever is behind http://collector:4318 may refuse, drop or not find spans and log "
        "records as old as 10 days"
    )
    assert "secret" not in unknown


def test_what_is_not_sent_is_not_warned_of() -> None:
    """A signal that is off, one of an installed exporter, and data of a moment ago."""
    off = otlp_exporters({"OTEL_LOGS_EXPORTER": "none", "OTEL_TRACES_EXPORTER": "console"})
    assert age_warnings(off.executions, 60 * DAY) == []
    assert warnings(60) == []


@given(st.floats(0, 1e9), st.sampled_from([one.hosts for one in BACKENDS if one.hosts]))
def test_any_age_has_words(age: float, hosts: tuple[str, ...]) -> None:
    """Of any age, and never more than a line for each signal."""
    told = warnings(age, ENDPOINT=f"https://a.{hosts[0]}")
    assert len(told) <= 2 and all("\n" not in one for one in told)
