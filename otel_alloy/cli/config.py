"""The command `config`, which says what the other commands would do with the same words."""

from __future__ import annotations

from typing import Any

import click

from otel_alloy.cli.loading import load
from otel_alloy.cli.options import SETTINGS_NOTE, SettingsCommand, json_option, setting_options

_LEAST = 6
"""Characters of a secret that is looked for wherever it may stand: `demo` may be a word."""


@click.command(cls=SettingsCommand, epilog=SETTINGS_NOTE)
@click.option("--changed", is_flag=True, help="only what is set somewhere")
@json_option("one JSON document")
@setting_options
def config(config: str | None, changed: bool, as_json: bool, **flags: Any) -> None:
    """Show what is in force, and where it comes from.

    Each setting with its value and the flag, the variable or the line of the file that it is from,
    and what is set besides and does not count. Keys, passwords and headers are masked. Nothing is
    asked and nothing connects; exit code 2, with all mistakes, where something is wrong.

    \b
    Examples:
      otel-alloy config --changed
      otel-alloy config --config settings.yaml --json
    """
    from otel_alloy.observability.logging import Masked, secrets_of
    from otel_alloy.runtime import system_runtime
    from otel_alloy.settings.destinations_dir import Directory
    from otel_alloy.settings.in_force import DEFAULT, in_force
    from otel_alloy.terminal.config import as_object, lines

    settings = load(config, flags, warn=False)
    destinations = Directory(settings, system_runtime().clock).read()
    secrets = secrets_of(settings)
    for one in destinations.usable.values():
        secrets |= one.exporters(settings.network).secrets
    # What is a secret by its place is masked there; this is for one that stands elsewhere, too.
    mask = Masked(one for one in secrets if len(one) >= _LEAST)
    rows = in_force(settings, destinations.usable)
    if changed:
        rows = [row for row in rows if row.origin != DEFAULT]
    disabled = [f"destination {name}: {why}" for name, why in destinations.disabled.items()]
    warnings = [*settings.warnings, *disabled]
    if as_json:
        import json

        click.echo(json.dumps(as_object(rows, settings.places, warnings, mask), indent=2))
        return
    for line in lines(rows, settings.places, warnings, mask):
        click.echo(line)
