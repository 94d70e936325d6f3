# Every target makes .venv and installs what is missing, and only then.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	  command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
UV := $(BIN)/uv
JOBS ?= 2
unexport PYTHONPATH VIRTUAL_ENV
# Companies put proxies with certificates of their own into the system's store.
export UV_SYSTEM_CERTS := true

.PHONY: install demo test check bench lock clean

install: .venv/.installed .venv-openai2/.installed

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

# The oldest openai we promise to work with, beside the newest in .venv.
.venv-openai2/.installed: .venv/.uv requirements/openai2.txt pyproject.toml
	$(UV) venv --quiet --clear --python $(BIN)/python .venv-openai2
	$(UV) pip sync --quiet --python .venv-openai2/bin/python --require-hashes requirements/openai2.txt
	$(UV) pip install --quiet --python .venv-openai2/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: .venv/.installed
	$(BIN)/flowledger demo $(ARGS)

test: install check
	$(BIN)/pytest -n $(JOBS) --dist worksteal $(ARGS)

check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/python -m bench $(ARGS)

lock: .venv/.uv
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade --extra dev pyproject.toml --output-file requirements/dev.txt
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade requirements/openai2.in --output-file requirements/openai2.txt

clean:
	rm -rf .venv .venv-openai2 .mypy_cache .ruff_cache .pytest_cache build dist
