"""Replicas as real processes that share sources in a PostgreSQL, and live traffic for them.

Each customer's executions belong to one source, so whose an execution is can be told at the far
end. The processes are the installed command. Nothing here judges what they do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, time
from typing import Any

import psycopg

from otel_alloy.checkpoint.leases import Board, Leases
from otel_alloy.checkpoint.store import open_shared, open_store
from otel_alloy.errors import AlloyReceiverError
from otel_alloy.testing.simulator import Execution, LogStore, Traffic, live
from otel_alloy.testing.witness import Witness

_LONGEST_MS = 4_000
_NAME = "application_name"


def until(done: Callable[[], object], within: float, what: str = "it") -> float:
    """Looks again and again; how long it took, s. A database that is away is looked for again."""
    begun, pause = monotonic(), threading.Event()
    while True:
        with suppress(AlloyReceiverError, psycopg.Error):
            if done():
                return monotonic() - begun
        if monotonic() - begun > within:
            raise AssertionError(f"{what} did not come within {within:g} s")
        pause.wait(0.1)


class LiveTraffic:
    """Executions of so many `users`, `rate` a second, until `end`; short ones."""

    def __init__(self, users: int, rate: float, seed: int = 1) -> None:
        self._traffic = Traffic(users=users, seed=seed)
        self._rate = rate
        self._ended = threading.Event()
        self.happened: list[Execution] = []
        found: set[str] = set()
        for execution in live(start=0, rate=1, traffic=self._traffic):
            found.add(str(execution.steps[0].body["userId"]))
            if len(found) == users:
                break
        self.users = sorted(found)

    def begin(self, log: LogStore) -> None:
        """Lets them happen from now on."""
        log.feed(self._executions())

    def end(self) -> None:
        """Lets nothing more begin."""
        self._ended.set()

    def _executions(self) -> Iterator[Execution]:
        for execution in live(start=time(), rate=self._rate, traffic=self._traffic):
            if self._ended.is_set():
                return
            if execution.steps[-1].at - execution.started < _LONGEST_MS:
                self.happened.append(execution)
                yield execution


@dataclass(eq=False)
class Replica:
    """One process. `name`: its `application_name`, and the header `x-replica` of what it sends."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path = field(repr=False)

    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text(errors="replace")


class Replicas:
    """`url`: of their database, which is empty. `settings`: of all of them, as in a settings file.
    `variables`: what they get of the environment besides."""

    def __init__(
        self,
        folder: Path,
        url: str,
        settings: dict[str, Any],
        variables: Mapping[str, str],
    ) -> None:
        self._folder = folder
        self._url = url
        self._variables = dict(variables)
        self._file = folder / "settings.json"
        self._file.write_text(json.dumps(settings))  # which is YAML, too
        self.running: list[Replica] = []
        self._all: list[Replica] = []
        open_store(url).close()  # makes the tables
        self.witness = Witness(url)
        self.witness.watch()
        self._database = open_shared(url)
        self._leases = Leases(self._database, 1.0)

    def start(self, url: str | None = None) -> Replica:
        """Another one; `url`: its way to the database, where that is another one."""
        name = f"r{len(self._all) + 1}"
        url = url or self._url
        log = self._folder / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(Path(sys.executable).with_name("otel-alloy")), "run"],
                cwd=self._folder,
                env={
                    "PATH": os.environ.get("PATH", ""),
                    "HOME": str(self._folder),
                    "OTEL_ALLOY_CONFIG": str(self._file),
                    "OTEL_ALLOY_STORAGE": url + ("&" if "?" in url else "?") + f"{_NAME}={name}",
                    "OTEL_EXPORTER_OTLP_HEADERS": f"x-replica={name}",
                    "REPLICA": name,
                    **self._variables,
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        found = Replica(name, process, log)
        self.running.append(found)
        self._all.append(found)
        return found

    def gone(self, replica: Replica) -> None:
        """One that has ended counts no more."""
        replica.process.wait(60)
        self.running.remove(replica)

    def board(self) -> Board:
        """Leases and replicas, as all see them."""
        return self._leases.board()

    def owners(self, kind: str = "") -> dict[str, str]:
        """Which replica validly holds each unit of a kind, by its own name."""
        members = self.witness.members()
        return {
            one.unit: members[one.owner]
            for one in self.board().leases
            if one.valid and one.owner and one.unit.startswith(kind)
        }

    def units_of(self, replica: Replica) -> set[str]:
        """What it validly holds."""
        return {unit for unit, owner in self.owners().items() if owner == replica.name}

    def spread(self, units: int) -> bool:
        """Whether so many units are held, and of each kind those that run hold about as many."""
        owners = self.owners()
        for kind in ("source ", "destination "):
            counts = Counter({one.name: 0 for one in self.running})
            counts.update(owner for unit, owner in owners.items() if unit.startswith(kind))
            if max(counts.values()) - min(counts.values()) > 1:
                return False
        return len(owners) == units and set(owners.values()) <= {o.name for o in self.running}

    def close(self) -> None:
        """Kills all of them."""
        for one in self._all:
            if one.process.poll() is None:
                one.process.kill()
            one.process.wait()
        self._database.close()
