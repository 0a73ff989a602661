# Everything that a person or a CI machine runs; `make` alone lists it. The environment is .venv, made when it is needed.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test env fmt lint docs bench campaign constraints clean

help:  ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)$$/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/.all  ## two nodes on this machine exchange real data and prove it
	@$(BIN)/python notebooks/demo.py

test:  ## lint, then every test; each stage is timed, the first failure ends the run
	@.ci/stages

env: $(VENV)/.dev  ## the environment of the tests

lint: env  ## ruff, mypy, the import contracts
	@.ci/lint

fmt: env  ## format and sort imports
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

docs: env  ## the documentation, in docs/_build/html
	@$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: env  ## how fast it is here, beside what else is installed; ARGS="--scale 0.03 --rows lan,loss1" and others
	@$(BIN)/python -m tests.bench $(ARGS)

campaign: env  ## the long reliability campaigns
	@$(BIN)/python -m pytest tests -m campaign

constraints: env  ## write constraints.txt anew from what .venv holds
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip freeze --all --exclude-editable \
	  | grep -E '^[A-Za-z0-9_.-]+==' | grep -vE '^(pip|setuptools|wheel)=='; } > constraints.new && mv constraints.new constraints.txt

clean:  ## remove what was built
	@rm -rf $(VENV) docs/_build build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "labxchange needs Python 3.11 or newer. If it has another name here: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "Python's venv module is missing. On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	@echo "Making the environment in $(VENV) (once; about two minutes)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# A stamp says that an environment holds what pyproject.toml and constraints.txt ask for. Build tools are installed first and
# pinned like the rest, instead of the newest ones being fetched apart. The second holds all of the first.
$(VENV)/.all: pyproject.toml constraints.txt | $(BIN)/python
	@$(PIP) hatchling editables
	@$(PIP) --no-build-isolation -e ".[all]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@$(PIP) hatchling editables
	@$(PIP) --no-build-isolation -e ".[dev]"
	@touch $(VENV)/.all $@
