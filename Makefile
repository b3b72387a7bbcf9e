# Every target sets up the virtual environment first, and reinstalls nothing when nothing changed.
PYTHON ?= python3
VENV ?= .venv
TESTS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help run test test-all lint format type docs bench bench-check check clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

$(READY): pyproject.toml constraints.txt
	@python='$(PYTHON)'; if test -x $(BIN)/pip; then python=$(BIN)/python; fi; \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "initbench needs Python 3.11 or later, and $$python is not; run: make clean && make run PYTHON=python3.11" >&2; \
	exit 1; }
	test -x $(BIN)/pip || '$(PYTHON)' -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

run: $(READY) ## train configs/relu_kaiming.yaml and explain what was seen
	$(BIN)/initbench run configs/relu_kaiming.yaml

test: $(READY) ## the fast tests; TESTS=tests/probing runs some of them
	$(BIN)/python -m pytest -n 2 -m 'not slow' $(TESTS)

test-all: $(READY) ## every test, the slow ones too; TESTS=... as for test
	$(BIN)/python -m pytest -n 2 $(TESTS)

lint: $(READY) ## ruff, codespell, and the words of names and prose
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files -z | xargs -0 $(BIN)/codespell
	$(BIN)/python -m tools.check_language

format: $(READY) ## ruff: fix and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(READY) ## mypy, strict
	$(BIN)/mypy

docs: $(READY) ## write the generated pages of docs/
	$(BIN)/python -m docs.generate

bench: $(READY) ## measure the speed on an idle machine, and store it in benchmarks/
	$(BIN)/python -m benchmarks

bench-check: $(READY) ## measure the speed, and fail if it is below the stored one
	$(BIN)/python -m benchmarks --check

check: lint type test ## what CI runs

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info
