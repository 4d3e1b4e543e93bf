"""A command on a pseudo-terminal of a given size, and what its screen shows."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pyte

COMMAND = Path(sys.executable).with_name("otel-alloy")
OSC8 = re.compile("\x1b]8;[^;\x1b]*;([^\x1b]*)\x1b\\\\")
"""A hyperlink's begin (with its address) or end (without)."""


class Shown:
    """What a command wrote, and the lines that the terminal shows of it at the end."""

    def __init__(self, raw: str, columns: int, lines: int) -> None:
        self.raw = raw
        screen = pyte.Screen(columns, lines)
        # pyte does not know OSC 8 and would show it.
        pyte.Stream(screen).feed(OSC8.sub("", raw))
        self.lines = [line.rstrip() for line in screen.display]

    @property
    def links(self) -> list[tuple[str, str]]:
        """The address and the text of each hyperlink."""
        pattern = OSC8.pattern + "(.*?)\x1b]8;;\x1b\\\\"
        found = re.findall(pattern, self.raw, flags=re.DOTALL)
        return [(address, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)) for address, text in found]


def play(
    arguments: list[str],
    environment: Mapping[str, str],
    folder: Path,
    *,
    columns: int,
    lines: int = 60,
    until: Callable[[str], bool] | None = None,
) -> Shown:
    """Runs `otel-alloy` to its end, or until `until` is true of what it wrote, and then sends it
    SIGINT."""
    ours, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))
    process = subprocess.Popen(
        [COMMAND, *arguments],
        cwd=folder,
        env={"TERM": "xterm-256color", "LANG": "C.UTF-8", **environment},
        stdin=side,
        stdout=side,
        stderr=side,
    )
    os.close(side)
    decode = codecs.getincrementaldecoder("utf-8")().decode
    text, deadline, asked = "", time.monotonic() + 120, False
    try:
        while time.monotonic() < deadline:
            if not asked and until is not None and until(text):
                asked = True
                process.send_signal(signal.SIGINT)
            if not select.select([ours], [], [], 0.1)[0]:
                continue
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # Linux: the other side is closed
                break
            if not chunk:
                break
            text += decode(chunk)
        assert process.wait(30) in (0, 130), text
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return Shown(text, columns, lines)
