"""The unit of examples/systemd, installed with the commands of its README and run by a real
systemd, which is process 1 of namespaces of its own: the machine's services, files and users are
not touched."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import REPOSITORY, free_port, needs_namespaces, wait_until

if TYPE_CHECKING:
    from conftest import Place

pytestmark = pytest.mark.e2e

EXAMPLE = REPOSITORY / "examples" / "systemd"
UNIT = EXAMPLE / "otel-alloy.service"
BLOCKS = re.findall(r"```sh\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)
SYSTEMD = Path("/lib/systemd/systemd")
TARGETS = ("basic", "multi-user", "network-online", "shutdown", "sysinit")
WORST = 15
"""Tenths: what `systemd-analyze security` may say at most, where 100 is a service as root."""

# What may be changed belongs to nobody else: /etc as it is, with changes that go away; the rest
# empty. The units are ours alone, and the targets that they name do nothing.
BEGIN = f"""
set -e
mount --make-rprivate /
mkdir "$1/etc" "$1/work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/work" /etc
for folder in /opt /run /var/lib /etc/systemd/system; do mount -t tmpfs tmpfs $folder; done
mount -t proc proc /proc
mkdir -p /run/units/otel-alloy.service.d
for name in {" ".join(TARGETS)}; do
  printf '[Unit]\\nDefaultDependencies=no\\n' > /run/units/$name.target
done
printf '[Service]\\nStandardOutput=file:%s/output\\nStandardError=file:%s/output\\n' "$1" "$1" \\
  > /run/units/otel-alloy.service.d/output.conf
export container=other SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/units
export SYSTEMD_LOG_TARGET=console
exec {SYSTEMD} --system --unit=basic.target --show-status=no
"""


class Machine:
    """The namespaces, with systemd as their first process."""

    def __init__(self, leader: int, folder: Path) -> None:
        self._leader = leader
        self.folder = folder

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """Runs it inside, as root and in the repository, with the system's own Python."""
        inside = ["nsenter", "--target", str(self._leader), "--mount", "--pid", "--cgroup"]
        return subprocess.run(
            [*inside, f"--wd={REPOSITORY}", "sh", "-ec", script],
            env=os.environ | {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )

    def did(self, script: str) -> str:
        """What it printed; it has to succeed."""
        done = self.shell(script)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}\n{self.output()}"
        return done.stdout

    def shown(self, *properties: str) -> dict[str, str]:
        """What systemd knows of the service."""
        told = self.did(f"systemctl show otel-alloy --property={','.join(properties)}")
        return dict(line.split("=", 1) for line in told.splitlines())

    def output(self) -> str:
        """What the service and systemd have printed."""
        files = [self.folder / "output", self.folder / "systemd.log"]
        return "\n".join(file.read_text(errors="replace") for file in files if file.exists())


@contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """A systemd meanwhile."""
    apart = ["unshare", "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--fork"]
    with (folder / "systemd.log").open("wb") as log:
        process = subprocess.Popen(
            [*apart, "--kill-child=KILL", "sh", "-c", BEGIN, "sh", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_until(lambda: bool(children.read_text()), otherwise="unshare has not forked")
        inside = Machine(int(children.read_text()), folder)
        wait_until(
            lambda: inside.shell("systemctl is-active basic.target").returncode == 0,
            otherwise=inside.output(),
        )
        yield inside
    finally:
        process.kill()
        process.wait(60)


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Machine]:
    """A systemd of its own, in which nothing is installed yet."""
    needs_namespaces("systemctl", "nsenter")
    if not SYSTEMD.exists() or not Path("/usr/bin/python3").exists():
        pytest.skip("no systemd, or no Python of the system's, which a service can read")
    with machine(tmp_path) as made:
        yield made


def tell(machine: Machine, place: Place, **more: str) -> None:
    """Puts into the file of the environment what a user does."""
    values = {
        "ALLOY_API_KEY": place.environment["ALLOY_API_KEY"],
        "ALLOY_ENDPOINT": place.alloy.endpoint,
        "OTEL_EXPORTER_OTLP_ENDPOINT": place.otlp.http_endpoint,
        "OTEL_ALLOY_SINCE": "60d",
        "OTEL_ALLOY_ENRICH": "off",
        "OTEL_ALLOY_HEALTH_ENDPOINT": f"127.0.0.1:{free_port()}",
    } | more
    example = (EXAMPLE / "environment.example").read_text()
    kept = [line for line in example.splitlines() if line.partition("=")[0] not in values]
    lines = "\n".join([*kept, *(f"{name}={value}" for name, value in values.items())])
    machine.did(f"cat > /etc/otel-alloy/environment <<'END'\n{lines}\nEND")


def test_systemd_finds_nothing_wrong(inside: Machine) -> None:
    """The unit has no mistake, and leaves the service little."""
    inside.did("install -D /bin/true /opt/otel-alloy/bin/otel-alloy")
    done = inside.shell(f"systemd-analyze verify --man=no {UNIT}")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    inside.did(f"systemd-analyze security --offline=true --threshold={WORST} {UNIT}")


def test_the_service_from_start_to_stop(inside: Machine, place: Place) -> None:
    """As README.md installs it. `enable --now` comes back when Alloy has answered; what is there
    arrives; the service has no right and writes to its folder alone; a crash and a process that
    hangs are followed by a new one, which goes on; it stops in order. With a key that is refused,
    starting it fails, and systemd leaves it at that."""
    inside.did(BLOCKS[0])
    tell(inside, place)
    assert inside.did("stat -c '%a %u' /etc/otel-alloy/environment") == "600 0\n"
    records = place.fill(30)
    inside.did(BLOCKS[1])
    shown = inside.shown("ActiveState", "SubState", "MainPID", "Type", "UnitFileState")
    assert (shown["ActiveState"], shown["SubState"]) == ("active", "running")
    assert shown["UnitFileState"] == "enabled"
    wait_until(
        lambda: place.sent("logs").total() >= len(place.ended(records)),
        otherwise=inside.output(),
    )
    process = inside.did(f"cat /proc/{shown['MainPID']}/status")
    assert re.search(r"^CapBnd:\s+0+$", process, re.M) and "NoNewPrivs:\t1" in process
    (user,) = re.findall(r"^Uid:\t(\d+)", process, re.M)
    assert int(user) >= 61184  # the range of DynamicUser
    assert re.search(r"^Seccomp:\s+2$", process, re.M)
    found = inside.did("find /var/lib -mindepth 1 -user " + user + " -printf '%p %m\n'")
    assert found.splitlines()[0] == "/var/lib/private/otel-alloy 700"
    assert "/var/lib/private/otel-alloy/checkpoint.db 600" in found.splitlines()

    inside.did(
        "mkdir -p /run/units/otel-alloy.service.d && printf '[Service]\nRestartSec=100ms\n"
        "WatchdogSec=2s\n' > /run/units/otel-alloy.service.d/soon.conf && "
        "systemctl daemon-reload && systemctl restart otel-alloy"
    )
    for number, signal in enumerate(("KILL", "STOP"), 1):
        before = inside.shown("MainPID")["MainPID"]
        inside.did(f"kill -{signal} {before}")

        def again(before: str = before, number: int = number) -> bool:
            now = inside.shown("MainPID", "ActiveState", "NRestarts")
            return now["ActiveState"] == "active" and int(now["NRestarts"]) == number

        wait_until(again, otherwise=f"after SIG{signal}:\n{inside.output()}")
    more = place.fill(5, days=0.01)
    wait_until(
        lambda: place.sent("logs").total() >= len(place.ended([*records, *more])),
        otherwise=inside.output(),
    )
    inside.did("systemctl stop otel-alloy")
    shown = inside.shown("Result", "ExecMainStatus", "ActiveState")
    assert shown == {"Result": "success", "ExecMainStatus": "0", "ActiveState": "inactive"}
    place.assert_exactly_once(place.ended([*records, *more]))

    place.alloy.configure(api_key="another")
    assert inside.shell(BLOCKS[1]).returncode == 1
    shown = inside.shown("ActiveState", "ExecMainStatus", "NRestarts")
    assert shown == {"ActiveState": "failed", "ExecMainStatus": "3", "NRestarts": "0"}
