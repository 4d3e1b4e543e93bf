"""What rules and destinations cost an execution, in machine instructions, beside neither of them.

Counted as in `instructions.py`, with N and 2 N executions, each of a customer by chance; with
destinations, of as many customers as there are destinations, each of which gets its customer's
executions in requests of its own, and the main one gets all. None of the rules matches, so that
all are asked. Arguments: `--executions N`, `--page`, `--cases`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

from common import both_ends
from instructions import instructions

CASES = ("neither", "1 rule", "10 rules", "1 destination", "10 destinations", "1000 destinations")
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


def per_execution(case: str, page: int, few: int) -> float:
    """Instructions that each execution beyond `few` takes."""
    number, _, what = case.partition(" ")
    customers = int(number) if what.startswith("destination") else 1000
    counts = []
    for executions in (few, 2 * few):
        with both_ends(executions, customers=customers) as (alloy, otlp):
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
    neither = 0.0
    for case in options.cases.split(","):
        cost = per_execution(case, options.page, options.executions)
        neither = neither or cost
        print(f"{case}: {cost / 1000:,.1f} thousand, {cost / neither:.3f} of the first", flush=True)


if __name__ == "__main__":
    main()
