"""Opens a page in the user's browser, where there is one to open it in, and says where it is.

Only for a person who sits there: not where neither standard output nor standard error is a
terminal, nor where a graphical browser has no display. A browser in the terminal itself, which
Python would find then, would take it away from the command.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from otel_alloy.runtime import spawn_thread

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")


def open_page(
    url: str,
    browse: Callable[[str], object],
    environment: Mapping[str, str],
    *,
    attended: bool,
) -> str:
    """What came of it, in words that name `url`. `browse` opens it; it may take as long as the
    browser runs, so it has a thread of its own. `attended`: whether there is a terminal."""
    if not attended:
        return f"page: {url} (not opened: no terminal)"
    if sys.platform not in ("win32", "darwin") and not any(map(environment.get, _DISPLAYS)):
        return f"page: {url} (not opened: no display)"

    def work() -> None:
        browse(url)

    spawn_thread(work, "otel-alloy-browser")
    return f"page: {url} (opened in a browser)"
