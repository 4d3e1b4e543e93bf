#!/usr/bin/env python3
"""Stands in for systemctl: `enable --now` starts the unit's program with the environment that the
unit names, as root and without its confinement, and waits until it says that it is ready. The
program is ended then, with SIGTERM, and has to end well.
"""

from __future__ import annotations

import configparser
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path


def enable(words: list[str]) -> None:
    now, name = words
    if now != "--now":
        sys.exit("systemctl (its stand-in): enable --now NAME")
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(Path(f"/etc/systemd/system/{name}.service").read_text())
    service = unit["Service"]
    lines = Path(service["EnvironmentFile"]).read_text().splitlines()
    environment = dict(line.split("=", 1) for line in lines if line and line[0] != "#")
    environment |= dict([service["Environment"].split("=", 1)])
    environment |= {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "SSL_CERT_FILE")}
    if folder := service.get("StateDirectory"):
        os.makedirs(f"/var/lib/{folder}", exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as place,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told,
    ):
        told.bind(f"{place}/notify")
        told.settimeout(60)
        environment["NOTIFY_SOCKET"] = f"{place}/notify"
        program = subprocess.Popen(shlex.split(service["ExecStart"]), env=environment)
        while b"READY=1" not in told.recv(4096):
            if program.poll() is not None:
                sys.exit(f"{name} ended with {program.returncode}")
        program.send_signal(signal.SIGTERM)
        sys.exit(program.wait(60))


if __name__ == "__main__":
    if sys.argv[1:] != ["daemon-reload"]:
        {"enable": enable}[sys.argv[1]](sys.argv[2:])
