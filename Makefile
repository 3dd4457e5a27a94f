# Every target is what a contributor types and what the gate runs.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
MEMBERS := schemas libs/trust libs/keymem libs/sealing libs/runtime libs/sessions libs/broker libs/killswitch \
           services/core services/gateway services/auditor client tools/deployment tools/devsystem
SECONDS ?= 600
WORKERS ?= 5

# What the tests start is compiled once, and not at every start of a process.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest

.PHONY: help setup tools check format test test-containers simulate simulate-variants conformance demo chaos bench bench-fair bench-kill bench-scale bench-l1 bench-peers lock clean
.PHONY: test-fast memscan fuzz dist docs release-check

help:            ## this text
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

setup: $(STAMP)  ## make .venv with everything in it, the broker included

NO_PYTHON := make setup: $(PYTHON) is missing, is older than 3.11, or has no venv. \
  Install Python 3.11 (on Debian: apt-get install python3.11-venv), or name one: make setup PYTHON=...
NO_INDEX := make setup: pip could not install what requirements.lock names, see above. \
  It needs a package index: PyPI, or the one that pip is configured with.

$(STAMP): requirements.lock Makefile $(addsuffix /pyproject.toml,$(MEMBERS))
	@test -x $(BIN)/pip || $(PYTHON) -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "$(NO_PYTHON)" >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "installing what requirements.lock names"
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements.lock || \
	  { echo "$(NO_INDEX)" >&2; exit 1; }
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation $(addprefix -e ,$(MEMBERS))
	@touch $@

SOURCES := $(wildcard $(addsuffix /src/*,$(MEMBERS)))

check: setup     ## format, lint, types, import contracts, repeated code, word list
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/pylint $(SOURCES) tests benchmarks examples
	$(BIN)/python -m tests.architecture.words --check

format: setup    ## let ruff rewrite what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test:            ## every test but the long chaos runs and the containers [WORKERS=5]
	@tests/tools
	@$(MAKE) --no-print-directory setup
	$(PYTEST) -n $(WORKERS)

test-fast: setup ## the logic alone, in less than a minute: no broker, no child process
	$(PYTEST) -q -n 2 -m fast --hypothesis-profile fast tests/unit tests/property tests/vectors

test-containers: setup  ## the images and compose.yaml, on a Docker engine of its own (root of a Debian)
	@tests/engine install
	@tests/containers/materials .cache/containers $(BIN)/pip
	tests/engine run $(BIN)/pytest --durations=20 tests/containers

memscan: setup   ## the memory of every process of a real system, searched for its true keys (root)
	$(BIN)/python -m tests.security.memscan

FUZZ := .cache/fuzz/fuzzer

fuzz: setup $(FUZZ)/.installed  ## fuzz everything that reads bytes from outside [SECONDS=60 for each target] [TARGET=name]
	PYTHONPATH=$(FUZZ) $(BIN)/python -m tests.fuzz --seconds $(if $(filter command line,$(origin SECONDS)),$(SECONDS),60) \
	  $(if $(TARGET),--only $(TARGET))

$(FUZZ)/.installed: tests/fuzz/fuzz.lock | setup
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --require-hashes --upgrade --target $(FUZZ) -r $<
	@touch $@

tools:           ## install what the tests need of the system: SoftHSM, nft, ip
	@tests/tools install

SEEDS ?= 2000

simulate: setup  ## the kill switch over many simulated worlds [SEEDS=2000] [SAMPLE=n] [SEED=n] [VARIANT=name]
	$(BIN)/python -m tests.simulation --excuse-in-flight --seeds $(SEEDS) $(if $(SAMPLE),--sample $(SAMPLE)) \
	  $(if $(SEED),--seed $(SEED)) $(if $(VARIANT),--variant $(VARIANT))

simulate-variants: setup  ## systems that are broken on purpose: each has to be noticed [SEEDS=2000]
	$(BIN)/python -m tests.simulation --variants --seeds $(SEEDS)

URI ?=

conformance: setup  ## the providers' suite against your own key: make conformance URI=...
	@test -n "$(URI)" || { echo "name a root key: make conformance URI=awskms:..." >&2; exit 2; }
	$(BIN)/kcm l1 check -o table '$(URI)'
	KCM_L1_URI='$(URI)' $(BIN)/pytest -p no:cacheprovider tests/l1/test_conformance.py

demo: setup      ## the main job, end to end: make demo [ARGS="--input FILE"]
	$(BIN)/kcm demo $(ARGS)

chaos: setup     ## the kill switch under mixed faults: make chaos [SECONDS=600] [SEED=n]
	$(BIN)/python -m tests.chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

bench: setup     ## speed beside a baseline in the same run [QUICK=1: each case once, says nothing of speed]
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick)

bench-fair: setup ## what one application notices of the floods of another one [QUICK=1]
	$(BIN)/python -m benchmarks.fair $(if $(QUICK),--quick)

bench-kill: setup ## how fast the kill switch is, and what it costs
	$(BIN)/python -m benchmarks.kill

bench-scale: setup ## thousands of tenants: lists, making, opening, purges, uses of keys [QUICK=1]
	$(BIN)/python -m benchmarks.scale $(if $(QUICK),--quick)

bench-l1: setup  ## what the unsealer adds to each provider's own call
	$(BIN)/python -m benchmarks.l1

bench-peers: .venv-peers/.installed  ## install Asherah and Tink, so that bench measures them too

.venv-peers/.installed: benchmarks/peers.lock
	test -x .venv-peers/bin/pip || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install -q --disable-pip-version-check --no-deps --require-hashes -r $<
	@touch $@

dist: setup      ## build every wheel into dist/, and try each one outside the checkout
	$(BIN)/python -m tests.dist

docs: setup      ## the documentation's pages into build/docs; a broken link fails
	$(BIN)/sphinx-build -W --keep-going -q -E -b html docs build/docs

release-check: setup  ## whether this checkout can be released, see RELEASE.md
	$(BIN)/python -m tests.release

LOCK := uv pip compile -q --no-strip-extras --generate-hashes --no-emit-index-url --no-emit-find-links --universal \
  --python-version 3.11 --custom-compile-command "make lock"

lock:            ## pin requirements.in, benchmarks/peers.in and tests/fuzz/fuzz.in again (needs uv)
	$(LOCK) requirements.in -o requirements.lock
	$(LOCK) benchmarks/peers.in -o benchmarks/peers.lock
	$(LOCK) tests/fuzz/fuzz.in -o tests/fuzz/fuzz.lock

clean:           ## remove what setup and the tools made
	rm -rf $(VENV) .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .cache
	rm -rf dist build
