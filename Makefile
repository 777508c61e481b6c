# `make demo` shows what it does, `make test` that it works; CONTRIBUTING.md explains the rest.
# Each makes .venv on first use; `PYTHON=python3.12 make demo` chooses the Python.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check -c .ci/constraints.txt
MOVIELENS := data/prepared/movielens

.PHONY: demo test test-slow soak gpu lint docs clean

$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(INSTALL) -e ".[dev]"
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(INSTALL) -e ".[docs]"
	touch $@

$(MOVIELENS): | $(VENV)/installed
	$(BIN)/mmctr prepare movielens data/ml-latest-small --out $@ --negatives 1

$(MOVIELENS)/embedded: | $(MOVIELENS)
	$(BIN)/mmctr embed $(MOVIELENS) --dim 32
	touch $@

demo: $(VENV)/installed $(MOVIELENS)/embedded
	$(BIN)/mmctr train --config configs/quickstart.yaml --resume
	$(BIN)/python -m benchmarks.demo

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder -m slow

soak: $(VENV)/installed-dev
	$(BIN)/python -m pytest -q -s -m soak tests

# For a machine with an NVIDIA card: everything that is to be known of it, in ten minutes.
gpu: $(VENV)/installed-dev
	$(INSTALL) -e ".[gpu,peer]"
	$(BIN)/python -m benchmarks.run gpu --out GPU.md

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python docs/settings.py --check

docs: $(VENV)/installed-docs
	$(BIN)/python docs/settings.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) cache runs data/prepared site
