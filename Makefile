# `make` lists what there is. Everything runs in .venv, which is made on first use.

python := .venv/bin/python
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup run demo test check format lock clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: ## Make .venv with the locked dependencies; done again only when the lock changes.
	@tools/setup

run: setup ## Start nodes A, B, C on 8001-8003 and keep them until Ctrl-C. Options in ARGS.
	@$(python) -m app.local_cluster $(ARGS)

demo: setup ## Start a cluster of its own, show what it guarantees, step by step, and stop it.
	@$(python) -m client.test_scenario $(ARGS)

test: setup ## Run the tests; ARGS go to pytest, as in: make test ARGS='-k config'.
	$(python) -m pytest $(ARGS)

check: setup ## Everything that must pass before a change is taken: format, lint, types, layers, tests.
	$(python) -m ruff format --check .
	$(python) -m ruff check .
	$(python) -m mypy
	.venv/bin/lint-imports
	$(python) -m pytest $(ARGS)

format: setup ## Write the code in its standard form, and mend what can be mended.
	$(python) -m ruff check --fix-only .
	$(python) -m ruff format .

lock: ## Write the newest fitting versions, with hashes, to the lock files. Needs uv.
	tools/lock

clean: ## Take away .venv, caches and the data of local nodes.
	rm -rf .venv data .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf .coverage htmlcov build dist *.egg-info
	find app client tests -name __pycache__ -type d -prune -exec rm -rf {} +
