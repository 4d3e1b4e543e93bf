"""Settings: where a value comes from, what is refused, and that no text holds a secret."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from otel_alloy.durations import parse_duration
from otel_alloy.errors import ConfigurationError
from otel_alloy.settings.loader import load_settings
from otel_alloy.settings.models import Settings, SourceSettings, parse_moment

CANARY = "canary-31415926-do-not-show"
KEY = {"ALLOY_API_KEY": CANARY}


def load(
    environment: dict[str, str], yaml: str | None = None, folder: Path | None = None, **flags: Any
) -> Settings:
    if yaml is None:
        return load_settings(flags, environment)
    assert folder is not None
    path = folder / "otel-alloy.yaml"
    path.write_text(yaml, "utf-8")
    return load_settings(flags, environment, file=str(path))


def mistakes(
    environment: dict[str, str], yaml: str | None = None, folder: Path | None = None, **flags: Any
) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(environment, yaml, folder, **flags)
    assert str(caught.value) == "\n".join(caught.value.mistakes)
    return caught.value.mistakes


def key_of(source: SourceSettings) -> str:
    return source.api_key.get_secret_value()


# Where a value comes from ------------------------------------------------------------------------


def test_a_key_is_all_it_takes() -> None:
    """With the key alone everything else has its documented default."""
    settings = load(KEY)
    (source,) = settings.sources
    assert (source.name, source.endpoint) == ("default", "https://production.runalloy.com")
    assert (source.page_size, source.requests_per_minute, source.overlap) == (100, 60, 120)
    assert (source.collection_interval, source.initial_lookback) == (30, 3600)
    assert (source.incomplete_after, source.api_version) == (86400, "2025-09")
    assert settings.storage == "sqlite:///otel-alloy.db" and settings.batch_size == 1000
    assert settings.privacy.user_email == settings.privacy.user_full_name == "keep"
    assert settings.resource(source) == {
        "service.name": "runalloy",
        "telemetry.distro.name": "otel-alloy",
    }


def test_flag_over_environment_over_file_over_default(tmp_path: Path) -> None:
    """Each layer wins over the next, setting by setting."""
    yaml = (
        f"api_key: of-the-file\npage_size: 1\noverlap: 1s\nbatch_size: 1\nstorage: {'sqlite:///f'}"
    )
    environment = KEY | {"OTEL_ALLOY_PAGE_SIZE": "2", "OTEL_ALLOY_OVERLAP": "2s"}
    settings = load(environment, yaml, tmp_path, page_size=3, storage=None)
    (source,) = settings.sources
    assert (source.page_size, source.overlap, settings.batch_size) == (3, 2.0, 1)
    assert settings.storage == "sqlite:///f" and source.requests_per_minute == 60
    assert key_of(source) == CANARY


def test_the_file_may_be_named_in_the_environment(tmp_path: Path) -> None:
    """OTEL_ALLOY_CONFIG names the file where no flag does."""
    path = tmp_path / "c.yaml"
    path.write_text("page_size: 7")
    settings = load_settings({}, KEY | {"OTEL_ALLOY_CONFIG": str(path)})
    assert settings.sources[0].page_size == 7


def test_every_setting_has_its_variable() -> None:
    """Each scalar setting can be given as OTEL_ALLOY_<NAME>, in text."""
    texts = {
        "name": "eu",
        "timeout": "5s",
        "collection_interval": "1m",
        "initial_lookback": "60d",
        "overlap": "0",
        "overlap_max": "1h",
        "audit": "10m, 1h",
        "audit_bucket": "1m",
        "audit_by_reading": "true",
        "page_size": "30",
        "requests_per_minute": "0",
        "incomplete_after": "1h",
        "workflow_id": "w",
        "user_id": "u",
        "api_version": "",
        "storage": "sqlite:////var/lib/c.db",
        "batch_size": "10",
        "max_request_bytes": "20000",
        "shutdown_timeout": "0",
        "attribute_value_length_limit": "64",
        "started_logs": "true",
        "privacy_key": "k",
        "since": "2025-04-29T17:44:10Z",
        "resource_per": "user.id,team.id",
    }
    environment = {f"OTEL_ALLOY_{name.upper()}": text for name, text in texts.items()}
    settings = load(KEY | environment | {"ALLOY_ENDPOINT": "http://127.0.0.1:1/"})
    (source,) = settings.sources
    assert (source.timeout, source.initial_lookback, source.api_version) == (5, 5_184_000, "")
    assert (source.endpoint, settings.started_logs) == ("http://127.0.0.1:1", True)
    assert settings.since == 1_745_948_650_000
    assert (source.audit, source.audit_by_reading) == ((600, 3600), True)
    assert load(KEY | {"OTEL_ALLOY_AUDIT": "off"}).sources[0].audit == ()
    structured = {
        "api_key",
        "api_key_file",
        "endpoint",
        "headers",
        "resource",
        "sources",
        "privacy",
        "webhook",
        "rules",
        "destinations",
        "destinations_policy",
        "outbox",
        "environment",
    }
    fields = SourceSettings.model_fields | Settings.model_fields
    for name in fields.keys() - structured - texts.keys():
        default = fields[name].get_default()
        load(KEY | {f"OTEL_ALLOY_{name.upper()}": str(default) if default else ""})


def test_references_to_the_environment(tmp_path: Path) -> None:
    """`${env:NAME}` and `${env:NAME:-default}` stand anywhere in a value, nested ones too."""
    yaml = """
