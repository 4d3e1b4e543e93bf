"""Guarantees of `settings`: the specification's rules, all mistakes at once, no secret shown."""

import math
from pathlib import Path

import pytest
from opentelemetry.util.re import parse_env_headers

from otel_alloy.errors import ConfigurationError
from otel_alloy.otlp.senders import open_senders, sdk_exporters
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.models import Settings
from otel_alloy.settings.otlp import (
    OtlpExporters,
    OtlpSettings,
    Signal,
    otlp_exporters,
    otlp_settings,
)

P = "OTEL_EXPORTER_OTLP_"


def good(_signal: Signal = "traces", /, **variables: str) -> OtlpSettings:
    settings, mistakes = otlp_settings({P + k: v for k, v in variables.items()}, _signal)
    assert mistakes == []
    return settings


def exporters(environment: dict[str, str]) -> OtlpExporters:
    """What the environment asks for, after its senders could be opened."""
    found = otlp_exporters(environment)
    for sender in filter(None, open_senders(found, "test", system_runtime())):
        sender.close()
    return found


def mistakes(**variables: str) -> list[str]:
    return otlp_settings({P + k: v for k, v in variables.items()}, "traces")[1]


def test_defaults() -> None:
    """Nothing set: OTLP/HTTP to this machine, 10 s, no compression, no headers."""
    settings = good()
    assert settings == OtlpSettings("traces", endpoint="http://localhost:4318/v1/traces")
    assert good("logs").endpoint == "http://localhost:4318/v1/logs"
    assert good(PROTOCOL="grpc").endpoint == "localhost:4317"
    assert (settings.timeout, settings.compression, settings.headers) == (10.0, "none", ())


@pytest.mark.parametrize(
    ("name", "value", "endpoint"),
    [
        ("ENDPOINT", "http://c:4318", "http://c:4318/v1/traces"),
        ("ENDPOINT", "http://c:4318/", "http://c:4318/v1/traces"),
        ("ENDPOINT", "https://c/my/", "https://c/my/v1/traces"),
        ("ENDPOINT", "https://c?key=1", "https://c/v1/traces?key=1"),
        ("TRACES_ENDPOINT", "http://c:4318", "http://c:4318/"),
        ("TRACES_ENDPOINT", "https://c/v1/traces/", "https://c/v1/traces/"),
        ("LOGS_ENDPOINT", "https://elsewhere", "http://localhost:4318/v1/traces"),
        ("ENDPOINT", "  ", "http://localhost:4318/v1/traces"),
        ("ENDPOINT", "http://[::1]:4318", "http://[::1]:4318/v1/traces"),
    ],
)
def test_http_endpoints(name: str, value: str, endpoint: str) -> None:
    """The base gets /v1/<signal>; the signal's own endpoint stays as it is (exporter.md)."""
    assert good(**{name: value}).endpoint == endpoint


@pytest.mark.parametrize(
    ("value", "insecure", "target", "plain"),
    [
        ("http://c:4317", "false", "c:4317", True),
        ("https://c:4317", "true", "c:4317", False),
        ("https://c", "", "c:443", False),
        ("http://c/path", "", "c:80", True),
        ("c:4317", "", "c:4317", False),
        ("c:4317", "TRUE", "c:4317", True),
        ("dns:///c:4317", "true", "dns:///c:4317", True),
        ("unix:///run/otel.sock", "true", "unix:///run/otel.sock", True),
    ],
)
def test_grpc_endpoints(value: str, insecure: str, target: str, plain: bool) -> None:
    """The scheme decides about TLS; without one INSECURE does, and it is false by default."""
    settings = good(PROTOCOL="grpc", ENDPOINT=value, INSECURE=insecure)
    assert (settings.endpoint, settings.insecure) == (target, plain)


def test_the_signals_own_variable_wins_whole() -> None:
    """A signal's variable replaces the general one; headers are not merged (as in the SDK)."""
    settings = good(
        TIMEOUT="3000", TRACES_TIMEOUT="4500", HEADERS="a=1", TRACES_HEADERS="b=2",
        COMPRESSION="none", TRACES_COMPRESSION="gzip", PROTOCOL="grpc",
        TRACES_PROTOCOL="http/protobuf",
    )  # fmt: skip
    assert settings.timeout == 4.5
    assert settings.headers == (("b", "2"),)
    assert settings.compression == "gzip"
    assert settings.protocol == "http/protobuf"


@pytest.mark.parametrize(
    "value",
    [
        "api-key=abc",
        "Authorization=Bearer%20abc%3D%3D,x=",
        "Authorization=Basic dXNlcjpwdw==",
        " a = 1 , b=2%2C3 ,",
        "a=%C3%A4",
    ],
)
def test_headers_mean_what_they_mean_to_the_sdk(value: str) -> None:
    """Users' existing header settings give the same headers as in opentelemetry-python."""
    assert dict(good(HEADERS=value).headers) == dict(parse_env_headers(value, liberal=True))


