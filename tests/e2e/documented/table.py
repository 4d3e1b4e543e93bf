"""How each block of the documentation is run.

A page is read from its top to its end, in one terminal; a section that `PAGES` names, as
`page#section`, by somebody else on another machine.

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
    delivers: bool = False
    """The same when something has been delivered since it began."""
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
    How(r"^make demo\b", until="Shopify", codes=(0, 2, 130)),
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
    How(r"otel-alloy run .*--once", shows=r"\d+ spans? (and \d+ log records? )?delivered"),
    How(r"^otel-alloy run\b", until=r"\bdelivered\b", codes=(0, 130)),
    How(r"^otel-alloy tail\b", until=r"\d\dZ  (ok|error)|\{.*\n", codes=(0, 130)),
    How(r"^otel-alloy check\b(?!.*--explain)", shows=r"\b0 to correct"),
    How(
        r"otel-alloy completion (zsh|fish)\b",
        instead=r"otel-alloy completion \1",
        why="needs that shell; tests/cli/test_completion.py types into it where it is installed",
    ),
    How(
        r"^ssh (.*)$",
        instead=r"! command -v ssh || ssh -G \1",
        why="there is no other machine; ssh reads its options and says what it would do",
    ),
    How(
        r"^weaver registry \S+ --registry (\S+)",
        instead=r"test -f \1/manifest.yaml",
        why="Weaver is on no package registry; tests/semconv hold the registry against the code",
    ),
    How(r"^docker run .*\bjaegertracing/jaeger", until="listening on", stays=True),
    How(r"^(?s:docker run .*\botel-alloy:)", until=r"\bdelivered\b", codes=(0, 130)),
    How(r"opentelemetry-instrument uvicorn", until="Application startup complete", stays=True),
)

ENDLESS_PYTHON = How("", delivers=True, codes=(1, 130))
"""A Python block with `receiver.run()`, which Ctrl-C ends as it ends any program of one's own."""

Kind = Literal["shell", "python", "settings", "values", "printed", "shown"]

LANGUAGES: Mapping[str, Kind] = {
    "sh": "shell",
    "python": "python",
    "yaml": "settings",
    "text": "shown",
    "promql": "shown",
    "": "shown",
}
"""What is done with a block. `values` is a Helm chart's; what is `shown` is no command; what is
`printed` is what the command before it prints."""


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
    given: Mapping[str, str] = field(default_factory=dict)
    """By the beginning of a command: what is typed right before it."""
    before_python: str = ""
    """What the Python blocks take as given."""
    kinds: Mapping[Kind, Kind] = field(default_factory=dict)
    """What is something else here."""
    after: tuple[str, ...] = ()
    """Commands that show that the page keeps its word."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """By language: the test that runs such blocks."""


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
UUID = {"UUID": "35SnGU0DUSNP5L26fsmnq"}
ACME = """\
destinations:
  acme:
    match: { user.id: "u_17" }
    otlp: { endpoint: "https://otel.acme.example:4318" }
