"""How soon others go on with the sources of a replica that is gone; and all, when the database was.

Three replicas as processes, 40 sources, 50 executions a second, settings as they are by default but
for what has nothing to do with it (no health port, no audit). Each fault comes again until at least
`--takeovers` sources have been affected. Of a fault of one replica, that is the time from it to the
first settlement of each of its sources by somebody else; of one of the database, to the first
settlement of each source; of a full disk, from the moment there is room again. The standby of the
last fault is synchronous. Times are those that the database's triggers write down
(`otel_alloy/testing/witness.py`). Both ends and PostgreSQL run on the same machine. Arguments:
`--takeovers`, `--lease`, `--faults`. The full disk takes root.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median
from time import time

from otel_alloy.testing.otlp_endpoint import OtlpEndpoint
from otel_alloy.testing.postgres_server import PostgresServer, free_port, installed_servers
from otel_alloy.testing.replicas import LiveTraffic, Replica, Replicas, until
from otel_alloy.testing.simulator import Simulator
from otel_alloy.testing.tcp_proxy import TcpProxy

SOURCES, RATE, PATIENCE = 40, 50.0, 300.0


class Bench:
    """Everything, at work."""

    def __init__(self, stack: ExitStack, lease: float) -> None:
        programs = list(installed_servers().values())[-1]
        self.disk = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.disk.chmod(0o755)
        mount = ["mount", "-t", "tmpfs", "-o", "size=400m,mode=755", "tmpfs", str(self.disk)]
        self.small = os.geteuid() == 0 and subprocess.run(mount).returncode == 0
        if self.small:
            stack.callback(subprocess.run, ["umount", "-l", str(self.disk)])
        self.server = PostgresServer(
            programs, {"max_wal_size": "64MB", "fsync": "on"}, self.disk / "server"
        )
        self.server.start()
        self.ports = self.server.port, free_port()
        stack.callback(lambda: self.server.stop())
        self.proxy = stack.enter_context(TcpProxy(self.server.port, b"\0\0never", lambda: None))
        alloy = stack.enter_context(Simulator())
        otlp = stack.enter_context(OtlpEndpoint(store=False))
        traffic = LiveTraffic(SOURCES, RATE)
        here = f"127.0.0.1:{self.server.port}"
        url = self.server.url.replace(here, f"{here},127.0.0.1:{self.ports[1]}")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = {
            "endpoint": alloy.endpoint,
            "lease": lease,
            "audit": "off",
            "enrich": "off",
            "health_endpoint": "",
            "otlp": {"endpoint": otlp.http_endpoint},
            "sources": [
                {"name": f"s{n}", "api_key": f"bench-{n}", "user_id": user}
                for n, user in enumerate(traffic.users)
            ],
        }
        self.replicas = Replicas(folder, url, settings, {})
        stack.callback(self.replicas.close)
        traffic.begin(alloy.store)
        self.cut_off = self.replicas.start(url.replace(here, f"127.0.0.1:{self.proxy.port}"))
        self.replicas.start()
        self.replicas.start()
        self.rest()
        self.settled(time())

    def rest(self) -> None:
        """Until all is shared out."""
        until(lambda: self.replicas.spread(SOURCES), PATIENCE, "an even spread")

    def settled(self, since: float) -> dict[str, float]:
        """When each source was settled first after that."""
        found: dict[str, float] = {}

        def all_settled() -> bool:
            found.update(self.replicas.witness.settled_since(since))
            return len(found) == SOURCES

        until(all_settled, PATIENCE, "a settlement of each source")
        return found

    # Faults of a replica: each says how it ends ---------------------------------------------------

    def kill(self) -> tuple[Replica, Callable[[], object]]:
        victim = self.replicas.running[1]
        victim.process.kill()
        return victim, lambda: self.replaced(victim)

    def end(self) -> tuple[Replica, Callable[[], object]]:
        victim = self.replicas.running[1]
        victim.process.terminate()
        return victim, lambda: self.replaced(victim)

    def replaced(self, victim: Replica) -> None:
        """Another one comes for one that has ended."""
        self.replicas.gone(victim)
        self.replicas.start()

    def pause(self) -> tuple[Replica, Callable[[], object]]:
        victim = self.replicas.running[1]
        victim.process.send_signal(signal.SIGSTOP)
        return victim, lambda: victim.process.send_signal(signal.SIGCONT)

    def black_hole(self) -> tuple[Replica, Callable[[], object]]:
        self.proxy.freeze(True)
        return self.cut_off, lambda: self.proxy.freeze(False)

    def reset(self) -> tuple[Replica, Callable[[], object]]:
        self.proxy.refuse = True
        self.proxy.cut_all()
        return self.cut_off, lambda: setattr(self.proxy, "refuse", False)

    def of_replica(self, fault: Callable[[], tuple[Replica, Callable[[], object]]]) -> list[float]:
        """How long each source of the replica was without a settlement by another one, s."""
        owners = self.replicas.owners()
        begun = time()
        victim, heal = fault()
        sources = {unit[7:] for unit, owner in owners.items() if owner == victim.name}
        found: dict[str, float] = {}

        def moved() -> bool:
            found.update(self.replicas.witness.settled_since(begun, victim.name))
            return sources <= found.keys()

        until(moved, PATIENCE, "a settlement of each source that moved")
        heal()
        self.rest()
        return [found[source] - begun for source in sources]

    # Faults of the database -----------------------------------------------------------------------

    def of_server(self, fault: Callable[[], tuple[float, float]]) -> list[float]:
        """How long each source was without a settlement, s."""
        begun, down = fault()
        found = self.settled(down)
        self.rest()
        return [at - begun for at in found.values()]

    def restart(self) -> tuple[float, float]:
        begun = time()
        self.server.shut_down()
        down = time()
        self.server.start()
        return begun, down

    def crash(self) -> tuple[float, float]:
        begun = time()
        self.server.kill()
        down = time()
        self.server.start()
        return begun, down

    def fill(self) -> tuple[float, float]:
        ballast = self.disk / "ballast"
        since = {one.name: len(one.said()) for one in self.replicas.running}
        with suppress(OSError), ballast.open("wb", 0) as file:
            while True:
                file.write(bytes(65536))
        said = ("make room on the server's disk", "start the server, or wait")
        until(
            lambda: (
                any(
                    words in one.said()[since[one.name] :]
                    for one in self.replicas.running
                    for words in said
                )
                or not self.server.running
            ),
            PATIENCE,
            "a full disk",
        )
        begun = time()
        ballast.unlink()
        if not self.server.running:
            self.server.kill()
            self.server.start()
        return begun, begun

    def fail_over(self) -> tuple[float, float]:
        (port,) = set(self.ports) - {self.server.port}
        standby = self.server.standby(port)
        self.settled(time())
        begun = time()
        self.server.kill()
        down = time()
        assert standby.ask("SELECT pg_promote()") == "t"
        self.server.stop()
        self.server = standby
        return begun, down


def main() -> None:
    """Prints a line for each fault."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is ended
    parser = argparse.ArgumentParser()
    parser.add_argument("--takeovers", type=int, default=50)
    parser.add_argument("--lease", type=float, default=15.0)
    parser.add_argument(
        "--faults", default="kill,pause,end,black_hole,reset,restart,crash,fill,fail_over"
    )
    options = parser.parse_args()
    with ExitStack() as stack:
        bench = Bench(stack, options.lease)
        for name in options.faults.split(","):
            found: list[float] = []
            if name == "fill" and not bench.small:
                print("fill: left out, as it takes root", flush=True)
                continue
            while len(found) < options.takeovers:
                if name in ("restart", "crash", "fill", "fail_over"):
                    found += bench.of_server(getattr(bench, name))
                else:
                    found += bench.of_replica(getattr(bench, name))
            print(
                f"{name}: {len(found)} sources, p50 {median(found):.1f} s, max {max(found):.1f} s, "
                f"least {min(found):.1f} s; load {os.getloadavg()[0]:.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
