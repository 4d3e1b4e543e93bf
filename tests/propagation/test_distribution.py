"""The propagator as a distribution of its own: what is in it, that it is the code of otel-alloy,
and that it serves alone and beside otel-alloy.

`.ci/propagator` installs it from the package index, beside distributions that pin the API exactly.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.metadata import Metadata

from otel_alloy.version import __version__

ROOT = Path(__file__).parents[2]
PROPAGATOR = ROOT / "propagator"
NAME = "opentelemetry_propagator_runalloy"
INFO = f"{NAME}-{__version__}.dist-info/"
VECTORS = ROOT / "examples" / "correlate" / "vectors.json"
STANDALONE = Path(__file__).with_name("standalone.py")
UUID = "35SnGU0DUSNP5L26fsmnq"

BOTH = f"""
import importlib.metadata, importlib, sys
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

names = [e.value.split(".")[0] for e in importlib.metadata.entry_points(
    group="opentelemetry_propagator", name="alloy")]
print(*sorted(names))
context = extract({{"x-alloy-executionuuid": "{UUID}", "x-alloy-userid": "u"}})
for module in ("otel_alloy", "{NAME}"):
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(importlib.import_module(module).AlloySpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    provider.get_tracer("t").start_span("call", context, SpanKind.SERVER).end()
    (span,) = exporter.get_finished_spans()
    print(f"{{span.context.trace_id:032x}}", span.attributes["user.id"])
"""

TYPED = f"""
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import Link

from {NAME} import AlloyPropagator, AlloySpanProcessor, execution_context

propagator: TextMapPropagator = AlloyPropagator(sampled=True)
processor: SpanProcessor = AlloySpanProcessor()
link = Link(execution_context("{UUID}"))
"""


def build(source: Path, into: Path, *kinds: str) -> None:
    """`python -m build` in this environment."""
    command: list[str | Path] = [sys.executable, "-m", "build", "--no-isolation", *kinds]
    command += ["--outdir", into, source]
    environment = os.environ | {"SOURCE_DATE_EPOCH": "1760000000"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the propagator's sdist, the wheel that was made of it, and otel-alloy's."""
    folder = tmp_path_factory.mktemp("built")
    build(PROPAGATOR, folder)
    build(ROOT, folder, "--wheel")
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob(f"{NAME}-*.whl")
    return found


def environment(folder: Path) -> Path:
    """The Python of a new environment that has OpenTelemetry from this one, and no otel-alloy."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    for found in ("opentelemetry", "typing_extensions.py", "google"):
        (site / found).symlink_to(Path(sysconfig.get_path("purelib")) / found)
    for package in ("opentelemetry-api", "opentelemetry-sdk"):
        info = Path(str(distribution(package).locate_file(""))).glob(
            f"{package.replace('-', '_')}-*.dist-info"
        )
        for path in info:
            (site / path.name).symlink_to(path)
    return folder / "bin" / "python"


def pip(python: Path, *words: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--python", python, *words]
    subprocess.run(command, check=True, capture_output=True)


def run(python: Path, *words: str | Path) -> str:
    """What a program prints that is run with the propagator switched on by its name, warnings
    being errors."""
    done = subprocess.run(
        [python, "-W", "error", *words],
        env={"OTEL_PROPAGATORS": "tracecontext,baggage,alloy"},
        cwd=python.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_in_the_wheel(built: Path, wheel: Path, tmp_path: Path) -> None:
    """Each module is, byte for byte, the one of otel-alloy of that name; there is nothing else but
    `__init__.py`, `py.typed` and what is about them. The sdist holds the same modules, and the
    wheel that is built of the tree is the one that was built of the sdist."""
    with zipfile.ZipFile(wheel) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    own = {f"{NAME}/__init__.py", f"{NAME}/py.typed"}
    about = {
        INFO + name
        for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
    }
    modules = set(content) - own - about
    assert about | own < set(content)
    for name in modules:
        origin = ROOT / "otel_alloy" / name.removeprefix(f"{NAME}/")
        assert content[name] == origin.read_bytes(), name
    for path in (ROOT / "otel_alloy" / "propagation").glob("*.py"):
        assert f"{NAME}/propagation/{path.name}" in modules, "hatch_build.py lacks it"
    with tarfile.open(next(built.glob("*.tar.gz"))) as sources:
        names = {member.name.partition("/")[2] for member in sources.getmembers()}
    assert {name.replace(NAME, "otel_alloy") for name in modules} == {
        name for name in names if name.startswith("otel_alloy/")
    }
    build(PROPAGATOR, tmp_path, "--wheel")
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


def test_metadata(wheel: Path) -> None:
    """Valid, with otel-alloy's version, Pythons and licence; it needs the API alone."""
    with zipfile.ZipFile(wheel) as archive:
        found = Metadata.from_email(archive.read(INFO + "METADATA"), validate=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert str(found.version) == __version__
    assert [need.name for need in found.requires_dist or []] == ["opentelemetry-api"]
    assert str(found.requires_python) == project["requires-python"]
    pythons = re.compile(r"Programming Language :: Python :: 3\.")
    assert list(filter(pythons.match, found.classifiers or [])) == list(
        filter(pythons.match, project["classifiers"])
    )
    assert (PROPAGATOR / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_alone(wheel: Path, tmp_path: Path) -> None:
    """In an environment without otel-alloy it is found by its name, takes every published vector,
    and loads nothing but the API."""
    python = environment(tmp_path)
    pip(python, "install", "--no-deps", "--no-index", wheel)
    counted = int(run(python, STANDALONE, VECTORS, "--api-alone"))
    vectors = json.loads(VECTORS.read_text("utf-8"))
    assert counted == sum(len(vectors[k]) for k in ("executions", "trimmed", "ignored")) > 20


def test_typed(wheel: Path, tmp_path: Path) -> None:
    """A program that uses its names type-checks strictly against the installed wheel."""
    python = environment(tmp_path / "venv")
    pip(python, "install", "--no-deps", "--no-index", wheel)
    program = tmp_path / "program.py"
    program.write_text(TYPED)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull]
    command += ["--cache-dir", str(tmp_path / "cache"), "--python-executable", str(python)]
    told = subprocess.run([*command, str(program)], cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout
    run(python, program)


def test_beside_otel_alloy(built: Path, wheel: Path, tmp_path: Path) -> None:
    """Both installed share no file. One `alloy` serves, whichever it is; the span processor of each
    finds what it left. Taking one away leaves the other whole."""
    python = environment(tmp_path)
    (other,) = built.glob("otel_alloy-*.whl")
    pip(python, "install", "--no-deps", "--no-index", wheel, other)
    lists = []
    for archive in (wheel, other):
        with zipfile.ZipFile(archive) as opened:
            lists.append(set(opened.namelist()))
    assert not lists[0] & lists[1]
    first, *spans = run(python, "-c", BOTH).splitlines()
    assert first.split() == [NAME, "otel_alloy"]
    assert spans == ["552ee3cef1041c5b427d7f9ec5f43d71 u"] * 2
    pip(python, "uninstall", "--yes", "otel-alloy")
    run(python, STANDALONE, VECTORS, "--api-alone")
    pip(python, "install", "--no-deps", "--no-index", other)
    pip(python, "uninstall", "--yes", "opentelemetry-propagator-runalloy")
    run(python, STANDALONE, VECTORS)
