"""Where a setting comes from: a command-line flag, else the environment, else the YAML file, else
the default. `Settings` that are made without it take only the OTEL_* variables of the process.

Everything is checked before anything connects, and all mistakes are reported together, each with
the place that the wrong value came from and its remedy, and never with a secret. Nothing here opens
a connection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any

from pydantic import ValidationError

from otel_alloy.bounded_file import read_bounded
from otel_alloy.environment import kept_quotes
from otel_alloy.errors import ConfigurationError
from otel_alloy.network import VARIABLES, network
from otel_alloy.routing.match import KNOWN
from otel_alloy.settings.destinations import DestinationSettings
from otel_alloy.settings.mistakes import Names, mistakes_in
from otel_alloy.settings.models import Settings, SourceSettings, environment_of, one_key
from otel_alloy.settings.otlp import COMPRESSIONS, PROTOCOLS, otlp_exporters
from otel_alloy.settings.otlp_section import OTLP_KEYS, flatten_otlp
from otel_alloy.settings.places import Path, Place, Places, from_environment
from otel_alloy.settings.references import Resolved, resolve
from otel_alloy.settings.values import choices_in
from otel_alloy.settings.variables import (
    ALIASES,
    CONFIG,
    EMPTY_MEANS_OFF,
    OURS,
    misspelt,
    not_read,
    path_of,
)

_STAND_INS = {"api_key": "unusable", "endpoint": "https://unusable.invalid"}
"""In place of what is a mistake already, so that it is told once."""
_FORGOTTEN = ("environment",)
"""Fields that a file may not have, though there are such."""


def load_settings(
    flags: Mapping[str, Any], environment: Mapping[str, str], *, file: str | None = None
) -> Settings:
    """Settings from flags (None = not given), environment and the YAML `file` (else
    OTEL_ALLOY_CONFIG). Raises ConfigurationError with every mistake."""
    environment = {
        name: value
        for name, value in environment.items()
        if value.strip() or name in EMPTY_MEANS_OFF
    }
    flags = {name: value for name, value in flags.items() if value is not None}
    _check_text(flags, environment)
    found = _Written()
    named_by = "--config"
    if file is None and CONFIG in environment:
        file, named_by = environment[CONFIG], CONFIG
    if file:
        found.read_file(file, named_by, environment)
    found.take_environment(environment)
    found.take_flags(flags)
    return found.settings(environment)


@dataclass
class _Written:
    """What was read so far: the values of the settings by their names, and where each is written.
    What is taken later counts before what was taken earlier."""

    values: dict[str, Any] = field(default_factory=dict)
    otlp: dict[str, str] = field(default_factory=dict)
    places: dict[Path, tuple[Place, ...]] = field(default_factory=dict)
    variables: dict[str, tuple[Place, ...]] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)
    resolved: Resolved = field(default_factory=lambda: Resolved({}))
    file: str = ""
    file_from: str = ""

    def read_file(self, file: str, named_by: str, environment: Mapping[str, str]) -> None:
        """The settings file, and all that is wrong with it as a file. `named_by`: what names it."""
        self.file, self.file_from = file, named_by
        document = _document(file, named_by, self.mistakes)
        if document is None:
            return
        value, lines = document
        self.resolved = resolve(value, environment)
        for path, line in lines.items():
            references = tuple(self.resolved.found.get(path, ()))
            self._put(path, Place("file", _dotted(path), file, line, references))
        self.mistakes += [
            f"{self._at(path) if path else file}: {words}" for path, words in self.resolved.mistakes
        ]
        self.values = self.resolved.value
        for name in _FORGOTTEN:
            if self.values.pop(name, None) is not None:
                self.mistakes.append(f"{self._at((name,))}: there is no such setting")
        flat, paths, wrong = flatten_otlp(self.values.pop("otlp", {}))
        self.otlp = flat
        self.mistakes += [f"{self._at(('otlp', *path))}: {words}" for path, words in wrong]
        self.variables = {name: (self._at(("otlp", *path)),) for name, path in paths.items()}

    def take_environment(self, environment: Mapping[str, str]) -> None:
        """Our own variables. OpenTelemetry's are read by others, where they are needed."""
        chosen = {ALIASES[variable] for variable in environment if variable in ALIASES}
        kept = one_key(self.values, dict.fromkeys(chosen))
        self.values = {name: value for name, value in kept.items() if name not in chosen}
        self.mistakes += misspelt(environment, self.resolved.variables)
        for variable, value in environment.items():
            if variable in self.variables:
                self.variables[variable] += (from_environment(variable),)
            path = path_of(variable)
            quotes = None
            if path or variable.startswith(OURS):
                quotes = kept_quotes(variable, value)
            if quotes:
                self.mistakes.append(quotes)
            if path is None:
                continue
            if quotes:
                if variable not in ALIASES:
                    continue
                value = _STAND_INS[ALIASES[variable]]
            *outer, name = (str(part) for part in path)
            chosen_in = self.values.setdefault(outer[0], {}) if outer else self.values
            if isinstance(chosen_in, dict):
                chosen_in[name] = value
                self._put(path, from_environment(variable))

    def take_flags(self, flags: Mapping[str, Any]) -> None:
        """The options of a command."""
        self.values = one_key(self.values, flags)
        for name, value in flags.items():
            self.values[name] = value
            self._put((name,), Place("flag", f"--{name.replace('_', '-')}"))

    def settings(self, environment: Mapping[str, str]) -> Settings:
        """All of it, checked. Raises ConfigurationError."""
        variables = {**self.otlp, **environment_of(environment)}
        warnings = tuple(not_read(environment, self.resolved.variables, self.places))
        places = Places(self.places, self.variables, self.file, self.file_from, warnings)
        mistakes, settings = self.mistakes, None
        try:
            settings = Settings.model_validate({**self.values, "environment": variables})
            mistakes += settings.written_at(places).mistakes
        except ValidationError as error:
            mistakes += self._wrong(error, places)
            mistakes += network(variables).mistakes
            if self.values.get("main_destination") != "none":
                mistakes += otlp_exporters(variables, find=places.variable).mistakes
        if mistakes or settings is None:
            known = _known_words()
            hidden = (self.resolved.hide(words, known) for words in (*mistakes, *warnings))
            raise ConfigurationError(list(dict.fromkeys(hidden)))
        return settings

    def _wrong(self, error: ValidationError, places: Places) -> Iterator[str]:
        several = isinstance(self.values.get("sources"), list)
        types = {problem["loc"]: problem["type"] for problem in error.errors(include_url=False)}
        given = dict(self.values)
        if not several:
            given["sources"] = [self.values]
        found = mistakes_in(error, _with_shared(given), Settings, _AT_THE_TOP)
        for path, words in found:
            if path == ("sources",) and any(
                len(other) > 1 for other, _ in found if other[:1] == path
            ):
                continue  # pydantic counts only sources without mistakes
            kind = types.get(path)
            if kind == "no_key":
                where = "ALLOY_API_KEY"
                words += ", or ALLOY_API_KEY_FILE to a file that holds it"
                if several:
                    words += f"; {places.of(path[:2])} has no key of its own"
            elif kind == "two_keys":
                both = (places.of((*path[:-1], name)) for name in ("api_key", "api_key_file"))
                where = " and ".join(map(str, both))
            else:
                where = str(places.of(path))
            yield f"{where}: {words}"

    def _put(self, path: Path, place: Place) -> None:
        self.places[path] = (*self.places.get(path, ()), place)

    def _at(self, path: Path) -> Place:
        return Places(self.places, file=self.file).of(path)


