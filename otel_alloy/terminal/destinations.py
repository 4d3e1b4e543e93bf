"""What `otel-alloy destinations` shows: how each one is, as values, lines and JSON.

Settings are shown without what may be secret: of headers and resource attributes the names, of an
endpoint what stands before its query.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from otel_alloy.alloy.timestamps import to_text
from otel_alloy.checkpoint.outbox import Backlog
from otel_alloy.checkpoint.store import Store
from otel_alloy.settings.destinations import Destinations, DestinationSettings
from otel_alloy.settings.models import Settings
from otel_alloy.settings.otlp import Exporter
from otel_alloy.terminal.render import span_of_time

State = Literal["ok", "failing", "paused", "disabled", "removed"]
WRONG: tuple[State, ...] = ("failing", "disabled")
"""States that somebody has to look after."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A destination as it is. `why`: what is wrong, or empty. `set_aside`: records that it refused
    for good."""

    name: str
    state: State
    why: str
    backlog: Backlog
    set_aside: int

    @property
    def waiting(self) -> int:
        """Executions that it has not got, those that are to be read again among them."""
        return self.backlog.executions + self.backlog.recall

    def line(self, now: int) -> str:
        """All of it on one line. `now`: Unix ms."""
        b = self.backlog
        parts = [f"{b.executions:,} waiting"]
        if b.executions:
            age = span_of_time(max(0, now - (b.oldest or now)) / 1000)
            parts[0] += f" ({b.bytes:,} bytes, the oldest for {age})"
        if b.recall:
            parts.append(f"{b.recall:,} to be read again")
        parts.append(f"{b.delivered:,} delivered")
        if self.set_aside:
            parts.append(f"{self.set_aside:,} set aside")
        if b.missing:
            parts.append(f"{b.missing:,} not to be had any more")
        why = f": {self.why}" if self.why else ""
        return f"{self.name}  {self.state}  {', '.join(parts)}{why}"

    def as_object(self) -> dict[str, Any]:
        """The same for programs."""
        b = self.backlog
        return {
            "destination": self.name,
            "state": self.state,
            "why": self.why,
            "waiting": b.executions,
            "bytes": b.bytes,
            "oldest": _moment(b.oldest),
            "read_again": b.recall,
            "read_again_from": _moment(b.recall_from),
            "delivered": b.delivered,
            "delivered_at": _moment(b.delivered_at),
            "set_aside": self.set_aside,
            "missing": b.missing,
            "paused_since": _moment(b.paused_at),
            "error": b.error,
            "error_since": _moment(b.error_at),
        }


def seen(found: Destinations, store: Store | None) -> dict[str, Seen]:
    """All destinations by name: those of the settings, and those for which something waits still.
    `store`: None where there is none yet. Raises CheckpointError."""
    backlogs = store.outbox.backlogs() if store else {}
    refused = store.rejected_by_destination() if store else {}
    known = {*found.usable, *found.disabled}
    left = {n for n, b in backlogs.items() if b.executions or b.recall or b.paused_at is not None}
    return {
        name: _seen(name, found, backlogs.get(name) or Backlog(), refused.get(name, 0))
        for name in sorted(known | left)
    }


def _seen(name: str, found: Destinations, backlog: Backlog, set_aside: int) -> Seen:
    state: State = "ok"
    why = ""
    if name in found.disabled:
        state, why = "disabled", found.disabled[name]
    elif name not in found.usable:
        state = "removed"
        why = f"the settings have it no more; `otel-alloy destinations drain {name} --drop`"
    elif backlog.paused_at is not None:
        state, why = "paused", f"since {to_text(backlog.paused_at)}"
    elif backlog.error is not None:
        state, why = "failing", backlog.error
    return Seen(name, state, why, backlog, set_aside)


def _moment(ms: int | None) -> str | None:
    return None if ms is None else to_text(ms)


def settings_shown(one: DestinationSettings, settings: Settings) -> dict[str, Any]:
    """The settings of a destination as they may be shown."""
    exporters = one.exporters(settings.network)
    privacy = one.privacy.over(settings.privacy)
    return {
        "match": one.match.words,
        "rules": [f"{r.name}: {r.words} where {r.match.words}" for r in one.rules.rules],
        **{e.signal: _endpoint_shown(e) for e in exporters.executions},
        "privacy": privacy.model_dump(by_alias=True),
        "resource": sorted(one.resource),
        "requests_per_minute": one.requests_per_minute,
    }


def _endpoint_shown(exporter: Exporter) -> dict[str, Any] | None:
    if exporter.off:
        return None
    one = exporter.settings
    return {
        "endpoint": one.place,
        "protocol": one.protocol,
        "compression": one.compression,
        "headers": [name for name, _ in one.headers],
        "certificate": one.certificate,
        "client_certificate": one.client_certificate,
    }


def shown_lines(
    one: Seen, shown: Mapping[str, Any] | None, again: tuple[int, int] | None, now: int
) -> Iterator[str]:
    """`show` for people. `shown`: its settings, None where it has none that can be used; `again`:
    of which createdAt (Unix ms) something is to be read again."""
    yield one.line(now)
    if again:
        yield f"  to be read again: created from {to_text(again[0])} to {to_text(again[1])}"
    b = one.backlog
    if b.delivered_at is not None:
        yield f"  delivered last: {to_text(b.delivered_at)}"
    if b.error is not None:
        yield f"  last error: {b.error} (since {to_text(b.error_at or 0)})"
    if b.paused_at is not None:
        yield f"  paused: since {to_text(b.paused_at)}"
    for name, value in (shown or {}).items():
        if isinstance(value, dict):
            parts = (f"{k} {_plain(v)}" for k, v in value.items() if v not in (None, []))
            yield f"  {name}: {', '.join(parts)}"
        elif value is None:
            yield f"  {name}: none"
        else:
            yield f"  {name}: {_plain(value)}"


def _plain(value: object) -> str:
    return "; ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
