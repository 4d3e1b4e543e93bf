"""How each block of the documentation is run.

Without an entry here a command is typed as it stands and has to end with 0, Python is run, and YAML
is loaded as settings. `COMMANDS` says what is different for some commands wherever they stand,
`PAGES` what a page needs to be there first. What is not run as it stands has its reason here. A row
that nothing fits any more is a mistake, and so is a language that is not in `LANGUAGES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

MENTIONED_LOG = "https://production.runalloy.com/logs?limit=10"


@dataclass(frozen=True)
class How:
    """Of one command. The first `pattern` that is found in the command counts."""

    pattern: str
    until: str = ""
    """It does not end by itself: Ctrl-C when this pattern has been printed."""
    stays: bool = False
    """No Ctrl-C: it goes on in its terminal, and what follows is typed into a new one."""
    codes: tuple[int, ...] = (0,)
    """With what it may end."""
    shows: str = ""
    """A pattern of what it prints."""
    instead: str = ""
    """What is typed in its place: a template for `re.Match.expand`. Needs `why`."""
    why: str = ""


COMMANDS = (
    How(
        r"^make (demo)\b",
        shows="one trace",
        why="the demo's end is looked at here, and nowhere else, so the 20 seconds are spent once",
    ),
    How(
        r"^make (.+)$",
        instead=r"make --dry-run \1",
        why="the gate runs these itself, and they take minutes",
    ),
    How(
        r"^(python benchmarks/\S+\.py)(?: .*)?$",
        instead=r"\1 --help",
        why="takes minutes; that it knows the options is looked at besides",
    ),
    How(r"^otel-alloy demo\b", until="Shopify", codes=(0, 130)),
    How(r"^otel-alloy simulate\b", until="Ctrl-C ends it", stays=True),
    How(
        r"^otel-alloy run .*--once|^otel-alloy run --once",
        shows=r"\d+ spans? and \d+ log records? delivered|nothing",
    ),
    How(r"^otel-alloy run\b", until=r"\bdelivered\b", codes=(0, 130)),
    How(r"^otel-alloy tail\b", until=r"\d\dZ  (ok|error)|\{.*\n", codes=(0, 130)),
    How(r"^otel-alloy check(?!.*--explain)", shows=r"\b0 to correct"),
    How(
        r"otel-alloy completion (zsh|fish)\b",
        instead=r"otel-alloy completion \1",
        why="needs that shell; tests/cli/test_completion.py types into it where it is installed",
    ),
    How(r"^docker run .*\bjaegertracing/jaeger", until="listening on", stays=True),
    How(r"^(?s:docker run .*\botel-alloy:)", until=r"\bdelivered\b", codes=(0, 130)),
    How(r"opentelemetry-instrument uvicorn", until="Application startup complete", stays=True),
)

Kind = Literal["shell", "python", "settings", "values", "shown"]

LANGUAGES: Mapping[str, Kind] = {
    "sh": "shell",
    "python": "python",
    "yaml": "settings",
    "text": "shown",
    "promql": "shown",
    "": "shown",
}
"""What is done with a block. `values` is a Helm chart's; what is `shown` is no command."""


@dataclass(frozen=True)
class Page:
    """What a page needs, in the order in which it is brought."""

    world: tuple[str, ...] = ()
    """Parts of `world.py`."""
    servers: tuple[str, ...] = ()
    """Programs of tests/e2e/servers that are on PATH."""
    folder: str = ""
    """Where people are, below the checkout."""
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Below that folder, or absolute."""
    first: tuple[str, ...] = ()
    """Commands that are typed before."""
    beside: Mapping[str, str] = field(default_factory=dict)
    """By the beginning of a command: what runs in another terminal meanwhile."""
    before_python: str = ""
    """What the Python blocks take as given."""
    python_until: str = ""
    """A shell condition on which a Python block that does not end has done its work."""
    yaml: Kind = "settings"
    after: tuple[str, ...] = ()
    """Commands that show that the page keeps its word."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """By language, or by the beginning of a block: the test that runs it."""


SDK = """\
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
"""
ORDERS = """\
from types import SimpleNamespace
from opentelemetry.trace import Link
from opentelemetry_propagator_runalloy import execution_context
my_orders = SimpleNamespace(span_context_of=execution_context)
tracer = trace.get_tracer("orders")
answer = {"executionUuid": "35SnGU0DUSNP5L26fsmnq"}
"""
KEY = {"ALLOY_API_KEY": "your-key"}
VECTORS = "tests/correlate/test_vectors.py::"

PAGES: Mapping[str, Page] = {
    "README.md": Page(
        environment={"UUID": "35SnGU0DUSNP5L26fsmnq"},
        python_until="grep -q traces $HOME/../received",
    ),
    "deploy/helm/otel-alloy/README.md": Page(
        servers=("helm", "manifests"), files={"key.txt": "your-key"}, yaml="values"
    ),
    "docs/backends.md": Page(
        elsewhere={"sh": "tests/test_docs.py::test_settings_of_a_backend_load"}
    ),
    "docs/backfill.md": Page(environment=KEY),
    "docs/commands.md": Page(environment=KEY),
    "docs/correlate.md": Page(before_python=SDK + ORDERS),
    "docs/customers.md": Page(environment=KEY),
    "docs/destinations.md": Page(
        environment={**KEY, "OTEL_ALLOY_CONFIG": "settings-1.yaml"},
        files={"/run/secrets/acme": "Bearer your-token"},
        first=("mkdir -p /run/secrets/destinations /etc/otel-alloy/destinations",),
    ),
    "docs/faq.md": Page(environment=KEY),
    "docs/index.md": Page(python_until="grep -q traces $HOME/../received"),
    "docs/operate.md": Page(environment=KEY, beside={"curl localhost:8089": "otel-alloy run"}),
    "docs/replicas.md": Page(world=("postgres",), environment=KEY),
    "docs/rules.md": Page(
        environment=KEY,
        first=(f"curl -sf -H 'Authorization: bearer your-key' '{MENTIONED_LOG}' > records.json",),
    ),
    "docs/settings.md": Page(
        environment={"ALLOY_KEY_PRODUCTION": "your-key", "ALLOY_KEY_STAGING": "your-key"}
    ),
    "docs/why-it-failed.md": Page(environment=KEY),
    "examples/correlate/README.md": Page(
        environment={"UUID": "35SnGU0DUSNP5L26fsmnq"},
        before_python=SDK + ORDERS,
        elsewhere={
            "js": f"{VECTORS}test_lines",
            "go": f"{VECTORS}test_lines",
        },
    ),
    "examples/correlate/python/README.md": Page(world=("no-otlp",), servers=("jaeger",)),
    "examples/destinations/README.md": Page(),
    "examples/docker/README.md": Page(environment=KEY),
    "examples/grafana/README.md": Page(folder="examples/grafana"),
    "examples/jaeger/README.md": Page(folder="examples/jaeger"),
    "examples/kubernetes/README.md": Page(servers=("manifests",)),
    "examples/systemd/README.md": Page(first=("mkdir -p /etc/systemd/system",)),
    "examples/webhook-proxy/README.md": Page(environment=KEY),
    "propagator/README.md": Page(before_python=SDK),
}
