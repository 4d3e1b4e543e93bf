"""The command `otel-alloy`: words in, words and exit codes out.

Exit codes: 0 fine, 1 failed at run time, 2 wrong usage or configuration, 3 refused by Alloy.
Only this module and those that show something (`console`, `demo`, `tail`, `summary`, `check`)
print. Heavy imports wait until their command runs.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from otel_alloy.errors import AccessRefused, AlloyReceiverError, ConfigurationError
from otel_alloy.version import __version__

if TYPE_CHECKING:
    from rich.console import Console

    from otel_alloy.checkpoint import Store
    from otel_alloy.config import Settings

F = TypeVar("F", bound=Callable[..., Any])
_NO_KEY_NEEDED = {"ALLOY_API_KEY": "not-needed-by-this-command"}


def main() -> None:
    """Runs the command line and exits."""
    try:
        commands.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ConfigurationError as error:
        _say("The configuration has to be corrected:")
        for mistake in error.mistakes:
            _say(f"  - {mistake}")
        sys.exit(2)
    except AlloyReceiverError as error:
        _say(f"Error: {error}")
        sys.exit(_exit_code(error))
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


def _exit_code(error: AlloyReceiverError) -> int:
    return {AccessRefused: 3, ConfigurationError: 2}.get(type(error), 1)


def _say(words: str) -> None:
    click.echo(words, err=True)


def _setting_options(command: F) -> F:
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
    return _config_option(command)


def _config_option(command: F) -> F:
    return click.option("--config", metavar="FILE", help="YAML file with settings")(command)


def _storage_options(command: F) -> F:
    command = click.option("--storage", default=None, help="where the checkpoint is kept")(command)
    return _config_option(command)


def _load(config: str | None, flags: dict[str, Any], *, key_needed: bool = True) -> Settings:
    from otel_alloy.config import load_settings

    environment = dict(os.environ)
    if not key_needed:
        environment = {**_NO_KEY_NEEDED, **environment}
    return load_settings(flags, environment, file=config)


def _store(config: str | None, storage: str | None, *, exclusive: bool) -> Store:
    from otel_alloy.checkpoint import open_store

    settings = _load(config, {"storage": storage}, key_needed=False)
    return open_store(settings.storage, exclusive=exclusive)


def _stop_on_signals(stop: Callable[[], None]) -> None:
    """First SIGTERM or SIGINT: an orderly end. A second SIGINT ends at once."""

    def handle(number: int, frame: object) -> None:
        stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def _errors_console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="otel-alloy")
def commands() -> None:
    """Executions of Alloy (runalloy.com) as OpenTelemetry spans and log records."""


@commands.command()
@_setting_options
@click.option("--once", is_flag=True, help="settle what there is now, then end")
def run(config: str | None, once: bool, **flags: Any) -> None:
    """Receive executions and deliver them over OTLP."""
    from otel_alloy.console import ConsoleHandler, RunView
    from otel_alloy.events import tell_all
    from otel_alloy.logs import JsonLines, Lines, masked, set_up
    from otel_alloy.operate import Operated
    from otel_alloy.receiver import Receiver, tune_garbage_collector

    settings = _load(config, flags)
    console = _errors_console()
    as_json = settings.log_format == "json"
    mask = masked(settings)
    set_up(ConsoleHandler(console), JsonLines(mask) if as_json else Lines(mask))
    asked_to_end = threading.Event()
    _stop_on_signals(asked_to_end.set)  # before anything can be seen to be up
    try:
        with (
            RunView(console, bar=not as_json) as view,
            Operated(settings, os.environ, serve=not once) as operated,
        ):
            tune_garbage_collector()
            receiver = Receiver(settings, observe=tell_all(view, operated.observe))

            def stop() -> None:
                operated.stopping()
                receiver.stop()

            _stop_on_signals(stop)
            if asked_to_end.is_set():
                stop()
            receiver.run(once=once)
    except AlloyReceiverError as error:
        if not as_json:
            raise
        logging.getLogger("otel_alloy").error("%s", error)
        sys.exit(_exit_code(error))
    if once:
        click.echo(view.totals.sentence())


@commands.command()
@_setting_options
@click.option("--from", "begin", metavar="WHEN", required=True, help="from here on: 60d, or a time")
@click.option(
    "--to",
    "end",
    metavar="WHEN",
    default=None,
    help="up to here; default: where `run` began, else now",
)
@click.option("--source", metavar="NAME", default=None, help="only this source")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="time slices read at once",
)
@click.option("--dry-run", is_flag=True, help="say how many requests and how long, then end")
@click.option("--restart", is_flag=True, help="forget an earlier backfill, finished or not")
def backfill(
    config: str | None,
    begin: str,
    end: str | None,
    source: str | None,
    workers: int,
    dry_run: bool,
    restart: bool,
    **flags: Any,
) -> None:
    """Deliver the executions of a past time (createdAt), also beside a running `run`.

    The same command goes on where an earlier one was ended, however that was.
    """
    from otel_alloy.backfill import Backfill, Range
    from otel_alloy.config import parse_moment
    from otel_alloy.console import BackfillView, ConsoleHandler
    from otel_alloy.logs import JsonLines, Lines, masked, set_up
    from otel_alloy.look import chosen_sources
    from otel_alloy.receiver import tune_garbage_collector

    moments: dict[str, int | float | None] = {}
    for option, text in (("--from", begin), ("--to", end)):
        try:
            moments[option] = None if text is None else parse_moment(text)
        except ValueError as error:
            raise click.UsageError(f"{option}: {error}") from None
    words = f"--from {begin}" + ("" if end is None else f" --to {end}")
    wanted = Range(moments["--from"] or 0.0, moments["--to"], words)
    settings = _load(config, flags)
    console = _errors_console()
    as_json = settings.log_format == "json"
    mask = masked(settings)
    set_up(ConsoleHandler(console), JsonLines(mask) if as_json else Lines(mask))
    with BackfillView(console, bar=not as_json and not dry_run) as view:
        work = Backfill(
            settings,
            chosen_sources(settings, source),
            wanted,
            workers=workers,
            processes=os.cpu_count() or 1,
            restart=restart,
            observe=view,
        )
        if dry_run:
            _interrupt_on_sigterm()
            for estimate in work.estimate():
                click.echo(estimate.sentence())
            return
        _stop_on_signals(work.stop)
        tune_garbage_collector()
        try:
            finished = work.run()
        except AlloyReceiverError as error:
            if not as_json:
                raise
            logging.getLogger("otel_alloy").error("%s", error)
            sys.exit(_exit_code(error))
    click.echo(view.sentence())
    if not finished:
        _say("stopped before the end; the same command goes on from here")


@commands.command()
@click.option("--seconds", default=20.0, show_default=True, help="how long it runs")
@click.option("--otlp-endpoint", default=None, help="send to this OTLP endpoint instead")
def demo(seconds: float, otlp_endpoint: str | None) -> None:
    """See it work: simulated Alloy, receiver and OTLP endpoint, all on this machine."""
    import tempfile

    from rich.console import Console

    from otel_alloy.config import load_settings
    from otel_alloy.demo import run_demo
    from otel_alloy.receiver import Receiver

    kept = {k: v for k, v in os.environ.items() if k.startswith("OTEL_EXPORTER_OTLP_")}

    def run_receiver(alloy: str, otlp: str, stop: threading.Event) -> None:
        with tempfile.TemporaryDirectory() as folder:
            environment = dict(kept) if otlp_endpoint else {}
            environment |= {"ALLOY_API_KEY": "demo", "ALLOY_ENDPOINT": alloy}
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = otlp
            flags = {
                "storage": f"sqlite:///{folder}/demo.db",
                "collection_interval": 1,
                "requests_per_minute": 0,
            }
            receiver = Receiver(load_settings(flags, environment))

            def end() -> None:
                stop.wait()
                receiver.stop()

            threading.Thread(target=end, daemon=True).start()
            receiver.run()

    raise SystemExit(
        run_demo(
            seconds=seconds,
            otlp_endpoint=otlp_endpoint,
            console=Console(),
            run_receiver=run_receiver,
        )
    )


@commands.command()
@click.option("--port", default=8080, show_default=True, help="port on 127.0.0.1; 0 = a free one")
@click.option("--executions", default=500, show_default=True, help="executions of the past day")
@click.option("--rate", default=1.0, show_default=True, help="new executions per second")
@click.option("--seed", default=1, show_default=True, help="same seed, same data")
@click.option("--max-limit", type=int, default=None, help="clamp pages to this many records")
@click.option("--ignore-filters", is_flag=True, help="answer as if no filter was given")
@click.option("--api-key", default=None, help="the only key to accept; default: any")
def simulate(
    port: int,
    executions: int,
    rate: float,
    seed: int,
    max_limit: int | None,
    ignore_filters: bool,
    api_key: str | None,
) -> None:
    """Serve a stand-in of Alloy's GET /logs, for dry runs without an account."""
    import time

    from otel_alloy.simulator import Config, Simulator, Traffic, live, timeline

    config = Config(api_key=api_key, max_limit=max_limit, ignore_filters=ignore_filters, seed=seed)
    stop = threading.Event()
    _stop_on_signals(stop.set)
    try:
        simulator = Simulator(config, port=port)
        now = time.time()
        traffic = Traffic(seed=seed)
        simulator.store.feed(timeline(executions, start=now - 86400, end=now, traffic=traffic))
        if rate > 0:
            simulator.store.feed(live(start=now, rate=rate, traffic=Traffic(seed=seed + 1)))
        simulator.start()
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on port {port} ({error.strerror}); choose another with --port"
        ) from None
    try:
        click.echo(f"Simulated Alloy at {simulator.endpoint}/logs, Ctrl-C ends it. Try:")
        click.echo(
            f"  ALLOY_API_KEY={api_key or 'any'} ALLOY_ENDPOINT={simulator.endpoint} "
            "otel-alloy run --once --since 1d"
        )
        while not stop.wait(0.5):
            pass
    finally:
        simulator.stop()


