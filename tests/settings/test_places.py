"""Whatever is wrong names the place that the wrong value came from, and only that; and what is not
read at all is told, with what was probably meant."""

from __future__ import annotations

import pickle
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_origin

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_alloy.cli.options import NO_OPTION
from otel_alloy.errors import ConfigurationError
from otel_alloy.near import nearest
from otel_alloy.settings.loader import load_settings
from otel_alloy.settings.models import Settings, SourceSettings
from otel_alloy.settings.otlp_section import OTLP_KEYS
from otel_alloy.settings.places import Places
from otel_alloy.settings.variables import ALIASES, KNOWN, path_of

KEY = {"ALLOY_API_KEY": "any"}
OTLP = "OTEL_EXPORTER_OTLP_"
PLACES = ("file", "reference", "file reference", "environment", "flag", "source")
"""Where a value may be, in the order in which they count, the last one first."""


@dataclass(frozen=True)
class Case:
    """A setting, a value that is taken and one that is not, and where it may be written."""

    path: tuple[str, ...]
    good: str
    bad: str
    places: tuple[str, ...]
    variable: str = ""

    def __str__(self) -> str:
        return ".".join(self.path)


_VALUES = {
    "api_key": ("good", "no key"),
    "api_key_file": ("", "/no/such/file"),
    "endpoint": ("https://alloy.example", "nowhere"),
    "storage": ("sqlite:///a.db", "redis://a"),
    "health_endpoint": ("127.0.0.1:1", "here"),
    "audit": ("1h", "soon"),
    "since": ("1h", "yesterday"),
    "hook": ("a:b", "a b"),
    "resource_per": ("user.id", "nonesuch"),
    "destinations_dir": ("/", "/no/such/folder"),
    "main_destination": ("all", "qqqq"),
    "trace_url": ("http://a/{trace_id}", "nowhere"),
    "execution_url": ("http://a/{execution.id}", "nowhere"),
}


def _values(name: str, kind: Any) -> tuple[str, str] | None:
    if name in _VALUES:
        return _VALUES[name]
    if get_origin(kind) is Literal:
        return kind.__args__[0], "qqqq"
    return {int: ("", "many"), float: ("10m", "soon"), bool: ("true", "perhaps")}.get(kind)


def _cases() -> Iterator[Case]:
    of_variable = {path_of(variable): variable for variable in KNOWN}
    for model in (SourceSettings, Settings):
        for name, field in model.model_fields.items():
            values = _values(name, field.annotation)
            if values is None:
                continue  # any text will do, or it has parts
            good, bad = values
            if field.annotation is int:
                good = str(field.default)
            variable = of_variable.get((name,), "")
            places = ["file", "reference", "file reference"]
            places += ["environment"] if variable else []
            places += ["flag"] if name not in NO_OPTION else []
            places += ["source"] if model is SourceSettings else []
            yield Case((name,), good, bad, tuple(places), variable)
    of_file = ("file", "reference", "file reference", "environment")
    for inner, good, bad in (
        ("user.email", "drop", "qqqq"),
        ("user.full_name", "drop", "qqqq"),
        ("error_message", "drop", "qqqq"),
    ):
        yield Case(("privacy", inner), good, bad, of_file, of_variable["privacy", inner])
    yield Case(("webhook", "listen"), "", "here", of_file[:3], of_variable["webhook", "listen"])
    for inner, bad in (("max_bytes", "many"), ("total_bytes", "many"), ("max_age", "soon")):
        yield Case(("outbox", inner), "1000000", bad, of_file[:3])
    for inner in ("https_only", "public_only"):
        yield Case(("destinations_policy", inner), "true", "perhaps", of_file[:3])
    for signal in ((), ("traces",), ("logs",)):
        for key in OTLP_KEYS:
            good, bad = {
                "endpoint": ("http://127.0.0.1:1", "nowhere"),
                "protocol": ("grpc", "qqqq"),
                "headers": ("a=b", "b"),
                "timeout": ("2000", "soon"),
                "compression": ("gzip", "qqqq"),
                "insecure": ("true", "qqqq"),
            }.get(key, ("", "/no/such/file"))
            variable = OTLP + "_".join((*signal, key)).upper()
            yield Case(("otlp", *signal, key), good, bad, of_file, variable)


