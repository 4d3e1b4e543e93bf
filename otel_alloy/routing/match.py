"""`match:` as people write it, and what it is held against: some fields of an execution, all of
which have to fit.

What can be decided while the settings are read is decided then: values are sorted into a set of
exact ones, patterns and comparisons, and every mistake is found. A pattern is cut at its stars and
searched from left to right, so no value takes longer than it is long. A value that an execution
does not have fits nothing, also no `*`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from otel_alloy.durations import duration_text, parse_duration
from otel_alloy.errors import WrongParts
from otel_alloy.mapping import semconv
from otel_alloy.near import advice, did_you_mean
from otel_alloy.routing.subject import (
    DURATION,
    FIELDS,
    OUTCOME,
    OUTCOMES,
    VERSION,
    Subject,
    duration_of,
)

KNOWN = (*FIELDS, DURATION)
"""The fields that can be matched."""
_ALIASES = {f"runalloy.{name}": name for name in FIELDS if not name.startswith("user.")} | {
    semconv.EXECUTION_OUTCOME: OUTCOME
}
del _ALIASES[f"runalloy.{OUTCOME}"]
_PERSONAL = (semconv.USER_EMAIL, semconv.USER_FULL_NAME, semconv.USER_HASH)
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_COMPARISON = re.compile(r"\s*(>=|<=|>|<)\s*(.*?)\s*", re.DOTALL)
_VERSION = re.compile(r"0|-?[1-9][0-9]{0,17}")
_SHOWN = 5
_LONGEST_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Pattern:
    """Text with `*`, each of which stands for any text, also none."""

    text: str
    first: str
    middle: tuple[str, ...]
    last: str
    least: int

    @classmethod
    def of(cls, text: str) -> Pattern:
        """The pattern that is written `text`, which holds a star at least."""
        first, *middle, last = text.split("*")
        return cls(text, first, tuple(filter(None, middle)), last, len(first) + len(last))

    def __call__(self, value: str) -> bool:
        """Whether all of `value` fits, each letter as it is."""
        if len(value) < self.least or not value.startswith(self.first):
            return False
        if not value.endswith(self.last):
            return False
        at, end = len(self.first), len(value) - len(self.last)
        for part in self.middle:
            at = value.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True


@dataclass(frozen=True, slots=True)
class Comparison:
    """A number and how a value has to stand to it."""

    text: str
    sign: str
    limit: float

    def __call__(self, value: str | float) -> bool:
        """Whether a value stands so to the number."""
        return _OPERATORS[self.sign](float(value), self.limit)


@dataclass(frozen=True, slots=True)
class Condition:
    """What a field's value has to be: one of `exact`, or what one of `others` accepts. `words`: how
    a person reads that."""

    field: str
    exact: frozenset[str]
    others: tuple[Pattern | Comparison, ...]
    words: str

    def fits(self, value: Any) -> bool:
        """Whether the value, or its absence (None), is as it has to be."""
        if value is None:
            return False
        if value in self.exact:
            return True
        for other in self.others:  # noqa: SIM110 - a generator costs more than what it asks
            if other(value):
                return True
        return False


Test = tuple[Callable[[Subject], Any], Callable[[Any], bool]]


@dataclass(frozen=True, slots=True)
class Match:
    """What executions have to be like; without conditions, anything."""

    conditions: tuple[Condition, ...]
    tests: tuple[Test, ...] = field(init=False, repr=False, compare=False)
    """What is asked of an execution and whether the answer fits, one after the other."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tests", tuple(_test(one) for one in self.conditions))

    @classmethod
    def parse(cls, given: object, empty: bool = False) -> Match:
        """The match that is written as fields and their values. `empty`: whether it may have none.
        Raises ValueError, which names each field that is wrong and what to write; WrongParts where
        fields are."""
        if given is None or given == {}:
            if not empty:
                raise ValueError("it matches nothing in particular; name a field, such as user.id")
            return cls(())
        if not isinstance(given, Mapping):
            raise ValueError("it has to be `field: value` lines, such as user.id: u_17")
        conditions: dict[str, Condition] = {}
        mistakes: list[tuple[tuple[str | int, ...], str]] = []
        for written, value in given.items():
            try:
                name = _field(written)
                if name in conditions:
                    raise ValueError(f"{name} is given twice, also as {_shown(written)}")
                conditions[name] = _condition(name, value)
            except ValueError as error:
                mistakes.append(((str(written),), str(error)))
        if mistakes:
            raise WrongParts(mistakes)
        return cls(tuple(conditions.values()))

    def __call__(self, subject: Subject) -> bool:
        """Whether the execution is like that."""
        for ask, fits in self.tests:  # noqa: SIM110 - as above, and on the hot path
            if not fits(ask(subject)):
                return False
        return True

    @property
    def words(self) -> str:
        """How a person reads it."""
        return " and ".join(f"{one.field} is {one.words}" for one in self.conditions) or "anything"

    def why_not(self, subject: Subject) -> str | None:
        """The first field that does not fit, and its value; None where all fit."""
        for one in self.conditions:
            value = _ask(one.field)(subject)
            if not one.fits(value):
                if value is None:
                    return f"it has no {one.field}"
                return f"{one.field} is {_told(one.field, value)}, not {one.words}"
        return None


