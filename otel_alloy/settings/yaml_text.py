"""YAML of people as plain values: dicts, lists, texts, numbers.

PyYAML expands aliases by reference, so that ten lines can stand for gigabytes, or for themselves;
it reads nested brackets in quadratic time, and raises what Python's dates and numbers raise. Here
all of it is counted before it is built, and every mistake names its line, never the text there:
that may be a part of a key.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

MOST_BYTES = 262_144
"""Of the text. PyYAML reads some 100 kB in a second."""
MOST_VALUES = 20_000
"""Values of a file, each counted as often as aliases repeat it."""
DEEPEST = 20
_NUMBERS = ("int", "float")
_MERGE = "tag:yaml.org,2002:merge"


class YamlMistake(ValueError):
    """What is wrong, and where, in words that may be shown."""


def read_yaml(text: str) -> Any:
    """The value of `text`, None for an empty one. Raises YamlMistake."""
    try:
        _check_depth(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        return None if root is None else _Builder().value(root, 1)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at {_place(mark)}" if mark else ""
        words = getattr(error, "problem", None) or "unreadable"
        words = words.partition(" '")[0]  # what it quotes may be a part of a key
        raise YamlMistake(f"is not YAML{place}: {words}") from None


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
        self._values = 0
        self._within: list[yaml.Node] = []
        self._construct = yaml.SafeLoader("")  # for scalars, which need nothing of a text

    def value(self, node: yaml.Node, depth: int) -> Any:
        """What `node` stands for."""
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
        if depth > DEEPEST:
            raise _mistake(node.start_mark, f"is nested more than {DEEPEST} levels deep")
        self._within.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.value(one, depth + 1) for one in node.value]
            return self._mapping(node, depth)
        finally:
            self._within.pop()

    def _mapping(self, node: yaml.Node, depth: int) -> dict[Any, Any]:
        merged: dict[Any, Any] = {}
        own: dict[Any, Any] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                found = self.value(value, depth + 1)
                for part in reversed(found) if isinstance(found, list) else [found]:
                    if not isinstance(part, dict):
                        raise _mistake(value.start_mark, "merges what is no `name: value` lines")
                    merged.update(part)
                continue
            name = self._scalar(key) if isinstance(key, yaml.ScalarNode) else []
            if not isinstance(name, Hashable):
                raise _mistake(key.start_mark, "has a name that is no text")
            own[name] = self.value(value, depth + 1)
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
    return YamlMistake(f"{words} (at {_place(mark)})")


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"
