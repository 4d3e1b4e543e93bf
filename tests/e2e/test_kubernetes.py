"""The examples for Kubernetes: an API server would take them, and otel-alloy what they tell it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .conftest import REPOSITORY
from .kubernetes import (
    assert_it_may_end_in_peace,
    assert_one_at_a_time,
    assert_probes_are_answered,
    assert_references_meet,
    assert_replicas_share,
    judged,
    objects_of,
    settings_in_pod,
)

EXAMPLES = REPOSITORY / "examples" / "kubernetes"
FOLDERS = sorted(file.parent for file in EXAMPLES.rglob("kustomization.yaml"))

GOOD = """\
apiVersion: apps/v1
kind: Deployment
metadata: { name: a }
spec:
  selector: { matchLabels: { app: a } }
  template:
    metadata: { labels: { app: a } }
    spec:
      securityContext: { runAsNonRoot: true, seccompProfile: { type: RuntimeDefault } }
      containers:
        - name: a
          image: a:1
          ports: [{ name: health, containerPort: 8089 }]
          livenessProbe: { httpGet: { path: /livez, port: health } }
          securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: [ALL] } }
"""


def built(manifests: Path, folder: Path) -> str:
    """What `kubectl apply -k` would send."""
    done = subprocess.run([manifests, "build", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.e2e
def test_the_judge_finds_what_an_api_server_does(manifests: Path) -> None:
    """It takes what is right, and names each kind of mistake: what it says of our files counts."""
    assert judged(manifests, GOOD) == ""
    for good, bad, words in (
        ("  selector:", "  replica: 3\n  selector:", 'unknown field "spec.replica"'),
        ("image: a:1", "image: 1", "cannot unmarshal"),
        ("{ labels: { app: a } }", "{ labels: { app: b } }", "`selector` does not match"),
        ("port: health", "port: health_of_all", "must contain only alpha-numeric"),
        ("drop: [ALL]", "drop: []", "not restricted: unrestricted capabilities"),
        ("kind: Deployment", "kind: Deployments", 'no kind "Deployments"'),
    ):
        assert GOOD.count(good) == 1
        assert words in judged(manifests, GOOD.replace(good, bad))


@pytest.mark.e2e
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
class TestExample:
    def test_an_api_server_takes_it(self, manifests: Path, folder: Path) -> None:
        """With the pods as restricted as a namespace may ask for; no object is left out."""
        text = built(manifests, folder)
        assert judged(manifests, text) == ""
        files = {file.name for file in folder.glob("*.yaml")} - {"kustomization.yaml"}
        kustomization = (folder / "kustomization.yaml").read_text()
        assert [file for file in files if f"- {file}\n" not in kustomization] == []

    def test_otel_alloy_takes_what_it_is_told(
        self, manifests: Path, folder: Path, tmp_path: Path
    ) -> None:
        """Variables and files are settings that there are, ports and paths those of the code; it
        has the time that it needs to end; replicas share a database, and one alone has a volume."""
        objects = objects_of(built(manifests, folder))
        settings = settings_in_pod(objects, tmp_path)
        assert_references_meet(objects)
        assert_probes_are_answered(objects, settings)
        assert_it_may_end_in_peace(objects, settings)
        if folder.name.startswith("replicas"):
            assert_replicas_share(objects, settings)
        else:
            assert_one_at_a_time(objects, settings)
