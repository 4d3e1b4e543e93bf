"""The documentation: it builds, leads nowhere that is not there, and says what the code does."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click
import pytest
import yaml
from markdown_it import MarkdownIt

from otel_alloy import cli
from otel_alloy.errors import ConfigurationError
from otel_alloy.observability import metrics as telemetry
from otel_alloy.otlp.answers import answers_table
from otel_alloy.otlp.backends import BACKENDS
from otel_alloy.settings.loader import load_settings
from otel_alloy.settings.variables import KNOWN

pytest.importorskip("zensical", reason="the extra `docs` is not installed")

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
TESTDATA = Path(__file__).parent / "testdata"
README = (REPOSITORY / "README.md").read_text("utf-8")
sys.path.insert(0, str(DOCS))

import generated  # noqa: E402
import page_pictures  # noqa: E402
import pages  # noqa: E402
import reference  # noqa: E402

SOURCES = {path.name: path for path in (*DOCS.glob("*.md"), REPOSITORY / "README.md")} | {
    name: REPOSITORY / source for name, source in pages.TAKEN_OVER.items()
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    subprocess.run([sys.executable, DOCS / "pages.py", "--site", folder], check=True)
    return folder


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site's sources."""
    folder = tmp_path_factory.mktemp("docs") / "staged"
    pages.stage(folder)
    return folder


class _Page(HTMLParser):
    """Ids, links and what a browser would load, of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.classes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        self.ids.add(found.get("id", ""))
        self.classes.update(found.get("class", "").split())
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") not in ("canonical", "next", "prev", "alternate"):
            self.loaded.append(found["href"])
        for name in ("src", "srcset", "poster", "data"):
            if name in found:
                self.loaded.append(found[name])


def _pages(site: Path) -> dict[Path, _Page]:
    return {path: _Page(path.read_text("utf-8")) for path in site.rglob("*.html")}


def test_every_page_is_in_the_navigation(site: Path) -> None:
    """The site builds with warnings as errors; each page can be reached, and each entry exists."""

    def entries(node: Any) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        else:
            for child in node.values() if isinstance(node, dict) else node:
                yield from entries(child)

    navigation = list(entries(yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"]))
    assert sorted(navigation) == sorted(pages.sources())
    for name in navigation:
        page = site / name.removesuffix(".md").removesuffix("index") / "index.html"
        assert page.exists(), name


def test_every_link_and_anchor_resolves(site: Path) -> None:
    """No link, picture or anchor of a built page leads nowhere within the site."""
    built = _pages(site)
    checked = 0
    for path, page in built.items():
        if path.name == "404.html":
            continue  # is served from anywhere, so its links are absolute
        for link in (*page.links, *page.loaded):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{path.relative_to(site)}: {link}"
            if parts.fragment and target in built:
                assert unquote(parts.fragment) in built[target].ids, f"{path}: {link}"
            checked += 1
    assert checked > 500


def test_links_work_in_the_repository_too() -> None:
    """What the site takes over, and the README, link to files that are there."""
    for name, path in SOURCES.items():
        text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^()\s]+)\)", text):
            if not re.match(r"[a-z]+:|#", target):
                assert (path.parent / target.partition("#")[0]).exists(), f"{name}: {target}"


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """No page, style sheet or picture loads a script, style, font or image from another host, and
    none has what makes the theme's own script fetch one (diagrams, light boxes, live code)."""
    for path, page in _pages(site).items():
        for source in page.loaded:
            assert not urlsplit(source).netloc, f"{path.name}: {source}"
        assert not page.classes & {"mermaid", "glightbox", "arithmatex"}, path.name
    for path in (*site.rglob("*.css"), *site.rglob("*.svg")):
        text = path.read_text("utf-8")
        assert not re.search(r"@import|@font-face|url\(\s*['\"]?(https?:)?//|href=.http", text), (
            path
        )


