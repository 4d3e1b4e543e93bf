"""HTML that is made of elements, so that nothing can be forgotten to be escaped.

`element` escapes every text that is put into it, attributes included; only what `element` made is
taken as it stands. Nothing here knows what is shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_VOID = frozenset(("meta", "rect", "link", "br"))


class Html(str):
    """Text that is HTML already. Only this module makes it, and whoever has text of ours that is
    HTML as it stands, such as a style sheet."""

    __slots__ = ()


Child = str | None | Iterable["Child"]
"""What stands in an element: text, elements, lists of both; nothing."""


def element(name: str, /, *children: Child, **attributes: str | int | float | None) -> Html:
    """An element. Attributes: `class_` is `class`, and `aria_label` is `aria-label`; one that is
    None is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{written}/>")
    return Html(f"<{name}{written}>{text(children)}</{name}>")


def text(child: Child) -> Html:
    """Text, elements and lists of both, as HTML."""
    if child is None:
        return Html("")
    if isinstance(child, Html):
        return child
    if isinstance(child, str):
        return Html(escape(child))
    return Html("".join(text(one) for one in child))
