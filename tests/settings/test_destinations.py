"""Destinations: what they say, what they inherit and what not, files that come and go, and that
nothing of one reaches another."""

from __future__ import annotations

import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from otel_alloy.errors import ConfigurationError
from otel_alloy.settings.destinations import Destinations, DestinationSettings, check_name
from otel_alloy.settings.destinations_dir import MOST_BYTES, Directory
from otel_alloy.settings.loader import load_settings
from otel_alloy.settings.models import Settings
from otel_alloy.settings.otlp_section import OTLP_KEYS, named
from otel_alloy.settings.references import MOST_FILE_BYTES

CANARY = "canary-2718281828"
KEY = {"ALLOY_API_KEY": "any"}
ACME = """
match: { user.id: u_17 }
otlp: { endpoint: "https://otel.acme.example:4318" }
"""


class Folder:
    """A `destinations_dir` with its secrets beside, whose files are as old as a test wants."""

    def __init__(self, path: Path) -> None:
        self.path = path / "destinations"
        self.secrets = path / "secrets"
        self.now = 1_760_000_000.0
        self.path.mkdir()
        self.secrets.mkdir()

    def write(self, name: str, text: str | bytes = ACME, age: float = 60) -> Path:
        """Puts a file there that changed `age` seconds ago."""
        path = self.path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        os.utime(path, (self.now - age, self.now - age))
        return path

    def settings(self, **more: Any) -> Settings:
        """Settings with this folder."""
        policy = {"secrets_dir": str(self.secrets)}
        given = {"api_key": "k", "destinations_dir": str(self.path), "environment": {}}
        return Settings.model_validate(given | {"destinations_policy": policy} | more)

    def open(self, **more: Any) -> Directory:
        """What watches it."""
        return Directory(self.settings(**more), lambda: self.now)

    def read(self, **more: Any) -> Destinations:
        """What is in it now."""
        return self.open(**more).read()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def load(tmp_path: Path, yaml: str, environment: dict[str, str] | None = None) -> Settings:
    path = tmp_path / "settings.yaml"
    path.write_text(yaml)
    return load_settings({}, KEY | (environment or {}), file=str(path))


def mistakes(tmp_path: Path, yaml: str, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, yaml, environment)
    return caught.value.mistakes


# What a destination says --------------------------------------------------------------------------


def test_the_example_of_the_issue(tmp_path: Path) -> None:
    """A destination with everything: each part arrives where it belongs."""
    secret = tmp_path / "acme"
    secret.write_text(f"Bearer {CANARY}\n")
    settings = load(
        tmp_path,
        f"""
        privacy: {{ user.full_name: drop, error_message: keep }}
        destinations:
          acme:
            match: {{ user.id: "u_17" }}
            otlp:
              endpoint: "https://otel.acme.example:4318"
              headers: {{ authorization: "${{file:{secret}}}" }}
              traces: {{ compression: gzip }}
              logs: none
            privacy: {{ user.email: drop }}
            rules: [ {{ match: {{ outcome: success }}, sample: 0.1 }} ]
            resource: {{ deployment.environment.name: production }}
        """,
    )
    acme = settings.destinations["acme"]
    assert acme.match.words == "user.id is u_17"
    exporters = acme.exporters(settings.network)
    assert not exporters.mistakes and exporters.logs.off
    traces = exporters.traces.settings
    assert traces.endpoint == "https://otel.acme.example:4318/v1/traces"
    assert (traces.headers, traces.compression) == (
        (("authorization", f"Bearer {CANARY}"),),
        "gzip",
    )
    privacy = acme.privacy.over(settings.privacy)
    assert (privacy.user_email, privacy.user_full_name, privacy.error_message) == (
        *("drop", "drop"),
        "keep",
    )
    assert [rule.words for rule in acme.rules.rules] == ["sample 0.1"]
    assert acme.resource == {"deployment.environment.name": "production"}
    assert CANARY not in repr(settings) + str(acme)
    assert pickle.loads(pickle.dumps(settings)) == settings  # a backfill's workers get them so


