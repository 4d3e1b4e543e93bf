"""Many destinations beside the main one: how late the healthy ones are, what they cost, what
becomes of one that was down for a day, and how files are taken up (Linux only: it reads /proc).

The command itself, with its default settings but for what is said, reads a simulated Alloy with
live traffic: executions of customers chosen evenly by chance, which is the hardest case, as nearly
each one makes requests of its own. Each customer has a destination, a file in `destinations_dir`;
of 1,000, 25 refuse connections, 25 hang (they take a connection and never answer), 20 answer after
5 s, 5 refuse one record in ten. All far ends are one process (`destination_ends.py`).

`lag`: seconds from createdAt to the arrival of a log record at a healthy destination, and at the
main one in the same run; of the same execution, how much later than at the main one. `cpu`: of the
process, beside a run without destinations. `recovery`: a destination is dead while a day of
executions is read, and its outbox may hold 10 MB; then it is there again. `reload`: files are read
at first, looked at, and changed. Arguments: `--parts`, `--customers`, `--rate`, `--seconds`;
`--quick` (half a minute each, fewer executions in the recovery).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

from common import of_customers
from sources import Watched, command, cpu

from otel_alloy.settings.destinations_dir import Directory
from otel_alloy.settings.models import Settings
from otel_alloy.testing.simulator import (
    Config,
    Simulator,
    Traffic,
    iso,
    live,
    timeline,
)

KINDS = {"refusing": 25, "hanging": 25, "slow": 20, "poison": 5}
"""How many of 1,000 destinations; the rest is healthy."""
DAY = 86_400
WARM_SECONDS = 20.0
PATIENCE = 600.0


class Arrival(NamedTuple):
    """A log record: whose, which, when it was made and when it came (Unix seconds)."""

    path: str
    trace: str
    created: float
    at: float


class Ends:
    """`destination_ends.py`, a context manager. `arrived`: all that came, as far as it was asked
    for."""

    def __enter__(self) -> Ends:
        self.arrived: list[Arrival] = []
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("destination_ends.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._ask, self._told = self._process.stdin, self._process.stdout
        self._ports: dict[str, int] = json.loads(self._told.readline())
        return self

    def url(self, kind: str, path: str) -> str:
        """The endpoint that behaves so."""
        return f"http://127.0.0.1:{self._ports[kind]}/{path}"

    def look(self, words: str = "") -> list[Arrival]:
        """Asks what arrived; all of it until now."""
        self._ask.write(words + "\n")
        self._ask.flush()
        self.arrived += [Arrival(*one) for one in json.loads(self._told.readline())]
        return self.arrived

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()


def kinds(customers: int) -> dict[str, str]:
    """How each customer's endpoint behaves."""
    names = [f"u{number}" for number in range(customers)]
    chance = random.Random(3)
    left = chance.sample(names, len(names))
    found = dict.fromkeys(names, "healthy")
    for kind, of_thousand in KINDS.items():
        for _ in range(of_thousand * customers // 1000):
            found[left.pop()] = kind
    return found


@dataclass
class Stage:
    """A simulated Alloy, the far ends and a folder; `start` begins the command. `customers`: how
    each one's endpoint behaves, by name."""

    stack: ExitStack
    customers: Mapping[str, str]
    settings: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.alloy = self.stack.enter_context(Simulator(Config(max_limit=100, request_log=10**6)))
        self.ends = self.stack.enter_context(Ends())
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.store = self.folder / "checkpoint.db"
        self.files = self.folder / "destinations"
        self.files.mkdir()
        for name in self.customers:
            self.write(name)

    def write(self, name: str, path: str = "", more: str = "") -> None:
        """A destination's file, put in place at once."""
        url = self.ends.url(self.customers[name], path or name)
        new = self.folder / "new.yaml"
        new.write_text(f"match: {{ user.id: {name} }}\notlp: {{ endpoint: {url} }}\n{more}")
        new.replace(self.files / f"{name}.yaml")

    def start(self) -> None:
        """Begins the command; what it says is in `said`, with the time (Unix seconds)."""
        settings = {
            "endpoint": self.alloy.endpoint,
            "page_size": 100,
            "enrich": "off",
            "initial_lookback": 0,
            **({"destinations_dir": str(self.files)} if self.customers else {}),
            **self.settings,
        }
        file = self.folder / "settings.json"
        file.write_text(json.dumps(settings))  # which is YAML, too
        self.said: list[tuple[float, str]] = []
        self.began = time.time()
        self.process = subprocess.Popen(
            command("run", "--config", str(file)),
            env={
                "PATH": os.environ.get("PATH", ""),
                "HOME": str(self.folder),
                "PYTHONPATH": str(Path(__file__).parents[1]),
                "ALLOY_API_KEY": "bench",
                "OTEL_ALLOY_STORAGE": f"sqlite:///{self.store}",
                "OTEL_ALLOY_HEALTH_ENDPOINT": "127.0.0.1:0",
                "OTEL_EXPORTER_OTLP_ENDPOINT": self.ends.url("healthy", "main"),
            },
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.stack.callback(self.end)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append((time.time(), line.decode()))

    def end(self) -> float:
        """Ends the command; the seconds that this takes."""
        begun = time.monotonic()
        self.process.terminate()
        self.process.wait()
        return time.monotonic() - begun

    def asks(self, query: str) -> tuple[float, ...]:
        """A row of the checkpoint."""
        with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True)) as db:
            row = db.execute(query).fetchone()
        return tuple(value or 0 for value in row)

    def on_disk(self) -> int:
        """Bytes of the checkpoint."""
        return sum(file.stat().st_size for file in self.folder.glob("checkpoint.db*"))

    def words_heard(self, words: str, since: float) -> float:
        """Waits until the command says that; when it did."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for at, line in list(self.said):
                if at >= since and words in line:
                    return at
            time.sleep(0.01)
        raise SystemExit(f"the command did not say {words!r}")


def percentiles(seconds: list[float]) -> str:
    """p50, p99, max."""
    ordered = sorted(seconds)
    p99 = ordered[int(len(ordered) * 0.99)]
    return f"p50 {median(ordered):.2f} s, p99 {p99:.2f} s, max {ordered[-1]:.2f} s"


def load() -> str:
    """What else the machine does."""
    return f"load {os.getloadavg()[0]:.1f}"


def lag(customers: int, rate: float, seconds: float) -> tuple[float, float]:
    """Prints how late records are and what that costs; CPU seconds and deliveries to destinations
    per execution."""
    with ExitStack() as stack:
        names = kinds(customers)
        stage = Stage(stack, names)
        chance = random.Random(4)
        one_of = [*names] or ["u0"]
        begin = time.time()
        executions = live(start=begin, rate=rate, traffic=Traffic(lifecycle="terminal"))
        stage.alloy.store.feed(of_customers(executions, lambda: chance.choice(one_of)))
        stage.start()
        time.sleep(WARM_SECONDS)
        stage.ends.look()
        watched = Watched(stage.process)
        begun, spent, asked = time.time(), cpu(stage.process.pid), len(stage.alloy.requests)
        watched.watch(seconds)
        spent = cpu(stage.process.pid) - spent
        asked = len(stage.alloy.requests) - asked
        arrived = [one for one in stage.ends.look() if one.at >= begun]
        elapsed = time.time() - begun
        main = {one.trace: one for one in arrived if one.path == "/main"}
        others = [one for one in arrived if one.path != "/main"]
        print(
            f"{customers} destinations, {len(main) / elapsed:.1f} executions/s for {elapsed:.0f} s,"
            f" {len(others)} deliveries, {60 * asked / elapsed:.0f} requests/min to Alloy; "
            f"{watched.words()}, by quarters {watched.quarters()}; {load()}"
        )
        print(f"  main: {percentiles([one.at - one.created for one in main.values()])}")
        for kind in ("healthy", "poison", "slow"):
            these = [one for one in others if names[one.path[1:]] == kind]
            later = [one.at - main[one.trace].at for one in these if one.trace in main]
            if these:
                print(
                    f"  {kind}: {percentiles([one.at - one.created for one in these])}; "
                    f"later than at main: {percentiles(later)}"
                )
        if customers:
            waiting, size = stage.asks("SELECT sum(executions), sum(size) FROM outbox")
            print(
                f"  waiting: {waiting:.0f} executions, {size / max(1, waiting):.0f} bytes each; "
                f"checkpoint {stage.on_disk() / 1e6:.1f} MB"
            )
            healthy = {name for name, kind in names.items() if kind == "healthy"}
            there = Counter(one.trace for one in others if one.path[1:] in healthy)
            twice = sum(times > 1 for times in there.values())
            print(f"  twice at healthy ones: {twice}; ended in {stage.end():.2f} s")
        cost = spent / len(main)
        print(f"  CPU {cost * 1e6:.0f} µs per execution", flush=True)
        return cost, len(others) / len(main)


def recovery(executions: int) -> None:
    """Prints what becomes of a destination that is dead while a day of executions is read, of which
    it gets three in ten."""
    with ExitStack() as stack:
        customers = {"u0": "refusing"}
        limits = {"outbox": {"max_bytes": 10_000_000}, "initial_lookback": DAY}
        stage = Stage(stack, customers, {**limits, "requests_per_minute": 0})
        chance = random.Random(5)
        now = time.time()
        past = timeline(
            executions, start=now - DAY + 60, end=now, traffic=Traffic(lifecycle="terminal")
        )
        wanted = 0

        def chosen() -> str:
            nonlocal wanted
            ours = chance.random() < 0.3
            wanted += ours
            return "u0" if ours else f"u{chance.randrange(1, 1000)}"

        stage.alloy.store.feed(of_customers(past, chosen))
        stage.alloy.store.advance()
        stage.start()
        until(lambda: len(stage.ends.look()) >= executions)
        time.sleep(3.0)  # room is made every two seconds
        read = time.time() - stage.began
        waiting, size = stage.asks("SELECT sum(executions), sum(size) FROM outbox")
        noted, notes = stage.asks("SELECT sum(executions), sum(length(packed)) FROM recall")
        print(
            f"a day of {executions:,} executions, {wanted:,} of them for a dead destination, read "
            f"in {read:.0f} s: {waiting:,.0f} wait, {size / max(1, waiting):.0f} bytes each; "
            f"{noted:,.0f} are noted, {notes / max(1, noted):.1f} bytes each; "
            f"checkpoint {stage.on_disk() / 1e6:.1f} MB; {load()}"
        )
        before, begun = len(stage.alloy.requests), time.time()
        stage.ends.look("open")
        came: Counter[str] = Counter()
        seen = 0

        def is_complete() -> bool:
            nonlocal seen
            arrived = stage.ends.look()
            came.update(one.trace for one in arrived[seen:] if one.path == "/u0")
            seen = len(arrived)
            return len(came) >= wanted

        until(is_complete)
        arrivals = [one for one in stage.ends.arrived if one.path == "/u0"]
        asked = [*stage.alloy.requests][before:]
        age = iso(round((begun - 600) * 1000))  # what is younger is what `run` asks anyway
        again = sum(age > oldest(one.params.get("filters", "")) for one in asked)
        time.sleep(5.0)
        arrivals = [one for one in stage.ends.look() if one.path == "/u0"]
        ended = max(one.at for one in arrivals)
        print(
            f"back: the first record after {min(one.at for one in arrivals) - begun:.1f} s, all "
            f"after {ended - begun:.1f} s; {again} requests to Alloy to read again, which the "
            f"default budget allows in {again / 15:.0f} min; {len(arrivals):,} arrived, "
            f"{len({one.trace for one in arrivals}):,} different ones; {load()}",
            flush=True,
        )


def oldest(filters: str) -> str:
    """The earliest createdAt that a request to Alloy asks for; none is late."""
    found = re.findall(r"\d{4}-\d\d-\d\dT[\d:.]+Z", filters)
    return min(found, default="9")


def until(condition: Callable[[], bool]) -> None:
    """Waits for it."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("it took too long")
        time.sleep(0.2)


