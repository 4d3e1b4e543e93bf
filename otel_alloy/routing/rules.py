"""`rules:` — which executions are kept, dropped or sampled. The first rule that matches decides;
what none matches is kept.

Sampling is decided by the execution's own trace id, as OpenTelemetry's consistent probability
sampling decides it: the same execution is always decided alike, here and in every other process,
and what a rule keeps at 1 % another one keeps at 10 %. Failures are not sampled out unless the rule
says so. What there is to say of a decision is put into words once, when the rules are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, isfinite
from typing import NamedTuple

from otel_alloy.errors import WrongParts
from otel_alloy.near import advice
from otel_alloy.routing.match import Match
from otel_alloy.routing.subject import Subject

_KEYS = ("name", "match", "drop", "keep", "sample", "errors")
_ACTIONS = ("drop", "keep", "sample")
_LONGEST_NAME = 100

Mistake = tuple[tuple[str | int, ...], str]
"""Where in the rules, and in words."""


class Decision(NamedTuple):
    """Whether an execution is kept, by which rule (None: none matched), and why."""

    kept: bool
    rule: str | None
    why: str


NO_RULE = Decision(True, None, "no rule matches, so it is kept")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `share`: of what it matches this part is kept, from 0 (drop) to 1 (keep). `errors`:
    whether that holds for failures, too."""

    name: str
    match: Match
    share: float
    errors: bool = True
    _least: int = field(init=False, repr=False, compare=False)
    _always: Decision | None = field(init=False, repr=False, compare=False)
    _sampled: tuple[Decision, Decision] = field(init=False, repr=False, compare=False)
    _spared: Decision = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        name, part = self.name, f"{self.share * 100:.6g} %"
        always = None
        if self.share in (0, 1) and self.errors:
            does = "keeps" if self.share else "drops"
            always = Decision(self.share == 1, name, f"{name} {does} it: {self.match.words}")
        out = Decision(False, name, f"{name} keeps {part} by trace id, and not this one")
        kept = Decision(True, name, f"{name} keeps {part} by trace id, and this one")
        spared = Decision(True, name, f"{name} keeps {part}, and all that failed, as this one")
        object.__setattr__(self, "_least", ceil((1 - self.share) * 2**56))
        object.__setattr__(self, "_always", always)
        object.__setattr__(self, "_sampled", (out, kept))
        object.__setattr__(self, "_spared", spared)

    @property
    def words(self) -> str:
        """What it does, as a person writes it."""
        if self.share in (0, 1) and self.errors:
            return "keep" if self.share else "drop"
        return f"sample {self.share:.6g}" + (", errors too" if self.errors else "")

    def decide(self, subject: Subject) -> Decision:
        """What becomes of an execution that it matches."""
        if self._always is not None:
            return self._always
        if not self.errors and subject.failed:
            return self._spared
        return self._sampled[subject.randomness >= self._least]


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules in their order."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, given: object) -> Rules:
        """The rules that are written as a list. Raises ValueError; WrongParts with every mistake in
        a rule, each by the name or the number of its rule."""
        if isinstance(given, Rules):
            return given
        if given is None:
            return cls()
        if not isinstance(given, list | tuple):
            raise ValueError("it has to be a list, each with a `match` and what to do")
        rules: dict[str, Rule] = {}
        mistakes: list[Mistake] = []
        for number, one in enumerate(given, 1):
            try:
                rule = _rule(one, number)
            except WrongParts as error:
                called = _called(one, number)
                mistakes += [
                    ((number - 1, *path), f"{called}: {words}") for path, words in error.parts
                ]
                continue
            if rule.name in rules:
                words = f"{rule.name}: two rules have this name; give each its own `name`"
                mistakes.append(((number - 1,), words))
            rules[rule.name] = rule
        if mistakes:
            raise WrongParts(mistakes)
        return cls(tuple(rules.values()))

    @property
    def empty(self) -> bool:
        """Whether there are none, so that everything is kept."""
        return not self.rules

    def decide(self, subject: Subject) -> Decision:
        """What becomes of an execution."""
        for rule in self.rules:
            for ask, fits in rule.match.tests:  # here, as a call for each rule costs half as much
                if not fits(ask(subject)):
                    break
            else:
                return rule.decide(subject)
        return NO_RULE


def _called(given: object, number: int) -> str:
    name = given.get("name") if isinstance(given, Mapping) else None
    return name if _is_name(name) and isinstance(name, str) else f"rule {number}"


def _is_name(name: object) -> bool:
    if not isinstance(name, str) or not name.strip():
        return False
    return len(name) <= _LONGEST_NAME and name.isprintable()


def _rule(given: object, number: int) -> Rule:
    """Raises WrongParts."""
    if not isinstance(given, Mapping):
        raise WrongParts([((), "it has to be `match: …` and one of drop, keep, sample")])
    mistakes: list[Mistake] = [
        ((str(key),), _unknown(str(key))) for key in given if key not in _KEYS
    ]
    name = given.get("name", f"rule {number}")
    if not _is_name(name):
        words = f"name: write text of 1 to {_LONGEST_NAME} characters on one line"
        mistakes.append((("name",), words))
    match, share = Match(()), 1.0
    try:
        match = Match.parse(given.get("match"), empty=True)
    except WrongParts as error:
        mistakes += [(("match", *path), f"match: {words}") for path, words in error.parts]
    except ValueError as error:
        mistakes.append((("match",), f"match: {error}"))
    errors = given.get("errors", False)
    try:
        share = _share(given)
        if type(errors) is not bool:
            raise ValueError("errors: write true or false")
        if "errors" in given and "sample" not in given:
            raise ValueError("errors stands with sample only; drop and keep hold for all anyway")
    except ValueError as error:
        mistakes.append(((), str(error)))
    if mistakes:
        raise WrongParts(mistakes)
    return Rule(name, match, share, errors or "sample" not in given)


def _share(given: Mapping[str, object]) -> float:
    """Raises ValueError."""
    actions = [action for action in _ACTIONS if action in given]
    if len(actions) != 1:
        told = " and ".join(actions)
        raise ValueError(
            f"it says {told or 'not what to do'}; write one of drop: true, keep: true, sample: 0.1"
        )
    (action,) = actions
    value = given[action]
    if action != "sample":
        if value is not True:
            raise ValueError(f"{action}: write {action}: true, or leave it out")
        return 0.0 if action == "drop" else 1.0
    try:
        share = float(value) if isinstance(value, int | float | str) else 0.0
    except (ValueError, OverflowError):
        share = 0.0
    if isinstance(value, bool) or not (isfinite(share) and 0 < share <= 1):
        raise ValueError("sample: write the part to keep, above 0 and up to 1, such as 0.1")
    return share


def _unknown(key: str) -> str:
    return f"there is no {key[:_LONGEST_NAME]!a}; {advice(key, _KEYS)}"
