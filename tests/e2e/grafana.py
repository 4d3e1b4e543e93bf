"""What Grafana's files ask the servers, and its variables put into the questions.

Grafana is not run by the tests (its licence), so what it does with a query before it sends it is
written down here once more, as its documentation has it: variables, their formats, and what the
data sources escape. Which of the queries are right is not judged here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from .conftest import CONFIGURATIONS, REPOSITORY

STACK = CONFIGURATIONS / "grafana-stack"
DASHBOARD = STACK / "grafana" / "dashboards" / "executions.json"
DATA_SOURCES = STACK / "grafana" / "provisioning" / "datasources" / "datasources.yaml"

Language = Literal["promql", "logql", "traceql"]
LANGUAGES: Mapping[str, Language] = {"prometheus": "promql", "tempo": "traceql", "loki": "logql"}

ALL: Sequence[str] = ()
"""All values of a variable that may have several."""

_VARIABLE = re.compile(r"\$\{(?P<braced>\w+)(?::(?P<format>\w+))?\}|\$(?P<bare>\w+)")
_SPECIAL = re.compile(r"[\\^$*+?.()|\[\]{}]")


@dataclass(frozen=True)
class Query:
    """A query as it stands in a file. `where`: file, panel and letter, for messages."""

    where: str
    language: Language
    text: str
    panel: int = 0
    ref: str = ""
    instant: bool = False


def board() -> dict[str, Any]:
    """The dashboard."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return found


def data_sources() -> dict[str, dict[str, Any]]:
    """The provisioned data sources by uid."""
    found = yaml.safe_load(DATA_SOURCES.read_text("utf-8"))["datasources"]
    return {source["uid"]: source for source in found}


def queries() -> list[Query]:
    """Every query of the dashboard's panels and of the data sources."""
    return [*_of_panels(), *_of_data_sources()]


def _of_panels() -> Iterator[Query]:
    for panel in board()["panels"]:
        for target in panel.get("targets", []):
            yield Query(
                f"{DASHBOARD.name}: {panel['title']} {target['refId']}",
                LANGUAGES[target["datasource"]["type"]],
                target["expr"] if "expr" in target else target["query"],
                panel["id"],
                target["refId"],
                target.get("instant", False),
            )


def _of_data_sources() -> Iterator[Query]:
    tempo = data_sources()["tempo"]["jsonData"]
    # `$$` is a `$` once the file is read: Grafana replaces variables of the environment in it.
    logs = tempo["tracesToLogsV2"]["query"].replace("$$", "$")
    yield Query(f"{DATA_SOURCES.name}: tracesToLogsV2", "logql", logs)
    for query in tempo["tracesToMetrics"]["queries"]:
        where = f"{DATA_SOURCES.name}: {query['name']}"
        yield Query(where, "promql", query["query"].replace("$$", "$"))


def interpolate(query: Query, values: Mapping[str, str | Sequence[str]]) -> str:
    """The query as it is sent. A sequence is what was chosen of a variable that may have several
    values; a variable without a value is a mistake."""

    def put_in(found: re.Match[str]) -> str:
        value = values[found["braced"] or found["bare"]]
        if isinstance(value, str):
            return value
        if not value:
            return ".*"  # the dashboard's own word for all; it is not escaped
        if found["format"] == "regex":
            return _either([_SPECIAL.sub(r"\\\g<0>", one) for one in value])
        # Within "…" a backslash is written twice, and the data sources see to that.
        return _either([_SPECIAL.sub(lambda m: rf"\\{m[0]}", one) for one in value])

    return _VARIABLE.sub(put_in, query.text)


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"({'|'.join(words)})"


def variables(query: str) -> set[str]:
    """The names of the variables in a query."""
    return {found["braced"] or found["bare"] for found in _VARIABLE.finditer(query)}


def documented() -> Iterator[tuple[str, str]]:
    """What README and pages say in code that begins like a query of Tempo or Loki: file, query. The
    name of a stream with a dot is VictoriaLogs' language, which is run."""
    pages = [REPOSITORY / "README.md"]
    for folder in ("docs", "examples", "collector-config"):
        pages += sorted((REPOSITORY / folder).rglob("*.md"))
    for page in pages:
        for found in re.findall(
            r"`(\{ ?(?!service\.name)[a-z_.]+ ?=[^`]*)`", page.read_text("utf-8")
        ):
            yield str(page.relative_to(REPOSITORY)), found
