"""What hostile and odd inputs cost: peak memory above what the process had, and time.

Each input in a process of its own, with an environment of its own, so that neither what came before
nor this machine's variables count. An input that takes longer than 60 s, or more than 4 GB, is
ended. Arguments: names of inputs (none: all); `--tree FOLDER` measures the otel_alloy in there,
to compare with; `--one NAME` is what each process runs, and prints JSON.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SECONDS, BYTES = 60, 4 * 2**30
MB = 10**6

Case = tuple[str, Callable[[], Callable[[], object]]]
"""Words, and what prepares the input (not measured) and returns what is measured."""

HEAD = b"HTTP/1.1 200 OK\r\n"


def record(number: int) -> bytes:
    """A usual record."""
    at = f"2025-04-29T17:44:{number % 60:02}.{number % 1000:03}Z"
    user = {"email": f"user{number}@example.com", "fullName": "Example User"}
    integration = {"_id": "64a", "name": "example", "icon": "https://example.com/i.png"}
    whole = {
        "_id": f"{number:024x}",
        "message": "executionFinished",
        "data": {"executionId": f"{number:024x}", "executionUuid": f"uuid-{number:020}"},
        "startedAt": at,
        "completedAt": at,
        "createdAt": at,
        "customVersion": False,
        "workflowVersion": 1,
        "teamId": f"{1:024x}",
        "forgeWorkflowId": f"{2:024x}",
        "workflowId": f"{3:024x}",
        "userId": f"{number % 50:024x}",
        "user": user,
        "forgeWorkflow": {"name": "order_id example", "integrationId": integration},
    }
    return json.dumps(whole).encode()


def page(*entries: bytes) -> bytes:
    """An answer with these entries."""
    return b'{"notifications":[' + b",".join(entries) + b"]}"


def read(body: Callable[[], bytes]) -> Callable[[], Callable[[], object]]:
    """Reads an answer's body."""

    def prepare() -> Callable[[], object]:
        from otel_alloy.alloy.models import read_page

        read_page(page(record(1)))
        made = body()

        def run() -> object:
            got = read_page(made)
            return f"{len(got.records)} records, {len(got.bad)} set aside"

        return run

    return prepare


def long_text(text: bytes) -> bytes:
    """A page of 100 records, one of which has a long text."""
    odd = record(0).replace(b"Example User", text)
    return page(odd, *(record(n) for n in range(1, 100)))


def fetch(
    answer: Callable[[], bytes],
    *,
    trickle: bool = False,
    then: Callable[[Any], str] = lambda page: f"{page.received} records",
) -> Callable[[], Callable[[], object]]:
    """Asks a server that answers so; with `trickle` a byte each 0.1 s."""

    def prepare() -> Callable[[], object]:
        from otel_alloy.alloy.client import AlloyClient
        from otel_alloy.alloy.query import Query
        from otel_alloy.network import Network
        from otel_alloy.runtime import system_runtime

        sent = answer()
        listening = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            with suppress(OSError):
                connection, _ = listening.accept()
                connection.recv(65536)
                if not trickle:
                    connection.sendall(sent)
                for byte in sent if trickle else b"":
                    connection.sendall(bytes([byte]))
                    time.sleep(0.1)

        threading.Thread(target=serve, daemon=True).start()
        client = AlloyClient(
            f"http://127.0.0.1:{listening.getsockname()[1]}",
            "key",
            system_runtime(),
            timeout=1 if trickle else 30,
            network=Network(),
        )
        return lambda: then(client.fetch(Query(100)))

    return prepare


def coded(body: Callable[[], bytes], *encodings: str) -> Callable[[], bytes]:
    """An HTTP answer with this body, which is encoded already."""

    def make() -> bytes:
        sent = body()
        headers = f"Content-Encoding: {', '.join(encodings)}\r\nContent-Length: {len(sent)}\r\n"
        return HEAD + headers.encode() + b"\r\n" + sent

    return make


def zeros(megabytes: int) -> bytes:
    """So much of nothing, compressed."""
    made = tempfile.SpooledTemporaryFile()  # noqa: SIM115
    with gzip.GzipFile(fileobj=made, mode="wb", compresslevel=9) as file:
        for _ in range(megabytes):
            file.write(bytes(MB))
    made.seek(0)
    return made.read()


def settings(text: Callable[[], str]) -> Callable[[], Callable[[], object]]:
    """Reads a settings file."""

    def prepare() -> Callable[[], object]:
        from otel_alloy.settings.loader import load_settings

        folder = tempfile.mkdtemp()
        path = Path(folder) / "settings.yaml"
        path.write_text(text())
        environment = {"ALLOY_API_KEY": "key"}
        load_settings({}, environment)
        return lambda: load_settings({}, environment, file=str(path))

    return prepare


def header(value: str) -> Callable[[], Callable[[], object]]:
    """Asks a server whose clock shows that, and what it asks next."""

    def answer() -> bytes:
        body = page(record(1))
        return HEAD + f"Date: {value}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def next_question(page: Any) -> str:
        from otel_alloy.alloy.clock import ServerClock
        from otel_alloy.alloy.query import Query

        clock, now = ServerClock(), int(time.time() * 1000)
        clock.learn(page, now)
        Query(100, before=clock.now(now + 30_000)).parameters()
        return "the next question can be asked"

    return fetch(answer, then=next_question)


def bomb() -> str:
    """Aliases of aliases: 9 to the power of 9 values in ten lines."""
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    return "\n".join(lines)


