"""What kinds of values several settings have in common, which names there are where, and how a
mistake in one is told.

Nothing here knows where a value comes from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from otel_alloy.durations import parse_duration
from otel_alloy.near import did_you_mean

Seconds = Annotated[float, BeforeValidator(parse_duration)]
PrivacyChoice = Literal["keep", "hash", "drop"]

NOT_WRITTEN = "environment"
"""The field that is no setting, but the variables that others read."""


class Model(BaseModel):
    """Settings that belong together."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Privacy(Model):
    """What becomes of personal data, by attribute."""

    user_email: PrivacyChoice = Field("keep", alias="user.email", description="user.email")
    user_full_name: PrivacyChoice = Field(
        "keep", alias="user.full_name", description="user.full_name"
    )
    error_message: Literal["keep", "mask", "drop"] = Field(
        "mask", description="what an app answered when an execution failed"
    )
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @property
    def hashes(self) -> bool:
        """Whether something is to be hashed, which takes a key."""
        return "hash" in (self.user_email, self.user_full_name)

    def over(self, general: Privacy) -> Privacy:
        """`general`, with what is said here in its place."""
        own = {name: getattr(self, name) for name in self.model_fields_set}
        return general.model_copy(update=own)


def names_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The settings that there are at `path` within `model`, as files have them; empty where names
    are free there, or values."""
    kind: Any = model
    for part in path:
        kind = _part(kind, part)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        named = (field.alias or name for name, field in kind.model_fields.items())
        return [name for name in named if name != NOT_WRITTEN]
    return []


def choices_in(model: type[BaseModel]) -> set[str]:
    """All names of settings in `model`, at any depth, and the words that they take."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        found |= {name, field.alias or name}
        kind = _inner(field.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= choices_in(kind)
        elif get_origin(field.annotation) is Literal:
            found |= set(get_args(field.annotation))
    return found


def _part(kind: Any, part: str | int) -> Any:
    """The kind of a part of a value of `kind`; None where that is not known."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            if part in (name, field.alias):
                return field.annotation
        return None
    return _inner(kind)


def _inner(kind: Any) -> Any:
    """What lists and mappings of `kind` consist of; `kind` itself where it is neither."""
    if get_origin(kind) in (dict, tuple, list):
        kind = get_args(kind)[1 if get_origin(kind) is dict else 0]
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return kind


_PLAIN_WORDS = {
    "missing": "it is missing; write one",
    "string_type": "it has to be text; put it into quotes",
    "int_parsing": "it has to be a whole number (an integer)",
    "int_type": "it has to be a whole number (an integer)",
    "int_from_float": "it has to be a whole number (an integer)",
    "bool_parsing": "it has to be true or false",
    "bool_type": "it has to be true or false",
    "model_type": "it has to be `name: value` lines",
    "dict_type": "it has to be `name: value` lines",
    "tuple_type": "it has to be a list",
}


def words_of(problem: Mapping[str, Any]) -> str:
    """What is wrong, for one of pydantic's errors, without the value."""
    kind, message = problem["type"], str(problem["msg"])
    words = _PLAIN_WORDS.get(kind) or message.replace("Input should be", "it has to be")
    if kind == "literal_error":
        meant = did_you_mean(problem["input"], re.findall(r"'([^']*)'", message))
        return f"{words}; {meant}" if meant else words
    return words.removeprefix("Value error, ")
