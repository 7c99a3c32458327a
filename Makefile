# Every target sets up .venv by itself. On Debian: python3 with python3-venv, and make, are enough to start.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo demo-kafka test lint charts model sim bench soak verify-long verify-sessions verifier clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  make \1|/' | column -t -s '|' 2>/dev/null \
	  || grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST)
	@echo '  PYTHON=python3.12 chooses the interpreter, ARGS="-k lease -x" is handed to the program'

demo: $(READY)  ## the demonstration (DEMO_BACKEND, DEMO_BREAK, DEMO_SECONDS change it)
	$(PY) -m loadgen demo $(ARGS)

# Most tests wait for servers, so three processes keep two cores busy; WORKERS=0 for one.
WORKERS ?= 3
demo-kafka: $(READY)  ## the same over PostgreSQL, Debezium, Kafka and Redis, all started for it
	$(PY) -m tests.soak.demo_kafka $(ARGS)

test: lint  ## linter, types, then all tests (ARGS= for pytest)
	$(PY) -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

lint: $(READY)  ## linter and types
	$(PY) -m ruff check .
	$(PY) -m mypy

charts: $(READY)  ## the chart's suites, schemas, panels, a short game day (its tools are built the first time: minutes)
	$(PY) -m pytest -m charts tests/charts tests/gameday $(ARGS)

.PHONY: kube gameday
kube: $(READY)  ## the chart on a real API server, its pods real processes (the control plane is built the first time)
	$(PY) -m pytest -m kube tests/charts $(ARGS)

.PHONY: mariadb
mariadb: $(READY)  ## the formats and the whole chain over a real MariaDB (KEEP_SAMPLES=1 records its connector anew)
	$(PY) -m pytest -m mariadb tests/mariadb $(ARGS)

gameday: $(READY)  ## incidents on real servers: alerts in time, ended by the runbook (GAMEDAY_FACTOR; ARGS=--short)
	$(PY) -m tests.gameday $(ARGS)

model: $(READY)  ## search the pure machines exhaustively, on the big bounds (minutes)
	$(PY) -m tests.model.search --big $(ARGS)

sim: $(READY)  ## simulate seeds: time, faults and chance are virtual (SEED_START=0, SEEDS=10000)
	$(PY) -m tests.sim $(if $(SEED_START),--start $(SEED_START)) $(if $(SEEDS),--seeds $(SEEDS)) $(ARGS)

$(VENV)/.bench: pyproject.toml | $(READY)
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

bench: $(VENV)/.bench  ## every benchmark, or the one in BENCH=name (tests/bench/name.py)
	@for name in $(or $(BENCH),$(filter-out _%,$(basename $(notdir $(wildcard tests/bench/*.py))))); do \
	  echo "$(PY) -m tests.bench.$$name $(ARGS)"; $(PY) -m tests.bench.$$name $(ARGS) || exit 1; done

soak: $(READY)  ## load through Debezium and Kafka while everything is killed in turn (SOAK_SECONDS=600, SOAK_RATE, SOAK_SEED)
	$(PY) -m tests.soak $(ARGS)

verify-sessions: $(READY)  ## a million reads of sessions whose tokens go from process to process, no invalidator (ARGS="--reads 1000000")
	$(PY) -m tests.integration.session_processes $(ARGS)

verify-long: $(READY)  ## millions of strong reads under faults, none stale (VERIFY_READS=15000000, VERIFY_SECONDS, VERIFY_BACKEND); goes on where it stopped
	$(PY) -m tests.soak.verify_long

.PHONY: verify-levels
verify-levels: $(READY)  ## hits of every level at size, and bounded reads while the invalidator stands still (LEVELS_SECONDS, LEVELS_KEYS, LEVELS_RATE)
	$(PY) -m tests.soak.levels

verifier: $(READY)  ## is the verifier to be believed? silent in a million checks, finds ten bugs (VERIFIER_CHECKS, VERIFIER_SECONDS)
	$(PY) -m tests.verifier $(ARGS)

clean:  ## remove .venv and everything that was built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find cachelib invalidator loadgen tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[all,test,demo]'
	@touch $@

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is missing or older than 3.11: install one, or name one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo "$(PYTHON) cannot make a virtual environment: install python3-venv (apt-get install python3-venv)."; exit 1; }
	$(PYTHON) -m venv $(VENV)
