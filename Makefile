# `make` lists what there is. Everything runs in .venv, which is made on first use.

python := .venv/bin/python
# One test more at a time than there are processors, for those that start nodes wait for them much
# of the time. Not more than four, for each may start several.
at_once := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
pytest := $(python) -m pytest -n $(at_once) --maxprocesses 4 --dist worksteal
ARGS ?=
SEEDS ?= 1000
MINUTES ?= 5
NODES ?= 3
TIMES ?= 10

.DEFAULT_GOAL := help
.PHONY: help setup run demo test check coverage fuzz simulate mutate chaos bench bench-recovery bench-link bench-growth bench-bulk bench-lag bench-workers bench-memory bench-instructions bench-work profile format docs lock clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## Make .venv with the locked dependencies; done again only when the lock changes.
	@tools/setup

run: setup ## Start nodes A, B, C on 8001-8003 and keep them until Ctrl-C. Options in ARGS.
	@$(python) -m app.local_cluster $(ARGS)

demo: setup ## Start a cluster of its own, show what it guarantees, step by step, and stop it.
	@$(python) -m client.test_scenario $(ARGS)

test: setup ## Run the tests; ARGS go to pytest, as in: make test ARGS='-k config'.
	$(pytest) $(ARGS)

check: setup ## Everything that must pass before a change is taken: format, lint, types, layers, tests.
	$(python) -m ruff format --check .
	$(python) -m ruff check .
	$(python) -m mypy
	.venv/bin/lint-imports
	$(pytest) $(ARGS)

simulate: setup ## Run many clusters on virtual time: SEEDS=10000, or ARGS='--seed 7' for the story of one.
	$(python) -m tests.simulation $(if $(ARGS),$(ARGS),--seeds $(SEEDS))

coverage: setup ## Run all tests and show which lines and branches of app/ they take, processes included.
	$(pytest) --cov $(ARGS)

fuzz: setup ## Let the property tests try TIMES=10 as hard; ARGS='-k twin' for some of them.
	TIMES=$(TIMES) $(pytest) --hypothesis-profile=fuzz \
		tests/test_twin.py tests/test_codec.py tests/test_wire.py tests/fuzzing $(ARGS)
	@if $(python) -c 'import atheris' 2>/dev/null; then $(python) -m tests.fuzzing.guided; else \
		echo "fuzz: without the guided part; for it, pip install atheris into .venv"; \
	fi

mutate: setup ## Break the code on purpose, in copies, and see in how many seeds the simulation notices.
	$(python) -m tests.mutations $(ARGS)

chaos: setup ## Kill, stop, cut and fill up real nodes under load: MINUTES=30 NODES=5 SEED=7. Writes a report.
	$(python) -m tests.chaos --minutes $(MINUTES) --nodes $(NODES) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: setup ## Measure what a request costs, here and elsewhere: ARGS='--rounds 3 --contenders bare alone'.
	$(python) -m bench $(ARGS)

profile: setup ## Draw a flame graph of a worker under load: ARGS='--operation GET --nodes 3'.
	$(python) -m bench.profiling $(ARGS)

bench-recovery: setup ## Measure what catching up costs: ARGS='--stored 10000 1000000 --missed 1000 100000'.
	$(python) -m bench.recovery $(ARGS)

bench-link: setup ## Measure what one link costs, by the size of its batches: ARGS='--writes 50000 --rounds 3'.
	$(python) -m bench.link $(ARGS)

bench-growth: setup ## Measure how the cost of a write grows with nodes, keys and what waits, and memory.
	$(python) -m bench.growth $(ARGS)

bench-bulk: setup ## Measure how fast many puts are taken: ARGS='--puts 200000'.
	$(python) -m bench.bulk $(ARGS)

bench-lag: setup ## Measure when a write is visible elsewhere: ARGS='--delays 0 50 150 --rounds 3'.
	$(python) -m bench.lag $(ARGS)

bench-workers: setup ## Measure what a request costs with several workers: ARGS='--workers 2 4'.
	$(python) -m bench.workers $(ARGS)

bench-instructions: setup ## Count what each script costs Redis, in instructions (by valgrind): ARGS='--sizes 16'.
	@$(python) -m bench.instructions $(ARGS)

bench-work: setup ## Count what a request costs a worker, in instructions (by valgrind): ARGS='--connections 30'.
	@$(python) -m bench.work $(ARGS)

bench-memory: MINUTES = 10
bench-memory: setup ## Measure whether a node's memory stays as it is under load: MINUTES=10.
	$(python) -m bench.memory --minutes $(MINUTES) $(ARGS)

format: setup ## Write the code in its standard form, and mend what can be mended.
	$(python) -m ruff check --fix-only .
	$(python) -m ruff format .

docs: setup ## Write the settings into docs/settings.md and the contract into docs/openapi.json.
	$(python) -m tools.settings_page
	$(python) -m tools.contract_page

lock: ## Write the newest fitting versions, with hashes, to the lock files. Needs uv.
	tools/lock

clean: ## Take away .venv, caches and the data of local nodes.
	rm -rf .venv data .fuzz .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf .coverage htmlcov build dist *.egg-info
	find app client tests -name __pycache__ -type d -prune -exec rm -rf {} +

# --- containers: deploy/, run with `docker compose` or docker-compose, whichever there is ---------

NODE ?= node1
.PHONY: up down logs ps redis-cli demo-docker test-docker

up: ## Build the image, start nodes A, B, C and their Redis as containers, and wait until ready.
	@tools/docker-up

down: ## Stop the containers and take them away; the data stays in its volumes.
	@tools/compose down

logs: ## Follow the logs of the containers; one of them with ARGS=node1.
	@tools/compose logs --follow --tail 100 $(ARGS)

ps: ## List the containers and their health.
	@tools/compose ps

redis-cli: ## Open redis-cli inside the Redis of NODE=node1, or run it: ARGS='HGETALL clock'.
	@[ -t 0 ] && tty= || tty=-T; \
		tools/compose exec $$tty $(patsubst node%,redis%,$(NODE)) redis-cli $(ARGS)

demo-docker: setup ## Start containers of their own, run the demonstration against them, take them away.
	@tools/docker-demo $(ARGS)

test-docker: setup ## Run the tests of containers; ARGS go to pytest. Skips where no Docker engine answers.
	@if docker version >/dev/null 2>&1; then \
		tools/standin-images && $(python) -m pytest tests/docker $(ARGS); \
	else \
		echo "test-docker: skipped, for no Docker engine answers"; \
	fi
