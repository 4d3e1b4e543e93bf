"""The commands that need no account and no configuration: `demo`, `simulate` and `id`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from otel_alloy.cli.options import SettingsCommand, json_option, setting_option
from otel_alloy.cli.terminal import Signals, interrupt_on_signals, page_opened, say

if TYPE_CHECKING:
    from otel_alloy.runtime import Runtime
    from otel_alloy.settings.models import Settings
    from otel_alloy.terminal.demo import Stage


_SECONDS, _SECONDS_WITH_A_PAGE = 20.0, 300.0


@click.command(cls=SettingsCommand)
@click.option(
    "--seconds",
    metavar="N",
    type=float,
    default=None,
    help=f"how long it runs  [default: {_SECONDS:.0f}; with --open {_SECONDS_WITH_A_PAGE:.0f}]",
)
@click.option(
    "--otlp-endpoint", metavar="URL", default=None, help="send to this OTLP endpoint instead"
)
@click.option("--open", "open_it", is_flag=True, help="open its page in a browser")
@setting_option("trace_url")
def demo(
    seconds: float | None, otlp_endpoint: str | None, open_it: bool, trace_url: str | None
) -> None:
    """See it work, with all of it on this machine.

    Simulated Alloy, receiver and OTLP endpoint; neither account nor collector is needed. With an
    endpoint of your own, --trace-url makes trace ids links.

    \b
    Examples:
      otel-alloy demo
      otel-alloy demo --open
      otel-alloy demo --seconds 60 --otlp-endpoint http://localhost:4318
    """
    from rich.console import Console

    from otel_alloy.network import VARIABLES as NETWORK_VARIABLES
    from otel_alloy.runtime import system_runtime
    from otel_alloy.terminal.demo import run_demo
    from otel_alloy.terminal.links import TraceLinks

    runtime, console = system_runtime(), Console()
    if seconds is None:
        seconds = _SECONDS_WITH_A_PAGE if open_it else _SECONDS
    ours = ("OTEL_EXPORTER_OTLP_", "OTEL_ALLOY_TRACE_URL") if otlp_endpoint is not None else ()
    kept = {n: v for n, v in os.environ.items() if n in NETWORK_VARIABLES or n.startswith(ours)}
    # A link would lead nowhere where no backend of the user's gets what it is about.
    receiver = _DemoReceiver(runtime, kept, trace_url if otlp_endpoint else None, open_it=open_it)
    settings = receiver.settings("http://localhost", otlp_endpoint or "http://localhost")
    interrupt_on_signals()
    raise SystemExit(
        run_demo(
            runtime=runtime,
            seconds=seconds,
            otlp_endpoint=otlp_endpoint,
            links=TraceLinks.on(console, settings.traces, os.environ),
            console=console,
            run_receiver=receiver,
        )
    )


class _DemoReceiver:
    """The receiver of the demo, with its page and a checkpoint that is gone afterwards.
    `environment`: the variables of the process that count in it."""

    def __init__(
        self,
        runtime: Runtime,
        environment: Mapping[str, str],
        trace_url: str | None,
        *,
        open_it: bool,
    ) -> None:
        self._runtime = runtime
        self._environment = environment
        self._trace_url = trace_url
        self._open_it = open_it

    def settings(self, alloy: str, otlp: str, folder: str = "") -> Settings:
        """Raises ConfigurationError."""
        from otel_alloy.settings.loader import load_settings
        from otel_alloy.terminal.demo import LOOKBACK_SECONDS

        flags = {
            "storage": f"sqlite:///{folder}/demo.db",
            "collection_interval": 1,
            "initial_lookback": LOOKBACK_SECONDS,
            "requests_per_minute": 0,
            "enrich_timeout": 2,  # a demo is short, and simulated Alloy is quick
            "health_endpoint": "127.0.0.1:0",
            "trace_url": self._trace_url,
        }
        own = {"ALLOY_API_KEY": "demo", "ALLOY_ENDPOINT": alloy}
        return load_settings(
            flags, {**self._environment, **own, "OTEL_EXPORTER_OTLP_ENDPOINT": otlp}
        )

    def __call__(self, stage: Stage) -> None:
        """Receives until the stage says that it is over."""
        import tempfile

        from otel_alloy.observability.service import Operated
        from otel_alloy.pipeline.events import Settled, tell_all
        from otel_alloy.pipeline.receiver import Receiver

        def settled(event: object) -> None:
            if isinstance(event, Settled):
                stage.settle(event.ended())

        with tempfile.TemporaryDirectory() as folder:
            settings = self.settings(stage.alloy, stage.otlp, folder)
            with Operated(settings, self._runtime, {}) as operated:
                if operated.page_url is not None:
                    opened = page_opened if self._open_it else "page: {}".format
                    stage.page(opened(operated.page_url))
                receiver = Receiver(settings, observe=tell_all(settled, operated.observe))

                def end() -> None:
                    stage.stop.wait()
                    receiver.stop()

                self._runtime.spawn(end, "otel-alloy-demo-end")
                receiver.run()


@click.command()
@click.option(
    "--port", metavar="N", default=8080, show_default=True, help="port on 127.0.0.1; 0 = a free one"
)
@click.option(
    "--executions",
    metavar="N",
    default=500,
    show_default=True,
    help="executions of the past two days",
)
@click.option(
    "--rate", metavar="N", default=1.0, show_default=True, help="new executions per second"
)
@click.option(
    "--never-ends",
    metavar="SHARE",
    type=click.FloatRange(0, 1),
    default=0.005,
    show_default=True,
    help="of executions that start and never end: outcome incomplete after a day",
)
@click.option("--seed", metavar="N", default=1, show_default=True, help="same seed, same data")
@click.option(
    "--max-limit", metavar="N", type=int, default=None, help="clamp pages to this many records"
)
@click.option("--ignore-filters", is_flag=True, help="answer as if no filter was given")
@click.option("--api-key", metavar="KEY", default=None, help="the only key to accept; default: any")
def simulate(
    port: int,
    executions: int,
    rate: float,
    never_ends: float,
    seed: int,
    max_limit: int | None,
    ignore_filters: bool,
    api_key: str | None,
) -> None:
    """Serve a stand-in of Alloy's GET /logs.

    For dry runs without an account. Names are invented; failures come in clusters, as where an app
    is down or a user's connection has expired. Ctrl-C ends it.

    \b
    Examples:
      otel-alloy simulate
      otel-alloy simulate --port 9000 --executions 5000 --max-limit 30
    """
    from otel_alloy.runtime import system_runtime
    from otel_alloy.testing.simulator import Config, Simulator, Traffic, live, timeline

    config = Config(api_key=api_key, max_limit=max_limit, ignore_filters=ignore_filters, seed=seed)
    runtime = system_runtime()
    signals = Signals(runtime.stop)
    try:
        simulator = Simulator(config, clock=runtime.clock, port=port)
        now = runtime.clock()
        traffic = Traffic(seed=seed, clustered=0.7, never_ends=never_ends)
        simulator.store.feed(timeline(executions, start=now - 172_800, end=now, traffic=traffic))
        if rate > 0:
            simulator.store.feed(live(start=now, rate=rate, traffic=traffic))
        simulator.start()
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on port {port} ({error.strerror}); choose another with --port"
        ) from None
    try:
        click.echo(f"Simulated Alloy at {simulator.endpoint}/logs, Ctrl-C ends it. Try:")
        click.echo(
            f"  ALLOY_API_KEY={api_key or 'any'} ALLOY_ENDPOINT={simulator.endpoint} "
            "otel-alloy run --once --since 2d"
        )
        while not runtime.wait(60.0):
            pass
    finally:
        simulator.stop()
    raise SystemExit(signals.code(0))


_AROUND = re.compile(r"(?i)\A\s*(x-alloy-executionuuid\s*:)?[\s\"'`]*|[\s\"'`,;]*\Z")
_UUID = re.compile(r"[A-Za-z0-9_-]{18,23}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_OTHERS = {
    24: "is like an executionId; its ids are these only where Alloy gave no executionUuid",
    32: "is like a trace id, which is what comes out here, not what goes in",
    16: "is like a span id, which is what comes out here, not what goes in",
}
"""What hexadecimal digits of a length are."""


@click.command("id")
@click.argument("execution_uuid")
@json_option("one JSON document")
def id_(execution_uuid: str, as_json: bool) -> None:
    """Tell the trace id and span id of an execution.

    They are computed from its executionUuid, which Alloy sends to your services in the header
    X-Alloy-ExecutionUuid. Any text has ids: one that does not look like Alloy's gets a warning.

    \b
    Example:
      otel-alloy id 35SnGU0DUSNP5L26fsmnq
    """
    from otel_alloy.mapping.ids import execution_ids

    uuid = _AROUND.sub("", execution_uuid)
    if not uuid:
        raise click.UsageError("EXECUTION_UUID is empty; give one such as 35SnGU0DUSNP5L26fsmnq")
    if uuid != execution_uuid:
        say(f"Note: taken without what stands around it: {uuid}")
    if not _UUID.fullmatch(uuid):
        kind = _OTHERS.get(len(uuid)) if re.fullmatch(r"[0-9a-fA-F]+", uuid) else None
        usual = "does not look like an executionUuid of Alloy, such as 35SnGU0DUSNP5L26fsmnq"
        say(
            f"Warning: this {kind or usual}. The ids lead to a trace only if Alloy sent exactly "
            "this as executionUuid"
        )
    trace_id, span_id = execution_ids(uuid)
    if as_json:
        import json

        click.echo(json.dumps({"trace_id": trace_id.hex(), "span_id": span_id.hex()}))
    else:
        click.echo(f"trace_id {trace_id.hex()}\nspan_id  {span_id.hex()}")