def partial() -> Callable[[], object]:
    """A partial success with ten megabytes of words, through the sender."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    from otel_alloy.otlp.http import HttpSender
    from otel_alloy.runtime import system_runtime
    from otel_alloy.settings.otlp import otlp_settings

    said = ExportTraceServiceResponse()
    said.partial_success.error_message = "x" * (10 * MB)
    body = said.SerializeToString()
    kind = b"Content-Type: application/x-protobuf\r\n"
    sent = HEAD + kind + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            connection, _ = listening.accept()
            connection.recv(65536)
            connection.sendall(sent)
            connection.recv(1)

    threading.Thread(target=serve, daemon=True).start()
    endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"
    found, _ = otlp_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, "traces")
    sender = HttpSender(found, "bench", system_runtime())
    return lambda: sender.send(b"x").reason[:100]


CASES: dict[str, Case] = {
    "usual": (
        "a usual page of 1.0 MB (1,400 records)",
        read(lambda: page(*map(record, range(1400)))),
    ),
    "objects": ("3 MB: a page of a million `{}`", read(lambda: page(*[b"{}"] * MB))),
    "objects64": ("63 MB: a page of 21 million `{}`", read(lambda: page(*[b"{}"] * (21 * MB)))),
    "lists": (
        "3 MB: one record with a million `[]` in createdAt",
        read(lambda: page(b'{"createdAt":[' + b"[]," * (MB - 1) + b"[]]}")),
    ),
    "numbers": (
        "20 MB: one record with ten million numbers",
        read(lambda: page(b'{"createdAt":[' + b"1," * (10 * MB - 1) + b"1]}")),
    ),
    "deep": ("1 MB: lists a million levels deep", read(lambda: b"[" * MB)),
    "text": (
        "30 MB: a page of 100 records, a text of 30 MB in one",
        read(lambda: long_text(b"a" * (30 * MB))),
    ),
    "escapes": (
        "30 MB: the same of 15 million escaped quotes",
        read(lambda: long_text(b'\\"' * (15 * MB))),
    ),
    "deep text": (
        "30 MB: the same, and a record that is 2,000 levels deep",
        read(
            lambda: long_text(b"a" * (30 * MB) + b'","x":' + b"[" * 2000 + b"]" * 2000 + b',"y":"')
        ),
    ),
    "gzip": ("0.3 MB: gzip of 300 MB", fetch(coded(lambda: zeros(300), "gzip"))),
    "gzip gzip": (
        "0.6 kB: gzip in gzip of 300 MB",
        fetch(coded(lambda: gzip.compress(zeros(300)), "gzip", "gzip")),
    ),
    "trickle": (
        "a header byte each 0.1 s (timeout 1 s)",
        fetch(lambda: HEAD + b"X-Long: " + b"a" * 500, trickle=True),
    ),
    "year 9999": (
        "Date: the last second of the year 9999",
        header("Fri, 31 Dec 9999 23:59:59 GMT"),
    ),
    "1e400": ("Date: 1e400", header("1e400")),
    "date": ("settings: since: 2025-13-45", settings(lambda: "since: 2025-13-45\n")),
    "alias": ("settings: an alias within itself", settings(lambda: "resource: &a {b: *a}\n")),
    "bomb": ("settings: 0.5 kB of aliases of aliases", settings(bomb)),
    "brackets": ("settings: 20,000 brackets", settings(lambda: "a: " + "[" * 20_000)),
    "partial": ("OTLP: 10 MB of words in a partial success", partial),
}


def status(name: str) -> float:
    """A value of /proc/self/status, megabytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / MB
    return 0.0


def one(name: str) -> None:
    """Prints what an input costs, as JSON."""
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    run = CASES[name][1]()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    base, begun = status("VmRSS"), time.monotonic()
    try:
        words = str(run())
    except RecursionError:
        words = "RecursionError, which ends the process"
    except MemoryError:
        words = f"more than {BYTES // 10**9} GB"
    except Exception as error:
        words = f"{type(error).__name__}: {error}".partition("\n")[0][:160]
    seconds = time.monotonic() - begun
    print(json.dumps({"mb": status("VmHWM") - base, "seconds": seconds, "words": words}))


def measure(name: str, tree: Path) -> dict[str, float | str]:
    """What an input costs, in a process of its own."""
    environment = {"PATH": os.defpath, "PYTHONPATH": str(tree), "HOME": "/nonexistent"}
    command = [sys.executable, str(Path(__file__).resolve()), "--one", name]
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                command,
                env=environment | {"TMPDIR": folder},
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            return {"mb": -1, "seconds": SECONDS, "words": "does not end"}
    if done.returncode:
        last = (done.stderr.splitlines() or [f"ended by signal {-done.returncode}"])[-1]
        return {"mb": -1, "seconds": -1, "words": f"the process ended: {last[:120]}"}
    found: dict[str, float | str] = json.loads(done.stdout)
    return found


def main() -> None:
    """Prints a line per input; see the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--tree", type=Path, default=HERE.parent)
    parser.add_argument("--one", choices=CASES)
    options = parser.parse_args()
    if options.one:
        return one(options.one)
    for name in options.names or CASES:
        found = measure(name, options.tree.resolve())
        cost = f"{found['mb']:7.0f} MB {found['seconds']:6.2f} s"
        print(f"{CASES[name][0]:<54} {cost}  {found['words']}", flush=True)


if __name__ == "__main__":
    main()
