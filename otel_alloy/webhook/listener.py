"""The listener for Alloy's error POSTs (Settings → Logging in Alloy).

    POST /alloy/errors/SECRET                      the secret in the path, as Alloy can send it
    POST /alloy/errors, X-Webhook-Secret: SECRET   or in a header, also `Authorization: Bearer`

| answer | when |
|---|---|
| 204 | the report is kept, now or before: `keep` has returned |
| 400 | the body is no JSON, or names no execution; Alloy need not send it again |
| 401 | the secret is missing or wrong |
| 404, 405 | another path, another method |
| 413 | the body is above MOST_BYTES; it was read to its end, and nothing of it kept |
| 429 | more than RATE a second for a while, with Retry-After |
| 503 | `keep` failed: nothing is kept, the sender may repeat |

A report that arrives again is handed on again: who keeps them folds them. Neither the secret nor a
body nor an address of a client is ever logged. Who is allowed to reach the port is a reverse
proxy's business, and so is TLS.
"""

from __future__ import annotations

import hmac
import logging
import socket
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from typing import Any, cast

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from otel_alloy.alloy.models import Unreadable
from otel_alloy.log_throttle import LogThrottle
from otel_alloy.privacy import MessageChoice
from otel_alloy.runtime import Runtime, Task
from otel_alloy.webhook.connections import Connections
from otel_alloy.webhook.report import ErrorReport, read_report

PATH = "/alloy/errors"
MOST_BYTES = 1 << 20
"""Of one body."""
MOST_CONNECTIONS = 64
"""At once; one more breaks the oldest."""
DEADLINE = 30.0
"""Seconds that a connection may last."""
RATE = 50.0
"""Reports a second, in the long run."""
BURST = 1000.0
"""Reports at once: so many executions may fail together."""
SHUTDOWN = 5
"""Seconds for what is in flight at the end."""

_LOG = logging.getLogger(__name__)

Keep = Callable[[ErrorReport], bool]
"""Stores a report so that it survives a crash, and returns then; False where it is kept already.
Called in the listener's own thread, one report at a time. Raises where it could not; the sender is
told to come again."""