def test_pictures_are_used_and_of_a_terminal() -> None:
    """Each picture in docs/images stands in a page; those of a terminal are made by the script and
    are SVG text, those of a browser are PNG, and small."""
    from xml.etree import ElementTree

    texts = "".join(path.read_text("utf-8") for path in SOURCES.values())
    for path in (DOCS / "images").iterdir():
        assert path.suffix in (".svg", ".png") and f"images/{path.name}" in texts, path.name
    pictures = {path.stem: path for path in (DOCS / "images").glob("*.svg")}
    script = (DOCS / "screenshots.py").read_text("utf-8")
    assert {"demo", "tail", "summary"} <= set(pictures)
    for name, path in pictures.items():
        assert f'"{name}": Shot(' in script, name
        drawn = ElementTree.parse(path).getroot().itertext()
        assert "Shopify orders to NetSuite" in drawn, f"{name}: not the simulator's data"
    photos = {path.stem: path for path in (DOCS / "images").glob("*.png")}
    for name in page_pictures.LOOKS:
        assert photos[name].stat().st_size < 100_000, name


# What is made from the code ----------------------------------------------------------------------


def test_pages_are_as_the_code_has_it_now() -> None:
    """Each block that a page has from the code is committed as the code makes it today; whatever
    can be made stands in some page."""
    assert not generated.stale(), f"run `{generated.COMMAND}` and commit what it writes"
    texts = "".join(path.read_text("utf-8") for path in generated.pages())
    for name in reference.TABLES:
        assert f"<!-- generated: {name} -->\n" in texts, name


def test_a_stale_block_is_named_and_made_anew() -> None:
    """Only what differs is named; the text around it stays. A block that nothing makes or that
    does not end is an error, not an empty page."""
    tables = {"one": lambda: "| 1 |", "two": lambda: "| 2 |"}
    page = "".join(
        f"before\n<!-- generated: {name} -->\n\n| 1 |\n\n<!-- end of generated -->\nafter\n"
        for name in tables
    )
    assert generated.renewed(page, tables) == (page[::-1].replace("1", "2", 1)[::-1], ["two"])
    for wrong, told in (("three -->", "nothing makes 'three'"), ("one", "end of generated")):
        with pytest.raises(generated.WrongPage, match=told):
            generated.renewed(page.replace("one -->", wrong), tables)
    with pytest.raises(generated.WrongPage, match="end of generated"):
        generated.renewed(page + "<!-- generated: one -->\n", tables)


def test_a_forge_shows_the_blocks_as_they_are_meant() -> None:
    """By the rules of CommonMark and of tables: the markers are comments, every row of a table is a
    row with as many cells as its head, no line ends in a space."""
    for name, make in reference.TABLES.items():
        text = f"before\n\n<!-- generated: {name} -->\n\n{make()}\n\n<!-- end of generated -->\n"
        assert not re.search(r"[ \t]$", text, re.MULTILINE), name
        tokens = MarkdownIt("commonmark").enable("table").parse(text)
        comments = [token.content.strip() for token in tokens if token.type == "html_block"]
        assert comments[0] == f"<!-- generated: {name} -->", name
        assert comments[-1] == "<!-- end of generated -->", name
        written = [line for line in text.splitlines() if line.startswith("|")]
        shown = sum(token.type == "tr_open" for token in tokens)
        heads = sum(token.type == "thead_open" for token in tokens)
        assert shown + heads == len(written), name  # the line below a head is no row
        width = 0
        for line, following in pairwise([*written, ""]):
            cells = len(re.findall(r"(?<!\\)\|", line)) - 1
            width = cells if following and set(following) <= set("|- ") else width
            assert cells == width, f"{name}: {line}"


# Settings ----------------------------------------------------------------------------------------

SETTINGS = [*reference.source_settings(), *reference.process_settings()]


def _mistakes(environment: dict[str, str], file: str | None = None) -> str:
    try:
        load_settings({}, environment, file=file)
    except ConfigurationError as error:
        return "\n".join(error.mistakes)
    return ""