CASES = {str(case): case for case in _cases()}


def _nested(path: tuple[str, ...], value: object) -> dict[str, Any]:
    return {path[0]: _nested(path[1:], value) if len(path) > 1 else value}


def _lines(path: Path, name: str) -> set[int]:
    """On which lines of the file a setting is."""
    lines = path.read_text().splitlines()
    return {n for n, line in enumerate(lines, 1) if re.match(rf"[- ]*{re.escape(name)}:", line)}


def _load(case: Case, written: Mapping[str, str], folder: Path) -> tuple[list[str], Path]:
    """The mistakes, where a setting has these values at these places, and the file."""
    flags: dict[str, Any] = {}
    environment = {} if case.path[0].startswith("api_key") else dict(KEY)
    document: dict[str, Any] = {"adaptive": True} if case.path != ("adaptive",) else {}
    for place in PLACES:
        value = written.get(place)
        if value is None:
            continue
        if place == "flag":
            flags[case.path[-1]] = value
        elif place == "environment":
            environment[case.variable] = value
        elif place == "source":
            first = {"name": "a", "api_key": "x"}
            document["sources"] = [first, {"name": "b", case.path[-1]: value}]
        else:
            text = value
            if place == "reference":
                environment["HELD"], text = value, "${env:HELD}"
            elif place == "file reference":
                (folder / "held").write_text(value)
                text = f"${{file:{folder / 'held'}}}"
            document |= _nested(case.path, text)
    file = folder / "settings.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    try:
        load_settings(flags, environment, file=str(file))
    except ConfigurationError as error:
        return error.mistakes, file
    return [], file


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=12)
@given(data=st.data())
def test_a_mistake_names_the_place_of_the_value(name: str, data: st.DataObject) -> None:
    """Every setting, at every place that it may have, alone and with values that are taken at
    places that count less: the mistake names that place, and none of the others."""
    case = CASES[name]
    winner = data.draw(st.sampled_from(case.places))
    lower = [place for place in case.places if PLACES.index(place) < PLACES.index(winner)]
    of_file = [place for place in PLACES[:3] if place in lower]
    # The same line of the file cannot be written in three ways.
    chosen = set(
        data.draw(st.sets(st.sampled_from([p for p in lower if p not in of_file] or [""])))
    )
    if of_file and winner not in PLACES[:3]:
        chosen |= data.draw(st.sampled_from([set(), *({one} for one in of_file)]))
    good = {place: case.good for place in chosen - {""} if case.good or place == "file"}
    with tempfile.TemporaryDirectory() as folder:
        told, file = _load(case, {**good, winner: case.bad}, Path(folder))
        assert told, "it is taken"
        words = "\n".join(told)
        expected = {
            "flag": f"--{name.replace('_', '-')}",
            "environment": case.variable,
            "source": rf"sources\.1\.{name} in {file}, line (\d+)",
        }.get(winner, rf"{re.escape(name)} in {file}, line (\d+)")
        named = [found for one in told if (found := re.match(rf"(?:.* )?{expected}(?!\w)", one))]
        assert named, (expected, told)
        if named[0].groups():
            assert int(named[0][1]) in _lines(file, case.path[-1])
        assert ("${env:HELD}" in words) == (winner == "reference")
        assert ("${file:" in words) == (winner == "file reference")
        elsewhere = {
            f"--{name.replace('_', '-')}: " if winner != "flag" else "-",
            f"{case.variable}: " if case.variable and winner != "environment" else "-",
        }
        assert not any(one.startswith(tuple(elsewhere - {"-"})) for one in told), told
        assert len(told) == len(set(told))


