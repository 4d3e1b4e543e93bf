"""The commands that look and settle nothing: `check`, `tail` and `summary`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import click

from otel_alloy.cli.options import F, config_option, load, setting_options, source_option
from otel_alloy.cli.terminal import errors_console, interrupt_on_sigterm, say


@click.command()
@setting_options
@click.option("--send-test", is_flag=True, help="also send one marked span and log record")
@click.option("--json", "as_json", is_flag=True, help="as JSON")
def check(config: str | None, send_test: bool, as_json: bool, **flags: Any) -> None:
    """Try configuration, API and collector, and say what to do."""
    from otel_alloy.check.show import run_check

    raise SystemExit(run_check(load(config, flags), send_test=send_test, as_json=as_json))


def _look_options(since: str) -> Callable[[F], F]:
    """What `tail` and `summary` share; `since` is the default of --since."""
    options = (
        config_option,
        click.option("--endpoint", default=None, help="base URL of the API"),
        source_option,
        click.option("--page-size", default=None, help="records asked for per request"),
        click.option("--requests-per-minute", default=None, help="request budget; 0 = no limit"),
        click.option(
            "--since",
            metavar="MOMENT",
            default=since,
            show_default=True,
            help="how far back to begin (24h), or a timestamp",
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


@click.command()
@_look_options("5m")
@click.option("--errors", is_flag=True, help="only failed executions")
@click.option("--interval", default="5s", show_default=True, help="between two looks")
@click.option("--json", "as_json", is_flag=True, help="one JSON object per line")
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
    """See executions as they end, straight from the API.

    No checkpoint is touched and nothing is sent. Privacy settings apply.
    """
    from rich.console import Console

    from otel_alloy.config import parse_duration
    from otel_alloy.look import Wanted
    from otel_alloy.tail import run_tail

    try:
        seconds = parse_duration(interval)
    except ValueError as error:
        raise click.UsageError(f"--interval: {error}") from None
    if not 1 <= seconds <= 3600:
        raise click.UsageError("--interval: write a duration from 1s to 1h")
    settings = load(config, flags | {"user_id": user})
    interrupt_on_sigterm()
    run_tail(
        settings,
        source=source,
        wanted=Wanted(workflow, user, errors),
        since=settings.since or 0.0,
        interval=seconds,
        as_json=as_json,
        console=Console(highlight=False),
        say=say,
    )


@click.command()
@_look_options("24h")
@click.option("--by", type=click.Choice(["workflow", "customer"]), help="only this table")
@click.option("--top", default=10, show_default=True, help="rows per table; 0 = all")
@click.option("--json", "as_json", is_flag=True, help="one JSON document")
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
    """Add up what ended, by workflow and customer, straight from the API.

    No checkpoint is touched and nothing is sent. Privacy settings apply. Ctrl-C shows what was
    read until then.
    """
    from rich.console import Console

    from otel_alloy.look import Wanted
    from otel_alloy.summary import run_summary

    settings = load(config, flags | {"user_id": user})
    interrupt_on_sigterm()
    complete = run_summary(
        settings,
        source=source,
        wanted=Wanted(workflow, user),
        since=settings.since or 0.0,
        by=by,
        top=top,
        as_json=as_json,
        console=Console(highlight=False),
        errors=errors_console(),
        say=say,
    )
    raise SystemExit(0 if complete else 130)
