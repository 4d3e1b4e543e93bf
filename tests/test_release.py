"""What is released: the files in wheel and sdist, their metadata, and the names and types that a
program finds in the installed wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.specifiers import SpecifierSet
from trove_classifiers import classifiers

import otel_alloy
from otel_alloy.version import __version__

ROOT = Path(__file__).parents[1]
PACKAGE = {
    f"otel_alloy/{path.relative_to(ROOT / 'otel_alloy')}"
    for path in (ROOT / "otel_alloy").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}
INFO = f"otel_alloy-{__version__}.dist-info/"
CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")


def build(source: Path, into: Path, *kinds: str) -> None:
    """`python -m build` in this environment."""
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", *kinds, "--outdir", into, source],
        env=os.environ | {"SOURCE_DATE_EPOCH": "1760000000"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was made of the sdist."""
    folder = tmp_path_factory.mktemp("built")
    build(ROOT, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    (found,) = built.glob("*.tar.gz")
    return found


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(INFO + "METADATA")


def test_wheel_holds_the_package(wheel: Path) -> None:
    """The package, whole, with its SQL files and `py.typed`, the licence, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    about = {name.removeprefix(INFO) for name in names if name.startswith(INFO)}
    assert about == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert names - {INFO + name for name in about} == PACKAGE
    assert "otel_alloy/py.typed" in PACKAGE
    assert any(name.endswith(".sql") for name in PACKAGE)


def test_sdist_holds_what_the_wheel_is_made_of(sdist: Path) -> None:
    """The package and the files about it; no tests and nothing of a developer's."""
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert all(m.isfile() for m in members)
    top = f"otel_alloy-{__version__}/"
    about = {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "constraints.txt"}
    made = {"PKG-INFO", ".gitignore"}  # the latter is hatchling's doing
    assert {m.name.removeprefix(top) for m in members} == PACKAGE | about | made


def test_builds_are_the_same_bytes(built: Path, wheel: Path, sdist: Path, tmp_path: Path) -> None:
    """The wheel of the tree is, byte for byte, that of the sdist; a second sdist is the first."""
    build(ROOT, tmp_path, "--wheel", "--sdist")
    for first in (wheel, sdist):
        assert (tmp_path / first.name).read_bytes() == first.read_bytes(), first.name


def test_metadata(metadata: bytes) -> None:
    """Valid by the packaging specifications, with the version of its one place, classifiers that
    exist and are those of `requires-python`, and the README as its page."""
    found = Metadata.from_email(metadata, validate=True)
    assert str(found.version) == __version__ == otel_alloy.__version__
    assert found.license_expression == "Apache-2.0"
    assert found.description_content_type == "text/markdown"
    assert found.description == (ROOT / "README.md").read_text("utf-8")
    given = found.classifiers or []
    assert set(given) <= set(classifiers)
    minors = [
        int(match[1])
        for line in given
        if (match := re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", line))
    ]
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert found.requires_python == SpecifierSet(f">=3.{minors[0]}")


def test_the_version_stands_in_one_place() -> None:
    """Nothing but `version.py` says the version; the changelog speaks of it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["dynamic"] == ["version"]
    saying = {
        path.name
        for path in (ROOT / "otel_alloy").rglob("*.py")
        if f'"{__version__}"' in path.read_text("utf-8")
    }
    assert saying == {"version.py"}
    assert f"## [{__version__}]" in CHANGELOG


def test_changelog_and_tags_agree() -> None:
    """A tagged version has its date in the changelog, and this version is tagged no earlier."""
    told = dict(re.findall(r"^## \[(.+)\] - (\S+)$", CHANGELOG, re.MULTILINE))
    assert all(re.fullmatch(r"unreleased|20\d\d-\d\d-\d\d", date) for date in told.values())
    git = ["git", "-C", str(ROOT), "tag", "--list", "v*"]
    done = subprocess.run(git, capture_output=True, text=True)
    for tag in done.stdout.split():
        assert told.get(tag.removeprefix("v"), "unreleased") != "unreleased", tag


def release_check(*tag: str, root: Path = ROOT) -> tuple[int, str]:
    """What `make release-check` ends with, and says."""
    done = subprocess.run(
        [sys.executable, root / ".ci" / "release-check", *tag], capture_output=True, text=True
    )
    assert not done.stderr
    return done.returncode, done.stdout


def test_only_what_agrees_is_released(tmp_path: Path) -> None:
    """Version, changelog, chart and images agree; a tag may be released that is the version's, once
    the changelog has its date; whatever does not agree is told."""
    assert release_check() == (0, "")
    assert "the tag is v9.9.9" in release_check("v9.9.9")[1]
    names = ["otel_alloy/version.py", "CHANGELOG.md", "deploy/helm/otel-alloy/Chart.yaml"]
    names += [".ci/release-check", "examples/jaeger/compose.yaml"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for words in (["init", "--quiet"], ["add", "."]):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    tag = f"v{__version__}"
    heading = f"## [{__version__}] - "
    changelog = tmp_path / "CHANGELOG.md"
    before, _, rest = CHANGELOG.partition(heading)
    _, _, after = rest.partition("\n")
    changelog.write_text(f"{before}{heading}unreleased\n{after}")
    assert release_check(tag, root=tmp_path) == (
        1,
        f"CHANGELOG.md says unreleased for {__version__}, where its date belongs\n",
    )
    changelog.write_text(f"{before}{heading}2026-01-02\n{after}")
    assert release_check(tag, root=tmp_path) == (0, "")
    (tmp_path / names[0]).write_text('__version__ = "7.7.7"\n')
    code, said = release_check(root=tmp_path)
    assert code == 1
    assert [line.split()[0] for line in said.splitlines()][:2] == ["CHANGELOG.md", "the"]
    assert said.count("examples/jaeger/compose.yaml") == 2


def test_the_workflow_that_publishes() -> None:
    """It is a workflow of GitHub Actions; every action is pinned by its commit; no job may more
    than it needs, and no secret is in it. No forge has run it."""
    path = ROOT / ".ci" / "publish.yml"
    schema = ["--builtin-schema", "vendor.github-workflows"]
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *schema, path], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    text = path.read_text("utf-8")
    used = re.findall(r"uses: (\S+)(.*)", text)
    assert len(used) == 6
    for action, comment in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action)
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), action
    assert "permissions: {}" in text and "secrets." not in text
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for words in re.findall(r"run: make ([a-z -]+)", text):
        assert set(words.split()) <= set(targets)


BY_NAME = re.compile(
    r"""
    (?:pip3?\ install|pipx\ (?:install|run)|uvx|uv\ (?:tool\ install|add|pip\ install))
    (?:\ +(?:-\S+|"[^"]*"|'\.[^']*'))*   # options, and what is no name
    \ +['"]?(?:otel-alloy|otel_alloy|opentelemetry-propagator-runalloy)\b(?!\ @)
    """,
    re.VERBOSE,
)


def test_nothing_unreleased_is_installed_by_name() -> None:
    """Until the changelog gives a version a date, no text, example or message says to install
    otel-alloy or its propagator by name: who did would get nothing, or somebody else's package."""
    assert BY_NAME.search("pip install otel-alloy") and BY_NAME.search("uvx otel-alloy run")
    assert BY_NAME.search("`pip install -U 'otel-alloy[webhook]'`")
    assert not BY_NAME.search("pip install . && otel-alloy run")
    if not re.search(r"^## \[.+\] - unreleased$", CHANGELOG, re.MULTILINE) or re.search(
        r"^## \[.+\] - 20", CHANGELOG, re.MULTILINE
    ):
        return
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True
    )
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path == Path(__file__) or not path.is_file() or path.suffix in (".png", ".svg"):
            continue
        found += [
            f"{name}: {match}" for match in BY_NAME.findall(path.read_text("utf-8", "replace"))
        ]
    assert not found


PROGRAM = '''
"""What a user's program does with the public names."""

from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import Link, SpanContext

import otel_alloy
from otel_alloy import (
    AlloyPropagator,
    AlloyReceiverError,
    AlloySpanProcessor,
    Correlation,
    Hook,
    Notification,
    Receiver,
    Settings,
    execution_context,
    load_settings,
)
from otel_alloy.errors import AccessRefused, ConfigurationError


def correlate(notification: Notification) -> Correlation | None:
    uuid: str | None = notification.data.executionUuid if notification.data else None
    return Correlation(links=[execution_context(uuid)]) if uuid else None


def settings_of(environment: Mapping[str, str]) -> Settings | list[str]:
    try:
        return load_settings({"page_size": 30}, environment)
    except ConfigurationError as error:
        return error.mistakes


def receive(settings: Settings, seen: list[object]) -> int:
    receiver = Receiver(settings, observe=seen.append)
    receiver.stop()
    try:
        receiver.run(once=True)
    except AccessRefused:
        return 3
    except AlloyReceiverError as error:
        return error.status or 1
    return 0


hook: Hook = correlate
propagator: TextMapPropagator = AlloyPropagator(sampled=True)
processor: SpanProcessor = AlloySpanProcessor()
context: SpanContext = execution_context("35SnGU0DUSNP5L26fsmnq")
link = Link(context)
extracted: Context = propagator.extract({})
version: str = otel_alloy.__version__

wrong = settings_of({})
assert isinstance(wrong, list) and "ALLOY_API_KEY" in wrong[0]
right = settings_of({"ALLOY_API_KEY": "k", "OTEL_ALLOY_STORAGE": "sqlite:///mine.db"})
assert isinstance(right, Settings) and right.sources[0].page_size == 30
assert receive(right, []) == 0
assert set(otel_alloy.__all__) <= {*globals(), "__version__"}
for name in otel_alloy.__all__:
    assert getattr(otel_alloy, name) is not None
print(otel_alloy.__file__)
'''

MISTAKES = """
from otel_alloy import Receiver, execution_context

Receiver(settings="none")  # wrong
execution_context(7)  # wrong
execution_context("a").no_such_thing  # wrong
"""


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel installed; it shares this one's dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python


def mypy(python: Path, program: Path) -> subprocess.CompletedProcess[str]:
    """`mypy --strict` of a program that uses what `python` has installed."""
    strict = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull]
    strict += ["--cache-dir", str(program.parent / "cache"), "--python-executable", str(python)]
    return subprocess.run(
        [*strict, str(program)], cwd=program.parent, capture_output=True, text=True
    )


def test_a_program_of_a_users(installed: Path, tmp_path: Path) -> None:
    """A program that uses every public name type-checks strictly against the installed wheel, and
    runs, with warnings as errors."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    told = mypy(installed, program)
    assert told.returncode == 0, told.stdout + told.stderr
    done = subprocess.run(
        [installed, "-W", "error", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed.parents[1])


def test_types_are_seen(installed: Path, tmp_path: Path) -> None:
    """What the test above relies on: wrong uses of the wheel are found by their types."""
    program = tmp_path / "mistakes.py"
    program.write_text(MISTAKES)
    told = mypy(installed, program)
    wrong = [n for n, line in enumerate(MISTAKES.splitlines(), 1) if line.endswith("# wrong")]
    assert [int(n) for n in re.findall(r"mistakes\.py:(\d+): error", told.stdout)] == wrong


def test_public_names_are_documented() -> None:
    """Each public name stands in the package's own words, and has words of its own."""
    for name in otel_alloy.__all__:
        if name != "__version__":
            assert f"`{name}`" in (otel_alloy.__doc__ or ""), name
            assert name == "Hook" or getattr(otel_alloy, name).__doc__, name
    assert set(otel_alloy.__all__) == {*otel_alloy._HOMES, "__version__"}
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(otel_alloy, "no_such_name")  # noqa: B009
