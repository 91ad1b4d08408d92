# Every verb does its own set-up: `make run` or `make test` is enough on a fresh clone.
# Needs GNU make 3.81 or later and Python 3.11 or later with venv. PYTHON=... chooses the Python, ARGS=... is handed on.

.DEFAULT_GOAL := help
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOCK_VENV := .cache/lock
UV_VERSION := 0.13.9

.PHONY: help setup run test lint fmt type bench bench-judging bench-anomaly fault deploy-check lock

help: ## show these verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(READY) ## install everything into .venv; quick when nothing changed
	@echo "$(VENV) is ready"

# The recipe runs only when what is installed could differ: the pinned requirements or the package's own metadata.
$(READY): requirements/dev.txt pyproject.toml
	@set -e; \
	python=""; \
	for candidate in $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3 python; do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	        python="$$candidate"; break; \
	    fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "make setup: Python 3.11 or later is needed and was not found on PATH." >&2; \
	    echo "Install it, or name it: make setup PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	    echo "make setup: $$python has no venv (or no ensurepip)." >&2; \
	    echo "On Debian and Ubuntu: apt-get install $$("$$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" >&2; \
	    exit 1; \
	fi; \
	echo "setting up $(VENV) with $$("$$python" --version 2>&1): once, about a minute"; \
	"$$python" -m venv --clear $(VENV); \
	echo "installing the pinned requirements"; \
	$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/dev.txt; \
	echo "installing redis-agent"; \
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .; \
	touch $(READY)

run: $(READY) ## the demo: a private server, all roles, four experiments, live
	@$(BIN)/redis-agent demo $(ARGS)

test: $(READY) ## every test but the long fault runs; side by side, ARGS="-n 0" one after the other
	@$(BIN)/python -m pytest -m "not fault" -n auto --dist worksteal $(ARGS)

lint: $(READY) ## style, layers, and that generated pages are up to date
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/python docs/generate.py --check

fmt: $(READY) ## format the code and write the generated pages anew
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .
	@$(BIN)/python docs/generate.py
	@$(BIN)/python deploy/grafana/dashboards.py

type: $(READY) ## mypy --strict
	@$(BIN)/mypy

bench: $(READY) ## speed, side by side with the bare loops
	@$(BIN)/python -m bench $(ARGS)

# matplotlib is installed for this alone, the first time.
bench-judging: $(READY) ## how often evidence is wrong and how soon it is right, simulated, with the plot of docs/evidence.md
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || \
	    $(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@$(BIN)/python -m bench.judging --plot docs/evidence.png $(ARGS)

bench-anomaly: $(READY) ## what detectors of anomalies find and how often they are wrong, with the plots of docs/anomalies-*.md
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || \
	    $(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@if [ -d ../shared/nab ]; then $(BIN)/python -m bench.anomaly_nab --plots docs; \
	    else echo "the Numenta files are not in ../shared/nab: their part is left out"; fi
	@$(BIN)/python -m bench.anomaly_planted
	@$(BIN)/python -m bench.anomaly_suite --plot docs
	@$(BIN)/python -m bench.examining

# Everything that docs/reliability.md promises: its tests in `make test`, and their long forms.
fault: $(READY) ## kill, stop and cut off real processes; MINUTES=30 for long, SEED=123 to do one again
	@MINUTES=$(MINUTES) SEED=$(SEED) $(BIN)/python -m pytest -s tests/fault tests/bridges tests/integration tests/store $(ARGS)

deploy-check: $(READY) ## what deploy/ holds: alert rules with their tests, dashboards, runbook; needs promtool
	@command -v promtool >/dev/null || { \
	    echo "make deploy-check: promtool was not found on PATH." >&2; \
	    echo "On Debian and Ubuntu it comes with: apt-get install --no-install-recommends prometheus" >&2; exit 1; }
	@promtool check config deploy/prometheus/prometheus.yml
	@promtool test rules deploy/prometheus/tests/*.yml
	@$(BIN)/python deploy/grafana/dashboards.py --check
	@$(BIN)/python -m pytest -q tests/deploy

# uv is only what resolves here. What it writes names no index, no path and no machine, and pins every platform's files.
LOCK := UV_CUSTOM_COMPILE_COMMAND="make lock" $(LOCK_VENV)/bin/uv pip compile --no-config --quiet --universal \
	--python-version 3.11 --generate-hashes --no-annotate --no-strip-extras --no-emit-index-url --no-emit-find-links --upgrade

lock: $(READY) ## resolve and pin the requirements anew
	@test -x $(LOCK_VENV)/bin/uv || $(BIN)/python -m venv $(LOCK_VENV)
	@$(LOCK_VENV)/bin/python -m pip install -qq --disable-pip-version-check uv==$(UV_VERSION)
	@$(LOCK) pyproject.toml --output-file requirements/runtime.txt
	@$(LOCK) pyproject.toml --extra tracing --constraint requirements/runtime.txt --output-file requirements/tracing.txt
	@$(LOCK) pyproject.toml --all-extras --constraint requirements/tracing.txt --output-file requirements/dev.txt
	@$(LOCK) --group pyproject.toml:bench --constraint requirements/dev.txt --output-file requirements/bench.txt
	@$(LOCK) --group pyproject.toml:build --constraint requirements/dev.txt --output-file requirements/build.txt
	@echo "requirements/ is up to date; make setup installs it"
