"""Completion in the shell: the scripts, which are click's, and the values that only we know.

A shell asks in the middle of a line, so failures are silent: there is no message and no traceback,
and nothing is created.
"""

from __future__ import annotations

from contextlib import suppress

import click
from click.shell_completion import CompletionItem, get_completion_class

from otel_alloy.cli.loading import existing_store, load, store_of
from otel_alloy.cli.meant import Choice
from otel_alloy.errors import AlloyReceiverError

_VARIABLE = "_OTEL_ALLOY_COMPLETE"
"""How the script asks the command, as click derives it from the command's name."""


def sources(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """The names of the sources, from the settings."""
    with suppress(AlloyReceiverError):
        settings = load(context.params.get("config"), {}, key_needed=False, warn=False)
        return [
            CompletionItem(source.name, help=source.endpoint)
            for source in settings.sources
            if source.name.startswith(incomplete)
        ]
    return []


def destinations(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """The names of the destinations, from the settings and from what waits in the checkpoint."""
    given = {name: context.params.get(name) for name in ("storage", "destinations_dir")}
    with suppress(AlloyReceiverError):
        settings = load(context.params.get("config"), given, key_needed=False, warn=False)
        from otel_alloy.runtime import system_runtime
        from otel_alloy.settings.destinations_dir import Directory
        from otel_alloy.terminal.destinations import seen

        found = Directory(settings, system_runtime().clock).read()
        with store_of(settings) as store:
            return [
                CompletionItem(name, help=one.state)
                for name, one in seen(found, store).items()
                if name.startswith(incomplete)
            ]
    return []


def rejected_numbers(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """The numbers of the records set aside, from the checkpoint where there is one."""
    config, storage = context.params.get("config"), context.params.get("storage")
    with suppress(AlloyReceiverError), existing_store(config, storage, warn=False) as store:
        return [
            CompletionItem(str(record.number), help=f"{record.source}: {record.reason}")
            for record in (store.rejected() if store else ())
            if str(record.number).startswith(incomplete)
        ]
    return []


@click.command()
@click.argument("shell", type=Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes words in SHELL.

    \b
    Examples:
      source <(otel-alloy completion bash)    # in ~/.bashrc; bash 4.4 or newer
      source <(otel-alloy completion zsh)     # in ~/.zshrc, after compinit
      otel-alloy completion fish | source     # in ~/.config/fish/config.fish
    """
    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(context.find_root().command, {}, "otel-alloy", _VARIABLE).source())
