"""A compose project without Docker: compose's library resolves the file, runc runs its services.

Each service is in a network namespace of its own, on a bridge that nothing else is on, under the
name that the file gives it. Images are handed in by name; what a service asks for and this cannot
do is a failure, never left out. Published ports are not: nothing is opened on this machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .containers import Container, Image, Json, running, volume

ASK = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())
"""
DONE = {
    *("command", "entrypoint", "environment", "image", "network_mode", "read_only", "tmpfs"),
    *("user", "volumes", "configs", "cap_drop", "security_opt"),
}
"""What of a service is done as it stands; the last two to all services alike."""
OF_DOCKER = {"build", "depends_on", "healthcheck", "networks", "ports", "profiles", "restart"}
"""What concerns Docker and not what runs in the container."""


def resolved(
    manifests: Path, file: Path, profiles: Sequence[str], environment: Mapping[str, str]
) -> Json:
    """The project as `docker compose` reads it. Raises AssertionError with its words."""
    done = subprocess.run(
        [manifests, "compose", file, *profiles],
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    project: Json = json.loads(done.stdout)
    return project


class Network:
    """A bridge in a namespace of its own, and a namespace for each host on it, during `with`."""

    def __init__(self, name: str, hosts: Sequence[str]) -> None:
        self._hub = name
        self._spaces = {host: f"{name}-{number}" for number, host in enumerate(hosts, 2)}
        self._addresses = {host: f"10.87.0.{number}" for number, host in enumerate(hosts, 2)}
        self.hosts = "127.0.0.1 localhost\n" + "".join(
            f"{address} {host}\n" for host, address in self._addresses.items()
        )
        """For /etc/hosts."""

    def namespace(self, host: str) -> Path:
        """Its path."""
        return Path("/run/netns", self._spaces[host])

    def __enter__(self) -> Network:
        try:
            _ip("netns", "add", self._hub)
            _ip("-n", self._hub, "link", "add", "name", "br0", "type", "bridge")
            _ip("-n", self._hub, "addr", "add", "10.87.0.1/24", "dev", "br0")
            _ip("-n", self._hub, "link", "set", "br0", "up")
            for number, (host, space) in enumerate(self._spaces.items()):
                end = f"v{number}"
                _ip("netns", "add", space)
                pair = ("type", "veth", "peer", "name", "eth0", "netns", space)
                _ip("-n", self._hub, "link", "add", "name", end, *pair)
                _ip("-n", self._hub, "link", "set", end, "master", "br0", "up")
                _ip("-n", space, "addr", "add", f"{self._addresses[host]}/24", "dev", "eth0")
                _ip("-n", space, "link", "set", "eth0", "up")
                _ip("-n", space, "link", "set", "lo", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for space in (*self._spaces.values(), self._hub):
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)

    def get(self, host: str, port: int, path: str) -> Json | None:
        """The JSON that a host answers with; None where it does not answer, or with no 200."""
        url = f"http://{self._addresses[host]}:{port}{path}"
        done = subprocess.run(
            ["ip", "netns", "exec", self._hub, sys.executable, "-c", ASK, url],
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            return None
        answer: Json = json.loads(done.stdout)
        return answer


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


class Composed:
    """The services of a project for which there are images, during `with`."""

    def __init__(self, project: Json, images: Mapping[str, Image], folder: Path) -> None:
        self.left_out = []
        services: dict[str, Json] = {}
        for name, service in project["services"].items():
            if service["image"].partition(":")[0] in images:
                services[name] = service
            else:
                self.left_out.append(name)
        self.network = Network(f"otel-alloy-{os.getpid()}", list(services))
        (folder / "hosts").write_text(self.network.hosts)
        self._volumes, self._configs = folder / "volumes", folder / "configs"
        self._volumes.mkdir()
        self._configs.mkdir()
        for name, config in project.get("configs", {}).items():
            (self._configs / name).write_text(config["content"])
        self.containers = {
            name: self._container(name, one, images[one["image"].partition(":")[0]], folder)
            for name, one in services.items()
        }
        self._running = running(*self.containers.values())

    def _container(self, name: str, service: Json, image: Image, folder: Path) -> Container:
        asked = {key for key, value in service.items() if value not in (None, {}, [])}
        assert asked <= DONE | OF_DOCKER, f"{name}: {asked - DONE - OF_DOCKER}"
        assert set(service.get("cap_drop", ["ALL"])) == {"ALL"}
        mounts = {"/etc/hosts": (folder / "hosts", False)}
        for mount in service.get("volumes", []):
            source = Path(mount["source"])
            if mount["type"] == "volume":
                source = self._volumes / source
                if not source.exists():
                    volume(image, mount["target"], source)
            assert source.exists(), source
            mounts[mount["target"]] = (source, not mount.get("read_only", False))
        for config in service.get("configs", []):
            mounts[config["target"]] = (self._configs / config["source"], False)
        shares = service.get("network_mode", "").removeprefix("service:")
        return Container(
            image,
            folder / name,
            service["command"] or (),
            service.get("environment", {}),
            mounts,
            service.get("tmpfs", []),
            service.get("user", ""),
            self.network.namespace(shares or name),
            service.get("read_only", False),
        )

    def __enter__(self) -> Composed:
        self.network.__enter__()
        try:
            self._running.__enter__()
        except BaseException:
            self.network.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._running.__exit__(None, None, None)
        finally:
            self.network.__exit__()

    def said(self) -> str:
        """What the containers printed, for whoever looks why it did not work."""
        return "\n".join(
            f"--- {name}\n{container.output[-1500:]}" for name, container in self.containers.items()
        )
