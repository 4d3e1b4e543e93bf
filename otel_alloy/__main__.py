"""The command `otel-alloy`, also as `python -m otel_alloy`: signals first, then the command line.

Importing the command line takes a while, and a command imports more when it begins. Until it says
itself what a signal means to it (`cli/terminal.py`), there is nothing to settle or to close, and
Ctrl-C ends the process at once, without a traceback. So nothing else may be imported here.
"""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Runs the command line and exits."""
    # Else it is ignored, as by `nohup` and its like. SIGTERM ends a process by itself.
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from otel_alloy.cli import main as command_line

    command_line()


def _leave(number: int, frame: object) -> None:
    """Ends the process with the exit code that a shell has for the signal."""
    os._exit(128 + number)


if __name__ == "__main__":
    main()
