"""The simulated API on a socket: HTTP/1.1 with kept connections, keys, faults, the request log.

What is answered is decided by ``store`` and spoiled by ``faults``; only what needs a socket, a
thread or real time is here.
"""

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.message import Message
from email.utils import formatdate
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from otel_alloy.http_server import Handler, Server
from otel_alloy.testing.simulator.config import Config
from otel_alloy.testing.simulator.faults import Answer, Fault, Wire, choose, wire
from otel_alloy.testing.simulator.operations import PREFIX
from otel_alloy.testing.simulator.operations import answer as answer_inside
from otel_alloy.testing.simulator.records import Record
from otel_alloy.testing.simulator.store import LogStore

_PATH = "/logs"
_CALL_TIMEOUT = 5.0
"""Seconds the customer's service may take to answer."""
_LARGEST_BODY = 1 << 20
"""Bytes of an unwanted request body that are read to keep the connection usable."""
_TICK = 0.05
"""Seconds between looks for due calls, and before a report is posted again for the first time."""


class Request(NamedTuple):
    """One request as the simulator saw it. It never holds a key."""

    number: int
    """From 1, in order of arrival."""
    time: float
    """Seconds since the epoch by the simulator's clock."""
    method: str
    path: str
    params: dict[str, str]
    api_version: str | None
    status: int
    """As sent; 0 when the connection was dropped before any answer."""
    fault: str | None
    """The kind of the fault, if one was applied."""


class Report(NamedTuple):
    """One posting of the error webhook."""

    uuid: str | None
    status: int
    """Of the answer; 0 where there was none."""


class Simulator:
    """A running stand-in of the Logs API on loopback. A context manager; or use ``start`` and
    ``stop``.

    ``clock`` gives seconds since the epoch; live records, ``lastFetched`` and ``Date`` follow it.
    ``port`` 0 takes a free one, which later starts keep. Raises ``OSError`` from ``start`` when the
    port is taken.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        clock: Callable[[], float] = time.time,
        port: int = 0,
    ) -> None:
        self.config = config or Config()
        self.clock = clock
        self.store = LogStore(self.config, clock=clock)
        self.requests: deque[Request] = deque(maxlen=self.config.request_log)
        self.reports: deque[Report] = deque(maxlen=self.config.request_log)
        """What the error webhook posted, each time that it did."""
        self._port = port
        self._lock = threading.Lock()
        self._number = 0
        self._script: deque[Fault | None] = deque()
        self._server: Server[Simulator] | None = None
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    @property
    def endpoint(self) -> str:
        """The base URL, to which a client appends ``/logs``; known after the first ``start``."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> "Simulator":
        """Serve from background threads until ``stop``."""
        if self._server is not None:
            raise RuntimeError("the simulator is already running")
        self._stopping.clear()
        self._server = Server(("127.0.0.1", self._port), _Handler, self)
        self._port = self._server.port
        self._threads = [self._server.start("alloy-simulator")]
        if self.config.custom_api_url is not None or self.config.error_webhook_url is not None:
            calls = threading.Thread(target=self._call_customer, name="alloy-calls", daemon=True)
            calls.start()
            self._threads.append(calls)
        return self

    def stop(self) -> None:
        """Stop serving and break open connections; waiting answers are given up."""
        if self._server is None:
            return
        self._stopping.set()
        self._server.stop()
        for thread in self._threads:
            thread.join()
        self._server = None

    def __enter__(self) -> "Simulator":
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def configure(self, **changes: Any) -> None:
        """Change knobs of ``Config`` by name, from the next request on."""
        self.config = self.store.config = replace(self.config, **changes)

    def script(self, *faults: Fault | str | None) -> None:
        """Decide the fate of the next requests, one each; ``None`` is a good answer.

        Texts are read by ``Fault.parse``. Goes before ``Config.fault_rate``, which rules again when
        the script is used up.
        """
        parsed = [Fault.parse(item) if isinstance(item, str) else item for item in faults]
        with self._lock:
            self._script.extend(parsed)

    def respond(self, method: str, target: str, headers: Message) -> tuple[Wire, float, Request]:
        """Decide one request: what to send, real seconds to wait before, the line for the log.

        Needs no socket: ``headers`` are a ``Message`` because that ignores case, as HTTP does.
        """
        path, _, text = target.partition("?")
        with self._lock:
            self._number += 1
            number, now, config = self._number, self.clock(), self.config
            if self._script:
                fault = self._script.popleft()
            elif config.outage is not None:
                fault = Fault.parse(config.outage)
            else:
                inside = path.startswith(PREFIX)
                rates = config.inside_faults if inside else config.fault_rate
                fault = choose(rates, config.seed, number)
        params = dict(parse_qsl(text, keep_blank_values=True))
        if fault is not None and not fault.needs_answer:
            answer = _message(
                self._told(now), 200, ""
            )  # the fault takes its place, but for the date
        else:
            answer = self._answer(method, path, params, headers, now)
        sent = wire(answer, fault)
        entry = Request(
            number=number,
            time=now,
            method=method,
            path=path,
            params=params,
            api_version=headers.get("x-api-version"),
            status=sent.status,
            fault=fault.kind if fault else None,
        )
        self.requests.append(entry)
        return sent, config.delay + (fault.seconds if fault else 0.0), entry

    def _answer(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        headers: Message,
        now: float,
    ) -> Answer:
        config, told = self.config, self._told(now)
        inside = path.startswith(PREFIX)
        if path != _PATH and not inside:
            return _message(told, 404, "Not Found")
        if method != "GET":
            return _message(told, 405, "Method Not Allowed", Allow="GET")
        if not _authorized(headers.get("Authorization"), config.api_key):
            return _message(told, 401, "Unauthorized")
        if config.forbidden:
            return _message(told, 403, "Forbidden")
        if inside:
            return answer_inside(self.store, path, params, headers, told)
        return self.store.query(params)

    def _told(self, now: float) -> float:
        """What the header ``Date`` says at that time."""
        return now + self.config.clock_offset + self.config.date_offset

    def _call_customer(self) -> None:
        """Make the requests of running executions to the customer's service as they fall due."""
        with ThreadPoolExecutor(max_workers=8, thread_name_prefix="alloy-custom-api") as pool:
            while not self._stopping.wait(_TICK):
                self.store.advance()
                while self.store.calls:
                    # Alloy would record the failure of a block; the simulator's records are
                    # written beforehand.
                    pool.submit(_post, self.config.custom_api_url, self.store.calls.popleft())
                while self.store.reports:
                    pool.submit(self._post_report, self.store.reports.popleft())

    def _post_report(self, report: Record) -> None:
        """Posts a report until it is taken, or has been posted often enough."""
        config = self.config
        report = {**report, "headers": {**config.error_webhook_headers, **report["headers"]}}
        for again in range(config.error_webhook_retries + 1):
            status = _post(config.error_webhook_url, report)
            self.reports.append(Report(report["headers"].get("X-Alloy-ExecutionUuid"), status))
            if 200 <= status < 300 or self._stopping.wait(_TICK * 2**again):
                return


