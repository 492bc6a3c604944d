# Two commands set everything up on a bare Debian machine: `make demo` and `make test`.

SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python

# Passed on to pytest, e.g. make test PYTEST_ARGS="-k supervisor".
PYTEST_ARGS ?=
# Passed on to the measurements, e.g. make bench BENCH_ARGS="--write docs/benchmarks.md".
BENCH_ARGS ?=

# Seconds after which nothing more of `make test-hostile`, `-clients`, `-engines`, `-frameworks`, `-kubernetes` begins.
WITHIN ?=
# Of `make test-hostile`: how many random trees are killed.
TREES ?=
# Of `make test-load`: how long its clients work.
LOAD_SECONDS ?= 60
# Of `make test-clients`, e.g. make test-clients MATRIX_ARGS="--write docs/clients.md".
MATRIX_ARGS ?=

# Of `make test-engines`, e.g. make test-engines ENGINES_ARGS="--write docs/engines.md".
ENGINES_ARGS ?=

# Of `make test-frameworks`, e.g. make test-frameworks FRAMEWORKS_ARGS="--write docs/frameworks.md".
FRAMEWORKS_ARGS ?=

.PHONY: help setup images demo test test-faults test-frameworks test-clients test-converters test-languages test-registry test-engines test-kubernetes test-egress test-browser test-conformance test-load test-deploy test-hostile check recording bench bench-egress bench-forks bench-scale bench-kubernetes bench-fleet stop clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing: engine, virtual environment, default image. Quick when done.
	@scripts/bootstrap.sh

images: setup ## Build the images of the shipped skills: two minutes, 1 GB.
	@.venv/bin/taskcell image build --all

demo: setup ## Run the main job with a real MCP client and print what happens.
	@$(PYTHON) scripts/demo.py

test: setup ## Run the whole test suite. PYTEST_ARGS is passed on to pytest.
	@scripts/tests.sh $(PYTEST_ARGS)

test-faults: setup ## Run the slow tests: engines that hang, restart or fill up, and many sandboxes at once.
	@scripts/tests.sh -m faults -n 0 $(PYTEST_ARGS)

test-converters: setup ## Hold what tools publish against the strict converters of clients, which are installed first.
	@scripts/converters.sh
	@scripts/tests.sh -m converters -n 0 $(PYTEST_ARGS)

test-clients: setup ## Drive real MCP clients, each in an environment of its own below .cache. WITHIN=240.
	@scripts/clients.sh $(if $(WITHIN),--npm)
	@$(PYTHON) tests/clients/matrix/run.py $(if $(WITHIN),--within $(WITHIN)) $(MATRIX_ARGS)
	@$(if $(WITHIN),echo "left out: command lines of clients and clients over HTTP; make test-clients runs them",scripts/http_clients.sh && $(PYTHON) -m pytest -m clients $(PYTEST_ARGS))

test-frameworks: setup ## Try the adapters in agent frameworks, each installed below .cache, beside their Docker backends. WITHIN=240.
	@$(PYTHON) tests/integrations/run.py $(if $(WITHIN),--within $(WITHIN)) $(FRAMEWORKS_ARGS)

test-conformance: setup ## Run the server scenarios of MCP's conformance suite, which is installed first.
	@scripts/conformance.sh
	@scripts/tests.sh -m conformance -n 0 $(PYTEST_ARGS)

test-load: setup ## Keep a server over HTTP busy with 64 clients for a minute, and end it in the middle. LOAD_SECONDS=60.
	@TASKCELL_LOAD_SECONDS=$(LOAD_SECONDS) $(PYTHON) -m pytest -s -m faults tests/http/test_load.py $(PYTEST_ARGS)

test-deploy: setup ## Try the server's image, the systemd unit, Caddy with TLS and the Compose file of deploy/.
	@scripts/deploy_tools.sh
	@$(PYTHON) -m pytest -m deploy $(PYTEST_ARGS)

test-egress: setup ## Run package managers and clients of many languages in sandboxes; builds four images first: 3 GB.
	@scripts/egress.sh
	@$(PYTHON) -m pytest -m registries $(PYTEST_ARGS)

test-browser: setup ## Open a page of a sandbox in Chromium, which is installed from Debian's packages first.
	@scripts/browser.sh
	@$(PYTHON) -m pytest -m browser -n 0 $(PYTEST_ARGS)

test-languages: setup ## Run the real tools and programs of six languages; builds their images first: six minutes, 1.4 GB.
	@$(PYTHON) -m pytest -m languages $(PYTEST_ARGS)

test-registry: setup ## Pull images from a registry on loopback that asks for credentials; Debian's package of one is installed first.
	@scripts/registry.sh
	@$(PYTHON) -m pytest -m image_registry $(PYTEST_ARGS)

test-engines: setup ## Run the contract of engines on each that Debian has, in roots of their own: 25 minutes, 2 GB. WITHIN=240.
	@$(PYTHON) tests/engines/run.py $(if $(WITHIN),--within $(WITHIN)) $(ENGINES_ARGS)

test-kubernetes: setup ## Run the Kubernetes engine's suite on a cluster of two nodes, built once: 8 minutes. WITHIN=600.
	@scripts/kubernetes.sh $(or $(WITHIN),0) $(PYTHON) -m pytest -m kubernetes tests/engine tests/kubernetes $(PYTEST_ARGS)

test-hostile: setup ## Attack sandboxes, images and an engine of its own, and print what held. TREES=10000 WITHIN=240.
	@TASKCELL_TREES=$(TREES) $(PYTHON) tests/hostile/run.py $(if $(WITHIN),--within $(WITHIN)) $(PYTEST_ARGS)

check: ## Format, lint, types, layers, sizes, names, shell scripts, and the supervisor under sanitizers.
	@scripts/bootstrap.sh --check
	@scripts/check.sh

recording: setup ## Record the demo, and make the moving picture of the README from it.
	@$(PYTHON) scripts/record.py docs/demo.cast
	@npm exec --yes svg-term-cli@2.1.1 -- --in docs/demo.cast --out docs/demo.svg --window --width 100 --height 32

bench: setup ## Measure calls beside docker exec and docker-py, files beside docker cp, and the start.
	@$(PYTHON) bench/run.py $(BENCH_ARGS)
	@$(PYTHON) bench/files.py $(BENCH_ARGS)
	@$(PYTHON) bench/start.py $(BENCH_ARGS)

bench-egress: setup ## Measure the network by name beside a bridge and a proxy container.
	@$(PYTHON) bench/egress.py $(BENCH_ARGS)

bench-forks: setup ## Fork a task of 200 MB, and another one fifty times at once; copy trees beside docker cp.
	@$(PYTHON) bench/forks.py $(BENCH_ARGS)

bench-scale: setup ## Open 300 sandboxes at once and measure what each costs.
	@$(PYTHON) bench/scale.py $(BENCH_ARGS)

bench-kubernetes: setup ## Measure both engines in turn, then 1 to 100 pods on a cluster of two nodes.
	@scripts/kubernetes.sh 0 $(PYTHON) bench/kubernetes.py $(BENCH_ARGS)

bench-fleet: setup ## Simulate 100 servers and 100,000 tasks on a cluster; nothing is started.
	@$(PYTHON) bench/simulate.py $(BENCH_ARGS)

stop: ## Stop the engine, if it was started from here.
	@scripts/engine.sh stop

clean: ## Delete the virtual environment, caches and build results. The engine and its image stay.
	@scripts/clean.sh
