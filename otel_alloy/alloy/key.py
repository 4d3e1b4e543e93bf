"""The API key, from a value or from a file that may be exchanged while it is in use.

Docker and Kubernetes put secrets into files, and exchange them there. The file is looked at before
each request, which costs a `stat`, and read where it changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from otel_alloy.bounded_file import read_bounded

SETTINGS = {"api_key": "ALLOY_API_KEY", "endpoint": "ALLOY_ENDPOINT"}
"""What key and endpoint are called where nobody knows where they are written."""
_MOST_BYTES = 65_536

ApiKey = Callable[[], str]
"""The key to use now, without a leading `bearer `."""


def plain_key(text: str) -> str:
    """The key in `text`: without `bearer ` and the space around it."""
    key = text.strip()
    return key[7:].strip() if key[:7].lower() == "bearer " else key


def key_problem(key: str) -> str | None:
    """What is wrong with a plain key, without the key; None where nothing is."""
    if not key or key.lower() == "bearer":
        return "it is empty; set it to your Alloy API key"
    if not key.isascii() or not key.isprintable() or " " in key:
        return "it holds spaces or characters that no key has; copy it again"
    return None


class KeyFile:
    """The key in the file `path`. What replaces it and is no key, or a file that is gone for a
    moment, changes nothing: the last key goes on. From any thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._kept: tuple[object, str] = (None, "")

    def __call__(self) -> str:
        """The key. Raises ValueError, with words that may be shown, where there never was one."""
        try:
            found = os.stat(self._path)
            stamp = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            if stamp == self._kept[0]:
                return self._kept[1]
            key = plain_key(read_bounded(self._path, _MOST_BYTES).decode("utf-8-sig", "replace"))
            problem = key_problem(key)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            problem = f"it cannot be read ({why}); name a file that this process may read"
        else:
            if problem is None:
                self._kept = stamp, key
        if problem is not None and not self._kept[1]:
            raise ValueError(problem)
        return self._kept[1]
