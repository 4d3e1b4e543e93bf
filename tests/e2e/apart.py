"""Runs commands as they stand, apart from this machine: with a network of their own, in which every
port is free, and with an empty /var/lib.

    unshare --net --mount python apart.py < story.json

The story has `folder`, where everything is run; `commands`, each with its text and the URL that
says it is ready (null where it ends by itself); `posts`, pairs of a URL and protobuf in hex, sent
when all are ready; and `found`, pairs of a URL and a text that is waited for there. Prints what
went wrong and, for each command, its exit code and what it said. Servers are asked to end by
SIGTERM, the last one first.

Only the standard library is used: inside, nothing of the test process is at hand.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

WITHIN = 60.0
_SIOCSIFFLAGS = 0x8914
_UP_AND_RUNNING = 0x1 | 0x40


def furnish() -> None:
    """The loopback, which is down in a new network, and a /var/lib that is nobody else's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _UP_AND_RUNNING))
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/var/lib"], check=True)


def fetched(url: str, body: bytes | None = None) -> str | None:
    """What the URL answers; None where it answers with an error, or not at all."""
    request = urllib.request.Request(url, data=body)
    if body is not None:
        request.add_header("Content-Type", "application/x-protobuf")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return str(answer.read().decode("utf-8", "replace"))
    except OSError:  # which HTTPError is, too
        return None


def at_work(url: str) -> bool:
    """Whether somebody answers there who does not say that he is not ready (503)."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as refusal:
        return refusal.code < 500
    except OSError:
        return False


def until(holds: Callable[[], bool], ended: Callable[[], bool]) -> bool:
    """Waits; False where it does not come true in time, or what it waits for has ended."""
    deadline = time.monotonic() + WITHIN
    while not holds():
        if time.monotonic() > deadline or ended():
            return False
        time.sleep(0.05)
    return True


class Command:
    """One command, in a shell as people have it; `log`: where what it says is kept."""

    def __init__(self, text: str, folder: str, ready: str | None, log: Path) -> None:
        self.text, self.ready, self._log = text, ready, log
        with log.open("wb") as said:
            self.process = subprocess.Popen(
                # The signal is for the command, not for a shell around it.
                ["sh", "-c", f"exec {text}"],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
            )

    def ended(self) -> bool:
        """Whether it runs no more."""
        return self.process.poll() is not None

    def well(self) -> bool:
        """Waits until it is ready, or has ended where it does by itself."""
        if self.ready is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(WITHIN) == 0
            return False
        return until(partial(at_work, self.ready), self.ended)

    def end(self) -> dict[str, Any]:
        """Ends it, and tells of it."""
        if not self.ended():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(WITHIN)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        said = self._log.read_text("utf-8", "replace")
        return {"command": self.text, "code": self.process.returncode, "said": said}


def run(story: dict[str, Any], running: list[Command], logs: Path) -> list[str]:
    """Runs the story as far as it goes. Returns what went wrong, empty for nothing."""
    for number, (text, ready) in enumerate(story["commands"]):
        running.append(Command(text, story["folder"], ready, logs / str(number)))
        if not running[-1].well():
            return [f"not ready: {text}"]
    wrong = [f"refused: {url}" for url, hexa in story["posts"] if not posted(url, hexa)]
    for url, text in story["found"]:
        if not until(partial(served, url, text), lambda: False):
            wrong.append(f"not found: {text} at {url}")
    return wrong


def posted(url: str, hexa: str) -> bool:
    """Whether the URL takes protobuf that is written in hex."""
    return fetched(url, bytes.fromhex(hexa)) is not None


def served(url: str, text: str) -> bool:
    """Whether the URL answers with the text, now."""
    return text in (fetched(url) or "")


def main() -> None:
    """Reads the story, plays it, prints the end."""
    story = json.load(sys.stdin)
    furnish()
    running: list[Command] = []
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as logs:
        try:
            wrong = run(story, running, Path(logs))
        finally:
            ends = [command.end() for command in reversed(running)]
    json.dump({"wrong": wrong, "commands": ends}, sys.stdout)


if __name__ == "__main__":
    main()
