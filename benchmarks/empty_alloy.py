"""An Alloy without a record that takes 50 ms for an answer, in a process of its own.

The simulator costs more than what is measured against it where many ask at once; this one answers
every question with an empty page. Prints its address; then, for each line of standard input, the
requests so far as JSON: Unix seconds and workflow.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from urllib.parse import parse_qs, urlsplit

DELAY = 0.05


async def main() -> None:
    """Serves until standard input ends."""
    asked: list[tuple[float, str]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                query = parse_qs(urlsplit(head.split(b" ", 2)[1].decode()).query)
                asked.append((time.time(), query.get("workflowId", [""])[0]))
                await asyncio.sleep(DELAY)
                now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
                page = {"pageSize": 100, "currentPage": 1, "totalItems": 0}
                body = json.dumps(
                    {"notifications": [], "lastFetched": now, "pagination": page}
                ).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1000)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(asked), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