def reload(customers: int, rate: float) -> None:
    """Prints how files are read, and taken up by `run`."""
    with ExitStack() as stack:
        names = dict.fromkeys((f"u{number}" for number in range(customers)), "healthy")
        stage = Stage(stack, names)
        settings = Settings.model_validate(
            {
                "api_key": "bench",
                "destinations_dir": str(stage.files),
                "environment": {"OTEL_EXPORTER_OTLP_ENDPOINT": stage.ends.url("healthy", "main")},
            }
        )
        directory = Directory(settings, time.time)
        first = timed(directory.read)
        look = min(timed(directory.changed) for _ in range(5))
        print(
            f"{customers} files: read in {first:.2f} s of CPU, a look without change "
            f"{look * 1000:.1f} ms; {load()}"
        )
        chance = random.Random(4)
        executions = live(start=time.time(), rate=rate, traffic=Traffic(lifecycle="terminal"))
        chosen = partial(chance.choice, [*names])
        stage.alloy.store.feed(of_customers(executions, chosen))
        stage.start()
        time.sleep(WARM_SECONDS)
        in_force = []
        for _ in range(5):
            stage.write("u0", more="privacy: 1\n")
            os.utime(stage.files / "u0.yaml", (1, time.time() - 10))  # not half written
            stage.words_heard("destination u0 is disabled", time.time())
            begun = time.time()
            stage.write("u0")
            in_force.append(stage.words_heard("destination u0 is right again", begun) - begun)
        print(f"a changed file is in force after {min(in_force):.1f} to {max(in_force):.1f} s")
        usual = largest_gaps(stage, time.time(), 20.0)
        print(f"largest gap between arrivals: {usual}; {load()}", flush=True)
        begun = time.time()
        for name in names:
            stage.write(name, f"new/{name}")
        written = time.time()
        stage.process.send_signal(signal.SIGHUP)
        gaps = largest_gaps(stage, begun, 20.0)
        arrived = [one for one in stage.ends.arrived if one.path != "/main"]
        old = max(one.at for one in arrived if not one.path.startswith("/new"))
        new = min(one.at for one in arrived if one.path.startswith("/new"))
        print(
            f"all {customers} changed (written in {written - begun:.1f} s), then SIGHUP: the first "
            f"at a new address after {new - written:.1f} s, the last at an old one after "
            f"{old - written:.1f} s; largest gap: {gaps}; {load()}"
        )
        fresh = Counter(one.trace for one in arrived if one.at > begun)
        due = {
            one.trace
            for one in stage.ends.arrived
            if one.path == "/main" and begun < one.at < time.time() - 5
        }
        lost, twice = len(due - fresh.keys()), sum(times > 1 for times in fresh.values())
        print(f"  of {len(due)} executions around it, {lost} did not come, {twice} came twice")


