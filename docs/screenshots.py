"""Takes the pictures of the documentation: `python docs/screenshots.py [NAME ...]`.

Each is the last screen of the real command, run in a pseudo-terminal against the simulator, whose
names are invented. A terminal emulator (pyte) keeps the screen; it becomes an SVG of fixed-width
text that loads nothing from anywhere. Block characters are drawn as rectangles, because fonts
differ in where those end. Those of the health endpoint's page are taken by `page_pictures`. Times,
and with them the pictures, differ from one run to the next.
"""

from __future__ import annotations

import argparse
import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import escape
from itertools import groupby
from math import cos, pi
from pathlib import Path

import page_pictures
import pyte
from pyte.screens import Char

from otel_alloy.testing.simulator import Config, Simulator, Traffic, eventful, live, timeline

IMAGES = Path(__file__).with_name("images")
COMMAND = Path(sys.executable).with_name("otel-alloy")


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture of `otel-alloy` with `arguments` on a terminal of `columns` by `lines`, taken after
    `seconds` (None: at the command's end), from the line on that begins with `first`."""

    arguments: tuple[str, ...]
    columns: int
    lines: int
    seconds: float | None = None
    first: str = ""


SHOTS = {
    "demo": Shot(("demo",), 120, 28, 12.0),
    "demo-end": Shot(("demo",), 92, 60, first="workflow  "),
    "tail": Shot(("tail", "--since", "1m"), 120, 32, 11.0),
    "tail-80": Shot(
        ("tail", "--trace-url", "http://localhost:16686/trace/{trace_id}"), 80, 26, 11.0
    ),
    "summary": Shot(("summary", "--since", "24h", "--top", "7"), 116, 66),
}

CELL, LINE, SIZE, EDGE, HEAD = 8.4, 19.0, 14.0, 16.0, 36.0
INK, PAPER, FAINT = "#d4d7dd", "#15181e", "#7d848f"
FONTS = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
COLORS = {
    "default": INK,
    "black": "#3b414b",
    "red": "#ff7b72",
    "green": "#6fcf7f",
    "brown": "#e3b341",
    "blue": "#79a8ff",
    "magenta": "#d2a8ff",
    "cyan": "#66c7d9",
    "white": INK,
}
_EIGHTHS = " ▏▎▍▌▋▊▉█"  # from the left
_RISING = " ▁▂▃▄▅▆▇█"  # from below


def main() -> None:
    """Takes the pictures that are named, or all."""
    parser = argparse.ArgumentParser(description="Takes the pictures of the documentation.")
    every = [*SHOTS, *page_pictures.LOOKS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(every))
    names = parser.parse_args().names or every
    IMAGES.mkdir(exist_ok=True)
    if pages := [name for name in names if name in page_pictures.LOOKS]:
        page_pictures.take(pages, IMAGES)
    for name in names:
        if name in pages:
            continue
        shot = SHOTS[name]
        screen = take(shot)
        path = IMAGES / f"{name}.svg"
        title = " ".join(("otel-alloy", *shot.arguments))
        path.write_text(svg(screen, title, shot.first), "utf-8")
        print(path)


def take(shot: Shot) -> pyte.Screen:
    """The screen as the command leaves it."""
    now = time.time()
    with Simulator(Config()) as alloy:
        traffic = eventful(Traffic(error_rate=0.04, clustered=0.7, never_ends=0.002), now, now + 30)
        for hour in range(24):  # a day with a busy noon and a quiet night
            begin = now - 86_400 + 3600 * hour
            executions = round(130 - 110 * cos(2 * pi * begin / 86_400))
            alloy.store.feed(timeline(executions, start=begin, end=begin + 3600, traffic=traffic))
        lately = replace(traffic, error_rate=0.1)  # a minute is short, and is to show failures
        alloy.store.feed(timeline(20, start=now - 45, end=now, traffic=lately))
        alloy.store.feed(live(start=now, rate=0.5, traffic=lately))
        environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "COLUMNS": str(shot.columns),
            "LINES": str(shot.lines),
            "ALLOY_API_KEY": "any",
            "ALLOY_ENDPOINT": alloy.endpoint,
            "OTEL_ALLOY_PAGE_SIZE": "1000",
        }
        return _played(shot, environment)