@pytest.mark.parametrize("name", CASES)
def test_what_does_not_count_is_no_mistake(name: str, tmp_path: Path) -> None:
    """A value that is not taken, at a place that counts less than another one, is not read."""
    case = CASES[name]
    if not case.good or len(case.places) < 4 or case.path == ("api_key",):
        pytest.skip("nothing counts before the file")
    for place in case.places[3:]:
        if place != "source":
            assert _load(case, {"file": case.bad, place: case.good}, tmp_path)[0] == []


def test_every_setting_is_tried() -> None:
    """What the cases leave out takes any text, or has parts."""
    tried = {case.path[0] for case in CASES.values()}
    left = {*SourceSettings.model_fields, *Settings.model_fields} - tried
    assert left == {
        *("name", "workflow_id", "user_id", "api_version", "privacy_key", "environment"),
        *("sources", "resource", "headers", "rules", "destinations"),
    }


def mistakes(
    tmp_path: Path, text: str = "", environment: Mapping[str, str] = KEY, **flags: Any
) -> list[str]:
    """What is wrong, without the folder's name."""
    file = tmp_path / "s.yaml"
    file.write_text(text)
    try:
        found = load_settings(flags, environment, file=str(file))
    except ConfigurationError as error:
        return [one.replace(f"{tmp_path}/", "") for one in error.mistakes]
    assert found.places.warnings == ()
    return []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "sources:\n- {name: a}\n- name: b\n  api_key: c\n- name: a\n",
            "sources.2.name in s.yaml, line 5: two sources are named 'a'; give each its own `name`",
        ),
        (
            "privacy:\n  user.full_name: hash\n",
            "privacy.user.full_name in s.yaml, line 2: privacy asks for `hash`; set "
            "OTEL_ALLOY_PRIVACY_KEY to a secret key",
        ),
        (
            "batch_size: 5\nresource:\n  a: b\n  team: [1]\n",
            "resource.team in s.yaml, line 4: it has to be text, a number, true or false",
        ),
        (
            "workflow_id: 17\n",
            "workflow_id in s.yaml, line 1: it has to be text; put it into quotes",
        ),
        ("\nprivacy: 5\n", "privacy in s.yaml, line 2: it has to be `name: value` lines"),
        (
            "otlp:\n  endpoint:\n    a: b\n",
            "otlp.endpoint in s.yaml, line 2: it has to be one value",
        ),
        (
            "resource_per: [user.id]\nheaders: {x-a: '{user.id}', X-A: '{user.id}'}\n",
            "headers in s.yaml, line 2: x-a is there twice; leave one of them out",
        ),
        (
            "api_key: ${MY_KEY}\n",
            "api_key in s.yaml, line 1: ${MY_KEY} is a shell's way to refer; write ${env:MY_KEY}",
        ),
        (
            "name: ${env:ALOY_API_KEY}\n",
            "name in s.yaml, line 1 (${env:ALOY_API_KEY}): the environment variable ALOY_API_KEY "
            "is not set; did you mean ALLOY_API_KEY?",
        ),
        (
            "otlp:\n  traces: none\n  logs: none\n",
            "otlp.traces in s.yaml, line 2 and otlp.logs in s.yaml, line 3 are both none, so "
            "nothing would be delivered: set one of them to otlp.",
        ),
        (
            "otlp: {protocol: http}\n",
            "otlp.protocol in s.yaml, line 1 is 'http': did you mean http/protobuf? write "
            "http/protobuf (default) or grpc.",
        ),
        ("environment: {A: b}\n", "environment in s.yaml, line 1: there is no such setting"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, told: str, tmp_path: Path) -> None:
    """Also where only several values together are wrong, or a part of one."""
    assert mistakes(tmp_path, text) == [told]


def test_the_place_of_two_keys_and_of_none(tmp_path: Path) -> None:
    """Two keys are told by both their places; a source without one, by its own."""
    (tmp_path / "key").write_text("k")
    text = f"sources:\n- name: a\n  api_key: x\n  api_key_file: {tmp_path}/key\n- name: b\n"
    two, none = mistakes(tmp_path, text, {})
    assert two == (
        "sources.0.api_key in s.yaml, line 3 and sources.0.api_key_file in s.yaml, line 4: both "
        "are set; leave one of them out"
    )
    assert none == (
        "ALLOY_API_KEY: not set; set it to your Alloy API key, or ALLOY_API_KEY_FILE to a file "
        "that holds it; sources.1 in s.yaml, line 5 has no key of its own"
    )


