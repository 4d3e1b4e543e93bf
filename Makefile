# Everything a developer runs. Each target does its own set-up in .venv; Python 3.11 or newer is
# all that has to be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint format bench bench-all audit wheel servers clean

demo: $(VENV)/.run  ## see it work: no account, container or collector needed
	@$(BIN)/otel-alloy demo $(ARGS)

test: $(VENV)/.dev  ## all tests; those marked e2e need `make servers` once, and Go
	$(BIN)/pytest -n auto $(ARGS)

lint: $(VENV)/.dev  ## style, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## cost per execution, beside a plain SDK script
	$(BIN)/python benchmarks/run.py $(ARGS)

bench-all: $(VENV)/.dev  ## that, and waiting, depth, idling, latency, backfill, instructions
	@for name in run waiting depth idle latency backfill instructions; do \
	  echo "== $$name" && $(BIN)/python benchmarks/$$name.py || exit 1; done

servers: $(VENV)/.dev  ## builds the Collector and Jaeger that the e2e tests talk to
	$(BIN)/python tests/e2e/servers/build.py

audit: $(VENV)/.dev  ## known vulnerabilities of the pinned versions
	$(BIN)/python .ci/audit

wheel: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build --quiet

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "otel-alloy needs Python 3.11 or newer; name one with PYTHON=…")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
