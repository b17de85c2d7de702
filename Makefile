# Every target makes what it needs: a machine with python3 (3.11 or newer), pip and make is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Most tests wait for a server or a disk. Those of a file share what it has started. Files come in the order of their
# names: those that have the most tests are not those that take the longest, and the last ones must be short.
PARALLEL := --numprocesses auto --dist loadfile --no-loadscope-reorder
CODE := client queue_server control_plane benchmarks tests examples

# What each of the many processes of the tests imports is compiled once, whatever the machine is set up for.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-quick check bench bench-quick bench-docs reference format lock build clean

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
	$(BIN)/python -m pytest $(PARALLEL)

test-quick: $(STAMP) ## the developer's tier, under two minutes
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not compat"

check: $(STAMP) ## format, lint, types, layering, specification
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/unit/test_layering.py tests/unit/test_openapi.py

# A scenario that could not be measured stands in the report, so one is made before the run's exit code counts.
# The run before stays for `wakeq bench compare`.
define run_bench
	mkdir -p dist/bench
	test ! -e dist/bench/$(1).json || mv dist/bench/$(1).json dist/bench/$(1)-before.json
	$(BIN)/wakeq bench run all $(2) --json dist/bench/$(1).json; status=$$?; \
	$(BIN)/wakeq bench report dist/bench/$(1).json --output dist/bench/$(1) && exit $$status
endef

bench-quick: $(STAMP) ## every scenario of the benchmark as short as it goes, in 2 minutes: dist/bench/quick/report.html
	$(call run_bench,quick,--quick)

bench: $(STAMP) ## the whole benchmark, in 55 minutes of an idle machine: dist/bench/full/report.html
	$(call run_bench,full)

bench-docs: ## put the tables and pictures of the last `make bench` into docs/
	sed 's#](\(.*\.svg\))#](images/bench-\1)#' dist/bench/full/report.md >docs/benchmark-results.md
	rm -f docs/images/bench-*.svg
	for picture in dist/bench/full/*.svg; do cp "$$picture" "docs/images/bench-$${picture##*/}"; done

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
