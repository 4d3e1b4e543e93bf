"""What a person probably meant: the nearest of the names that there are.

Only a near one is offered, as a guess that is far off costs more than none. Nothing here knows what
the names are of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

_LONGEST = 80
_NEAR = 0.65
"""Difflib's ratio: `rum` and `run` have 0.67, `speed` and `lease` 0.4."""
_SHORTEST_PART = 4
_MOST_LISTED = 15


def nearest(written: object, known: Iterable[str]) -> str | None:
    """The one of `known` that `written` comes near: the same but for capitals and signs between
    words, else the only one that begins or ends with it, else the most similar one; None where it
    comes near none."""
    names = {_bare(name): name for name in known}
    bare = _bare(str(written)[:_LONGEST])
    if bare in names:
        return names[bare]
    if len(bare) >= _SHORTEST_PART:
        whole = [name for name in names if name.startswith(bare) or name.endswith(bare)]
        if len(whole) == 1:
            return names[whole[0]]
    close = get_close_matches(bare, names, n=1, cutoff=_NEAR)
    return names[close[0]] if close else None


def did_you_mean(written: object, known: Iterable[str]) -> str:
    """`did you mean …?` with the nearest; empty where `written` comes near none."""
    meant = nearest(written, known)
    return f"did you mean {meant}?" if meant else ""


def advice(written: object, known: Sequence[str], verb: str = "known are") -> str:
    """The nearest, where there is one, and all that there are, unless they are too many to read."""
    parts = [did_you_mean(written, known)]
    if len(known) <= _MOST_LISTED:
        parts.append(f"{verb} {', '.join(known)}")
    return " ".join(filter(None, parts))


def _bare(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()
