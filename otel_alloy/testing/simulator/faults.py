"""Answers, and answers spoiled on purpose: what a network, a proxy or a tired server may send.

Pure: a fault is a value, its choice depends on seed and request number alone, and its effect is the
bytes to send. Sockets and waiting belong to ``server``.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

SPOILING = frozenset({"truncate", "chunk", "slow", "trickle"})
"""Faults that need the true answer; the others take its place."""
REPLACING = frozenset({"204", "drop", "html", "empty", "shape", "redirect", "challenge"})

_HTML = b"<!doctype html><html><body><h1>%d %s</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Fault:
    """One spoiled answer: ``kind`` and an ``argument`` whose meaning depends on it.

    ========== ==================================== ================================
    kind       the client sees                      argument
    ========== ==================================== ================================
    400 to 599 that status                          ``Retry-After``, as it is sent
    drop       the connection closed, no answer     -
    truncate   fewer bytes than ``Content-Length``  -
    chunk      a chunked body that breaks off       -
    html       200 with a page of HTML              -
    empty      200 with no body                     -
    shape      200, JSON of another shape           the body
    slow       the true answer, late                real seconds (default 1)
    trickle    the true answer, byte by byte        real seconds before each (default 1)
    204        that status, no body                 -
    redirect   302                                  ``Location``
    challenge  403 with a proxy's page of HTML      ``Retry-After``, as it is sent
    ========== ==================================== ================================
    """

    kind: str
    argument: str = ""

    def __post_init__(self) -> None:
        is_status = len(self.kind) == 3 and self.kind.isdecimal() and "400" <= self.kind <= "599"
        if not is_status and self.kind not in SPOILING | REPLACING:
            known = ", ".join(sorted(SPOILING | REPLACING))
            raise ValueError(f"unknown fault {self.kind!r}; use a status from 400 to 599, {known}")
        if "\r" in self.argument or "\n" in self.argument:
            raise ValueError("the argument of a fault must be one line")
        timed = self.kind in ("slow", "trickle") and self.argument
        if timed and not 0 <= float(self.argument) <= 3600:
            raise ValueError(f"a {self.kind} answer waits from 0 to 3600 seconds")

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Read ``KIND`` or ``KIND:ARGUMENT``, as ``429:2``. Raises ``ValueError``."""
        kind, _, argument = text.partition(":")
        return cls(kind, argument)

    @property
    def needs_answer(self) -> bool:
        """Whether the true answer is part of the spoiled one."""
        return self.kind in SPOILING

    @property
    def seconds(self) -> float:
        """How long the answer waits, in real seconds."""
        return float(self.argument or 1) if self.kind == "slow" else 0.0

    @property
    def pause(self) -> float:
        """How long the answer waits before each of its bytes, in real seconds."""
        return float(self.argument or 1) if self.kind == "trickle" else 0.0


class Answer(NamedTuple):
    """An HTTP answer: status, headers (without length and connection) and body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Wire(NamedTuple):
    """What goes over the socket: the status for the request log (0: none), the bytes, the end."""

    status: int
    data: bytes
    close: bool
    pause: float = 0.0
    """Real seconds before each byte."""


def choose(rates: Mapping[str, float], seed: int, number: int) -> Fault | None:
    """The fault of request ``number`` (from 1), or ``None``; the same for the same arguments."""
    if not rates:
        return None
    # A generator of its own per request: the choice must not depend on the order in which parallel
    # requests are served.
    drawn = random.Random(f"{seed}:{number}").random()
    for text, rate in rates.items():
        drawn -= rate
        if drawn < 0:
            return Fault.parse(text)
    return None


def wire(answer: Answer, fault: Fault | None = None) -> Wire:
    """The bytes of ``answer`` under ``fault``. A replacing fault keeps only the ``Date`` header."""
    if fault is None or fault.kind in ("slow", "trickle"):
        whole = _head(answer, len(answer.body)) + answer.body
        return Wire(answer.status, whole, False, fault.pause if fault else 0.0)
    if fault.kind == "drop":
        return Wire(0, b"", True)
    if fault.kind == "truncate":
        head = _head(answer, len(answer.body))
        return Wire(answer.status, head + answer.body[: len(answer.body) // 2], True)
    if fault.kind == "chunk":
        half = answer.body[: len(answer.body) // 2]
        # A size that promises more than follows, then the end: neither a client that trusts sizes
        # nor one that reads to the last chunk may take this for a whole answer.
        broken = b"%x\r\n%b\r\n%x\r\n" % (len(half), half, len(answer.body))
        return Wire(answer.status, _head(answer, None) + broken, True)
    replaced = _replacement(fault, {"Date": answer.headers.get("Date", "")})
    return Wire(replaced.status, _head(replaced, len(replaced.body)) + replaced.body, False)


def _replacement(fault: Fault, headers: dict[str, str]) -> Answer:
    html = headers | {"Content-Type": "text/html; charset=utf-8"}
    plain_json = headers | {"Content-Type": "application/json; charset=utf-8"}
    if fault.kind == "html":
        return Answer(200, html, _HTML % (200, b"Please sign in"))
    if fault.kind == "204":
        return Answer(204, headers, b"")
    if fault.kind == "empty":
        return Answer(200, plain_json, b"")
    if fault.kind == "shape":
        return Answer(200, plain_json, (fault.argument or '{"result":"ok"}').encode())
    if fault.kind == "redirect":
        return Answer(302, html | {"Location": fault.argument or "/login"}, b"")
    if fault.kind == "challenge":
        if fault.argument:
            html["Retry-After"] = fault.argument
        page = _HTML % (403, b"Checking your browser")
        return Answer(403, html | {"cf-mitigated": "challenge"}, page)
    status = int(fault.kind)
    if fault.argument:
        plain_json["Retry-After"] = html["Retry-After"] = fault.argument
    if status in (502, 504):  # a proxy speaks here, not the API
        return Answer(status, html, _HTML % (status, _reason(status).encode()))
    body = b"{}" if status == 400 else b'{"message":"%b"}' % _reason(status).encode()
    return Answer(status, plain_json, body)


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _head(answer: Answer, length: int | None) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [f"HTTP/1.1 {answer.status} {_reason(answer.status)}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    return "\r\n".join([*lines, framing, "\r\n"]).encode("latin-1", "replace")
