"""Where a PostgreSQL database is, from the URL in `storage`. Pure, and never says a password."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from otel_alloy.errors import CheckpointError

SCHEMES = ("postgresql://", "postgres://")
SCHEMA = "otel_alloy"
_SECRETS = ("password", "sslpassword")
_ADVICE = (
    "write postgresql://USER@HOST:PORT/DATABASE, with %-escapes for what is special in a password, "
    "or leave the password to PGPASSWORD, ~/.pgpass or a service file"
)


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """`url`: what libpq reads. `schema`: where the tables are. `place`: for messages. `secrets`:
    what must never be said."""

    url: str = field(repr=False)
    schema: str
    place: str
    secrets: frozenset[str] = field(default=frozenset(), repr=False)

    def masked(self, words: str) -> str:
        """Words without the secrets."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            words = words.replace(secret, "***")
        return words


def is_postgres(url: str) -> bool:
    """Whether a URL names a PostgreSQL database."""
    return url.startswith(SCHEMES)


def place_of(url: str) -> str:
    """A `storage` URL without its secrets."""
    return parse_postgres(url).place if is_postgres(url) else url


def parse_postgres(url: str) -> PostgresUrl:
    """Raises CheckpointError where libpq would read another place from it than a person does."""
    if url.count("@") > 1 or any(c.isspace() for c in url):
        raise CheckpointError("OTEL_ALLOY_STORAGE: the PostgreSQL URL is ambiguous", _ADVICE)
    try:
        parts = urlsplit(url)
        parameters = parse_qsl(
            parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)
        )
    except ValueError:
        raise CheckpointError("OTEL_ALLOY_STORAGE: no URL that can be read", _ADVICE) from None
    named = dict(parameters)
    schema = named.pop("schema", SCHEMA)
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema) or schema.startswith("pg_"):
        raise CheckpointError(
            "OTEL_ALLOY_STORAGE: the `schema` is none that PostgreSQL takes unquoted",
            "write lower case letters, digits and underscores",
        )
    user, _, hosts = parts.netloc.rpartition("@")
    _, _, password = user.partition(":")
    secrets = {unquote(password), password, *(named.get(name, "") for name in _SECRETS)}
    query = urlencode(named, quote_via=quote)
    plain = f"{parts.scheme}://{parts.netloc}{parts.path}" + (f"?{query}" if query else "")
    database = unquote(parts.path.strip("/")) or named.get("dbname", "")
    where = named.get("host") or hosts or named.get("service", "")
    place = "PostgreSQL" + (f" at {where}" if where else "")
    place += f", database {database}" if database else ""
    return PostgresUrl(plain, schema, place, frozenset(secrets - {""}))
