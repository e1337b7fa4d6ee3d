# Every target makes its own environment in .venv, so `make demo` works in a fresh checkout.

PYTHON ?= python3
PYTEST_WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := --shots 1024 --maxiter 60 --workers 8 --optimizer adam --seed 7
BENCHMARKS := startup query train_step cuts training accuracy scaling stragglers overhead cost_model shots fragment search wide peers

# Small circuits in parallel tasks: threads inside the linear algebra only get in each other's way.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export MKL_NUM_THREADS := 1

# Every test process would compile all modules, and pytest rewrite all tests, once more.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs bench soak browser clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s  %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null || { \
		echo "error: '$(PYTHON)' is not Python 3.11, 3.12 or 3.13 (it says: $$($(PYTHON) --version 2>&1))." \
			"Name one, for example: make PYTHON=python3.11" >&2; exit 1; }
	@echo "Setting up $(VENV) (a minute or two) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
		-c constraints.txt -e '.[aer,reference,ml,data,track,ray,dask,runtime,report,analysis,study,docs,dev]'
	@touch $@

demo: $(STAMP) ## Train Iris with 2 cuts and, beside it, uncut; results in runs/demo-*
	@rm -rf runs/demo-cut runs/demo-uncut
	$(BIN)/dest train iris --cuts 2 $(DEMO) --out runs/demo-cut
	$(BIN)/dest train iris --cuts 0 $(DEMO) --out runs/demo-uncut

test: $(STAMP) ## Run the tests (PYTEST_WORKERS=2, PYTEST_ARGS=...)
	@# worksteal: a worker keeps to whole files, so it makes what their tests share once.
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist worksteal --durations=15 $(PYTEST_ARGS)

lint: $(STAMP) ## Format, lint, types and the import contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(STAMP) ## Build the documentation in build/docs, run its notebooks; warnings are errors
	@# -E: notebooks are run again, as what they show depends on more than themselves.
	$(BIN)/sphinx-build -W --keep-going -q -E -d build/doctrees -b html docs build/docs
	@echo "Open build/docs/index.html"

bench: $(STAMP) ## Run the benchmarks; JSON documents in runs/bench/
	@mkdir -p runs/bench
	@set -e; for name in $(BENCHMARKS); do \
		echo "benchmarks.$$name -> runs/bench/$$name.json"; \
		$(BIN)/python -m benchmarks.$$name --json > runs/bench/$$name.json.part; \
		mv runs/bench/$$name.json.part runs/bench/$$name.json; \
	done

soak: $(STAMP) ## Run the long tests that `make test` leaves out
	@# 5 is pytest's "nothing to run": no test carries the mark.
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) -m soak --dist worksteal --durations=15 $(PYTEST_ARGS) || { code=$$?; [ $$code -eq 5 ] || exit $$code; }

browser: $(STAMP) ## Test report pages in Chromium (apt-get install chromium)
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) -m browser $(PYTEST_ARGS)

clean: ## Remove the environment, caches and what demo and bench wrote
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf runs/demo-cut runs/demo-uncut runs/bench
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