@commands.command("id")
@click.argument("execution_uuid")
@click.option("--json", "as_json", is_flag=True, help="as JSON")
def id_(execution_uuid: str, as_json: bool) -> None:
    """The trace id and span id of an execution, from its executionUuid."""
    from otel_alloy.mapping.ids import execution_ids

    trace_id, span_id = execution_ids(execution_uuid)
    if as_json:
        click.echo(json.dumps({"trace_id": trace_id.hex(), "span_id": span_id.hex()}))
    else:
        click.echo(f"trace_id {trace_id.hex()}\nspan_id  {span_id.hex()}")


@commands.command()
@_setting_options
@click.option("--send-test", is_flag=True, help="also send one marked span and log record")
@click.option("--json", "as_json", is_flag=True, help="as JSON")
def check(config: str | None, send_test: bool, as_json: bool, **flags: Any) -> None:
    """Try configuration, API and collector, and say what to do."""
    from otel_alloy.check import run_check

    raise SystemExit(run_check(_load(config, flags), send_test=send_test, as_json=as_json))


def _look_options(since: str) -> Callable[[F], F]:
    """What `tail` and `summary` share; `since` is the default of --since."""
    options = (
        _config_option,
        click.option("--endpoint", default=None, help="base URL of the API"),
        click.option("--source", metavar="NAME", default=None, help="only this source"),
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


def _interrupt_on_sigterm() -> None:
    """SIGTERM ends a look as Ctrl-C does; nothing has to be settled."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@commands.command()
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
    settings = _load(config, flags | {"user_id": user})
    _interrupt_on_sigterm()
    run_tail(
        settings,
        source=source,
        wanted=Wanted(workflow, user, errors),
        since=settings.since or 0.0,
        interval=seconds,
        as_json=as_json,
        console=Console(highlight=False),
        say=_say,
    )


@commands.command()
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

    settings = _load(config, flags | {"user_id": user})
    _interrupt_on_sigterm()
    complete = run_summary(
        settings,
        source=source,
        wanted=Wanted(workflow, user),
        since=settings.since or 0.0,
        by=by,
        top=top,
        as_json=as_json,
        console=Console(highlight=False),
        errors=_errors_console(),
        say=_say,
    )
    raise SystemExit(0 if complete else 130)


@commands.group()
def checkpoint() -> None:
    """Look at the checkpoint, or move it by hand."""


@checkpoint.command("show")
@_storage_options
@click.option("--json", "as_json", is_flag=True, help="as JSON")
def checkpoint_show(config: str | None, storage: str | None, as_json: bool) -> None:
    """How far each source is settled."""
    from otel_alloy.alloy.timestamps import to_text

    with closing(_store(config, storage, exclusive=False)) as store:
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
@click.argument("source")
@click.argument("moment")
@_storage_options
def checkpoint_set(source: str, moment: str, config: str | None, storage: str | None) -> None:
    """Begin SOURCE at MOMENT (createdAt): a timestamp, or how long ago (6h). What lies after it
    is delivered again, with the same bytes."""
    import time

    from otel_alloy.alloy.timestamps import to_text
    from otel_alloy.config import parse_moment

    try:
        when = parse_moment(moment)
    except ValueError as error:
        raise click.UsageError(f"MOMENT: {error}") from None
    high = when if isinstance(when, int) else int((time.time() - when) * 1000)
    with closing(_store(config, storage, exclusive=True)) as store:
        store.set_high(source, high)
    click.echo(f"{source}: begins at {to_text(high)}")


@checkpoint.command("reset")
@click.argument("source")
@_storage_options
def checkpoint_reset(source: str, config: str | None, storage: str | None) -> None:
    """Forget SOURCE: it begins anew, by initial_lookback or --since."""
    with closing(_store(config, storage, exclusive=True)) as store:
        if not store.reset(source):
            known = ", ".join(store.sources()) or "none"
            raise click.ClickException(f"no source {source!r} in the checkpoint; known: {known}")
    click.echo(f"{source}: forgotten")


@commands.group()
def rejected() -> None:
    """Records that nobody took: look, send again, drop."""


@rejected.command("list")
@_storage_options
@click.option("--json", "as_json", is_flag=True, help="as JSON, with the records themselves")
def rejected_list(config: str | None, storage: str | None, as_json: bool) -> None:
    """The records set aside, oldest first."""
    from dataclasses import asdict

    from otel_alloy.alloy.timestamps import to_text

    with closing(_store(config, storage, exclusive=False)) as store:
        records = store.rejected()
    if as_json:
        click.echo(json.dumps([asdict(r) for r in records]))
        return
    if not records:
        click.echo("nothing is set aside")
    for r in records:
        click.echo(f"{r.number}  {to_text(r.at)}  {r.source}  {r.signals}  {r.reason}")


@rejected.command("retry")
@click.argument("numbers", nargs=-1, type=int)
@_storage_options
def rejected_retry(numbers: tuple[int, ...], config: str | None, storage: str | None) -> None:
    """Send records again: NUMBERS, or all."""
    from otel_alloy.otlp.outcome import Stopped
    from otel_alloy.rejected import retry_rejected

    settings = _load(config, {"storage": storage}, key_needed=False)
    stop = threading.Event()
    _stop_on_signals(stop.set)
    with closing(_store(config, storage, exclusive=False)) as store:
        try:
            result = retry_rejected(settings, store, numbers, stop)
        except Stopped:
            raise click.ClickException("stopped; what was not delivered is still there") from None
    for number, why in result.refused.items():
        click.echo(f"{number}  refused again: {why}")
    click.echo(f"{len(result.delivered)} delivered, {len(result.refused)} still set aside")
    raise SystemExit(1 if result.refused else 0)


@rejected.command("drop")
@click.argument("numbers", nargs=-1, type=int)
@click.option("--all", "everything", is_flag=True, help="drop all of them")
@_storage_options
def rejected_drop(
    numbers: tuple[int, ...], everything: bool, config: str | None, storage: str | None
) -> None:
    """Delete records for good."""
    if bool(numbers) == everything:
        raise click.UsageError("give the NUMBERS to drop, or --all")
    with closing(_store(config, storage, exclusive=False)) as store:
        chosen = [r.number for r in store.rejected()] if everything else list(numbers)
        click.echo(f"{store.drop_rejected(chosen)} dropped")
