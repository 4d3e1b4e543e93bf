"""The commands in the comments at the head of what we ship, run as they stand: in the folder that
is said there, with the ports and folders that they have by default, and the real programs under
the names by which people have them. Nothing here gives a variable or a flag.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .conftest import CONFIGURATIONS, REPOSITORY, Apart
from .test_configs import TRACE, logs, traces

EXAMPLES = REPOSITORY / "examples"

READY = {
    "otelcol-contrib": "http://127.0.0.1:13133/",
    "jaeger": "http://127.0.0.1:13134/status",
    "victoria-logs": "http://127.0.0.1:9428/health",
    "prometheus": "http://127.0.0.1:9090/-/ready",
    "alertmanager": "http://127.0.0.1:9093/-/ready",
}
"""Where each server says that it is ready, by its own default or its file's."""
ENDING = {"amtool", "promtool", "otel-alloy"}
"""What ends by itself."""
NOT_HERE = {"loki": "AGPL", "tempo": "AGPL", "docker": "needs a daemon"}

JAEGER_HAS_IT = (f"http://127.0.0.1:16686/api/v3/traces/{TRACE}", "order sync")
FOUND = {
    "jaeger.yaml": [JAEGER_HAS_IT],
    "victorialogs.yaml": [
        JAEGER_HAS_IT,
        (
            f"http://127.0.0.1:9428/select/logsql/query?query=trace_id:={TRACE}",
            "order sync v1 finished after 96 ms",
        ),
    ],
}
"""Where what is sent to the Collector is found by a file's other commands."""


def head(path: Path) -> list[str]:
    """The comment with which a file begins, line by line without its marks."""
    lines = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:])
    return lines


def commands(path: Path) -> list[str]:
    """The commands in it: what is set off by three spaces, and what stands in backquotes and begins
    with the name of a program."""
    lines = head(path)
    set_off = "\n".join(line.strip() for line in lines if line.startswith("   "))
    known = "|".join(READY.keys() | ENDING | NOT_HERE.keys())
    text = " ".join(line.strip() for line in lines)
    return [
        *(line for line in set_off.replace("\\\n", "").splitlines() if line),
        *re.findall(rf"`((?:{known}) [^`]+)`", text),
    ]


def folder(path: Path) -> Path:
    """Where they are to be run: beside the file, or in the folder above where it says so."""
    return path.parent.parent if "In the folder above" in " ".join(head(path)) else path.parent


def files() -> list[Path]:
    """Every file that has commands at its head."""
    found = []
    for path in sorted([*CONFIGURATIONS.rglob("*"), *EXAMPLES.rglob("*")]):
        if path.is_file() and path.suffix not in {".md", ".json", ".js", ".go", ".java", ".xml"}:
            found += [path] if commands(path) else []
    return found


def programs(path: Path) -> list[str]:
    """The programs that the commands of a file call."""
    return [command.split()[0] for command in commands(path)]


ELSEWHERE = {"promtool test rules alerts.test.yaml": "tests/e2e/test_alerts.py"}
"""What another test runs in the same words, and takes long."""
RUN = [
    path
    for path in files()
    if not set(programs(path)) & NOT_HERE.keys() and not set(commands(path)) <= ELSEWHERE.keys()
]
NAMED = {path.relative_to(REPOSITORY).as_posix(): path for path in RUN}


def test_every_command_is_run_or_said_not_to_be() -> None:
    """Each configuration of a server has its command. No program is unknown here, and what is not
    run is what the README says was never run, or needs Docker."""
    all_files = set(CONFIGURATIONS.rglob("*.yaml"))
    servers = {path for path in all_files if "provisioning" not in path.parts}
    assert servers <= set(files())
    called = {name for path in files() for name in programs(path)}
    assert called <= READY.keys() | ENDING | NOT_HERE.keys()
    for command, test in ELSEWHERE.items():
        assert command.split()[-1] in (REPOSITORY / test).read_text("utf-8")
    readme = (CONFIGURATIONS / "README.md").read_text("utf-8")
    (never,) = re.findall(r"^(.*) were never run here", readme, re.M)
    assert {name for name, why in NOT_HERE.items() if why == "AGPL"} <= set(
        re.findall(r"\w+", never.lower())
    )


@pytest.mark.e2e
@pytest.mark.parametrize("name", NAMED)
def test_command_at_the_head_works_as_it_stands(apart: Apart, name: str) -> None:
    """In the order in which they stand: servers get ready and take what is sent, other programs end
    well; what is sent is found behind the Collector. At SIGTERM all end well. None speaks of
    anything deprecated, and nothing is written into the checkout."""
    path = NAMED[name]
    where = folder(path)
    collected = "otelcol-contrib" in programs(path)
    requests = [("traces", traces(TRACE)), ("logs", logs(TRACE))] if collected else []
    before = sorted(where.rglob("*"))
    said = apart(
        where,
        [
            (command, READY.get(called))
            for command, called in zip(commands(path), programs(path), strict=True)
        ],
        posts=[
            (f"http://127.0.0.1:4318/v1/{signal}", request.SerializeToString())
            for signal, request in requests
        ],
        found=FOUND.get(path.name, []),
        called={"otelcol-contrib": "otelcol-routing"} if "routing" in path.name else {},
    )
    assert not [line for line in said.splitlines() if re.search("deprecat", line, re.I)]
    assert sorted(where.rglob("*")) == before
