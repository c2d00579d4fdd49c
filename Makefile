# Everything a person or a machine does with this repository. `make` alone lists it.
.DEFAULT_GOAL := help
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
MEMBERS := shared $(sort $(wildcard services/*)) cli
ARGS ?=
# two workers; a file stays with one of them, so its servers and databases are made once
PYTEST_WORKERS ?= 2
PYTEST = $(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile
UNIT_TESTS = -m "not integration and not e2e and not thorough"
INSTALLED := .venv/.installed
INPUTS := requirements.lock tools/install.py $(wildcard $(MEMBERS:=/pyproject.toml))

# A shim can bear the right name and still refuse to run, so each candidate is asked; asked from `/` as
# well, since a version manager may answer differently here and there. PYTHON=/path/to/python overrides.
define FIND_PYTHON
find_python() { \
  for name in $(PYTHON) python3.12 python3.13 python3.14 python3.15 python3 python; do \
    for folder in . /; do \
      found=$$(cd $$folder && "$$name" -c 'import sys; sys.version_info >= (3, 12) or sys.exit(1); print(sys.executable)' 2>/dev/null) \
        && [ -n "$$found" ] && { echo "$$found"; return 0; }; \
    done; \
  done; \
  echo "setup: no Python 3.12 or newer was found by the names python3.12, python3.13, python3.14, python3, python;" >&2; \
  echo "       install one (on Debian and Ubuntu: apt-get install python3 python3-venv) or say PYTHON=/path/to/python" >&2; \
  return 2; \
}
endef

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: $(INSTALLED) ## Install everything the lock names into .venv; quick when nothing changed

$(INSTALLED): $(INPUTS)
	@$(FIND_PYTHON); python=$$(find_python) && "$$python" tools/install.py

.PHONY: run
run: setup ## Trade on paper: simulated feed at speed 300; options in ARGS="--feed replay ..."
	@$(BIN)/trading up --speed 300 $(ARGS)

.PHONY: test
test: setup ## Run every test; options in ARGS="-k name"
	@$(PYTEST) $(ARGS)

.PHONY: check
check: lint ## Lint and quick unit tests, within a minute: no servers, no whole platform
	@$(PYTEST) $(UNIT_TESTS) --hypothesis-profile quick $(ARGS)

.PHONY: lint
lint: setup ## Format, lint, types, import floors, declared dependencies, what plug-ins import
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tools/declared.py
	@$(BIN)/python -m pytest -q tests/test_plugin_imports.py

.PHONY: format
format: setup ## Rewrite the sources as ruff formats them, and mend what it can mend safely
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: lock
lock: setup ## Resolve anew and write requirements.lock, hash-pinned, without any index address
	@$(FIND_PYTHON); python=$$(find_python) && "$$python" tools/install.py uv lock --upgrade
	@$(BIN)/uv export --quiet --all-packages --all-extras --no-emit-workspace --format requirements.txt --no-header \
	  -o requirements.lock

.PHONY: bench
bench: setup ## Measure rates and latencies; prints tables and writes JSON
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: servers
servers: setup ## Run a PostgreSQL and a Redis for a rehearsal, until Ctrl-C; says how to reach them
	@$(BIN)/python tools/servers.py

.PHONY: proof
proof: setup ## The long proofs: 20 kills on 20,000 candles, in one process and in four on PostgreSQL and Redis
	@$(BIN)/python -m pytest tests/e2e --proof $(ARGS)

.PHONY: migrate
migrate: setup ## Upgrade the database of DATABASE_URL to the newest revision
	@$(BIN)/trading db upgrade $(ARGS)

.PHONY: migrate-down
migrate-down: setup ## Take the database of DATABASE_URL one revision back: ARGS=--yes
	@$(BIN)/trading db downgrade $(ARGS)

.PHONY: migrate-new
migrate-new: setup ## Write a new migration from the tables: MSG="what changes"
	@test -n "$(MSG)" || { echo 'migrate-new: say what changes: make migrate-new MSG="add a column"' >&2; exit 2; }
	@$(BIN)/alembic -c shared/alembic.ini revision --autogenerate -m "$(MSG)"

.PHONY: deps-debian
deps-debian: ## As root on Debian or Ubuntu: prometheus and chromium, for the tests that skip without them
	@command -v apt-get >/dev/null || { echo "deps-debian: no apt-get here; install prometheus and chromium" >&2; exit 2; }
	@apt-get -o Acquire::Retries=0 -o Acquire::http::Timeout=20 update && \
	  DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends prometheus chromium
