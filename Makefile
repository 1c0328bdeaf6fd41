# `make` lists what there is. Each target does the install it needs; the install is quick when nothing changed.
VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.stamp
EXTRAS ?= dev
ARGS  ?=
RESULTS := benchmarks/results
# the first interpreter that fits; or say it: make install PYTHON=python3.12
FITS  := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
            "$$p" -c '$(FITS)' 2>/dev/null && { echo $$p; break; }; done)
# suites that need more than a CPU and a few seconds have targets of their own
FAST  := not slow and not shapes and not sglang and not docker and not gpu and not adapters and not ray
# some tests wait: one worker more than there are cores, 8 at the most
CORES := $(shell nproc 2>/dev/null || echo 2)
JOBS  ?= $(shell echo $$(( $(CORES) < 7 ? $(CORES) + 1 : 8 )))

.DEFAULT_GOAL := help
.PHONY: help install train test test-slow test-shapes test-adapters test-ray test-sglang test-docker test-gpu gpu coverage check lint types fmt controls study-seeds study-sigkill study-staleness study-credit bench acceptance mutations soak validate docs-probes docs-plans clean

help:  ## list the targets
	@echo "agentgym: make TARGET [ARGS=...]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## make .venv with everything that training and the tests need

$(STAMP): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c '$(FITS)' 2>/dev/null; then \
	  echo "agentgym needs Python 3.11, 3.12 or 3.13; found: $$($(or $(PYTHON),python3) --version 2>&1)." >&2; \
	  echo "Install one of these and say which: make install PYTHON=python3.12" >&2; exit 1; fi
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@[ -x $(BIN)/python ] && $(BIN)/python -c 'import pip' 2>/dev/null || "$(PYTHON)" -m venv --clear $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

train: install  ## train a tiny agent on this machine (ARGS="gsm8k --model.path=DIR ...")
	$(BIN)/agentgym train $(ARGS)

test: install  ## the fast tests, without network
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup -m "$(FAST)" $(ARGS)

test-slow: install  ## the tests that take longer
	$(BIN)/python -m pytest -q -m "slow" $(ARGS)

test-shapes: install  ## training at 50 M parameters and long episodes: memory, resume, overhead
	$(BIN)/python -m pytest -q -s -m shapes --timeout=3600 $(ARGS)

test-adapters: install  ## other gyms' environments (installs the extra `adapters`, which needs a C compiler), a tenth a day
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[$(EXTRAS),adapters]'
	$(BIN)/python -m pytest -q -m adapters $(ARGS)

validate: install  ## put every environment to the test: gold, cheap and hostile players, determinism, leaks
	$(BIN)/agentgym validate --all --tasks 6 $(ARGS)

test-ray: install  ## on a Ray cluster of several nodes, on this machine
	$(BIN)/python -m pytest -q -m ray --timeout=600 $(ARGS)

test-sglang: install  ## against a real SGLang server on this CPU (builds its environment once, 3 GiB in the cache folder)
	@python="$$AGENTGYM_SGLANG_PYTHON"; [ -n "$$python" ] || python="$$($(BIN)/python requirements/sglang_cpu.py)" || exit 1; \
	  AGENTGYM_SGLANG_PYTHON="$$python" $(BIN)/python -m pytest -q -m sglang --timeout=900 --durations=5 $(ARGS)

test-docker: install  ## every sandbox test, and the probes, on containers: an engine is started, or DOCKER_HOST is used
	AGENTGYM_SANDBOX_BACKEND=docker $(BIN)/python tests/docker_engine.py sh -ec '\
	  $(BIN)/python -m pytest -q tests/sandboxes --timeout=300 $(ARGS); \
	  $(BIN)/python -m pytest -q -m docker tests/envs --timeout=300; \
	  $(BIN)/agentgym sandbox probe --backend docker --image "$$AGENTGYM_TEST_IMAGE"'

test-gpu: install  ## on a CUDA device
	$(BIN)/python -m pytest -q -m gpu $(ARGS)

gpu:  ## what one GPU gives, in nine minutes: offline, with this machine's own Python and torch (PYTHON=..., ARGS="--parts ...")
	PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(or $(PYTHON),python3) benchmarks/gpu.py $(ARGS)

# not seen: interpreters of jails, judges and containers, which start without site-packages, and Ray's (make test-ray)
coverage: install  ## which lines the fast tests run, most of the processes they start included; fails below 90%
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup -m "$(FAST)" --timeout=600 --cov --cov-report=term \
	  --cov-fail-under=90 $(ARGS)

check: lint types test  ## what CI runs: lint, types, tests

lint: install  ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install  ## mypy, strict
	$(BIN)/mypy

fmt: install  ## format, and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

controls: install  ## RL beside shuffled rewards and rejection sampling
	@mkdir -p $(RESULTS)
	$(BIN)/python benchmarks/controls.py --json $(RESULTS)/controls.json $(ARGS)

study-sigkill: install  ## runs that are killed and resumed: nothing may be lost (ARGS="--short 3 --full 0")
	@mkdir -p $(RESULTS)
	$(BIN)/python benchmarks/sigkill_study.py --json $(RESULTS)/sigkill_study.json $(ARGS)

study-seeds: install  ## the default run under three seeds
	@mkdir -p $(RESULTS)
	$(BIN)/python benchmarks/seeds.py --json $(RESULTS)/seeds.json $(ARGS)

study-credit: install  ## which credit learns more, from one warm start: two lookups and parcels, three seeds
	@mkdir -p $(RESULTS)
	$(BIN)/python benchmarks/credit_study.py --json $(RESULTS)/credit_study.json $(ARGS)

study-staleness: install  ## the default loss on fresh and on stale tokens, three seeds (ARGS="--losses grpo,decoupled")
	@mkdir -p $(RESULTS)
	$(BIN)/python benchmarks/staleness_study.py --json $(RESULTS)/staleness.json $(ARGS)

bench: install  ## speed beside others, measured anew, and BENCHMARKS.md
	@mkdir -p $(RESULTS)
	@for b in engine learner vs_trl vs_sandboxes vs_gyms async_overlap math_verifier; do \
	  echo "== $$b"; $(BIN)/python benchmarks/$$b.py --json $(RESULTS)/$$b.json $(ARGS) || exit 1; done
	$(BIN)/python benchmarks/book.py

acceptance: install  ## the whole mission in one run: sandbox, math verifier, Ray, two SGLang replicas, two learner ranks
	@mkdir -p $(RESULTS)
	@python="$$($(BIN)/python requirements/sglang_cpu.py)" && \
	  AGENTGYM_SGLANG_PYTHON="$$python" $(BIN)/python tests/docker_engine.py \
	  $(BIN)/python benchmarks/acceptance.py --json $(RESULTS)/acceptance.json $(ARGS)

mutations: install  ## plant faults in credit, losses, parsers and rows: the tests have to find each
	$(BIN)/python tests/mutations.py $(ARGS)

soak: install  ## 50,000 executions and 2,000 sessions, hostile ones among them: nothing may be left (ARGS="--scale 0.1")
	@mkdir -p $(RESULTS)
	$(BIN)/python benchmarks/soak.py --json $(RESULTS)/soak.json $(ARGS)

docs-probes: install  ## run the probes and put their table into docs/sandboxes.md
	$(BIN)/agentgym sandbox probe --markdown docs/sandboxes.md $(ARGS)

docs-plans: install  ## plan the recipes for GPUs and put the plans into docs/planning.md
	$(BIN)/python benchmarks/plans.py $(ARGS)

clean:  ## remove caches and builds; .venv and runs stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