sources:
  - {name: a, api_key: "${env:KEY_A}", page_size: "${env:SIZE:-12}"}
  - {name: b, api_key: "${env:KEY_B:-b}", resource: {team: "x-${env:KEY_A}-y"}}
"""
    one, two = load({"KEY_A": "secret-a"}, yaml, tmp_path).sources
    assert (key_of(one), one.page_size, key_of(two)) == ("secret-a", 12, "b")
    assert two.resource == {"team": "x-secret-a-y"}
    (told,) = mistakes({}, "api_key: ${env:KEY_A}", tmp_path)
    assert "KEY_A is not set" in told


def test_several_sources(tmp_path: Path) -> None:
    """What stands at the top is each source's default; each has its own key, name and limits."""
    yaml = """
page_size: 50
sources:
  - {name: us, api_key: one, endpoint: "https://us.example"}
  - {name: eu, api_key: two, page_size: 20, resource: {region: eu}}
"""
    us, eu = load({"OTEL_ALLOY_OVERLAP": "5m"}, yaml, tmp_path).sources
    assert [(s.name, key_of(s), s.page_size, s.overlap) for s in (us, eu)] == [
        ("us", "one", 50, 300),
        ("eu", "two", 20, 300),
    ]
    (told,) = mistakes(KEY, "sources: [{name: a}, {name: a}]", tmp_path)
    assert "two sources are named 'a'" in told


@pytest.mark.parametrize("text", ["", "# nothing", "---"])
def test_an_empty_file_is_no_mistake(tmp_path: Path, text: str) -> None:
    """An empty file changes nothing."""
    assert load(KEY, text, tmp_path) == load(KEY)


def test_the_files_otlp_section_and_the_environment(tmp_path: Path) -> None:
    """`otlp:` becomes OpenTelemetry's own variables, which win over it."""
    yaml = """
otlp:
  endpoint: http://file:4318
  headers: {x-key: "a b,c"}
  traces: {protocol: grpc}
  insecure: true
"""
    settings = load(KEY | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://env:4318"}, yaml, tmp_path)
    assert {k: v for k, v in settings.environment.items() if "OTLP" in k} == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://env:4318",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=a%20b%2Cc",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
    }
    assert not any("ALLOY_API_KEY" in k for k in settings.environment)


# Values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pasted", ["k-1_2", "bearer k-1_2", "Bearer  k-1_2 ", "BEARER k-1_2", " k-1_2\n"]
)
def test_a_key_may_be_pasted_with_its_prefix(pasted: str) -> None:
    """`bearer ` in front and blanks around are no part of the key."""
    assert key_of(load({"ALLOY_API_KEY": pasted}).sources[0]) == "k-1_2"


