"""The findings of `check` on standard output: lines, rows on a terminal, or JSON."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from otel_alloy.check import check
from otel_alloy.check.finding import Finding
from otel_alloy.check.report import Report, write_report
from otel_alloy.runtime import Runtime
from otel_alloy.settings.models import Settings
from otel_alloy.terminal.render import tolerant


def run_check(
    settings: Settings,
    runtime: Runtime,
    *,
    send_test: bool,
    as_json: bool,
    report_to: str | None = None,
) -> int:
    """Shows the findings on standard output, each as soon as it is made; the exit code.

    `report_to`: a file for the report; `-` is standard output, and the findings are shown on
    standard error then. Raises AlloyReceiverError where the report cannot be written."""
    alone = report_to == "-"
    report = None if report_to is None else Report()
    worst = show_findings(
        check(settings, runtime, send_test=send_test, report=report),
        as_json=as_json,
        out=sys.stderr if alone else sys.stdout,
    )
    if report is not None and report_to is not None:
        if alone:
            print(report.text(), end="")
        else:
            write_report(report.text(), Path(report_to))
    sys.stdout.flush()
    return worst


def show_findings(made: Iterable[Finding], *, as_json: bool, out: TextIO | None = None) -> int:
    """Shows findings, each as soon as it is made; the exit code. `out`: None is standard output,
    where JSON goes in any case."""
    out = out or sys.stdout
    console = tolerant(Console(file=out, highlight=False))
    findings: list[Finding] = []
    for finding in made:
        if console.is_terminal and not as_json:
            console.print(*_rows(finding, findings[-1] if findings else None), sep="\n")
        elif not as_json:
            print(finding.line(), file=out, flush=True)
        findings.append(finding)
    worst = max((f.exit_code for f in findings if f.ok is False), default=0)
    if as_json:
        shown = [
            {key: value for key, value in asdict(f).items() if key != "exit_code"} for f in findings
        ]
        print(json.dumps({"ok": not worst, "exit_code": worst, "findings": shown}, indent=2))
    elif console.is_terminal:
        counts = Counter(f.mark for f in findings)
        words = f"\n{counts['ok']} ok, {counts['note']} to know, {counts['FAIL']} to correct"
        console.print(Text(words, "bold red" if worst else "bold green"))
    out.flush()
    return worst


def _rows(finding: Finding, before: Finding | None) -> Iterator[RenderableType]:
    """The finding on a terminal, under the name of its source where that is new."""
    group, _, part = finding.part.rpartition(": ")
    if group and (before is None or not before.part.startswith(group + ": ")):
        yield Text(group, "bold")
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(width=4, no_wrap=True)
    grid.add_column(width=16, no_wrap=True)
    grid.add_column(ratio=1)
    style = {True: "green", False: "bold red", None: "yellow"}[finding.ok]
    answer = Text(finding.answer)
    if finding.tried:
        answer.append(f" ({finding.tried})", "dim")
    if finding.remedy:
        answer.append(f"\n→ {finding.remedy}", "bold" if finding.ok is False else "cyan")
    grid.add_row(Text(finding.mark, style), Text(part), answer)
    yield grid
