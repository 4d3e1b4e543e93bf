"""The far ends of `many_destinations.py` in a process of their own: a main endpoint and those of many
customers, told apart by the port (how it behaves) and the path (whose it is).

Prints the ports as JSON, by behaviour; then, for each line of standard input, what arrived since
the line before: path, trace id, createdAt and arrival (Unix seconds) of each log record that was
accepted. The line `open` makes the port that refused connections accept them. What is counted is
log records; spans are read and acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SLOW = 5.0
"""Seconds that a slow endpoint takes to answer."""
POISON = 26
"""An endpoint refuses a request with a record whose trace id begins with a byte below that: one
record in ten."""
KINDS = ("healthy", "slow", "poison")

_Arrival = tuple[str, str, float, float]
_Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Ends:
    """`arrived`: what was accepted."""

    def __init__(self) -> None:
        self.arrived: list[_Arrival] = []

    async def answer(
        self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serves one connection."""
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).lower():
                path = head.split(b" ", 2)[1].decode()
                length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
                body = await reader.readexactly(length)
                if kind == "slow":
                    await asyncio.sleep(SLOW)
                status = b"200 OK" if self._take(kind, path, body) else b"400 Bad Request"
                writer.write(
                    b"HTTP/1.1 %s\r\nContent-Type: application/x-protobuf\r\n"
                    b"Content-Length: 0\r\n\r\n" % status
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _take(self, kind: str, path: str, body: bytes) -> bool:
        now = time.time()
        whose, _, signal = path.partition("/v1/")
        if signal == "traces":
            if kind != "poison":
                return True
            traces = ExportTraceServiceRequest.FromString(body)
            return not any(
                span.trace_id[0] < POISON
                for group in traces.resource_spans
                for scope in group.scope_spans
                for span in scope.spans
            )
        logs = ExportLogsServiceRequest.FromString(body)
        records = [
            record
            for group in logs.resource_logs
            for scope in group.scope_logs
            for record in scope.log_records
        ]
        if kind == "poison" and any(record.trace_id[0] < POISON for record in records):
            return False
        # The observed time of a log record is the notification's createdAt.
        self.arrived += [
            (whose, record.trace_id.hex(), record.observed_time_unix_nano / 1e9, now)
            for record in records
        ]
        return True


async def main() -> None:
    """Serves until standard input ends."""
    ends = Ends()
    ports: dict[str, int] = {}
    servers = []
    for kind in KINDS:
        answer: _Answer = partial(ends.answer, kind)
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1000)
        servers.append(server)
        ports[kind] = server.sockets[0].getsockname()[1]
    refusing, hanging = socket.socket(), socket.socket()
    for kind, one in (("refusing", refusing), ("hanging", hanging)):
        one.bind(("127.0.0.1", 0))
        ports[kind] = one.getsockname()[1]
    hanging.listen(4096)  # connections are made, and nobody ever looks at them
    print(json.dumps(ports), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line.strip() == "open":
            answer = partial(ends.answer, "healthy")
            servers.append(await asyncio.start_server(answer, sock=refusing))
        arrived, ends.arrived = ends.arrived, []
        print(json.dumps(arrived), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
