"""Finding the matches that an execution fits costs the same among ten as among ten thousand."""

import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from otel_alloy.mapping.convert import Execution
from otel_alloy.routing.index import Index
from otel_alloy.routing.match import Match
from otel_alloy.routing.subject import Subject

from .executions import executions, matches, subject

many = st.lists(matches.map(lambda fields: Match.parse(fields, empty=True)), max_size=8)


@given(many, executions)
def test_the_index_finds_what_trying_each_finds(found: list[Match], execution: Execution) -> None:
    """The same names, in the order in which they were given."""
    by_name = {f"destination {-number}": match for number, match in enumerate(found)}
    asked = Subject(execution)
    tried = [name for name, match in by_name.items() if match(asked)]
    assert Index(by_name).find(asked) == tried


def calls(index: Index, asked: Subject) -> int:
    """How many functions one look-up calls."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        index.find(asked)
    finally:
        sys.setprofile(None)
    return count


def test_what_names_users_is_looked_up() -> None:
    """Among 10,000 matches no more is called than among ten, also where they share other fields and
    name several users, and what is looked for is among them."""

    def made(count: int, **more: Any) -> Index:
        return Index(
            {
                f"d{number}": Match.parse({**more, "user.id": [f"u_{number}", f"v_{number}"]})
                for number in range(count)
            }
        )

    asked = subject(userId="u_3")
    for more in ({}, {"team.id": "team", "outcome": ["success", "error"], "workflow.name": "O*"}):
        few, lots = made(10, **more), made(10_000, **more)
        assert few.find(asked) == lots.find(asked) == ["d3"]
        assert calls(lots, asked) == calls(few, asked) < 40