@pytest.mark.parametrize("key", ["bearer", "bearer ", "a b", "a\nb", "schlüssel", "a\x00"])
def test_what_is_no_key(key: str) -> None:
    """A key that cannot be sent in a header is refused before anything connects."""
    (told,) = mistakes({"ALLOY_API_KEY": key})
    assert told.startswith("ALLOY_API_KEY: ")
    assert "copy it again" in told or "set ALLOY_API_KEY" in told


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("1h30m", 5400),
        ("1h 30min", 5400),
        ("60d", 5_184_000),
        ("2w", 1_209_600),
        ("250ms", 0.25),
        ("1.5H", 5400),
        ("90", 90),
        (90, 90),
        (0.5, 0.5),
        (timedelta(minutes=2), 120),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    """Durations as people write them; a plain number is seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "soon", "5 parsecs", "-5s", "s", "1h-", True, None, "1e3", float("inf"), "nan"]
)
def test_what_is_no_duration(text: object) -> None:
    """Anything else is refused with examples, an endless duration too."""
    with pytest.raises(ValueError, match="1h30m"):
        parse_duration(text)


@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "min", "h", "d", "w"]))
def test_durations_add_up(number: int, unit: str) -> None:
    """Written twice, a duration is twice as long."""
    once = parse_duration(f"{number}{unit}")
    assert parse_duration(f"{number}{unit}{number}{unit}") == pytest.approx(2 * once)


def test_a_moment_is_a_timestamp_or_how_long_ago(tmp_path: Path) -> None:
    """`since` takes both; a timestamp without quotes, which YAML reads by itself, is the same."""
    moment = 1_745_948_650_000
    assert parse_moment("60d") == 5_184_000.0 and isinstance(parse_moment("60d"), float)
    assert parse_moment("2025-04-29T17:44:10Z") == moment
    assert parse_moment("2025-04-29 19:44:10+02:00") == moment
    assert parse_moment(datetime(2025, 4, 29, 17, 44, 10, tzinfo=UTC)) == moment
    for quote in ("", "'"):
        yaml = f"since: {quote}2025-04-29T17:44:10Z{quote}"
        assert load(KEY, yaml, tmp_path).since == moment
        assert load(KEY, f"since: {quote}2025-04-29{quote}", tmp_path).since == 1_745_884_800_000
    assert load(KEY, "since: 60d", tmp_path).since == 5_184_000.0
    (told,) = mistakes(KEY, since="yesterday")
    assert told.startswith("--since: ") and "60d" in told


@pytest.mark.parametrize(
    ("endpoint", "used"),
    [
        ("https://eu.example", "https://eu.example"),
        ("https://eu.example/", "https://eu.example"),
        ("https://eu.example/logs", "https://eu.example"),
        ("http://127.0.0.1:8080/alloy/logs/", "http://127.0.0.1:8080/alloy"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_endpoints(endpoint: str, used: str) -> None:
    """`/logs` may be pasted with the URL and is not doubled."""
    assert load(KEY | {"ALLOY_ENDPOINT": endpoint}).sources[0].endpoint == used


@pytest.mark.parametrize(
    "endpoint",
    [
        "production.runalloy.com",
        "ftp://x",
        f"https://me:{CANARY}@x",
        f"https://x?key={CANARY}",
        "https://x#y",
        "https://x:0",
        "https://x:99999",
        "https://x y",
    ],
)
def test_what_is_no_endpoint(endpoint: str) -> None:
    """Anything but a plain base URL is refused, without repeating what may hold a password."""
    (told,) = mistakes(KEY | {"ALLOY_ENDPOINT": endpoint})
    assert told.startswith("ALLOY_ENDPOINT: write a URL") and CANARY not in told


def test_resource_attributes(tmp_path: Path) -> None:
    """OTEL_RESOURCE_ATTRIBUTES (percent-decoded), over it OTEL_SERVICE_NAME, over both the
    source's own, typed as written."""
    environment = KEY | {
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=a, team=x%2Cy%20z ,broken,=nothing,empty=",
        "OTEL_SERVICE_NAME": "b",
    }
    settings = load(environment)
    assert settings.resource(settings.sources[0]) == {
        "service.name": "b",
        "telemetry.distro.name": "otel-alloy",
        "team": "x,y z",
        "empty": "",
    }
    settings = load(environment, "resource: {service.name: c, replicas: 3, eu: true}", tmp_path)
    found = settings.resource(settings.sources[0])
    assert found["service.name"] == "c" and found["team"] == "x,y z"
    assert found["replicas"] == 3 and found["eu"] is True


