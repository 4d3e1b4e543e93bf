"""`check --explain`: what the rules make of an execution, rule by rule, until one decides.

Executions come from a file that holds what `GET /logs` gives, or from Alloy itself. Starts are
joined with their ends as `run` joins them, so a rule sees the same here and there. Nothing is sent,
stored or printed; `otel_alloy.terminal.explain_rules` shows what is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace

from otel_alloy.alloy.models import TERMINAL, Notification, Record, Unreadable, read_page
from otel_alloy.bounded_file import read_bounded
from otel_alloy.checkpoint.private import PrivateStore
from otel_alloy.errors import AlloyReceiverError
from otel_alloy.mapping.convert import Execution, Role
from otel_alloy.pipeline.factory import Budgets
from otel_alloy.pipeline.query import ExecutionQuery, Told
from otel_alloy.pipeline.tracker import ExecutionTracker
from otel_alloy.routing.match import Match
from otel_alloy.routing.rules import Rules
from otel_alloy.routing.subject import Subject
from otel_alloy.runtime import Runtime
from otel_alloy.settings.destinations import MAIN, Destinations
from otel_alloy.settings.models import Settings, SourceSettings

LOOK_BACK = 86_400.0
"""So many seconds of Alloy's log are looked through."""
_MOST_BYTES = 64 * 2**20
_HOLD_AT_MOST = 60.0
_MOST_SHOWN = 20
_AT_ALLOY = "give the uuid of one that ended lately, or a file with its notification"
_IN_FILE = "give a notification, a list of them, or a whole answer of GET /logs"


