"""How environment variables are read, for everybody who reads some: an empty one counts as unset
(OpenTelemetry specification, SDK environment variables), and quotes that were kept are a mistake.

No variable is known here by its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def first_set(environment: Mapping[str, str], names: Iterable[str]) -> tuple[str, str]:
    """The first of the variables that is not empty, and its value without spaces around it; two
    empty texts where none is."""
    for name in names:
        if value := environment.get(name, "").strip():
            return name, value
    return "", ""


def without_empty(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that are set: those that hold more than spaces."""
    return {name: value for name, value in environment.items() if value.strip()}


def kept_quotes(variable: str, value: str) -> str | None:
    """The mistake where a value stands in quotes, or one of two quotes is left; else None. A shell
    takes them away; `docker --env-file` does not. The value is not shown."""
    text = value.strip()
    for quote in "\"'":
        if text.startswith(quote) or (text.endswith(quote) and text.count(quote) == 1):
            return (
                f"{variable} has quotes ({quote}) around its value, which `docker --env-file` and "
                "the like keep: write the value without them."
            )
    return None
