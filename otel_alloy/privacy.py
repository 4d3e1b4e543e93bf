"""What is taken out of an error's message before it is kept or sent: it is what an app answered,
and apps answer with what they were sent.

`mask` replaces e-mail addresses, bearer tokens, values of what is named like a secret, keys by
their usual beginnings, long runs of letters and digits, long numbers (cards, phones, dates), and in
URLs the user and the values of the query. What is left is meant to say what went wrong: words,
short numbers, hosts, paths. A person's name cannot be told from other words; whoever needs that
chooses `drop`. Nothing here logs, and no setting is read.
"""

from __future__ import annotations

import re
from typing import Literal

MessageChoice = Literal["keep", "mask", "drop"]
"""What becomes of an error's message."""
LONGEST = 1000
"""Characters of a message that are given."""
MASK = "***"
"""Stands for what was taken out."""

_LOOKED_AT = 4096
_ROUNDS = 5
_CONTROL = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029]+")
_LAST_WORD = re.compile(r"\S+\Z")

# Each is linear in the text: what repeats is possessive, and begins only where its run does.
_VALUE = r"""(?:\\*"[^"]*+"?+|\\*'[^']*+'?+|[^\s"',;&)}\]]++)"""
_NAMED = re.compile(
    r"(?i)((?<![\w.-])[\w.-]*?(?:api[_-]?key|token|secret|passw|passphrase|pwd|credential|private[_-]?key"
    r"|signature|session[_-]?id|authorization|cookie|x-api-key|client[_-]?id)[\w.-]{0,40}+"
    r"""\\*["']?+\s*+[=:]\s*+)(?:(?:bearer|basic|digest|token|apikey)\s++)?+"""
    + _VALUE
    + r"(?:;\s?+[\w.-]++="
    + _VALUE
    + r")*+"
)
_URL = re.compile(
    r"(?i)(?<![a-z0-9+.-])([a-z][a-z0-9+.-]{0,30}+://)"
    r"""([^\s?#"'<>]*@)?([^\s?#"'<>]*+)(\?[^\s#"'<>]*+)?(#[^\s"'<>]*+)?"""
)
_QUERY = re.compile(r"""(?<=[?&])([\w.%\[\]-]{1,60}+=)[^\s&#"'<>]*+""")
_ADDRESS = re.compile(
    r"""(?<![^\s<>"'(),;:=/\\*?&|{}\[\]])"""
    r"""(?:"[^"\n]{1,64}"|[^\s@<>"'(),;:=/\\*?&|{}\[\]]++)@[^\s<>"'(),;:=/\\*?&|{}\[\]]++"""
    r"""|(?<![\w.+%-])[\w.+-]++%40[\w.+%-]++"""
)
_BEARER = re.compile(
    r"(?i)\b(bearer|basic)(\s++)(?!(?:auth\w*+|tokens?|credentials?|\*\*\*)(?!\w))[\w.~+/=-]{4,}+"
)
_PREFIXED = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:sk|pk|rk|whsec|shp(?:at|ca|pa|ss)|gh[opsur]|github_pat|glpat|xox[a-z]"
    r"|xapp|npm|pat|key|tok|secret)[_-][A-Za-z0-9_-]{4,}+|AKIA[A-Z0-9]{8,}+|eyJ[\w.-]{8,}+)"
)
_RUN = re.compile(r"[A-Za-z0-9+/_-]{16,}+={0,2}+")
_PLAIN = re.compile(
    r"[a-z_-]{0,31}|[A-Za-z][a-z]{2,20}(?:[A-Z][a-z]{2,12}|Id|Of|To|By){0,4}|v?[0-9]{1,4}|[0-9]{4}-[0-9]{2}"
)
_NUMBER = re.compile(r"\+?\d(?:[ ().:-]{0,2}\d){5,}+")


def masked(message: str | None, choice: MessageChoice) -> str | None:
    """The message in one line of at most LONGEST characters, as `choice` wants it; None where there
    is none, or none is wanted. What was masked stays as it is when it is masked again."""
    if message is None or choice == "drop":
        return None
    text = _CONTROL.sub(" ", message[:_LOOKED_AT]).strip()
    if choice == "keep":
        return text[:LONGEST].rstrip() or None
    if len(message) > _LOOKED_AT:
        text = _LAST_WORD.sub("", text)  # half a secret would not look like one
    for _ in range(_ROUNDS):
        before, text = text, _once(text)[:LONGEST].strip()
        if text == before:
            return text or None
    return MASK


def _once(text: str) -> str:
    text = _NAMED.sub(rf"\g<1>{MASK}", text)
    text = _URL.sub(_url, text)
    text = _QUERY.sub(rf"\g<1>{MASK}", text)
    text = _ADDRESS.sub(MASK, text)
    text = _BEARER.sub(rf"\g<1>\g<2>{MASK}", text)
    text = _PREFIXED.sub(MASK, text)
    text = _RUN.sub(_run, text)
    return _NUMBER.sub(MASK, text)


def _url(found: re.Match[str]) -> str:
    scheme, user, place, query, fragment = found.groups("")
    names = (part.partition("=") for part in query[1:].split("&"))
    values = "&".join(f"{name}={MASK}" if equals else MASK for name, equals, _ in names)
    return "".join(
        (
            scheme,
            user and f"{MASK}@",
            place,
            query and f"?{values}",
            fragment and f"#{MASK}",
        )
    )


def _run(found: re.Match[str]) -> str:
    """A run without what looks random in it. Where something does, only plain words and short
    numbers stay, as those of a path do."""
    run = found[0]
    parts = run.split("/")
    if not any(map(_looks_random, parts)) and not (len(run) >= 24 and _is_mixed(run)):
        return run
    return "/".join(part if _PLAIN.fullmatch(part) else MASK for part in parts)


def _looks_random(part: str) -> bool:
    if len(part) < 16:
        return False
    return len(part) >= 32 or (any(c.isdigit() for c in part) and any(c.isalpha() for c in part))


def _is_mixed(run: str) -> bool:
    return run != run.lower() and run != run.upper()