def test_a_file_that_a_variable_names(tmp_path: Path) -> None:
    """Where the file cannot be read, what named it is to be corrected."""
    with pytest.raises(ConfigurationError, match=r"s\.yaml: cannot be read .*; correct --config"):
        load_settings({}, KEY, file=str(tmp_path / "s.yaml"))
    with pytest.raises(ConfigurationError, match=r"correct OTEL_ALLOY_CONFIG"):
        load_settings({}, KEY | {"OTEL_ALLOY_CONFIG": str(tmp_path / "s.yaml")})


def test_places_are_no_part_of_settings(tmp_path: Path) -> None:
    """Equal settings are equal wherever they were written, and a worker process gets the places,
    too."""
    (tmp_path / "s.yaml").write_text("page_size: 5\n")
    one = load_settings({}, KEY, file=str(tmp_path / "s.yaml"))
    other = load_settings({}, KEY | {"OTEL_ALLOY_PAGE_SIZE": "5"})
    assert one == Settings(api_key="any", page_size=5, environment={})  # type: ignore[call-arg]
    assert one == other.model_copy(update={"environment": {}})
    assert one.places.named("page_size") == f"page_size in {tmp_path}/s.yaml, line 1"
    assert other.places.named("page_size") == "OTEL_ALLOY_PAGE_SIZE"
    assert other.places.named("hook") == "hook"
    copied = pickle.loads(pickle.dumps(one))
    assert copied.places.named("page_size") == one.places.named("page_size")
    assert Places().of(()).name == "settings"


# What was meant -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("colection_interval: 30s", "did you mean collection_interval?"),
        ("batchsize: 5", "did you mean batch_size?"),
        ("page-size: 5", "did you mean page_size?"),
        ("OTEL_ALLOY_PAGE_SIZE: 5", "did you mean page_size?"),
        ("ALLOY_API_KEY: a", "did you mean api_key?"),
        ("apikey: a", "did you mean api_key?"),
        ("destination: {}", "did you mean destinations?"),
        ("oltp: {}", "did you mean otlp?"),
        ("compression: gzip", "it stands below `otlp:`"),
        ("user.email: drop", "it stands below `privacy:`"),
        ("listen: a", "it stands below `webhook:`"),
        ("max_bytes: 5", "it stands below `outbox:`"),
        ("sources: [{batch_size: 5}]", "it stands at the top of the file"),
        ("sources: [{nam: a}]", "did you mean name?"),
        ("sources: [{endpont: a}]", "did you mean endpoint?"),
        ("otlp: {endpiont: a}", "did you mean endpoint?"),
        ("otlp: {trace: none}", "did you mean traces?"),
        ("otlp: {traces: {protcol: grpc}}", "did you mean protocol?"),
        ("privacy: {user.emial: drop}", "did you mean user.email?"),
        ("privacy: {user_mail: drop}", "did you mean user.email?"),
        ("privacy: {user.email: hashed}", "did you mean hash?"),
        ("privacy: {user.email: dorp}", "did you mean drop?"),
        ("webhook: {listn: a}", "did you mean listen?"),
        ("outbox: {maxbytes: 5}", "did you mean max_bytes?"),
        ("destinations_policy: {https: true}", "did you mean https_only?"),
        ("destinations: {a: {mach: {user.id: u}}}", "did you mean match?"),
        ("destinations: {a: {match: {user.ids: u}}}", "did you mean user.id?"),
        ("destinations: {a: {otlp: {endpiont: u}}}", "did you mean endpoint?"),
        ("destinations: {a: {privacy: {user.emial: u}}}", "did you mean user.email?"),
        ("destinations: {a: {rules: [{dropp: true}]}}", "did you mean drop?"),
        ("rules: [{match: {outcom: error}, drop: true}]", "did you mean outcome?"),
        ("rules: [{match: {outcome: sucess}, drop: true}]", "did you mean success?"),
        ("rules: [{smple: 0.1}]", "did you mean sample?"),
        ("enrich: faild", "did you mean failed?"),
        ("log_format: jsn", "did you mean json?"),
        ("main_destination: unmached", "did you mean unmatched?"),
        ("resource_per: user.ids", "did you mean user.id?"),
        ("otlp: {protocol: gprc}", "did you mean grpc?"),
        ("otlp: {compression: gizp}", "did you mean gzip?"),
    ],
)
def test_what_was_meant_in_a_file(text: str, told: str, tmp_path: Path) -> None:
    """Names and choices at every level: the nearest is offered, or where the name belongs."""
    found = [one for one in mistakes(tmp_path, text) if " in s.yaml, line 1" in one]
    assert any(told in one for one in found), found
    assert not any(one.count("did you mean") > 1 for one in found)