_AT_THE_TOP: Names = {(): [*SourceSettings.model_fields, "otlp"], ("otlp",): OTLP_KEYS}
"""What stands in a file besides the fields of `Settings`."""


def _with_shared(given: dict[str, Any]) -> dict[str, Any]:
    """The sources with what stands at the top for all of them."""
    sources = given["sources"]
    if not isinstance(sources, list):
        return given
    shared = {k: v for k, v in given.items() if k in SourceSettings.model_fields}
    return {**given, "sources": [one_key(shared, s) if isinstance(s, dict) else s for s in sources]}


def _check_text(flags: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """Raises ConfigurationError for what can be neither sent nor kept: bytes that are not UTF-8."""
    told = {f"--{name.replace('_', '-')}": value for name, value in flags.items()}
    told |= {name: value for name, value in environment.items() if _is_read(name)}
    unusable = [n for n, value in told.items() if isinstance(value, str) and not _is_text(value)]
    if unusable:
        raise ConfigurationError(
            [f"{name}: holds bytes that are not UTF-8; write it anew" for name in unusable]
        )


def _is_read(variable: str) -> bool:
    return variable.startswith("OTEL_") or variable in ALIASES or variable in VARIABLES


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _known_words() -> set[str]:
    """Names of settings and the words that they take: none of them is a secret."""
    names = choices_in(Settings) | choices_in(SourceSettings) | choices_in(DestinationSettings)
    return names | {"otlp", "traces", *OTLP_KEYS, *PROTOCOLS, *COMPRESSIONS, *KNOWN, "true"}


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))


def _document(
    file: str, named_by: str, mistakes: list[str]
) -> tuple[dict[str, Any], Mapping[Path, int]] | None:
    """What the file holds, and on which lines; None where nothing can be had of it, with the
    mistake, if it is one."""
    from otel_alloy.settings.yaml_text import MOST_BYTES, YamlMistake, read_named
    from otel_alloy.settings.yaml_words import shown_line

    text = ""
    try:
        text = read_bounded(File(file), MOST_BYTES).decode("utf-8-sig")
        document = read_named(text)
    except OSError as error:
        mistakes.append(f"{file}: cannot be read ({error.strerror}); correct {named_by}")
    except UnicodeDecodeError:
        mistakes.append(f"{file}: is not UTF-8 text; save it as UTF-8")
    except YamlMistake as error:
        where = f"{file}, {error.place}" if error.place else file
        line = shown_line(text.splitlines(), error.line, error.column, _known_words())
        mistakes.append("\n".join((f"{where}: {error.words}", *line)))
    except ValueError:
        mistakes.append(f"{file!r} can be no file name; correct {named_by}")
    else:
        if document.value is not None:
            return document.value, document.lines
    return None
