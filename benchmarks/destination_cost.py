"""What rules and destinations cost an execution, in machine instructions, beside neither of them.

Counted as in `instructions.py`, with N and 2 N executions: of 1,000 customers with rules, none of
which matches, so that all are asked; with destinations, of as many customers as destinations, each
of which gets its customer's executions in requests of its own, and the main one gets all.
Arguments: `--executions N`, `--page`, `--cases`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from functools import partial

from common import both_ends
from instructions import instructions

CASES = ("1 rule", "10 rules", "1 destination", "10 destinations", "1000 destinations")
RULES = [
    *({"match": {"user.id": f"nobody {number}"}, "drop": True} for number in range(4)),
    *({"match": {"workflow.name": f"Nothing {number}*"}, "drop": True} for number in range(3)),
    {"match": {"outcome": "error", "team.id": "none"}, "drop": True},
    {"match": {"workflow.id": ["a", "b"], "outcome": "success"}, "drop": True},
    {"match": {"workflow.version": ">=1000"}, "drop": True},
]


def settings(case: str, otlp: str) -> Mapping[str, object]:
    """What a case adds to the settings."""
    number, _, what = case.partition(" ")
    if what.startswith("rule"):
        return {"rules": RULES[: int(number)]}
    if what.startswith("destination"):
        return {
            "destinations": {
                f"d{n}": {"match": {"user.id": f"u{n}"}, "otlp": {"endpoint": otlp}}
                for n in range(int(number))
            }
        }
    return {}


def customers(case: str) -> int:
    """Of how many customers the executions are."""
    number, _, what = case.partition(" ")
    return int(number) if what.startswith("destination") else 1000


def per_execution(case: str, number: int, page: int, few: int) -> float:
    """Instructions that each execution of so many customers takes beyond `few`."""
    counts = []
    for executions in (few, 2 * few):
        with both_ends(executions, customers=number) as (alloy, otlp):
            more = json.dumps(settings(case, otlp))
            counts.append(
                instructions("otel_alloy_once.py", alloy, otlp, str(page), "none", "off", more)
            )
    return (counts[1] - counts[0]) / few


def main() -> None:
    """Prints a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=4_000)
    parser.add_argument("--page", type=int, default=100)
    parser.add_argument("--cases", default=",".join(CASES))
    options = parser.parse_args()
    count = partial(per_execution, page=options.page, few=options.executions)
    neither: dict[int, float] = {}
    for case in options.cases.split(","):
        number = customers(case)
        if number not in neither:
            neither[number] = count("neither", number)
        cost = count(case, number)
        print(
            f"{case}: {cost / 1000:,.1f} thousand, neither of them, with as many customers "
            f"({number}), {neither[number] / 1000:,.1f}: {cost / neither[number]:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
