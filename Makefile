# make demo: the whole path on a generated mailbox. make test: everything that is checked. Both set up what is missing.
VENV := .venv
PYTHON ?= python3.11
STAMP := $(VENV)/.installed

EXTRAS := train,benchmarks,kafka,keyring,plots,search,secrets,serve,tracking,weaviate,dev
ifeq ($(shell uname -s),Linux)
EXTRAS := $(EXTRAS),liger
endif

KILLS ?= 200
SEED ?= 1
BUS ?= both

.PHONY: setup demo test lint bench chaos clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "mailtide needs Python 3.11 or later: name one with make PYTHON=..."; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python -c constraints.txt -e '.[$(EXTRAS)]'
	touch $(STAMP)

demo: setup
	$(VENV)/bin/mailtide demo

lint: setup
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

test: setup
	$(VENV)/bin/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

bench: setup
	$(VENV)/bin/python -m tests.bench --write docs/benchmarks.md

# Kills parts of the whole while mail flows, for an hour or more: docs/chaos.md.
chaos: setup
	$(VENV)/bin/python -m tests.chaos --kills $(KILLS) --seed $(SEED) --bus $(BUS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
