"""What the environment of a machine may hold, from outside: a mistake is told by its variable with
exit code 2 in every command, an empty variable is none, and no password or traceback is shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trustme

from otel_alloy.network import VARIABLES

if TYPE_CHECKING:
    from conftest import Place

COMMANDS = {
    "run": ("run", "--once"),
    "backfill": ("backfill", "--from", "1d"),
    "check": ("check",),
    "tail": ("tail", "--since", "1m"),
    "summary": ("summary",),
    "retry": ("rejected", "retry"),
    "demo": ("demo", "--seconds", "1"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_broken_variable_is_told_by_every_command(place: Place, name: str) -> None:
    """All broken variables at once: each a line with its name and remedy, exit code 2."""
    done = place.command(
        *COMMANDS[name],
        HTTPS_PROXY="http://me:s3cret@proxy:99999",
        HTTP_PROXY="foo",
        ALL_PROXY="gopher://me:s3cret@x:1",
        NO_PROXY="fine.example,fd00::/999",
        SSL_CERT_FILE=str(place.folder / "missing.pem"),
    )
    assert done.code == 2
    assert "Traceback" not in done.err and "s3cret" not in done.out + done.err
    lines = [line.split()[1] for line in done.err.splitlines() if line.startswith("  - ")]
    assert lines == ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE"]
    assert place.otlp.request_count == 0


@pytest.mark.parametrize("name", ["run", "check", "tail", "retry"])
@pytest.mark.parametrize("ends", ["alloy", "otlp"])
def test_a_proxy_that_cannot_be_used(place: Place, name: str, ends: str) -> None:
    """SOCKS where a gRPC endpoint would go through it is told; where every end is on this machine
    nothing is."""
    far = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector.invalid:4317"}
    far["OTEL_EXPORTER_OTLP_PROTOCOL"] = "grpc"
    if ends == "alloy":  # the same variable is nobody's business on loopback
        far = {}
    if name == "tail" and not far:
        return  # it would follow for ever
    place.fill(3)
    done = place.command(*COMMANDS[name], ALL_PROXY="socks5://127.0.0.1:1", **far)
    assert "Traceback" not in done.err
    assert done.code == (2 if far else 0), done.err
    if far:
        assert "ALL_PROXY is 'socks5://127.0.0.1:1', and gRPC goes" in done.err


@pytest.mark.parametrize(
    "content", ["", "nothing", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"]
)
def test_a_store_that_is_none(place: Place, content: str) -> None:
    """Empty, no PEM, or PEM that OpenSSL refuses: for either end, with exit code 2."""
    file = place.folder / "ca.pem"
    file.write_text(content)
    otlp = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://127.0.0.1:1"}
    grpc = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    for ends in ({"ALLOY_ENDPOINT": "https://127.0.0.1:1"}, otlp, otlp | grpc):
        for command in ("run", "check"):
            done = place.command(*COMMANDS[command], SSL_CERT_FILE=str(file), **ends)
            assert done.code == 2, done.err
            assert "Traceback" not in done.err and f"SSL_CERT_FILE is '{file}'" in done.err


def test_check_says_which_way_and_whom_it_trusts(place: Place) -> None:
    """For each end that has TLS or a proxy; a plain connection to this machine needs no words."""
    file = place.folder / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(file))
    done = place.command("check", "--json", REQUESTS_CA_BUNDLE=str(file))
    assert "connection" not in done.out
    done = place.command(
        "check",
        "--json",
        ALLOY_ENDPOINT="https://127.0.0.1:1",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="https://collector.invalid/v1/traces",
        OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE=str(file),
        OTEL_EXPORTER_OTLP_LOGS_TIMEOUT="10",
        REQUESTS_CA_BUNDLE=str(file),
        HTTPS_PROXY="http://me:s3cret@127.0.0.1:1",
    )
    assert "s3cret" not in done.out + done.err
    found = {f["part"]: f for f in json.loads(done.out)["findings"]}
    own = found["Alloy (default): connection"]
    assert own["facts"] == {"proxy": None, "trust": f"{file} (REQUESTS_CA_BUNDLE)"}
    traces = found["OTLP traces: connection"]
    assert traces["facts"] == {
        "proxy": "http://127.0.0.1:1 (HTTPS_PROXY)",
        "trust": f"{file} (OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE)",
    }
    assert "which is milliseconds" in done.out


def test_an_empty_variable_is_none(place: Place) -> None:
    """Every variable may be there and empty, as compose files and charts leave them."""
    from otel_alloy.settings.models import Settings, SourceSettings

    names = {f"OTEL_ALLOY_{n.upper()}" for m in (Settings, SourceSettings) for n in m.model_fields}
    names -= {
        f"OTEL_ALLOY_{n}"
        for n in ("SOURCES", "ENVIRONMENT", "PRIVACY", "RESOURCE", "API_KEY", "ENDPOINT")
    }
    names |= {"OTEL_ALLOY_CONFIG", "OTEL_ALLOY_PRIVACY_USER_EMAIL", *VARIABLES}
    names |= {
        f"OTEL_EXPORTER_OTLP_{of}{name}"
        for of in ("", "TRACES_", "LOGS_", "METRICS_")
        for name in ("ENDPOINT", "PROTOCOL", "HEADERS", "TIMEOUT", "COMPRESSION", "CERTIFICATE")
    }
    names |= {f"OTEL_{s}_EXPORTER" for s in ("TRACES", "LOGS", "METRICS")}
    names |= {"OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"}
    names |= {"OTEL_METRIC_EXPORT_INTERVAL", "OTEL_METRIC_EXPORT_TIMEOUT"}
    records = place.fill(5)
    place.environment = dict.fromkeys(names, "") | place.environment
    place.once()
    place.assert_exactly_once(place.ended(records))
    (place.folder / "s.yaml").write_text(f"api_key: {place.environment['ALLOY_API_KEY']}\n")
    place.once("--config", "s.yaml", ALLOY_API_KEY="")
    assert place.command("rejected", "list", ALLOY_API_KEY=" ").code == 0


@pytest.mark.parametrize(
    "variable",
    ["ALLOY_API_KEY", "ALLOY_ENDPOINT", "OTEL_ALLOY_STORAGE", "OTEL_EXPORTER_OTLP_HEADERS",
     "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "OTEL_TRACES_EXPORTER", "OTEL_SERVICE_NAME",
     "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "OTEL_ALLOY_PRIVACY_USER_EMAIL"],
)  # fmt: skip
@pytest.mark.parametrize("quote", ['"', "'"])
def test_quotes_that_docker_keeps(place: Place, variable: str, quote: str) -> None:
    """`docker --env-file` takes quotes for a part of the value: told once, by name, with exit code
    2, without the value."""
    done = place.command("run", "--once", **{variable: f"{quote}a=s3cret{quote}"})
    assert done.code == 2
    (line,) = [one for one in done.err.splitlines() if one.startswith("  - ")]
    assert line.startswith(f"  - {variable} has quotes ({quote}) around its value")
    assert "s3cret" not in done.err


def test_a_short_timeout_is_warned_of(place: Place) -> None:
    """A number that was meant as seconds is used as specified, and said once per start."""
    place.fill(2)
    done = place.once(OTEL_EXPORTER_OTLP_TIMEOUT="999")
    assert done.err.count("OTEL_EXPORTER_OTLP_TIMEOUT is 999, which is milliseconds") == 1


def test_variables_of_the_sdk_that_it_refuses(place: Place) -> None:
    """Own traces go through the SDK's batch processor, whose own variables may be wrong."""
    done = place.command(
        "run", "--once", OTEL_ALLOY_OWN_TRACES="true", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="99999"
    )
    assert (done.code, "Traceback" in done.err, "OTEL_BSP_" in done.err) == (2, False, True)


@pytest.mark.parametrize("kind", ["place", "grpc_place"])
def test_no_library_reads_these_variables_itself(request: pytest.FixtureRequest, kind: str) -> None:
    """Beside what is decided here, httpcore, grpcio and requests take no proxy from the process: on
    the loopback everything arrives although each variable names one that is away."""
    place: Place = request.getfixturevalue(kind)
    records = place.fill(3)
    away = "http://127.0.0.1:1"
    names = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")
    variables = dict.fromkeys((*names, *map(str.upper, names)), away)
    place.once(**variables, OTEL_EXPORTER_OTLP_TIMEOUT="3000", OTEL_METRICS_EXPORTER="otlp")
    place.assert_exactly_once(place.ended(records))
