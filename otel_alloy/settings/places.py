"""Where a value was written: which flag, which variable, which line of which file. Whoever finds
fault with a value, or shows it, names that place, and no other one that it might have come from.

Places are gathered by `loader.py`; here is how they are asked for, and how they are named. Nothing
here knows which settings there are, and no place holds a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Path = tuple[str | int, ...]
"""Where a value is in the settings: names and places in lists, from the outside."""

Kind = Literal["flag", "environment", "file", "default"]


@dataclass(frozen=True, slots=True)
class Place:
    """`name`: of the flag, the variable, or of the setting in `file`, where it is on `line` (0
    where that is not known). `references`: what its text refers to, such as `${env:NAME}`."""

    kind: Kind
    name: str
    file: str = ""
    line: int = 0
    references: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """What stands behind the name of a setting in a file; empty for flags and variables."""
        words = f" in {self.file}" if self.file else ""
        words += f", line {self.line}" if self.line else ""
        return words + (f" ({', '.join(self.references)})" if self.references else "")

    def __str__(self) -> str:
        return self.name + self.where


Find = Callable[[str], Place]
"""The place of one of OpenTelemetry's variables, which the settings file has other names for."""


def from_environment(name: str) -> Place:
    """An environment variable."""
    return Place("environment", name)


@dataclass(frozen=True, slots=True)
class Places:
    """The places of some settings; of those that were made without files and variables none are
    known. They do not make settings differ, so all compare equal.

    `written`: by where the value is in the settings, all places that have one, the one that counts
    last. `variables`: the same for OpenTelemetry's variables where the file has them. `file`: the
    settings file, empty where there is none; `file_from`: what names it.
    """

    written: Mapping[Path, tuple[Place, ...]] = field(default_factory=dict, compare=False)
    variables: Mapping[str, tuple[Place, ...]] = field(default_factory=dict, compare=False)
    file: str = field(default="", compare=False)
    file_from: str = field(default="", compare=False)
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """What was written and is not read, and what was probably meant."""

    def of(self, path: Path) -> Place:
        """Where the value that counts was written. Where nobody wrote it: where what it belongs to
        was, else its name as the place."""
        path = self._shared(path)
        if found := self.written.get(path):
            return found[-1]
        parts = [places[-1] for known, places in self.written.items() if known[: len(path)] == path]
        if path and parts:
            return parts[-1]
        dotted = ".".join(map(str, path))
        for length in range(len(path) - 1, 0, -1):
            if found := self.written.get(path[:length]):
                outer = found[-1]
                if outer.kind == "file":
                    return Place("file", dotted, outer.file, outer.line)
                return outer
        return Place("file" if self.file else "default", dotted or "settings", self.file)

    def named(self, name: str) -> str:
        """The same in words, for a setting at the top; its plain name where nobody wrote it."""
        found = self.written.get((name,))
        return str(found[-1]) if found else name

    def written_at(self, path: Path) -> tuple[Place, ...]:
        """All places that have a value for it, the one that counts last; empty for a default."""
        return self.written.get(self._shared(path), ())

    def variable(self, name: str) -> Place:
        """The place of one of OpenTelemetry's variables."""
        return (self.variables.get(name) or (from_environment(name),))[-1]

    def _shared(self, path: Path) -> Path:
        """What a source does not say itself stands at the top, for all sources."""
        if path[:1] != ("sources",) or len(path) < 3 or path[:3] in self.written:
            return path
        return path if path[2:3] not in self.written else path[2:]


def first_of(places: Iterable[Place]) -> str:
    """Places in words, each once."""
    return " and ".join(dict.fromkeys(map(str, places)))