def test_privacy(tmp_path: Path) -> None:
    """Personal data by attribute, from file or environment; `hash` needs a key."""
    both = {
        "OTEL_ALLOY_PRIVACY_USER_EMAIL": "drop",
        "OTEL_ALLOY_PRIVACY_USER_FULL_NAME": "hash",
        "OTEL_ALLOY_PRIVACY_KEY": CANARY,
    }
    privacy = load(KEY | both).privacy
    assert (privacy.user_email, privacy.user_full_name) == ("drop", "hash")
    yaml = "privacy: {user.email: drop, user.full_name: drop}"
    environment = KEY | {"OTEL_ALLOY_PRIVACY_USER_EMAIL": "keep"}
    privacy = load(environment, yaml, tmp_path).privacy
    assert (privacy.user_email, privacy.user_full_name) == ("keep", "drop")
    (told,) = mistakes(KEY, "privacy: {user.email: hash}", tmp_path)
    assert "OTEL_ALLOY_PRIVACY_KEY" in told
    (told,) = mistakes(KEY, "privacy: {user.email: encrypt}", tmp_path)
    assert "'keep', 'hash' or 'drop'" in told


def test_the_fingerprint_is_the_query() -> None:
    """Another endpoint, workflow or user is another query; a rotated key is not."""

    def fingerprint(**more: str) -> str:
        return Settings(environment={}, **({"api_key": "k"} | more)).sources[0].fingerprint  # type: ignore[arg-type]

    assert fingerprint() == fingerprint(api_key="other") == fingerprint(page_size="7")
    different = [
        fingerprint(),
        fingerprint(endpoint="https://eu.example"),
        fingerprint(workflow_id="a"),
        fingerprint(user_id="a"),
    ]
    assert len(set(different)) == 4 and fingerprint(endpoint="https://eu.example/") == different[1]


# Mistakes ----------------------------------------------------------------------------------------


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    """A file, an environment and flags full of mistakes: each is told once, with where it was
    written, and the missing key is among them."""
    yaml = """
overlap: for ever
polling: 5s
privacy: {user.mail: keep}
otlp: {endpiont: x, traces: {protcol: y}}
resource: {team: [1]}
workflow_id: "${env:NOT_THERE}"
"""
    environment = {
        "OTEL_ALLOY_PAGE_SIZE": "many",
        "OTEL_ALLOY_BATCHSIZE": "5",
        "ALLOY_ENDPOINT": "nowhere",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "nowhere",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
    }
    told = mistakes(environment, yaml, tmp_path, timeout="0s")
    path = str(tmp_path / "otel-alloy.yaml")
    for where, word in [
        (f"overlap in {path}", "1h30m"),
        (f"polling in {path}", "no such setting"),
        ("privacy.user.mail", "no such setting"),
        ("otlp.endpiont", "no such setting"),
        ("otlp.traces.protcol", "no such setting"),
        ("resource.team in ", "text, a number"),
        (path, "NOT_THERE is not set"),
        ("OTEL_ALLOY_PAGE_SIZE", "integer"),
        ("OTEL_ALLOY_BATCHSIZE", "OTEL_ALLOY_BATCH_SIZE"),
        ("ALLOY_ENDPOINT", "https://production.runalloy.com"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", ""),
        ("--timeout", "greater than 0"),
        ("ALLOY_API_KEY", "not set"),
    ]:
        assert any(m.startswith(where) or f"{where}" in m.split(":")[0] for m in told), where
        assert any(where in m and word in m for m in told), (where, word)
    assert len(told) == len(set(told))


def test_a_mistake_inside_one_of_several_sources(tmp_path: Path) -> None:
    """The place of a mistake names the source by its number in the file."""
    yaml = "sources:\n- {name: a, api_key: k}\n- {name: b, api_key: k, page_size: 0, polling: 1}"
    told = mistakes({}, yaml, tmp_path)
    assert len(told) == 2
    assert all("sources.1." in m and "otel-alloy.yaml" in m for m in told)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("- a list", "name: value"),
        ("just text", "name: value"),
        ("a: [", "line"),
        (f"api_key: *{CANARY}", "line 1"),
        (f"api_key: !{CANARY} x", "line 1"),
        ("\tapi_key: x", "line 1"),
        ("otlp: 5", "otlp"),
        ("sources: 5", "sources"),
        ("sources: []", "sources"),
        ("sources: [5]", "sources"),
    ],
)
def test_files_that_are_no_settings(tmp_path: Path, text: str, word: str) -> None:
    """A file of another shape is told with its place, without quoting it."""
    told = "\n".join(mistakes(KEY, text, tmp_path))
    assert word in told and "otel-alloy.yaml" in told and CANARY not in told


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """No file, a folder, or bytes that are no text: told with the remedy."""
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigurationError, match=r"cannot be read .* --config"):
            load_settings({}, KEY, file=str(path))
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        load_settings({}, KEY, file=str(tmp_path / "latin.yaml"))


