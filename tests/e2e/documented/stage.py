"""Where a page's commands are run: a machine of their own, as far as they can tell.

A `Stage` is a set of namespaces (network, mounts, processes) with nothing on its loopback but what
the page starts and `world.py` brings, so that ports, names and paths are those that the page has.
What is written to /etc, /opt, /run or /var/lib stays in there; a copy of the checkout is the folder
in which people are; when the stage ends, whatever runs in it ends too. `Terminal` is a bash on a
pseudo-terminal in it, into which lines are typed.

Nothing here knows a page. What stands in for docker, kubectl and systemctl is in `programs/`.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import sysconfig
import termios
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .world import HOSTS

REPOSITORY = Path(__file__).parents[3]
WORLD = Path(__file__).with_name("world.py")
PROGRAMS = Path(__file__).with_name("programs")
COLUMNS = 200
PATIENCE = 90.0
"""Seconds for a command that says nothing of its own; none needs a third of it."""
WRITABLE = ("/etc", "/opt", "/var/lib")

_HOLD = """\
set -e
ip link set lo up
mount -t tmpfs stage "$1"
i=0
for place in $2; do
  i=$((i + 1)); mkdir -p "$1/$i/upper" "$1/$i/work"
  mount -t overlay stage -o "lowerdir=$place,upperdir=$1/$i/upper,workdir=$1/$i/work" "$place"
done
mount -t tmpfs stage /run
printf '%s\\n' "$3" > /etc/hosts
read -r pid rest < /proc/self/stat
mount -t proc stage /proc
echo "$pid"
exec sleep infinity
"""
"""Says the process's id as the machine outside has it, and holds the namespaces."""


SCRIPTS = ("otel-alloy", "pip", "opentelemetry-instrument", "uvicorn")
_SCRIPT = """\
#!{python}
import sys
from importlib.metadata import entry_points

sys.argv[0] = "{name}"
(found, *_) = entry_points(group="console_scripts", name="{name}")
sys.exit(found.load()())
"""


_GIT = ("git", "-c", "user.name=nobody", "-c", "user.email=nobody@example.com")


class NoStage(Exception):
    """Namespaces cannot be made here; the message says why."""


@dataclass(frozen=True)
class Done:
    """What became of a command: its exit code, None where it still runs, and what it printed."""

    code: int | None
    output: str


class Terminal:
    """An interactive bash. One line is typed at a time, as far as `type` has come back."""

    def __init__(self, command: list[str]) -> None:
        ours, theirs = pty.openpty()
        mode = termios.tcgetattr(theirs)
        mode[1] &= ~termios.OPOST  # what is printed comes as it is
        mode[3] &= ~termios.ECHO
        termios.tcsetattr(theirs, termios.TCSANOW, mode)
        self._shell = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        termios.tcsetwinsize(theirs, (50, COLUMNS))
        os.close(theirs)
        self._ours = ours
        self._seen = ""
        self._wait(_PROMPT, lambda: False)

    def type(
        self,
        line: str,
        *,
        until: str = "",
        once: Callable[[], bool] | None = None,
        stay: bool = False,
    ) -> Done:
        """Types `line` and waits for its end. With `until`, a pattern of what it prints, or `once`,
        a condition, it does not end by itself: when that has come, it is ended with Ctrl-C, or
        goes on with `stay`. Raises TimeoutError."""
        os.write(self._ours, f"{line}\n".encode())
        endless = bool(until or once)
        pattern = re.compile(f"{until}|{_PROMPT.pattern}") if until else _PROMPT
        printed = self._wait(pattern, once or (lambda: False))
        if endless and not _PROMPT.search(printed):
            return Done(None, printed) if stay else self.interrupt(printed)
        return self._done(printed)

    def interrupt(self, printed: str = "") -> Done:
        """Types Ctrl-C, and waits for the end of what runs."""
        os.write(self._ours, b"\x03")
        return self._done(printed + self._wait(_PROMPT, lambda: False))

    def _done(self, printed: str) -> Done:
        found = _PROMPT.search(printed)
        assert found is not None
        return Done(int(found[1]), printed[: found.start()])

    def _wait(self, pattern: re.Pattern[str], or_else: Callable[[], bool]) -> str:
        """What is printed up to the end of the pattern, or until `or_else` holds."""
        deadline = time.monotonic() + PATIENCE
        while (match := pattern.search(self._seen)) is None and not or_else():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not done in {PATIENCE:g} s:\n{self._seen}")
            if select.select([self._ours], [], [], 0.1)[0]:
                self._seen += os.read(self._ours, 65536).decode(errors="replace")
        end = match.end() if match else len(self._seen)
        printed, self._seen = self._seen[:end], self._seen[end:]
        return printed

    def close(self) -> None:
        """Hangs up."""
        self._shell.kill()
        self._shell.wait()
        os.close(self._ours)


_PROMPT = re.compile(r"@ready (\d+)@")


