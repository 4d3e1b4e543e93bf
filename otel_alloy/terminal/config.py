"""The command `config`: what is in force and where from, as lines or JSON, on standard output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any

from otel_alloy.settings.in_force import Row
from otel_alloy.settings.places import Place, Places

_WIDEST_NAME, _WIDEST_VALUE = 32, 40


def as_object(
    rows: Iterable[Row], places: Places, warnings: Iterable[str], mask: Callable[[str], str]
) -> dict[str, Any]:
    """For programs."""
    return {
        "file": places.file or None,
        "settings": [
            {
                "section": row.section or None,
                "name": row.name,
                "value": mask(row.value) if isinstance(row.value, str) else row.value,
                "from": _object(row.origin),
                "instead_of": [_object(one) for one in row.instead_of],
            }
            for row in rows
        ],
        "warnings": [mask(one) for one in warnings],
    }


def _object(place: Place) -> dict[str, Any]:
    if place.kind == "default":
        return {"kind": "default"}
    found: dict[str, Any] = {"kind": place.kind, "name": place.name}
    if place.file:
        found |= {"file": place.file, "line": place.line or None}
    if place.references:
        found["references"] = list(place.references)
    return found


def lines(
    rows: Iterable[Row],
    places: Places,
    warnings: Iterable[str],
    mask: Callable[[str], str],
) -> Iterator[str]:
    """For people."""
    named = f" ({places.file_from})" if places.file_from else ""
    yield f"settings file: {places.file or 'none'}{named}"
    for section, group in groupby(rows, lambda row: row.section):
        shown = [(row, _value(row, mask)) for row in group]
        names = min(_WIDEST_NAME, max(len(row.name) for row, _ in shown))
        values = min(_WIDEST_VALUE, max(len(value) for _, value in shown))
        yield ""
        yield section or "settings"
        for row, value in shown:
            yield f"  {row.name:<{names}}  {value:<{values}}  {_origin(row)}"
    warned = [f"  {mask(one)}" for one in warnings]
    if warned:
        yield from ("", "probably not meant", *warned)


def _value(row: Row, mask: Callable[[str], str]) -> str:
    if isinstance(row.value, bool):
        return str(row.value).lower()
    return mask(str(row.value)) if row.value not in (None, "") else "-"


def _origin(row: Row) -> str:
    words = _words(row.origin)
    if row.instead_of:
        words += f", instead of {' and '.join(map(_words, row.instead_of))}"
    return words


def _words(place: Place) -> str:
    """`settings.yaml:12 (${env:NAME})`, which many terminals and editors open."""
    if place.kind != "file":
        return place.name
    words = f"{place.file}:{place.line}" if place.line else place.file
    return words + (f" ({', '.join(place.references)})" if place.references else "")
