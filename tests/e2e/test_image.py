"""The image of examples/docker: BuildKit builds it, and runc runs it as README.md tells Docker to.
What stands in for Docker's image of Python is described in `containers`."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otel_alloy.testing.simulator import Record

from .conftest import REPOSITORY, free_port, wait_until
from .containers import Built, Container, running, volume

if TYPE_CHECKING:
    from conftest import Place

pytestmark = pytest.mark.e2e

STATE = "/var/lib/otel-alloy"
USER = 10001


def of_place(place: Place) -> dict[str, str]:
    """What a container is told of Alloy and the endpoint."""
    return {
        name: place.environment[name]
        for name in ("ALLOY_API_KEY", "ALLOY_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    } | {"OTEL_ALLOY_ENRICH": "off", "OTEL_ALLOY_HEALTH_ENDPOINT": f"127.0.0.1:{free_port()}"}


def all_there(place: Place, records: list[Record]) -> Callable[[], bool]:
    """Whether every execution has arrived."""
    return lambda: place.sent("logs").total() >= len(place.ended(records))


def test_buildkit_has_nothing_to_say(built: Built) -> None:
    """Its linter finds nothing in our Dockerfile, and would find what is there."""
    assert built.warnings == ""
    assert "FromAsCasing" in built.worse and "JSONArgsRecommended" in built.worse


def test_what_the_image_says_of_itself(built: Built) -> None:
    """A user by number, a command that gets signals, a health check, and the labels that its
    arguments gave; its base is the one of the digest, and what it was made of is attested."""
    config = built.image.config
    assert config["User"] == f"{USER}:{USER}"
    assert (config["Entrypoint"], config["Cmd"]) == (["otel-alloy"], ["run"])
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert config["Volumes"] == {STATE: {}}
    names = "org.opencontainers.image."
    labels = {n.removeprefix(names): value for n, value in config["Labels"].items()}
    assert labels["licenses"] == "Apache-2.0" and labels["title"] == "otel-alloy"
    assert built.labels.items() <= labels.items()
    assert all(labels.values())
    (provenance,) = built.image.attested
    assert provenance["predicateType"].startswith("https://slsa.dev/provenance/")
    assert built.labels["base.digest"].removeprefix("sha256:") in json.dumps(provenance)


def test_a_version_that_it_has_not_is_no_label(built: Built) -> None:
    """An image that is told another version than it has does not come about."""
    assert "VERSION=0.0.7, but otel-alloy, version " in built.refused


def test_nothing_is_in_it_but_what_runs(built: Built) -> None:
    """No sources, caches and tools of the build; nothing that its user could change but the folder
    of the checkpoint, and nothing that gains more rights. Each package that is in it is in the bill
    of materials, with the version that the tests run with."""
    root = built.image.root
    top = {path.name for path in root.iterdir()}
    assert not top & {"source", "wheel", "sbom", "constraints.txt"}
    assert not (root / "opt" / "tools").exists() and not (root / "root" / ".cache").exists()
    for path in root.rglob("*"):
        here, inside = path.lstat(), f"/{path.relative_to(root)}"
        mine = USER in (here.st_uid, here.st_gid)
        anybody = here.st_mode & stat.S_IWOTH and not stat.S_ISLNK(here.st_mode)
        assert mine is (inside == STATE), inside
        assert not anybody or inside == "/tmp", inside
        assert not stat.S_ISREG(here.st_mode) or not here.st_mode & stat.S_ISUID, inside
    (site,) = (root / "opt" / "otel-alloy" / "lib").glob("python3.*/site-packages")
    found = {}
    for metadata in site.glob("*.dist-info/METADATA"):
        head = metadata.read_text("utf-8").partition("\n\n")[0]
        name, version = (
            re.findall(rf"^{key}: (.*)$", head, re.M)[0] for key in ("Name", "Version")
        )
        found[re.sub(r"[-_.]+", "-", name).lower()] = version
    sbom = json.loads((root / "usr/share/sbom/otel-alloy.cdx.json").read_text("utf-8"))
    assert sbom["bomFormat"] == "CycloneDX"
    listed = {re.sub(r"[-_.]+", "-", c["name"]).lower(): c for c in sbom["components"]}
    assert {name: part["version"] for name, part in listed.items()} == found
    assert listed["otel-alloy"]["licenses"][0]["license"]["id"] == "Apache-2.0"
    pinned = (REPOSITORY / "constraints.txt").read_text().splitlines()
    known = {
        re.sub(r"[-_.]+", "-", name).lower(): version
        for name, _, version in (line.partition("==") for line in pinned if "==" in line)
    }
    assert {name: known[name] for name in found if name != "otel-alloy"} == {
        name: version for name, version in found.items() if name != "otel-alloy"
    }
    assert "psycopg" in found and "pip" not in found


def test_read_only_and_without_rights(built: Built, place: Place, tmp_path: Path) -> None:
    """As README.md runs it: it delivers, says that it is healthy, writes to its volume alone, ends
    in order when it is asked to, and the next container goes on where it was."""
    records = place.fill(50)
    checkpoint = volume(built.image, STATE, tmp_path / "volume")
    given = of_place(place) | {"OTEL_ALLOY_SINCE": "60d"}
    mounts = {STATE: (checkpoint, True)}
    first = Container(built.image, tmp_path / "first", environment=given, mounts=mounts)
    with running(first):
        wait_until(all_there(place, records), otherwise="not everything arrived")
        wait_until(first.healthy, otherwise="it does not call itself healthy")
        user = first.execute("/bin/sh", "-c", "id -u; cat /proc/self/status")
        assert user.stdout.splitlines()[0] == str(USER)
        assert re.search(r"^CapEff:\s+0+$", user.stdout, re.M)
        for place_in_it in ("/opt/otel-alloy/x", "/etc/x", "/x", "/usr/share/sbom/x"):
            assert "Read-only" in first.execute("/bin/sh", "-c", f": > {place_in_it}").stderr
        assert first.stop() == 0, first.output
    assert {path.lstat().st_uid for path in checkpoint.iterdir()} == {USER}
    place.fill(5, days=0.01)
    second = Container(built.image, tmp_path / "second", environment=given, mounts=mounts)
    every = [record for record in place.alloy.store.records()]
    with running(second):
        wait_until(all_there(place, every), otherwise="the second one did not go on")
        assert second.stop() == 0, second.output
    place.assert_exactly_once(place.ended(every))


def test_health_check(built: Built, place: Place, tmp_path: Path) -> None:
    """It finds the health port wherever variables or the settings file put it, is content where
    there is none, and says no where nobody answers."""
    place.fill(1)
    (tmp_path / "settings.yaml").write_text(f"health_endpoint: '0.0.0.0:{free_port()}'\n")
    in_file = of_place(place) | {"OTEL_ALLOY_CONFIG": "/etc/otel-alloy/settings.yaml"}
    del in_file["OTEL_ALLOY_HEALTH_ENDPOINT"]
    simulate = ("simulate", "--port", str(free_port()))
    for name, given, command, good in (
        ("elsewhere", in_file, (), True),
        ("off", of_place(place) | {"OTEL_ALLOY_HEALTH_ENDPOINT": ""}, (), True),
        ("nobody", of_place(place), simulate, False),
    ):
        mounts = {
            STATE: (volume(built.image, STATE, tmp_path / f"{name}-volume"), True),
            "/etc/otel-alloy/settings.yaml": (tmp_path / "settings.yaml", False),
        }
        container = Container(built.image, tmp_path / name, command, given, mounts)
        with running(container):
            wait_until(lambda: bool(container.output), otherwise="it says nothing")  # noqa: B023
            if good:
                wait_until(container.healthy, otherwise=f"{name}: not healthy")
            else:
                assert not container.healthy()
            assert container.running(), container.output
