"""The commands about what is kept: `checkpoint` and `rejected`."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from otel_alloy.cli.completion import destinations, rejected_numbers, sources
from otel_alloy.cli.loading import existing_store, load, opened_store
from otel_alloy.cli.meant import Commands
from otel_alloy.cli.options import (
    SettingsCommand,
    json_option,
    setting_options,
    source_option,
    storage_options,
)
from otel_alloy.cli.terminal import Signals, interrupt_on_signals, say

if TYPE_CHECKING:
    from otel_alloy.checkpoint.store import RejectedRecord, Store


@click.group(cls=Commands)
def checkpoint() -> None:
    """Look at the checkpoint, or move it by hand."""


@checkpoint.command("show", cls=SettingsCommand)
@json_option("one JSON document")
@storage_options
def checkpoint_show(config: str | None, storage: str | None, as_json: bool) -> None:
    """How far each source is settled."""
    from otel_alloy.alloy.timestamps import to_text

    with existing_store(config, storage) as store:
        sources = store.sources() if store else {}
    rows = [
        {
            "source": name,
            "settled_up_to": None if p.high is None else to_text(p.high),
            "reading_up_to": None if p.window is None else to_text(p.window[1]),
        }
        for name, p in sources.items()
    ]
    if as_json:
        import json

        click.echo(json.dumps(rows))
        return
    if not rows:
        click.echo("no checkpoint yet")
    for row in rows:
        words = f"{row['source']}: settled up to {row['settled_up_to'] or 'nothing yet'}"
        if row["reading_up_to"]:
            words += f", reading a window up to {row['reading_up_to']}"
        click.echo(words)


@checkpoint.command("set", cls=SettingsCommand)
@click.argument("source", shell_complete=sources)
@click.argument("moment")
@click.option("--force", is_flag=True, help="also where MOMENT lies in the future")
@storage_options
def checkpoint_set(
    source: str, moment: str, force: bool, config: str | None, storage: str | None
) -> None:
    """Begin SOURCE at MOMENT.

    MOMENT (of createdAt) is a timestamp, or how long ago: 6h. What was created after it is
    delivered again, with the same bytes. Stop `run` first.

    \b
    Examples:
      otel-alloy checkpoint set default 6h
      otel-alloy checkpoint set default 2026-04-29T17:44:10Z
    """
    from otel_alloy.alloy.clock import APART_MS
    from otel_alloy.alloy.timestamps import to_text
    from otel_alloy.runtime import system_runtime
    from otel_alloy.settings.models import parse_moment

    try:
        when = parse_moment(moment)
    except ValueError as error:
        raise click.UsageError(f"MOMENT: {error}") from None
    now = system_runtime().now_ms()
    high = when if isinstance(when, int) else now - int(when * 1000)
    if high > now + APART_MS and not force:
        raise click.UsageError(
            f"MOMENT: {to_text(high)} lies in the future, as this machine's clock says "
            f"{to_text(now)}: nothing would be read until then; give one that has passed, set the "
            "clock if it is wrong, or insist with --force"
        )
    with closing(opened_store(config, storage, exclusive=True)) as store:
        store.set_high(source, high)
    click.echo(f"{source}: begins at {to_text(high)}")


@checkpoint.command("reset", cls=SettingsCommand)
@click.argument("source", shell_complete=sources)
@storage_options
def checkpoint_reset(source: str, config: str | None, storage: str | None) -> None:
    """Forget SOURCE, so that it begins anew.

    It begins where initial_lookback or --since says. Stop `run` first.

    \b
    Example:
      otel-alloy checkpoint reset default
    """
    with existing_store(config, storage) as found:
        known = list(found.sources()) if found else []
    if source not in known:
        names = ", ".join(known) or "none"
        raise click.ClickException(f"no source {source!r} in the checkpoint; known: {names}")
    with closing(opened_store(config, storage, exclusive=True, warn=False)) as store:
        store.reset(source)
    click.echo(f"{source}: forgotten")


@click.command(cls=SettingsCommand)
@click.option("--from", "begin", metavar="MOMENT", default=None, help="from here on; default: 24h")
@click.option("--to", "end", metavar="MOMENT", default=None, help="up to here; default: now")
@source_option
@json_option("one JSON document")
@setting_options
def audit(
    config: str | None,
    begin: str | None,
    end: str | None,
    source: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Compare what is settled with Alloy's own count.

    By stretches of createdAt, as far back as it is known what was settled (a day, unless `audit`
    looks back further). What is missing is delivered; beside a running `run`, that does it. Exit
    code 1 where something is missing all the same, or where Alloy cannot count.

    \b
    Examples:
      otel-alloy audit
      otel-alloy audit --from 6h --json
    """
    from rich.console import Console

    from otel_alloy.checkpoint.store import store_exists
    from otel_alloy.pipeline.audited import Completeness
    from otel_alloy.pipeline.audited import audit as audited
    from otel_alloy.pipeline.factory import Factory
    from otel_alloy.pipeline.query import chosen_sources
    from otel_alloy.runtime import system_runtime
    from otel_alloy.settings.models import parse_moment
    from otel_alloy.terminal.audit import show_audit

    moments: list[int | float | None] = []
    for option, text in (("--from", begin), ("--to", end)):
        try:
            moments.append(None if text is None else parse_moment(text))
        except ValueError as error:
            raise click.UsageError(f"{option}: {error}") from None
    settings = load(config, flags)
    chosen = list(chosen_sources(settings, source))
    interrupt_on_signals()
    found = Completeness([], {one.name: None for one in chosen}, delivers=False)
    if store_exists(settings.storage):
        factory = Factory(settings, system_runtime())
        found = audited(factory, chosen, moments[0], moments[1], lambda event: None, say)
    show_audit(found, Console(highlight=False), as_json=as_json)
    raise SystemExit(1 if found.missing or not found.counted else 0)