def test_settings_are_those_of_the_code(staged: Path) -> None:
    """Every variable that the code takes is documented, on the page and in the README, and no
    other one; likewise every key of the file and every flag."""
    taken = set(KNOWN)
    assert {s.variable for s in SETTINGS} - {""} == taken
    taken |= {"OTEL_ALLOY_CONFIG", "OTEL_ALLOY_PROPAGATOR_SAMPLED"}
    page = (staged / "settings.md").read_text("utf-8")
    for text in (page, README):
        named = set(re.findall(r"\bOTEL_ALLOY_[A-Z_]+[A-Z]\b|\bALLOY_[A-Z_]+[A-Z]\b", text))
        assert named - {"ALLOY_KEY_PRODUCTION", "ALLOY_KEY_STAGING"} == taken
    for variable in taken:
        assert "no such setting" not in _mistakes({variable: "?"}), variable

    flags = {s.flag for s in SETTINGS} - {""}
    for command in ("run", "backfill", "check"):
        section = _commands_page().partition(f"## otel-alloy {command}\n")[2].partition("\n## ")[0]
        have = set(reference._flags(cli.commands.commands[command]).values())
        assert flags <= have, command
        for flag in have - flags:
            assert f"`{flag}" in section, f"{command} {flag}"


def test_the_answer_table_is_on_the_page_of_endpoints(staged: Path) -> None:
    """The page holds the table that the code goes by, and where it comes from: at least 30 threads
    and pages, each once."""
    page = (staged / "otlp-endpoints.md").read_text("utf-8")
    assert answers_table() in page
    addresses = re.findall(r"^\| \[[^\]]+\]\((https://[^)]+)\)", page, re.MULTILINE)
    assert len(addresses) == len(set(addresses)) >= 30


def _commands_page() -> str:
    return reference.TABLES["commands"]()


def test_settings_file_takes_every_key(tmp_path: Path) -> None:
    """A YAML file may hold every key that the tables name, with its documented default."""
    lines = [
        f"{s.key.replace(':', ': {')}: {json.dumps(s.default)}" + ("}" if ":" in s.key else "")
        for s in SETTINGS
        if s.default
    ]
    merged: dict[str, Any] = {"api_key": "any"}
    for line in lines:
        for key, value in yaml.safe_load(line).items():
            if isinstance(value, dict):
                merged.setdefault(key, {}).update(value)
            else:
                merged[key] = value
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(merged))
    assert load_settings({}, {}, file=str(file)) == load_settings({}, {"ALLOY_API_KEY": "any"})


def test_readme_has_the_defaults() -> None:
    """The README's table of settings tells the defaults that the code has."""
    defaults: dict[str, str] = {}
    for row in re.findall(r"^\| (`[A-Z].*) \|$", README, flags=re.MULTILINE):
        names, default = row.replace("| |", "|  |").split(" | ")[:2]
        for variable in re.findall(r"`((?:OTEL_)?ALLOY_[A-Z_]+)`", names):
            defaults[variable] = default.strip("` ")
    for setting in SETTINGS:
        if setting.variable and setting.variable != "OTEL_ALLOY_PRIVACY_KEY":
            assert defaults[setting.variable] == setting.default, setting.variable


def test_otel_variables_are_those_of_the_code(staged: Path) -> None:
    """The variables of OpenTelemetry that the code reads are on the page, and no others."""
    code = "".join(p.read_text("utf-8") for p in (REPOSITORY / "otel_alloy").rglob("*.py"))
    read = set(re.findall(r"\bOTEL_(?!ALLOY|EXPORTER_OTLP)[A-Z_]+[A-Z]\b", code))
    read.remove("OTEL_PROPAGATORS")  # is read in the services that Alloy calls
    from otel_alloy.settings.otlp_section import OTLP_KEYS

    read |= {f"OTEL_EXPORTER_OTLP_{key.upper()}" for key in OTLP_KEYS}
    page = (staged / "settings.md").read_text("utf-8")
    named = set(re.findall(r"^\| (`OTEL_(?!ALLOY).*?) \|", page, flags=re.MULTILINE))
    assert set(re.findall(r"OTEL_[A-Z_]+[A-Z]", " ".join(named))) == read


def test_yaml_examples_load(tmp_path: Path) -> None:
    """The settings files that page and README show are accepted as they stand."""
    environment = {"ALLOY_KEY_PRODUCTION": "one", "ALLOY_KEY_STAGING": "two"}
    for text in ((DOCS / "settings.md").read_text("utf-8"), README):
        for number, example in enumerate(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)):
            file = tmp_path / f"{number}.yaml"
            file.write_text(example)
            settings = load_settings({}, environment, file=str(file))
            assert [s.name for s in settings.sources] == ["production", "staging"]


