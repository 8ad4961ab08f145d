# planish: everything a newcomer needs. Python 3.11 or newer, make and pip are enough.

VENV ?= .venv
# The newest Python that is here, unless PYTHON says which.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && \
	echo "$$p" && break; done)
BIN := $(VENV)/bin
# Tests run in as many processes as there are cores.
PYTEST_ARGS ?= -n auto
BENCH_ARGS ?=

.PHONY: help demo test bench lint clean

help:
	@echo "make demo    what planish makes of an embedded network, in under a minute"
	@echo "make test    every test"
	@echo "make bench   planish against its peers (installs them: a few GB)"
	@echo "make lint    ruff and mypy"
	@echo "make clean   remove the virtual environment and what tools left behind"

$(VENV)/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; say which: make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

demo: $(VENV)/installed
	@$(BIN)/planish demo

test: $(VENV)/installed
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

bench: $(VENV)/installed-bench
	@$(BIN)/python bench/peers.py $(BENCH_ARGS)

lint: $(VENV)/installed
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
