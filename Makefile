# Every target makes .venv and installs what is missing, and only then.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	  command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
UV := $(BIN)/uv
JOBS ?= 3
# Without the bytecode of MLflow each process of the tests takes some seconds more to start.
unexport PYTHONPATH VIRTUAL_ENV PYTHONDONTWRITEBYTECODE
# Companies put proxies with certificates of their own into the system's store.
export UV_SYSTEM_CERTS := true

.PHONY: install demo example test documents check deploy-check stress bench browser screenshots lock clean

SDKS := openai2 openai3 anthropic0 anthropic2

install: .venv/.installed $(SDKS:%=.venv-%/.installed)

.venv/.uv: requirements/uv.txt
	@test -n "$(PYTHON)" || { echo "flowledger needs Python 3.11 or newer: install it, or run make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

.venv/.installed: .venv/.uv requirements/dev.txt pyproject.toml
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt requirements/uv.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

# The oldest and the newest openai and anthropic that we promise to work with. The ones in .venv are
# the newest that fit together there.
.venv-%/.installed: requirements/%.txt .venv/.uv pyproject.toml
	$(UV) venv --quiet --clear --python $(BIN)/python .venv-$*
	$(UV) pip sync --quiet --python .venv-$*/bin/python --require-hashes $<
	$(UV) pip install --quiet --python .venv-$*/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: .venv/.installed
	$(BIN)/flowledger demo $(ARGS)

# NAME is a folder of examples/, ARGS what its `run` takes. Without a key the stub stands in.
STUB := $(if $(OPENAI_API_KEY)$(ANTHROPIC_API_KEY),,python -m flowledger.testing.llm --)

example: .venv/.installed
	@test -x "examples/$(NAME)/run" || { echo "make example NAME=... takes one of:" $(notdir $(patsubst %/run,%,$(wildcard examples/*/run))); exit 1; }
	cd examples/$(NAME) && PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH="$$PWD" PYTHONDONTWRITEBYTECODE=1 $(STUB) ./run $(ARGS)

test: install check browser
	@deploy/checks/tools.sh prometheus prometheus-alertmanager docker-compose systemd
	$(BIN)/pytest -n $(JOBS) --dist worksteal $(ARGS)

# The printed blocks of the five documents, which are not in this repository.
documents: install
	$(BIN)/pytest -n $(JOBS) --dist worksteal tests/documents $(ARGS)

browser: .venv/.chromium

# The one that is installed, else Debian's, else Playwright's own.
.venv/.chromium: .venv/.installed
	@if command -v chromium || command -v chromium-browser || command -v google-chrome; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get; then \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; \
	else $(BIN)/playwright install chromium; fi >/dev/null && touch $@ \
	|| { echo "The dashboard's tests need Chromium: apt-get install chromium, or $(BIN)/playwright install chromium"; \
	  test -z "$$CI"; }

# Pictures of the dashboard for README and docs, over a new demo with its history.
screenshots: .venv/.installed browser
	DASHBOARD_PICTURES=$(CURDIR)/docs/images $(BIN)/pytest -q tests/dashboard/test_pictures.py

check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What of deploy/ and of operating a machine without a cluster can run: some ten minutes.
deploy-check: install
	@deploy/checks/tools.sh prometheus prometheus-alertmanager docker-compose systemd npm pgbouncer
	SLOW_TESTS=1 $(BIN)/pytest tests/deploy deploy/checks tests/operating tests/test_migrate.py $(ARGS)

# Exceptions at any instruction of recording, for an hour; `make test` does it for half a minute.
stress: install
	STRESS_SECONDS=$(or $(SECONDS),3600) $(BIN)/pytest -q -n 0 tests/faults/test_interrupts.py

bench: install
	$(BIN)/python -m bench $(ARGS)

# An image runs what the tests ran.
IMAGE := --constraint requirements/dev.txt
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade

lock: .venv/.uv
	$(LOCK) --extra dev pyproject.toml --output-file requirements/dev.txt
	$(LOCK) $(IMAGE) --extra server --extra postgres --extra s3 pyproject.toml --output-file requirements/server.txt
	$(LOCK) $(IMAGE) --extra all pyproject.toml requirements/examples.in --output-file requirements/examples.txt
	for name in $(SDKS); do $(LOCK) requirements/$$name.in --output-file requirements/$$name.txt || exit 1; done

clean:
	rm -rf .venv $(SDKS:%=.venv-%) .mypy_cache .ruff_cache .pytest_cache build dist
