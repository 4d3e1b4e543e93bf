"""The commands about destinations: `destinations list`, `show`, `test`, `pause`, `resume`, `drain`.

They work beside a running `run`, which does what is to be done: it delivers, and takes up what is
noted in the checkpoint within seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from otel_alloy.cli.completion import destinations as names
from otel_alloy.cli.loading import load, store_of
from otel_alloy.cli.meant import Commands
from otel_alloy.cli.options import (
    F,
    SettingsCommand,
    config_option,
    json_option,
    setting_option,
)
from otel_alloy.cli.terminal import interrupt_on_signals, say

if TYPE_CHECKING:
    from otel_alloy.checkpoint.store import Store
    from otel_alloy.settings.models import Settings
    from otel_alloy.terminal.destinations import Seen

_LOOK_SECONDS = 1.0
_TOLD_SECONDS = 5.0


@click.group(cls=Commands)
def destinations() -> None:
    """Look at destinations, try them, hold them back."""


def _options(command: F) -> F:
    return config_option(setting_option("storage")(setting_option("destinations_dir")(command)))


@contextmanager
def _opened(config: str | None, flags: dict[str, Any]) -> Iterator[tuple[Settings, Store | None]]:
    settings = load(config, flags, key_needed=False)
    with store_of(settings) as store:
        yield settings, store


def _all(settings: Settings, store: Store | None) -> dict[str, Seen]:
    from otel_alloy.runtime import system_runtime
    from otel_alloy.settings.destinations_dir import Directory
    from otel_alloy.terminal.destinations import seen

    return seen(Directory(settings, system_runtime().clock).read(), store)


def _one(name: str, settings: Settings, store: Store | None) -> Seen:
    """Raises UsageError where there is none of this name."""
    found = _all(settings, store)
    if name not in found:
        known = ", ".join(list(found)[:20]) or "none"
        more = f" and {len(found) - 20} more" if len(found) > 20 else ""
        raise click.UsageError(f"there is no destination {name!r}; known are {known}{more}")
    return found[name]


@destinations.command("list", cls=SettingsCommand)
@json_option("one JSON document")
@_options
def list_(config: str | None, as_json: bool, **flags: Any) -> None:
    """How each destination is.

    Each is `ok`, `failing` (with the error), `paused`, `disabled` (for a mistake), or `removed`:
    the settings have it no more, and something waits for it. Exit code 1 where one is failing or
    disabled.

    \b
    Examples:
      otel-alloy destinations list
      otel-alloy destinations list --json
    """
    from otel_alloy.runtime import system_runtime
    from otel_alloy.terminal.destinations import WRONG

    with _opened(config, flags) as (settings, store):
        found = _all(settings, store)
    if as_json:
        import json

        click.echo(json.dumps([one.as_object() for one in found.values()]))
    else:
        now = system_runtime().now_ms()
        for one in found.values():
            click.echo(one.line(now))
        if not found:
            click.echo("there are no destinations besides the main one")
    raise SystemExit(1 if any(one.state in WRONG for one in found.values()) else 0)


@destinations.command(cls=SettingsCommand)
@click.argument("name", shell_complete=names)
@json_option("one JSON document")
@_options
def show(name: str, config: str | None, as_json: bool, **flags: Any) -> None:
    """What NAME is and what waits for it.

    Of headers and resource attributes only the names are shown.

    \b
    Examples:
      otel-alloy destinations show acme
    """
    from otel_alloy.alloy.timestamps import to_text
    from otel_alloy.runtime import system_runtime
    from otel_alloy.settings.destinations_dir import Directory
    from otel_alloy.terminal.destinations import settings_shown, shown_lines

    runtime = system_runtime()
    with _opened(config, flags) as (settings, store):
        one = _one(name, settings, store)
        again = store.outbox.recall_range(name) if store else None
    usable = Directory(settings, runtime.clock).read().usable
    shown = settings_shown(usable[name], settings) if name in usable else None
    if as_json:
        import json

        moments = again and [to_text(moment) for moment in again]
        document = one.as_object() | {"read_again_created": moments, "settings": shown}
        click.echo(json.dumps(document, indent=2))
        return
    for line in shown_lines(one, shown, again, runtime.now_ms()):
        click.echo(line)


@destinations.command(cls=SettingsCommand)
@click.argument("name", shell_complete=names)
@click.option("--send-test", is_flag=True, help="also send one marked span and log record")
@json_option("one JSON document")
@_options
def test(name: str, send_test: bool, config: str | None, as_json: bool, **flags: Any) -> None:
    """Try the endpoint of NAME.

    An empty request for each signal, through its own settings and the policy. Nothing is stored.
    Exit code 1 where something is wrong.

    \b
    Examples:
      otel-alloy destinations test acme
      otel-alloy destinations test acme --send-test
    """
    from otel_alloy.check.destination import destination_findings
    from otel_alloy.runtime import system_runtime
    from otel_alloy.terminal.check import show_findings

    with _opened(config, flags) as (settings, store):
        _one(name, settings, store)
    interrupt_on_signals()
    findings = destination_findings(settings, name, system_runtime(), send_test)
    raise SystemExit(show_findings(findings, as_json=as_json))


@destinations.command(cls=SettingsCommand)
@click.argument("name", shell_complete=names)
@_options
def pause(name: str, config: str | None, **flags: Any) -> None:
    """Hold back what is for NAME.

    It waits in the outbox, within its limits. A running `run` takes it up within seconds.

    \b
    Examples:
      otel-alloy destinations pause acme
    """
    from otel_alloy.runtime import system_runtime

    _set_pause(name, system_runtime().now_ms(), config, flags)
    click.echo(f"{name}: paused")


@destinations.command(cls=SettingsCommand)
@click.argument("name", shell_complete=names)
@_options
def resume(name: str, config: str | None, **flags: Any) -> None:
    """Let go what is held back for NAME.

    \b
    Examples:
      otel-alloy destinations resume acme
    """
    _set_pause(name, None, config, flags)
    click.echo(f"{name}: not paused")


def _set_pause(name: str, at: int | None, config: str | None, flags: dict[str, Any]) -> None:
    from contextlib import closing

    from otel_alloy.checkpoint.store import open_store

    with _opened(config, flags) as (settings, store):
        one = _one(name, settings, store)
    if at is not None and one.backlog.paused_at is not None:
        return  # since then
    with closing(open_store(settings.storage, exclusive=False)) as opened:
        opened.outbox.pause(name, at)


@destinations.command(cls=SettingsCommand)
@click.argument("name", shell_complete=names)
@click.option("--timeout", metavar="DURATION", default=None, help="wait no longer than this")
@click.option("--drop", is_flag=True, help="forget what waits instead, for good")
@click.option("--yes", is_flag=True, help="with --drop: do not ask")
@_options
def drain(
    name: str, timeout: str | None, drop: bool, yes: bool, config: str | None, **flags: Any
) -> None:
    """Wait until nothing waits for NAME.

    A running `run` delivers; this looks on. Exit code 0 where nothing waits; 1 after --timeout, and
    where it cannot come to that: no `run` is active, or NAME is paused, disabled or removed.

    \b
    Examples:
      otel-alloy destinations drain acme --timeout 10m
      otel-alloy destinations drain acme --drop
    """
    from otel_alloy.durations import parse_duration

    if yes and not drop:
        raise click.UsageError("--yes goes with --drop")
    try:
        seconds = None if timeout is None else parse_duration(timeout)
    except ValueError as error:
        raise click.UsageError(f"--timeout: {error}") from None
    interrupt_on_signals()
    with _opened(config, flags) as (settings, store):
        one = _one(name, settings, store)
        if store is not None and one.waiting:
            if drop:
                _drop(one, store, yes)
                return
            _wait(name, settings, store, seconds)
    click.echo(f"{name}: nothing waits")


def _drop(one: Seen, store: Store, yes: bool) -> None:
    words = f"{one.waiting:,} executions wait for {one.name}"
    if not yes and not sys.stdin.isatty():
        raise click.UsageError(f"{words}; say --yes to forget them for good")
    if not yes:
        click.confirm(f"{words}. Forget them for good?", abort=True, err=True)
    dropped = store.outbox.drop(one.name)
    if one.state == "paused":
        store.outbox.pause(one.name, one.backlog.paused_at)
    click.echo(f"{one.name}: {dropped:,} forgotten")


def _wait(name: str, settings: Settings, store: Store, seconds: float | None) -> None:
    """Until nothing waits. Raises ClickException where that is not to be expected."""
    from otel_alloy.runtime import system_runtime

    runtime = system_runtime()
    begun = told_at = runtime.monotonic()
    told = -1
    while True:
        one = _one(name, settings, store)
        if not one.waiting:
            return
        words = f"{one.waiting:,} executions wait for {name}"
        if one.state in ("paused", "disabled", "removed"):
            raise click.ClickException(f"{words}, and it is {one.state}: {one.why}")
        if not store.run_is_active():
            raise click.ClickException(
                f"{words}, and nobody delivers them: start `otel-alloy run`, or forget them with "
                "--drop"
            )
        now = runtime.monotonic()
        if told < 0 or (told != one.waiting and now - told_at >= _TOLD_SECONDS):
            say(words + (f"; it is failing: {one.why}" if one.state == "failing" else ""))
            told, told_at = one.waiting, now
        if seconds is not None and now - begun >= seconds:
            raise click.ClickException(f"{words} still, after {now - begun:.0f} s")
        runtime.wait(_LOOK_SECONDS)
