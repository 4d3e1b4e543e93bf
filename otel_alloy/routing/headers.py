"""Headers whose values hold an execution's own: `X-Scope-OrgID: "{user.id}"`.

What stands in such a value was chosen by a customer, or by whoever names workflows, so it is never
written as it is: what could end a header, join two tenants (`a|b`) or lead elsewhere (`..`) is
escaped. Two values never give the same text. The alphabet is the one that Grafana's backends take
for a tenant (letters, digits and `! - _ . * ' ( )`, 150 bytes), and other backends take as well:

    letters, digits, `-`, `_`, `.`      as they are
    every other byte of the UTF-8 text  `!` and two digits, as `!40` for `@`; also a dot that would
                                        begin a value of dots only
    more than 100 characters            `!sha256-` and the digest of the value
    no value                            `!none`, which no value is written as

Pure: nothing here is read or sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

MISSING = "!none"
_LONGEST = 100
_USUAL = re.compile(rf"(?!\.+\Z)[A-Za-z0-9_.-]{{1,{_LONGEST}}}", re.ASCII)
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
_PLACE = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[0-9A-Za-z_.-]+")
_TAKEN = re.compile(
    "accept|accept-encoding|connection|content-encoding|content-length|content-type|host|keep-alive"
    "|proxy-authorization|proxy-connection|te|trailer|transfer-encoding|upgrade|user-agent"
)


def escaped(value: str | None) -> str:
    """The value as it stands in a header."""
    if value is None:
        return MISSING
    if _USUAL.fullmatch(value):
        return value
    data = value.encode("utf-8", "surrogatepass")
    text = "".join([chr(byte) if byte in _PLAIN else f"!{byte:02X}" for byte in data])
    if not text.strip("."):
        text = f"!2E{text[1:]}"
    return text if len(text) <= _LONGEST else f"!sha256-{sha256(data).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Template:
    """One header. `texts`: what stands around the fields, one more than those."""

    name: str
    texts: tuple[str, ...]
    fields: tuple[str, ...]

    @classmethod
    def of(cls, name: str, value: str, known: Sequence[str]) -> Template:
        """The header that is written so. `known`: the fields that may stand in it. Raises
        ValueError."""
        lower = name.lower()
        if not _NAME.fullmatch(name) or lower.endswith("-bin") or lower.startswith("grpc-"):
            raise ValueError(f"{name!r} can be no header's name; use letters, digits and -")
        if _TAKEN.fullmatch(lower):
            raise ValueError(f"{name!r} belongs to the request itself; choose another name")
        *pairs, last = _PLACE.split(value)
        texts, fields = (*pairs[::2], last), tuple(pairs[1::2])
        if any(not re.fullmatch(r"[\x20-\x7e]*", t) or set(t) & set("{}") for t in texts):
            raise ValueError(
                f"{name}: holds braces around no field, control characters or characters outside "
                "ASCII; write text and {field}"
            )
        if value != value.strip():
            raise ValueError(f"{name}: begins or ends with a space; remove it")
        if not fields:
            raise ValueError(
                f"{name}: holds no field such as {{user.id}}; a header that is always the same "
                "belongs into OTEL_EXPORTER_OTLP_HEADERS"
            )
        for field in fields:
            if field not in known:
                few = ", ".join(known) or "nothing yet"
                raise ValueError(
                    f"{name}: {{{field[:60]}}} is not named in resource_per, which holds {few}; "
                    "add it there"
                )
        if any(not re.search(r"[^A-Za-z0-9_.!-]", text) for text in texts[1:-1]):
            raise ValueError(
                f"{name}: two fields stand too close to be told apart; write a character between "
                "them that no value has, such as *"
            )
        return cls(lower, texts, fields)

    def fill(self, values: Mapping[str, str | None]) -> str:
        """The value of the header for an execution with these values."""
        parts = [self.texts[0]]
        for field, text in zip(self.fields, self.texts[1:], strict=True):
            parts += (escaped(values[field]), text)
        return "".join(parts)
