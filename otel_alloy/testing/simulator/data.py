"""Seeded, realistic traffic: which executions run, and what each leaves in the log at which moment.

The same arguments always give the same records. Only invention lives here: nothing is stored, no
clock is read, and every unknown about the life of a record is a field of ``Traffic``.
"""

import base64
import copy
import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from otel_alloy.testing.simulator.incidents import AFFECTED
from otel_alloy.testing.simulator.inside import incident_at
from otel_alloy.testing.simulator.records import Execution, Record, Step, iso

Lifecycle = Literal["terminal", "two_records", "in_place", "in_place_new_created_at", "vanishing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Who runs what, and how an execution shows in the log. Shares are from 0 to 1.

    Raises ``ValueError`` for a value out of bounds.
    """

    seed: int = 1
    users: int = 40
    error_rate: float = 0.04
    """Share of executions that fail, over all; single workflows lie above and below."""
    lifecycle: Lifecycle = "two_records"
    """What becomes of ``executionStarted``: never written (``terminal``); a record of its own;
    changed in place under the same ``_id`` with ``createdAt`` kept or renewed; or it vanishes when
    the terminal record appears."""
    created_at_grid: int = 1
    """``createdAt`` is rounded up to a multiple of this many ms: a large one makes many ties."""
    late: float = 0.0
    """Share of records that become visible after their ``createdAt``."""
    late_by: float = 60.0
    """The longest such delay, in seconds."""
    late_burst: float = 0.0
    """Where this is not 0, late records become visible only at multiples of so many seconds."""
    created_at: Literal["end", "start"] = "end"
    """The ``createdAt`` of a terminal record: its own time, or the start of its execution although
    it is not visible before the end."""
    deleted: float = 0.0
    """Share of terminal records that the vendor deletes later."""
    deleted_after: float = 3600.0
    """How long after they become visible, in seconds."""
    never_ends: float = 0.0
    """Share of executions of which only the start is ever recorded."""
    clustered: float = 0.0
    """Share of failures that are due to an app that is down for a while, or to a user's connection
    that has expired; less where nearly everything fails."""
    colliding: float = 0.0
    """Share of failures beside which another execution of the same user's same workflow starts at
    the same moment and fails in the same block, for another reason."""
    second_terminal: float = 0.0
    """Share of failures followed by an ``executionFinished`` of the same execution."""
    odd: Mapping[str, float] = field(default_factory=dict)
    """Share of records with each of the ``ODDITIES``."""

    def __post_init__(self) -> None:
        for name in ("users", "created_at_grid"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in (
            *("error_rate", "late", "never_ends", "second_terminal", "deleted", "colliding"),
            "clustered",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1")
        for name in ("late_by", "late_burst", "deleted_after"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if unknown := self.odd.keys() - ODDITIES.keys():
            raise ValueError(f"unknown oddities {sorted(unknown)}; there are {sorted(ODDITIES)}")


def timeline(
    executions: int, *, start: float, end: float, traffic: Traffic | None = None
) -> Iterator[Execution]:
    """``executions`` spread evenly over ``start`` to ``end`` (seconds since the epoch), in order.

    All have ended by ``end``, and every record that is not late is visible by then.
    """
    if not 0 <= start <= end:
        raise ValueError("start must not lie after end")
    first, last = round(start * 1000), round(end * 1000)
    author = _Author(traffic or Traffic(), f"timeline:{first}:{last}")
    for number in range(executions):
        share = (number + author.rng.random()) / executions
        yield author.execution(first + int((last - first) * share), last)


def live(
    *, start: float, rate: float, traffic: Traffic | None = None, calls: bool = False
) -> Iterator[Execution]:
    """Endless executions from ``start`` (seconds since the epoch) on, ``rate`` a second on average.

    With ``calls`` each one calls the customer's service once before its end is recorded.
    """
    if rate <= 0:
        raise ValueError("rate must be above 0")
    moment = start
    author = _Author(traffic or Traffic(), f"live:{round(start * 1000)}")
    while True:
        moment += author.rng.expovariate(rate)
        yield author.execution(round(moment * 1000), None, calls=calls)


def eventful(traffic: Traffic, *moments: float) -> Traffic:
    """The same with the first seed, from its own on, with which an app that the busiest workflow
    calls is down at all of these moments (seconds since the epoch)."""
    for seed in itertools.count(traffic.seed):
        found = replace(traffic, seed=seed)
        busiest = _World(found).busiest.fields
        incidents = (incident_at(busiest, round(moment * 1000)) for moment in moments)
        if all(incident is not None and incident.kind == "down" for incident in incidents):
            return found
    raise AssertionError("counting has no end")


def generate(
    executions: int, *, start: float, end: float, traffic: Traffic | None = None
) -> Iterator[Record]:
    """The records that ``timeline`` leaves behind when all has happened, execution by execution."""
    for execution in timeline(executions, start=start, end=end, traffic=traffic):
        left: dict[str, Record] = {}
        for step in sorted(execution.steps, key=lambda step: step.at):
            record_id = step.body.get("_id", "")
            if step.action == "remove":
                left.pop(record_id, None)
            elif step.action != "call":
                left[record_id] = left.get(record_id, {}) | step.body
        yield from left.values()


class _Template(NamedTuple):
    name: str
    integration: str
    app: str
    median_seconds: float
    failures: float
    """Errors relative to the average workflow."""


_TEMPLATES = (
    _Template("Shopify orders to NetSuite", "NetSuite for Shopify", "Shopify", 2.4, 1.6),
    _Template("New Stripe payment to QuickBooks invoice", "Stripe bookkeeping", "Stripe", 1.3, 0.6),
    _Template("HubSpot contacts to Salesforce leads", "CRM bridge", "HubSpot", 1.8, 0.9),
    _Template("Sync Xero invoices nightly", "Xero ledger", "Xero", 6.5, 1.1),
    _Template("Slack alert on failed charge", "Team alerts", "Slack", 0.4, 0.3),
    _Template("Zendesk ticket to Jira issue", "Support escalation", "Zendesk", 1.1, 0.7),
    _Template("BigCommerce inventory to warehouse", "Stock levels", "BigCommerce", 3.2, 1.9),
    _Template("Klaviyo profile enrichment", "Marketing profiles", "Klaviyo", 0.9, 0.5),
    _Template("ShipStation tracking to Shopify", "Parcel tracking", "ShipStation", 1.5, 1.2),
    _Template("Google Sheets price list import", "Price lists", "Google Sheets", 8.0, 1.4),
    _Template(
        "Amazon orders to Microsoft Dynamics",
        "Marketplace orders",
        "Amazon Seller Central",
        4.1,
        2.2,
    ),
    _Template("Gusto new hire onboarding", "Onboarding", "Gusto", 2.0, 0.4),
)
_FIRST = (
    *("Ada", "Bruno", "Carmen", "Dmitri", "Elif", "Farah", "George", "Hana", "Ines", "Jonas"),
    *("Kofi", "Lena", "Mateo", "Nadia", "Oscar", "Priya", "Quentin", "Rosa", "Sven", "Tomoko"),
)
_LAST = (
    *("Almeida", "Bianchi", "Castillo", "Dubois", "Eriksen", "Fischer", "Garcia", "Haddad"),
    *("Ivanov", "Jensen", "Kowalski", "Lindqvist", "Mensah", "Nakamura", "Okafor", "Petrova"),
    *("Quinn", "Rossi", "Schneider", "Tanaka"),
)


class _Install(NamedTuple):
    """A workflow as one user has it: the fields its records share, and how it runs."""

    fields: Record
    median_seconds: float
    error_rate: float


class _World:
    """Users, workflow templates and their installed copies: a function of the seed alone."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._pairs = range(traffic.users), range(len(_TEMPLATES))
        # Few customers and workflows make most of the traffic.
        self._weights = tuple(
            list(itertools.accumulate(1 / (n + 1) ** 0.7 for n in pair)) for pair in self._pairs
        )
        shares = [1 / (n + 1) ** 0.7 for n in self._pairs[1]]
        weighted = sum(
            share * template.failures for share, template in zip(shares, _TEMPLATES, strict=True)
        )
        self._mean_failures = weighted / sum(shares)
        self._installs: dict[tuple[int, int], _Install] = {}

    @property
    def busiest(self) -> _Install:
        """The workflow with the most traffic, of the user with the most."""
        return self._found(0, 0)

    def pick(self, rng: random.Random) -> _Install:
        (user,) = rng.choices(self._pairs[0], cum_weights=self._weights[0])
        (workflow,) = rng.choices(self._pairs[1], cum_weights=self._weights[1])
        return self._found(user, workflow)

    def _found(self, user: int, workflow: int) -> _Install:
        install = self._installs.get((user, workflow))
        if install is None:
            install = self._installs[user, workflow] = self._install(user, workflow)
        return install

    def _install(self, user: int, workflow: int) -> _Install:
        seed = self._traffic.seed
        team = random.Random(f"{seed}:team")
        parent = random.Random(f"{seed}:workflow:{workflow}")
        owner = random.Random(f"{seed}:user:{user}")
        own = random.Random(f"{seed}:install:{user}:{workflow}")
        template = _TEMPLATES[workflow]
        icon = template.app.lower().replace(" ", "-")
        latest = parent.randint(1, 9)
        full_name, email = _person(user, owner)
        rate = self._traffic.error_rate
        # Runs from the average at rate 1 to the workflow's own share at small rates, so that both
        # 0 and 1 mean what they say.
        failures = template.failures / self._mean_failures * (1 - rate) + rate
        fields: Record = {
            "customVersion": own.random() < 0.05,
            "workflowVersion": latest if own.random() < 0.8 else own.randint(1, latest),
            "teamId": _old_id(team),
            "forgeWorkflowId": _old_id(parent),
            "workflowId": _old_id(own),
            "userId": _old_id(owner),
            "user": {"email": email, "fullName": full_name},
            "forgeWorkflow": {
                "name": template.name,
                "integrationId": {
                    "_id": _old_id(parent),
                    "name": template.integration,
                    "blockId": _nanoid(parent)[:20],
                    "icon": f"https://icons.example.com/{icon}.png",
                },
            },
        }
        return _Install(fields, template.median_seconds, min(1.0, rate * failures))


class _Author:
    """Writes executions one after the other."""

    def __init__(self, traffic: Traffic, role: str) -> None:
        self._traffic = traffic
        self.rng = random.Random(f"{traffic.seed}:{role}")
        self._world = _World(traffic)
        self._process = f"{self.rng.getrandbits(40):010x}"
        self._counter = self.rng.getrandbits(24)
        self._twin: tuple[int, _Install] | None = None
        """When, and as what, the next execution starts that collides with the one before it."""

    def execution(self, started: int, end: int | None, *, calls: bool = False) -> Execution:
        """One that starts at ``started`` and, if ``end`` is given, has ended by then (both ms).
        Where the one before it has a twin, that one."""
        rng, traffic = self.rng, self._traffic
        if self._twin is not None:
            (started, install), self._twin, failed = self._twin, None, True
        else:
            install = self._world.pick(rng)
            failed = rng.random() < self._chance(install, started)
            if failed and traffic.colliding and rng.random() < traffic.colliding:
                self._twin = started, install
        ended = started + max(1, int(1000 * install.median_seconds * rng.lognormvariate(0, 0.9)))
        ended = self._on_grid(ended, end)
        started = min(started, ended)
        data = {"executionId": self._object_id(started), "executionUuid": _nanoid(rng)}
        fields = install.fields
        never_ends = rng.random() < traffic.never_ends

        steps: list[Step] = []
        begun: Record = {}
        if traffic.lifecycle != "terminal" or never_ends:
            created = min(self._on_grid(started, end), ended)
            begun = self._record("executionStarted", data, started, None, created, fields)
            steps.append(Step(self._visible(created), "add", begun))
        if never_ends:
            return Execution(started, tuple(steps))

        message = "executionError" if failed else "executionFinished"
        written = ended if traffic.created_at == "end" else self._on_grid(started, end)
        done = self._record(message, data, started, ended, written, fields)
        seen = self._visible(ended)
        if calls:
            steps.append(_call(started + min(200, (ended - started) // 5), done))
            seen = max(seen, ended + 1000)  # leaves the service the time to be called first
        if begun and traffic.lifecycle.startswith("in_place"):
            changed: Record = {key: done[key] for key in ("message", "completedAt") if key in done}
            if traffic.lifecycle == "in_place_new_created_at" and "createdAt" in done:
                changed["createdAt"] = done["createdAt"]
            # A change cannot be seen before the record itself.
            steps.append(Step(max(seen, steps[0].at), "change", {"_id": begun["_id"]} | changed))
        else:
            steps.append(Step(seen, "add", done))
            if begun and traffic.lifecycle == "vanishing":
                steps.append(Step(max(seen, steps[0].at), "remove", {"_id": begun["_id"]}))
            if traffic.deleted and "_id" in done and rng.random() < traffic.deleted:
                gone = seen + round(traffic.deleted_after * 1000)
                steps.append(Step(gone, "remove", {"_id": done["_id"]}))
        if failed and rng.random() < traffic.second_terminal:
            again = self._on_grid(ended + rng.randint(500, 5000), end)
            second = self._record("executionFinished", data, started, again, again, fields)
            steps.append(Step(self._visible(again), "add", second))
        return Execution(started, tuple(steps))

    def _chance(self, install: _Install, started: int) -> float:
        """Of failing, of an execution that starts at ``started``: more in an incident and as much
        less else that the share of failures over all is what is asked for."""
        rate = self._traffic.error_rate
        clustered = self._traffic.clustered * (1 - rate)
        if not clustered * rate:
            return install.error_rate
        extra = min(0.95, clustered * rate / AFFECTED)
        usual = install.error_rate * (1 - extra * AFFECTED / rate)
        if incident_at(install.fields, started) is None:
            return usual
        return extra + (1 - extra) * usual

    def _record(
        self,
        message: str,
        data: Record,
        started: int,
        completed: int | None,
        created: int,
        fields: Record,
    ) -> Record:
        record: Record = {
            "_id": self._object_id(created),
            "message": message,
            "data": data,
            "startedAt": iso(started),
        }
        if completed is not None:
            record["completedAt"] = iso(completed)
        record["createdAt"] = iso(created)
        record.update(fields)
        for kind, share in self._traffic.odd.items():
            if self.rng.random() < share:
                record = copy.deepcopy(record)  # nested values are shared between records
                ODDITIES[kind](record, self.rng)
        return record

    def _on_grid(self, moment: int, end: int | None) -> int:
        grid = self._traffic.created_at_grid
        rounded = -(-moment // grid) * grid
        return rounded if end is None else min(rounded, max(end // grid * grid, 0))

    def _visible(self, created: int) -> int:
        if self.rng.random() >= self._traffic.late:
            return created
        seen = created + 1 + int(self.rng.random() * self._traffic.late_by * 1000)
        burst = round(self._traffic.late_burst * 1000)
        return -(-seen // burst) * burst if burst else seen

    def _object_id(self, moment: int) -> str:
        """An ObjectId: four bytes of seconds, five of the process, three of a counter."""
        self._counter = (self._counter + 1) & 0xFFFFFF
        return f"{moment // 1000 & 0xFFFFFFFF:08x}{self._process}{self._counter:06x}"


def _person(number: int, rng: random.Random) -> tuple[str, str]:
    """Full name and address; the number keeps addresses apart."""
    first, last = rng.choice(_FIRST), rng.choice(_LAST)
    return f"{first} {last}", f"{first}.{last}{number + 1}@example.com".lower()


def _old_id(rng: random.Random) -> str:
    """The ObjectId of something that was made in 2023 or 2024."""
    return f"{rng.randint(1_672_531_200, 1_735_689_599):08x}{rng.getrandbits(64):016x}"


def _nanoid(rng: random.Random) -> str:
    return base64.urlsafe_b64encode(rng.randbytes(16))[:21].decode()


def _call(at: int, record: Record) -> Step:
    """A Custom API block's request: these five headers, as the vendor documents them."""
    data = record.get("data")
    headers = {
        "X-Alloy-ExecutionUuid": data.get("executionUuid") if isinstance(data, dict) else None,
        "X-Alloy-WorkflowId": record.get("workflowId"),
        "X-Alloy-UserId": record.get("userId"),
        "X-Alloy-BlockName": "Custom API",
        "X-Alloy-BlockType": "customApi",
    }
    sent = {name: value for name, value in headers.items() if isinstance(value, str)}
    return Step(at, "call", {"headers": sent, "json": {"orderId": at % 100_000}})


# What a client may meet although the description does not promise it ------------------------------

_OPTIONAL = (
    *("startedAt", "completedAt", "customVersion", "workflowVersion", "teamId", "data"),
    *("forgeWorkflowId", "workflowId", "userId", "user", "forgeWorkflow"),
)


def _missing(record: Record, rng: random.Random) -> None:
    record.pop(rng.choice(_OPTIONAL), None)


def _null(record: Record, rng: random.Random) -> None:
    record[rng.choice(_OPTIONAL)] = None


def _no_uuid(record: Record, rng: random.Random) -> None:
    if isinstance(record.get("data"), dict):
        if rng.random() < 0.5:
            record["data"].pop("executionUuid", None)
        else:
            record["data"]["executionUuid"] = None


def _odd_uuid(record: Record, rng: random.Random) -> None:
    if isinstance(record.get("data"), dict):
        record["data"]["executionUuid"] = _nanoid(rng)[: rng.choice((1, 10, 16))]


def _bare(record: Record, rng: random.Random) -> None:
    """References that were not filled in: the id stands where the object should."""
    which = rng.choice(("user", "forgeWorkflow", "integrationId"))
    workflow = record.get("forgeWorkflow")
    if which == "user":
        record["user"] = record.get("userId")
    elif which == "forgeWorkflow":
        record["forgeWorkflow"] = record.get("forgeWorkflowId")
    elif isinstance(workflow, dict) and isinstance(workflow.get("integrationId"), dict):
        workflow["integrationId"] = workflow["integrationId"]["_id"]


def _timestamp(record: Record, rng: random.Random) -> None:
    """``createdAt`` stays readable: the server itself knows when it wrote the record."""
    key = rng.choice(("startedAt", "completedAt", "createdAt"))
    if not isinstance(text := record.get(key), str):
        return
    forms: list[object] = [
        text.replace("Z", "+00:00"),
        text.replace("Z", ""),
        text.replace("T", " "),
        text.replace("Z", "123Z"),
    ]
    if key != "createdAt":
        forms += [text[:10], "", "Invalid Date", "0001-01-01T00:00:00.000Z", 1_745_948_650_336, -1]
    record[key] = rng.choice(forms)


def _reversed(record: Record, rng: random.Random) -> None:
    if "startedAt" in record and "completedAt" in record:
        record["startedAt"], record["completedAt"] = record["completedAt"], record["startedAt"]


def _message(record: Record, rng: random.Random) -> None:
    record["message"] = rng.choice(("executionPaused", "execution error", "", None))


def _text(record: Record, rng: random.Random) -> None:
    """Text and numbers that are valid JSON and still hard to pass on."""
    name = rng.choice(
        ("\ud83d lone surrogate", "nul \x00 byte", "x" * 20_000, "überprüfen 注文 🚚")
    )
    if isinstance(record.get("forgeWorkflow"), dict):
        record["forgeWorkflow"]["name"] = name
    if rng.random() < 0.5:
        record["workflowVersion"] = 2**70


def _extra(record: Record, rng: random.Random) -> None:
    record["__v"] = 0
    record["tags"] = ["new", {"field": rng.randint(0, 9)}]


ODDITIES: Mapping[str, Callable[[Record, random.Random], None]] = {
    "missing": _missing,
    "null": _null,
    "no_uuid": _no_uuid,
    "odd_uuid": _odd_uuid,
    "bare": _bare,
    "timestamp": _timestamp,
    "reversed": _reversed,
    "message": _message,
    "text": _text,
    "extra": _extra,
}
"""Departures from the usual record, by the name used in ``Traffic.odd``; each changes in place."""
