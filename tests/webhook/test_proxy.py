"""The reverse proxies of examples/webhook-proxy, as real servers between Alloy and the listener.
Each is skipped where it is not installed (Debian: `apt-get install nginx-light caddy`)."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trustme

pytest.importorskip("uvicorn", reason="the extra `webhook` is not installed")

from otel_alloy.runtime import system_runtime
from otel_alloy.webhook.listener import MOST_BYTES, PATH, ErrorListener
from otel_alloy.webhook.report import ErrorReport

from .ports import free_port, until

EXAMPLES = Path(__file__).parents[2] / "examples" / "webhook-proxy"
SECRET = "secret-canary-of-the-proxy"
BODY = {"executionId": "e", "error": "body-canary"}

Configured = Callable[[Path, int, int], list[str]]
"""Writes the example's file for a folder, a port and the listener's port; the command."""


def nginx(folder: Path, port: int, listener: int) -> list[str]:
    """The example within a configuration of its own, without anything of the machine's."""
    text = (EXAMPLES / "nginx.conf").read_text("utf-8")
    for there, here in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("/etc/ssl/hooks.example.com/fullchain.pem", f"{folder}/chain.pem"),
        ("/etc/ssl/hooks.example.com/privkey.pem", f"{folder}/key.pem"),
        ("http://127.0.0.1:8090", f"http://127.0.0.1:{listener}"),
    ):
        assert text.count(there) == 1, there
        text = text.replace(there, here)
    (folder / "site.conf").write_text(text, "utf-8")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log info;\n"
        f"events {{}}\nhttp {{\naccess_log {folder}/access.log;\n{temporary}"
        f"include {folder}/site.conf;\n}}\n"
    )
    return ["nginx", "-p", str(folder), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]


def caddy(folder: Path, port: int, listener: int) -> list[str]:
    """The example with a certificate of the test's, on another port, and without Caddy's own."""
    text = (EXAMPLES / "Caddyfile").read_text("utf-8")
    for there, here in (
        ("\nhooks.example.com {", f"\nhttps://127.0.0.1:{port} {{\n\ttls chain.pem key.pem\n"),
        ("itself.\n{\n", "\n{\n\tadmin off\n\tauto_https disable_redirects\n"),
        ("127.0.0.1:8090", f"127.0.0.1:{listener}"),
    ):
        assert text.count(there) == 1, there
        text = text.replace(there, here)
    (folder / "Caddyfile").write_text(text, "utf-8")
    return ["caddy", "run", "--config", "Caddyfile", "--adapter", "caddyfile"]


@contextmanager
def serving(command: list[str], folder: Path) -> Iterator[None]:
    """The server meanwhile; what it prints is in the folder too."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    with (folder / "printed.log").open("wb") as printed:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=printed, stderr=subprocess.STDOUT
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.mark.parametrize("configured", [nginx, caddy])
def test_an_example_of_a_proxy(tmp_path: Path, configured: Configured) -> None:
    """With TLS outside: reports arrive, the listener's answers come back as they are, nothing but
    reports gets through, and no file or line of the proxy has the secret or a body, also where the
    listener is away."""
    name = configured.__name__
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    authority = trustme.CA()
    issued = authority.issue_cert("hooks.example.com", "127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    for pem in issued.cert_chain_pems:
        pem.write_to_path(tmp_path / "chain.pem", append=True)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    port, behind = free_port(), free_port()
    kept: list[ErrorReport] = []

    def keep(report: ErrorReport) -> bool:
        kept.append(report)
        return True

    def ask(path: str, body: bytes = json.dumps(BODY).encode(), method: str = "POST") -> int:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=trusting)
        with closing(connection):
            try:
                connection.request(method, path, body, {"X-Alloy-ExecutionUuid": "u"})
                return connection.getresponse().status
            except OSError:
                return 0

    good = f"{PATH}/{SECRET}"
    large = json.dumps(BODY).encode().ljust(MOST_BYTES)
    with serving(configured(tmp_path, port, behind), tmp_path):
        until(lambda: ask("/") == 404)
        assert ask(good) in (502, 504)  # the listener is away
        with ErrorListener(f"127.0.0.1:{behind}", SECRET, keep, system_runtime()) as listener:
            assert ask(good) == 204
            assert ask(good, large) == 204
            assert ask(good, large + b" ") == 413
            assert ask(f"{PATH}/wrong") == 401
            assert ask(good, method="GET") in (403, 404)
            assert ask(f"/other/{SECRET}") == 404
            assert listener.counts()["kept"] == 2
        assert ask(good) in (502, 504)
    assert [(r.uuid, r.message) for r in kept] == [("u", "body-canary")] * 2
    for file in tmp_path.rglob("*"):
        if file.is_file():
            found = file.read_bytes()
            assert SECRET.encode() not in found and b"body-canary" not in found, file.name
