"""Builds the documentation site: `python docs/pages.py [--site FOLDER]`.

The pages are `docs/*.md` and what the repository has anyway (`TAKEN_OVER`): a text stands in one
place only, and its links work where it lies. So everything is copied to a temporary folder first,
with links turned to where the pages are there; Zensical builds that, strictly. A link to a file
that is no page takes the file along; a link to a folder without a README becomes plain text. Raises
SystemExit where a link leads nowhere or a warning is given.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
TAKEN_OVER = {
    "guarantee.md": "GUARANTEE.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "benchmarks.md": "benchmarks/README.md",
    "collector-config.md": "collector-config/README.md",
    "names.md": "semconv/README.md",
    "propagator.md": "propagator/README.md",
    "helm.md": "deploy/helm/otel-alloy/README.md",
    "examples/correlate.md": "examples/correlate/README.md",
    "examples/docker.md": "examples/docker/README.md",
    "examples/destinations.md": "examples/destinations/README.md",
    "examples/grafana.md": "examples/grafana/README.md",
    "examples/jaeger.md": "examples/jaeger/README.md",
    "examples/kubernetes.md": "examples/kubernetes/README.md",
    "examples/systemd.md": "examples/systemd/README.md",
    "examples/webhook-proxy.md": "examples/webhook-proxy/README.md",
}
"""Pages that are somewhere else in the repository."""

FILES = "files"
_LINK = re.compile(r"`+[^`]+`+|(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
"""Code, in which nothing is a link, or a link."""
_PICTURE = re.compile(r'(?<=[ <])(src|srcset)="([^"]+)"')
"""Of a `<picture>`, which has one for light and one for dark pages."""


def sources() -> dict[str, Path]:
    """Where each page of the site comes from, by its path within the site's sources."""
    own = {path.name: path for path in sorted((REPOSITORY / "docs").glob("*.md"))}
    return own | {name: REPOSITORY / source for name, source in TAKEN_OVER.items()}


def stage(folder: Path) -> None:
    """Writes the site's sources into `folder`."""
    homes = {source: name for name, source in sources().items()}
    for source, name in homes.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("\n".join(_lines(source, name, homes, folder)) + "\n", "utf-8")
    shutil.copyfile(REPOSITORY / "docs/style.css", folder / "style.css")


def _lines(source: Path, name: str, homes: dict[Path, str], folder: Path) -> Iterator[str]:
    fence = ""
    for line in source.read_text("utf-8").splitlines():
        opening = re.match(r"\s*(```+)", line)
        if opening and (not fence or line.strip() == fence):
            fence = "" if fence else opening[1]
        elif not fence:
            line = _turned(line, source, name, homes, folder)
        yield line


def _turned(text: str, source: Path, name: str, homes: dict[Path, str], folder: Path) -> str:
    def turn(link: re.Match[str]) -> str:
        mark, words, target = link.groups()
        if target is None:
            return link[0]
        shown = place(target)
        return words if shown is None else f"{mark}[{words}]({shown})"

    def place(target: str) -> str | None:
        """Where the target of a link is there; None where it is a folder without a page."""
        path, _, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return target
        found = Path(os.path.normpath(source.parent / path))
        if found.is_dir():
            found /= "README.md"
            if not found.exists():
                return None
        if not found.exists():
            raise SystemExit(f"{source}: the link to {target} leads nowhere")
        home = homes.get(found)
        if home is None:
            home = f"{FILES}/{found.relative_to(REPOSITORY)}"
            (folder / home).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found, folder / home)
        return os.path.relpath(home, Path(name).parent) + (f"#{anchor}" if anchor else "")

    def picture(attribute: re.Match[str]) -> str:
        return f'{attribute[1]}="{place(attribute[2])}"'

    return _PICTURE.sub(picture, _LINK.sub(turn, text))


def build(site: Path) -> None:
    """Builds the site into the folder `site`, which is replaced."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        stage(folder / "docs")
        shutil.copyfile(REPOSITORY / "mkdocs.yml", folder / "mkdocs.yml")
        zensical = Path(sys.executable).with_name("zensical")
        done = subprocess.run(
            [zensical, "build", "--strict"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise SystemExit(done.stdout)
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(folder / "site", site)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Builds the documentation site.")
    parser.add_argument("--site", type=Path, default=REPOSITORY / "site", help="where to")
    arguments = parser.parse_args()
    build(arguments.site)
    print(f"built: {arguments.site / 'index.html'}")
