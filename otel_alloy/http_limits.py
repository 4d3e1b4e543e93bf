"""What an HTTP answer may cost: bytes on the wire, bytes after each decoding, headers, and time.

httpcore bounds each read, so a server that sends a byte now and then holds a request for ever.
Here, every wait on a socket gets what is left of one deadline for the whole request, by the
runtime's monotonic clock: connecting (all addresses of a name together), TLS, sending, headers,
body. Not the look-up of the name, which the operating system bounds. Every limit is named where it
is exceeded.

Nothing here knows what is asked for, or of whom.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any

import httpcore

from otel_alloy.outbound import Resolve, look_up

MOST_HEADERS = 200
MOST_HEADER_BYTES = 65_536
MOST_ENCODINGS = 3
"""Encodings of one body, one within the other; servers use one."""
_MOST_MEMBERS = 100
"""Pieces that a gzip body may be put together from (RFC 1952)."""
_PIECE = 65_536
"""Bytes that are sent before the deadline is looked at again."""

LATE = "the time for the whole request is over"
"""The words of a timeout that something came before."""

ACCEPTED = "gzip, deflate"
"""The encodings that `read_body` undoes, as Accept-Encoding says it."""


class TooMuch(Exception):
    """An answer is above a limit, which the words name. `begun`: some of how its body begins."""

    def __init__(self, words: str, begun: bytes = b"") -> None:
        super().__init__(words)
        self.begun = begun


class Undecodable(Exception):
    """A body is not what its encoding says, in words."""


def within(seconds: float | None, monotonic: Callable[[], float]) -> dict[str, Any]:
    """The `extensions` of a request that has so many seconds from now on; None: no limit."""
    end = None if seconds is None else monotonic() + seconds
    return {"timeout": {"connect": end, "read": end, "write": end, "pool": seconds}}


def check_headers(headers: list[tuple[bytes, bytes]]) -> None:
    """Raises TooMuch where there are more, or longer ones, than anybody needs."""
    if len(headers) > MOST_HEADERS:
        raise TooMuch(f"with more than {MOST_HEADERS} headers")
    if sum([len(name) + len(value) for name, value in headers]) > MOST_HEADER_BYTES:
        raise TooMuch(f"with more than {MOST_HEADER_BYTES} bytes of headers")


def read_body(pieces: Iterable[bytes], encodings: str, most: int) -> bytes:
    """The body of an answer, decoded. `pieces`: as they come. `encodings`: its Content-Encoding.
    `most`: its bytes on the wire, and after each decoding. Raises TooMuch, Undecodable, and what
    reading raises."""
    chunks: list[bytes] = []
    size = 0
    for chunk in pieces:
        size += len(chunk)
        if size > most:
            chunks.append(chunk[: len(chunk) - (size - most)])
            begun = b"" if encodings else b"".join(chunks)
            raise TooMuch(f"with more than {most} bytes", begun)
        chunks.append(chunk)
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    del chunks
    for encoding in _named(encodings) if encodings and body else ():
        body = _decoded(body, encoding, most)
    return body


def _named(encodings: str) -> list[str]:
    """The encodings to undo, in the order of undoing."""
    named = [word.strip().lower() for word in encodings.split(",")]
    named = [word for word in named if word not in ("", "identity")]
    if len(named) > MOST_ENCODINGS:
        raise TooMuch(f"in more than {MOST_ENCODINGS} encodings, one within the other")
    return named[::-1]


def _decoded(body: bytes, encoding: str, most: int) -> bytes:
    if encoding in ("gzip", "x-gzip"):
        return _inflated(body, encoding, most, zlib.MAX_WBITS | 16)
    if encoding == "deflate":
        try:
            return _inflated(body, encoding, most, zlib.MAX_WBITS)
        except Undecodable:  # some send it without its header (RFC 9110, 8.4.1.2)
            return _inflated(body, encoding, most, -zlib.MAX_WBITS)
    raise Undecodable("its encoding was not asked for")


def _inflated(body: bytes, encoding: str, most: int, window: int) -> bytes:
    made: list[bytes] = []
    left = most + 1
    for _ in range(_MOST_MEMBERS):
        member = zlib.decompressobj(window)
        try:
            made.append(member.decompress(body, left))
        except zlib.error as error:
            raise Undecodable(str(error)) from None
        left -= len(made[-1])
        if left <= 0:
            begun = made[0][: min(most, _PIECE)]
            raise TooMuch(f"with more than {most} bytes, after {encoding} was undone", begun)
        if not member.eof:
            raise Undecodable(f"its {encoding} is cut off")
        body = member.unused_data
        if window < zlib.MAX_WBITS | 16 or not body.startswith(b"\x1f\x8b"):
            return made[0] if len(made) == 1 else b"".join(made)
    raise TooMuch(f"in more than {_MOST_MEMBERS} pieces of {encoding}")


class DeadlineBackend(httpcore.NetworkBackend):
    """Connects and makes streams whose `timeout` is a moment of `monotonic`, not a duration:
    httpcore hands a request's timeouts down unseen, so each request has its own. `resolve`: the
    addresses of a name; what it raises besides its own errors passes."""

    def __init__(self, monotonic: Callable[[], float], resolve: Resolve = look_up) -> None:
        self._monotonic = monotonic
        self._resolve = resolve
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Tries the addresses of the name one after the other, each with its share of the time."""
        try:
            addresses = self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from error
        options = list(socket_options or ())
        for number, address in enumerate(addresses):
            share = _left(timeout, self._monotonic, httpcore.ConnectTimeout)
            if share is not None:
                share /= len(addresses) - number
            try:
                stream = self._inner.connect_tcp(address, port, share, local_address, options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(addresses) - 1:
                    raise
            else:
                return _Stream(stream, self._monotonic, timeout)
        raise httpcore.ConnectError("the name has no address")


class _Stream(httpcore.NetworkStream):
    """A connection; see `DeadlineBackend`."""

    def __init__(
        self,
        inner: httpcore.NetworkStream,
        monotonic: Callable[[], float],
        first: float | None,
    ) -> None:
        self._inner = inner
        self._monotonic = monotonic
        # The end of the request that made it: for talking to a SOCKS proxy httpcore tells none.
        self._first = first
        self._heard = False  # whether something came since the last sending
        self._handed_on = False  # whether it lies under TLS now

    def __del__(self) -> None:
        # httpcore forgets a connection on which a SOCKS proxy refuses.
        if not self._handed_on:
            self._inner.close()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What comes next."""
        seconds = self._left(timeout, httpcore.ReadTimeout)
        try:
            data = self._inner.read(max_bytes, seconds)
        except httpcore.ReadTimeout:
            self._inner.close()
            if self._heard:
                raise httpcore.ReadTimeout(LATE) from None
            raise
        self._heard = True
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Sends all of it."""
        if not buffer:
            return
        self._heard = False
        if len(buffer) <= _PIECE:
            self._inner.write(buffer, self._left(timeout, httpcore.WriteTimeout))
            return
        view = memoryview(buffer)  # no copy for each piece that the kernel takes
        for begin in range(0, len(buffer), _PIECE):
            seconds = self._left(timeout, httpcore.WriteTimeout)
            self._inner.write(view[begin : begin + _PIECE], seconds)  # type: ignore[arg-type]

    def close(self) -> None:
        """Closes it."""
        self._inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The same connection within TLS."""
        seconds = self._left(timeout, httpcore.ConnectTimeout)
        inner = self._inner.start_tls(ssl_context, server_hostname, seconds)
        self._handed_on = True
        return _Stream(inner, self._monotonic, timeout)

    def get_extra_info(self, info: str) -> Any:
        """What httpcore wants to know of the socket."""
        return self._inner.get_extra_info(info)

    def _left(self, timeout: float | None, late: type[httpcore.TimeoutException]) -> float | None:
        try:
            return _left(self._first if timeout is None else timeout, self._monotonic, late)
        except late:
            self._inner.close()  # httpcore does not, while TLS or a proxy is being talked to
            raise


def _left(
    end: float | None, monotonic: Callable[[], float], late: type[httpcore.TimeoutException]
) -> float | None:
    """The seconds until `end`, None where there is no end. Raises `late` after it."""
    if end is None:
        return None
    seconds = end - monotonic()
    if seconds <= 0:
        raise late(LATE)
    return seconds
