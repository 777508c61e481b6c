# Two commands: `make demo` and `make test`. Both make .venv on first use; `PYTHON=python3.12 make demo` chooses the Python.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
MOVIELENS := data/prepared/movielens

.PHONY: demo test soak lint clean

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/installed-test: requirements-test.txt $(VENV)/installed
	$(RUN) -m pip install -q --disable-pip-version-check -r requirements-test.txt
	touch $@

$(MOVIELENS): | $(VENV)/installed
	$(RUN) -m mmctr_jax prepare movielens data/ml-latest-small --out $@ --negatives 1

$(MOVIELENS)/embedded: | $(MOVIELENS)
	$(RUN) -m mmctr_jax embed $(MOVIELENS) --dim 32
	touch $@

demo: $(VENV)/installed $(MOVIELENS)/embedded
	$(RUN) train.py --config configs/quickstart.yaml --resume
	$(RUN) -m benchmarks.demo

test: $(VENV)/installed-test
	$(RUN) -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

soak: $(VENV)/installed-test
	$(RUN) -m pytest -q -s -m soak tests

lint: $(VENV)/installed-test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

clean:
	rm -rf $(VENV) cache runs data/prepared
