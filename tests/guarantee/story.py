"""Replicas in trouble, told to the end: what they are put through, and what has to hold afterwards.

Real processes, a real PostgreSQL, live traffic, an Alloy and an endpoint that fail now and then.
What replicas did is read from what the database's triggers wrote down and from what arrived.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

import pytest

from otel_alloy.mapping import semconv
from otel_alloy.testing.otlp_endpoint import Answer, OtlpEndpoint, Received, attributes
from otel_alloy.testing.postgres_server import PostgresServer
from otel_alloy.testing.replicas import LiveTraffic, Replica, Replicas, until
from otel_alloy.testing.simulator import Simulator
from otel_alloy.testing.tcp_proxy import TcpProxy

from .scale import scaled

LEASE = 5.0
SOURCES = 40
PATIENCE = 60.0
TERMINAL = ("executionFinished", "executionError")
DESTINATIONS = ("acme", "globex")


@dataclass(eq=False)
class Arrival:
    """A request that the endpoint took. `lost`: its acknowledgement did not get back."""

    replica: str
    destination: str
    signal: str
    items: dict[str, bytes]
    lost: bool


class Endpoint:
    """The OTLP endpoint of all: refuses some requests with 503, takes some and breaks the
    connection in place of the answer, and holds those of a replica when it is told to."""

    def __init__(self, seed: int) -> None:
        self.arrivals: list[Arrival] = []
        self.refused = 0
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._holds: str | None = None
        self._released = threading.Event()
        self.held: set[str] = set()
        self.server = OtlpEndpoint(self._judge, store=False)

    def hold(self, replica: str) -> None:
        """Answers no request of a replica any more; what it takes is taken."""
        self.held.clear()
        self._released.clear()
        self._holds = replica

    def release(self) -> None:
        """Answers what was held."""
        self._holds = None
        self._released.set()

    def _judge(self, received: Received) -> Answer | None:
        replica = received.headers["x-replica"]
        destination = received.headers.get("x-destination", "main")
        items = {
            attributes(item.record.attributes)[semconv.EXECUTION_ID]: (
                item.record.SerializeToString(deterministic=True)
            )
            for item in received.items()
        }
        with self._lock:
            held = self._holds == replica and destination == "main"
            drawn = 1.0 if held else self._chance.random()
            if drawn < 0.02:
                self.refused += 1
                return Answer(status=503, headers={"Retry-After": "1"})
            lost = drawn < 0.04
            self.arrivals.append(Arrival(replica, destination, received.signal, items, lost))
            if held:
                self.held |= items.keys()
        if held:
            assert self._released.wait(2 * PATIENCE)
        return Answer(connection="lose") if lost else None

    def executions(self, destination: str, signal: str) -> set[str]:
        """What has arrived there."""
        with self._lock:
            found = [one for one in self.arrivals if one.destination == destination]
        return set().union(*(one.items for one in found if one.signal == signal))


class Story:
    """Three replicas of 40 sources and two destinations, until `check`. `url`: of an empty
    database."""

    def __init__(self, folder: Path, url: str, seed: int = 1) -> None:
        self.traffic = LiveTraffic(SOURCES, scaled(30, 60), seed)
        self.source_of = {user: f"s{n}" for n, user in enumerate(self.traffic.users)}
        self.alloy = Simulator()
        self.alloy.configure(fault_rate={"503": 0.02, "429:1": 0.02}, seed=seed)
        self.endpoint = Endpoint(seed)
        self.alloy.start()
        self.endpoint.server.__enter__()
        self.half = frozenset(self.traffic.users[::2])
        self.replicas = Replicas(
            folder, url, self._settings(), {"OTEL_EXPORTER_OTLP_TIMEOUT": "100000"}
        )
        self.units = SOURCES + len(DESTINATIONS)
        self.outages = 0
        """How often the database was away for all."""

    def _settings(self) -> dict[str, Any]:
        def otlp(name: str) -> dict[str, object]:
            return {
                "endpoint": self.endpoint.server.http_endpoint,
                "headers": {"x-replica": "${env:REPLICA}", "x-destination": name},
            }

        return {
            "endpoint": self.alloy.endpoint,
            "lease": f"{LEASE:g}s",
            "collection_interval": "2s",
            "adaptive": False,
            "initial_lookback": "1h",
            "requests_per_minute": 0,
            "audit": "off",
            "enrich": "off",
            "health_endpoint": "",
            "otlp": {"endpoint": self.endpoint.server.http_endpoint},
            "destinations": {
                "acme": {"match": {"user.id": sorted(self.half)}, "otlp": otlp("acme")},
                "globex": {"match": {"outcome": "error"}, "otlp": otlp("globex")},
            },
            "sources": [
                {"name": name, "api_key": f"key-{name}", "user_id": user}
                for user, name in self.source_of.items()
            ],
        }

    def begin(self, *urls: str | None) -> list[Replica]:
        """Starts traffic, and a replica for each of these ways to the database."""
        self.traffic.begin(self.alloy.store)
        found = [self.replicas.start(url) for url in urls]
        self.rest()
        return found

    def rest(self) -> None:
        """Until all units are spread evenly, and each source has been settled since."""
        self.until(lambda: self.replicas.spread(self.units), "an even spread")
        self.all_settle(time())

    def until(self, done: Callable[[], object], what: str) -> float:
        """See `replicas.until`; what did not come is told with what replicas said."""
        try:
            return until(done, PATIENCE, what)
        except AssertionError as error:
            said = "\n".join(
                f"{one.name} {one.process.poll()}: {one.said()[-1500:]}"
                for one in self.replicas.running
            )
            raise AssertionError(f"{error}\n{self.replicas.owners()}\n{said}") from None

    def all_settle(self, since: float) -> None:
        """Until each source has been settled after a moment."""
        self.until(
            lambda: len(self.replicas.witness.settled_since(since)) == SOURCES,
            "a settlement of each",
        )

    def taken_from(self, victim: Replica, since: float, units: set[str]) -> float:
        """Until others have these units of a replica, and have settled each source among them; how
        long that took, s."""
        sources = {unit.partition(" ")[2] for unit in units if unit.startswith("source ")}

        def taken() -> bool:
            settled = self.replicas.witness.settled_since(since, victim.name)
            return sources <= settled.keys() and not units & self.replicas.units_of(victim)

        return self.until(taken, "a takeover")

    # What they are put through --------------------------------------------------------------------

    def kill(self) -> None:
        """`kill -9` of a replica; another one comes."""
        victim = self.replicas.running[0]
        units, begun = self.replicas.units_of(victim), time()
        victim.process.kill()
        self.replicas.gone(victim)
        self.taken_from(victim, begun, units)
        self.replicas.start()
        self.rest()

    def pause(self) -> None:
        """A replica is stopped while the endpoint has batches of it that it has not heard of, for
        longer than its leases, and goes on."""
        victim = self.replicas.running[0]
        self.endpoint.hold(victim.name)
        self.until(lambda: len(self.endpoint.held) >= 5, "batches to hold")
        units, begun = self.replicas.units_of(victim), time()
        victim.process.send_signal(signal.SIGSTOP)
        self.taken_from(victim, begun, units)
        self.endpoint.release()
        victim.process.send_signal(signal.SIGCONT)
        self.rest()

    def stop(self) -> None:
        """SIGTERM of a replica; another one comes."""
        victim = self.replicas.running[0]
        units, begun = self.replicas.units_of(victim), time()
        victim.process.terminate()
        self.replicas.gone(victim)
        self.taken_from(victim, begun, units)
        self.replicas.start()
        self.rest()

    def taken_over(self, victim: Replica) -> float:
        """Until others have all that a replica has now; see `taken_from`."""
        return self.taken_from(victim, time(), self.replicas.units_of(victim))

    def black_hole(self, victim: Replica, proxy: TcpProxy) -> None:
        """Nothing gets through to the database or back, for longer than the leases."""
        proxy.freeze(True)
        self.taken_over(victim)
        proxy.freeze(False)
        self.rest()

    def reset(self, victim: Replica, proxy: TcpProxy) -> None:
        """Connections to the database are cut, and refused for longer than the leases."""
        proxy.refuse = True
        proxy.cut_all()
        self.taken_over(victim)
        proxy.refuse = False
        self.rest()

    def restart(self, server: PostgresServer, end: Callable[[], None]) -> None:
        """The server ends, and comes again."""
        self.outages += 1
        end()
        server.start()
        self.rest()

    def fail_over(self, primary: PostgresServer, standby: PostgresServer) -> None:
        """The server ends for good, and its standby takes over."""
        self.outages += 1
        primary.kill()
        assert standby.ask("SELECT pg_promote()") == "t"
        self.rest()

    def fill(self, disk: Path, server: PostgresServer) -> None:
        """The disk is full until every replica has said so, or the server is gone."""
        self.outages += 1
        ballast = disk / "ballast"
        with suppress(OSError), ballast.open("wb", 0) as file:
            while True:
                file.write(bytes(65536))
        said = ("make room on the server's disk", "start the server, or wait")
        self.until(
            lambda: (
                all(any(words in one.said() for words in said) for one in self.replicas.running)
                or not server.running
            ),
            "a full disk",
        )
        ballast.unlink()
        if not server.running:
            server.kill()
            server.start()
        self.rest()

    # What has to hold -----------------------------------------------------------------------------

    def check(self) -> dict[str, int]:
        """Ends the traffic, waits until all has arrived, and fails unless everything holds that
        GUARANTEE.md promises of replicas. Figures of what happened."""
        self.traffic.end()
        last = max(step.at for one in self.traffic.happened for step in one.steps) / 1000
        self.until(lambda: time() > last, "the end of the last execution")
        wanted = self._wanted()
        missing: dict[str, set[str]] = {}

        def arrived() -> bool:
            missing.clear()
            for destination, executions in wanted.items():
                for kind in ("traces", "logs"):
                    left = executions - self.endpoint.executions(destination, kind)
                    if left:
                        missing[f"{destination} {kind}"] = left
            return not missing

        try:
            self.until(arrived, "every execution")
        except AssertionError as error:
            some = {place: (len(left), sorted(left)[:2]) for place, left in missing.items()}
            raise AssertionError(f"missing: {some}\n{error}") from None
        self.until(lambda: self.replicas.spread(self.units), "an even spread")
        for destination, executions in wanted.items():
            for kind in ("traces", "logs"):
                found = self.endpoint.executions(destination, kind)
                assert found == executions, (destination, kind, found ^ executions)
        takeovers = self._check_leases()
        self._check_cursors()
        return {
            "executions": len(wanted["main"]),
            "takeovers": sum(takeovers.values()),
            "repeated batches": self._check_repeats(takeovers),
            "refused": self.endpoint.refused,
            "lost answers": sum(one.lost for one in self.endpoint.arrivals),
        }

    def _wanted(self) -> dict[str, set[str]]:
        """The executions that belong to each destination."""
        found: dict[str, set[str]] = {name: set() for name in ("main", *DESTINATIONS)}
        self._unit_of: dict[str, str] = {}
        for execution in self.traffic.happened:
            for record in (step.body for step in execution.steps):
                if record["message"] in TERMINAL:
                    execution_id = record["data"]["executionId"]
                    self._unit_of[execution_id] = f"source {self.source_of[record['userId']]}"
                    found["main"].add(execution_id)
                    if record["userId"] in self.half:
                        found["acme"].add(execution_id)
                    if record["message"] == "executionError":
                        found["globex"].add(execution_id)
        return found

    def _check_leases(self) -> dict[str, int]:
        """Epochs only rise, by one when somebody takes a unit; how often each was taken over."""
        epochs: dict[str, int] = {}
        takeovers: dict[str, int] = defaultdict(int)
        for change in self.replicas.witness.changed():
            before = epochs.get(change.unit, 0)
            taken = change.owner is not None
            assert change.epoch == before + taken, change
            epochs[change.unit] = change.epoch
            takeovers[change.unit] += change.takeover
        self._epochs = epochs
        return takeovers

    def _check_cursors(self) -> None:
        """No cursor went back, and nobody wrote what was another one's."""
        members = self.replicas.witness.members()
        last: dict[str, tuple[int, tuple[int, int], int]] = {}
        for one in self.replicas.witness.moved():
            assert one.owner is not None and members[one.owner] == one.writer, one
            high, window, position = last.get(one.source, (0, (0, 0), 0))
            assert (one.high or 0) >= high, (one, high)
            found = (one.start or 0, one.before or 0)
            if found == window:
                assert (one.position or 0) >= position, (one, position)
            last[one.source] = (one.high or 0, found, one.position or 0)
        for gone in self.replicas.witness.emptied():
            assert gone.owner is not None and members[gone.owner] == gone.writer, gone

    def _check_repeats(self, takeovers: dict[str, int]) -> int:
        """What came twice did so byte for byte, and is one batch of a unit at most for each
        takeover of it, and each time that its owner could not renew it in time, as the database was
        away for all; besides what was sent again because its answer was lost. Also where a unit was
        handed over, one signal of a batch is repeated whose other signal the endpoint had refused
        until then. How many were."""
        batches = 0
        for destination in ("main", *DESTINATIONS):
            for kind in ("traces", "logs"):
                forms: dict[str, bytes] = {}
                latest: dict[str, Arrival] = {}
                again: dict[str, set[Arrival]] = defaultdict(set)
                for arrival in self.endpoint.arrivals:
                    if (arrival.destination, arrival.signal) != (destination, kind):
                        continue
                    for execution, form in arrival.items.items():
                        assert forms.setdefault(execution, form) == form, execution
                        earlier = latest.get(execution)
                        if earlier is not None and not earlier.lost:
                            unit = f"destination {destination}"
                            if destination == "main":
                                unit = self._unit_of[execution]
                            again[unit].add(earlier)
                        latest[execution] = arrival
                for unit, some in again.items():
                    batches += len(some)
                    assert len(some) <= self._epochs[unit] - 1 + self.outages, (unit, len(some))
                    whole = [one for one in some if self._was_whole(one)]
                    most = takeovers[unit] + self.outages
                    assert len(whole) <= most, (unit, kind, [one.replica for one in whole], most)
        return batches

    def _was_whole(self, arrival: Arrival) -> bool:
        """Whether the same replica had delivered the other signal too, and heard so."""
        return any(
            other.replica == arrival.replica
            and other.destination == arrival.destination
            and other.signal != arrival.signal
            and not other.lost
            and not arrival.items.keys().isdisjoint(other.items)
            for other in self.endpoint.arrivals
        )

    def close(self) -> None:
        self.endpoint.release()
        self.replicas.close()
        self.alloy.stop()
        self.endpoint.server.__exit__(None, None, None)


@contextmanager
def told(folder: Path, url: str, seed: int = 1) -> Iterator[Story]:
    """A story, with an end."""
    story = Story(folder, url, seed)
    try:
        yield story
    finally:
        story.close()


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A disk of its own (tmpfs), which only root can make, and everybody enter."""
    folder = Path(tempfile.mkdtemp(prefix="otel-alloy-disk-"))
    folder.chmod(0o755)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(folder)]
    try:
        if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("a small disk cannot be mounted here: that takes root")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
    finally:
        folder.rmdir()
