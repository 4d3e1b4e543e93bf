"""The commands about what is kept: `checkpoint` and `rejected`."""

from __future__ import annotations

import json
import threading
from contextlib import closing

import click

from otel_alloy.cli.completion import rejected_numbers, sources
from otel_alloy.cli.loading import load, opened_store
from otel_alloy.cli.options import json_option, storage_options
from otel_alloy.cli.terminal import stop_on_signals


@click.group()
def checkpoint() -> None:
    """Look at the checkpoint, or move it by hand."""


@checkpoint.command("show")
@json_option("one JSON document")
@storage_options
def checkpoint_show(config: str | None, storage: str | None, as_json: bool) -> None:
    """How far each source is settled."""
    from otel_alloy.alloy.timestamps import to_text

    with closing(opened_store(config, storage, exclusive=False)) as store:
        sources = store.sources()
    rows = [
        {
            "source": name,
            "settled_up_to": None if p.high is None else to_text(p.high),
            "reading_up_to": None if p.window is None else to_text(p.window[1]),
        }
        for name, p in sources.items()
    ]
    if as_json:
        click.echo(json.dumps(rows))
        return
    if not rows:
        click.echo("no checkpoint yet")
    for row in rows:
        words = f"{row['source']}: settled up to {row['settled_up_to'] or 'nothing yet'}"
        if row["reading_up_to"]:
            words += f", reading a window up to {row['reading_up_to']}"
        click.echo(words)


@checkpoint.command("set")
@click.argument("source", shell_complete=sources)
@click.argument("moment")
@storage_options
def checkpoint_set(source: str, moment: str, config: str | None, storage: str | None) -> None:
    """Begin SOURCE at MOMENT.

    MOMENT (of createdAt) is a timestamp, or how long ago: 6h. What lies after it is delivered
    again, with the same bytes. `run` has to be stopped.

    \b
    Examples:
      otel-alloy checkpoint set default 6h
      otel-alloy checkpoint set default 2026-04-29T17:44:10Z
    """
    import time

    from otel_alloy.alloy.timestamps import to_text
    from otel_alloy.settings.models import parse_moment

    try:
        when = parse_moment(moment)
    except ValueError as error:
        raise click.UsageError(f"MOMENT: {error}") from None
    high = when if isinstance(when, int) else int((time.time() - when) * 1000)
    with closing(opened_store(config, storage, exclusive=True)) as store:
        store.set_high(source, high)
    click.echo(f"{source}: begins at {to_text(high)}")


@checkpoint.command("reset")
@click.argument("source", shell_complete=sources)
@storage_options
def checkpoint_reset(source: str, config: str | None, storage: str | None) -> None:
    """Forget SOURCE, so that it begins anew.

    It begins where initial_lookback or --since says. `run` has to be stopped.

    \b
    Example:
      otel-alloy checkpoint reset default
    """
    with closing(opened_store(config, storage, exclusive=True)) as store:
        if not store.reset(source):
            known = ", ".join(store.sources()) or "none"
            raise click.ClickException(f"no source {source!r} in the checkpoint; known: {known}")
    click.echo(f"{source}: forgotten")


@click.group()
def rejected() -> None:
    """Look at records that nobody took, send them again or drop them."""


@rejected.command("list")
@json_option("one JSON document, with the records themselves")
@storage_options
def rejected_list(config: str | None, storage: str | None, as_json: bool) -> None:
    """The records set aside, oldest first."""
    from dataclasses import asdict

    from otel_alloy.alloy.timestamps import to_text

    with closing(opened_store(config, storage, exclusive=False)) as store:
        records = store.rejected()
    if as_json:
        click.echo(json.dumps([asdict(r) for r in records]))
        return
    if not records:
        click.echo("nothing is set aside")
    for r in records:
        click.echo(f"{r.number}  {to_text(r.at)}  {r.source}  {r.signals}  {r.reason}")


@rejected.command("retry")
@click.argument("numbers", nargs=-1, type=int, shell_complete=rejected_numbers)
@storage_options
def rejected_retry(numbers: tuple[int, ...], config: str | None, storage: str | None) -> None:
    """Send records again: NUMBERS, or all.

    \b
    Examples:
      otel-alloy rejected retry
      otel-alloy rejected retry 7 8
    """
    from otel_alloy.errors import ShutdownRequested
    from otel_alloy.pipeline.rejected import retry_rejected

    settings = load(config, {"storage": storage}, key_needed=False)
    stop = threading.Event()
    stop_on_signals(stop.set)
    with closing(opened_store(config, storage, exclusive=False)) as store:
        try:
            result = retry_rejected(settings, store, numbers, stop)
        except ShutdownRequested:
            raise click.ClickException("stopped; what was not delivered is still there") from None
    for number, why in result.refused.items():
        click.echo(f"{number}  refused again: {why}")
    click.echo(f"{len(result.delivered)} delivered, {len(result.refused)} still set aside")
    raise SystemExit(1 if result.refused else 0)


@rejected.command("drop")
@click.argument("numbers", nargs=-1, type=int, shell_complete=rejected_numbers)
@click.option("--all", "everything", is_flag=True, help="drop all of them")
@storage_options
def rejected_drop(
    numbers: tuple[int, ...], everything: bool, config: str | None, storage: str | None
) -> None:
    """Delete records for good: NUMBERS, or all.

    \b
    Examples:
      otel-alloy rejected drop 7 8
      otel-alloy rejected drop --all
    """
    if bool(numbers) == everything:
        raise click.UsageError("give the NUMBERS to drop, or --all")
    with closing(opened_store(config, storage, exclusive=False)) as store:
        chosen = [r.number for r in store.rejected()] if everything else list(numbers)
        click.echo(f"{store.drop_rejected(chosen)} dropped")
