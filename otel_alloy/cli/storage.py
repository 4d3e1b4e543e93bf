"""The commands about where the checkpoint lies: `storage`."""

from __future__ import annotations

import click

from otel_alloy.cli.meant import Commands


@click.group(cls=Commands)
def storage() -> None:
    """Take the checkpoint elsewhere."""


@storage.command("migrate")
@click.option("--from", "origin", metavar="URL", required=True, help="where it is")
@click.option("--to", "target", metavar="URL", required=True, help="where it is to be")
@click.option("--force", is_flag=True, help="give up what --to holds")
def storage_migrate(origin: str, target: str, force: bool) -> None:
    """Take the whole checkpoint from one database to another.

    Checkpoints, open executions, records set aside, audits and what waits for destinations: all of
    it, or nothing where it is broken off. Stop `run` first; then set `storage` to the new URL. The
    password of a URL may be in PGPASSWORD or ~/.pgpass instead.

    \b
    Example:
      otel-alloy storage migrate --from sqlite:///otel-alloy.db \\
        --to postgresql://alloy@db.example.com/alloy
    """
    from otel_alloy.checkpoint.migrate import migrate

    found = migrate(origin, target, force=force)
    for table, rows in found.rows.items():
        if rows:
            click.echo(f"{rows:>9}  {table}")
    click.echo(f"all of {found.origin} is in {found.target} now; set `storage` to that")
    click.echo(f"{found.origin} is as it was: no `run` may use it any more")
