# Everything goes through one virtual environment, installed from one lock.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Wheels come from the lock alone; nothing is resolved anew.
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
# One process for each core: many tests wait for a server, most compute on one core. Neighbours share their fixtures.
TESTS  := $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-full check unit docs audit bench bench-peers bench-student lock clean

help:
	@echo "make demo    label the sample corpus and publish a version (all set-up included)"
	@echo "make serve   a Prefect server, its UI, a worker and the deployments, on this machine alone; Ctrl-C ends them"
	@echo "make test    every check and every test (all set-up included)"
	@echo "make test-full  the same with the long forms: 20 kills"
	@echo "make check   format, lint, types, import arrows, security lint, doctests"
	@echo "make docs    the documentation as a site"
	@echo "make audit   known vulnerabilities of the dependencies (needs the network)"
	@echo "make unit    the tests that take no server"
	@echo "make bench   the annotation stage beside bare clients, at endpoints that misbehave, what orchestration costs, memory,"
	@echo "             checks, publishing"
	@echo "make bench-student  training and prediction beside transformers' Trainer and pipeline"
	@echo "make bench-peers  other labelling tools against the same server"
	@echo "make lock    write requirements.lock anew"

$(READY): requirements.lock pyproject.toml
	@echo "installing into $(VENV) (a few minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)
	@$(BIN)/candist run deployments/configs/demo.yaml

serve: $(READY)
	@$(BIN)/candist serve deployments/configs/demo.yaml

check: $(READY)
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/bandit --quiet --recursive --severity-level medium candist_core tasks flows
	@$(BIN)/pytest --doctest-modules candist_core tasks flows -p no:cacheprovider

unit: $(READY)
	@$(TESTS) -m "not flow and not s3 and not slow and not gpu"

test: check
	@$(TESTS)

# The long forms of the proofs that `make test` runs short.
test-full: check
	@CANDIST_FULL=1 $(TESTS) --timeout=3600

# Every page is an error if a link in it is dead.
docs: $(READY)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "the documentation: build/site/index.html"

# Known vulnerabilities of what the lock names; asks the Python Package Index.
audit: $(READY)
	@$(PIP) install pip-audit
	@$(BIN)/pip-audit --requirement requirements.lock --no-deps --disable-pip --strict

bench: $(READY)
	@$(BIN)/python -m tests.benchmarks.bench_annotate
	@$(BIN)/python -m tests.benchmarks.bench_annotate --cases slow_tail random_429 rpm_cap rpm_told poison
	@$(BIN)/python -m tests.benchmarks.bench_annotate --rows 3000 --latency-s 0.002 --in-flight 64
	@$(BIN)/python -m tests.benchmarks.bench_overhead
	@$(BIN)/python -m tests.benchmarks.bench_memory --texts 1000000
	@$(BIN)/python -m tests.benchmarks.bench_checks --rows 10000000
	@$(BIN)/python -m tests.benchmarks.bench_publish

# The data are a folder of corpora, see docs/method.md; without DATA the sample corpus is used.
bench-student: $(READY)
	@$(BIN)/python -m tests.benchmarks.bench_student $(if $(DATA),--data $(DATA))

# Each peer in a virtual environment of its own, outside the lock.
bench-peers: $(READY)
	@$(BIN)/python -m tests.benchmarks.bench_peers

# The environment that the lock describes, built from pyproject.toml's ranges; torch is pinned to one release.
lock:
	@rm -rf $(VENV)-lock && $(PYTHON) -m venv $(VENV)-lock
	@$(VENV)-lock/bin/pip install --quiet setuptools wheel torch==2.13.0 --editable ".[dev]"
	@$(VENV)-lock/bin/pip freeze --all --exclude-editable --exclude pip | sed 's/+cpu$$//' > requirements.lock
	@rm -rf $(VENV)-lock

clean:
	@rm -rf $(VENV) .candist published build *.egg-info