def test_nothing_of_the_main_destination_reaches_another(tmp_path: Path) -> None:
    """Whatever OTEL_EXPORTER_OTLP_* say for the main destination, in any form, a destination's
    endpoint, headers, files and protocol come from its own section; proxies and trust hold for
    it too."""
    pem = tmp_path / "main.pem"
    shutil.copyfile(_certifi(), pem)
    main = {
        "ENDPOINT": f"https://{CANARY}.example",
        "HEADERS": f"authorization={CANARY}",
        "CERTIFICATE": str(pem),
        "PROTOCOL": "grpc",
        "COMPRESSION": "gzip",
        "TIMEOUT": "1234",
    }
    environment = {
        f"OTEL_EXPORTER_OTLP_{signal}{name}": value
        for name, value in main.items()
        for signal in ("", "TRACES_", "LOGS_")
    }
    environment |= {"OTEL_LOGS_EXPORTER": "none", "HTTPS_PROXY": "http://proxy.example:3128"}
    settings = load(
        tmp_path,
        f'otlp: {{ headers: {{ x-key: "{CANARY}" }} }}\n'
        "destinations:\n  acme:\n    match: { user.id: u }\n"
        "    otlp: { endpoint: 'https://acme.example' }\n",
        environment,
    )
    exporters = settings.destinations["acme"].exporters(settings.network)
    for exporter in exporters.executions:
        one = exporter.settings
        assert not exporter.off and not exporters.metrics
        assert one.endpoint == f"https://acme.example/v1/{exporter.signal}"
        assert (one.headers, one.protocol, one.compression) == ((), "http/protobuf", "none")
        assert (one.certificate, one.timeout) == (None, 10.0)
        assert one.route.proxy is not None and one.route.proxy.place == "http://proxy.example:3128"
        assert CANARY not in repr(vars(one)) + repr(one.secrets)
    assert settings.otlp.traces.settings.headers == (("authorization", CANARY),)


def _certifi() -> str:
    import certifi

    return certifi.where()


def test_mistakes_are_told_together_and_by_their_own_names(tmp_path: Path) -> None:
    """All that is wrong with destinations is told with what is wrong elsewhere, each with its place
    in the file; no variable of the main destination is named."""
    told = mistakes(
        tmp_path,
        f"""
        page_size: 0
        requests_per_minute: 5
        destinations:
          a:
            match: {{ user.name: x }}
            otlp: {{ endpoint: "https://a.example", speed: "{CANARY}" }}
            requests_per_minute: -1
          b: {{ otlp: {{ headers: {{ x: y }} }}, matsch: {{}} }}
          "no name": {{ match: {{ user.id: u }}, otlp: {{ endpoint: "https://a.example" }} }}
          main: {{ match: {{ user.id: u }}, otlp: {{ endpoint: "https://a.example" }} }}
          c:
            match: {{ user.id: u }}
            otlp: {{ endpoint: "https://a.example", traces: none, logs: none }}
            privacy: {{ user.emal: drop }}
        destinations_policy: {{ https: true }}
        outbox: {{ max_bytes: 1 }}
        """,
    )
    words = "\n".join(told)
    for one in (
        "page_size in ",
        "destinations.a.match.user.name in ",
        "destinations.a.otlp.speed in ",
        "destinations.a.requests_per_minute in ",
        "destinations.b.match in ",
        "destinations.b.otlp.endpoint in ",
        "destinations.b.matsch in ",
        "destinations.no name in ",
        "destinations.main in ",
        "destinations.c.otlp in ",
        "destinations.c.privacy.user.emal in ",
        "destinations_policy.https in ",
        "outbox.max_bytes in ",
    ):
        assert one in words
    assert "known are https_only, public_only, secrets_dir" in words
    assert "it is missing; write the URL" in words
    assert CANARY not in words and "OTEL_EXPORTER_OTLP_ENDPOINT" not in words
    told = mistakes(
        tmp_path,
        f"""
        destinations:
          a:
            match: {{ user.id: u }}
            otlp: {{ endpoint: "ftp://a.example", protocol: soap, client_key: {tmp_path}/none }}
            privacy: {{ user.email: hash }}
        """,
    )
    for one in (
        r"otlp\.endpoint in .*, line 5 is not a usable URL",
        r"otlp\.protocol in .*, line 5 is 'soap'",
        r"otlp\.client_key in .*, line 5 is ",
        r"privacy in .*, line 6 asks for `hash`",
    ):
        assert any(re.match(rf"destinations\.a\.{one}", words) for words in told), one
    assert "OTEL_EXPORTER" not in "\n".join(told)