# Secrets -----------------------------------------------------------------------------------------


def test_no_secret_in_any_text_of_the_settings() -> None:
    """Neither `repr` nor `str` nor a dump shows keys or OTLP headers."""
    environment = KEY | {
        "OTEL_ALLOY_PRIVACY_KEY": CANARY,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{CANARY}",
    }
    settings = load(environment)
    assert settings.privacy_key.get_secret_value() == key_of(settings.sources[0]) == CANARY
    for shown in (settings, settings.sources[0], settings.sources):
        assert CANARY not in repr(shown) and CANARY not in str(shown)
    assert CANARY not in settings.model_dump_json(exclude={"environment"})


@pytest.mark.parametrize(
    "values",
    [
        {"api_key": f"{CANARY} with blanks"},
        {"api_key": [CANARY]},
        {"api_key": {"key": CANARY}},
        {"api_key": CANARY, "privacy_key": [CANARY]},
        {"api_key": CANARY, "page_size": CANARY},
        {"api_key": CANARY, "endpoint": CANARY},
        {"api_key": CANARY, "storage": f"redis://me:{CANARY}@x/y"},
        {"api_key": CANARY, "storage": f"postgresql://me:{CANARY}@1@x/y"},
        {"api_key": CANARY, "since": CANARY},
        {"api_key": CANARY, "timeout": CANARY},
        {"api_key": CANARY, "privacy": CANARY},
        {"sources": [CANARY]},
        {"api_key": CANARY, "environment": CANARY},
    ],
)
def test_no_secret_in_any_mistake(values: dict[str, Any]) -> None:
    """A secret in a wrong place, or of a wrong shape, is not repeated, neither by us nor by
    pydantic's own exception, which library users see."""
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"environment": {}} | values)
    assert CANARY not in str(caught.value) and CANARY not in repr(caught.value)
    if "environment" not in values:
        with pytest.raises(ConfigurationError) as ours:
            load_settings(values, {})
        assert CANARY not in str(ours.value) and CANARY not in repr(ours.value)


def test_settings_do_not_change() -> None:
    """A running receiver's settings are fixed."""
    settings = load(KEY)
    with pytest.raises(ValidationError):
        settings.batch_size = 5


