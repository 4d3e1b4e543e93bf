#!/usr/bin/env python3
"""Helm without a cluster: `install` and `upgrade` lint and render with the same arguments, and the
code of Kubernetes's API server judges what would be sent. The rest is Helm's own.
"""

from __future__ import annotations

import subprocess
import sys

HELM = "real-helm"

if __name__ == "__main__":
    command, *words = sys.argv[1:]
    if command not in ("install", "upgrade"):
        sys.exit(subprocess.run([HELM, command, *words], check=False).returncode)
    words = [word for word in words if word != "--install"]
    linted = subprocess.run([HELM, "lint", *words[1:]], check=False)
    made = subprocess.run([HELM, "template", *words], stdout=subprocess.PIPE, check=False)
    judged = subprocess.run(["manifests", "check", "-"], input=made.stdout, check=False)
    sys.exit(linted.returncode or made.returncode or judged.returncode)