def largest_gaps(stage: Stage, begun: float, seconds: float) -> str:
    """Between arrivals at destinations, and at main, from `begun` on for so long from now."""
    time.sleep(seconds)
    arrived = stage.ends.look()
    found = []
    for words, at_main in (("at destinations", False), ("at main", True)):
        moments = sorted(
            one.at for one in arrived if one.at > begun and (one.path == "/main") is at_main
        )
        gap = max(later - earlier for earlier, later in pairwise(moments))
        found.append(f"{gap:.2f} s {words}")
    return ", ".join(found)


def timed(what: Callable[[], object]) -> float:
    """Seconds of CPU."""
    begun = time.process_time()
    what()
    return time.process_time() - begun


def main() -> None:
    """Prints the figures of each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default="lag,recovery,reload")
    parser.add_argument("--customers", type=int, default=1_000)
    parser.add_argument("--rate", type=float, default=50.0, help="executions a second")
    parser.add_argument("--seconds", type=float, default=180.0, help="how long it is watched")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    seconds = 30.0 if options.quick else options.seconds
    parts = options.parts.split(",")
    if "lag" in parts:
        without, _ = lag(0, options.rate, min(60.0, seconds))
        cost, deliveries = lag(options.customers, options.rate, seconds)
        more = (cost - without) / deliveries
        print(f"CPU of a delivery to a destination: {more * 1e6:.0f} µs", flush=True)
    if "recovery" in parts:
        recovery(8_640 if options.quick else 86_400)
    if "reload" in parts:
        reload(options.customers, options.rate)


if __name__ == "__main__":
    main()
