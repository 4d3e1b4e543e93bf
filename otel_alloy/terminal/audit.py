"""What `otel-alloy audit` shows: a table by stretch of time, or one JSON document."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime

from rich.console import Console, RenderableType
from rich.text import Text

from otel_alloy.alloy.timestamps import to_text
from otel_alloy.pipeline.audited import Completeness, Stretch
from otel_alloy.terminal import render

_NUMBERS = ("Alloy", "settled", "filtered", "rejected", "recovered", "missing")


def show_audit(found: Completeness, console: Console, *, as_json: bool) -> None:
    """Prints it."""
    if as_json:
        print(json.dumps(_as_object(found), indent=2), file=console.file, flush=True)
        return
    render.tolerant(console)
    if found.stretches:
        console.print(_table(found))
    console.print(Text(sentence(found)), soft_wrap=True)


def sentence(found: Completeness) -> str:
    """The result in one sentence."""
    unknown = [name for name, since in found.since.items() if since is None]
    if not found.stretches:
        return (
            f"Nothing to audit: {', '.join(unknown)} has no checkpoint yet."
            if unknown
            else "Nothing to audit: nothing was settled in this time."
        )
    if not found.counted:
        return (
            "This API does not count what matches a filter, so completeness cannot be shown; "
            "audit_by_reading reads it again instead."
        )
    api = sum(one.api or 0 for one in found.stretches)
    settled = sum(one.settled for one in found.stretches)
    words = f"{min(settled, api):,} of {api:,} records that Alloy counts are settled"
    removed = sum(max(0, one.settled - (one.api or 0)) for one in found.stretches)
    if removed:
        words += f"; {removed:,} more were settled and are not counted any more"
    filtered = sum(sum(one.filtered.values()) for one in found.stretches)
    if filtered:
        words += f", of which rules kept back {filtered:,} executions"
    if found.missing:
        words += f"; {found.missing:,} are missing"
    return words + "."


def _as_object(found: Completeness) -> dict[str, object]:
    return {
        "missing": found.missing,
        "counted": found.counted,
        "known_since": {n: None if s is None else to_text(s) for n, s in found.since.items()},
        "stretches": [
            {
                **asdict(one),
                "start": to_text(one.start),
                "before": to_text(one.before),
                "missing": one.missing,
            }
            for one in found.stretches
        ],
    }


def _table(found: Completeness) -> RenderableType:
    several = len({one.source for one in found.stretches}) > 1
    shown = render.new_table()
    if several:
        shown.add_column("source", no_wrap=True)
    shown.add_column("created", no_wrap=True)
    for name in _NUMBERS:
        shown.add_column(name, justify="right", no_wrap=True)
    for one in found.stretches:
        shown.add_row(*([one.source] if several else []), *_cells(one))
    return shown


def _cells(one: Stretch) -> list[Text | str]:
    first, last = (datetime.fromtimestamp(ms / 1000) for ms in (one.start, one.before))
    form = "%H:%M" if one.start % 60_000 == one.before % 60_000 == 0 else "%H:%M:%S"
    return [
        f"{first:%d %b} {first.strftime(form)} to {last.strftime(form)}",
        "?" if one.api is None else f"{one.api:,}",
        f"{one.settled:,}",
        f"{filtered:,}" if (filtered := sum(one.filtered.values())) else "-",
        f"{one.rejected:,}" if one.rejected else "-",
        f"{one.recovered:,}" if one.recovered else "-",
        Text(f"{one.missing:,}", "bold red") if one.missing else "-",
    ]
