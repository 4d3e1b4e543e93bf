"""YAML of people: any text is plain values or one mistake with its line, in bounded time."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_alloy.errors import ConfigurationError
from otel_alloy.settings.loader import load_settings
from otel_alloy.settings.yaml_text import YamlMistake, read_yaml

BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)

ODD = {
    "no such day": ("name: a\nsince: 2025-13-45\n", "line 2, column 8", "looks like a date"),
    "no such hour": ("a: 2025-01-01 99:00:00", "line 1, column 4", "looks like a date"),
    "within a list": ("a:\n  - b\n  - 0000-00-00\n", "line 3, column 5", "looks like a date"),
    "as a name": ("2025-02-30: a", "line 1, column 1", "looks like a date"),
    "a number of 5000 digits": (f"a: {'9' * 5000}", "line 1, column 4", "looks like a number"),
    "no number": ("a: 0b_", "line 1, column 4", "looks like a number"),
    "a tag": ("a: !!int x", "line 1, column 4", "looks like a number"),
    "a truth": ("a: !!bool x", "line 1, column 4", "looks like a bool"),
    "another tag": ("a: !!python/object:os.system x", "line 1, column 4", "not YAML"),
    "own alias in a list": ("a: &a [1, *a]", "line 1, column 4", "alias within what it stands"),
    "own alias in a map": ("a: &a\n  b: *a\n", "line 1, column 4", "alias within what it stands"),
    "own alias merged": ("a: &a\n  <<: *a\n", "line 1, column 4", "alias within what it stands"),
    "alias bomb": (BOMB, "line 1", "more than 20000 values"),
    "bomb of merges": (
        "a: &a {b: 1}\nc: {<<: [" + "*a, " * 30_000 + "]}",
        "line 1",
        "more than 20000 values",
    ),
    "deep": ("a: " + "[" * 50_000, "line 1, column 23", "more than 20 levels"),
    "deep maps": ("a: " + "{b: " * 50_000, "line 1, column 80", "more than 20 levels"),
    "deep lines": ("".join(" " * n + "a:\n" for n in range(300)), "line 21", "more than 20 levels"),
    "a map as a name": ("? {a: b}\n: c\n", "line 1, column 3", "a name that is no text"),
    "a set as a name": ("? !!set b\n: c\n", "line 1, column 3", "a name that is no text"),
    "merge of a number": ("<<: 5", "line 1, column 5", "merges what is no"),
    "no alias": ("a: *b", "line 1, column 4", "undefined alias"),
    "two documents": ("a: 1\n---\nb: 2\n", "line 2", "not YAML"),
}


@pytest.mark.parametrize("name", ODD)
def test_one_clear_mistake_with_its_line(name: str, tmp_path: Path) -> None:
    """Each is one mistake with its place, at once; `load_settings` names the file."""
    text, place, words = ODD[name]
    begun = time.process_time()
    with pytest.raises(YamlMistake) as caught:
        read_yaml(text)
    assert place in str(caught.value) and words in str(caught.value), str(caught.value)
    assert len(str(caught.value)) < 200
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        load_settings({}, {"ALLOY_API_KEY": "key"}, file=str(path))
    assert [m for m in refused.value.mistakes if str(path) in m] == [f"{path}: {caught.value}"]
    assert time.process_time() - begun < 20, "what grows exponentially would take minutes"


def test_a_mistake_shows_nothing_of_the_text() -> None:
    """What stands at the place may be a part of a key."""
    for text in ("api_key: 2025-13-45", "api_key: *secret", "api_key: &secret [*secret]"):
        with pytest.raises(YamlMistake) as caught:
            read_yaml(text)
        assert "secret" not in str(caught.value) and "13-45" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing",
        "a: 1",
        "- 1\n- x\n- null\n- 1.5\n- true\n- 2025-04-29\n- 2025-04-29 17:44:10Z\n",
        "base: &base {a: 1, b: 2}\nx: {<<: *base, b: 3}\ny: {b: 4, <<: [*base, {c: 5}]}\n",
        "a: &a [1, 2]\nb: *a\nc: [*a, *a]\n",
        "a: {b: {c: [{d: e}]}}",
        "a: 'x'\nb: |\n  text\n",
        "12: 0x1F",
    ],
)
def test_the_usual_is_what_yaml_says(text: str) -> None:
    """Aliases, merges and all scalars are what PyYAML makes of them."""
    assert read_yaml(text) == yaml.safe_load(text)


PIECES = st.lists(
    st.sampled_from(
        [
            *("a", "b: ", "- ", "\n", "  ", "[", "]", "{", "}", ", ", "&x ", "*x", "<<: ", "? "),
            *("2025-13-45", "0x", "1_0", ".inf", "~", "!!int ", "!!set ", "!!binary ", "'", '"'),
            *("%", "---\n", "|\n", "\ufeff", "\x00", "\ud800", "é", "9" * 30, "#", "\t"),
            *("!!omap ", "!!pairs ", "!!null ", "!!float ", "!!timestamp ", "1:60:99", "0o9"),
        ]
    ),
    max_size=25,
).map("".join)


@settings(deadline=None, max_examples=500)
@given(PIECES | st.text(max_size=40))
def test_reading_yaml_is_total(text: str) -> None:
    """Any text is values or a YamlMistake, and nothing else is raised."""
    try:
        read_yaml(text)
    except YamlMistake as error:
        assert len(str(error)) < 300


def load(path: Path, **environment: str) -> Any:
    return load_settings({}, {"ALLOY_API_KEY": "key", **environment}, file=str(path))


def test_files_that_are_none(tmp_path: Path) -> None:
    """A folder, a device, a pipe, a gigabyte, other bytes: one mistake each."""
    big = tmp_path / "big.yaml"
    with big.open("wb") as file:
        file.truncate(2**30)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"name: \xe9")
    for path, words in (
        (tmp_path, "a folder"),
        (Path("/dev/zero"), "a device"),
        (big, "more than 262144 bytes"),
        (latin, "not UTF-8"),
    ):
        with pytest.raises(ConfigurationError, match=words) as caught:
            load(path)
        assert len(caught.value.mistakes) == 1


def test_a_mark_before_the_text(tmp_path: Path) -> None:
    """The byte order mark that Windows' editors write is no part of the first name."""
    path = tmp_path / "settings.yaml"
    path.write_bytes(b"\xef\xbb\xbfpage_size: 7\n")
    assert load(path).sources[0].page_size == 7


