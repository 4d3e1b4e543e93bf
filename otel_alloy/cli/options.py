"""Options that several commands take.

What there is to set is known by the settings alone, and importing them takes longer than most that
a command line does without them (`--version`, a word that is completed). So an option for a setting
is only made when its command is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin

import click

from otel_alloy.cli.completion import sources
from otel_alloy.durations import written_duration

F = TypeVar("F", bound=Callable[..., Any])

NO_OPTION = {
    "api_key",
    "name",
    "privacy_key",
    "sources",
    "environment",
    "privacy",
    "webhook",
    "headers",
    "rules",
    "destinations",
    "destinations_policy",
    "outbox",
    "resource",
}
"""Secrets are not taken from the command line, where other users of the machine can see them; the
others are no plain values."""
_METAVARS = {
    **{"api_key_file": "FILE", "endpoint": "URL", "storage": "URL"},
    **{"health_endpoint": "HOST:PORT", "destinations_dir": "FOLDER", "since": "MOMENT"},
    **{"resource_per": "FIELD,…", "trace_url": "URL", "execution_url": "URL"},
}

SETTINGS_NOTE = """Each setting is also a variable, OTEL_ALLOY_ and its name (ALLOY_ENDPOINT for the
endpoint, ALLOY_API_KEY_FILE for the key's file), and a line of the settings file. The key itself is
taken from ALLOY_API_KEY or the file. A MOMENT is a timestamp, or how long ago: 60d, 12h. A DURATION
is such as 90s or 1h30m."""


class SettingsCommand(click.Command):
    """A command with `setting_option` or `setting_options`."""

    _params: list[click.Parameter]

    @property
    def params(self) -> list[click.Parameter]:
        """Its options, those of settings included."""
        made: list[click.Parameter] = []
        for one in self._params:
            made += one.make() if isinstance(one, _Later) else [one]
        self._params = made
        return made

    @params.setter
    def params(self, params: list[click.Parameter]) -> None:
        self._params = params


class _Later(click.Option):
    """Stands for what `make` makes of it when the command is used."""

    def __init__(self, declarations: Sequence[str], make: Callable[[], list[click.Option]]) -> None:
        super().__init__(declarations)
        self.make = make


def setting_option(name: str) -> Callable[[F], F]:
    """The option for the setting `name`, of a `SettingsCommand`. Its value goes to the settings as
    it was written, so that all mistakes are told at once."""
    return click.option(_flag(name), cls=_Later, make=lambda: [_option(name)])


def setting_options(command: F) -> F:
    """The settings file, and an option for every setting that is a plain value, of a
    `SettingsCommand`."""
    return config_option(click.option("--settings", cls=_Later, make=_all_options)(command))


def _all_options() -> list[click.Option]:
    from otel_alloy.settings.models import Settings, SourceSettings

    names = {*SourceSettings.model_fields, *Settings.model_fields} - NO_OPTION
    return [_option(name) for name in sorted(names)]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _option(name: str) -> click.Option:
    from otel_alloy.settings.models import Settings, SourceSettings

    field = {**SourceSettings.model_fields, **Settings.model_fields}[name]
    flag, words = _flag(name), field.description
    if field.annotation is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}", name], default=None, help=words)
    if field.default not in (None, ()):
        words = f"{words}  [default: {_written(field.default, field.annotation)}]"
    complete = None
    metavar = _METAVARS.get(name, "TEXT")
    if field.annotation is int:
        metavar = "N"
    elif field.annotation is float:
        metavar = "DURATION"
    elif name == "audit":
        metavar = "DURATION,…"
    elif get_origin(field.annotation) is Literal:
        choices = get_args(field.annotation)
        metavar = f"[{'|'.join(choices)}]"

        def complete(context: click.Context, option: click.Parameter, begun: str) -> list[str]:
            return [choice for choice in choices if choice.startswith(begun)]

    return click.Option(
        [flag, name], metavar=metavar, default=None, help=words, shell_complete=complete
    )


def _written(value: object, kind: object) -> str:
    """A default as people write it."""
    if isinstance(value, tuple):
        return ",".join(_written(one, float) for one in value)
    if kind is float and isinstance(value, float):
        return written_duration(value)
    return str(value)


def config_option(command: F) -> F:
    """The settings file."""
    words = "YAML file with settings; else OTEL_ALLOY_CONFIG"
    return click.option("--config", metavar="FILE", type=click.Path(), help=words)(command)


def source_option(command: F) -> F:
    """One of several sources."""
    return click.option(
        "--source", metavar="NAME", default=None, help="only this source", shell_complete=sources
    )(command)


def storage_options(command: F) -> F:
    """The checkpoint, for commands that open nothing else."""
    return config_option(setting_option("storage")(command))


def json_option(words: str) -> Callable[[F], F]:
    """Output for programs instead of people."""
    return click.option("--json", "as_json", is_flag=True, help=words)