def test_user_and_password_in_the_url_become_a_header() -> None:
    """A password in the endpoint works and stays out of what is shown."""
    settings = good(ENDPOINT="https://me:p%40ss@c:4318?token=sesame")
    assert settings.endpoint == "https://c:4318/v1/traces?token=sesame"
    assert dict(settings.headers) == {"authorization": "Basic bWU6cEBzcw=="}
    assert "sesame" not in repr(settings) and "bWU6" not in repr(settings)


def test_repr_hides_header_values() -> None:
    """Neither `repr` nor `str` of the settings shows a header value; names are shown."""
    shown = f"{good(HEADERS='api-key=s3cret')!r} {good(HEADERS='api-key=s3cret')}"
    assert "s3cret" not in shown and "api-key" in shown


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"PROTOCOL": "http/json"}, ["PROTOCOL", "'http/json'", "http/protobuf"]),
        ({"TRACES_PROTOCOL": "HTTP"}, ["TRACES_PROTOCOL", "'HTTP'"]),
        ({"COMPRESSION": "zstd"}, ["COMPRESSION", "'zstd'", "gzip"]),
        ({"TIMEOUT": "1e9"}, ["TIMEOUT", "'1e9'", "whole milliseconds"]),
        ({"TIMEOUT": "2.5"}, ["TIMEOUT", "'2.5'", "whole milliseconds", "10000"]),
        ({"TIMEOUT": "9999999999"}, ["TIMEOUT", "the most"]),
        ({"HEADERS": "'a=s3cret'"}, ["HEADERS", "quotes"]),
        ({"TRACES_ENDPOINT": '"http://c:4318"'}, ["TRACES_ENDPOINT", "quotes"]),
        ({"TIMEOUT": "-1"}, ["TIMEOUT"]),
        ({"TIMEOUT": "10s"}, ["TIMEOUT", "'10s'"]),
        ({"TIMEOUT": "inf"}, ["TIMEOUT"]),
        ({"INSECURE": "yes"}, ["INSECURE", "'yes'", "true or false"]),
        ({"ENDPOINT": "collector:4318"}, ["ENDPOINT", "'collector:4318'", "http://host:port"]),
        ({"ENDPOINT": "http://c:99999"}, ["ENDPOINT"]),
        ({"ENDPOINT": "ftp://c"}, ["ENDPOINT"]),
        ({"ENDPOINT": "http://"}, ["ENDPOINT"]),
        ({"ENDPOINT": "http://a b"}, ["ENDPOINT"]),
        ({"CERTIFICATE": "/nonexistent/ca.pem"}, ["CERTIFICATE", "/nonexistent/ca.pem", "PEM"]),
        ({"CLIENT_CERTIFICATE": "/"}, ["CLIENT_CERTIFICATE", "'/'"]),
        ({"HEADERS": "a=1,s3cret"}, ["HEADERS", "place 2", "%2C"]),
        ({"HEADERS": "a b=s3cret"}, ["HEADERS", "place 1"]),
        ({"HEADERS": "a=s3cret%0d%0aHost: x"}, ["HEADERS", "'a'", "control"]),
        ({"HEADERS": "a=s3cret%C3%A4", "PROTOCOL": "grpc"}, ["HEADERS", "'a'", "ASCII"]),
        ({"ENDPOINT": "me:s3cret@c:4318"}, ["ENDPOINT"]),
    ],
)
def test_each_mistake_is_named_with_a_remedy(variables: dict[str, str], words: list[str]) -> None:
    """One mistake, one sentence: the variable, its value, what to write; never a secret."""
    (mistake,) = mistakes(**variables)
    assert all(word in mistake for word in words)
    assert "s3cret" not in mistake


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    """Nobody has to start the program five times to find five mistakes."""
    key = tmp_path / "key.pem"
    key.write_text("")
    found = mistakes(
        PROTOCOL="x", TIMEOUT="x", COMPRESSION="x", INSECURE="x", ENDPOINT="x", HEADERS="x",
        CERTIFICATE="x", CLIENT_KEY=str(key),
    )  # fmt: skip
    assert len(found) == 8


def test_opening_names_each_mistake_once() -> None:
    """A general variable that is wrong for both signals is one mistake."""
    with pytest.raises(ConfigurationError) as error:
        exporters({P + "TIMEOUT": "x", P + "LOGS_PROTOCOL": "y"})
    assert len(error.value.mistakes) == 2


