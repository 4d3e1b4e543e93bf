"""Settings and checkpoint, opened as the options of a command say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otel_alloy.checkpoint.store import Store
    from otel_alloy.settings.models import Settings

_NO_KEY_NEEDED = {"ALLOY_API_KEY": "not-needed-by-this-command"}


def load(config: str | None, flags: dict[str, Any], *, key_needed: bool = True) -> Settings:
    """Settings from the options, the environment and the file. Raises ConfigurationError."""
    from otel_alloy.settings.loader import load_settings

    environment = dict(os.environ)
    if not key_needed and not environment.get("ALLOY_API_KEY", "").strip():
        environment.pop("ALLOY_API_KEY_FILE", None)
        environment |= _NO_KEY_NEEDED
    return load_settings(flags, environment, file=config)


@contextmanager
def existing_store(config: str | None, storage: str | None) -> Iterator[Store | None]:
    """The checkpoint of these options, for a command that looks at it or drops from it; None where
    there is none: looking creates nothing."""
    with store_of(load(config, {"storage": storage}, key_needed=False)) as store:
        yield store


@contextmanager
def store_of(settings: Settings) -> Iterator[Store | None]:
    """The same for settings that are loaded."""
    from otel_alloy.checkpoint.store import open_store, store_exists

    if not store_exists(settings.storage):
        yield None
        return
    with closing(open_store(settings.storage, exclusive=False)) as store:
        yield store


def opened_store(config: str | None, storage: str | None, *, exclusive: bool) -> Store:
    """The checkpoint of these options; the caller closes it."""
    from otel_alloy.checkpoint.store import open_store

    settings = load(config, {"storage": storage}, key_needed=False)
    return open_store(settings.storage, exclusive=exclusive)
