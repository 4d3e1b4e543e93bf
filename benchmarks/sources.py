"""Many sources in one process, and how soon the command is there (Linux only: it reads /proc).

Alloy has no records, and takes 50 ms for an answer (`empty_alloy.py`). Each source has a key and a
workflow of its own, by which its requests are told apart; the settings are the default ones but for
the health port, which is a free one. Start-up is the CPU time, best of five: of `--version`, of
completing a command's name, of `run` up to its first request. Then for each number of sources: how
long after the first source's first request the last one has had its own; the share of a core while
nothing happens; threads, file descriptors and memory, the most that was seen while watching and
what is usual (the median); and the requests of one interval by tenths of it, fewest and most.
Arguments: `--sources`, `--interval`, `--seconds`; `--tree FOLDER` measures the otel_alloy in there.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median

ROUNDS = 5
TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE = 60.0


def environment(tree: Path, folder: str) -> dict[str, str]:
    """What every measured process gets."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": folder,
        "PYTHONPATH": str(tree),
        "PYTHONSAFEPATH": "1",  # not from the folder in which this runs
        "OTEL_ALLOY_STORAGE": f"sqlite:///{folder}/checkpoint.db",
        "OTEL_ALLOY_HEALTH_ENDPOINT": "127.0.0.1:0",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    }


def command(*words: str) -> list[str]:
    """The command line, as the installed script would run it."""
    return [sys.executable, "-c", "from otel_alloy.cli import main; main()", *words]


