# Every target works in a fresh clone: it first brings .venv up to date, which costs nothing when it is.
# PYTHON names the interpreter that .venv is made with (3.11 or newer).

PYTHON ?= python3
BIN := .venv/bin
TESTS := client/tests node/tests integration/tests

# Here and not in the bootstrap, so that an interpreter too old to read that file can still say so.
REFUSE_OLD_PYTHON := import sys; sys.version_info >= (3, 11) or sys.exit("setup: granum needs Python 3.11 or newer and this is \
  %d.%d; name a newer one: make PYTHON=/path/to/python3" % sys.version_info[:2])

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

.PHONY: help setup demo test coverage bench bench-node bench-stream pyme check check-docs check-deploy wheelhouse deploy-tools fuzz scoreboard scoreboard-long sim box lab-vm molecule lock format ci clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name does; do printf 'make %-16s%s\n' "$$name" "$$does"; done

setup:  ## make .venv with everything for development (done by the other targets when needed)
	@$(PYTHON) -c '$(REFUSE_OLD_PYTHON)'
	@$(PYTHON) tools/bootstrap.py

demo: setup  ## three nodes on loopback, a movie and a camera streamed to them, every frame verified
	@$(BIN)/python -m integration.demo

test: setup  ## every test; what needs root or a package that is missing skips, saying so
	@$(BIN)/python -m pytest $(TESTS)

# Not part of `test`: it takes twice as long, and the tracer of Python 3.11 has been seen to spin for minutes in one thread.
coverage: setup  ## which lines and branches the tests of client and node reach
	@rm -f .coverage .coverage.*
	@$(BIN)/coverage run -m pytest client/tests node/tests
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

bench: bench-node bench-stream  ## every benchmark

bench-node: setup  ## the node beside nginx, PYME's node and this machine's limits, as one table; ARGS=--quick for a look
	@$(BIN)/python -m integration.bench.node $(ARGS)

bench-stream: setup  ## the streaming client beside PYME's and this machine's limits, as one table; ARGS=--quick for a look
	@$(BIN)/python -m integration.bench.stream $(ARGS)

pyme: setup  ## PYME in an environment of its own, below build/, for the tests and benchmarks that have it as a peer
	@$(BIN)/python -m integration.bench.programs

check: setup  ## style, types, imports, lock, neutrality, and what the documents say
	@echo "check: ruff" && $(BIN)/ruff check --quiet . && $(BIN)/ruff format --check --quiet .
	@echo "check: mypy" && $(BIN)/mypy --no-error-summary
	@echo "check: direction of imports" && $(BIN)/lint-imports --no-logo
	@echo "check: lock" && $(BIN)/python -m tools.check_lock
	@echo "check: neutrality" && $(BIN)/python -m tools.check_neutral
	@echo "check: documents" && $(BIN)/python -m tools.check_docs

wheelhouse: setup  ## granum and all that it needs, for machines without a way to an index, in build/wheelhouse (ARGS=--help)
	@$(BIN)/python -m tools.wheelhouse $(ARGS)

deploy-tools: setup  ## ansible, ansible-lint and molecule in an environment of their own, below build/
	@$(BIN)/python -m tools.deploy_tools

check-deploy: setup  ## ansible/: lint, the syntax of the playbooks, the hardening of the unit
	@$(BIN)/python -m tools.check_deploy

check-docs: setup  ## run the commands and snippets of the documents, follow their links
	@$(BIN)/python -m tools.check_docs

FUZZ_SECONDS := 60
fuzz: setup  ## look for bytes that the readers of requests, listings and frames do not withstand; FUZZ_SECONDS for each
	@$(BIN)/python -m integration.fuzz.run --seconds $(FUZZ_SECONDS)

scoreboard: setup  ## the promises under faults, in minutes; rows that cannot run say why (ROWS=R1,R3 for some)
	@$(BIN)/python -m integration.scoreboard $(if $(ROWS),--rows $(ROWS))

scoreboard-long: setup  ## the same with every file system, more states, more kills, and the rows that take long
	@$(BIN)/python -m integration.scoreboard --long $(if $(ROWS),--rows $(ROWS))

box: setup  ## a box for the lab of virtual machines, from Debian packages, below build/box (root)
	@$(BIN)/python -m integration.vm.packages
	@vagrant/box.sh build/box

lab-vm: setup  ## ansible/ proven on virtual machines, with a table of scenarios (root; KEEP=1 leaves them up, ONLY=stream,reboot for some)
	@$(BIN)/python -m integration.vm $(if $(KEEP),--keep) $(if $(ONLY),--only "$(ONLY)")

molecule: setup  ## ansible/ proven in containers with systemd, in minutes (root; ONLY=default,gateway for some)
	@$(BIN)/python -m integration.molecule $(if $(ONLY),--only "$(ONLY)")

SEEDS := 2000
sim: setup  ## the real client and node in simulated clusters, one from each of SEEDS seeds; what fails says how to see it again
	@$(BIN)/python -m integration.simulation --seeds $(SEEDS)

lock: setup  ## solve requirements/lock.txt again; ARGS=--upgrade moves every pin to its newest version
	@$(BIN)/python -m tools.lock $(ARGS)

format: setup  ## let ruff format the code and mend what it can
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

ci: FUZZ_SECONDS := 15
ci: setup  ## what .ci/run calls: check, check-deploy, fuzz (shortly), test, demo, lab-vm (as root), with the time of each
	@$(MAKE) pyme || echo "ci: PYME cannot be had here, so the tests with it skip"
	@[ "$$(id -u)" = 0 ] && lab=lab-vm || { lab=; echo "ci: not root, so the lab of virtual machines is left out"; }; \
	for step in check check-deploy fuzz test demo $$lab; do \
	  echo "ci: $$step"; start=$$(date +%s); \
	  $(MAKE) $$step FUZZ_SECONDS=$(FUZZ_SECONDS) || { echo "ci: $$step FAILED after $$(( $$(date +%s) - start )) s" >&2; exit 1; }; \
	  echo "ci: $$step passed in $$(( $$(date +%s) - start )) s"; \
	done

clean:  ## remove .venv and everything else that is made
	@echo "clean: .venv, caches, build output"
	@rm -rf .venv build dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +
