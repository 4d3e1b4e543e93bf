"""Images and containers without Docker: BuildKit builds what a Dockerfile says, runc runs it.

No registry is asked. What stands in for the base image `python` is made of this machine's own
Python and the few programs that the Dockerfile calls (`base_image`); everything on top of it is
BuildKit's work, as `docker build` would have it done. Needs root.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from otel_alloy.version import __version__

from .conftest import REPOSITORY, wait_until

sys.path.insert(0, str(REPOSITORY / ".ci"))
import interpreters

Json = dict[str, Any]

PROGRAMS = (
    *("sh", "cat", "chmod", "chown", "cp", "echo", "env", "id", "install", "ls", "mkdir", "mv"),
    *("rm", "sleep", "test", "touch", "groupadd", "useradd"),
)
PIP = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_PROXY", "PIP_CERT")
"""How this machine gets at packages, which its containers have to know as well."""
MANYLINUX = (
    *("libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1", "libm.so.6"),
    *("libgcc_s.so.1", "libstdc++.so.6"),
)
"""What wheels may count on (PEP 600)."""
NOT_IN_AN_IMAGE = {"__pycache__", "test", "idlelib", "tkinter", "turtledemo", "site-packages"}


def loaded_by(program: Path) -> Iterator[Path]:
    """The shared libraries that the loader takes for a program or library."""
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for found in map(Path, re.findall(r"(/\S+) \(0x", told)):
        yield found
        if found.name == "libc.so.6":
            beside = (found.parent / name for name in MANYLINUX)
            yield from (library for library in beside if library.exists())


def base_files(python: Path) -> dict[str, Path]:
    """What the stand-in consists of: the place in the image, the file on this machine."""
    prefix = Path(
        subprocess.run(
            [python, "-c", "import sys; print(sys.base_prefix)"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    version = python.resolve().name.removeprefix("python")
    files = {f"usr/local/bin/{n}": (prefix / "bin" / f"python{version}") for n in ("python",)}
    library = prefix / "lib" / f"python{version}"
    for place in (library, library / "site-packages" / "pip"):
        for path in place.rglob("*"):
            inner = path.relative_to(place).parts
            if path.is_file() and not NOT_IN_AN_IMAGE & set(inner):
                files[f"usr/local/lib/python{version}/{path.relative_to(library)}"] = path
    programs = [Path(found) for name in PROGRAMS if (found := shutil.which(name))]
    files |= {f"usr/bin/{program.name}": program for program in programs}
    code = [*files.values()]
    for path in code:
        if path in programs or path.suffix == ".so" or path.parent == prefix / "bin":
            for needed in loaded_by(path):
                where = needed.parent.resolve() / needed.name
                inside = where.is_relative_to(prefix) and prefix != Path("/usr")
                here = f"usr/local/lib/{needed.name}" if inside else str(where).lstrip("/")
                files[here] = needed
    for name in ("ssl/certs/ca-certificates.crt", "pip.conf", "login.defs", "nsswitch.conf"):
        if Path("/etc", name).is_file():
            files[f"etc/{name}"] = Path("/etc", name)
    return files


def base_image(folder: Path, python: Path) -> None:
    """Writes an OCI layout with one image, which stands in for `python` of Docker's library."""
    root = folder / "root"
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in ("etc", "opt", "proc", "dev", "sys", "root", "var/lib"):
        (root / name).mkdir(parents=True)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    for place, source in base_files(python).items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, root / place)
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\n")
    (root / "etc" / "ld.so.conf").write_text("/usr/local/lib\n")
    subprocess.run(["ldconfig", "-r", root], check=True, stderr=subprocess.DEVNULL)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(root, arcname=".", filter=_of_root)
    shutil.rmtree(root)
    layer = packed.getvalue()
    environment = {"PATH": "/usr/local/bin:/usr/bin"}
    environment |= {name: os.environ[name] for name in PIP if name in os.environ}
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": {"Env": [f"{name}={value}" for name, value in environment.items()]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    kind = "application/vnd.oci.image"
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes, media: str) -> Json:
        digest = _digest(content)
        (blobs / digest.removeprefix("sha256:")).write_bytes(content)
        return {"mediaType": media, "digest": digest, "size": len(content)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), f"{kind}.config.v1+json"),
        "layers": [blob(layer, f"{kind}.layer.v1.tar")],
    }
    index = {
        "schemaVersion": 2,
        "manifests": [blob(json.dumps(manifest).encode(), f"{kind}.manifest.v1+json")],
    }
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class BuildKit:
    """A build daemon of its own, in a folder that it takes with it, until the end of `with`."""

    def __init__(self, daemon: Path, control: Path, folder: Path) -> None:
        self._daemon, self._control, self._folder = daemon, control, folder
        self._address = f"unix://{folder}/buildkitd.sock"
        self._bases: dict[str, Path] = {}

    def __enter__(self) -> BuildKit:
        self._folder.mkdir()
        command = [str(self._daemon), "--root", f"{self._folder}/state", "--addr", self._address]
        command += ["--otel-socket-path", f"{self._folder}/otel.sock"]
        command += ["--containerd-worker=false", "--oci-worker-binary=runc"]
        command += ["--oci-worker-net=host"]
        with (self._folder / "buildkitd.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            wait_until(self._up, otherwise=f"{log.name} says why there is no BuildKit")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _up(self) -> bool:
        asked = [str(self._control), "--addr", self._address, "debug", "workers"]
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(60)
        shutil.rmtree(self._folder)

    def stand_in(self, name: str, layout: Path) -> str:
        """From now on an image of that name is the one in `layout`; its digest."""
        self._bases[name] = layout
        index = json.loads((layout / "index.json").read_text())
        digest: str = index["manifests"][0]["digest"]
        return digest

    def ask(
        self, dockerfile: Path, context: Path, **options: str
    ) -> subprocess.CompletedProcess[str]:
        """What the Dockerfile comes to; options are BuildKit's, `output` among them. An `_` in a
        name stands for `:`."""
        words: list[str] = []
        for number, (name, layout) in enumerate(self._bases.items()):
            digest = self.stand_in(name, layout)
            words += ["--oci-layout", f"base{number}={layout}"]
            words += ["--opt", f"context:{name}=oci-layout://base{number}@{digest}"]
        if output := options.pop("output", ""):
            words += ["--output", output]
        for option, value in options.items():
            words += ["--opt", f"{option.replace('_', ':', 1)}={value}"]
        command = [str(self._control), "--addr", self._address, "build", "--progress=plain"]
        command += ["--frontend=dockerfile.v0", "--local", f"context={context}"]
        command += ["--local", f"dockerfile={dockerfile.parent}"]
        command += ["--opt", f"filename={dockerfile.name}", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class Image:
    """An image laid out: its files, and what it says of itself."""

    root: Path
    config: Json
    attested: Sequence[Json] = ()
    """What was attested with it, as in-toto statements."""

    @classmethod
    def unpacked(cls, layout: Path, root: Path) -> Image:
        """The only image of an OCI layout, its files laid out in the new folder `root`."""

        def read(descriptor: Json) -> bytes:
            value = str(descriptor["digest"]).removeprefix("sha256:")
            return (layout / "blobs" / "sha256" / value).read_bytes()

        index = json.loads((layout / "index.json").read_text())
        while index["manifests"][0]["mediaType"].endswith("index.v1+json"):
            index = json.loads(read(index["manifests"][0]))
        image, *others = [json.loads(read(one)) for one in index["manifests"]]
        root.mkdir()
        for layer in image["layers"]:
            content = read(layer)
            if layer["mediaType"].endswith("gzip"):
                content = gzip.decompress(content)
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                for member in archive:
                    path = Path(member.name)
                    if path.name.startswith(".wh."):
                        gone = root / path.parent / path.name.removeprefix(".wh.")
                        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
                    else:
                        archive.extract(member, root, numeric_owner=True, filter="fully_trusted")
        attested = [json.loads(read(one)) for other in others for one in other["layers"]]
        return cls(root, json.loads(read(image["config"]))["config"], attested)


@dataclass(frozen=True)
class Built:
    """The image of examples/docker, and what BuildKit said."""

    image: Image
    labels: Mapping[str, str]
    """What its arguments were told, by the end of the label's name."""
    warnings: str
    """Of its linter, of our Dockerfile; empty for none."""
    worse: str
    """The same of a Dockerfile that deserves some."""
    refused: str
    """The words with which a build ends that is told the version of another release."""


DOCKERFILE = REPOSITORY / "examples" / "docker" / "Dockerfile"


def build_once(folder: Path, daemon: Path, control: Path) -> Built:
    """Builds in `folder`, or takes what another process has built there."""
    folder.mkdir(exist_ok=True)
    told = folder / "told.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            made = build(folder, daemon, control)
            told.with_suffix(".new").write_text(json.dumps(asdict(made), default=str))
            told.with_suffix(".new").rename(told)
    facts = json.loads(told.read_text())
    image = facts.pop("image")
    return Built(image=Image(**image | {"root": Path(image["root"])}), **facts)


def build(folder: Path, daemon: Path, control: Path) -> Built:
    """The image, on a stand-in that the Dockerfile is told to pin by its digest."""
    text = DOCKERFILE.read_text()
    (base,) = re.findall(r"^ARG PYTHON=(.*)$", text, re.MULTILINE)
    minor = int(base.partition("-")[0].removeprefix("3."))
    layout = folder / "base"
    base_image(layout, interpreters.find(minor) or Path(sys.executable))
    worse = folder / "worse.Dockerfile"
    worse.write_text("FROM scratch as lower\nCMD run me\n")
    labels = {
        "version": __version__,
        "revision": "4711",
        "created": "2026-01-02T03:04:05Z",
        "source": "https://example.com/otel-alloy",
    }
    arguments = {f"build-arg_{name.upper()}": value for name, value in labels.items()}
    with BuildKit(daemon, control, folder / "buildkit") as buildkit:
        digest = buildkit.stand_in(f"python:{base}", layout)
        pinned = {"build-arg_PYTHON_DIGEST": digest}
        buildkit.stand_in(f"python:{base}@{digest}", layout)

        def said(done: subprocess.CompletedProcess[str]) -> str:
            assert done.returncode == 0, done.stderr
            return done.stdout

        lint = {"requestid": "frontend.lint"}
        warnings = said(buildkit.ask(DOCKERFILE, REPOSITORY, **lint))
        of_worse = said(buildkit.ask(worse, REPOSITORY, **lint))
        made = folder / "made"
        output = f"type=oci,tar=false,dest={made},compression=uncompressed"
        attest = {"attest_provenance": "mode=max"}
        said(buildkit.ask(DOCKERFILE, REPOSITORY, output=output, **arguments, **pinned, **attest))
        other = arguments | {"build-arg_VERSION": "0.0.7"}
        refused = buildkit.ask(DOCKERFILE, REPOSITORY, **other, **pinned)
        assert refused.returncode != 0
    image = Image.unpacked(made, folder / "image")
    shutil.rmtree(made)
    shutil.rmtree(layout)
    labels |= {"base.digest": digest, "base.name": f"docker.io/library/python:{base}"}
    return Built(image, labels, warnings, of_worse, refused.stderr)


@dataclass
class Container:
    """A container of an image, as runc runs it: no capability, nothing gained by set-uid, and only
    the given folders to write to."""

    image: Image
    folder: Path
    """The container's own; its name is the container's."""
    command: Sequence[str] = ()
    """Instead of the image's CMD."""
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, tuple[Path, bool]] = field(default_factory=dict)
    """By place in the container: what lies there, and whether it may be written to."""
    temporary: Sequence[str] = ("/tmp",)
    user: str = ""
    """Instead of the image's."""
    network: Path | None = None
    """A network namespace; None is the host's."""
    read_only: bool = True
    """Whether the root is."""

    @property
    def name(self) -> str:
        """As runc knows it."""
        return self.folder.name

    def start(self) -> None:
        """Runs it; what it prints is in `output`."""
        self.folder.mkdir()
        (self.folder / "config.json").write_text(json.dumps(self._bundle()))
        with (self.folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [*self._runc, "run", "--bundle", self.folder, self.name],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def _runc(self) -> list[str | Path]:
        return ["runc", "--root", self.folder.parent / "runc"]

    @property
    def output(self) -> str:
        """Everything that it has printed."""
        return (self.folder / "output").read_text(errors="replace")

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command beside it, as `docker exec` does."""
        return subprocess.run(
            [*self._runc, "exec", self.name, *command], capture_output=True, text=True, check=False
        )

    def healthy(self) -> bool:
        """What the image's health check says now."""
        kind, *command = self.image.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return self.execute(*command).returncode == 0

    def running(self) -> bool:
        """Whether it has not ended by itself."""
        return self._process.poll() is None

    def wait(self, within: float) -> int:
        """Its exit code. Raises TimeoutExpired."""
        return self._process.wait(within)

    def stop(self, within: float = 60.0) -> int:
        """Ends it as `docker stop` does; its exit code."""
        wanted = self.image.config.get("StopSignal", "SIGTERM").removeprefix("SIG")
        subprocess.run([*self._runc, "kill", self.name, wanted], check=True)
        return self.wait(within)

    def remove(self) -> None:
        """Ends it, however it is."""
        subprocess.run([*self._runc, "delete", "--force", self.name], capture_output=True)
        self._process.wait(60)

    def _bundle(self) -> Json:
        config = self.image.config
        variables = dict(one.split("=", 1) for one in config.get("Env", []))
        variables |= self.environment
        uid, _, gid = (self.user or config.get("User") or "0").partition(":")
        nothing: list[str] = []
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": int(uid), "gid": int(gid or 0), "umask": 0o22},
                "args": [*config.get("Entrypoint", []), *(self.command or config.get("Cmd", []))],
                "env": [f"{name}={value}" for name, value in variables.items()],
                "cwd": config.get("WorkingDir") or "/",
                "capabilities": dict.fromkeys(
                    ("bounding", "effective", "inheritable", "permitted", "ambient"), nothing
                ),
                "noNewPrivileges": True,
            },
            "root": {"path": str(self.image.root), "readonly": self.read_only},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {
                    "destination": "/dev",
                    "type": "tmpfs",
                    "source": "tmpfs",
                    "options": ["nosuid", "strictatime", "mode=755"],
                },
                *(
                    {"destination": place, "type": "tmpfs", "source": "tmpfs"}
                    for place in self.temporary
                ),
                *(
                    {
                        "destination": place,
                        "type": "bind",
                        "source": str(path.resolve()),
                        "options": ["bind", "rw" if writable else "ro"],
                    }
                    for place, (path, writable) in self.mounts.items()
                ),
            ],
            "linux": {
                "namespaces": [
                    *({"type": kind} for kind in ("pid", "mount", "ipc", "uts")),
                    *([{"type": "network", "path": str(self.network)}] if self.network else []),
                ],
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
                "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
            },
        }


def volume(image: Image, place: str, folder: Path) -> Path:
    """A new named volume as Docker makes it: it belongs to whom the image's own folder does, and
    to root where it has none."""
    folder.mkdir()
    its_own = image.root / place.lstrip("/")
    if its_own.exists():
        there = its_own.stat()
        os.chown(folder, there.st_uid, there.st_gid)
        folder.chmod(there.st_mode)
    return folder


@contextmanager
def running(*containers: Container) -> Iterator[None]:
    """All of them meanwhile."""
    started: list[Container] = []
    try:
        for container in containers:
            container.start()
            started.append(container)
        yield
    finally:
        for container in started:
            container.remove()
