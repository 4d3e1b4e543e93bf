"""Three replicas, 40 sources, two destinations, live traffic, faults everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .story import told

if TYPE_CHECKING:
    from conftest import Servers


def test_replicas_that_die_sleep_and_end(servers: Servers, tmp_path: Path) -> None:
    """x"""
    with told(tmp_path, servers.storage("postgres newest", tmp_path)) as story:
        story.begin(None, None, None)
        story.kill()
        story.pause()
        story.stop()
        print(story.check())
