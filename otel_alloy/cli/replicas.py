"""The command `replicas`."""

from __future__ import annotations

from typing import Any

import click

from otel_alloy.cli.loading import load, store_of
from otel_alloy.cli.options import SettingsCommand, json_option, storage_options


@click.command(cls=SettingsCommand)
@json_option("one JSON document")
@storage_options
def replicas(config: str | None, as_json: bool, **flags: Any) -> None:
    """Which replicas share the work, and who works at what.

    Where `storage` is postgresql, as many `run` as you like share sources and destinations. Exit
    code 1 where nobody works at one of them.

    \b
    Examples:
      otel-alloy replicas
      otel-alloy replicas --json
    """
    from otel_alloy.checkpoint.leases import Board, Leases
    from otel_alloy.runtime import system_runtime
    from otel_alloy.terminal.replicas import as_object, lines, unowned

    settings = load(config, flags, key_needed=False)
    if not settings.shared:
        raise click.UsageError("replicas need `storage` to be postgresql; a file has one process")
    board = Board((), ())
    with store_of(settings) as store:
        if store is not None:
            board = Leases(store.shared, settings.lease).board()
    now = system_runtime().now_ms()
    if as_json:
        import json

        click.echo(json.dumps(as_object(board, now)))
    else:
        for line in lines(board, now):
            click.echo(line)
        if not board.replicas:
            click.echo("no replica takes part")
    raise SystemExit(1 if unowned(board) else 0)
