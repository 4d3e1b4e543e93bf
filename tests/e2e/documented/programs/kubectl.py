#!/usr/bin/env python3
"""Stands in for kubectl and a cluster: what would be applied is built, and judged by the code of
Kubernetes's API server. What a command takes from files has to be there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


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


if __name__ == "__main__":
    {"apply": apply, "create": create}[sys.argv[1]](sys.argv[2:])
