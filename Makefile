# Two commands: `make quickstart` and `make test`. Each sets up .venv if it is not there yet.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
GROUPS  = runtime mminstall openclip huggingface export quickstart tests
FILES   = $(GROUPS:%=requirements/%.txt) requirements/constraints.txt setup.py
# The stamp holds the hash of what was installed: an unchanged environment is not touched again.
HASH   := $(shell cat $(FILES) | sha256sum | cut -c1-16)
STAMP   = $(VENV)/vfd-$(HASH)

.PHONY: install quickstart test lint docs format clean

install: $(STAMP)

$(STAMP):
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c requirements/constraints.txt $(GROUPS:%=-r requirements/%.txt)
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	rm -f $(VENV)/vfd-*
	touch $@

quickstart: install
	$(BIN)/vfd quickstart

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell vfd tools examples tests demo benchmarks configs docs *.md

docs: install
	$(BIN)/mkdocs build --strict --quiet

test: lint docs
	$(BIN)/python -m pytest tests

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf work_dirs site build .mypy_cache .ruff_cache .pytest_cache