def test_the_main_destination(tmp_path: Path) -> None:
    """With `none` the main OTLP settings do not matter; `none` and `unmatched` need a destination,
    or a folder for them."""
    for word in ("none", "unmatched"):
        assert "main_destination" in mistakes(tmp_path, f"main_destination: {word}")[0]
        load(tmp_path, f"main_destination: {word}\ndestinations_dir: {tmp_path}")
    broken = {"OTEL_EXPORTER_OTLP_PROTOCOL": "soap"}
    dest = "destinations: { a: { match: { user.id: u }, otlp: { endpoint: 'http://a' } } }"
    load(tmp_path, f"main_destination: none\n{dest}", broken)
    assert mistakes(tmp_path, f"main_destination: unmatched\n{dest}", broken)
    # Its own mistake does not bring up those of the main one either.
    told = mistakes(tmp_path, f"main_destination: none\npage_size: 0\n{dest}", broken)
    assert [one for one in told if "OTEL_" in one] == []
    (missing,) = mistakes(tmp_path, "destinations_dir: /no/such/folder")
    assert re.match(r"destinations_dir in .*, line 1: '/no/such/folder' is no folder", missing)


@given(st.sampled_from(OTLP_KEYS), st.sampled_from(["", "TRACES_", "LOGS_"]), st.booleans())
def test_words_name_settings_of_the_destination(key: str, signal: str, value: bool) -> None:
    """A variable of OpenTelemetry in what is told of a destination's endpoint becomes the setting
    that it stands for, with or without a value; other words stay."""
    end = "=grpc" if value else ""
    words = named(f"set OTEL_EXPORTER_OTLP_{signal}{key.upper()}{end}, then wait", "acme.eu")
    inner = f"{signal[:-1].lower()}." if signal else ""
    told = f"destinations.acme.eu.otlp.{inner}{key}" + (": grpc" if value else "")
    assert words == f"set {told}, then wait"


def test_words_in_short_forms_and_of_exporters() -> None:
    """Also the short forms that stand behind a first variable, and how a signal is off."""
    assert named("OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE and _CLIENT_KEY", "a") == (
        "destinations.a.otlp.certificate, destinations.a.otlp.client_certificate and "
        "destinations.a.otlp.client_key"
    )
    assert named("set OTEL_LOGS_EXPORTER=none", "a") == "set destinations.a.otlp.logs: none"
    assert (
        named("OTEL_ALLOY_ENDPOINT and MY_ENDPOINT", "a") == "OTEL_ALLOY_ENDPOINT and MY_ENDPOINT"
    )


# References to files ------------------------------------------------------------------------------


