"""What pydantic finds wrong with settings, as people have to read it: where in the settings, and in
words, without the value.

Where that was written is somebody else's business (`places.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from otel_alloy.errors import WrongParts
from otel_alloy.near import advice
from otel_alloy.settings.otlp_section import NO_VALUE
from otel_alloy.settings.places import Path
from otel_alloy.settings.values import names_at, words_of

_ALL = "the table of settings in docs/settings.md"
_KIND = re.compile(r"(string|bool|int|float)_(type|parsing|from_float)")
_ONE_OF_SEVERAL = "it has to be text, a number, true or false"


Names = Mapping[Path, Sequence[str]]


def mistakes_in(
    error: ValidationError, given: Any, model: type[BaseModel], more: Names
) -> list[tuple[Path, str]]:
    """Each mistake once. `given`: what was validated, as it was written; `more`: names of settings
    that there are at a place besides those of `model`."""
    found: dict[tuple[Path, str], None] = {}
    for problem in error.errors(include_url=False):
        for mistake in _each(problem, given, model, more):
            found[mistake] = None
    return list(found)


def _each(
    problem: Mapping[str, Any], given: Any, model: type[BaseModel], more: Names
) -> Iterator[tuple[Path, str]]:
    path: Path = tuple(part for part in problem["loc"] if part != "[key]")
    wrong = problem.get("ctx", {}).get("error")
    if isinstance(wrong, WrongParts):
        for inner, words in wrong.parts:
            yield (*path, *inner), words
    elif problem["type"] == "extra_forbidden":
        yield path, _unknown(str(path[-1]), path[:-1], model, more)
    else:
        there, value = _there(given, path)
        if there == path and value is None:
            yield path, NO_VALUE
        elif there == path:
            yield path, words_of(problem)
        elif _KIND.fullmatch(problem["type"]):
            # What pydantic adds to the path is which kind of value it tried, one after the other.
            yield there, _ONE_OF_SEVERAL
        else:  # a part of a text, or what nobody wrote
            yield (path if isinstance(value, Mapping) else there), words_of(problem)


def _there(given: Any, path: Path) -> tuple[Path, Any]:
    """As much of the path as was written, and what is there."""
    for at, part in enumerate(path):
        if isinstance(given, str):
            return path[:at], given
        try:
            given = given[part]
        except (LookupError, TypeError):
            return path[:at], given
    return path, given


_SECTIONS: Mapping[Path, str] = {
    ("otlp",): "below `otlp:`",
    ("privacy",): "below `privacy:`",
    ("webhook",): "below `webhook:`",
    ("outbox",): "below `outbox:`",
    ("destinations_policy",): "below `destinations_policy:`",
    (): "at the top of the file",
}


def _unknown(name: str, here: Path, model: type[BaseModel], more: Names) -> str:
    def names(path: Path) -> list[str]:
        return [*names_at(model, path), *more.get(path, ())]

    for path, words in _SECTIONS.items():
        if path != here and name in names(path):
            return f"there is no such setting here; it stands {words}"
    written = re.sub(r"^(otel_)?alloy_", "", name, flags=re.IGNORECASE)
    words = advice(written, names(here))
    return f"there is no such setting; {words or f'see {_ALL}'}"