def test_a_key_in_a_file(tmp_path: Path) -> None:
    """ALLOY_API_KEY_FILE names it, or `api_key_file` of a source; a source's own wins over what
    holds for all, and a variable over the settings file."""
    file = tmp_path / "key"
    file.write_text("bearer of-the-file\n")
    (source,) = load({"ALLOY_API_KEY_FILE": str(file)}).sources
    assert source.key()() == "of-the-file"
    yaml = f"sources: [{{name: a, api_key_file: {file}}}, {{name: b, api_key: own}}]"
    first, second = load(KEY, yaml, tmp_path).sources
    assert (first.key()(), second.key()()) == ("of-the-file", "own")
    (source,) = load({"ALLOY_API_KEY_FILE": str(file)}, "api_key: low", tmp_path).sources
    assert source.key()() == "of-the-file"


def test_one_key_and_not_two(tmp_path: Path) -> None:
    """Neither, both, and a file that cannot be read are mistakes with a remedy."""
    file = tmp_path / "key"
    file.write_text(CANARY)
    (told,) = mistakes({})
    assert told.startswith("ALLOY_API_KEY: not set") and "ALLOY_API_KEY_FILE" in told
    (told,) = mistakes(KEY | {"ALLOY_API_KEY_FILE": str(file)})
    assert "both are set" in told and "ALLOY_API_KEY_FILE" in told
    (told,) = mistakes({"ALLOY_API_KEY_FILE": str(tmp_path / "nowhere")})
    assert told.startswith("ALLOY_API_KEY_FILE") and "cannot be read" in told
    file.write_text(f"{CANARY} {CANARY}")
    (told,) = mistakes({"ALLOY_API_KEY_FILE": str(file)})
    assert "spaces" in told and CANARY not in told


def test_one_signal_may_be_off() -> None:
    """`none` as the specification says; both off would lose everything, so that is a mistake."""
    settings = load(KEY | {"OTEL_LOGS_EXPORTER": "none"})
    assert settings.otlp.logs.off and not settings.otlp.traces.off
    (told,) = mistakes(KEY | {"OTEL_LOGS_EXPORTER": "none", "OTEL_TRACES_EXPORTER": " none "})
    assert "nothing would be delivered" in told


# Rules -------------------------------------------------------------------------------------------


def test_rules_are_read_from_the_file(tmp_path: Path) -> None:
    """They stand at the top, once for all sources; without any, all is kept. As a library they are
    given in the same words."""
    assert load(KEY).rules.empty
    yaml = """
sources: [{name: a, api_key: x}, {name: b, api_key: y}]
rules:
  - {name: beats, match: {workflow.name: "Heartbeat*"}, drop: true}
  - {match: {outcome: success}, sample: "${env:SHARE:-0.25}"}
"""
    rules = load({}, yaml, tmp_path).rules
    assert [(rule.name, rule.share) for rule in rules.rules] == [("beats", 0), ("rule 2", 0.25)]
    given = [{"name": "beats", "match": {"workflow.name": "Heartbeat*"}, "drop": True}]
    assert Settings(api_key="k", rules=given, environment={}).rules.rules == rules.rules[:1]  # type: ignore[arg-type, call-arg]
    assert load(KEY, "rules:", tmp_path).rules.empty


def test_mistakes_in_rules_name_file_and_rule(tmp_path: Path) -> None:
    """Together with all others, by the file, the rule's name and the field; a rule is given in the
    file only."""
    yaml = """
page_size: none
rules:
  - {name: beats, match: {workflow.nam: "Heartbeat*"}, drop: true}
  - {sample: 2}
"""
    told = mistakes(KEY, yaml, tmp_path)
    path = tmp_path / "otel-alloy.yaml"
    number, field, sample = told
    assert number.startswith(f"page_size in {path}, line 2: ")
    assert field.startswith(
        f"rules.0.match.workflow.nam in {path}, line 4: beats: match: "
        "there is no field 'workflow.nam'; did you mean workflow.name?"
    )
    assert sample.startswith(f"rules.1 in {path}, line 5: rule 2: sample: write the part to keep")
    (refused,) = mistakes(KEY | {"OTEL_ALLOY_RULES": "[]"})
    assert refused == (
        "OTEL_ALLOY_RULES: there is no such setting; `rules` is set in the settings file only"
    )