class Stage:
    """Made by `stage`."""

    def __init__(self, folder: Path, holder: int, environment: Mapping[str, str]) -> None:
        self.folder = folder
        """For what is around the page; people are in `checkout`."""
        self.checkout = folder / "checkout"
        self.environment = dict(environment)
        self._holder = holder
        self._terminals: list[Terminal] = []
        self._servers: list[subprocess.Popen[str]] = []

    def inside(self, *words: str) -> list[str]:
        """The command that runs `words` in here."""
        user = ["--user", "--preserve-credentials"] if os.geteuid() else []
        return ["nsenter", f"--target={self._holder}", *user, "-n", "-m", "-p", "--", *words]

    def terminal(self, folder: str = "") -> Terminal:
        """A new one, in a folder of the checkout."""
        bash = ["bash", "--noprofile", "--norc", "--noediting", "-i"]
        where = f"--chdir={self.checkout / folder}"
        words = ["setsid", "--ctty", "--wait", "env", "-i", where, *self._variables(), *bash]
        terminal = Terminal(self.inside(*words))
        self._terminals.append(terminal)
        return terminal

    def start(self, *words: str, ready: str) -> None:
        """Starts a program that stays, and returns when it has printed the line `ready`."""
        log = self.folder / "started.log"
        with log.open("a") as errors:
            process = subprocess.Popen(
                self.inside("env", "-i", *self._variables(), *words),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._servers.append(process)
        assert process.stdout is not None
        assert f"{ready}\n" in process.stdout, f"{words} ended:\n{log.read_text()}"

    def delivered(self) -> int:
        """How much has been delivered to the world, as a number that grows."""
        received = self.folder / "received"
        return received.stat().st_size if received.exists() else 0

    def write(self, path: Path, text: str) -> None:
        """Writes a file; its folder is made where there is none."""
        script = 'mkdir -p "$(dirname "$1")" && cat > "$1"'
        words = self.inside("sh", "-c", script, "write", str(path))
        subprocess.run(words, input=text, text=True, check=True)

    def _variables(self) -> list[str]:
        return [f"{name}={value}" for name, value in self.environment.items()]

    def close(self) -> None:
        """Clears up, when everything in it has ended."""
        for terminal in self._terminals:
            terminal.close()
        for server in self._servers:
            server.kill()
            server.communicate()


def copy_of_checkout(target: Path) -> None:
    """What Git knows or would add, as a clean clone has it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        source, copy = REPOSITORY / name, target / name
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "As it is"]):
        subprocess.run([*_GIT, *words], cwd=target, check=True)


@contextmanager
def stage(folder: Path, programs: Mapping[str, Path] = {}) -> Iterator[Stage]:
    """A stage with its files in `folder`; `programs` are put on PATH by their names. Raises
    `NoStage`."""
    (folder / "layers").mkdir()
    hosts = "\n".join(f"{address} {name}" for name, address in HOSTS.items())
    user = ["--map-root-user"] if os.geteuid() else []
    unshare = ["unshare", *user, "-n", "-m", "-p", "--fork", "--kill-child"]
    if shutil.which("unshare") is None:
        raise NoStage("util-linux is not installed")
    holder = subprocess.Popen(
        [*unshare, "sh", "-c", _HOLD, "hold", folder / "layers", " ".join(WRITABLE), hosts],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None and holder.stderr is not None
        said = holder.stdout.readline()
        if not said:
            raise NoStage(holder.stderr.read().strip())
        copy_of_checkout(folder / "checkout")
        opened = Stage(folder, int(said), _environment(folder, programs))
        try:
            yield opened
        finally:
            holder.kill()  # and with it whatever runs in there
            opened.close()
    finally:
        holder.kill()
        holder.communicate()


def _environment(folder: Path, programs: Mapping[str, Path]) -> dict[str, str]:
    """Of a reader: a home, an environment of Python's with otel-alloy, and the programs. There is
    no package index; what pip would fetch is there already."""
    installed = sysconfig.get_path("purelib")
    (folder / "home").mkdir()
    (folder / "bin").mkdir()
    for path in PROGRAMS.iterdir():
        (folder / "bin" / path.stem).symlink_to(path)
    for name, path in programs.items():
        (folder / "bin" / name).symlink_to(path)
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    for name in SCRIPTS:
        script = python.with_name(name)
        script.write_text(_SCRIPT.format(python=python, name=name))
        script.chmod(0o755)
    site = folder / "venv" / Path(installed).relative_to(sys.prefix)
    (site / "checkout.pth").write_text(f"{REPOSITORY}\n")  # until a page installs it
    return {
        "PATH": f"{python.parent}:{folder}/bin:{os.environ['PATH']}",
        "HOME": str(folder / "home"),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        "PS1": "@ready $?@",
        "PS2": "",
        "SSL_CERT_FILE": str(folder / "authority.pem"),
        # Nobody waits here for a budget, or for a reason that does not come.
        "OTEL_ALLOY_REQUESTS_PER_MINUTE": "0",
        "OTEL_ALLOY_ENRICH_TIMEOUT": "2s",
        "PYTHONPATH": installed,
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # the way in which pip is told "yes"
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
