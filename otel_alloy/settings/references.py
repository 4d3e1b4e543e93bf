"""`${env:NAME}`, `${env:NAME:-default}` and `${file:/path}` in the text values of a settings file.

What they stand for is not looked through for more of them. What a file holds may be a secret: it
stands in no mistake, also where somebody else finds fault with a value that it is a part of
(`Resolved.hide`). Who may refer to what is decided by who reads the settings file; `beneath` is the
rule for files that are written from what others say.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from otel_alloy.bounded_file import read_bounded
from otel_alloy.near import did_you_mean
from otel_alloy.settings.places import Path

MOST_FILE_BYTES = 65_536
"""Of one file that is referred to."""
_MOST_EXPANDED = 1_048_576
_REFERENCE = re.compile(
    r"\$\{(?:env:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?|file:(?P<path>[^}]*))\}"
)
_SHELL = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]{0,99})\}")
_SHORTEST_HIDDEN = 4

Refuses = Callable[[str], str | None]
"""Why a file of this name may not be referred to; None where it may."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """`value`: without references. `mistakes`: where, and in words that may be shown. `files`: all
    that were referred to. `found`: the references by where they are, without defaults; `variables`:
    those of the environment that they name."""

    value: Any
    mistakes: list[tuple[Path, str]] = field(default_factory=list)
    files: dict[str, None] = field(default_factory=dict)
    found: dict[Path, dict[str, None]] = field(default_factory=dict)
    variables: set[str] = field(default_factory=set)
    _contents: dict[str, str] = field(default_factory=dict, repr=False)

    def hide(self, words: str, known: Collection[str] = ()) -> str:
        """The words, with the reference in place of what a file holds. `known`: words that anybody
        may use."""
        for content in sorted(self._contents.keys() - set(known), key=len, reverse=True):
            words = words.replace(content, self._contents[content])
        return words


def resolve(
    value: Any, environment: Mapping[str, str] | None, refuses: Refuses | None = None
) -> Resolved:
    """The value with what its references stand for. `environment`: None where none may be named."""
    mistakes: list[tuple[Path, str]] = []
    files: dict[str, None] = {}
    contents: dict[str, str] = {}
    references: dict[Path, dict[str, None]] = {}
    variables: set[str] = set()
    characters = 0
    here: Path = ()

    def mistake(words: str) -> None:
        mistakes.append((here, words))

    def look_up(match: re.Match[str]) -> str:
        nonlocal characters
        is_file = match[0].startswith("${file:")
        shown = (
            f"${{file:{match['path'].strip()[:200]}}}" if is_file else f"${{env:{match['name']}}}"
        )
        references.setdefault(here, {})[shown] = None
        found = _of_file(match["path"]) if is_file else _of_environment(match)
        characters += len(found)
        return found if characters <= _MOST_EXPANDED else ""

    def _of_environment(match: re.Match[str]) -> str:
        if environment is None:
            mistake(f"{match[0][:100]}: the environment may not be named here; write it")
            return "unset"
        variables.add(match["name"])
        default: str | None = match["default"]
        found = environment.get(match["name"], default)
        if found is None:
            name = match["name"]
            meant = did_you_mean(name, environment)
            mistake(f"the environment variable {name} is not set; {meant or 'set it'}")
        return "unset" if found is None else found

    def _of_file(path: str) -> str:
        path = path.strip()
        why = refuses(path) if refuses else None
        if why is not None:
            mistake(f"${{file:{path[:200]}}} {why}")
            return "unset"
        files[path] = None
        try:
            found = _text(path)
        except ValueError as error:
            mistake(
                f"the file {path[:200]} cannot be read ({error}); name one that this process may "
                "read"
            )
            return "unset"
        for part in (found, *found.split(), repr(found)[1:-1]):
            if len(part) >= _SHORTEST_HIDDEN:
                contents[part] = f"${{file:{path}}}"
        return found

    def walk(value: Any, path: Path) -> Any:
        nonlocal here
        if isinstance(value, dict):
            return {str(k): walk(v, (*path, str(k))) for k, v in value.items()}
        if isinstance(value, list):
            return [walk(v, (*path, at)) for at, v in enumerate(value)]
        if not isinstance(value, str):
            return value
        here = path
        for name in dict.fromkeys(_SHELL.findall(value)):
            mistake(f"${{{name}}} is a shell's way to refer; write ${{env:{name}}}")
        return _REFERENCE.sub(look_up, value)

    found = walk(value, ())
    if characters > _MOST_EXPANDED:
        words = f"its references stand for more than {_MOST_EXPANDED} characters; use fewer"
        mistakes.append(((), words))
    return Resolved(found, mistakes, files, references, variables, contents)


def _text(path: str) -> str:
    """What a file holds, without the line's end that editors write. Raises ValueError with why it
    cannot be had."""
    try:
        found = read_bounded(path, MOST_FILE_BYTES).decode()
    except OSError as error:
        raise ValueError(error.strerror or type(error).__name__) from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    except ValueError:
        raise ValueError("it can be no file name") from None
    return found.removesuffix("\n").removesuffix("\r")


def beneath(folder: str | None, name: str) -> Refuses:
    """What a file about `name` may refer to, which somebody may have written who must not see the
    secrets of others: `folder`/`name`, and what lies below that, symbolic links being followed
    within the folder only."""

    def refuses(path: str) -> str | None:
        if not folder:
            return (
                "may not be named here: set destinations_policy.secrets_dir to the folder whose "
                "files may be"
            )
        own = os.path.join(os.path.abspath(folder), name)
        written = os.path.abspath(path) if path else ""
        real = os.path.realpath(folder)
        try:
            inside = os.path.realpath(path).startswith(real.rstrip(os.sep) + os.sep)
        except ValueError:  # a NUL
            inside = False
        belongs = written == own or written.startswith(own + os.sep)
        if not inside or not belongs or ".." in path.split(os.sep):
            return f"may not be named here: only {own}, and what lies below it"
        return None

    return refuses
