#!/usr/bin/env python3
"""Stands in for kubectl and a cluster: what would be applied is built, and judged by the code of
Kubernetes's API server. What a command takes from files has to be there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import yaml


def apply(words: list[str]) -> None:
    parser = argparse.ArgumentParser("kubectl apply", allow_abbrev=False)
    parser.add_argument("-k", dest="folder", required=True)
    told = parser.parse_args(words)
    built = subprocess.run(["manifests", "build", told.folder], stdout=subprocess.PIPE, check=False)
    judged = subprocess.run(["manifests", "check", "-"], input=built.stdout, check=False)
    sys.exit(built.returncode or judged.returncode)


def create(words: list[str]) -> None:
    parser = argparse.ArgumentParser("kubectl create", allow_abbrev=False)
    parser.add_argument("kind", choices=["secret"])
    parser.add_argument("type", choices=["generic"])
    parser.add_argument("name")
    parser.add_argument("--from-file", action="append", default=[])
    parser.add_argument("--from-literal", action="append", default=[])
    for given in parser.parse_args(words).from_file:
        if not Path(given.partition("=")[2] or given).is_file():
            sys.exit(f"kubectl (its stand-in): {given}: no such file")


def port_forward(words: list[str]) -> None:
    """Of an object of the examples, a port that it has."""
    parser = argparse.ArgumentParser("kubectl port-forward", allow_abbrev=False)
    parser.add_argument("object")
    parser.add_argument("port")
    told = parser.parse_args(words)
    kind, _, name = told.object.partition("/")
    built = subprocess.run(
        ["manifests", "build", "examples/kubernetes"], stdout=subprocess.PIPE, check=True
    )
    for found in yaml.safe_load_all(built.stdout):
        if (found["kind"].lower(), found["metadata"]["name"]) == (kind, name):
            for container in found["spec"]["template"]["spec"]["containers"]:
                for port in container.get("ports", []):
                    if str(port["containerPort"]) == told.port:
                        return
    sys.exit(f"kubectl (its stand-in): {told.object} has no port {told.port}")


if __name__ == "__main__":
    known = {"apply": apply, "create": create, "port-forward": port_forward}
    known[sys.argv[1]](sys.argv[2:])
