"""What was probably meant on the command line: the nearest command, option or choice, and where a
setting has to be given that is no option.

Click suggests several names, and those of commands only in its newest versions. Nothing here runs
anything.
"""

from __future__ import annotations

from typing import Any

import click

from otel_alloy.near import did_you_mean


class Commands(click.Group):
    """A group of commands. Without any it shows its help on standard error, with exit code 2."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "no_args_is_help": False})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As every group does, but for no words at all."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            raise SystemExit(2)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As every group does, but for a command that there is not."""
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            if name.startswith("-"):
                ctx.fail(f"{name} stands behind the command, not before it.")
            meant = did_you_mean(name, self.list_commands(ctx)) or self._inner(name)
            ctx.fail(f"There is no command {name!r}; {meant or 'see --help'}")
        return super().resolve_command(ctx, args)

    def _inner(self, name: str) -> str:
        """Where a command of this very name is, if it is one of a group's."""
        found = [
            f"{group.name} {name}"
            for group in self.commands.values()
            if isinstance(group, click.Group) and name in group.commands
        ]
        return f"did you mean {' or '.join(found)}?" if found else ""


class Choice(click.Choice):  # type: ignore[type-arg]
    """A choice that offers the nearest."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The choice. Raises BadParameter."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            meant = did_you_mean(value, [str(choice) for choice in self.choices])
            words = f"{error.message.rstrip('.')}; {meant}" if meant else error.message
            raise click.BadParameter(words, ctx, param) from None


def option_meant(error: click.NoSuchOption) -> click.UsageError:
    """The same error with the nearest option, or with where that has to be given instead."""
    name, context = error.option_name, error.ctx
    if context is None:
        return error
    words = f"There is no option {name!r}"
    elsewhere = _setting(name)
    if elsewhere:
        return click.UsageError(f"{words}; {elsewhere}", context)
    if isinstance(context.command, click.Group):
        for command in context.command.commands.values():
            if name in _options(command):
                usage = f"{context.command_path} {command.name} {name}"
                return click.UsageError(
                    f"{words} here; it stands behind the command: {usage}", context
                )
    meant = did_you_mean(name, _options(context.command))
    return click.UsageError(f"{words}; {meant or 'see --help'}", context)


def _options(command: click.Command) -> list[str]:
    return [
        name
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
        if name.startswith("--")
    ]


def _setting(option: str) -> str:
    """How to give a setting that is no option of any command; empty where `option` is none."""
    from otel_alloy.cli.options import NO_OPTION
    from otel_alloy.settings.variables import KNOWN, path_of

    name = option.removeprefix("--").partition("=")[0].replace("-", "_")
    if name == "api_key":
        return (
            "others on this machine could read a key there: set ALLOY_API_KEY, or name a file with "
            "--api-key-file"
        )
    for variable in KNOWN:
        path = path_of(variable)
        if path and "_".join(map(str, path)).replace(".", "_") == name and path[0] in NO_OPTION:
            return f"set {variable}"
    return f"`{name}` is set in the settings file only" if name in NO_OPTION else ""
