# Everything a developer runs. Each target does its own set-up in .venv; Python 3.11 or newer is
# all that has to be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-pythons test-floor test-propagator test-wheel sbom release-check lint format bench bench-all audit wheel docs reference screenshots servers clean

demo: $(VENV)/.run  ## see it work: no account, container or collector needed
	@$(BIN)/otel-alloy demo $(ARGS)

test: $(VENV)/.dev  ## all tests; those marked e2e need `make servers` once, and Go
	$(BIN)/pytest -n auto $(ARGS)

lint: $(VENV)/.dev  ## style, formatting, types, who imports whom, reference pages that are stale
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python docs/generated.py --check

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## cost per execution, beside a plain SDK script
	$(BIN)/python benchmarks/run.py $(ARGS)

bench-all: $(VENV)/.dev  ## that, and waiting, depth, idling, reading, the cost of a request, many sources, audit, latency, open executions, backfill, PostgreSQL, foreign inputs, instructions
	@for name in run waiting depth idle reading request_cost sources audit latency open_executions backfill postgres foreign instructions; do \
	  echo "== $$name" && $(BIN)/python benchmarks/$$name.py || exit 1; done

servers: $(VENV)/.dev  ## builds two Collectors, Jaeger, VictoriaLogs, Prometheus, Alertmanager and Helm, and what judges manifests, for the e2e tests
	$(BIN)/python tests/e2e/servers/build.py

audit: $(VENV)/.dev  ## known vulnerabilities of the pinned versions
	$(BIN)/python .ci/audit

test-pythons: $(VENV)/.dev  ## the tests that need no servers, on every supported Python there is
	$(BIN)/python .ci/pythons $(ARGS)

test-floor: $(VENV)/.dev  ## the tests of what stands on other packages, on the oldest allowed ones
	$(BIN)/python .ci/floor $(ARGS)

test-propagator: $(VENV)/.dev  ## the propagator's own distribution, installed on every supported Python there is
	$(BIN)/python .ci/propagator

wheel: $(VENV)/.dev  ## wheel and sdist, in dist; those of the propagator alone, too
	rm -rf dist
	$(BIN)/python -m build --quiet
	$(BIN)/python -m build --quiet --outdir dist propagator

test-wheel: wheel  ## that wheel, installed and used on every supported Python there is
	$(BIN)/python .ci/wheel

sbom: wheel  ## its bill of materials (CycloneDX), beside it
	$(BIN)/python .ci/sbom

release-check:  ## whether version, changelog, chart and images agree; TAG=v… whether that may be released
	$(PYTHON) .ci/release-check $(TAG)

docs: $(VENV)/.dev  ## the documentation, as pages in site/; a warning is an error
	$(BIN)/python docs/pages.py $(ARGS)

reference: $(VENV)/.dev  ## writes what the pages have from the code: tables, commands, alerts
	$(BIN)/python docs/generated.py

screenshots: $(VENV)/.dev  ## takes the pictures in docs/images anew
	$(BIN)/python docs/screenshots.py $(ARGS)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "otel-alloy needs Python 3.11 or newer; name one with PYTHON=…")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) $(VENV)-3.* $(VENV)-floor dist propagator/dist build site .mypy_cache .ruff_cache .pytest_cache .hypothesis
