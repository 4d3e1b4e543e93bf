"""Ports for servers that are told theirs, and waiting for what such a server does."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

SECONDS = 60.0
"""Until what does not come fails its test."""


def free_port() -> int:
    """One that nothing listens on, for a server that has to come back where it was."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def until(condition: Callable[[], bool]) -> None:
    """Looks again and again until it holds."""
    ends = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < ends, "it never came"
        threading.Event().wait(0.02)
