"""What kinds of values several settings have in common, and how a mistake in one is told.

Nothing here knows where a value comes from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from otel_alloy.durations import parse_duration

Seconds = Annotated[float, BeforeValidator(parse_duration)]
PrivacyChoice = Literal["keep", "hash", "drop"]


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


def words_of(problem: Mapping[str, Any], known: Iterable[str]) -> str:
    """What is wrong, for one of pydantic's errors, without the value. `known`: the settings that
    there are where it lies."""
    if problem["type"] == "missing":
        return "it is missing; write one"
    if problem["type"] == "extra_forbidden":
        return f"there is no such setting; known are {', '.join(known)}"
    return str(problem["msg"]).removeprefix("Value error, ")