@click.group(cls=Commands)
def rejected() -> None:
    """List the records set aside, send them again or drop them."""


_OF_DESTINATION = click.option(
    "--destination",
    metavar="NAME",
    default=None,
    shell_complete=destinations,
    help="only what this destination refused",
)


@rejected.command("list", cls=SettingsCommand)
@json_option("one JSON document, with the records themselves")
@_OF_DESTINATION
@storage_options
def rejected_list(
    config: str | None, storage: str | None, destination: str | None, as_json: bool
) -> None:
    """The records set aside, oldest first."""
    from dataclasses import asdict

    from otel_alloy.alloy.timestamps import to_text

    with existing_store(config, storage) as store:
        records = _set_aside(store, destination)
    if as_json:
        import json

        click.echo(json.dumps([asdict(r) for r in records]))
        return
    if not records:
        click.echo("nothing is set aside")
    for r in records:
        where = r.source if r.destination is None else f"{r.source} for {r.destination}"
        click.echo(f"{r.number}  {to_text(r.at)}  {where}  {r.signals}  {r.reason}")


def _set_aside(store: Store | None, destination: str | None) -> list[RejectedRecord]:
    """All that is set aside, or what a destination refused of it."""
    found = [] if store is None else store.rejected()
    return [r for r in found if destination in (None, r.destination)]


@rejected.command("retry", cls=SettingsCommand)
@click.argument("numbers", nargs=-1, type=int, shell_complete=rejected_numbers)
@_OF_DESTINATION
@storage_options
def rejected_retry(
    numbers: tuple[int, ...], destination: str | None, config: str | None, storage: str | None
) -> None:
    """Send records again: NUMBERS, a destination's, or all.

    \b
    Examples:
      otel-alloy rejected retry
      otel-alloy rejected retry 7 8
      otel-alloy rejected retry --destination acme
    """
    if numbers and destination:
        raise click.UsageError("give the NUMBERS, or --destination")
    from otel_alloy.errors import ShutdownRequested
    from otel_alloy.pipeline.factory import Factory
    from otel_alloy.pipeline.rejected import Retried, retry_rejected
    from otel_alloy.runtime import system_runtime

    settings = load(config, {"storage": storage}, key_needed=False)
    runtime = system_runtime()
    signals = Signals(runtime.stop)
    result = Retried([], {})
    with existing_store(config, storage) as store:
        try:
            if destination is not None:
                numbers = tuple(r.number for r in _set_aside(store, destination))
            if store is not None and (numbers or destination is None):
                result = retry_rejected(Factory(settings, runtime), store, numbers)
        except ShutdownRequested:
            words = "stopped; what was not delivered is still there"
            raise signals.unfinished(words) from None
    for number, why in result.refused.items():
        click.echo(f"{number}  refused again: {why}")
    click.echo(f"{len(result.delivered)} delivered, {len(result.refused)} still set aside")
    raise SystemExit(signals.code(1 if result.refused else 0))


@rejected.command("drop", cls=SettingsCommand)
@click.argument("numbers", nargs=-1, type=int, shell_complete=rejected_numbers)
@click.option("--all", "everything", is_flag=True, help="drop all of them")
@_OF_DESTINATION
@storage_options
def rejected_drop(
    numbers: tuple[int, ...],
    everything: bool,
    destination: str | None,
    config: str | None,
    storage: str | None,
) -> None:
    """Delete records for good: NUMBERS, a destination's, or all.

    \b
    Examples:
      otel-alloy rejected drop 7 8
      otel-alloy rejected drop --all
    """
    if [bool(numbers), everything, destination is not None].count(True) != 1:
        raise click.UsageError("give the NUMBERS to drop, --destination, or --all")
    with existing_store(config, storage) as store:
        dropped = 0
        if store is not None:
            chosen = list(numbers) or [r.number for r in _set_aside(store, destination)]
            dropped = store.drop_rejected(chosen)
    click.echo(f"{dropped} dropped")
