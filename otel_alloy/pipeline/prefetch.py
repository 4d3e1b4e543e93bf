"""Reading ahead: the next page is fetched while one is delivered. A thread, and nothing else.

The first page has nothing to be fetched beside, and is nearly always the only one: whoever wants it
fetches it, and a thread begins where more may follow.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

from otel_alloy.alloy.cursor import Reading
from otel_alloy.runtime import Runtime

_PAGES_AHEAD = 2


class Prefetcher:
    """Runs an iterator a few items ahead of whoever takes them, from the second one on in a
    thread."""

    def __init__(self, items: Iterator[Reading], runtime: Runtime) -> None:
        self._items = items
        self._runtime = runtime
        self._begun = False
        self._queue: queue.Queue[Any] = queue.Queue(_PAGES_AHEAD)
        self._closed = threading.Event()

    def _work(self) -> None:
        try:
            for item in self._items:
                self._put(item)
                if self._closed.is_set():
                    return
        except BaseException as error:
            self._put(error)

    def _put(self, item: object) -> None:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    def get(self, timeout: float) -> Reading | None:
        """The next item; None when there is none within `timeout` seconds, but the first one is
        waited for. Raises what the iterator raised."""
        if not self._begun:
            self._begun = True
            first = next(self._items)
            if not first.last:
                self._runtime.spawn(self._work, "otel-alloy-prefetch")
            return first
        try:
            item = self._queue.get(timeout=max(timeout, 0.001))
        except queue.Empty:
            return None
        if isinstance(item, BaseException):
            raise item
        assert isinstance(item, Reading)
        return item

    def close(self) -> None:
        """Lets the thread end after the item it is at."""
        self._closed.set()