def test_mistakes_of_our_own_metrics_do_not_stop_executions() -> None:
    """A service that exports metrics its own way can still run a Receiver; `open_senders` looks at
    the two signals it opens, and whoever opens the metrics hears of theirs."""
    environment = {"OTEL_METRICS_EXPORTER": "otlp,statsd", P + "METRICS_TIMEOUT": "x"}
    found = exporters(environment)
    assert len(found.mistakes) == 2
    with pytest.raises(ConfigurationError) as error:
        sdk_exporters(*found.metrics)
    assert error.value.mistakes == found.mistakes


def test_an_exporter_that_is_not_installed_is_a_mistake_with_the_remedy() -> None:
    """The variable, its value and the installed names are told before anything connects."""
    (mistake,) = otlp_exporters({"OTEL_TRACES_EXPORTER": "zipkin-of-old"}).mistakes
    assert "OTEL_TRACES_EXPORTER" in mistake
    assert "'zipkin-of-old'" in mistake
    assert "console" in mistake


def test_an_exporter_that_cannot_be_started_is_a_configuration_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an exporter's own code raises at its start is no traceback, and its words, which may
    hold a secret, are not told."""
    (tmp_path / "broken_exporter.py").write_text("def make():\n    raise KeyError('s3cret')\n")
    info = tmp_path / "broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[opentelemetry_logs_exporter]\nbroken = broken_exporter:make\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError) as error:
        exporters({"OTEL_LOGS_EXPORTER": "broken"})
    (mistake,) = error.value.mistakes
    assert "OTEL_LOGS_EXPORTER" in mistake and "KeyError" in mistake and "s3cret" not in mistake


def test_settings_hold_the_parsed_values() -> None:
    """`Settings` is the one way in: what `environment` says stands in `otlp` and `value_limit`,
    parsed once; a number that cannot be understood counts as unset."""
    settings = Settings(
        api_key="k",  # type: ignore[call-arg]
        environment={
            "OTEL_TRACES_EXPORTER": " console ",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "OTEL_METRIC_EXPORT_TIMEOUT": "-5",
            "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "64",
            P + "HEADERS": "authorization=Bearer%20s3cret",
            P + "METRICS_ENDPOINT": "https://c/v1/metrics?token=sesame",
        },
    )
    otlp = settings.otlp
    assert otlp is settings.otlp
    assert [(e.signal, e.name) for e in otlp.executions] == [
        ("traces", "console"),
        ("logs", "otlp"),
    ]
    assert [e.settings.endpoint for e in otlp.metrics] == ["https://c/v1/metrics?token=sesame"]
    assert (otlp.metric_interval, otlp.metric_timeout) == (500, 30_000)
    assert {"Bearer s3cret", "s3cret", "token=sesame"} <= otlp.secrets
    assert (settings.value_limit, otlp.sdk_disabled, otlp.mistakes) == (64, False, [])
    for unset in ("", "15", "many", "-64", "9" * 5000, "٦٤"):
        limit = {"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": unset}
        assert settings.model_validate({"api_key": "k", "environment": limit}).value_limit == 2048


def test_a_timeout_is_whole_milliseconds() -> None:
    """As specified: milliseconds, and 0 for no limit. What was written for opentelemetry-python,
    which counts seconds, is taken as it stands and gets a warning; so do the times of metrics,
    which count as unset where they are no number."""
    assert good(TIMEOUT="10000").timeout == 10.0
    assert good(TIMEOUT="0").timeout == math.inf
    found = otlp_exporters({P + "TIMEOUT": "10"})
    assert (found.traces.settings.timeout, found.mistakes) == (0.01, [])
    (warning,) = found.warnings
    assert warning.startswith("OTEL_EXPORTER_OTLP_TIMEOUT is 10, which is milliseconds")
    assert "10000" in warning
    metrics = {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "soon"}
    found = otlp_exporters(metrics | {"OTEL_METRIC_EXPORT_TIMEOUT": "30"})
    assert (found.metric_interval, found.metric_timeout) == (60_000, 30)
    assert [w.partition(" ")[0] for w in found.warnings] == [
        "OTEL_METRIC_EXPORT_INTERVAL",
        "OTEL_METRIC_EXPORT_TIMEOUT",
    ]
    assert otlp_exporters({"OTEL_METRIC_EXPORT_TIMEOUT": "0"}).metric_timeout > 1e9
    for transport in ("http/protobuf", "grpc"):
        exporters({P + "TIMEOUT": "0", P + "PROTOCOL": transport})
        sdk_exporters(
            *otlp_exporters(
                {"OTEL_METRICS_EXPORTER": "otlp", P + "TIMEOUT": "0", P + "PROTOCOL": transport}
            ).metrics
        )[0].shutdown()
