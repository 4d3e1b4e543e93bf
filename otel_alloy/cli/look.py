"""The commands that only read: `check`, `health`, `tail` and `summary`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal

import click

from otel_alloy.cli.loading import load
from otel_alloy.cli.meant import Choice
from otel_alloy.cli.options import (
    SETTINGS_NOTE,
    F,
    SettingsCommand,
    config_option,
    json_option,
    setting_option,
    setting_options,
    source_option,
)
from otel_alloy.cli.terminal import errors_console, interrupt_on_signals, say


@click.command(cls=SettingsCommand, epilog=SETTINGS_NOTE)
@click.option("--send-test", is_flag=True, help="also send one marked span and log record")
@click.option(
    "--report",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    default=None,
    help="also write which way the API's unknowns fell, without any value; - for standard output",
)
@click.option(
    "--explain",
    metavar="UUID|FILE",
    default=None,
    help="only say which rule decides on an execution, and why: one of the last day at Alloy, by "
    "one of its ids, or those in a file of notifications as GET /logs gives them",
)
@json_option("one JSON document")
@setting_options
def check(
    config: str | None,
    send_test: bool,
    report: str | None,
    explain: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Try configuration, API and collector.

    Each line is what was tried, what came back and what to do. Nothing is stored.

    \b
    Examples:
      otel-alloy check
      otel-alloy check --send-test --config settings.yaml
      otel-alloy check --report report.json
      otel-alloy check --explain 35SnGU0DUSNP5L26fsmnq
    """
    from otel_alloy.runtime import system_runtime
    from otel_alloy.terminal.check import run_check

    if as_json and report == "-":
        raise click.UsageError("--report - and --json both want standard output; give a file")
    if explain is not None:
        if send_test or report is not None:
            raise click.UsageError(
                "--explain does nothing else; leave --send-test and --report out"
            )
        _explain(config, flags, explain.strip(), as_json)
        return
    settings = load(config, flags, warn=False)
    interrupt_on_signals()
    raise SystemExit(
        run_check(
            settings, system_runtime(), send_test=send_test, as_json=as_json, report_to=report
        )
    )


@click.command(cls=SettingsCommand)
@click.option("--ready", is_flag=True, help="ask whether executions get through, too: /readyz")
@config_option
@setting_option("health_endpoint")
def health(config: str | None, ready: bool, health_endpoint: str | None) -> None:
    """Ask the `run` of this machine whether it lives.

    Exit code 0: it does, or its health port is off, so that there is nothing to ask. 1: it does
    not, or nobody answers. Give it what `run` was given.

    \b
    Examples:
      otel-alloy health
      otel-alloy health --ready --config settings.yaml
    """
    from otel_alloy.observability.probe import ask

    settings = load(config, {"health_endpoint": health_endpoint}, key_needed=False)
    if not settings.health_endpoint:
        click.echo("the health port is off: nothing to ask")
        return
    good, words = ask(settings.health_endpoint, "/readyz" if ready else "/livez")
    click.echo(words)
    raise SystemExit(0 if good else 1)


def _explain(config: str | None, flags: dict[str, Any], which: str, as_json: bool) -> None:
    from otel_alloy.runtime import system_runtime
    from otel_alloy.terminal.explain_rules import run_explain

    is_file = os.path.exists(which)
    if not which or (not is_file and (os.sep in which or which.endswith(".json"))):
        raise click.UsageError("--explain: there is no such file; give one, or an execution's uuid")
    settings = load(config, flags, key_needed=not is_file)
    interrupt_on_signals()
    run_explain(settings, system_runtime(), which, is_file=is_file, as_json=as_json, say=say)


def _look_options(since: str) -> Callable[[F], F]:
    """What `tail` and `summary` share; `since` is the default of --since."""
    options = (
        config_option,
        setting_option("endpoint"),
        source_option,
        setting_option("page_size"),
        setting_option("requests_per_minute"),
        setting_option("trace_url"),
        click.option(
            "--since",
            metavar="MOMENT",
            default=since,
            show_default=True,
            help="how long ago to begin (24h), or a timestamp",
        ),
        click.option(
            "--workflow",
            metavar="NAME",
            default=None,
            help="a part of the workflow's name, or its id",
        ),
        click.option("--user", metavar="ID", default=None, help="only this user's executions"),
    )

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.command(cls=SettingsCommand)
@click.option("--errors", is_flag=True, help="only failed executions")
@click.option(
    "--interval", metavar="DURATION", default="5s", show_default=True, help="between two requests"
)
@json_option("one JSON object per line")
@_look_options("5m")
def tail(
    config: str | None,
    source: str | None,
    workflow: str | None,
    user: str | None,
    errors: bool,
    interval: str,
    as_json: bool,
    **flags: Any,
) -> None:
    """See executions as they end.

    Straight from the API: no checkpoint is touched and nothing is sent. Privacy settings apply.
    Of a failure it shows the block and the reason, where Alloy tells them within a few seconds.

    \b
    Examples:
      otel-alloy tail --errors
      otel-alloy tail --since 1h --workflow order --json
    """
    from rich.console import Console

    from otel_alloy.durations import parse_duration
    from otel_alloy.pipeline.query import Wanted
    from otel_alloy.runtime import system_runtime
    from otel_alloy.terminal.links import TraceLinks
    from otel_alloy.terminal.tail import run_tail

    try:
        seconds = parse_duration(interval)
    except ValueError as error:
        raise click.UsageError(f"--interval: {error}") from None
    if not 1 <= seconds <= 3600:
        raise click.UsageError("--interval: write a duration from 1s to 1h")
    settings = load(config, flags | {"user_id": user})
    interrupt_on_signals()
    console = Console(highlight=False)
    run_tail(
        settings,
        system_runtime(),
        source=source,
        wanted=Wanted(workflow, user, errors),
        since=settings.since or 0.0,
        interval=seconds,
        as_json=as_json,
        console=console,
        links=TraceLinks.on(console, settings.traces, os.environ),
        say=say,
    )


@click.command(cls=SettingsCommand)
@click.option("--by", type=Choice(["workflow", "customer"]), help="only this table")
@click.option(
    "--top", metavar="N", type=int, default=10, show_default=True, help="rows per table; 0 = all"
)
@json_option("one JSON document")
@_look_options("24h")
def summary(
    config: str | None,
    source: str | None,
    workflow: str | None,
    user: str | None,
    by: Literal["workflow", "customer"] | None,
    top: int,
    as_json: bool,
    **flags: Any,
) -> None:
    """Add up what ended, by workflow and customer, and why it failed.

    Straight from the API: no checkpoint is touched and nothing is sent. Privacy settings apply.
    Ctrl-C shows what was read until then.

    \b
    Examples:
      otel-alloy summary --since 7d
      otel-alloy summary --by customer --top 0 --json
    """
    from rich.console import Console

    from otel_alloy.pipeline.query import Wanted
    from otel_alloy.runtime import system_runtime
    from otel_alloy.terminal.links import TraceLinks
    from otel_alloy.terminal.summary import run_summary

    settings = load(config, flags | {"user_id": user})
    interrupt_on_signals()
    console = Console(highlight=False)
    run_summary(
        settings,
        system_runtime(),
        source=source,
        wanted=Wanted(workflow, user),
        since=settings.since or 0.0,
        by=by,
        top=top,
        as_json=as_json,
        console=console,
        errors=errors_console(),
        links=TraceLinks.on(console, settings.traces, os.environ),
        say=say,
    )
