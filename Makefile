# Shardyard's tasks. `make help` lists them; README.md says more.
#
#   PG_BIN=/folder     the PostgreSQL binaries that the development cluster uses, in tests too
#   ONCE=1             make demo ends after the tour
#   RUN=pattern        make test and make bench run only what matches
#   FUZZTIME=10m       time of each fuzz target
#   CHAOSTIME=5m       time of make chaos and make clients; SEED=n repeats one of their runs
#   SOAKTIME=10m       time of make soak
#   QUERIES=5000       random statements of make differential
#   COUNT=6 BENCHTIME=0.3s  repetitions of make bench-micro, and the time of each

GO ?= go
LISTEN ?= 127.0.0.1:6432
FUZZTIME ?= 10m
CHAOSTIME ?= 5m
SOAKTIME ?= 10m
QUERIES ?= 5000
COUNT ?= 6
BENCHTIME ?= 0.3s

# Postgres's own grammar is C code.
export CGO_ENABLED = 1
ifdef PG_BIN
export PG_BIN
endif

# Packages without goroutines of their own; and tests of the whole, which mostly wait for servers and for routers in processes of
# their own. All others are tested under the race detector. What takes longest begins first.
PLAIN = ./internal/oracle ./internal/chaos ./internal/clients ./internal/crash ./internal/compose ./internal/bench ./internal/soak \
	./directory ./planner/... ./rebalance ./router/merge ./router/pgerr ./router/wire
# What make bench-micro measures: no servers are needed.
MICRO = ./directory ./planner ./planner/lexer ./router/metrics ./router/wire
SLOW = ./router ./router/schema
# Test programs are linked without what only debuggers read, and vetted by make lint.
TEST_FLAGS = -timeout 15m -vet=off -ldflags='-s -w' $(if $(RUN),-run '$(RUN)')

.PHONY: help
help: ## list the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/shardyard
	@test -e bin/shardyard || echo "Building bin/shardyard. The first build takes some minutes: PostgreSQL's grammar is compiled."
	$(GO) build -buildvcs=false -o bin/shardyard ./cmd/shardyard

.PHONY: demo
demo: build ## start a cluster of three shards with a sample shop, and show it (ONCE=1: and end)
	bin/shardyard dev --shards 3 --replicas 1 --listen $(LISTEN) --sample $(if $(ONCE),--once)

# Less of two cores' time for the garbage collectors of many processes.
test: export GOGC = 300
.PHONY: test
test: build bin/etcd bin/etcdctl ## run all tests, against real servers
	$(GO) test $(TEST_FLAGS) -p 3 -parallel 8 $(PLAIN)
	$(GO) test $(TEST_FLAGS) -race -p 4 -parallel 6 $(SLOW) $$($(GO) list ./... | grep -vxF "$$($(GO) list $(PLAIN))")

.PHONY: lint
lint: bin/golangci-lint ## check the rules of the house: imports, lengths, names, errors
	$(GO) -C internal/lint test -count=1 ./...
	$(GO) -C internal/lint run ./house $(CURDIR)
	bin/golangci-lint run ./...

# Built from a module of its own, so that its dependencies are not ours.
bin/golangci-lint: internal/lint/go.mod internal/lint/go.sum
	@echo "Building golangci-lint. The first build takes some minutes."
	$(GO) -C internal/lint build -buildvcs=false -o $(CURDIR)/$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

# The test of docker-compose.yml runs its etcd members and their health checks.
bin/etcd bin/etcdctl: internal/etcdbin/go.mod internal/etcdbin/go.sum
	$(GO) -C internal/etcdbin build -buildvcs=false -o $(CURDIR)/$@ go.etcd.io/etcd/$(if $(filter %ctl,$@),etcdctl,server)/v3
	@touch $@

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME each
	@set -e; for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

.PHONY: crash
crash: ## kill routers (-9) at every step of commits over several shards and of their recovery
	$(GO) test -timeout 60m -count=1 $(if $(RUN),-run '$(RUN)') ./internal/crash -args -full

.PHONY: chaos
chaos: ## move money for CHAOSTIME while shards, routers and etcd are killed (-9) and stopped (SEED=n repeats one run)
	$(GO) test -timeout 60m -count=1 -v ./internal/chaos -chaos.for $(CHAOSTIME) -chaos.rest 0 $(if $(SEED),-chaos.seed $(SEED))

.PHONY: differential
differential: ## compare QUERIES random queries and as many other statements with one Postgres (SEED=n repeats one run)
	$(GO) test -timeout 60m -count=1 -v -run 'TestRandom' ./internal/oracle -oracle.queries $(QUERIES) -oracle.statements $(QUERIES) $(if $(SEED),-oracle.seed $(SEED))

.PHONY: conformance
conformance: ## run PostgreSQL's own regression and isolation suites and the tests of pgx through the router (RUN=files, CONFORMANCE_FLAGS='-suites regress -json')
	$(GO) run ./internal/conformance $(if $(RUN),-run '$(RUN)') $(CONFORMANCE_FLAGS)

.PHONY: clients
clients: ## a thousand clients on 16 server connections of each shard for CHAOSTIME, while shards restart (SEED=n)
	$(GO) test -timeout 60m -count=1 -v -run TestClients ./internal/soak -clients.n 1000 -clients.for $(CHAOSTIME) $(if $(SEED),-soak.seed $(SEED))

.PHONY: soak
soak: ## clients that connect, cancel and vanish for SOAKTIME; nothing may grow (SEED=n)
	$(GO) test -timeout 60m -count=1 -v -run TestSoak ./internal/soak -soak.for $(SOAKTIME) $(if $(SEED),-soak.seed $(SEED))

.PHONY: bench
bench: build ## measure what the router costs, against PgBouncer, in 20 minutes (RUN=section, BENCH_FLAGS=-long); writes docs/performance.md
	$(GO) run ./internal/bench $(if $(RUN),-run '$(RUN)') $(BENCH_FLAGS)

.PHONY: bench-micro
bench-micro: ## run the micro-benchmarks of the short path COUNT times, for benchstat (docs/performance.md); RUN=pattern
	@$(GO) test -run '^$$' -bench '$(or $(RUN),.)' -count $(COUNT) -benchtime $(BENCHTIME) -timeout 60m $(MICRO)

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
