"""Settings and checkpoint, opened as the options of a command say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from otel_alloy.cli.terminal import say

if TYPE_CHECKING:
    from otel_alloy.checkpoint.store import Store
    from otel_alloy.settings.models import Settings

_NO_KEY_NEEDED = {"ALLOY_API_KEY": "not-needed-by-this-command"}


def load(
    config: str | None, flags: dict[str, Any], *, key_needed: bool = True, warn: bool = True
) -> Settings:
    """Settings from the options, the environment and the file. `warn`: whether what is probably not
    meant is said here, on standard error. Raises ConfigurationError."""
    from otel_alloy.settings.loader import load_settings

    environment = dict(os.environ)
    if not key_needed and not environment.get("ALLOY_API_KEY", "").strip():
        environment.pop("ALLOY_API_KEY_FILE", None)
        environment |= _NO_KEY_NEEDED
    settings = load_settings(flags, environment, file=config)
    for words in settings.places.warnings if warn else ():
        say(f"Warning: {words}")
    return settings


@contextmanager
def existing_store(
    config: str | None, storage: str | None, *, warn: bool = True
) -> Iterator[Store | None]:
    """The checkpoint of these options, for a command that looks at it or drops from it; None where
    there is none: looking creates nothing."""
    settings = load(config, {"storage": storage}, key_needed=False, warn=warn)
    with store_of(settings) as store:
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


def opened_store(
    config: str | None, storage: str | None, *, exclusive: bool, warn: bool = True
) -> Store:
    """The checkpoint of these options; the caller closes it."""
    from otel_alloy.checkpoint.store import open_store

    settings = load(config, {"storage": storage}, key_needed=False, warn=warn)
    return open_store(settings.storage, exclusive=exclusive)
