"""The listener for Alloy's error POSTs, over real sockets: what is kept, what is refused, and what
nobody ever sees."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("uvicorn", reason="the extra `webhook` is not installed")

from otel_alloy.alloy.timestamps import to_ns
from otel_alloy.privacy import masked
from otel_alloy.runtime import system_runtime
from otel_alloy.testing.simulator import (
    REASON_CANARY,
    Config,
    Simulator,
    Traffic,
    failure_of,
    generate,
    uuid_of,
)
from otel_alloy.webhook.listener import MOST_BYTES, PATH, ErrorListener
from otel_alloy.webhook.report import ErrorReport

SECRET = "s3cret-Schlüssel"
AUTHENTIC = {"X-Webhook-Secret": SECRET.encode().decode("latin-1")}
HEADERS = {
    "X-Alloy-WorkflowId": "67ef01ed8eaeb50b18e646ea",
    "X-Alloy-UserId": "67a21c7d10e1dee8d5ec3a3d",
    "X-Alloy-BlockName": "Aufträge".encode().decode("latin-1"),
    "X-Alloy-BlockType": "alloy.shopify",
    "X-Alloy-ExecutionUuid": "35SnGU0DUSNP5L26fsmnq",
}
POSTED = {
    "_id": "6155b192a13d750013322432",
    "workflowId": "67ef01ed8eaeb50b18e646ea",
    "executionId": "68110fea7d181f356acd1bf1",
    "blockId": "edb4e8e8-1e0e-4fac-84fd-9f9d4855ce93",
    "blockType": "alloy.shopify",
    "error": "Error: 422, ada@example.com is taken",
    "createdAt": "2025-04-29T17:44:10.432Z",
    "updatedAt": "2025-04-29T17:44:10.432Z",
    "__v": 0,
}
KEPT = ErrorReport(
    uuid="35SnGU0DUSNP5L26fsmnq",
    execution="68110fea7d181f356acd1bf1",
    workflow="67ef01ed8eaeb50b18e646ea",
    user="67a21c7d10e1dee8d5ec3a3d",
    block="edb4e8e8-1e0e-4fac-84fd-9f9d4855ce93",
    block_name="Aufträge",
    type="alloy.shopify",
    message="Error: 422, *** is taken",
    at=to_ns("2025-04-29T17:44:10.432Z"),
    id="6155b192a13d750013322432",
)


class Kept(list[ErrorReport]):
    """Keeps reports, or fails where it is told to."""

    error: Exception | None = None

    def __call__(self, report: ErrorReport) -> bool:
        if self.error is not None:
            raise self.error
        self.append(report)
        return True


@contextmanager
def listening(keep: Any, **limits: Any) -> Iterator[ErrorListener]:
    with ErrorListener("127.0.0.1:0", SECRET, keep, system_runtime(), **limits) as listener:
        yield listener
    assert not listener.is_alive()


def connect(listener: ErrorListener) -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection(urlsplit(listener.url).netloc, timeout=60))


def post(
    listener: ErrorListener,
    body: Any = POSTED,
    *,
    path: str = PATH,
    method: str = "POST",
    **headers: str,
) -> tuple[int, str]:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    with connect(listener) as connection:
        connection.request(method, path, sent, headers or HEADERS | AUTHENTIC)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_what_is_posted_is_kept_before_it_is_answered() -> None:
    """All that the vendor sends is in the report, its message masked; what it does not send is
    None. The answer comes after `keep` returned, and the connection can be used again."""
    kept = Kept()
    with listening(kept) as listener, connect(listener) as connection:
        for body in (POSTED, {"data": POSTED}, {}, {"error": {"message": "no"}}):
            before = len(kept)
            connection.request("POST", PATH, json.dumps(body).encode(), HEADERS | AUTHENTIC)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (204, b"")
            assert len(kept) == before + 1
        assert listener.counts() == {"kept": 4}
    assert kept[:2] == [KEPT, KEPT]
    empty = kept[2]
    assert (empty.uuid, empty.type) == (KEPT.uuid, KEPT.type)
    assert {empty.message, empty.at, empty.block, empty.id, empty.execution} == {None}
    assert kept[3].message == "no"


@pytest.mark.parametrize(("choice", "message"), [("keep", POSTED["error"]), ("drop", None)])
def test_the_message_is_as_the_choice_wants_it(choice: Any, message: str | None) -> None:
    """Kept as it is, or not at all."""
    kept = Kept()
    with listening(kept, choice=choice) as listener:
        assert post(listener)[0] == 204
    assert kept[0].message == message


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (f"{PATH}/s3cret-Schl%C3%BCssel", {}, 204),
        (PATH, AUTHENTIC, 204),
        (PATH, {"Authorization": f"Bearer {AUTHENTIC['X-Webhook-Secret']}"}, 204),
        (PATH, {"Authorization": f"Basic {AUTHENTIC['X-Webhook-Secret']}"}, 401),
        (PATH, {}, 401),
        (f"{PATH}/", {}, 401),
        (f"{PATH}/s3cret-Schl%C3%BCsse", {}, 401),
        (f"{PATH}/s3cret-Schl%C3%BCssel/", {}, 401),
        (f"{PATH}/s3cret", {"X-Webhook-Secret": "s3cret"}, 401),
        ("/", AUTHENTIC, 404),
        ("/alloy/errorsx", AUTHENTIC, 404),
    ],
)
def test_only_who_has_the_secret_is_heard(
    path: str, headers: dict[str, str], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """In the path or in a header; nothing else opens it, and no log line holds it."""
    kept = Kept()
    with caplog.at_level(logging.DEBUG), listening(kept) as listener:
        assert post(listener, path=path, **HEADERS | headers)[0] == status
    assert len(kept) == (status == 204)
    assert "s3cret" not in caplog.text and "ada@" not in caplog.text


def test_other_methods_are_refused() -> None:
    """405, which says what is taken."""
    with listening(Kept()) as listener:
        for method in ("GET", "PUT", "DELETE", "HEAD"):
            assert post(listener, method=method)[0] == 405


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'"x"',
        b'{"error":',
        b"\xff\xfe",
        b"<html>",
        b"[" * 5000,
        b'{"a":' * 5000,
    ],
)
def test_nonsense_is_told_from_failure(body: bytes) -> None:
    """What cannot be read is answered 400 and counted, and nothing is kept."""
    kept = Kept()
    with listening(kept) as listener:
        status, words = post(listener, body)
        assert (status, listener.counts()) == (400, {"unreadable": 1})
        assert len(words) < 100
        assert post(listener, {"error": "x"}, **AUTHENTIC) == (
            400,
            "it names no execution, in no header and not in its body",
        )
    assert not kept


def test_a_body_above_the_limit_is_refused() -> None:
    """413 in both ways of saying how long it is; the largest that is allowed is kept."""
    kept = Kept()
    large = json.dumps(POSTED).encode().ljust(MOST_BYTES)
    with listening(kept) as listener:
        assert post(listener, large)[0] == 204
        assert post(listener, large + b" ")[0] == 413
        assert post(listener, large * 3)[0] == 413
        with connect(listener) as connection:
            connection.request("POST", PATH, iter([large, b" "]), HEADERS | AUTHENTIC)
            assert connection.getresponse().status == 413
        assert listener.counts() == {"kept": 1, "too_large": 3}


def test_what_could_not_be_kept_is_not_acknowledged(caplog: pytest.LogCaptureFixture) -> None:
    """503 while the store fails, of whatever kind; it is taken when it comes again. The log says so
    once, without what the store said."""
    kept = Kept()
    with listening(kept) as listener:
        for error in (OSError("disk full of ada@example.com"), RuntimeError("x"), SystemError("y")):
            kept.error = error
            assert post(listener) == (503, "not kept, come again")
        kept.error = None
        assert post(listener)[0] == 204
        assert listener.counts() == {"failed": 3, "kept": 1}
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("otel")]
    assert lines == ["error webhook: answered 503: not kept, come again; storing raised OSError"]


def test_more_than_the_rate_has_to_wait() -> None:
    """A burst is taken, what exceeds it is told when to come again; those without the secret use
    nothing up."""
    kept = Kept()
    with listening(kept, rate=0.001, burst=3) as listener:
        for _ in range(5):
            assert post(listener, **HEADERS)[0] == 401
        assert [post(listener)[0] for _ in range(5)] == [204, 204, 204, 429, 429]
        with connect(listener) as connection:
            connection.request("POST", PATH, b"{}", HEADERS | AUTHENTIC)
            answer = connection.getresponse()
            assert 0 < int(answer.headers["Retry-After"]) <= 1001
    assert len(kept) == 3


def test_slow_clients_keep_nobody_out() -> None:
    """Connections that say nothing, or not all of it, are broken: the oldest where there are too
    many, each at its deadline."""
    kept = Kept()
    begun = b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n"
    with listening(kept, most_connections=4, deadline=3600.0) as listener:
        host, port = urlsplit(listener.url).netloc.split(":")
        idle = [socket.create_connection((host, int(port)), timeout=60) for _ in range(12)]
        try:
            for client in idle[::2]:
                client.sendall(begun)
            assert post(listener)[0] == 204
            for client in idle[:8]:
                assert _is_broken(client)
        finally:
            for client in idle:
                client.close()
    with listening(kept, deadline=0.2) as listener:
        host, port = urlsplit(listener.url).netloc.split(":")
        with socket.create_connection((host, int(port)), timeout=60) as client:
            client.sendall(begun + b"X-Webhook-Secret: " + SECRET.encode() + b"\r\n\r\n{")
            assert _is_broken(client)


def _is_broken(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def test_what_is_in_flight_at_the_end_is_answered() -> None:
    """`stop` waits for a report that is being kept; afterwards nobody listens there."""
    begun, go_on = threading.Event(), threading.Event()
    kept: list[ErrorReport] = []

    def keep(report: ErrorReport) -> bool:
        begun.set()
        assert go_on.wait(60)
        kept.append(report)
        return True

    answers: list[int] = []
    with listening(keep) as listener:
        sender = threading.Thread(target=lambda: answers.append(post(listener)[0]))
        sender.start()
        assert begun.wait(60)
        ending = threading.Thread(target=listener.stop)
        ending.start()
        go_on.set()
        ending.join()
        sender.join()
        host, port = urlsplit(listener.url).netloc.split(":")
        with pytest.raises(ConnectionError):
            socket.create_connection((host, int(port)), timeout=60)
    assert answers == [204]
    assert kept == [KEPT]


def test_addresses() -> None:
    """A taken port is an OSError from the beginning; an empty secret is refused; one that is never
    started leaves nothing open."""
    with listening(Kept()) as listener:
        taken = urlsplit(listener.url).netloc
        with pytest.raises(OSError):
            ErrorListener(taken, SECRET, Kept(), system_runtime())
    with pytest.raises(ValueError, match="empty"):
        ErrorListener("127.0.0.1:0", "", Kept(), system_runtime())
    ErrorListener("127.0.0.1:0", SECRET, Kept(), system_runtime()).stop()


def test_what_the_stand_in_posts_arrives(caplog: pytest.LogCaptureFixture) -> None:
    """Each failure of the simulated Alloy is reported under its uuid with its own reason, however
    often and late it is posted, also where storing fails at first; nothing of a customer's stays in
    messages or log."""
    now = 1_760_000_000.0
    traffic = Traffic(error_rate=0.5, colliding=0.3)
    log = list(generate(200, start=now - 900, end=now, traffic=traffic))
    failures = {uuid_of(r): f for r in log if (f := failure_of(r)) is not None}
    kept, done = Kept(), threading.Event()
    kept.error = OSError("locked")

    def keep(report: ErrorReport) -> bool:
        try:
            return kept(report)
        finally:
            kept.error = None
        if {r.uuid for r in kept} == set(failures):
            done.set()

    with caplog.at_level(logging.DEBUG), listening(keep) as listener:
        config = Config(error_webhook_url=f"{listener.url}/{SECRET.replace('ü', '%C3%BC')}")
        with Simulator(config, clock=lambda: now) as alloy:
            for record in log:
                alloy.store.add(record)
            assert done.wait(60)
    for report in kept:
        failure = failures[report.uuid]
        assert (report.block, report.type) == (failure.block.id, failure.block.type)
        assert report.block_name == failure.block.name
        assert report.at == failure.at * 1_000_000
        assert report.message == masked(failure.reason, "mask")
        assert report.message is not None and REASON_CANARY not in report.message
    assert REASON_CANARY not in caplog.text