def test_references_to_files(tmp_path: Path) -> None:
    """`${file:…}` stands in any text of the settings file for what the file holds, without its last
    line's end, and is not looked through for more references."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"first\r\n")
    two.write_text("${env:ALLOY_API_KEY} ${file:/etc/hostname}\n\n")
    settings = load(
        tmp_path, f"resource: {{ a: 'x-${{file:{one}}}-${{env:N:-y}}', b: '${{file:{two}}}' }}"
    )
    (source,) = settings.sources
    assert source.resource == {
        "a": "x-first-y",
        "b": "${env:ALLOY_API_KEY} ${file:/etc/hostname}\n",
    }


def test_a_file_that_cannot_be_had(tmp_path: Path) -> None:
    """Each such file is told by its path and why; what a file holds is never told, also not as a
    part of a value that is wrong."""
    large, binary, secret = (tmp_path / name for name in ("large", "binary", "secret"))
    large.write_bytes(b"x" * (MOST_FILE_BYTES + 1))
    binary.write_bytes(b"\xff\xfe" + CANARY.encode())
    secret.write_text(f"{CANARY}\n")
    wrong = [
        ("/no/such/file", "No such file"),
        (str(large), "more than 65536 bytes"),
        (str(binary), "not UTF-8"),
        (str(tmp_path), "a folder"),
        ("", "cannot be read"),
    ]
    yaml = "".join(f"  k{n}: '${{file:{path}}}'\n" for n, (path, _) in enumerate(wrong))
    told = mistakes(tmp_path, f"resource:\n{yaml}")
    assert len(told) == len(wrong)
    for one, (path, why) in zip(told, wrong, strict=True):
        assert f"the file {path}" in one and why in one
    for match in ("outcome", "user.id"):  # found while it is read, and only then what comes later
        told = mistakes(
            tmp_path,
            f"""
            destinations:
              a:
                match: {{ {match}: "${{file:{secret}}}" }}
                otlp: {{ endpoint: "${{file:{secret}}}", protocol: "x-${{file:{secret}}}" }}
            """,
        )
        assert told and CANARY not in "\n".join(told)
    assert f"is 'x-${{file:{secret}}}'" in "\n".join(told)
    folder = Folder(tmp_path)
    (folder.secrets / "acme").write_text(CANARY)
    folder.write("acme.yaml", ACME.replace('4318"', f'${{file:{folder.secrets}/acme}}"'))
    why = folder.read().disabled["acme"]
    assert "is not a usable URL" in why and CANARY not in why


# A folder of them ---------------------------------------------------------------------------------

BROKEN: list[tuple[str, str | bytes, str]] = [
    ("yaml.yaml", "match: {\n", "line 2, column 1: it is not YAML"),
    (
        "keys.yaml",
        ACME + "matsch: 1\n",
        "matsch, line 4: there is no such setting; did you mean match?",
    ),
    ("match.yaml", "otlp: {endpoint: 'https://a'}", "match: it is missing"),
    (
        "everything.yaml",
        "match: {}\notlp: {endpoint: 'https://a'}",
        "match, line 1: it matches nothing",
    ),
    ("rules.yaml", ACME + "rules: [{drop: 1}]", "rules.0, line 4: rule 1: drop: write"),
    ("endpoint.yaml", "match: {user.id: u}\notlp: {}", "otlp.endpoint, line 2: it is missing"),
    (
        "url.yaml",
        "match: {user.id: u}\notlp: {endpoint: x}",
        "otlp.endpoint, line 2 is not a usable",
    ),
    ("list.yaml", "\n- match", "line 2, column 1: it has to be `name: value` lines"),
    ("empty.yaml", "", "it is empty; write `name: value` lines"),
    ("bytes.yaml", b"\xff\xfe\x00", "is not UTF-8"),
    ("large.yaml", "#" * (MOST_BYTES + 1), "more than 65536 bytes"),
    ("bad name.yaml", ACME, "name a destination with"),
    ("main.yaml", ACME, "choose another name"),
    ("hash.yaml", ACME + "privacy: {user.email: hash}", "OTEL_ALLOY_PRIVACY_KEY"),
    ("inline.yaml", ACME, "the settings have a destination of this name"),
    ("env.yml", ACME + "resource: {a: '${env:ALLOY_API_KEY}'}", "the environment may not be"),
    ("file.yaml", ACME + "resource: {a: '${file:/etc/hostname}'}", "may not be named here"),
]


def test_a_file_that_is_wrong_disables_its_destination_only(folder: Folder) -> None:
    """Whatever is wrong with a file disables that destination, with the file's name and what to do;
    all others are as they are. Hidden files and files of other kinds are none."""
    for name, text, _ in BROKEN:
        folder.write(name, text)
    for name in ("acme.yaml", "b.c-d_e.yml"):
        folder.write(name)
    for name in (".hidden.yaml", "readme.txt", "acme.yaml~"):
        folder.write(name, "no destination")
    (folder.path / "folder.yaml").mkdir()
    inline = {"match": {"user.id": "i"}, "otlp": {"endpoint": "https://inline.example"}}
    found = folder.read(destinations={"inline": inline})
    assert set(found.usable) == {"acme", "b.c-d_e", "inline"}
    assert found.usable["inline"].otlp["OTEL_EXPORTER_OTLP_ENDPOINT"] == "https://inline.example"
    assert "it is a folder" in found.disabled["folder"]
    for name, _, words in BROKEN:
        why = found.disabled[Path(name).stem]
        assert why.startswith(f"{folder.path / name}: ") and words in why
    assert len(found.disabled) == len(BROKEN) + 1


def test_two_files_about_one_destination(folder: Folder) -> None:
    """`a.yaml` and `a.yml` contradict each other: neither counts, until one is gone."""
    folder.write("a.yaml")
    other = folder.write("a.yml")
    directory = folder.open()
    assert "both a.yaml and a.yml" in directory.read().disabled["a"]
    other.unlink()
    assert directory.changed() and set(directory.read().usable) == {"a"}


def test_only_what_changed_is_read(folder: Folder) -> None:
    """A look finds what came, went and changed, and nothing else; reading takes up that alone and
    keeps the values of the rest."""
    directory = folder.open()
    assert not directory.read().usable and not directory.changed()
    folder.write("a.yaml")
    b = folder.write("b.yaml")
    assert directory.changed()
    first = directory.read()
    assert set(first.usable) == {"a", "b"} and not directory.changed()
    folder.write("a.yaml", ACME.replace("u_17", "u_18"), age=30)
    b.unlink()
    folder.write("c.yaml", "broken: [")
    assert directory.changed()
    second = directory.read()
    assert set(second.usable) == {"a"} and set(second.disabled) == {"c"}
    assert second.usable["a"].match.words == "user.id is u_18"
    assert first.usable["a"].match.words == "user.id is u_17"  # a snapshot does not change
    folder.write("c.yaml")
    assert directory.changed()
    third = directory.read()
    assert third.usable["a"] is second.usable["a"] and "c" in third.usable


def test_a_secret_that_is_exchanged_is_taken_up(folder: Folder) -> None:
    """What a file refers to counts as a part of it: a secret that comes or changes is a change. The
    paths of a Kubernetes volume, where all files are links to links, work."""
    data = folder.secrets / "..2026_01"
    data.mkdir()
    (folder.secrets / "..data").symlink_to(data.name)
    (folder.secrets / "acme").symlink_to("..data/acme")
    secret = folder.secrets / "acme"
    folder.write("real.yaml", ACME)
    text = ACME.replace('4318"', f'4318", headers: {{ k: "${{file:{secret}}}" }}')
    target = folder.write("..v1", text)
    (folder.path / "acme.yaml").symlink_to(target.name)
    directory = folder.open()
    found = directory.read()
    assert set(found.usable) == {"real"} and str(secret) in found.disabled["acme"]
    assert not directory.changed()
    for value in ("one", "two!"):
        (data / "acme").write_text(value)
        assert directory.changed()
        acme = directory.read().usable["acme"]
        (header,) = acme.exporters(folder.settings().network).traces.settings.headers
        assert header == ("k", value)
        assert not directory.changed()


@pytest.mark.parametrize(
    "path",
    [
        "{secrets}/globex",
        "{secrets}/acme.key",
        "{secrets}/acme/../globex",
        "{secrets}/acme/out",
        "{secrets}/../destinations/acme.yaml",
        "/etc/hostname",
        "",
        "{secrets}",
    ],
)
def test_no_file_reaches_the_secrets_of_another(folder: Folder, path: str) -> None:
    """What a customer may have written refers to that customer's secrets alone, in values and as
    certificates, whatever detour a path takes; the refusal tells nothing of the file."""
    (folder.secrets / "globex").write_text(CANARY)
    (folder.secrets / "acme.key").write_text(CANARY)
    (folder.secrets / "acme").mkdir()
    (folder.secrets / "acme" / "own").write_text("mine")
    outside = folder.path.parent / "outside"
    outside.write_text(CANARY)
    (folder.secrets / "acme" / "out").symlink_to(outside)
    path = path.format(secrets=folder.secrets)
    for keys in (f'headers: {{ k: "${{file:{path}}}" }}', f'certificate: "{path or "/x"}"'):
        folder.write("acme.yaml", ACME.replace('4318"', f'4318", {keys}'))
        why = folder.read().disabled["acme"]
        assert "may not be named here" in why and CANARY not in why
    own = folder.secrets / "acme" / "own"
    folder.write("acme.yaml", ACME.replace('4318"', f'4318", headers: {{ k: "${{file:{own}}}" }}'))
    assert set(folder.read().usable) == {"acme"}
    assert "secrets_dir" in folder.read(destinations_policy={}).disabled["acme"]


def test_a_half_written_file_changes_nothing(folder: Folder) -> None:
    """A file that changed within the last two seconds and cannot be used may be still being
    written: what it said before holds on, and it is read again even if it looks the same. Later it
    is a mistake."""
    folder.write("acme.yaml")
    directory = folder.open()
    before = directory.read().usable["acme"]
    folder.write("acme.yaml", ACME[: len(ACME) // 2], age=0.5)
    folder.write("new.yaml", ACME[: len(ACME) // 2], age=0.5)
    assert directory.changed()
    found = directory.read()
    assert found.usable == {"acme": before} and set(found.disabled) == {"new"}
    assert directory.changed()
    folder.now += 5
    assert directory.changed()
    assert set(directory.read().disabled) == {"acme", "new"}
    assert not directory.changed()


def test_a_folder_that_is_gone_for_a_moment(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the folder cannot be read, what it held stays, and that is said once, loudly, until it
    is back."""
    folder.write("acme.yaml")
    directory = folder.open()
    before = directory.read()
    away = folder.path.with_name("away")
    folder.path.rename(away)
    for _ in range(3):
        assert not directory.changed()
        assert directory.read() == before
    assert directory.problem.startswith(f"{folder.path} cannot be read (No such file")
    assert [r.levelname for r in caplog.records] == ["ERROR"]
    away.rename(folder.path)
    folder.write("more.yaml")
    assert directory.changed() and set(directory.read().usable) == {"acme", "more"}
    assert not directory.problem and caplog.records[-1].levelname == "WARNING"