def cpu(process: int) -> float:
    """CPU seconds that a running process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def whole_cpu(words: list[str], variables: dict[str, str]) -> float:
    """CPU seconds of a command that ends by itself."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, env=variables, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Alloy:
    """`empty_alloy.py`, a context manager."""

    def __enter__(self) -> Alloy:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("empty_alloy.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._ask, self._told = self._process.stdin, self._process.stdout
        self.endpoint = self._told.readline().strip()
        return self

    def requests(self) -> list[tuple[float, str]]:
        """Those so far: Unix seconds and workflow."""
        self._ask.write("\n")
        self._ask.flush()
        found: list[tuple[float, str]] = json.loads(self._told.readline())
        return found

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()


def until_asked(tree: Path) -> float:
    """CPU seconds of `run` until its first request."""
    with Alloy() as alloy, tempfile.TemporaryDirectory() as folder:
        variables = {"ALLOY_API_KEY": "bench", "ALLOY_ENDPOINT": alloy.endpoint}
        process = subprocess.Popen(
            command("run"), env=environment(tree, folder) | variables, stderr=subprocess.DEVNULL
        )
        while not alloy.requests() and process.poll() is None:
            time.sleep(0.002)
        taken = cpu(process.pid)
        process.terminate()
        process.wait()
    return taken


def best(measure: Callable[[], float]) -> float:
    """The least of some rounds."""
    return min(measure() for _ in range(ROUNDS))


def start_up(tree: Path) -> None:
    """Prints what starting costs."""
    with tempfile.TemporaryDirectory() as folder:
        variables = environment(tree, folder)
        completing = variables | {
            "_OTEL_ALLOY_COMPLETE": "bash_complete",
            "COMP_WORDS": "otel-alloy ba",
            "COMP_CWORD": "1",
        }
        python = best(lambda: whole_cpu([sys.executable, "-c", "pass"], variables))
        version = best(lambda: whole_cpu(command("--version"), variables))
        tab = best(lambda: whole_cpu(command(), completing))
    run = best(lambda: until_asked(tree))
    print(
        f"CPU: Python alone {python:.3f} s, --version {version:.3f} s, completing {tab:.3f} s, "
        f"run to its first request {run:.2f} s",
        flush=True,
    )


class Watched:
    """What a process holds, looked at again and again."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._threads: list[int] = []
        self._files: list[int] = []
        self._memory: list[int] = []

    def look(self) -> None:
        """Once more."""
        if (code := self._process.poll()) is not None:
            raise SystemExit(f"the command has ended with {code}")
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        values = dict(line.split(":", 1) for line in status.splitlines())
        self._threads.append(int(values["Threads"]))
        self._memory.append(int(values["VmRSS"].split()[0]))
        self._files.append(len(os.listdir(f"/proc/{self._process.pid}/fd")))

    def watch(self, seconds: float) -> None:
        """For so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.look()
            time.sleep(0.05)

    @property
    def memory(self) -> float:
        """MB, usually."""
        return median(self._memory) / 1000

    def quarters(self) -> str:
        """MB, usually, in each quarter of the time."""
        part = max(1, len(self._memory) // 4)
        found = [median(self._memory[at : at + part]) for at in range(0, 4 * part, part)]
        return ", ".join(f"{one / 1000:.1f}" for one in found) + " MB"

    def words(self) -> str:
        """All of it."""
        return (
            f"threads {median(self._threads):.0f} (most {max(self._threads)}), "
            f"files {median(self._files):.0f} (most {max(self._files)}), "
            f"memory {self.memory:.1f} MB"
        )


def many(tree: Path, number: int, interval: float, seconds: float) -> float:
    """Prints what so many sources cost; their memory in MB."""
    with Alloy() as alloy, tempfile.TemporaryDirectory() as folder:
        settings = {
            "endpoint": alloy.endpoint,
            "collection_interval": interval,
            "sources": [
                {"name": f"s{n}", "api_key": f"bench-{n}", "workflow_id": f"{n:024x}"}
                for n in range(number)
            ],
        }
        file = Path(folder, "settings.json")
        file.write_text(json.dumps(settings))  # which is YAML, too
        begun = time.time()
        process = subprocess.Popen(
            command("run", "--config", str(file)),
            env=environment(tree, folder),
            stderr=subprocess.DEVNULL,
        )

        def first_requests() -> dict[str, float]:
            found: dict[str, float] = {}
            for moment, workflow in alloy.requests():
                if workflow:
                    found.setdefault(workflow, moment)
            return found

        while len(first_requests()) < number and time.time() < begun + PATIENCE:
            time.sleep(0.05)
        first = sorted(first_requests().values())
        spent = cpu(process.pid)
        rest = Watched(process)
        rest.watch(interval)  # of the first cycles, and what follows
        usual = Watched(process)
        since, before = time.time(), cpu(process.pid)
        usual.watch(seconds)
        share = (cpu(process.pid) - before) / seconds
        tenths = Counter(
            int(10 * (moment - since) / interval)
            for moment, _ in alloy.requests()
            if since <= moment < since + interval
        )
        asked = [tenths[tenth] for tenth in range(10)]
        process.terminate()
        ended = time.monotonic()
        process.wait()
        ended = time.monotonic() - ended
    print(
        f"{number} sources: all asked {first[-1] - first[0]:.2f} s after the first, which was "
        f"{first[0] - begun:.2f} s after the start ({spent:.2f} s of CPU until then); "
        f"{share:.2%} of a core; {usual.words()}; "
        f"requests in tenths of an interval {min(asked)} to {max(asked)}; ended in {ended:.2f} s",
        flush=True,
    )
    return usual.memory


def main() -> None:
    """Prints a line for starting, and one for each number of sources."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sources", default="1,50,200", help="numbers, with commas")
    parser.add_argument("--interval", type=float, default=30.0, help="seconds")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each is watched")
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[1])
    options = parser.parse_args()
    tree = options.tree.resolve()
    start_up(tree)
    seconds = max(options.seconds, options.interval)  # the spread is that of a whole interval
    numbers = [int(one) for one in options.sources.split(",")]
    memory = {n: many(tree, n, options.interval, seconds) for n in numbers}
    least, most = min(numbers), max(numbers)
    if least < most:
        each = (memory[most] - memory[least]) / (most - least) * 1000
        print(f"memory per source: {each:.0f} kB")


if __name__ == "__main__":
    main()
