"""A client that is there when something is asked, and holds nothing while its source rests."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from otel_alloy.alloy.models import Page
from otel_alloy.alloy.on_demand import OnDemand
from otel_alloy.alloy.query import Query
from otel_alloy.errors import ConfigurationError, Unavailable


class Connection:
    """A client that notes its end."""

    def __init__(self) -> None:
        self.closed = 0

    def fetch(self, query: Query) -> Page:
        return Page([])

    def get(self, path: str, parameters: Mapping[str, str]) -> bytes:
        return path.encode()

    def close(self) -> None:
        self.closed += 1


def connecting() -> tuple[list[Connection], Callable[[], Connection]]:
    """All that were made, and what makes them."""
    made: list[Connection] = []

    def connect() -> Connection:
        made.append(Connection())
        return made[-1]

    return made, connect


def test_one_client_from_rest_to_rest() -> None:
    """It is made at once, so that a mistake shows; kept from request to request; closed for a rest,
    however often that is said; and made anew only when something is asked."""
    made, connect = connecting()
    client = OnDemand(connect)
    assert len(made) == 1
    for _ in range(3):
        client.fetch(Query(1))
    client.rest()
    client.rest()
    assert [one.closed for one in made] == [1]
    client.fetch(Query(1))
    client.fetch(Query(1))
    assert [one.closed for one in made] == [1, 0]
    client.close()
    assert [one.closed for one in made] == [1, 1]


def test_what_is_asked_after_the_end_closes_its_own() -> None:
    """A reader ahead may ask once more after `close`: nothing is left open then."""
    made, connect = connecting()
    client = OnDemand(connect)
    client.rest()
    client.close()
    client.fetch(Query(1))
    assert [one.closed for one in made] == [1, 1]


def test_what_cannot_connect_after_a_rest_is_tried_again() -> None:
    """Before the first request a mistake ends the source; after a rest it may be a file that is
    being exchanged, so it is Unavailable, with the same words, until it passes."""
    wrong = ConfigurationError(["SSL_CERT_FILE is 'x': name a PEM file."])
    made, connect = connecting()
    faults = [wrong]

    def sometimes() -> Connection:
        if faults:
            raise faults[0]
        return connect()

    with pytest.raises(ConfigurationError):
        OnDemand(sometimes)
    faults.clear()
    client = OnDemand(sometimes)
    client.rest()
    faults.append(wrong)
    for _ in range(2):
        with pytest.raises(Unavailable, match="SSL_CERT_FILE is 'x'"):
            client.fetch(Query(1))
    faults.clear()
    assert client.fetch(Query(1)).received == 0
    assert len(made) == 2
