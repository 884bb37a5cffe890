# Everything sets itself up: Python 3.11 or later, make and a package registry are all that is needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test fuzz mutants bench lint format clean

demo: $(READY)  ## publish, read, and cut a publish short at every point, on the embedded store
	$(BIN)/swapstore demo

test: $(READY)  ## the whole test suite, against a real Valkey server too
	$(BIN)/python -m pytest

fuzz: $(READY)  ## the state machine with random seeds, until it is stopped or finds something
	while SWAPSTORE_FUZZ=nightly $(BIN)/python -m pytest -q tests/machine tests/testing; do :; done

mutants: $(READY)  ## break the protocol on purpose: the table of mistakes, and the test that notices each
	$(BIN)/python -m tests.mutants

bench: $(READY)  ## beside the six commands and other systems, timed and counted; URL=redis://… for your own server
	@SWAPSTORE_BENCH_URL='$(URL)' $(BIN)/python -m tests.benchmarks $(ARGS)

lint: $(READY)  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment and all caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "swapstore needs Python 3.11 or later")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cli,dev]'
	touch $@