def test_destination_examples_load(tmp_path: Path) -> None:
    """The settings that the page of destinations shows are accepted as they stand, with folders and
    files that are there."""
    for path in ("run/secrets/destinations", "etc/otel-alloy/destinations"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "run/secrets/acme").write_text("Bearer abc")
    text = (DOCS / "destinations.md").read_text("utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    for example in examples:
        for folder in ("/run/secrets", "/etc/otel-alloy"):
            example = example.replace(folder, f"{tmp_path}{folder}")
        file = tmp_path / "settings.yaml"
        file.write_text(example)
        settings = load_settings({}, {"ALLOY_API_KEY": "any"}, file=str(file))
        assert settings.destinations or settings.destinations_dir
    assert len(examples) == 2


# Backends ----------------------------------------------------------------------------------------


def _backends() -> dict[str, str]:
    """What the page says of each backend, by its heading."""
    sections = (DOCS / "backends.md").read_text("utf-8").split("\n## ")[2:]
    return {section.partition("\n")[0]: section for section in sections}


@pytest.mark.parametrize("name", _backends())
def test_settings_of_a_backend_load(name: str) -> None:
    """The variables that the page gives for a backend are accepted as they stand, without a
    warning; each names where its signals go, and its headers are decoded."""
    environment = {"ALLOY_API_KEY": "any"}
    for block in re.findall(r"```sh\n(.*?)```", _backends()[name], re.DOTALL):
        for line in block.splitlines():
            command, assignment = shlex.split(line)
            variable, _, value = assignment.partition("=")
            assert command == "export" and value
            environment[variable] = value
    if len(environment) == 1:
        assert "No settings here" in _backends()[name]
        return
    otlp = load_settings({}, environment).otlp
    sent = [exporter for exporter in (otlp.traces, otlp.logs) if exporter.name == "otlp"]
    assert sent
    for exporter in sent:
        assert not exporter.warnings
        assert not any("%" in value for _, value in exporter.settings.headers)


def test_backends_have_sources() -> None:
    """Each backend stands in the table of ages, with at least one source and a word on whether it
    is run here, the same one in both places; the page says when it was looked up."""
    page = (DOCS / "backends.md").read_text("utf-8")
    rows = re.findall(r"^\| \[([^\]]+)\]\(#[^)]+\) \|.*\| (yes|no) \|$", page, re.MULTILINE)
    assert [name for name, _ in rows] == list(_backends())
    for name, run in rows:
        said = re.search(r"Run here: (yes|no)", _backends()[name])
        assert said is not None and said[1] == run, name
        assert re.search(r"\]\(https://", _backends()[name]), name
    assert len(rows) >= 10 and re.search(r"Looked up on \d+ \w+ 20\d\d", page)


def test_addresses_of_traces_are_settings() -> None:
    """Each pattern of a trace's address on the page is one that OTEL_ALLOY_TRACE_URL takes."""
    page = (DOCS / "backends.md").read_text("utf-8")
    patterns = re.findall(r"`(https?://[^`]*\{trace_id\}[^`]*)`", page)
    for pattern in patterns:
        settings = load_settings({"trace_url": pattern}, {"ALLOY_API_KEY": "any"})
        assert settings.trace_url == pattern
    assert len(patterns) >= 6


# Attributes, events, metrics ---------------------------------------------------------------------


def _golden() -> dict[str, dict[str, Any]]:
    return {
        path.name.removesuffix(".expected.json"): json.loads(path.read_text("utf-8"))
        for path in TESTDATA.glob("*.expected.json")
    }


def _attributes(item: dict[str, Any] | None) -> dict[str, Any]:
    return {a["key"]: a["value"] for a in (item or {}).get("attributes", [])}


def test_every_name_that_is_mentioned_exists(staged: Path) -> None:
    """Whatever a page or the README calls `runalloy.…` is an attribute, event or metric; and each
    of those is mentioned on its page, and in the README where it is a metric or an attribute."""
    metrics = {m.name for m in telemetry.METRICS}
    labels = {a for m in telemetry.METRICS for a in m.attributes}
    registry = reference.REGISTRY
    executions = [registry.spans["runalloy.execution"], *registry.events.values()]
    written = {key for one in executions for key in registry.keys(one)}
    known = metrics | registry.referenced | set(registry.attributes) | set(registry.events)
    texts = {path.name: path.read_text("utf-8") for path in staged.rglob("*.md")}
    for name, text in {**texts, "README.md": README}.items():
        mentioned = set(re.findall(r"`(runalloy\.[a-z_.]*[a-z_])`", text))
        assert mentioned <= known, name
    for name in metrics | labels:
        assert f"`{name}`" in texts["metrics.md"] and f"`{name}`" in README
    for key in written | set(registry.events):
        assert f"`{key}`" in texts["mapping.md"]
    assert written - {"user.hash", "event.name"} <= _expanded(README)
    assert telemetry.metrics_table() in texts["metrics.md"]


def _expanded(text: str) -> set[str]:
    """The names in code, `.id` after `runalloy.workflow.name` being `runalloy.workflow.id`."""
    names, last = set(), ""
    for name in re.findall(r"`([a-z_.]+)`", text):
        if name.startswith("."):
            name = last.rpartition(".")[0] + name
        else:
            last = name
        names.add(name)
    return names


# Alerts ------------------------------------------------------------------------------------------


def test_every_alert_has_its_remedy() -> None:
    """The operate page has one section for each alert that is shipped, no other one, with what the
    rule says of itself and a remedy."""
    text = (DOCS / "operate.md").read_text("utf-8").partition("\n## Alerts\n")[2]
    heads = re.findall(r"^### (.+)$", text, flags=re.MULTILINE)
    assert heads == list(reference.alerts())
    for head, section in zip(heads, re.split(r"^### .+$", text, flags=re.M)[1:], strict=True):
        assert f"<!-- generated: alert {head} -->" in section
        assert len(section.partition("**Remedy.** ")[2]) > 80, head


def test_backfill_page_names_what_the_command_warns_of() -> None:
    """Each setting of a backend that a backfill speaks of is on the backfill page."""
    pages = "".join((DOCS / name).read_text("utf-8") for name in ("backfill.md", "backends.md"))
    names = [re.split("=", one.setting)[0] for one in BACKENDS if one.setting]
    names += re.findall(r"limits_config(?:\.[a-z_]+)+", " ".join(one.setting for one in BACKENDS))
    assert len(names) >= 6
    for name in names:
        assert f"`{name}`" in pages, name


def test_ages_are_those_of_the_page() -> None:
    """What a backfill warns of at a backend is what the page's table says of its ages."""
    page = (DOCS / "backends.md").read_text("utf-8")
    rows = re.findall(r"^\| \[([^\]]+)\]\(#[^)]+\) \| ([^|]+) \| ([^|]+) \|", page, re.MULTILINE)
    units = {"minutes": 60, "hours": 3600, "days": 86400}

    def seconds(words: str) -> int | None:
        found = re.match(r"(\d+) (minutes|hours|days)", words.replace("one week", "7 days"))
        return int(found[1]) * units[found[2]] if found else None

    told = {name: (seconds(spans), seconds(logs)) for name, spans, logs in rows}
    shared = {
        "VictoriaTraces": ("VictoriaLogs and VictoriaTraces", 0),
        "VictoriaLogs": ("VictoriaLogs and VictoriaTraces", 1),
        "Loki": ("Tempo and Loki", 1),
    }
    for backend in BACKENDS:
        ages = (backend.spans, backend.logs)
        if backend.name in shared:
            name, which = shared[backend.name]
            assert ages[which] == told[name][which] and ages[1 - which] is None
        else:
            assert ages == told[backend.name], backend.name
    # Their addresses tell nothing, or need a Collector before them.
    left = {"Jaeger", "OpenSearch", "AWS X-Ray and CloudWatch", "Azure Monitor"}
    left |= {name for name, _ in shared.values()}
    known = {backend.name for backend in BACKENDS}
    assert told.keys() - left == known - shared.keys()


# Commands ----------------------------------------------------------------------------------------


def _resolve(words: list[str], *, complete: bool) -> None:
    """Parses a command line with the real commands, without running any. Raises UsageError."""
    group: click.Command = cli.commands
    words = words[1:]
    while isinstance(group, click.Group) and words and not words[0].startswith("-"):
        found = group.get_command(click.Context(group), words[0])
        if found is None:
            raise click.UsageError(f"no command {words[0]}")
        group, words = found, words[1:]
    with suppress(click.exceptions.Exit):  # --help
        group.make_context(group.name, list(words), resilient_parsing=not complete)


def _command_lines(text: str) -> Iterator[tuple[str, bool]]:
    """Lines in sh blocks, which have to be complete, and commands within the text."""
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        yield line, True
    for line in re.findall(
        r"`((?:otel-alloy|make) [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S)
    ):
        yield line, False


def test_every_command_that_is_printed_parses(staged: Path) -> None:
    """`otel-alloy …` in a block of a page, of the README or of an example is accepted by the real
    command line, and one in the text names commands and options that exist; `make …` is a target
    of the Makefile."""
    texts = {path.name: path.read_text("utf-8") for path in staged.rglob("*.md")}
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.M))
    seen = 0
    for name, text in {**texts, "README.md": README}.items():
        for line, complete in _command_lines(text):
            words = shlex.split(line.partition(" | ")[0], comments=True)
            while words and re.match(r"[A-Z_]+=", words[0]):
                words = words[1:]
            if words[:1] == ["otel-alloy"]:
                seen += 1
                try:
                    _resolve(words, complete=complete)
                except click.UsageError as error:
                    pytest.fail(f"{name}: {line}: {error.format_message()}")
            elif words[:1] == ["make"]:
                assert words[1] in targets, f"{name}: {line}"
    assert seen > 60


