"""How a source is: the values that people look at, and those in plain words with what to do.

The words are ours alone. What an endpoint or Alloy answered may quote a record, and with it
personal data, so it is neither kept in these values nor told here; `/status` and the log have it.
Nothing here looks at a clock or knows how it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from otel_alloy.durations import about

Level = Literal["good", "waits", "bad"]
"""All is well; it waits, and may go on by itself; executions do not get through."""


@dataclass(frozen=True, slots=True)
class Failing:
    """What fails at the moment. `stage`: alloy, traces, logs, checkpoint or records. `kind`: the
    name of the error, or how the endpoint's answer was taken. `attempt`: from 1; the next one comes
    in `wait` seconds. `for_a_person`: it does not pass by itself."""

    stage: str
    kind: str
    attempt: int
    wait: float
    for_a_person: bool


@dataclass(frozen=True, slots=True)
class SourceView:
    """How a source is at one moment."""

    name: str
    ready: bool
    live: bool
    elsewhere: bool = False
    """This process has nothing to do with it; `owner` has, or nobody."""
    owner: str | None = None
    stopped: str | None = None
    """The name of the exception that ended it."""
    failing: tuple[Failing, ...] = ()
    held: bool = False
    """Alloy refuses what it had accepted before."""
    ahead: bool = False
    """Its checkpoint lies in the future."""
    complete: bool = False
    """A cycle was completed since the start."""
    resting: bool = False
    lag: float | None = None
    """Seconds."""
    late: bool = False
    """The lag is above the limit."""
    open: int | None = None
    success: float | None = None
    """Unix seconds: when something was settled or found to be complete."""
    missing: int = 0
    """Records that Alloy counts and the audit could not have."""
    gap: bool = False
    """Alloy may have removed records before they were read."""


@dataclass(frozen=True, slots=True)
class View:
    """All of a receiver at one moment. `leases`, `destinations`: as in `/status`, reasons included;
    None where there are none."""

    ready: bool
    live: bool
    leases_failing: bool
    sources: list[SourceView]
    leases: dict[str, Any] | None
    destinations: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Condition:
    """In words: how it is, and what to do, "" where nothing is to be done."""

    level: Level
    state: str
    advice: str = ""


_CHECK = "`otel-alloy check` says what is wrong"

_STOPPED = {
    "AccessRefused": Condition(
        "bad",
        "stopped: Alloy refuses its key",
        "Put a valid key where the old one was, try it with `otel-alloy check`, and start "
        "otel-alloy again.",
    ),
    "": Condition(
        "bad",
        "stopped",
        "The log and /status say why. Correct it and start otel-alloy again.",
    ),
}
_ALLOY = {
    "AccessRefused": Condition(
        "bad",
        "Alloy refuses its key",
        "Was the key changed or deleted? Put the new one where the old one was, and start "
        "otel-alloy again; a key in a file is taken up by itself. Nothing is lost meanwhile.",
    ),
    "Challenged": Condition(
        "waits",
        "something before Alloy refuses: a proxy, a firewall",
        f"It is tried again by itself. If it stays, {_CHECK}.",
    ),
    "Throttled": Condition(
        "waits",
        "Alloy asks to go slower",
        "It goes on by itself. If it stays, lower `requests_per_minute`, or see what else uses the "
        "key.",
    ),
    "": Condition(
        "waits",
        "Alloy gives no usable answer",
        f"It is tried again by itself, and nothing is lost. If it stays, {_CHECK}.",
    ),
}
_HELD = Condition(
    "bad",
    "Alloy refuses what it accepted before",
    f"It is asked again by itself, and nothing is lost. If it stays, {_CHECK}.",
)
_AHEAD = Condition(
    "bad",
    "its checkpoint lies in the future, so nothing is read",
    "Stop otel-alloy and give the moment up to which you have everything with `otel-alloy "
    "checkpoint set`.",
)
_CHECKPOINT = Condition(
    "bad",
    "the checkpoint cannot be written",
    "See to the disk or the database that `storage` names: is it full, read-only, away? It goes "
    "on by itself, and nothing is lost.",
)
_RECORDS = Condition(
    "bad",
    "Alloy counts records that it does not give",
    "Each cycle tries again. If it goes on, show Alloy's support what /status says of it.",
)
_STUCK = Condition(
    "bad",
    "stuck: nothing has happened for too long",
    "Keep the log, and start otel-alloy again; it goes on from where it was.",
)
_LATE = Condition(
    "bad",
    "far behind",
    "It reads what has piled up. If the lag only grows, raise `requests_per_minute`; `otel-alloy "
    "check` says what is needed.",
)
_MISSING = (
    "`otel-alloy audit` says of which time. It is asked for again, at the latest a day after."
)
_GAP = "Alloy may have removed records before they were read: /status says of which time."


def condition_of(source: SourceView) -> Condition:
    """How a source is, the worst first."""
    if source.stopped is not None:
        return _STOPPED.get(source.stopped, _STOPPED[""])
    if source.elsewhere:
        return _elsewhere(source)
    if not source.live:
        return _STUCK
    failing = {one.stage: one for one in source.failing}
    if source.ahead:
        return _AHEAD
    if "checkpoint" in failing:
        return _again(_CHECKPOINT, failing["checkpoint"])
    refused = [failing[signal] for signal in ("traces", "logs") if signal in failing]
    if refused and any(one.for_a_person for one in refused):
        return _endpoint(refused)
    if (alloy := failing.get("alloy")) is not None:
        words = _ALLOY.get(alloy.kind)
        if words is None or (source.held and words.level != "bad"):
            words = _HELD if source.held else _ALLOY[""]
        return _again(words, alloy)
    if refused:
        return _endpoint(refused)
    if "records" in failing:
        return _RECORDS
    if source.late:
        return _LATE
    return _well(source)


def _elsewhere(source: SourceView) -> Condition:
    if source.owner is not None:
        return Condition("good", f"at another replica: {source.owner}")
    return Condition(
        "waits",
        "no replica works at it",
        "One takes it within seconds. If none does, `otel-alloy replicas` says who is there.",
    )


def _endpoint(refused: list[Failing]) -> Condition:
    what = " and ".join(one.stage for one in refused)
    worst = max(refused, key=lambda one: (one.for_a_person, one.attempt))
    if worst.for_a_person:
        advice = (
            "Correct its address, protocol or credentials (OTEL_EXPORTER_OTLP_*), here or there; "
            "`otel-alloy check` tries both signals. Nothing is lost meanwhile."
        )
        return _again(Condition("bad", f"the OTLP endpoint refuses {what}", advice), worst)
    advice = (
        "Is the Collector up, and can it be reached from here? `otel-alloy check` tries both "
        "signals. It goes on by itself, and nothing is lost."
    )
    return _again(Condition("waits", f"the OTLP endpoint does not take {what}", advice), worst)


def _again(words: Condition, failing: Failing) -> Condition:
    """With the number of attempts, and when the next one comes."""
    wait = about(failing.wait) if failing.wait >= 1 else "a moment"
    state = f"{words.state}; attempt {failing.attempt}, the next in {wait}"
    return Condition(words.level, state, words.advice)


def _well(source: SourceView) -> Condition:
    if not source.complete:
        return Condition("waits", "it has begun: the first reading is under way")
    state = "up to date" if source.resting else "reading"
    if source.missing:
        return Condition("waits", f"{state}, but {source.missing:,} records are missing", _MISSING)
    return Condition("good", state, _GAP if source.gap else "")


_DESTINATIONS = {
    "failing": Condition(
        "bad",
        "its endpoint does not take what it is sent",
        "`otel-alloy destinations test NAME` tries it. What waits is delivered when it is back; no "
        "other destination waits for it.",
    ),
    "disabled": Condition(
        "bad",
        "its settings cannot be used",
        "`otel-alloy destinations list` says why. Correct them; what waits is then delivered.",
    ),
    "paused": Condition(
        "waits", "paused", "`otel-alloy destinations resume NAME` lets go what is held back."
    ),
    "removed": Condition(
        "waits",
        "gone from the settings, and something waits for it",
        "Put it back, or forget what waits with `otel-alloy destinations drain NAME --drop`.",
    ),
}
_DELIVERED = Condition("good", "delivering")


def destination_condition(state: str) -> Condition:
    """How a destination is, by its state as `/status` has it."""
    return _DESTINATIONS.get(state, _DELIVERED)


NO_LEASES = Condition(
    "bad",
    "leases cannot be kept",
    "Is the database of the checkpoint up, and can it be reached from here? What this replica "
    "works at goes to another one until then; nothing is lost.",
)
UNOWNED = Condition(
    "waits",
    "no replica works at some of it",
    "One takes it within seconds. If none does, `otel-alloy replicas` names it and says who is "
    "there.",
)


def verdict(view: View) -> Condition:
    """How the receiver is as a whole."""
    here = [one for one in view.sources if not one.elsewhere]
    unready = [one for one in here if not one.ready]
    waiting = [one for one in here if condition_of(one).level == "waits"]
    if not view.live:
        return Condition("bad", "Stuck", "Nothing happens any more, also not waiting.")
    if view.leases_failing:
        return Condition("bad", "Not ready", "Leases cannot be kept.")
    if unready and all(one in waiting and not one.late for one in unready):
        return Condition("waits", "Starting", "The first reading is not complete.")
    if unready:
        of = "" if len(here) == 1 else f" from {len(unready):,} of {len(here):,} sources"
        return Condition("bad", "Not ready", f"Executions do not get through{of}.")
    if waiting:
        which = f"{len(waiting):,} of {len(here):,} sources" if len(here) > 1 else "The source"
        verb = "need" if len(waiting) > 1 else "needs"
        return Condition("waits", "Ready", f"{which} {verb} a look.")
    states = {} if view.destinations is None else view.destinations["states"]
    if wrong := states.get("failing", 0) + states.get("disabled", 0):
        which = "a destination does" if wrong == 1 else f"{wrong:,} destinations do"
        return Condition("waits", "Ready", f"But {which} not take what is for it.")
    if not here:
        return Condition("good", "Ready", "No source is worked at here.")
    return Condition("good", "Ready", "Executions get through.")