class _Screen(pyte.Screen):
    """Knows faint text, which pyte does not: it is kept as italics, which we do not write."""

    def select_graphic_rendition(self, *attributes: int, **more: bool) -> None:
        super().select_graphic_rendition(*(3 if a == 2 else a for a in attributes), **more)


def _played(shot: Shot, environment: dict[str, str]) -> pyte.Screen:
    screen = _Screen(shot.columns, shot.lines)
    stream = pyte.Stream(screen)
    main_side, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("4H", shot.lines, shot.columns, 0, 0))
    process = subprocess.Popen(
        [COMMAND, *shot.arguments], stdin=side, stdout=side, stderr=side, env=environment
    )
    os.close(side)
    decode = codecs.getincrementaldecoder("utf-8")().decode
    begun = time.monotonic()
    while True:
        over = shot.seconds is not None and time.monotonic() - begun > shot.seconds
        over = over or process.poll() is not None
        if select.select([main_side], [], [], 0.03 if over else 0.1)[0]:
            try:
                stream.feed(decode(os.read(main_side, 65536)))
            except OSError:  # the other side is closed
                break
        elif over:  # and the last picture is whole
            break
    process.send_signal(signal.SIGINT)
    os.close(main_side)
    process.wait(30)
    return screen


def svg(screen: pyte.Screen, title: str, first: str) -> str:
    """The screen as an SVG document, from the line `first` to the last one that is not empty."""
    used = [y for y, line in enumerate(screen.display) if line.strip()]
    top = next((y for y in used if screen.display[y].startswith(first)), 0)
    rows = range(top, used[-1] + 1)
    width = screen.columns * CELL + 2 * EDGE
    height = HEAD + len(rows) * LINE + EDGE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" role="img" font-family="{FONTS}" '
        f'font-size="{SIZE:g}">',
        f"<title>{escape(title)}</title>",
        f'<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>',
        *(f'<circle cx="{EDGE + 6 + 18 * n:g}" cy="18" r="5.5" fill="#3b414b"/>' for n in range(3)),
        f'<text x="{width / 2:g}" y="22" fill="{FAINT}" text-anchor="middle" font-size="12.5">'
        f"{escape(title)}</text>",
    ]
    for number, y in enumerate(rows):
        cells = [screen.buffer[y][x] for x in range(screen.columns)]
        parts += _row(cells, HEAD + number * LINE)
    return "\n".join([*parts, "</svg>", ""])


def _row(cells: list[Char], top: float) -> Iterator[str]:
    x = 0
    for (color, weight, block), group in groupby(cells, key=_look):
        run = "".join(cell.data for cell in group)
        left = EDGE + x * CELL
        if block:
            yield from _blocks(run, left, top, color)
        else:
            # Words stand where they stood, whatever the width of the font that is found.
            for words in re.finditer(r"\S+(?: \S+)*", run):
                yield (
                    f'<text x="{left + words.start() * CELL:g}" y="{top + SIZE:g}" fill="{color}"'
                    f'{weight} textLength="{len(words[0]) * CELL:g}" '
                    f'lengthAdjust="spacingAndGlyphs">{escape(words[0])}</text>'
                )
        x += len(run)


def _look(cell: Char) -> tuple[str, str, bool]:
    color = COLORS.get(cell.fg.removeprefix("bright"), "#" + cell.fg)
    if cell.italics and cell.fg == "default":
        color = FAINT
    weight = ' font-weight="bold"' if cell.bold else ""
    return color, weight, cell.data in _EIGHTHS[1:] + _RISING[1:]


def _blocks(run: str, left: float, top: float, color: str) -> Iterator[str]:
    """Bars to the right as one rectangle each, columns one by one."""
    if all(char in _EIGHTHS for char in run):
        width = CELL * sum(_EIGHTHS.index(char) for char in run) / 8
        yield _rectangle(left, top + 3, width, LINE - 6, color)
        return
    for number, char in enumerate(run):
        height = (LINE - 3) * _RISING.index(char) / 8
        yield _rectangle(left + number * CELL, top + LINE - height, CELL - 1, height, color)


def _rectangle(left: float, top: float, width: float, height: float, color: str) -> str:
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'fill="{color}"/>'
    )


if __name__ == "__main__":
    main()