def test_every_command_is_documented() -> None:
    """The command reference has every command, and of each every option that is no setting."""
    page = _commands_page()

    def check(command: click.Command, path: str) -> None:
        assert re.search(rf"^#+ {path}$", page, flags=re.MULTILINE), path
        if isinstance(command, click.Group):
            for child in command.commands.values():
                check(child, f"{path} {child.name}")

    for command in cli.commands.commands.values():
        check(command, f"otel-alloy {command.name}")


def test_python_examples_name_what_there_is() -> None:
    """Python in pages and README compiles, and imports of otel_alloy are public names."""
    import otel_alloy

    for name, path in SOURCES.items():
        for block in re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.DOTALL):
            compile(block, name, "exec")
            for names in re.findall(r"^from otel_alloy import (.+)$", block, flags=re.MULTILINE):
                assert set(names.split(", ")) <= set(otel_alloy.__all__), name


def test_printed_output_is_what_the_command_prints() -> None:
    """The id recipe's page shows what `otel-alloy id` answers."""
    page = (DOCS / "id-recipe.md").read_text("utf-8")
    command = re.search(r"^otel-alloy id (\S+)$", page, flags=re.MULTILINE)
    assert command is not None
    done = subprocess.run(
        [Path(sys.executable).with_name("otel-alloy"), "id", command[1]],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ.get("PATH", "")},
    )
    assert f"```text\n{done.stdout}```" in page


def test_the_house_is_drawn_as_it_stands() -> None:
    """CONTRIBUTING's tree names every module, and only modules that exist; every name that the way
    of a notification mentions is defined in the file it is said to be in."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8")
    tree = text.partition("otel_alloy/\n")[2].partition("```")[0]
    drawn: set[str] = set()
    folders: list[str] = []
    for line in tree.splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 2 - 1, line.split()[0]
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name)
        else:
            drawn.add("".join([*folders, name]))
    package = REPOSITORY / "otel_alloy"
    there = {str(p.relative_to(package)) for p in package.rglob("*.py") if p.name != "__init__.py"}
    assert drawn == there
    for path, names in re.findall(r"`([a-z_]+/[a-z_]+\.py)` ((?:`[A-Za-z_.]+`[ ,]*)+)", text):
        code = (package / path).read_text("utf-8")
        for name in re.findall(r"`([A-Za-z_.]+)`", names):
            if not name.endswith(".py"):
                last = name.rpartition(".")[2]
                assert re.search(rf"\b(def|class) {last}\b", code), f"{name} is not in {path}"
