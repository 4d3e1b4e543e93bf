"""Against a server that is not ours: Prism serves the vendor's OpenAPI file as it is and refuses
requests that the file does not allow. It knows no state: every page is the vendor's example, so a
reader that waits for an end that the API has to tell would never stop."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from conftest import Place

DESCRIPTION = Path(__file__).parents[1] / "testdata" / "alloy-logs.openapi.yaml"
PRISM_VERSION = "5.14.2"
"""It runs on Node.js 18.20.1 and later; 5.16 asks for 24.18."""
EXAMPLE = "68110fea7d181f356acd1bf1"


def missing(reason: str) -> None:
    """Skips what needs Prism; fails in CI, where npm is there and Prism can be had."""
    if os.environ.get("CI") and shutil.which("npm"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def prism_program() -> Path:
    """Prism, installed once into the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    servers = Path(os.environ.get("E2E_SERVERS") or Path(cache) / "otel-alloy" / "servers")
    folder = servers / "prism" / PRISM_VERSION
    program = folder / "node_modules" / ".bin" / "prism"
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        missing("no npm here: the tests against Prism need Node.js 18.20 or newer")
        raise AssertionError("unreachable")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers may come at once
        if not (folder / "whole").exists():
            install = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund"]
            done = subprocess.run(
                [*install, "--ignore-scripts", f"@stoplight/prism-cli@{PRISM_VERSION}"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=600,
            )
            if done.returncode:
                missing(f"npm could not install Prism {PRISM_VERSION}: {done.stderr[-500:]}")
            (folder / "whole").touch()
    return program


class Prism:
    """A running mock server and what it has said so far."""

    def __init__(self, program: Path) -> None:
        self.said: list[str] = []
        self.url = ""
        self._known = threading.Event()
        command = [str(program), "mock", "--errors", "--host", "127.0.0.1", "--port", "0"]
        self._process = subprocess.Popen(
            [*command, str(DESCRIPTION)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        if not self._known.wait(60) or not self.url:
            self.stop()
            pytest.fail("Prism does not start:\n" + "\n".join(self.said))

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said.append(line)
            if found := re.search(r"listening on (http://[0-9.]+:\d+)", line):
                self.url = found[1]
                self._known.set()
        self._known.set()

    def stop(self) -> None:
        """Ends the server; afterwards `said` is complete."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def requests(self) -> int:
        """How many requests there were. Stops the server."""
        self.stop()
        return sum("Request received" in line for line in self.said)


@pytest.fixture
def prism(prism_program: Path) -> Iterator[Prism]:
    """The vendor's description as a server."""
    server = Prism(prism_program)
    yield server
    server.stop()


@pytest.mark.parametrize("since", [None, "60d", "2025-04-01T00:00:00Z"])
def test_the_vendors_description_as_a_server(place: Place, prism: Prism, since: str | None) -> None:
    """`run --once` with default settings, with `--since 60d` and with a date delivers the one
    execution that the description shows, in a handful of requests, all of them allowed by it; a
    second run brings nothing new."""
    del place.environment["OTEL_ALLOY_REQUESTS_PER_MINUTE"]
    words = ["run", "--once", *([] if since is None else ["--since", since])]
    for _ in range(2):
        done = place.command(*words, ALLOY_ENDPOINT=prism.url)
        assert done.code == 0, done.err
        place.assert_exactly_once([EXAMPLE])
    assert place.command("check", ALLOY_ENDPOINT=prism.url).code == 0
    assert prism.requests() <= 2 * 11 + 8
    assert not [line for line in prism.said if "did not pass" in line or "violation" in line]


def test_prism_does_look_at_requests(prism: Prism) -> None:
    """A request that the description does not allow is refused: the test above means something."""
    key = {"Authorization": "bearer k"}
    for parameters, headers in (({"sortOrder": "up"}, key), ({"skip": "x"}, key), ({}, {})):
        refused = httpx.get(
            f"{prism.url}/logs", params=parameters, headers=headers, trust_env=False
        )
        assert refused.status_code in (401, 422)
    assert httpx.get(f"{prism.url}/logs", headers=key, trust_env=False).status_code == 200