@pytest.mark.parametrize("text", ["zzqx: 5", "enrich: zzqx", "sources: [{zzqx: 5}]"])
def test_nothing_is_offered_that_is_far_off(text: str, tmp_path: Path) -> None:
    """A guess that comes near nothing is none."""
    (told,) = mistakes(tmp_path, text)
    assert "did you mean" not in told


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("OTEL_ALLOY_PAGESIZE", "did you mean OTEL_ALLOY_PAGE_SIZE?"),
        ("OTEL_ALLOY_COLECTION_INTERVAL", "did you mean OTEL_ALLOY_COLLECTION_INTERVAL?"),
        ("OTEL_ALLOY_PRIVACY_USER_EMIAL", "did you mean OTEL_ALLOY_PRIVACY_USER_EMAIL?"),
        ("OTEL_ALLOY_API_KEY", "did you mean ALLOY_API_KEY?"),
        ("OTEL_ALLOY_ENDPOINT", "did you mean ALLOY_ENDPOINT? OTEL_EXPORTER_OTLP_ENDPOINT is"),
        ("OTEL_ALLOY_CONFG", "did you mean OTEL_ALLOY_CONFIG?"),
        ("OTEL_ALLOY_HEADERS", "`headers` is set in the settings file only"),
    ],
)
def test_a_variable_that_is_misspelt(variable: str, told: str, tmp_path: Path) -> None:
    """A variable of ours that comes near one is a mistake: what it was to do would not be done."""
    (words,) = mistakes(tmp_path, "", KEY | {variable: "secret-4711"})
    assert words.startswith(f"{variable}: there is no such setting; {told}")
    assert "secret-4711" not in words


def warnings(environment: Mapping[str, str], file: str | None = None) -> list[str]:
    return list(load_settings({}, environment, file=file).places.warnings)


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("OTEL_ALLOY_ZZQX", "there is no such setting"),
        ("OTEL_EXPORTER_OTLP_ENDPONT", "did you mean OTEL_EXPORTER_OTLP_ENDPOINT?"),
        ("OTEL_EXPORTER_OTLP_URL", "did you mean OTEL_EXPORTER_OTLP_ENDPOINT?"),
        ("OTEL_EXPORTER_OTLP_HEADER", "did you mean OTEL_EXPORTER_OTLP_HEADERS?"),
        ("OTEL_EXPORTER_OTLP_API_KEY", "did you mean OTEL_EXPORTER_OTLP_HEADERS?"),
        ("OTEL_EXPORTER_OTLP_TRACE_ENDPOINT", "did you mean OTEL_EXPORTER_OTLP_TRACES_ENDPOINT?"),
        ("OTEL_EXPORTER_OTLP_TRACES_URL", "did you mean OTEL_EXPORTER_OTLP_TRACES_ENDPOINT?"),
        ("OTEL_EXPORTER_OTLP_ZZQX", "behind OTEL_EXPORTER_OTLP_ may stand ENDPOINT, "),
        ("OTEL_EXPORTER_ENDPOINT", "did you mean OTEL_EXPORTER_OTLP_ENDPOINT?"),
        ("OTEL_SERVICENAME", "did you mean OTEL_SERVICE_NAME?"),
        ("OTEL_LOG_EXPORTER", "did you mean OTEL_LOGS_EXPORTER?"),
        ("ALLOY_URL", "did you mean ALLOY_ENDPOINT?"),
        ("RUNALLOY_ENDPOINT", "did you mean ALLOY_ENDPOINT?"),
    ],
)
def test_a_variable_that_nobody_reads_is_warned_of(variable: str, told: str) -> None:
    """By its name, never with its value, and it stops nothing: it may be meant for others."""
    (words,) = warnings(KEY | {variable: "secret-4711"})
    assert words.startswith(f"{variable} is set, and ") and told in words
    assert "secret-4711" not in words
    assert load_settings({}, KEY | {variable: "x"}).warnings == [words]