def _ask(name: str) -> Callable[[Subject], Any]:
    return duration_of if name == DURATION else FIELDS[name]


def _test(one: Condition) -> Test:
    # The set's own method takes a third of the time of a method of ours.
    return _ask(one.field), one.fits if one.others else one.exact.__contains__


def _field(written: object) -> str:
    """The field that is meant. Raises ValueError."""
    name = str(written)
    if name in KNOWN:
        return name
    if name in _ALIASES:
        return _ALIASES[name]
    if name in _PERSONAL:
        raise ValueError(f"{name} cannot be matched, as it is personal data; match user.id")
    meant = did_you_mean(name, (*KNOWN, *_ALIASES))
    known = f"known are {', '.join(KNOWN)}"
    raise ValueError(f"there is no field {_shown(name)}; {' '.join(filter(None, (meant, known)))}")


def _condition(name: str, given: object) -> Condition:
    values = given if isinstance(given, list | tuple) else [given]
    if not values:
        raise ValueError(f"{name}: the list is empty, which fits nothing; leave {name} out")
    parts = [_value(name, value) for value in values]
    exact = frozenset(part for part in parts if isinstance(part, str))
    others = tuple(part for part in parts if not isinstance(part, str))
    return Condition(name, exact, others, _words(parts))


def _value(name: str, given: object) -> str | Pattern | Comparison:
    """One value, as it is held against an execution's. Raises ValueError."""
    if name == DURATION:
        if isinstance(given, str) and (compared := _COMPARISON.fullmatch(given)):
            try:
                # To the nanosecond, as the times of an execution are.
                limit = round(parse_duration(compared[2]) * 1e9) / 1e9
            except ValueError as error:
                raise ValueError(f"{name}: {error} after {compared[1]}") from None
            return Comparison(f"{compared[1]}{compared[2]}", compared[1], limit)
        raise ValueError(f'{name}: compare it, such as ">5s", ">=1m" or "<500ms", in quotes')
    if name == VERSION:
        return _version(given)
    if not isinstance(given, str):
        raise ValueError(f'{name}: write text, a number in quotes ("17"), or a list of these')
    if not given:
        raise ValueError(f"{name}: the text is empty, which fits nothing; leave {name} out")
    if "*" in given:
        pattern = Pattern.of(given)
        if name == OUTCOME and not any(map(pattern, OUTCOMES)):
            raise ValueError(f"{name}: no outcome is like that; there are {', '.join(OUTCOMES)}")
        return pattern
    if name == OUTCOME and given not in OUTCOMES:
        raise ValueError(f"{name}: {advice(given, OUTCOMES, 'there are')}")
    return given


def _version(given: object) -> str | Pattern | Comparison:
    if isinstance(given, int) and not isinstance(given, bool) and abs(given) < 10**18:
        return str(given)
    if isinstance(given, str):
        text = given.strip()
        if _VERSION.fullmatch(text):
            return text
        if re.fullmatch(r"[0-9*]*\*[0-9*]*", text):
            return Pattern.of(text)
        compared = _COMPARISON.fullmatch(text)
        if compared and _VERSION.fullmatch(compared[2]):
            return Comparison(f"{compared[1]}{compared[2]}", compared[1], float(compared[2]))
    raise ValueError(f'{VERSION}: write a whole number, a comparison such as ">=3", or a list')


def _words(parts: Sequence[str | Pattern | Comparison]) -> str:
    shown = [part if isinstance(part, str) else part.text for part in parts[:_SHOWN]]
    shown = [one if len(one) <= _LONGEST_SHOWN else one[:_LONGEST_SHOWN] + "…" for one in shown]
    if len(parts) > _SHOWN:
        return f"{', '.join(shown)} or one of {len(parts) - _SHOWN:,} more"
    return " or ".join(shown)


def _told(name: str, value: str | float) -> str:
    if isinstance(value, float):
        return duration_text(round(value * 1e9))
    return value


def _shown(written: object) -> str:
    """A name that is not known, short and on one line."""
    text = str(written)
    return ascii(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…")
