"""`destinations_dir`: a folder with a file for each destination, `NAME.yaml`, that come and go.

A file that cannot be used disables its destination and no other one. Files are looked at again and
again: only what changed is read, and where the folder is gone for a moment, what was read last
stays. A file that changed a moment ago and cannot be used may be only half written: what it said
before holds on, and it is read again with the next look.

Such files may be written from what customers say. They may not refer to the environment, which
holds keys of ours, and to no files but their own secrets (`references.beneath`). No threads, no
waiting: who looks decides when.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from otel_alloy.bounded_file import read_bounded
from otel_alloy.settings.destinations import (
    Destinations,
    DestinationSettings,
    check_name,
)
from otel_alloy.settings.mistakes import mistakes_in
from otel_alloy.settings.models import Settings
from otel_alloy.settings.otlp_section import OTLP_KEYS
from otel_alloy.settings.places import Path, Place
from otel_alloy.settings.references import Resolved, beneath, resolve
from otel_alloy.settings.yaml_text import Document, read_named

log = logging.getLogger("otel_alloy")

MOST_BYTES = 65_536
"""Of one file."""
_SETTLES = 2.0
"""Seconds after a change in which a file may still be being written."""
_FILE = re.compile(r"([^.].*)\.ya?ml")

_Stamp = tuple[int, int, int] | None
"""What changes with a file; None where there is none."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it was read. `found`: what it says, or why it cannot be used; `named`: other files
    that this depends on; `unsettled`: whether it is to be read again in any case."""

    stamp: _Stamp
    found: DestinationSettings | str
    named: Mapping[str, _Stamp]
    unsettled: bool = False

    def holds(self, stamp: _Stamp) -> bool:
        """Whether reading it again would bring the same."""
        return (
            not self.unsettled
            and self.stamp == stamp
            and all(_stamp(path) == seen for path, seen in self.named.items())
        )


class Directory:
    """The destinations of settings: those that stand there, and those of `destinations_dir`, if
    there is one. `clock`: Unix seconds. Not for several threads."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._folder = settings.destinations_dir
        self._clock = clock
        self._files: dict[str, _File] = {}
        self.problem = ""
        """Why the folder cannot be read, if it cannot."""

    def changed(self) -> bool:
        """Whether `read` would bring something else. Costs a `stat` for each file. False where the
        folder cannot be read."""
        stamps = self._stamps()
        if stamps is None:
            return False
        return stamps.keys() != self._files.keys() or not all(
            file.holds(stamps[name]) for name, file in self._files.items()
        )

    def read(self) -> Destinations:
        """All destinations as they are now. Files that did not change are not read."""
        stamps = self._stamps()
        if stamps is not None:
            self._files = {
                name: known
                if (known := self._files.get(name)) is not None and known.holds(stamp)
                else self._read(name, stamp, known)
                for name, stamp in sorted(stamps.items())
            }
        usable = dict(self._settings.destinations)
        disabled: dict[str, str] = {}
        first: dict[str, str] = {}
        for name, file in self._files.items():
            destination = _destination(name)
            if destination in first:
                words = f"both {first[destination]} and {name} are about it; remove one of them"
                disabled[destination] = f"{self._folder}: {words}"
                usable.pop(destination, None)
            elif isinstance(file.found, str):
                disabled[destination] = file.found
            else:
                usable[destination] = file.found
            first.setdefault(destination, name)
        for name in self._settings.destinations:
            usable[name] = self._settings.destinations[name]
        return Destinations(usable, disabled)

    def _stamps(self) -> dict[str, _Stamp] | None:
        """The files by their names; None where the folder cannot be read."""
        if self._folder is None:
            return {}
        try:
            with os.scandir(self._folder) as entries:
                names = [entry.name for entry in entries if _FILE.fullmatch(entry.name)]
        except OSError as error:
            if not self.problem:
                self.problem = f"{self._folder} cannot be read ({error.strerror})"
                log.error(
                    "destinations_dir: %s; going on with its %d files as they were",
                    self.problem,
                    len(self._files),
                )
            return None
        if self.problem:
            log.warning("destinations_dir: %s can be read again", self._folder)
            self.problem = ""
        return {name: _stamp(os.path.join(self._folder, name)) for name in names}

    def _read(self, name: str, stamp: _Stamp, before: _File | None) -> _File:
        assert self._folder is not None
        path = os.path.join(self._folder, name)
        found, named = _read_file(path, _destination(name), self._settings)
        if isinstance(found, str) and stamp and self._clock() - stamp[0] / 1e9 < _SETTLES:
            if before is not None and not isinstance(before.found, str):
                found = before.found
            return _File(stamp, found, named, unsettled=True)
        return _File(stamp, found, named)


def _destination(name: str) -> str:
    found = _FILE.fullmatch(name)
    assert found is not None
    return found[1]


def _stamp(path: str) -> _Stamp:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read_file(
    path: str, name: str, settings: Settings
) -> tuple[DestinationSettings | str, dict[str, _Stamp]]:
    """The destination, or why it cannot be used; and the other files that this depends on, as they
    were before it was read."""
    named: dict[str, _Stamp] = {}
    resolved, document = Resolved({}), Document({}, {})

    def place(where: Path) -> Place:
        inner = where
        while inner and inner not in document.lines:
            inner = inner[:-1]
        dotted = ".".join(map(str, where))
        return Place("file", dotted or "it", line=document.lines.get(inner, 0))

    try:
        check_name(name)
        if name in settings.destinations:
            raise _Wrong("the settings have a destination of this name, too; remove one of them")
        refuses = beneath(settings.destinations_policy.secrets_dir, name)

        def watch(reference: str) -> str | None:
            why = refuses(reference)
            if why is None:
                named[reference] = _stamp(reference)
            return why

        document = _loaded(path)
        resolved = resolve(document.value, None, watch)
        if resolved.mistakes:
            raise _Wrong("; ".join(words for _, words in resolved.mistakes))
        one = DestinationSettings.model_validate(resolved.value)
        if wrong := [f"{file[:200]} {why}" for file in one.files if (why := watch(file))]:
            raise _Wrong("; ".join(wrong))
        key = bool(settings.privacy_key.get_secret_value())
        if wrong := one.mistakes(settings.network, settings.privacy, place, key=key):
            raise _Wrong("; ".join(wrong))
    except ValidationError as error:
        found = mistakes_in(error, resolved.value, DestinationSettings, {("otlp",): OTLP_KEYS})
        words = "; ".join(f"{place(where)}: {words}" for where, words in found)
    except ValueError as error:
        words = str(error)
    else:
        return one, named
    return f"{path}: {resolved.hide(words)}", named


class _Wrong(ValueError):
    """In words that may be shown."""


def _loaded(path: str) -> Document:
    """Raises ValueError."""
    try:
        loaded = read_named(read_bounded(path, MOST_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise _Wrong(f"cannot be read ({error.strerror}); make it readable or remove it") from None
    except UnicodeDecodeError:
        raise _Wrong("is not UTF-8 text; save it as UTF-8") from None
    if loaded.value is None:
        raise _Wrong("it is empty; write `name: value` lines, such as `match: { user.id: u_17 }`")
    return loaded