@given(text=st.text(max_size=200) | st.binary(max_size=200), name=st.text(max_size=120))
def test_no_file_whatsoever_is_an_exception(
    tmp_path_factory: pytest.TempPathFactory, text: str | bytes, name: str
) -> None:
    """Any content under any name ends as a destination or as a reason, and the name is one that can
    be given."""
    folder = Folder(tmp_path_factory.mktemp("any"))
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    try:
        (folder.path / f"{name}.yaml").write_bytes(content)
    except (OSError, ValueError):  # no name for a file
        return
    found = folder.read()
    for one in found.usable:
        assert check_name(one) == one
    assert len(found.usable) + len(found.disabled) <= 1


def _wrong(**changes: Any) -> Callable[[], DestinationSettings]:
    good = {"match": {"user.id": "u"}, "otlp": {"endpoint": "https://a.example"}}
    return lambda: DestinationSettings.model_validate(good | changes)


def test_a_refused_value_is_in_no_error() -> None:
    """Neither the header nor the resource of a destination stands in an error of pydantic's."""
    for wrong in (
        _wrong(otlp={"endpoint": "https://a", "headers": {"k": CANARY}, "no": 1}),
        _wrong(resource={"a": [CANARY]}, otlp={"headers": CANARY}),
        _wrong(requests_per_minute=CANARY),
    ):
        with pytest.raises(ValidationError) as caught:
            wrong()
        assert CANARY not in str(caught.value)
