"""What the commands share: messages, exit codes and signals."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from otel_alloy.errors import AccessRefused, AlloyReceiverError, ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console


def say(words: str) -> None:
    """A line on standard error."""
    click.echo(words, err=True)


def exit_code(error: AlloyReceiverError) -> int:
    """The exit code of a command that the error ends."""
    return {AccessRefused: 3, ConfigurationError: 2}.get(type(error), 1)


def errors_console() -> Console:
    """Standard error, for more than plain lines."""
    from rich.console import Console

    return Console(stderr=True)


def errors_terminal() -> Console | None:
    """Standard error where it is a terminal, or is to be taken for one; None where it takes plain
    lines."""
    forced = os.environ.get("FORCE_COLOR") or os.environ.get("TTY_COMPATIBLE")  # rich's variables
    return errors_console() if forced or sys.stderr.isatty() else None


def stop_on_signals(stop: Callable[[], None]) -> None:
    """First SIGTERM or SIGINT: an orderly end. A second SIGINT ends at once."""

    def handle(number: int, frame: object) -> None:
        stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def reload_on_signal(reload: Callable[[], None]) -> None:
    """SIGHUP, where the system has it, asks for what may have changed."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda number, frame: reload())


def interrupt_on_sigterm() -> None:
    """SIGTERM ends a command that settles nothing as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def page_opened(url: str) -> str:
    """Opens a page in the user's browser where that can be seen; in words, what came of it."""
    import webbrowser

    from otel_alloy.terminal.browser import open_page

    attended = sys.stdout.isatty() or sys.stderr.isatty()
    return open_page(url, webbrowser.open, os.environ, attended=attended)
