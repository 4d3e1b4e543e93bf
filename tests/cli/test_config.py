"""`config`: what is in force and where each value is from, and never a secret."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_alloy.cli import commands
from otel_alloy.settings.in_force import shown_url
from otel_alloy.settings.models import Settings, SourceSettings

if TYPE_CHECKING:
    from conftest import Place

FILE = """\
storage: sqlite:///kept.db
page_size: 50
overlap: 5m
otlp:
  endpoint: http://file:4000
  compression: gzip
  logs: { protocol: grpc }
resource: { team: x }
sources:
  - { name: production, api_key: "${env:KEY_P}" }
  - name: staging
    api_key: of-staging
    page_size: 7
"""


def shown(place: Place, *words: str, **environment: str) -> list[tuple[str, str, str, str]]:
    """Section, name, value and origin of each row, without spaces around."""
    done = place.command("config", *words, **environment)
    assert (done.code, done.err) == (0, "")
    section, rows = "", []
    for line in done.out.splitlines():
        if line and not line.startswith(" "):
            section = line
        elif line:
            name, value, origin = re.split(r"  +", line.strip(), maxsplit=2)
            rows.append((section, name, value, origin))
    return rows


@pytest.fixture
def bare(place: Place) -> Place:
    """Without what the tests' environment sets."""
    for name in list(place.environment):
        if name.startswith(("OTEL_", "ALLOY_")):
            del place.environment[name]
    (place.folder / "s.yaml").write_text(FILE)
    return place


def test_each_value_and_where_it_is_from(bare: Place) -> None:
    """Flag, variable, line of the file, reference or default; and what is set besides and does not
    count. Sources that say nothing have what is said for all, endpoints what counts for their
    signal."""
    rows = shown(
        bare,
        *("--overlap", "3m", "--config", "s.yaml"),
        KEY_P="of-production",
        OTEL_ALLOY_PAGE_SIZE="9",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://env:4000",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://traces:4000/x",
        HTTPS_PROXY="http://me:pass-word@proxy.example:3128",
        SSL_CERT_FILE="",
        OTEL_RESOURCE_ATTRIBUTES="a=b",
        OTEL_SERVICE_NAME="alloy",
        OTEL_METRICS_EXPORTER="otlp",
    )
    both = "s.yaml:2 and OTEL_ALLOY_PAGE_SIZE"
    env = "OTEL_EXPORTER_OTLP_ENDPOINT"
    for row in (
        ("settings", "storage", "sqlite:///kept.db", "s.yaml:1"),
        ("settings", "batch_size", "1000", "default"),
        ("source production", "api_key", "***", "s.yaml:10 (${env:KEY_P})"),
        ("source production", "overlap", "3m", "--overlap, instead of s.yaml:3"),
        ("source production", "page_size", "9", "OTEL_ALLOY_PAGE_SIZE, instead of s.yaml:2"),
        ("source staging", "page_size", "7", f"s.yaml:13, instead of {both}"),
        ("source staging", "timeout", "30s", "default"),
        ("source staging", "resource.service.name", "alloy", "OTEL_SERVICE_NAME"),
        ("source staging", "resource.team", "x", "s.yaml:8"),
        ("source staging", "resource.a", "b", "OTEL_RESOURCE_ATTRIBUTES"),
        (
            *("OTLP traces", "endpoint", "http://traces:4000/x"),
            f"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, instead of s.yaml:5 and {env}",
        ),
        ("OTLP traces", "protocol", "http/protobuf", "default"),
        ("OTLP logs", "endpoint", "env:4000", f"{env}, instead of s.yaml:5"),
        ("OTLP logs", "protocol", "grpc", "s.yaml:7"),
        ("OTLP logs", "compression", "gzip", "s.yaml:6"),
        ("own metrics", "endpoint", "http://env:4000/v1/metrics", f"{env}, instead of s.yaml:5"),
        ("network", "proxy for https", "http://proxy.example:3128", "HTTPS_PROXY"),
        ("network", "trusted certificates", "certifi's", "default"),
    ):
        assert row in rows, row


def test_every_setting_is_there(bare: Place) -> None:
    """Each setting has a row, and what has no value says so; `--changed` leaves out defaults."""
    rows = shown(bare, ALLOY_API_KEY="any-key")
    names = {name for _, name, _, _ in rows}
    apart = {"sources", "environment", "rules", "destinations", "headers", "resource"}
    sections = {"privacy", "webhook", "outbox", "destinations_policy", "api_key_file"}
    for field in {*Settings.model_fields, *SourceSettings.model_fields} - apart - sections:
        assert field in names, field
    assert {"privacy.user.email", "webhook.secret", "outbox.max_age"} <= names
    assert ("settings", "hook", "-", "default") in rows
    changed = shown(bare, "--changed", ALLOY_API_KEY="any-key", OTEL_ALLOY_LEASE="20s")
    assert changed == [
        ("settings", "lease", "20s", "OTEL_ALLOY_LEASE"),
        ("source default", "api_key", "***", "ALLOY_API_KEY"),
    ]


