"""A TCP proxy for tests: connections through it can be cut, held or refused, at a chosen message.

It forwards bytes between a port of its own and a server's. Nothing here knows a protocol, but for
the bytes that it is told to look for.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any, Literal

Cut = Literal["before", "after", "held"]
"""What becomes of a connection whose client sends the bytes looked for. `before`: it is cut, and
they do not get to the server; `after`: they do, and it is cut when the server has answered; `held`:
the client is cut, the server's side stays open, and they get there when `release` is called."""


class TcpProxy:
    """`port`: of the server, on 127.0.0.1. `cut` says for each message that holds `looked_for`
    what is to happen; None: it is forwarded. `refuse`: new connections are closed at once.
    `frozen`: nothing is forwarded, and nothing closed."""

    def __init__(self, port: int, looked_for: bytes, cut: Callable[[], Cut | None]) -> None:
        self._server = port
        self._looked_for = looked_for
        self._cut = cut
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.refuse = False
        self._thawed = threading.Event()
        self._thawed.set()
        self._held: list[tuple[socket.socket, bytes]] = []
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()

    def freeze(self, frozen: bool) -> None:
        """Forwards nothing any more; or again."""
        (self._thawed.clear if frozen else self._thawed.set)()

    @property
    def frozen(self) -> bool:
        """Whether nothing is forwarded."""
        return not self._thawed.is_set()

    def release(self) -> None:
        """What is held gets to the server."""
        with self._lock:
            held, self._held = self._held, []
        for server, chunk in held:
            with contextlib.suppress(OSError):
                server.sendall(chunk)

    def cut_all(self) -> None:
        """Cuts every connection."""
        with self._lock:
            opened, self._open = self._open, []
        for one in opened:
            _close(one)

    def __enter__(self) -> TcpProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        _close(self._listening)
        self._thawed.set()
        self.release()
        self.cut_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if self.refuse:
                _close(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._server))
            except OSError:
                _close(client)
                continue
            with self._lock:
                self._open += [client, server]
            answer = threading.Event()
            cutting = threading.Event()
            for act in (
                lambda c=client, s=server, a=answer, x=cutting: self._upward(c, s, a, x),
                lambda c=client, s=server, a=answer, x=cutting: self._downward(c, s, a, x),
            ):
                threading.Thread(target=act, daemon=True).start()

    def _upward(
        self,
        client: socket.socket,
        server: socket.socket,
        answer: threading.Event,
        cutting: threading.Event,
    ) -> None:
        held = False
        try:
            while chunk := client.recv(65536):
                self._thawed.wait()
                how = self._cut() if self._looked_for in chunk else None
                if how == "before":
                    return
                if how == "held":
                    held = True
                    with self._lock:
                        self._held.append((server, chunk))
                    return
                if how == "after":
                    cutting.set()
                server.sendall(chunk)
                if how == "after":
                    answer.wait(30)
                    return
        except OSError:
            pass
        finally:
            _close(client)
            if not held:
                _close(server)

    def _downward(
        self,
        client: socket.socket,
        server: socket.socket,
        answer: threading.Event,
        cutting: threading.Event,
    ) -> None:
        try:
            while chunk := server.recv(65536):
                self._thawed.wait()
                if cutting.is_set():
                    answer.set()
                    return
                client.sendall(chunk)
        except OSError:
            pass
        finally:
            _close(client)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
