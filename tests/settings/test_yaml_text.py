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
from otel_alloy.settings.yaml_text import YamlMistake, read_document, read_yaml
from otel_alloy.settings.yaml_words import shown_line

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
    "another tag": ("a: !!python/object:os.system x", "line 1, column 4", "is a tag"),
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
    "two documents": ("a: 1\n---\nb: 2\n", "line 2", "a second document begins here"),
    "a name twice": ("a: 1\nb: 2\na: 3\n", "line 3, column 1", "a name that is on line 1 already"),
    "a tab": ("a:\n\tb: 1\n", "line 2, column 1", "indent with spaces"),
    "a tab behind a colon": ("a:\n  b:\t- 1\n", "line 2, column", "it is not YAML"),
    "no colon": ("a: 1\nb 2\nc: 3\n", "line 2, column 1", "there is no colon in this line"),
    "no colon at first": ("a 1\nb: 2\n", "line 1, column 1", "there is no colon in this line"),
    "no space behind the colon": ("a:1\nb: 2\n", "line 1, column 1", "a space behind the colon"),
    "a second colon": ("a: b: c\n", "line 1, column 5", "a second colon in this line"),
    "a quote": ('a: 1\nb: "c\nd: e\n', "line 2, column 4", "a quote begins here"),
    "quotes within quotes": ("a: 'it's'\n", "line 1, column 8", "a quote within quotes"),
    "an escape": ('a: "C:\\Users"\n', "line 1, column 9", "use single quotes"),
    "a sign at first": ("a: @b\n", "line 1, column 4", "put the text into quotes"),
    "a percent sign": ("a: %b\n", "line 1, column 4", "put the text into quotes"),
    "a pattern": ("a: {b: *c}\n", "line 1, column 8", "put it into quotes"),
    "a brace": ("a: {b: c\nd: e\n", "line 1, column 4", "a { begins here"),
    "a bracket": ("a: [b, c\nd: e\n", "line 1, column 4", "a [ begins here"),
    "a bracket that is all": (
        "a: [",
        "line 1, column 5",
        "a { or [ before this place does not end",
    ),
    "a brace too many": ("a: }", "line 1, column 4", "a character stands here that nobody needs"),
    "too deep": ("a:\n  b: 1\n   c: 2\n", "line 3, column 4", "names of one level begin in one"),
    "not as deep": ("a:\n  - b\n c: d\n", "line 3, column 2", "names of one level begin in one"),
    "a control character": ("a: 1\nb: \x01\n", "line 2, column 4", "a control character"),
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
    (told,) = (m for m in refused.value.mistakes if str(path) in m)
    first, *shown = told.splitlines()
    assert first == f"{path}, {caught.value.place}: {caught.value.words}"
    number, caret = shown
    assert number.startswith(f"{caught.value.line:>5} | ") and len(number) < 120
    assert caret.rstrip("^").strip() == "|" and caret.endswith("^")
    assert len(caret) <= max(len(number), len("      | ")) + 1
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


def test_lines_of_values() -> None:
    """Each value that has a name or a place in a list has the line where that begins; one that is
    merged in, the line of what is repeated."""
    text = "a: 1\n\nb: &b\n  c: [2,\n     3]\nd:\n  - {e: 4}\n  -\n   <<: *b\n   f: 5\n"
    document = read_document(text)
    assert document.value["d"][1] == {"c": [2, 3], "f": 5}
    assert dict(document.lines) == {
        **{("a",): 1, ("b",): 3, ("b", "c"): 4, ("b", "c", 0): 4, ("b", "c", 1): 5},
        **{("d",): 6, ("d", 0): 7, ("d", 0, "e"): 7, ("d", 1): 9, ("d", 1, "f"): 10},
        **{("d", 1, "c"): 4, ("d", 1, "c", 0): 4, ("d", 1, "c", 1): 5},
    }


KNOWN = {"api_key", "endpoint", "headers", "name", "page_size", "otlp", "sources", "protocol"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sources:\n\t- name: hunter2x\n", "→- name: …"),
        ("pagesize: 5: 6\n", "pagesize: 5: 6"),
        ("api_key hunter2x\nname: a\n", "api_key …"),
        ("api_key:hunter2x\nname: a\n", "api_key:…"),
        ('api_key: "hunter2x\nname: a\n', "api_key: …"),
        ("name: hunter2x: b\n", "name: …: …"),
        ("otlp: {endpoint: hunter2x, headers: {k: hunter2x\n", "otlp: {endpoint: …, headers: …"),
        ("otlp:\n  headers:\n    k: hunter2x: 17\n", "    …"),
        ("otlp:\n  headers:\n    - a\n    protocol: hunter2x", "    protocol…"),
        ("hunter2x: 123456: 7\n", "…: …: …"),
    ],
)
def test_of_a_line_only_what_is_no_secret_is_shown(text: str, shown: str) -> None:
    """Names of settings, misspelt ones too, and numbers behind them; of a name that promises a
    secret nothing that follows or lies below."""
    with pytest.raises(YamlMistake) as caught:
        read_yaml(text)
    line, caret = shown_line(text.splitlines(), caught.value.line, caught.value.column, KNOWN)
    assert line.partition(" | ")[2] == shown.rstrip()
    assert len(caret) <= len(line) + 1


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


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.sampled_from(
            [
                *("api_key: ", "  headers:\n", "name: ", "otlp: {", "- ", "\n", "  ", "\t", ": "),
                *("kanarie4711", "kanarie 4711", "'kanarie", '"', "}", "[", "kanarie: ", "17"),
            ]
        ),
        max_size=12,
    ).map("".join),
    st.integers(0, 12),
    st.integers(0, 60),
)
def test_a_shown_line_is_discreet_wherever_it_is(text: str, line: int, column: int) -> None:
    """Whatever a file looks like, and wherever the place is: no word that is not known is shown,
    and the caret stands below the line."""
    shown = shown_line(text.splitlines(), line, column, KNOWN)
    assert "kanarie" not in "".join(shown) and "4711" not in "".join(shown)
    assert not shown or len(shown) == 2


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
