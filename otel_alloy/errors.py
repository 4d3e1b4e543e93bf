"""The exceptions of otel-alloy, named by what to do next.

    AlloyReceiverError
    ├── Stop                     give up: a person has to change something
    │   ├── ConfigurationError   settings are wrong (exit code 2)
    │   ├── AccessRefused        Alloy refuses the key (exit code 3)
    │   └── CheckpointError      the checkpoint cannot be read, locked or matched
    │       └── CheckpointAhead  it lies in the future
    ├── Retry                    the same call may succeed later; nothing is lost meanwhile
    │   ├── Throttled            Alloy answers 429
    │   ├── Unavailable          broken connection, timeout, 5xx, an answer that is no answer
    │   │   └── Challenged       something before Alloy refuses, not Alloy
    │   └── CheckpointUnwritable disk full or read-only: nothing is lost, it goes on afterwards
    ├── LeaseLost                another replica may work at it now: this one begins anew, if at all
    ├── RequestRefused           Alloy answers 400/422: the request itself has to change
    │   └── TooLarge             its answer is above a limit: ask for less, and never give up
    └── Unreachable              Alloy counts records that it does not give
    ShutdownRequested            no error: the process is to end
    └── Unsettled                the same, while a batch was on its way
    WrongParts                   of the settings: what is wrong in a value with parts, and where

Every message names the thing, the place and the remedy. No message holds a secret, a request
header or a response body. Nothing but exception classes may live here.
"""

from __future__ import annotations


class AlloyReceiverError(Exception):
    """Base of every error that otel-alloy raises on purpose.

    `problem`: what is wrong, and where. `remedy`: what to do, empty where that goes without
    saying. `status`: of Alloy's HTTP answer, where that is the reason.
    """

    status: int | None = None

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}" if self.remedy else self.problem


class Stop(AlloyReceiverError):
    """Going on is pointless until a person changes something."""


class ConfigurationError(Stop):
    """Settings are wrong; `mistakes` lists all of them, each with its remedy."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.args = (mistakes,)  # what unpickling calls it with
        self.mistakes = mistakes


class WrongParts(ValueError):
    """A value that has parts is wrong; `parts`: where in it each mistake is (names and places in
    lists, from the outside), and in words."""

    def __init__(self, parts: list[tuple[tuple[str | int, ...], str]]) -> None:
        super().__init__(parts)
        self.parts = parts

    def __str__(self) -> str:
        return "; ".join(words for _, words in self.parts)


class AccessRefused(Stop):
    """Alloy answered 401 or 403: the key is wrong, revoked, or lacks access."""


class CheckpointError(Stop):
    """The checkpoint is unreadable, in use by another process, or belongs to another query."""


class CheckpointAhead(CheckpointError):
    """The checkpoint lies in the future of every clock: what it would pass cannot be told."""


class Retry(AlloyReceiverError):
    """The same request may succeed later. `after`: seconds Alloy asked to wait, if it did.
    `refusal`: it was answered, but not with what was asked for; that is said at once, and asked
    again slowly."""

    def __init__(
        self, problem: str, remedy: str = "", *, after: float | None = None, refusal: bool = False
    ) -> None:
        super().__init__(problem, remedy)
        self.after = after
        self.refusal = refusal


class Throttled(Retry):
    """Alloy answered 429."""


class Unavailable(Retry):
    """No usable answer: network fault, timeout, 5xx, truncated, not JSON, not the documented
    shape."""


class Challenged(Unavailable):
    """A refusal that is not Alloy's and not about the key: a proxy's challenge or page, or one that
    says itself when to come back."""


class CheckpointUnwritable(Retry):
    """The checkpoint cannot be written at the moment."""


class LeaseLost(AlloyReceiverError):
    """This process no longer holds a unit of work, so nothing of it was written: what goes on with
    it is somebody else's, or begins anew. `unit`: which one."""

    def __init__(self, unit: str) -> None:
        super().__init__(f"the lease on {unit} is lost: another replica works at it, or may soon")
        self.args = (unit,)  # what unpickling calls it with
        self.unit = unit


class RequestRefused(AlloyReceiverError):
    """Alloy answered 400 or 422 to our request; sending it again unchanged is pointless."""


class TooLarge(RequestRefused):
    """Alloy's answer is above one of our limits, which the message names. A smaller page may help;
    where none does, the same request may still succeed later."""


class Unreachable(AlloyReceiverError):
    """Alloy says that it has records which no request brings. What was read is settled, and nothing
    after `moment`; the next reading tries again.

    `count`: how many, None where that cannot be told. `moment`: createdAt (Unix ms) from which on
    they lie. `where`: the same in words.
    """

    def __init__(self, count: int | None, moment: int, where: str) -> None:
        some = "records (how many cannot be told)" if count is None else f"{count} records"
        super().__init__(
            f"Alloy has {some} {where} that no request brings",
            "the checkpoint does not pass them, and every cycle tries again; if it goes on, show "
            "this to Alloy's support",
        )
        self.args = (count, moment, where)  # what unpickling calls it with
        self.count = count
        self.moment = moment


class ShutdownRequested(Exception):
    """A wait was cut short because the process is to end; what was not settled stays unsettled."""


class Unsettled(ShutdownRequested):
    """The same, while a batch was on its way: the next start sends it again."""
