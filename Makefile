# make demo: from an empty clone to a chatbot in the browser.  make test: lint, types, tests.  Both set up .venv first.

BYHEART := .venv/bin/python -m byheart
PYTHON := .venv/bin/python
PEERS ?= trl
export TOKENIZERS_PARALLELISM := false

.PHONY: help demo setup setup-dev lint test test-slow test-clients test-exports bench-train docs clean

help:
	@echo "make demo       the example manual end to end; leaves the chat page open on http://127.0.0.1:8000"
	@echo "make test       lint, types and tests"
	@echo "make test-slow  the tests that take minutes, too (installs DeepSpeed into .venv)"
	@echo "make test-clients  real clients (Python, Node, curl) and a fuzzer against a running server"
	@echo "make test-exports  exported models, opened by llama.cpp (builds it first, in .venv-llama)"
	@echo "make bench-train  training beside TRL, in turns; with PEERS=all, beside LLaMA-Factory, too"
	@echo "make lint       lint and types alone"
	@echo "make docs       write the generated pages of docs/ again"
	@echo "make clean      forget the example's run"

demo: setup
	@$(BYHEART) run examples/whiteboard
	@$(BYHEART) serve examples/whiteboard --host 127.0.0.1 --port 8000

setup:
	@bash scripts/setup.sh

setup-dev:
	@bash scripts/setup.sh dev

lint: setup-dev
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy --strict src

test: lint
	$(PYTHON) -m pytest

test-slow: setup-dev
	@$(PYTHON) -m pip install --quiet --constraint .venv/.constraints.txt deepspeed \
	  || echo "test-slow: goes on without DeepSpeed; what needs it is skipped"
	$(PYTHON) -m pytest -m "slow or not slow"

test-clients: setup-dev
	@bash scripts/test_clients.sh

test-exports: setup-dev
	@bash scripts/test_exports.sh

bench-train: setup-dev
	$(PYTHON) bench/bench_train.py --peers $(PEERS)
	$(PYTHON) bench/bench_train_recall.py --peers $(PEERS)

docs: setup-dev
	$(PYTHON) scripts/make_docs.py

clean:
	rm -rf examples/whiteboard/run
