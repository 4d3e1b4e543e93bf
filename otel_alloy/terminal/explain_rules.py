"""What `otel-alloy check --explain` shows: of each execution the rules until one decides, as lines
or as one JSON document."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from otel_alloy.check.explain_rules import (
    Explained,
    Verdict,
    at_alloy,
    decided,
    in_file,
)
from otel_alloy.durations import duration_text
from otel_alloy.otlp.outcome import clean
from otel_alloy.pipeline.query import report_words
from otel_alloy.runtime import Runtime
from otel_alloy.settings.destinations_dir import Directory
from otel_alloy.settings.models import Settings
from otel_alloy.terminal.render import tolerant


def run_explain(
    settings: Settings,
    runtime: Runtime,
    which: str,
    *,
    is_file: bool,
    as_json: bool,
    say: Callable[[str], None],
) -> None:
    """Shows what becomes of the executions of a file, or of the one that has the id `which`. `say`
    prints a line on standard error. Raises AlloyReceiverError where there is none."""
    if is_file:
        executions = in_file(which, runtime.now_ms())
    else:
        say("Looking through the last 24 hours at Alloy.")
        executions = at_alloy(settings, runtime, which, lambda event: say(report_words(event)))
    found = Directory(settings, runtime.clock).read()
    told = [decided(execution, settings, found) for execution in executions]
    console = tolerant(Console(highlight=False))
    if as_json:
        document = {"executions": [asdict(one) for one in told]}
        print(json.dumps(document, indent=2), file=console.file, flush=True)
        return
    for one in told:
        for text in _lines(one, several=len(one.verdicts) > 1):
            console.print(text, soft_wrap=True)


def _lines(one: Explained, *, several: bool) -> Iterator[Text]:
    ids = (("executionId", one.execution_id), ("_id", one.notification_id))
    others = ", ".join(f"{name} {clean(value)}" for name, value in ids if value)
    head = f"execution {clean(one.uuid)}" if one.uuid else "execution without uuid"
    yield Text(f"{head} ({others})" if others else head, "bold")
    known = [
        clean(one.workflow) if one.workflow else "",
        f"user {clean(one.user_id)}" if one.user_id else "",
        one.outcome,
        "" if one.seconds is None else duration_text(round(one.seconds * 1e9)),
    ]
    yield Text(f"  {', '.join(filter(None, known))}")
    for verdict in one.verdicts:
        if several:
            yield Text(f"  {clean(verdict.route)}:")
        yield from _of(verdict)


def _of(verdict: Verdict) -> Iterator[Text]:
    for step in verdict.steps:
        answer = "decides" if step.why_not is None else f"no: {clean(step.why_not)}"
        yield Text(f"  - {clean(step.rule)} ({step.does}): {answer}", "dim" if step.why_not else "")
    word, style = ("kept", "green") if verdict.kept else ("filtered", "yellow")
    yield Text(f"  {word}: {clean(verdict.why)}", style)
