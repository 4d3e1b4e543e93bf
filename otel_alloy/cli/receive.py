"""The commands that deliver executions: `run`, and `backfill` for a past time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from otel_alloy.cli.completion import destinations
from otel_alloy.cli.loading import load
from otel_alloy.cli.options import SETTINGS_NOTE, SettingsCommand, setting_options, source_option
from otel_alloy.cli.terminal import (
    Signals,
    errors_terminal,
    exit_code,
    interrupt_on_signals,
    page_opened,
    reload_on_signal,
)
from otel_alloy.errors import AlloyReceiverError

_MARGIN_SECONDS = 1.0
"""The work itself gives up after the timeout, and then says so."""

if TYPE_CHECKING:
    from rich.console import Console

    from otel_alloy.runtime import Runtime
    from otel_alloy.settings.models import Settings


def _log_to(console: Console | None, settings: Settings, runtime: Runtime) -> None:
    """Logs to standard error as `log_format` says, lines or JSON: above what `console` shows, where
    that is a terminal."""
    import logging

    from otel_alloy.observability.logging import JsonLines, Lines, masked, set_up
    from otel_alloy.terminal.progress import ConsoleHandler

    mask, traces, json = masked(settings), settings.traces, settings.log_format == "json"
    handler: logging.Handler = logging.StreamHandler()
    if console is not None:
        from otel_alloy.terminal.links import TraceLinks

        links = TraceLinks.on(console, None if json else traces, os.environ)
        handler = ConsoleHandler(console, links)
        if links.hyperlinks:
            traces = None  # an id is a link as it stands
    set_up(handler, (JsonLines if json else Lines)(mask, traces), runtime.monotonic)


@contextmanager
def _errors_logged(settings: Settings) -> Iterator[None]:
    """If the log is JSON, so is the error that ends the command."""
    try:
        yield
    except AlloyReceiverError as error:
        if settings.log_format != "json":
            raise
        import logging

        logging.getLogger("otel_alloy").error("%s", error)
        sys.exit(exit_code(error))


@click.command(cls=SettingsCommand, epilog=SETTINGS_NOTE)
@click.option("--once", is_flag=True, help="settle what there is now, then end")
@click.option(
    "--open", "open_it", is_flag=True, help="open the page of health_endpoint in a browser"
)
@setting_options
def run(config: str | None, once: bool, open_it: bool, **flags: Any) -> None:
    """Receive executions and deliver them over OTLP.

    Ctrl-C or SIGTERM ends it in order: what is in flight is settled. SIGHUP has the folder of
    destinations read anew.

    \b
    Examples:
      otel-alloy run
      otel-alloy run --open
      otel-alloy run --once --since 60d
      otel-alloy run --config settings.yaml --log-format json
    """
    from otel_alloy.observability.service import Operated
    from otel_alloy.pipeline.events import tell_all
    from otel_alloy.pipeline.receiver import Receiver, tune_garbage_collector
    from otel_alloy.runtime import system_runtime
    from otel_alloy.terminal.progress import RunView
    from otel_alloy.webhook.reception import error_webhook

    if open_it and once:
        raise click.UsageError("--open: with --once there is no page; leave one of them out")
    settings = load(config, flags, warn=False)  # what does the work says it, in the log
    if open_it and not settings.health_endpoint:
        raise click.UsageError(
            "--open: there is no page, as health_endpoint is off; give it an address, such as "
            "127.0.0.1:8089"
        )
    console = errors_terminal()
    runtime = system_runtime()
    _log_to(console, settings, runtime)
    signals = Signals(runtime.stop)  # before anything can be seen to be up
    with (
        _errors_logged(settings),
        RunView(console, runtime.monotonic, bar=settings.log_format != "json") as view,
        Operated(settings, runtime, os.environ, serve=not once) as operated,
        error_webhook(settings, runtime, operated.observe, serve=not once),
    ):
        tune_garbage_collector()
        if open_it and operated.page_url is not None:
            import logging

            logging.getLogger("otel_alloy").info("%s", page_opened(operated.page_url))
        receiver = Receiver(settings, observe=tell_all(view, operated.observe))

        def stop() -> None:
            operated.stopping()
            receiver.stop()
            runtime.stop()

        signals.stop_with(stop)
        if settings.destinations_dir:
            reload_on_signal(receiver.reload)
        if runtime.stopping():
            stop()
        done = receiver.run(once=once)
    if once:
        click.echo(view.totals.sentence())
    if not done:
        words = "stopped before what was on its way was settled; the next start sends it again"
        if once:
            words = "stopped before the end; the same command goes on from here"
        with _errors_logged(settings):
            raise signals.unfinished(words)
    raise SystemExit(signals.code(0))


def _patiently(work: Callable[[], bool], runtime: Runtime, patience: float) -> bool:
    """What `work` says or raises; False where it goes on for so many seconds after the end was
    asked for, as where the first requests are not answered."""
    from otel_alloy.pipeline.receiver import wait_for_end

    said: list[bool] = []
    failures: list[BaseException] = []

    def task() -> None:
        try:
            said.append(work())
        except BaseException as error:
            failures.append(error)

    if not wait_for_end([runtime.spawn(task, "otel-alloy-backfill")], runtime, patience):
        return False
    if failures:
        raise failures[0]
    return said[0]


@click.command(cls=SettingsCommand, epilog=SETTINGS_NOTE)
@click.option("--from", "begin", metavar="MOMENT", required=True, help="from here on")
@click.option(
    "--to",
    "end",
    metavar="MOMENT",
    default=None,
    help="up to here; default: where `run` began, else now",
)
@source_option
@click.option(
    "--destination",
    metavar="NAME",
    default=None,
    shell_complete=destinations,
    help="to this destination alone, what is its own; default: to the main one",
)
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="time slices read at once",
)
@click.option("--dry-run", is_flag=True, help="say how many requests and how long, then end")
@click.option("--restart", is_flag=True, help="forget an earlier backfill, finished or not")
@setting_options
def backfill(
    config: str | None,
    begin: str,
    end: str | None,
    source: str | None,
    destination: str | None,
    workers: int,
    dry_run: bool,
    restart: bool,
    **flags: Any,
) -> None:
    """Deliver the executions of a past period.

    The period is one of createdAt. It may work beside a running `run`. The same command goes on
    where an earlier one ended, however that came about.

    \b
    Examples:
      otel-alloy backfill --from 60d --dry-run
      otel-alloy backfill --from 2026-01-01 --to 2026-02-01 --workers 4
      otel-alloy backfill --from 60d --destination acme
    """
    from otel_alloy.pipeline.backfill import Backfill, Range
    from otel_alloy.pipeline.query import chosen_sources
    from otel_alloy.pipeline.receiver import tune_garbage_collector
    from otel_alloy.runtime import system_runtime
    from otel_alloy.settings.models import parse_moment
    from otel_alloy.terminal.progress import BackfillView

    moments: dict[str, int | float | None] = {}
    for option, text in (("--from", begin), ("--to", end)):
        try:
            moments[option] = None if text is None else parse_moment(text)
        except ValueError as error:
            raise click.UsageError(f"{option}: {error}") from None
    words = f"--from {begin}" + ("" if end is None else f" --to {end}")
    wanted = Range(moments["--from"] or 0.0, moments["--to"], words)
    settings = load(config, flags, warn=False)  # what does the work says it, in the log
    console = errors_terminal()
    runtime = system_runtime()
    _log_to(console, settings, runtime)
    bar = settings.log_format != "json" and not dry_run
    with BackfillView(console, runtime.monotonic, bar=bar) as view:
        work = Backfill(
            settings,
            chosen_sources(settings, source),
            wanted,
            workers=workers,
            processes=os.cpu_count() or 1,
            restart=restart,
            observe=view,
            destination=destination,
        )
        if dry_run:
            interrupt_on_signals()
            for estimate in work.estimate():
                click.echo(estimate.sentence())
            return

        def stop() -> None:
            work.stop()
            runtime.stop()

        signals = Signals(stop)
        tune_garbage_collector()
        with _errors_logged(settings):
            finished = _patiently(work.run, runtime, settings.shutdown_timeout + _MARGIN_SECONDS)
    click.echo(view.sentence())
    for words in view.counted():
        click.echo(words)
    with _errors_logged(settings):
        if not finished:
            raise signals.unfinished("stopped before the end; the same command goes on from here")
        if view.missing:
            raise AlloyReceiverError(
                f"Alloy counts {view.missing:,} more in the range than it gave: they became "
                "visible only after their part of it was read, or cannot be had",
                "the same command with --restart reads all of it again, and delivers what came "
                "already with the same bytes",
            )
    raise SystemExit(signals.code(0))
