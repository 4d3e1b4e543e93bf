"""The simulator's knobs: one per question that the vendor's descriptions leave open.

Only values and their bounds live here, no behaviour. The defaults are what the vendor's OpenAPI
description says where it speaks, and the most plausible behaviour otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from otel_alloy.testing.simulator.faults import Fault
from otel_alloy.testing.simulator.inside import BlockIds, BlockNames, ErrorShape, FailedBlock

ODD_PAGES = ("empty", "short", "repeated")
"""No record; the first half of them; those of the answer before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How the simulated API behaves. Raises ``ValueError`` for a value out of bounds."""

    api_key: str | None = None
    """The key that is accepted; ``None`` accepts any. All others are answered 401."""
    forbidden: bool = False
    """Answer 403 to every request with an accepted key."""
    outage: str | None = None
    """What every request gets instead of its answer, as ``Fault.parse`` reads it: ``"401"``;
    ``None`` ends it."""
    clock_offset: float = 0.0
    """Seconds by which ``Date`` and ``lastFetched`` are ahead of the clock that records follow."""
    date_offset: float = 0.0
    """The same, on top, for ``Date`` alone."""
    min_limit: int = 1
    """A smaller ``limit`` gets 400."""
    refuse_filters: bool = False
    """Answer 400 to every request with ``filters``."""
    max_limit: int | None = None
    """The largest page, in records; ``None`` for no bound."""
    over_limit: Literal["clamp", "refuse"] = "clamp"
    """What a ``limit`` above ``max_limit`` gets: a smaller page, or 400."""
    page_size: Literal["asked", "given"] = "given"
    """What ``pagination.pageSize`` reports when ``limit`` was clamped."""
    skip_past_end: Literal["empty", "refuse"] = "empty"
    """What a ``skip`` beyond the last record gets: an empty page, or 400."""
    created_at_filter: Literal["date", "ignored", "nothing"] = "date"
    """``createdAt`` filters compare as dates, are ignored, or match no record."""
    ignore_filters: bool = False
    """Ignore the whole ``filters`` parameter (it is still checked)."""
    ignore_sort_order: bool = False
    """Always answer in descending order."""
    ties: Literal["stable", "shuffled"] = "stable"
    """Equal ``createdAt``: the same order in every answer, or a new one in each."""
    ignore_skip: bool = False
    """Answer every request as if its ``skip`` were 0."""
    total_items: Literal["filtered", "all", "page", "huge", "negative", "text", "missing"] = (
        "filtered"
    )
    """What ``pagination.totalItems`` counts: what matches the filters, the whole log, or the page;
    or nonsense: always the same huge number, -1, a word, nothing at all."""
    odd_pages: Mapping[str, float] = field(default_factory=dict)
    """Share of answers that are right in everything but their records, by kind as in ``ODD_PAGES``:
    ``{"empty": 0.05}``."""
    hidden: tuple[int, int] | None = None
    """Records with a ``createdAt`` from here (ms) to before there are counted and never given: a
    page ends where it comes to one."""
    current_page: Literal["floor", "fraction", "constant"] = "floor"
    """``currentPage`` is ``skip // limit + 1``, ``skip / limit + 1``, or always 1."""
    envelope: bool = False
    """Wrap the answer in ``{"data": ...}`` as most of the vendor's other operations do."""
    retention: float | None = None
    """Age in seconds at which records disappear; ``None`` keeps them."""
    delay: float = 0.0
    """Real seconds every answer waits."""
    fault_rate: Mapping[str, float] = field(default_factory=dict)
    """Share of requests spoiled, by fault as ``Fault.parse`` reads it: ``{"429:2": 0.05}``."""
    seed: int = 1
    """Decides which requests are spoiled and how ``ties="shuffled"`` shuffles."""
    request_log: int = 10_000
    """How many requests ``Simulator.requests`` remembers."""
    custom_api_url: str | None = None
    """Where executions of ``live(..., calls=True)`` call the customer's service."""

    # What is inside an execution: /workflows/{workflowId}, its /logs and its /errors
    block_ids: BlockIds = "connectorId"
    """How a step names its block: as in newer answers, or in older ones."""
    block_names: BlockNames = "blocks"
    """How a workflow lists its blocks."""
    error_shape: ErrorShape = "current"
    """The current entries of ``/errors``, or those of 2021 (with block and execution)."""
    failed_block: FailedBlock = "status"
    """How the step that failed shows: an ``error``, only its app's status, or not at all."""
    inside_late: float = 0.0
    """Seconds after its end until steps and errors of an execution can be seen."""
    inside_faults: Mapping[str, float] = field(default_factory=dict)
    """As ``fault_rate``, which does not rule here: ``{"404": 0.1, 'shape:{"data":[]}': 0.1}``."""
    steps_without_uuid: float = 0.0
    """Share of executions whose steps do not say whose they are."""
    payload_bytes: int = 0
    """About so much is given out by each block."""

    # The error webhook (Settings -> Logging)
    error_webhook_url: str | None = None
    """Where each failure that becomes visible is posted; ``None`` posts nothing."""
    error_webhook_headers: Mapping[str, str] = field(default_factory=dict)
    """Sent besides Alloy's own."""
    error_webhook_late: float = 0.0
    """Seconds of the simulator's clock after the record."""
    error_webhook_lost: float = 0.0
    """Share that is never posted."""
    error_webhook_twice: float = 0.0
    """Share that is posted twice."""
    error_webhook_retries: int = 3
    """How often one is posted again that was not answered with 2xx."""

    def __post_init__(self) -> None:
        for name in ("max_limit", "min_limit", "request_log"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if self.delay < 0:
            raise ValueError(f"delay must not be negative, not {self.delay}")
        if self.outage is not None:
            Fault.parse(self.outage)
        for rates in (self.fault_rate, self.inside_faults):
            for text, rate in rates.items():
                Fault.parse(text)
                if not 0 <= rate <= 1:
                    raise ValueError(f"the rate of fault {text!r} must be from 0 to 1, not {rate}")
            if sum(rates.values()) > 1 + 1e-9:
                raise ValueError("the rates of all faults together must not exceed 1")
        for name in ("steps_without_uuid", "error_webhook_lost", "error_webhook_twice"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1")
        for name in (
            "inside_late",
            "payload_bytes",
            "error_webhook_late",
            "error_webhook_retries",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        for kind, rate in self.odd_pages.items():
            if kind not in ODD_PAGES or not 0 <= rate <= 1:
                raise ValueError(f"odd_pages has a rate from 0 to 1 for each of {ODD_PAGES}")
