"""Asks the health port of a running receiver, as a container's health check does.

It knows how to get there and what the answer means; what is true is decided in `status`, and served
by `health`.
"""

from __future__ import annotations

import http.client
from contextlib import closing

WITHIN = 5.0
"""Seconds for connecting and for the answer, each."""
_ALL = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Listening on every address includes the loopback, over which it is asked."""


def ask(endpoint: str, path: str) -> tuple[bool, str]:
    """Whether the health port at `endpoint` (`host:port`, as the setting has it) says yes to `path`
    (`/livez`, `/readyz`), and its words; where nobody answers, no and why. No proxy is used."""
    host, _, port = endpoint.rpartition(":")
    host = host.strip("[]")
    connection = http.client.HTTPConnection(_ALL.get(host, host), int(port), timeout=WITHIN)
    with closing(connection):
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            words = answer.read(65536).decode("utf-8", "replace").strip()
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            return False, f"{endpoint} does not answer: {why}"
    return answer.status == 200, words
