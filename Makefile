# Every target makes what it needs: a machine with python3 (3.11 or newer), pip and make is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CODE := client queue_server control_plane benchmarks tests examples

.PHONY: help setup demo test test-quick check reference format lock build clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

setup: $(STAMP) ## create .venv with wakeq and everything the tests need

# The stamp is made last: an interrupted install is started again, a finished one costs nothing.
$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: $(STAMP) ## run a deployment of llama_deploy and the same one of wakeq, and compare them
	$(BIN)/wakeq demo

test: $(STAMP) ## all tests
	$(BIN)/python -m pytest

test-quick: $(STAMP) ## the developer's tier, under two minutes
	$(BIN)/python -m pytest -m "not slow and not compat"

check: $(STAMP) ## format, lint, types, layering, specification
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/unit/test_layering.py tests/unit/test_openapi.py

# A reference that can't be made whole is an error: what pdoc can't import or read comes as a warning.
reference: $(STAMP) ## the Python client's classes and methods as pages, in dist/reference/
	$(BIN)/python -W error -m pdoc --docformat markdown --output-directory dist/reference \
		wakeq wakeq.otel wakeq.testing wakeq.testing.fixtures

format: $(STAMP) ## rewrite the code as `make check` wants it
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

# Without index addresses: a lock file must install from whatever index a machine is set up for.
lock: $(STAMP) ## pin every dependency anew in requirements.lock
	$(BIN)/pip-compile --quiet --upgrade --strip-extras --no-header --no-annotate \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
		--extra dev --output-file requirements.lock pyproject.toml

build: $(STAMP) ## the wheel and the sdist, in dist/
	$(BIN)/python -m build --no-isolation --outdir dist

clean: ## remove what the targets above have made
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
