"""What `check` finds out about the checkpoint without opening it: whether it is there, and whether
it could be written. Nothing is created."""

from __future__ import annotations

import os
from pathlib import Path

from otel_alloy.check.finding import Finding
from otel_alloy.checkpoint.postgres_url import place_of
from otel_alloy.checkpoint.store import store_exists, store_file
from otel_alloy.errors import CheckpointError, ConfigurationError
from otel_alloy.settings.models import Settings

_PART = "checkpoint"


def checkpoint_finding(settings: Settings) -> Finding:
    """About `storage`."""
    url = settings.storage
    place = place_of(url)
    tried = f"looked for {place}"
    try:
        there = store_exists(url)
    except (CheckpointError, ConfigurationError) as error:
        code = 2 if isinstance(error, ConfigurationError) else 1
        return Finding(_PART, tried, False, error.problem, error.remedy, exit_code=code)
    file = store_file(url)
    closed = None if file is None else _closed(file)
    if closed is not None:
        return Finding(
            _PART,
            tried,
            False,
            f"{closed} cannot be written to by this user",
            "set storage (OTEL_ALLOY_STORAGE) to a place that can, or change the permissions",
        )
    words = "there" if there else "none yet; `run` makes it"
    return Finding(_PART, tried, True, words, facts={"place": place, "there": there})


def _closed(file: Path) -> Path | None:
    """The file, or the folder that it would be made in, where that cannot be written to."""
    folder = file.absolute().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return folder
    for path in (folder, file):
        if path.exists() and not os.access(path, os.W_OK):
            return path
    return None