def test_as_json(bare: Place) -> None:
    """The same for programs, with the place in parts, and what is probably not meant."""
    words = ("config", "--json", "--changed", "--config", "s.yaml")
    done = bare.command(*words, KEY_P="of-production", OTEL_ALLOY_ZZQX="secret")
    found = json.loads(done.out)
    assert found["file"] == "s.yaml" and "secret" not in done.out
    assert [one.split()[0] for one in found["warnings"]] == ["OTEL_ALLOY_ZZQX"]
    keys = [row for row in found["settings"] if row["name"] == "api_key"]
    assert keys[0] == {
        "section": "source production",
        "name": "api_key",
        "value": "***",
        "from": {
            **{"kind": "file", "name": "sources.0.api_key", "file": "s.yaml", "line": 10},
            "references": ["${env:KEY_P}"],
        },
        "instead_of": [],
    }


def test_what_is_wrong_is_told_instead(bare: Place) -> None:
    """All mistakes, exit code 2, and nothing on standard output."""
    done = bare.command("config", "--config", "s.yaml", OTEL_ALLOY_LEASE="soon")
    assert (done.code, done.out) == (2, "")
    assert "KEY_P is not set" in done.err and "OTEL_ALLOY_LEASE: write a duration" in done.err


SECRETS = st.text("abcdefghijk0123456789", min_size=8, max_size=20).map("canary".__add__)


@settings(max_examples=40)
@given(
    st.lists(SECRETS, min_size=14, max_size=14),
    st.sampled_from(["http/protobuf", "grpc"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_no_secret_is_ever_shown(
    secrets: list[str], protocol: str, in_files: bool, as_json: bool, by_variable: bool
) -> None:
    """A secret in every place that takes one, written, referred to or in a file, is in no line and
    in no object."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        taken = iter(secrets)
        environment = {"OTEL_ALLOY_ENRICH": "off"}

        def secret() -> str:
            text = next(taken)
            if in_files:
                held = folder / f"held-{len(list(folder.iterdir()))}"
                held.write_text(text)
                return f"${{file:{held}}}"
            if by_variable:
                environment[f"HELD_{len(environment)}"] = text
                return f"${{env:HELD_{len(environment) - 1}}}"
            return text

        (folder / "key").write_text(secrets[0])
        document: dict[str, Any] = {
            "storage": f"postgresql://me:{secrets[1]}@db/alloy?sslpassword={secrets[2]}",
            "privacy": {"user.email": "hash"},
            "privacy_key": secret(),
            "webhook": {"listen": "127.0.0.1:0", "secret": f"{secret()}-and-sixteen-more"},
            "resource_per": ["user.id"],
            "headers": {"X-Tenant": f"{secrets[3]} {{user.id}}"},
            "resource": {"api.token": secret(), "plain": f"${{file:{folder / 'key'}}}"},
            "trace_url": f"https://jaeger.example/{{trace_id}}?access_token={secrets[5]}",
            "otlp": {
                "endpoint": f"https://me:{secrets[6]}@otlp.example:4318/x?token={secrets[7]}",
                "protocol": protocol,
                "headers": {"authorization": f"Bearer {secret()}", "x-key": secret()},
            },
            "sources": [
                {"name": "a", "api_key": secret()},
                {"name": "b", "api_key_file": str(folder / "key")},
            ],
            "destinations": {
                "acme": {
                    "match": {"user.id": "u"},
                    "otlp": {
                        "endpoint": f"https://me:{secrets[8]}@acme.example/?k={secrets[9]}",
                        "headers": {"x-key": secret()},
                    },
                    "resource": {"secret": secrets[10]},
                }
            },
        }
        environment |= {
            "HTTPS_PROXY": f"http://me:{quote(secrets[11])}@proxy.example:1",
            "OTEL_EXPORTER_OTLP_METRICS_HEADERS": f"x={secrets[12]}",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_RESOURCE_ATTRIBUTES": f"my.password={secrets[13]}",
            "OTEL_ALLOY_ZZQX": secrets[0],
        }
        file = folder / "s.yaml"
        file.write_text(yaml.safe_dump(document))
        words = ["config", "--config", str(file), *(["--json"] if as_json else [])]
        done = CliRunner().invoke(commands, words, env=environment)
        assert done.exit_code == 0, (done.output, done.exception)
        assert "canary" not in done.output
        assert "api_key" in done.output and "x-key" in done.output


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://me:p@db:5/x?schema=y", "postgresql://db:5/x?schema=y"),
        ("postgresql:///x?host=/run&sslpassword=p", "postgresql:///x?host=/run&sslpassword=***"),
        ("https://a.example/t/{trace_id}?orgId=1", "https://a.example/t/{trace_id}?orgId=1"),
        ("https://a/?X-Api-Key=s&b=c", "https://a/?X-Api-Key=***&b=c"),
        ("text", "text"),
    ],
)
def test_urls_as_they_may_be_shown(url: str, told: str) -> None:
    """Without user and password, and without the value of what is called a secret."""
    assert shown_url(url) == told
