"""What `check` says of destinations: how many there are, and which of them are disabled. Each is
tried by `otel-alloy destinations test`, since there may be thousands."""

from __future__ import annotations

from collections.abc import Iterator

from otel_alloy.check.finding import Finding
from otel_alloy.runtime import Runtime
from otel_alloy.settings.destinations_dir import Directory
from otel_alloy.settings.models import Settings

_MOST = 5


def destinations_findings(settings: Settings, runtime: Runtime) -> Iterator[Finding]:
    """Nothing where there are none in the settings."""
    if not (settings.destinations or settings.destinations_dir):
        return
    directory = Directory(settings, runtime.clock)
    found = directory.read()
    usable, disabled = len(found.usable), len(found.disabled)
    facts = {"usable": usable, "disabled": sorted(found.disabled)}
    tried = "read `destinations` and `destinations_dir`"
    words = f"{usable:,} to deliver to"
    if directory.problem:
        yield Finding("destinations", tried, False, directory.problem, facts=facts)
    elif found.disabled:
        some = [f"{name} ({why})" for name, why in sorted(found.disabled.items())[:_MOST]]
        more = f" and {disabled - _MOST:,} more" if disabled > _MOST else ""
        yield Finding(
            "destinations",
            tried,
            False,
            f"{words}; {disabled:,} disabled: {'; '.join(some)}{more}",
            "correct them; `run` takes them up by itself",
            facts=facts,
        )
    else:
        remedy = "try each with `otel-alloy destinations test NAME`"
        yield Finding("destinations", tried, None, words, remedy, facts=facts)
