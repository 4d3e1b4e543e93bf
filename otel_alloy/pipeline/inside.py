"""What is asked about the inside of executions, and how the answers are joined: the blocks of each,
why it failed, how its blocks are called.

`enrich.py` asks so for what `run` delivers, `query.py` for what `tail` and `summary` show. One
question serves all executions of one workflow and user. A question that fails puts off the next
one; nothing here waits, delivers or keeps an execution. How answers are read is in
`alloy/steps.py`, which error is whose in `reasons.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import quote

from otel_alloy.alloy.models import Unreadable
from otel_alloy.alloy.steps import (
    Block,
    BlockError,
    BlockName,
    ExecutionSteps,
    failing,
    read_errors,
    read_steps,
    read_workflow,
)
from otel_alloy.errors import AlloyReceiverError, RequestRefused, Retry, Stop
from otel_alloy.mapping.enrichment import Enrichment, Reason, Step
from otel_alloy.pipeline.reasons import BEFORE_NS, Failure, reason_of
from otel_alloy.runtime import Runtime

PAGE = 30
"""The most that Alloy gives at once (its description of these operations)."""
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 300.0
_EXAMINED = 2
"""So often a reason is looked for: what fits two will go on to, and what is late comes by then."""


class Asked(Protocol):
    """What is asked of a source."""

    def ask(self, path: str, parameters: Mapping[str, str]) -> bytes: ...


class Allowance(Protocol):
    """How much may be asked; see `Share`."""

    def is_free(self) -> bool: ...

    def spend(self, requests: int) -> None: ...


class NameStore(Protocol):
    """Where the names of blocks are kept; see `Store`."""

    def blocks(self, workflow: str, version: int) -> str | None: ...

    def write_blocks(self, workflow: str, version: int, blocks: str) -> None: ...


@dataclass(slots=True)
class Case:
    """An execution that ended, and what is known of its inside. `workflow`: the user's installed
    copy; `version`: None where it is not known. `started`, `ended`: Unix ns, as near as is known.
    `block`, `block_name`: where it failed, as the webhook told it."""

    uuid: str
    workflow: str
    user: str
    version: int | None
    started: int
    ended: int
    failed: bool
    steps: ExecutionSteps | None = None
    reason: Reason | None = None
    block: Block | None = None
    block_name: str | None = None
    examined: int = 0
    """How often its reason was looked for among the errors."""

    @property
    def lacks_reason(self) -> bool:
        """Whether it failed, and why is not known."""
        return self.failed and self.reason is None

    @property
    def lacks(self) -> bool:
        """Whether there is anything left to ask."""
        return self.steps is None or (self.lacks_reason and self.examined < _EXAMINED)


class Inquiry:
    """Asks one source. `mask`: makes a message fit to leave; None drops it. `complain`: is told of
    a question that fails, and for how long (s) no other is put."""

    def __init__(
        self,
        source: Asked,
        names: NameStore,
        mask: Callable[[str], str | None],
        allowance: Allowance,
        runtime: Runtime,
        complain: Callable[[AlloyReceiverError, float], None],
    ) -> None:
        self._source = source
        self._store = names
        self._mask = mask
        self._allowance = allowance
        self._runtime = runtime
        self._complain = complain
        self._quiet_until = 0.0
        self._failures = 0
        self._second = 1
        """What the second page is called: Alloy does not say whether pages count from 0 or 1."""
        self._largest = 1
        """The most executions that a page brought."""

    @property
    def quiet_for(self) -> float:
        """For how many seconds no question is put, as others have failed."""
        return max(0.0, self._quiet_until - self._runtime.monotonic())

    def may_ask(self) -> bool:
        """Whether a question may be put now."""
        return self._allowance.is_free() and self._runtime.monotonic() >= self._quiet_until

    def ask(
        self, cases: Collection[Case], failures: Iterable[Failure], ripe: Callable[[Case], bool]
    ) -> None:
        """Asks for the blocks of the cases, which are of one workflow and user, and for the errors
        where those may tell the reason of a case that is `ripe` for it. `failures`: what else
        failed of them. A question that fails ends it."""
        try:
            ask_why = any(c.lacks_reason and c.lacks and ripe(c) for c in cases)
            told, known_from = self._steps(cases, whole=ask_why)
            failed = [c for c in cases if c.lacks_reason and c.lacks and c.steps and ripe(c)]
            if failed:
                self._errors(failed, list(failures), told, known_from)
        except (Retry, RequestRefused, Stop) as error:
            self._failed(error)
        except Unreadable as error:
            self._failed(RequestRefused(f"the answer cannot be read: {error}"))
        else:
            self._failures = 0

    def enrichment(self, case: Case) -> Enrichment:
        """What is known of a case now; asks for the names of its blocks where those are not."""
        steps = case.steps
        names = self._names(case) if steps is not None and steps.blocks else {}
        broken = failing(steps) if steps is not None and case.failed else None
        blocks = () if steps is None else steps.blocks
        made = tuple(_step(block, names, block is broken) for block in blocks)
        block = next((step for step in made if step.failed), None)
        if block is None and case.block is not None and case.failed:
            block = _step(case.block, names, True)
            block = replace(block, name=block.name or case.block_name)
        return Enrichment(made, block, case.reason)

    def _steps(
        self, cases: Collection[Case], *, whole: bool
    ) -> tuple[dict[str, ExecutionSteps], int]:
        """The executions of the cases' workflow and user, newest first, as far back as the cases
        need; and from which start on (Unix ns) that is all of them. Not `whole`: the cases' own do,
        and passing over the others costs a tenth of reading them."""
        wanted = {c.uuid for c in cases if c.lacks}
        first = min((c.started for c in cases if c.lacks), default=0)
        of = next(iter(cases))
        told: dict[str, ExecutionSteps] = {}
        known_from = 1 << 63
        for page in (None, self._second, self._second + 1):
            before = len(told)
            body = self._page(of, page)
            if not whole:
                told.update({steps.uuid: steps for steps in read_steps(body, wanted)})
                _take(cases, told)
                if wanted <= told.keys():
                    break
            came = list(read_steps(body))
            told.update({steps.uuid: steps for steps in came})
            _take(cases, told)
            if page is not None and came and len(told) == before:
                self._second = page + 1  # that was the first page again: pages count from 1
                continue
            if len(came) < self._largest:  # a page can hold more, so nothing follows
                known_from = 0
                break
            self._largest = max(1, len(came))
            known_from = min((s.started for s in came if s.started is not None), default=known_from)
            if wanted <= told.keys() and known_from < first - BEFORE_NS:
                break
        return told, known_from

    def _page(self, of: Case, page: int | None) -> bytes:
        """A page of a workflow's executions, newest first; None: the first one."""
        parameters = {"userId": of.user, "limit": str(PAGE), "order": "desc"}
        if page is not None:
            parameters["page"] = str(page)
        return self._request(of, "/logs", parameters)

    def _errors(
        self,
        failed: list[Case],
        failures: list[Failure],
        told: Mapping[str, ExecutionSteps],
        known_from: int,
    ) -> None:
        of = failed[0]
        body = self._request(of, "/errors", {"userId": of.user})
        errors = [e for e in read_errors(body) if _is_of(e, of)]
        names: dict[str, BlockName] = {}
        for version in {case.version: case for case in failed}.values():
            names |= self._names(version)
        whole = {uuid: _named(steps, names) for uuid, steps in told.items()}
        for case in failed:
            mine = whole.get(case.uuid)
            if mine is None:
                continue
            case.examined += 1
            error = reason_of(mine, errors, whole.values(), failures, known_from)
            if error is not None:
                message = None if error.message is None else self._mask(error.message)
                case.reason = Reason("errors", message)

    def _names(self, case: Case) -> dict[str, BlockName]:
        """How the blocks of its version of the workflow are called, by id."""
        if case.version is None:
            return {}
        text = self._store.blocks(case.workflow, case.version)
        calm = self._runtime.monotonic() >= self._quiet_until and not self._runtime.stopping()
        if text is None and calm:
            try:
                found = read_workflow(
                    self._request(case, "", {"userId": case.user} if case.user else {})
                )
            except (Retry, RequestRefused, Stop) as error:
                self._failed(error)
                return {}
            except Unreadable as error:
                self._failed(RequestRefused(f"the answer cannot be read: {error}"))
                return {}
            if found.version not in (None, case.version):
                return {}
            rows = [[b.id, b.name, b.type, b.app] for b in found.blocks]
            text = json.dumps(rows, separators=(",", ":"))
            self._store.write_blocks(case.workflow, case.version, text)
        try:
            return {row[0]: BlockName(*row) for row in json.loads(text or "[]")}
        except (ValueError, TypeError, LookupError):
            return {}

    def _request(self, of: Case, what: str, parameters: Mapping[str, str]) -> bytes:
        self._allowance.spend(1)
        return self._source.ask(f"/workflows/{quote(of.workflow, safe='')}{what}", parameters)

    def _failed(self, error: AlloyReceiverError) -> None:
        self._failures += 1
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures, 10))
        self._quiet_until = self._runtime.monotonic() + pause
        self._complain(error, pause)


def _take(cases: Iterable[Case], told: Mapping[str, ExecutionSteps]) -> None:
    """Gives each case its steps, page by page, as a further question may fail."""
    for case in cases:
        case.steps = told.get(case.uuid, case.steps)


def _is_of(error: BlockError, case: Case) -> bool:
    return error.workflow in (None, case.workflow) and error.user in (None, case.user)


def _named(steps: ExecutionSteps, names: Mapping[str, BlockName]) -> ExecutionSteps:
    """With the type and the app of each block, as an error names its block by these."""
    blocks = []
    for block in steps.blocks:
        named = names.get(block.id or "")
        if named is not None:
            block = replace(block, type=block.type or named.type, app=block.app or named.app)
        blocks.append(block)
    return replace(steps, blocks=tuple(blocks))


def _step(block: Block, names: Mapping[str, BlockName], failed: bool) -> Step:
    named = names.get(block.id or "")
    return Step(
        index=block.index,
        id=block.id,
        name=None if named is None else named.name,
        type=block.type or (None if named is None else named.type),
        app=block.app or (None if named is None else named.app),
        started=block.started,
        stopped=block.stopped,
        status_code=block.status_code,
        failed=failed,
    )
