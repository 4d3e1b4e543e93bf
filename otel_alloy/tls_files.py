"""Certificate and key files that may be exchanged while they are in use (cert-manager, Vault).

Looked at before each request, which costs a `stat` per file, or per folder: what is written into a
file of a folder is seen after a failure of TLS. What replaces them and cannot be used, perhaps as
it is only half written, changes nothing: it is tried again with the next change, and after each
failure of TLS. What is made of the files stands in `trust`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from otel_alloy.errors import ConfigurationError
from otel_alloy.trust import Identity, Trust

log = logging.getLogger("otel_alloy")

T = TypeVar("T")


class WatchedFiles:
    """The files of `trust` and `identity`, for the connections of `who`. `exchange` may say that
    they are others than before. None where there is no TLS, and so nothing to watch."""

    def __init__(self, who: str, trust: Trust | None, identity: Identity | None = None) -> None:
        self._who = who
        self._trust = trust
        self._identity = identity
        self._seen = self._stamps()
        self._doubted = False

    def doubt(self) -> None:
        """TLS has failed: look again."""
        self._doubted = True

    def exchange(self, connect: Callable[[], T]) -> T | None:
        """What `connect` makes of the files, where they have changed; else None."""
        if self._trust is None:
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
            log.info("%s: took up the certificate and key files anew", self._who)
        return made

    def _stamps(self) -> tuple[object, ...]:
        of_trust = self._trust.glance() if self._trust else ()
        return of_trust, self._identity.stamp() if self._identity else ()
