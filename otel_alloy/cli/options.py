"""Options that several commands take, and the settings that come of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from otel_alloy.checkpoint import Store
    from otel_alloy.config import Settings

F = TypeVar("F", bound=Callable[..., Any])

_NO_KEY_NEEDED = {"ALLOY_API_KEY": "not-needed-by-this-command"}


def setting_options(command: F) -> F:
    """An option for every setting that is a plain value; secrets are not taken from the command
    line, where other users of the machine can see them."""
    from otel_alloy.config import Settings, SourceSettings

    hidden = {"api_key", "name", "privacy_key", "sources", "environment", "privacy", "resource"}
    fields = {**SourceSettings.model_fields, **Settings.model_fields}
    for name in sorted(fields, reverse=True):
        if name in hidden:
            continue
        option = f"--{name.replace('_', '-')}"
        if fields[name].annotation is bool:
            option += f"/--no-{name.replace('_', '-')}"
        command = click.option(option, name, default=None, help=fields[name].description)(command)
    return config_option(command)


def config_option(command: F) -> F:
    """The settings file."""
    return click.option("--config", metavar="FILE", help="YAML file with settings")(command)


def source_option(command: F) -> F:
    """One of several sources."""
    return click.option("--source", metavar="NAME", default=None, help="only this source")(command)


def storage_options(command: F) -> F:
    """The checkpoint, for commands that open nothing else."""
    command = click.option("--storage", default=None, help="where the checkpoint is kept")(command)
    return config_option(command)


def load(config: str | None, flags: dict[str, Any], *, key_needed: bool = True) -> Settings:
    """Settings from the options, the environment and the file. Raises ConfigurationError."""
    from otel_alloy.config import load_settings

    environment = dict(os.environ)
    if not key_needed:
        environment = {**_NO_KEY_NEEDED, **environment}
    return load_settings(flags, environment, file=config)


def opened_store(config: str | None, storage: str | None, *, exclusive: bool) -> Store:
    """The checkpoint of these options; the caller closes it."""
    from otel_alloy.checkpoint import open_store

    settings = load(config, {"storage": storage}, key_needed=False)
    return open_store(settings.storage, exclusive=exclusive)
