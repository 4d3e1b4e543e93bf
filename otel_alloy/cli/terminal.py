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


INTERRUPTED = 128 + signal.SIGINT
"""The exit code after Ctrl-C."""


class Unfinished(AlloyReceiverError):
    """The end was asked for before all was done. `code`: the command's exit code."""

    def __init__(self, words: str, code: int) -> None:
        super().__init__(words)
        self.args = (words, code)
        self.code = code


def exit_code(error: AlloyReceiverError) -> int:
    """The exit code of a command that the error ends."""
    if isinstance(error, Unfinished):
        return error.code
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


class Signals:
    """SIGTERM and SIGINT ask a command for an orderly end. A second SIGINT ends it at once."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._interrupted = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def stop_with(self, stop: Callable[[], None]) -> None:
        """From now on `stop` is what asks for it."""
        self._stop = stop

    def _handle(self, number: int, frame: object) -> None:
        self._interrupted = self._interrupted or number == signal.SIGINT
        self._stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def code(self, usual: int) -> int:
        """The exit code of a command that ends in order, which is `usual` without Ctrl-C."""
        return INTERRUPTED if self._interrupted else usual

    def unfinished(self, words: str) -> Unfinished:
        """What is to be raised where the end was asked for before all was done."""
        return Unfinished(words, self.code(1))


def reload_on_signal(reload: Callable[[], None]) -> None:
    """SIGHUP, where the system has it, asks for what may have changed."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda number, frame: reload())


def interrupt_on_signals() -> None:
    """SIGINT and SIGTERM end a command that settles nothing, wherever it is: what it has opened is
    closed."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt(number)

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)


def interrupted_code(error: BaseException | None) -> int:
    """The exit code of a command that ends with such an interruption, as a shell has it."""
    given = error.args[:1] if isinstance(error, KeyboardInterrupt) else ()
    return 128 + (given[0] if given else signal.SIGINT)


def page_opened(url: str) -> str:
    """Opens a page in the user's browser where that can be seen; in words, what came of it."""
    import webbrowser

    from otel_alloy.terminal.browser import open_page

    attended = sys.stdout.isatty() or sys.stderr.isatty()
    return open_page(url, webbrowser.open, os.environ, attended=attended)
