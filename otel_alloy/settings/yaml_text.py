"""YAML of people as plain values: dicts, lists, texts, numbers.

PyYAML expands aliases by reference, so that ten lines can stand for gigabytes, or for themselves;
it reads nested brackets in quadratic time, takes the last of two values of one name, and raises
what Python's dates and numbers raise. Here all of it is counted before it is built, and every
mistake names its line, never the text there: that may be a part of a key. How the line itself may
be shown is decided in `yaml_words.py`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from otel_alloy.settings.places import Path
from otel_alloy.settings.yaml_words import cause

MOST_BYTES = 262_144
"""Of the text. PyYAML reads some 100 kB in a second."""
MOST_VALUES = 20_000
"""Values of a file, each counted as often as aliases repeat it."""
DEEPEST = 20
_NUMBERS = ("int", "float")
_MERGE = "tag:yaml.org,2002:merge"


class YamlMistake(ValueError):
    """What is wrong, and where, in words that may be shown. `line`, `column`: from 1; 0 where that
    cannot be told."""

    def __init__(self, words: str, line: int = 0, column: int = 0) -> None:
        super().__init__(words, line, column)
        self.words = words
        self.line = line
        self.column = column

    @property
    def place(self) -> str:
        """`line 2, column 8`; empty where it cannot be told."""
        return f"line {self.line}, column {self.column}" if self.line else ""

    def __str__(self) -> str:
        return f"{self.place}: {self.words}" if self.line else self.words


@dataclass(frozen=True, slots=True)
class Document:
    """`value`: of the text, None for an empty one. `lines`: on which line, from 1, each value that
    has a name or a place in a list begins; of an alias, the line of what it stands for. `begins`:
    line and column, from 1, of the value itself; zeros for an empty text."""

    value: Any
    lines: Mapping[Path, int]
    begins: tuple[int, int] = (0, 0)


def read_yaml(text: str) -> Any:
    """The value of `text`, None for an empty one. Raises YamlMistake."""
    return read_document(text).value


def read_document(text: str) -> Document:
    """The same with its lines. Raises YamlMistake."""
    try:
        _check_depth(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            return Document(None, {})
        builder = _Builder()
        begins = (root.start_mark.line + 1, root.start_mark.column + 1)
        return Document(builder.value(root, ()), builder.lines, begins)
    except yaml.YAMLError as error:
        raise YamlMistake(*cause(error, text)) from None


def read_named(text: str) -> Document:
    """The same of a text that has to be `name: value` lines, or empty. Raises YamlMistake."""
    document = read_document(text)
    if document.value is None or isinstance(document.value, dict):
        return document
    words = "it has to be `name: value` lines, with a space behind each colon"
    raise YamlMistake(words, *document.begins)


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                raise _mistake(event.start_mark, f"is nested more than {DEEPEST} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Builder:
    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self._values = 0
        self._within: list[yaml.Node] = []
        self._construct = yaml.SafeLoader("")  # for scalars, which need nothing of a text

    def value(self, node: yaml.Node, path: Path) -> Any:
        """What `node`, which is at `path`, stands for."""
        self._values += 1
        if self._values > MOST_VALUES:
            raise _mistake(
                node.start_mark,
                f"holds more than {MOST_VALUES} values, aliases counted as often as they are used",
            )
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if node in self._within:
            raise _mistake(node.start_mark, "has an alias within what it stands for")
        if len(path) >= DEEPEST:
            raise _mistake(node.start_mark, f"is nested more than {DEEPEST} levels deep")
        self._within.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self._part(one, (*path, at)) for at, one in enumerate(node.value)]
            return self._mapping(node, path)
        finally:
            self._within.pop()

    def _part(self, node: yaml.Node, path: Path) -> Any:
        self.lines[path] = node.start_mark.line + 1
        return self.value(node, path)

    def _mapping(self, node: yaml.Node, path: Path) -> dict[Any, Any]:
        merged: dict[Any, Any] = {}
        own: dict[Any, Any] = {}
        begun: dict[Any, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE:
                found = self.value(value, path)
                for part in reversed(found) if isinstance(found, list) else [found]:
                    if not isinstance(part, dict):
                        raise _mistake(value.start_mark, "merges what is no `name: value` lines")
                    merged.update(part)
                continue
            name = self._scalar(key) if isinstance(key, yaml.ScalarNode) else []
            if not isinstance(name, Hashable):
                raise _mistake(key.start_mark, "has a name that is no text")
            if name in own:
                words = f"has a name that is on line {begun[name]} already; keep one of them"
                raise _mistake(key.start_mark, words)
            own[name] = self.value(value, (*path, str(name)))
            begun[name] = self.lines[*path, str(name)] = line
        return {**merged, **own}

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        try:
            return self._construct.construct_object(node)
        except yaml.YAMLError:
            raise
        except (ValueError, OverflowError, TypeError, LookupError, AttributeError):
            kind = node.tag.rpartition(":")[2]
            what = "date or time" if kind == "timestamp" else "number" if kind in _NUMBERS else kind
            raise _mistake(
                node.start_mark,
                f"has something that looks like a {what} and is none; put it into quotes where a "
                "text is meant",
            ) from None


def _mistake(mark: Any, words: str) -> YamlMistake:
    return YamlMistake(words, mark.line + 1, mark.column + 1)
