"""A client that holds no connection, and no memory for one, while its source rests.

What one request is stands in `client.py`; when a source rests, its owner knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from otel_alloy.alloy.models import Page
from otel_alloy.alloy.query import Query
from otel_alloy.errors import ConfigurationError, Unavailable


class Client(Protocol):
    """Sends one request, as `AlloyClient` does."""

    def fetch(self, query: Query) -> Page: ...

    def get(self, path: str, parameters: Mapping[str, str]) -> bytes: ...

    def close(self) -> None: ...


class OnDemand:
    """What `connect` makes, made anew for the first request after a rest. Raises what `connect`
    raises; after a rest, when what it needs was right before, that is Unavailable."""

    def __init__(self, connect: Callable[[], Client]) -> None:
        self._connect = connect
        self._client: Client | None = connect()
        self._closed = False

    def fetch(self, query: Query) -> Page:
        """See `AlloyClient.fetch`."""
        return self._at_hand().fetch(query)

    def get(self, path: str, parameters: Mapping[str, str]) -> bytes:
        """See `AlloyClient.get`."""
        return self._at_hand().get(path, parameters)

    def rest(self) -> None:
        """Closes the connections until the next request."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def close(self) -> None:
        """Closes the connections. A request that still runs, as one that reads ahead, closes its
        own when it ends."""
        self._closed = True
        if self._client is not None:
            self._client.close()

    def _at_hand(self) -> Client:
        client = self._client
        if client is None:
            client = self._client = self._connected()
        return client

    def _connected(self) -> Client:
        try:
            client = self._connect()
        except ConfigurationError as error:  # a file of certificates, while it is being exchanged
            raise Unavailable("; ".join(error.mistakes)) from None
        if self._closed:
            client.close()
        return client