def test_variables_do_not_multiply(tmp_path: Path) -> None:
    """A long variable that a file repeats is no gigabyte."""
    path = tmp_path / "settings.yaml"
    path.write_text("name: '" + "${env:LONG}" * 20_000 + "'\n")
    with pytest.raises(ConfigurationError, match="more than 1048576 characters"):
        load(path, LONG="x" * 100_000)


@pytest.mark.parametrize(
    "variable",
    ["ALLOY_API_KEY", "OTEL_ALLOY_WORKFLOW_ID", "OTEL_SERVICE_NAME", "HTTPS_PROXY", "NO_PROXY"],
)
def test_variables_that_are_no_text(variable: str) -> None:
    """Bytes that are not UTF-8 are a mistake that names the variable, not a traceback later."""
    with pytest.raises(ConfigurationError, match=f"{variable}: holds bytes that are not UTF-8"):
        load_settings({}, {"ALLOY_API_KEY": "key", variable: "a\udcff"})
    load_settings({}, {"ALLOY_API_KEY": "key", "LS_COLORS": "a\udcff"})


@settings(deadline=None, max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                *("COLLECTION_INTERVAL", "OVERLAP", "PAGE_SIZE", "TIMEOUT", "STORAGE", "NAME"),
                *("REQUESTS_PER_MINUTE", "SINCE", "HOOK", "HEALTH_ENDPOINT", "INCOMPLETE_AFTER"),
            ]
        ).map("OTEL_ALLOY_{}".format)
        | st.sampled_from(
            [
                *("ALLOY_ENDPOINT", "ALLOY_API_KEY", "OTEL_EXPORTER_OTLP_HEADERS", "NO_PROXY"),
                *("OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_ENDPOINT", "HTTPS_PROXY"),
                *("OTEL_RESOURCE_ATTRIBUTES", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT"),
            ]
        ),
        st.text(st.characters(exclude_characters="\0"), max_size=20)
        | st.sampled_from(
            [
                *("1e400", "nan", "9" * 5000, "-1", "0x10", "٣٠s", "1h" * 60, "9" * 40 + "d"),
                *("2025-13-45", "99999-01-01", "http://[", "http://a:99999", "//", "%", "=,=,"),
                *("10.0.0.0/99", "1::/200", "[::", "0" * 300, "http://\u0660", "²", "inf"),
            ]
        ),
        max_size=4,
    )
)
def test_reading_the_environment_is_total(environment: dict[str, str]) -> None:
    """Any values of the variables are settings or a ConfigurationError."""
    try:
        load_settings({}, {"ALLOY_API_KEY": "key", **environment})
    except ConfigurationError as error:
        assert error.mistakes
