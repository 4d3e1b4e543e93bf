"""Reading small files that somebody else writes: settings, keys, certificates.

A file may have become anything: a device without end, a pipe that nobody writes into, a folder, a
gigabyte. Each of these is an OSError with words here, and none is waited for or read whole. A pipe
is read (`--config <(sops -d settings.yaml)`), but not waited for longer than `_PATIENCE` at a time.

Nothing here knows what a file is for.
"""

from __future__ import annotations

import errno
import os
import select
import stat

_PATIENCE = 5.0
_PIECE = 65_536


def read_bounded(path: str | os.PathLike[str], most: int) -> bytes:
    """The file's bytes. Raises OSError (`strerror` says it for people), also where there are more
    than `most`, and ValueError for what can be no file name."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
            raise OSError(errno.EINVAL, f"it is {_kind(mode)}, not a file", str(path))
        found = bytearray()
        while piece := _read(descriptor, path):
            found += piece
            if len(found) > most:
                raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
        return bytes(found)
    finally:
        os.close(descriptor)


def check_file(path: str | os.PathLike[str], most: int) -> None:
    """Raises what `read_bounded` raises, for a library that is going to read the file by itself.
    A pipe is refused: what is read from it once is gone."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, f"it is {_kind(found.st_mode)}, not a file", str(path))
    read_bounded(path, most)


def _read(descriptor: int, path: object) -> bytes:
    try:
        return os.read(descriptor, _PIECE)
    except BlockingIOError:
        ready, _, _ = select.select([descriptor], [], [], _PATIENCE)
        if not ready:
            words = f"it is a pipe, and nothing came for {_PATIENCE:g} s"
            raise OSError(errno.ETIMEDOUT, words, str(path)) from None
        return os.read(descriptor, _PIECE)


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"
