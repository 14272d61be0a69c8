# The commands of README.md and CONTRIBUTING.md, by name.
.PHONY: help setup test bench lint docs
BIN := .venv/bin

help: # the default: what there is
	@sed -n 's/^\([a-z]*\):[^#]*# /\1	/p' Makefile

setup: # .venv with the package, what tests and linters need
	python3 -m venv .venv && $(BIN)/pip install -e ".[test,lint]"

test: # all tests
	$(BIN)/pytest

bench: # one figure each; `fastrnn bench` compares
	$(BIN)/pytest benchmarks/ --benchmark-only

lint: # ruff, mypy, the format of C
	$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy fastrnn
	find csrc -name '*.[ch]' -o -name '*.inc' | xargs $(BIN)/clang-format --dry-run --Werror

docs: # the examples in docstrings and README, the drawn tree
	$(BIN)/pytest --doctest-modules fastrnn
	$(BIN)/pytest $$(find tests -name test_readme.py -o -name test_docs.py)