@dataclass(frozen=True, slots=True)
class Step:
    """One rule, asked in its turn. `why_not`: what does not fit; None where it decides."""

    rule: str
    does: str
    why_not: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of an execution on one route. `steps`: its rules up to the one that decides;
    none where the execution does not go there anyway."""

    route: str
    steps: tuple[Step, ...]
    kept: bool
    rule: str | None
    why: str


@dataclass(frozen=True, slots=True)
class Explained:
    """An execution and what becomes of it. `seconds`: how long it took, where that is known."""

    uuid: str | None
    execution_id: str | None
    notification_id: str | None
    workflow: str | None
    user_id: str | None
    outcome: str
    seconds: float | None
    verdicts: tuple[Verdict, ...]


def decided(execution: Execution, settings: Settings, found: Destinations) -> Explained:
    """What becomes of an execution: by the rules for all, then at the main destination and at the
    others; of many others, at those that it matches."""
    subject = Subject(execution)
    general = _verdict(subject, MAIN, None, settings.rules)
    if not (found.usable or found.disabled):
        return _explained(execution, subject, [general])
    verdicts = [replace(general, route="all destinations")]
    if not general.kept:
        return _explained(execution, subject, verdicts)
    others = [_verdict(subject, n, one.match, one.rules) for n, one in found.usable.items()]
    matched = [one.route for one in others if found.usable[one.route].match(subject)]
    choice = settings.main_destination
    kept = choice == "all" or (choice == "unmatched" and not matched)
    why = f"main_destination is {choice}"
    if choice == "unmatched":
        why += f", and {matched[0] if matched else 'no destination'} matches it"
    verdicts.append(Verdict(MAIN, (), kept, None, why))
    few = len(others) <= _MOST_SHOWN
    verdicts += [one for one in others if few or one.route in matched]
    verdicts += [
        Verdict(name, (), False, None, f"it is disabled: {why}")
        for name, why in list(found.disabled.items())[:_MOST_SHOWN]
    ]
    return _explained(execution, subject, verdicts)


def _explained(execution: Execution, subject: Subject, verdicts: Sequence[Verdict]) -> Explained:
    n = execution.notification
    return Explained(
        n.data.executionUuid if n.data else None,
        n.data.executionId if n.data else None,
        n.id,
        subject.value("workflow.name") or subject.value("workflow.id"),
        subject.value("user.id"),
        subject.outcome,
        subject.duration,
        tuple(verdicts),
    )


def _verdict(subject: Subject, name: str, match: Match | None, rules: Rules) -> Verdict:
    why_not = None if match is None else match.why_not(subject)
    if why_not is not None:
        return Verdict(name, (), False, None, f"it does not go there: {why_not}")
    decision = rules.decide(subject)
    steps = []
    for rule in rules.rules:
        steps.append(Step(rule.name, rule.words, rule.match.why_not(subject)))
        if rule.name == decision.rule:
            break
    return Verdict(name, tuple(steps), *decision)


def in_file(path: str, now: int) -> list[Execution]:
    """The executions of a file. `now`: Unix ms. Raises AlloyReceiverError where it has none."""
    try:
        found = _records(read_bounded(path, _MOST_BYTES))
    except OSError as error:
        raise AlloyReceiverError(f"--explain {path}: {error.strerror}", _IN_FILE) from None
    except Unreadable as error:
        raise AlloyReceiverError(f"--explain {path}: {error}", _IN_FILE) from None
    executions = _joined(found, now)
    if not executions:
        raise AlloyReceiverError(f"--explain {path}: there is no notification in it", _IN_FILE)
    return executions


def at_alloy(
    settings: Settings, runtime: Runtime, identity: str, report: Callable[[Told], None]
) -> list[Execution]:
    """The execution with this executionUuid, executionId or `_id`, from the last day's log of the
    first source that has it; more than one where it ended again. Raises AlloyReceiverError where
    there is none, and what reading raises."""
    budgets = Budgets(settings, runtime)
    read = 0
    for source in settings.sources:
        found, seen = _look_through(settings, source, runtime, budgets, identity, report)
        read += seen
        if found:
            return _joined(found, runtime.now_ms())
    raise AlloyReceiverError(
        f"--explain {identity}: it is not among the {read:,} records of the last 24 hours",
        _AT_ALLOY,
    )


def _look_through(
    settings: Settings,
    source: SourceSettings,
    runtime: Runtime,
    budgets: Budgets,
    identity: str,
    report: Callable[[Told], None],
) -> tuple[list[Record], int]:
    """The records of the execution in one source, and how many were looked at. It is read no
    further than its end."""
    found: list[Record] = []
    read = 0
    query = ExecutionQuery(
        *(settings, source),
        overlap=0.0,
        runtime=runtime,
        report=report,
        budgets=budgets,
        hold_at_most=_HOLD_AT_MOST,
    )
    with query:
        for records in query.pages(query.window(LOOK_BACK)):
            read += len(records)
            found += [r for r in records if identity in _identities(r.notification)]
            if any(r.notification.message in TERMINAL for r in found):
                break
    return found, read


def _identities(n: Notification) -> tuple[str | None, ...]:
    data = n.data
    return (n.id,) if data is None else (data.executionUuid, data.executionId, n.id)


def _records(body: bytes) -> list[Record]:
    """Those of an answer, of a list, or of one notification. Raises Unreadable."""
    text = body.strip()
    if text.startswith(b"["):
        return read_page(b'{"notifications":%s}' % text).records
    try:
        return read_page(body).records
    except Unreadable:
        if text.startswith(b"{"):
            with suppress(Unreadable):
                return read_page(b'{"notifications":[%s]}' % text).records
        raise


def _joined(records: Iterable[Record], now: int) -> list[Execution]:
    """The executions that `run` would make of the records. A start is one of its own only where
    there is nothing else of its execution."""
    with closing(PrivateStore()) as store:
        tracker = ExecutionTracker(
            *("explain", store.load("explain")),
            overlap_ms=0,
            incomplete_after_ms=int(LOOK_BACK * 1000),
            started_logs=True,
        )
        batch = tracker.batch()
        ordered = sorted(records, key=lambda record: record.created or 0)
        tracker.take(batch, ordered, [], now)
    ended = {one.notification.execution for one in batch.executions if one.role is not Role.STARTED}
    return [
        one
        for one in batch.executions
        if one.role is not Role.STARTED or one.notification.execution not in ended
    ]