def _post(url: str | None, call: Record) -> int:
    """Posts JSON; the status of the answer, 0 where there is none."""
    if url is None:
        return 0
    request = urllib.request.Request(
        url,
        data=json.dumps(call["json"]).encode(),
        headers={"Content-Type": "application/json", **call["headers"]},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=_CALL_TIMEOUT) as got:
            got.read()
            return int(got.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except (OSError, http.client.HTTPException):
        return 0


def _authorized(header: str | None, key: str | None) -> bool:
    """The vendor's pages and clients write both ``bearer KEY`` and ``Bearer KEY``."""
    scheme, _, given = (header or "").partition(" ")
    if scheme not in ("bearer", "Bearer") or not given or " " in given:
        return False
    return key is None or given == key


def _message(now: float, status: int, text: str, **headers: str) -> Answer:
    common = {
        "Date": formatdate(now, usegmt=True),
        "Content-Type": "application/json; charset=utf-8",
    }
    return Answer(status, common | headers, json.dumps({"message": text}).encode())


class _Handler(Handler):
    server: "Server[Simulator]"
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _respond(self) -> None:
        sent, seconds, _ = self.server.owner.respond(self.command, self.path, self.headers)
        if seconds and self.server.owner._stopping.wait(seconds):
            self.close_connection = True
            return
        data = sent.data
        if self.command == "HEAD":
            data = data[: data.index(b"\r\n\r\n") + 4] if data else data
        length = self.headers.get("Content-Length", "0")
        if length.isdecimal() and "Transfer-Encoding" not in self.headers:
            # No operation here takes a body, but unread it would be taken for the next request.
            self.rfile.read(min(int(length), _LARGEST_BODY))
        else:
            self.close_connection = True
        if sent.close:
            self.close_connection = True
        if not sent.pause:
            self.wfile.write(data)
        for byte in data if sent.pause else b"":
            if self.server.owner._stopping.wait(sent.pause):
                self.close_connection = True
                return
            self.wfile.write(bytes([byte]))

    def __getattr__(self, name: str) -> Any:
        # The base class looks for do_<METHOD>; here every method gets its answer, if only a 405.
        if name.startswith("do_"):
            return self._respond
        raise AttributeError(name)
