#!/usr/bin/env python3
"""Stands in for docker where there is none: the same arguments, the program of the image as it is
built from source, and no container around it. A port that is published has to be one on which the
program of the image listens; whatever an image or an option would need beyond that is refused.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import yaml

JAEGER_PORTS = {16686, 16685, 4317, 4318, 5778, 9411, 8888, 8889}


def refuse(words: str) -> None:
    sys.exit(f"docker (its stand-in): {words}")


def build(words: list[str]) -> None:
    """Every file is there that the build would take, and every argument is one that it has."""
    parser = argparse.ArgumentParser("docker build", allow_abbrev=False)
    parser.add_argument("-t", "--tag", required=True)
    parser.add_argument("-f", "--file", type=Path, required=True)
    parser.add_argument("--build-arg", action="append", default=[])
    parser.add_argument("--sbom", choices=("true", "false"))
    parser.add_argument("--provenance", choices=("mode=max", "mode=min", "false"))
    parser.add_argument("context", type=Path)
    told = parser.parse_args(words)
    known = re.findall(r"^ARG (\w+)", told.file.read_text(), re.MULTILINE)
    for given in told.build_arg:
        name, _, value = given.partition("=")
        if name not in known or not value:
            refuse(f"{given}: {told.file} has the arguments {sorted(set(known))}")
    for line in told.file.read_text().splitlines():
        words = line.split()
        if words[:1] == ["COPY"] and not line.startswith("COPY --from"):
            for source in (word for word in words[1:-1] if not word.startswith("--")):
                if not (told.context / source).exists():
                    refuse(f"{told.file} copies {source}, which is not there")


def buildx(words: list[str]) -> None:
    """Builds, or says a digest that some image might have."""
    if words[0] == "build":
        build(words[1:])
        return
    parser = argparse.ArgumentParser("docker buildx", allow_abbrev=False)
    parser.add_argument("imagetools", choices=("imagetools",))
    parser.add_argument("inspect", choices=("inspect",))
    parser.add_argument("image")
    parser.add_argument("--format", choices=("{{.Manifest.Digest}}",), required=True)
    parser.parse_args(words)
    print(f"sha256:{'0' * 64}")


def run(words: list[str]) -> None:
    """The program of the image, with the environment that it is given and no other."""
    parser = argparse.ArgumentParser("docker run", allow_abbrev=False)
    for flag in ("--rm", "--read-only", "--init"):
        parser.add_argument(flag, action="store_true")
    for option in ("--cap-drop", "--security-opt", "--volume", "--name", "--user", "--tmpfs"):
        parser.add_argument(option, action="append")
    parser.add_argument("-p", "--publish", action="append", default=[])
    parser.add_argument("--network", default="")
    parser.add_argument("-e", "--env", action="append", default=[])
    parser.add_argument("image")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    told = parser.parse_args(words)
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH")}
    environment |= {name: os.environ[name] for name in ("SSL_CERT_FILE",) if name in os.environ}
    for given in told.env:
        name, equals, value = given.partition("=")
        if not equals and name not in os.environ:
            refuse(f"{name} is not set")
        environment[name] = value if equals else os.environ[name]
    image = told.image.partition(":")[0]
    if image == "jaegertracing/jaeger":
        published = {int(p.rpartition(":")[2]) for p in told.publish}
        if not published <= JAEGER_PORTS or any(
            len(set(p.split(":")[-2:])) > 1 for p in told.publish
        ):
            refuse(f"{told.publish}: Jaeger listens on {sorted(JAEGER_PORTS)}")
        server = subprocess.Popen(["jaeger", *told.arguments], env=environment)
        try:
            for port in published:
                while server.poll() is None and socket.socket().connect_ex(("127.0.0.1", port)):
                    time.sleep(0.1)
            if server.poll() is not None:
                sys.exit(server.returncode)
            print(f"listening on {sorted(published)}", flush=True)
            server.wait()
        except KeyboardInterrupt:
            server.wait()
    elif image == "otel-alloy":
        if told.network != "host":
            refuse("a Collector on this machine is reached with --network host only")
        dockerfile = next(Path().resolve().rglob("examples/docker/Dockerfile")).read_text()
        entry, command = (
            json.loads(re.findall(rf"^{word} (\[.*\])$", dockerfile, re.MULTILINE)[-1])
            for word in ("ENTRYPOINT", "CMD")
        )
        environment |= dict(re.findall(r"\b(OTEL_ALLOY_\w+)=(\S+)", dockerfile))
        os.makedirs("/var/lib/otel-alloy", exist_ok=True)
        os.execvpe(entry[0], [*entry, *(told.arguments or command)], environment)
    else:
        refuse(f"nothing here is built as {image}")


def compose(words: list[str]) -> None:
    """The services that would be started: their files are there, what has to be set is set."""
    parser = argparse.ArgumentParser("docker compose", allow_abbrev=False)
    parser.add_argument("--profile", action="append", default=[])
    parser.add_argument("command", choices=("up",))
    parser.add_argument("--build", action="store_true")
    told = parser.parse_args(words)
    text = Path("compose.yaml").read_text()
    for name in re.findall(r"\$\{(\w+):?\?", text):
        if not os.environ.get(name):
            refuse(f"compose.yaml wants {name}")
    services = yaml.safe_load(text)["services"]
    known = {profile for service in services.values() for profile in service.get("profiles", [])}
    if not set(told.profile) <= known:
        refuse(f"compose.yaml has the profiles {sorted(known)}")
    for name, service in services.items():
        if service.get("profiles") and not set(service["profiles"]) & set(told.profile):
            continue
        if made := service.get("build"):
            context = Path(made["context"])
            if not told.build or not (context / made["dockerfile"]).is_file():
                refuse(f"{name} cannot be built")
        print(f"would start {name}")


if __name__ == "__main__":
    {"build": build, "buildx": buildx, "run": run, "compose": compose}[sys.argv[1]](sys.argv[2:])