"""
ACCOUNTS = {"ALLOY_KEY_PRODUCTION": "your-key", "ALLOY_KEY_STAGING": "your-key"}
JAEGER = "http://localhost:16686/api"
DATABASE = "postgresql://alloy@db.example.com/alloy?sslmode=verify-full"
PASSWORD = {"PGPASSWORD": "your-password"}
TRUST = "mkdir -p ~/.postgresql && cp $SSL_CERT_FILE ~/.postgresql/root.crt"
LOGSQL = (
    "tests/e2e/test_victorialogs.py::"
    "test_each_record_is_found_once_by_the_queries_of_the_documentation"
)
LINES = "tests/correlate/test_vectors.py::test_lines"

PAGES: Mapping[str, Page] = {
    "collector-config/README.md": Page(elsewhere={"logsql": LOGSQL}),
    "README.md": Page(environment={**UUID, **ACCOUNTS}),
    "README.md#A minute to the first trace": Page(
        world=("no-otlp",),
        servers=("jaeger",),
        after=(
            f"until curl -s '{JAEGER}/traces?service=runalloy&limit=1' "
            "| grep -o runalloy.execution.id; do sleep 0.2; done",
        ),
    ),
    "deploy/helm/otel-alloy/README.md": Page(
        servers=("helm", "manifests"), files={"key.txt": "your-key"}, kinds={"settings": "values"}
    ),
    "docs/backends.md": Page(
        elsewhere={"sh": "tests/test_docs.py::test_settings_of_a_backend_load"}
    ),
    "docs/backfill.md": Page(environment=KEY),
    "docs/commands.md": Page(
        environment={**KEY, "OTEL_ALLOY_CONFIG": "settings.yaml"},
        files={"settings.yaml": ACME},
        first=("set-aside 1",),
        beside={"otel-alloy health": "otel-alloy run"},
        given={
            "otel-alloy rejected retry 7 8": "set-aside 7 8",
            "otel-alloy rejected drop 7 8": "set-aside 7 8 9",
        },
    ),
    "docs/commands.md#otel-alloy storage migrate": Page(
        world=("postgres",),
        environment={**KEY, **PASSWORD},
        first=(TRUST, "otel-alloy run --once"),
    ),
    "docs/commands.md#otel-alloy replicas": Page(
        world=("postgres",),
        environment={**KEY, **PASSWORD, "OTEL_ALLOY_STORAGE": DATABASE},
        first=(TRUST,),
        beside={"otel-alloy replicas": "otel-alloy run"},
    ),
    "docs/correlate.md": Page(before_python=SDK + ORDERS),
    "docs/customers.md": Page(environment=KEY),
    "docs/destinations.md": Page(
        environment={**KEY, "OTEL_ALLOY_CONFIG": "settings.yaml"},
        files={"/run/secrets/acme": "Bearer your-token"},
        first=("mkdir -p /run/secrets/destinations /etc/otel-alloy/destinations",),
    ),
    "docs/faq.md": Page(environment=KEY, first=("otel-alloy run --once",)),
    "docs/id-recipe.md": Page(kinds={"shown": "printed"}),
    "docs/index.md#See it work": Page(),
    "docs/index.md#No collector?": Page(world=("no-otlp",), servers=("jaeger",), environment=KEY),
    "docs/operate.md": Page(
        servers=("manifests",),
        environment=KEY,
        beside={"curl localhost:8089": "otel-alloy run"},
        first=("set-aside 1",),
        given={"otel-alloy rejected drop 17": "set-aside 17"},
    ),
    "docs/replicas.md": Page(world=("postgres",), environment=KEY, first=(TRUST,)),
    "docs/replicas.md#From SQLite to PostgreSQL": Page(
        world=("postgres",),
        environment={**KEY, **PASSWORD},
        first=(
            TRUST,
            "mkdir -p /var/lib/otel-alloy",
            "otel-alloy run --once --storage sqlite:////var/lib/otel-alloy/checkpoint.db",
        ),
    ),
    "docs/rules.md": Page(
        environment=KEY,
        first=(f"curl -sf -H 'Authorization: bearer your-key' '{MENTIONED_LOG}' > records.json",),
    ),
    "docs/settings.md": Page(
        environment={**KEY, **ACCOUNTS}, files={"settings.yaml": "collection_interval: 1m\n"}
    ),
    "docs/why-it-failed.md": Page(
        environment={**KEY, "WEBHOOK_SECRET": "your-secret-of-16-characters-at-least"}
    ),
    "examples/correlate/README.md": Page(
        environment=UUID,
        files={"your_service.py": "print('as before')"},
        before_python=SDK + ORDERS,
        elsewhere={"js": LINES, "go": LINES},
    ),
    "examples/correlate/python/README.md": Page(
        world=("no-otlp",),
        servers=("jaeger",),
        first=("(jaeger > /dev/null 2>&1 &)",),
        after=(
            f"until curl -s {JAEGER}/traces/552ee3cef1041c5b427d7f9ec5f43d71 "
            "| grep 'reserve stock'; do sleep 0.2; done",
        ),
    ),
    "examples/docker/README.md": Page(environment=KEY),
    "examples/grafana/README.md": Page(folder="examples/grafana"),
    "examples/jaeger/README.md": Page(folder="examples/jaeger"),
    "examples/kubernetes/README.md": Page(servers=("manifests",)),
    "examples/systemd/README.md": Page(first=("mkdir -p /etc/systemd/system",)),
    "examples/webhook-proxy/README.md": Page(environment=KEY),
    "propagator/README.md": Page(before_python=SDK),
    "semconv/README.md": Page(world=("grpc",), environment=KEY),
}
