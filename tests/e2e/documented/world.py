"""What is around a reader of the documentation, started in a stage: `world.py FOLDER [PART …]`.

Alloy is at https://production.runalloy.com, with a certificate of an authority whose file is in
FOLDER. It has sixty days of executions, five a second from now on, and the one that the pages
mention. What takes OTLP listens on port 4318, with `grpc` on 4317 too, unless `no-otlp` says that
the page brings its own; and where the pages have endpoints of customers. For each request the
signal becomes a line of the file `received`. `postgres` is a database as docs/replicas.md has it.
Says `ready`, and ends when it is killed.
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import trustme

from otel_alloy.testing.otlp_endpoint import OtlpEndpoint
from otel_alloy.testing.postgres_server import PostgresServer, installed_servers
from otel_alloy.testing.simulator import Config, Simulator, Traffic, live, timeline

DAY = 86400.0
MENTIONED = "35SnGU0DUSNP5L26fsmnq"
ALLOY = ("production.runalloy.com", "eu-embedded.runalloy.com")
ACME = "otel.acme.example"
DATABASE = "db.example.com"
HOSTS = dict.fromkeys(("localhost", *ALLOY, "collector", DATABASE), "127.0.0.1") | {
    ACME: "127.0.0.2"
}
GRPC, OTLP, OTHERS = 4317, 4318, (4328, 4338)


def alloy(now: float) -> Simulator:
    """The simulated Alloy, on a port that no page names."""
    simulator = Simulator(Config(), clock=time.time)
    past = timeline(300, start=now - 60 * DAY, end=now, traffic=Traffic(error_rate=0.1))
    simulator.store.feed(past)
    (mentioned,) = timeline(1, start=now - 3600, end=now - 3500, traffic=Traffic(seed=3))
    for step in mentioned.steps:
        step.body["data"]["executionUuid"] = MENTIONED
    simulator.store.feed([mentioned])
    simulator.store.feed(live(start=now, rate=5, traffic=Traffic(seed=2, error_rate=0.2)))
    return simulator.start()


def with_tls(authority: trustme.CA, names: tuple[str, ...], port: int, behind: int) -> None:
    """Passes what comes to `port` of `names` over TLS on to the port `behind` it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    pass_on(HOSTS[names[0]], port, behind, lambda one: context.wrap_socket(one, server_side=True))


def pass_on(
    address: str,
    port: int,
    behind: int,
    opened: Callable[[socket.socket], socket.socket] = lambda accepted: accepted,
) -> None:
    """Passes what comes to a port on to the port `behind` it."""
    listening = socket.create_server((address, port))

    def serve(accepted: socket.socket) -> None:
        try:
            inner = opened(accepted)
            outer = socket.create_connection(("127.0.0.1", behind))
        except OSError:
            accepted.close()
            return
        threading.Thread(target=copy, args=(outer, inner), daemon=True).start()
        copy(inner, outer)

    def accept() -> None:
        while True:
            threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def copy(source: socket.socket, target: socket.socket) -> None:
    """Everything from one to the other, until either ends."""
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def servers_with_tls() -> list[Path]:
    """Folders of programs of PostgreSQL that was built with TLS."""
    found = installed_servers().values()
    return [folder for folder in found if b"libssl.so" in (folder / "postgres").read_bytes()]


def database(authority: trustme.CA) -> PostgresServer:
    """PostgreSQL on its usual port, with TLS, a user `alloy` and a database of theirs."""
    place = Path("/var/lib/database")  # where others than root may look, and gone with the stage
    place.mkdir()
    issued = authority.issue_cert(DATABASE)
    issued.private_key_pem.write_to_path(str(place / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(place / "cert.pem"))
    (place / "key.pem").chmod(0o600)
    programs = servers_with_tls()[-1]
    tls = {"ssl": "on", "ssl_cert_file": f"{place}/cert.pem", "ssl_key_file": f"{place}/key.pem"}
    server = PostgresServer(programs, tls, place)
    server.port = 5432
    server.start()
    server.ask("CREATE ROLE alloy LOGIN PASSWORD 'your-password'")
    server.ask("CREATE DATABASE alloy OWNER alloy")
    return server


def main(folder: Path, parts: list[str]) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    with_tls(authority, ALLOY, 443, int(alloy(time.time()).endpoint.rpartition(":")[2]))
    for port in OTHERS:
        OtlpEndpoint(store=False, http_port=port).__enter__()
    if "no-otlp" not in parts:
        received = (folder / "received").open("w", buffering=1)
        endpoint = OtlpEndpoint(
            lambda request: print(request.signal, file=received),
            store=False,
            http_port=OTLP,
            grpc="grpc" in parts,
        ).__enter__()
        if "grpc" in parts:
            pass_on("127.0.0.1", GRPC, int(endpoint.grpc_endpoint.rpartition(":")[2]))
        with_tls(authority, (ACME,), OTLP, OTLP)
    if "postgres" in parts:
        database(authority)
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
