# Every target that a person or a CI job needs. "make" alone lists them.
SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

GO     ?= go
# Where make run keeps its sale, and where it listens.
DATA   ?= data
LISTEN ?= :8080
OPS    ?= 127.0.0.1:8081
# Packages tested side by side. Their tests start servers of their own, so more
# than a few at once measure the scheduler rather than the code.
P      ?= 2
FUZZTIME ?= 10s

# Where goroutines meet. SQLite bulk work under the race detector takes minutes
# and has found nothing, so the other packages run without it.
RACY := stock/... sale order/... gate gate/waiting gate/entrance gate/challenge api lib/wal lib/limit lib/outbox lib/run lib/id lib/clock \
        backend/walstock backend/sqlstore backend/redisgate backend/kafkabus backend/etcdlease bucket proof lib/lease lib/cluster

.PHONY: mutants kill help run build test servers check lint fmt tidy race fuzz sim bench naive ci fleet fleet-test

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## a demo sale on http://localhost:8080, its ops API on :8081
	./bin/sluice serve --demo --data $(DATA) --listen $(LISTEN) --ops $(OPS)

build: ## bin/sluice
	$(GO) build -o bin/sluice ./cmd/sluice

test: servers ## all tests, on real servers (installs what they need)
	$(GO) test -timeout 11m -p $(P) ./...

servers: ## install the real servers that tests and benchmarks start, if missing
	@./test/servers/install

check: lint tidy build ## what to run before a commit: seconds

lint: ## gofmt, go vet, staticcheck (pinned in tools/go.mod)
	@unformatted=$$(gofmt -l .); \
	if [ -n "$$unformatted" ]; then printf 'gofmt would change:\n%s\n' "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool -modfile=tools/go.mod staticcheck ./...

fmt: ## gofmt everything
	gofmt -w .

tidy: ## the house rules as a test: imports, sizes, names
	$(GO) test -count=1 ./internal

race: ## the race detector where goroutines meet
	$(GO) test -race -timeout 11m -p $(P) $(RACY:%=./internal/%)

fuzz: ## every fuzz target for FUZZTIME each (10s)
	@grep -rn --include='*_test.go' -E '^func Fuzz' internal storm | \
	sed -E 's|^(.*)/[^/]+_test\.go:[0-9]+:func (Fuzz[A-Za-z0-9_]*).*|\1 \2|' | \
	while read -r dir target; do \
		echo "$(GO) test -run '^$$' -fuzz ^$$target\$$ -fuzztime $(FUZZTIME) ./$$dir"; \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "./$$dir"; \
	done

mutants: ## plant bugs one at a time and show which test catches each (minutes)
	$(GO) run ./test/mutants

kill: ## kill -9 of real servers under storms, N times (1000: 20 to 30 minutes), SEED=… POINTS=… for some, STORM=… for one again
	$(GO) run ./test/kill -n $(or $(N),1000) -seed $(or $(SEED),0) -points '$(POINTS)' -storm $(or $(STORM),-1) -plant '$(PLANT)'

fleet: servers build ## gateways, workers, nginx, a Redis Cluster, two shards of MariaDB, Kafka and etcd with a sale on them, until Ctrl-C
	$(GO) run ./test/fleet/demo -binary bin/sluice

fleet-test: servers ## parts of a fleet killed, frozen, emptied, rolled back and cut off under storms, some 20 minutes; BIG=1: 100,000 users; FULL=1: broker, etcd member, shard and worker killed in one storm; FAULT=… ON=… for some, SEED=… PLANT=…
	$(GO) run ./test/fleet/faults -seed $(or $(SEED),0) -users $(or $(USERS),0) -stock $(or $(STOCK),0) -fault '$(FAULT)' -plant '$(PLANT)' -on '$(or $(ON),$(if $(FULL),full))' $(if $(BIG)$(FULL),-big)

sim: ## the whole engine under N seeds and faults (10000), or SEED=… once more with its trace
ifdef SEED
	SEED=$(SEED) $(GO) test -count=1 -run 'TestSeed$$' -v ./sim
else
	N=$(or $(N),10000) $(GO) test -count=1 -timeout 3h -run 'TestSeeds$$' -v ./sim
endif

bench: servers build ## measure beside nginx and Redis, write docs/BENCHMARKS.md (QUICK=1: 2 minutes)
	$(GO) run ./bench

naive: servers build ## the usual Redis + queue + SQL chain and Sluice under the same storm and kills, five minutes (QUICK=1: 40 s)
	$(GO) run ./bench/naive -compare

# In CI a server that cannot be had is a failure, not a skipped test.
ci: export CI := true
ci: ## everything a change must pass
	$(MAKE) lint
	$(MAKE) tidy
	$(MAKE) build
	$(MAKE) test
	$(MAKE) race
