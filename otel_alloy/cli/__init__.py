"""The command `otel-alloy`: words in, words and exit codes out.

Exit codes: 0 fine, 1 failed at run time, 2 wrong usage or configuration, 3 refused by Alloy, 130
after Ctrl-C, 143 after SIGTERM where that is no orderly end. The commands are put together here,
and their errors printed; what they share is in `options`, `loading` and `terminal`.
Only this package and `terminal` print.
Heavy imports wait until their command runs.
"""

from __future__ import annotations

import os
import sys

import click

from otel_alloy.cli.completion import completion
from otel_alloy.cli.config import config
from otel_alloy.cli.destinations import destinations
from otel_alloy.cli.look import check, health, summary, tail
from otel_alloy.cli.meant import Commands, option_meant
from otel_alloy.cli.receive import backfill, run
from otel_alloy.cli.replicas import replicas
from otel_alloy.cli.storage import storage
from otel_alloy.cli.store import audit, checkpoint, rejected
from otel_alloy.cli.terminal import exit_code, interrupted_code, say
from otel_alloy.cli.tryout import demo, id_, simulate
from otel_alloy.errors import AlloyReceiverError, ConfigurationError
from otel_alloy.version import __version__


def main() -> None:
    """Runs the command line and exits."""
    # httpx brings a command line of its own, and with it more than it takes itself. Without that
    # it does as where what it needs is not installed.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    # gRPC's core writes lines of its own between ours; what it says of a failure comes with that.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        commands.main(prog_name="otel-alloy", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.Abort as abort:
        # Nobody to ask, or "no" to a question, is an end that the user chose.
        asked = isinstance(abort.__context__, KeyboardInterrupt)
        sys.exit(interrupted_code(abort.__context__) if asked else 1)
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption):
            error = option_meant(error)
        error.show()
        sys.exit(error.exit_code)
    except ConfigurationError as error:
        say("The configuration has to be corrected:")
        for mistake in error.mistakes:
            say(f"  - {mistake}".replace("\n", "\n    "))
        sys.exit(2)
    except AlloyReceiverError as error:
        say(f"Error: {error}")
        sys.exit(exit_code(error))
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
To begin: `otel-alloy demo` shows all of it, `otel-alloy check` tries yours.
The settings are listed by `otel-alloy run --help`. Exit codes: 0 fine,
1 failed at run time, 2 wrong usage or configuration, 3 refused by Alloy.""",
)
@click.version_option(__version__, prog_name="otel-alloy")
def commands() -> None:
    """Executions of Alloy (runalloy.com) as OpenTelemetry spans and log records."""


for _command in (
    *(run, backfill, config, check, health, tail, summary),
    *(checkpoint, rejected, audit, storage, replicas),
    destinations,
    *(demo, simulate, id_),
    completion,
):
    commands.add_command(_command)