@pytest.mark.parametrize(
    "variable",
    [
        "ALLOY_APIKEY",
        "ALLOY_API_TOKEN",
        "ALLOY_KEY",
        "ALLOY_TOKEN",
        "RUNALLOY_API_KEY",
        "Alloy_Api_Key",
    ],
)
def test_a_key_under_another_name(variable: str, tmp_path: Path) -> None:
    """Where there is no key, what looks like one is told; where there is one, it is not."""
    told = mistakes(tmp_path, "", {variable: "secret-4711"})
    assert told[0].startswith("ALLOY_API_KEY: not set")
    assert told[1] == f"{variable} is set, and is not read: did you mean ALLOY_API_KEY?"
    assert warnings(KEY | {variable: "x"}) == []


@pytest.mark.parametrize(
    "variable",
    [
        *("OTEL_ALLOY_PROPAGATOR_SAMPLED", "OTEL_ALLOY_TEST_POSTGRES", "OTEL_PROPAGATORS"),
        *("OTEL_ALLOY_SERVICE_HOST", "OTEL_ALLOY_PORT", "OTEL_ALLOY_PORT_8089_TCP_ADDR"),
        *("OTEL_ALLOY_SERVICE_PORT_HTTP", "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"),
        *("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_TRACES_SAMPLER", "OTEL_BSP_MAX_QUEUE_SIZE"),
        *("OTEL_EXPORTER_PROMETHEUS_PORT", "OTEL_METRIC_EXPORT_INTERVAL", "OTEL_LOG_LEVEL"),
        *("ALLOY_DEPLOY_MODE", "ALLOY_VERSION", "OTEL_PYTHON_LOG_LEVEL", "OTEL_CONFIG_FILE"),
    ],
)
def test_what_is_meant_for_others_is_not_warned_of(variable: str) -> None:
    """Variables of our propagator, of the tests, of Kubernetes, of OpenTelemetry and of Grafana's
    Alloy are left alone."""
    assert warnings(KEY | {variable: "http://127.0.0.1:1"}) == []


def test_what_the_file_refers_to_may_be_called_anything(tmp_path: Path) -> None:
    """A variable that the settings file names is read."""
    file = tmp_path / "s.yaml"
    file.write_text(
        "sources: [{name: a, api_key: '${env:ALLOY_TOKEN}'}]\nname: ${env:OTEL_ALLOY_NAM}"
    )
    environment = {"ALLOY_TOKEN": "t", "OTEL_ALLOY_NAM": "b"}
    assert warnings(environment, str(file)) == []


@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=5))
def test_the_nearest_is_one_of_those_there_are(written: str, known: list[str]) -> None:
    """Whatever is written: nothing, or one of the names; a name itself is nearest to itself, but
    for capitals and signs."""
    found = nearest(written, known)
    assert found is None or found in known
    assert all(nearest(name, [name]) == name for name in known)


def test_aliases_have_paths() -> None:
    """The three variables without our beginning are those of their settings."""
    assert {variable: path_of(variable) for variable in ALIASES} == {
        variable: (name,) for variable, name in ALIASES.items()
    }