class ErrorListener:
    """Listens on `address` (`host:port`; port 0 is a free one) from its creation on, and answers
    between `start` and `stop`. `secret`: what senders have to show. `choice`: what becomes of
    messages. `answered`: is told what became of each POST, as `counts` names it; it must neither
    block nor raise. Raises OSError where it cannot listen there, ValueError for an empty secret."""

    def __init__(
        self,
        address: str,
        secret: str,
        keep: Keep,
        runtime: Runtime,
        answered: Callable[[str], None] = lambda outcome: None,
        *,
        choice: MessageChoice = "mask",
        rate: float = RATE,
        burst: float = BURST,
        most_connections: int = MOST_CONNECTIONS,
        deadline: float = DEADLINE,
    ) -> None:
        if not secret:
            raise ValueError("the webhook's secret is empty")
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._secret = _digest(secret.encode())
        self._keep = keep
        self._answered = answered
        self._choice: MessageChoice = choice
        self._runtime = runtime
        self._rate = _Rate(rate, burst, runtime.monotonic)
        self._throttle = LogThrottle(runtime.monotonic)
        self._counts: Counter[str] = Counter()
        self._task: Task | None = None
        self._socket = socket.create_server((host, int(port)), family=family, backlog=128)
        own = f"[{host}]" if ":" in host else host
        self.address = f"{own}:{self._socket.getsockname()[1]}"
        """`host:port`, as it is."""
        self.url = f"http://{self.address}{PATH}"
        """Where reports go; for senders without headers, `/` and the secret follow."""
        routes = [
            Route(PATH, self._answer, methods=["POST"]),
            Route(PATH + "/{secret:path}", self._answer, methods=["POST"]),
        ]
        self._server = Server(
            Config(
                Router(routes, redirect_slashes=False),
                loop="asyncio",
                http=cast(Any, Connections(most_connections, deadline).guarded(H11Protocol)),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,  # it would log paths, which hold the secret
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=SHUTDOWN,
                h11_max_incomplete_event_size=16_384,
            )
        )

    def start(self) -> ErrorListener:
        """Answers from a thread of its own."""
        self._task = self._runtime.spawn(self._run, "webhook")
        return self

    def stop(self) -> None:
        """Answers what is in flight, at most SHUTDOWN seconds long, and listens no more."""
        self._server.should_exit = True
        if self._task is not None:
            self._task.join()
            self._task = None
        self._socket.close()

    def is_alive(self) -> bool:
        """Whether reports are answered."""
        return self._task is not None and self._task.is_alive()

    def counts(self) -> dict[str, int]:
        """How many POSTs came to what, since the start: `kept`, `known` (kept before), `failed`,
        `unreadable`, `refused` (without the secret), `too_large`, `limited`."""
        return dict(self._counts)

    def __enter__(self) -> ErrorListener:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])

    async def _answer(self, request: Request) -> Response:
        if not self._is_authentic(request):
            return self._refuse(
                401,
                "refused",
                "wrong or missing secret",
                "compare the URL in Alloy's Settings → Logging with the webhook's secret",
            )
        if wait := self._rate.take():
            answer = self._refuse(429, "limited", "too many reports", "")
            answer.headers["Retry-After"] = str(int(wait) + 1)
            return answer
        try:
            body = await _body(request)
        except ClientDisconnect:
            return PlainTextResponse("cut off", 400)
        if body is None:
            return self._refuse(413, "too_large", f"more than {MOST_BYTES} bytes", "")
        try:
            report = read_report(request.headers, body, self._choice)
        except Unreadable as error:
            return self._refuse(400, "unreadable", str(error), "")
        try:
            new = self._keep(report)
        except Exception as error:
            kind = type(error).__name__
            return self._refuse(503, "failed", "not kept, come again", f"storing raised {kind}")
        self._count("kept" if new else "known")
        return Response(status_code=204)

    def _is_authentic(self, request: Request) -> bool:
        """All that was shown is compared, in a time that tells nothing of the secret."""
        headers = request.headers
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        shown = [
            request.path_params.get("secret", "").encode("utf-8", "replace"),
            headers.get("X-Webhook-Secret", "").encode("latin-1"),
            token.strip().encode("latin-1") if scheme.lower() == "bearer" else b"",
        ]
        return any([hmac.compare_digest(_digest(word), self._secret) for word in shown])

    def _count(self, outcome: str) -> None:
        self._counts[outcome] += 1
        self._answered(outcome)

    def _refuse(self, status: int, count: str, words: str, remedy: str) -> Response:
        self._count(count)
        more = self._throttle.admit(count)
        if more is not None:
            said = f"{words}; {remedy}" if remedy else words
            _LOG.warning("error webhook: answered %d: %s%s", status, said, more)
        # The connection ends: what is left of a body is not read.
        return PlainTextResponse(words, status, headers={"Connection": "close"})


class _Rate:
    """A token bucket: `rate` a second, `burst` at once."""

    def __init__(self, rate: float, burst: float, monotonic: Callable[[], float]) -> None:
        self._rate, self._burst = rate, burst
        self._tokens = burst
        self._monotonic = monotonic
        self._at = monotonic()

    def take(self) -> float:
        """Takes one where there is one: 0. Else in how many seconds there will be."""
        now = self._monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0.0


async def _body(request: Request) -> bytes | None:
    """The body, None where it is above MOST_BYTES. Raises ClientDisconnect."""
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size <= MOST_BYTES:
            pieces.append(piece)
        else:
            pieces.clear()  # read on: a sender that still sends would not see the answer
    return b"".join(pieces) if size <= MOST_BYTES else None


def _digest(word: bytes) -> bytes:
    """Of one length for all, so that a comparison does not tell that of the secret."""
    return sha256(word).digest()
