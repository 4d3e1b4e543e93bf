"""Certificate and key files that may be exchanged while they are in use (cert-manager, Vault).

Looked at before each request, which costs a `stat` per file. What replaces them and cannot be used,
perhaps as it is only half written, changes nothing: it is tried again with the next change, and
after each failure of TLS.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TypeVar

from otel_alloy.errors import ConfigurationError
from otel_alloy.settings.otlp import OtlpSettings

log = logging.getLogger("otel_alloy")

T = TypeVar("T")
Stamp = tuple[int, int, int, int] | None


class WatchedFiles:
    """The files that `settings` name. `exchange` may say that they are others than before."""

    def __init__(self, settings: OtlpSettings) -> None:
        self._signal = settings.signal
        self._trust = settings.route.trust
        named = (settings.client_key, settings.client_certificate)
        self._paths = () if settings.insecure else tuple(path for path in named if path)
        self._tls = not settings.insecure
        self._seen = self._stamps()
        self._doubted = False

    def doubt(self) -> None:
        """TLS has failed: look again, also at the authorities that the system keeps."""
        self._doubted = self._tls

    def exchange(self, connect: Callable[[], T]) -> T | None:
        """What `connect` makes of the files, where they have changed; else None."""
        if not self._tls:
            return None
        stamps = self._stamps()
        if stamps == self._seen and not self._doubted:
            return None
        changed = stamps != self._seen
        self._seen, self._doubted = stamps, False
        try:
            made = connect()
        except ConfigurationError as error:
            log.warning("%s Going on with the files as they were before.", error)
            return None
        if changed:
            log.info("OTLP %s: took up the certificate and key files anew", self._signal)
        return made

    def _stamps(self) -> tuple[object, ...]:
        return (self._trust.stamp(), *(stamp(path) for path in self._paths))


def stamp(path: str) -> Stamp:
    """What tells one state of a file from another; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
