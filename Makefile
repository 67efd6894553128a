# Pulsewheel: every way to build, run and check it. `make help` lists the targets.

GO ?= go

# Tools, pinned. They are compiled by `go run` on first use and cached by Go.
GOLANGCI_LINT = $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOFUMPT       = $(GO) run mvdan.cc/gofumpt@v0.12.0
BENCHSTAT     = $(GO) run golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

# What a call may change: make fuzz FUZZTIME=200000x
FUZZTIME         ?= 20000x
BENCH            ?= .
BENCH_COUNT      ?= 1
LOAD_CONNECTIONS ?= 2000
LOAD_DURATION    ?= 10s
LOAD_PORT        ?= 18080
ADMIN_PORT       ?= 18081
RUN_ARGS         ?=
PEERS_ROUNDS     ?= 5
PEERS_DURATION   ?= 1s
PEERS_SCENARIOS  ?=
PEERS_SERVERS    ?=
PEERS_ARGS       ?=
FLEET_ARGS       ?=
HOSTILE_ARGS     ?=
OBSERVED_ARGS    ?=
PACKAGES         ?= ./...
COMMITS_ROUNDS   ?= 6

# Linux is what the server is built for; kqueue systems are kept compiling.
LINUX_ARCHS   = amd64 arm64 riscv64
OTHER_SYSTEMS = darwin/arm64 darwin/amd64 freebsd/amd64

# Only the race detector needs cgo and with it a C compiler. Everything else is
# built without, so that a clone, Go and make are enough.
export CGO_ENABLED = 0

# Outside a repository, or in one that belongs to another user, Go can't read the
# commit and would refuse to build.
ifeq ($(shell git rev-parse --verify --quiet HEAD 2>/dev/null),)
export GOFLAGS := $(GOFLAGS) -buildvcs=false
endif

# Not what npm installs: some of its packages bring Go files of their own.
GO_FILES = $(shell find . -name node_modules -prune -o -name '*.go' -print)

.DEFAULT_GOAL := help
.PHONY: FORCE help build run demo test test-client race fuzz bench benchstat bench-commits bench-peers test-peers load hostile fleet observed lint fmt fmt-check tidy tidy-check vet cross marks check integration clean

help: ## Show the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Compile the server to bin/pulsewheel
	$(GO) build -trimpath -o bin/pulsewheel ./cmd/pulsewheel

run: build ## Build and start the server on :8080, admin on 127.0.0.1:8081 (RUN_ARGS adds options)
	bin/pulsewheel serve $(RUN_ARGS)

demo: build ## Start the server with text heartbeats every 10 s, and a page that shows them
	@echo 'open http://127.0.0.1:8081/demo'
	bin/pulsewheel serve --echo --heartbeat-mode text --heartbeat-interval 10s --heartbeat-timeout 30s $(RUN_ARGS)

# One package at a time: tests measure times, on real sockets between real processes, and two packages at once are twice the processes. What takes
# the cores to compile is compiled before.
test: ## Run every test that needs no browser, root or outside service
	$(GO) build ./...
	$(GO) test -p 1 ./...

test-client: ## Run the browser client's unit tests (needs node 20)
	node --test client/test/*.test.js

race: ## Run the tests under the race detector, ownership checks on (needs a C compiler)
	CGO_ENABLED=1 $(GO) build -race ./...
	CGO_ENABLED=1 $(GO) test -race -p 1 -timeout 30m ./...

# A count, since Go before 1.27 may report the end of a duration as a failure, "context deadline exceeded" (https://go.dev/issue/75804).
fuzz: ## Run each fuzzer on FUZZTIME inputs (20000x), or for a duration (5m)
	@set -e; for package in $$($(GO) list ./...); do \
		fuzzers=$$($(GO) test -list '^Fuzz' $$package); \
		for fuzzer in $$(echo "$$fuzzers" | grep '^Fuzz' || true); do \
			echo "== $$package $$fuzzer"; \
			$(GO) test -run '^$$' -fuzz "^$$fuzzer\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 200x $$package; \
		done; \
	done

bench: ## Run the benchmarks matching BENCH (all), BENCH_COUNT times (1)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(BENCH_COUNT) ./...

benchstat: ## Compare two saved outputs of `make bench`: make benchstat OLD=a.txt NEW=b.txt
	$(BENCHSTAT) $(OLD) $(NEW)

# The test binaries of both take turns, so that the machine's moods befall both alike.
bench-commits: ## Compare the benchmarks of two commits: make bench-commits OLD=HEAD~1 [NEW=HEAD] [BENCH=Wheel PACKAGES=./timingwheel]
	$(GO) run ./bench commits --packages '$(PACKAGES)' --bench '$(BENCH)' --rounds $(COMMITS_ROUNDS) --results bin/commits $(or $(OLD),HEAD) $(NEW)
	$(BENCHSTAT) bin/commits/old.txt bin/commits/new.txt

# Both need node and npm, the comparison a C compiler as well. What it measures is worth
# something on an otherwise idle machine only. PEERS_SCENARIOS and PEERS_SERVERS are lists
# with commas, empty for all; bin/peers/report --help names them.
bench-peers: build bin/bench bench/peers/ws/node_modules ## Compare with other servers, PEERS_ROUNDS (5) times in rotation: 45 minutes, writes bench/results (PEERS_ARGS=--quick: 4)
	$(GO) build -trimpath -o bin/floor ./bench/floor
	$(CC) -O2 -o bin/floor-c bench/floor/floor.c
	cd bench/peers && $(GO) build -trimpath -o ../../bin/peers/ ./...
	bin/peers/report --rounds $(PEERS_ROUNDS) --duration $(PEERS_DURATION) --scenarios '$(PEERS_SCENARIOS)' --servers '$(PEERS_SERVERS)' $(PEERS_ARGS)

test-peers: bench/peers/ws/node_modules ## Test the other servers and the report that compares them
	cd bench/peers && $(GO) test -tags integration ./...

bench/peers/ws/node_modules: bench/peers/ws/package-lock.json
	cd bench/peers/ws && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

# with-server runs the commands of its second argument beside a server with the options of its first, which it ends by its process id.
# They find it at $$target, with $$admin, as $$server.
define with-server
@set -e; target=ws://127.0.0.1:$(LOAD_PORT)/ws; admin="--admin http://127.0.0.1:$(ADMIN_PORT)"; \
bin/pulsewheel serve --heartbeat-interval 2s --heartbeat-timeout 6s $(1) \
	--listen 127.0.0.1:$(LOAD_PORT) --admin-listen 127.0.0.1:$(ADMIN_PORT) & server=$$!; \
trap 'kill $$server 2>/dev/null; wait $$server' EXIT; \
tries=0; until bin/bench idle --target $$target --connections 1 --duration 10ms --settle 0s >/dev/null 2>&1; do \
	tries=$$((tries + 1)); \
	[ $$tries -lt 50 ] && kill -0 $$server || { echo "the server doesn't answer at $$target" >&2; exit 1; }; \
	sleep 0.1; \
done; \
$(2)
endef

bin/bench: FORCE
	$(GO) build -trimpath -o bin/bench ./bench

FORCE:

load: build bin/bench ## Start a server and drive it with seven scenarios of the load harness
	$(call with-server,--echo,for scenario in idle heartbeat echo storm broadcast churn "hostile --factor 0"; do \
		echo "== $$scenario"; \
		bin/bench $$scenario --target $$target $$admin --connections $(LOAD_CONNECTIONS) --duration $(LOAD_DURATION) --pid $$server; \
	done)

# The next two are worth something on an otherwise idle machine only.
hostile: build bin/bench ## Hold 5,000 hostile connections at one time beside 10,000 healthy ones, five times, for 7 minutes (HOSTILE_ARGS adds options)
	$(call with-server,--echo --log-level error,bin/bench hostile --target $$target $$admin --pid $$server \
		--connections 10000 --rate 4000 --hostile 7800 --at-least 5000 --pairs 5 $(HOSTILE_ARGS))

observed: build bin/bench ## Measure what it costs to be scraped, watched and listed, at 18,000 connections, for 2 minutes (OBSERVED_ARGS adds options)
	$(call with-server,--log-level warn,bin/bench observed --target $$target $$admin --pid $$server \
		--connections 18000 --pairs 5 --duration 10s $(OBSERVED_ARGS))

# 200,000 connections take 3 GB of memory, a million (FLEET_ARGS="--connections 1000000 --interval 90s --duration 3m") 10.
fleet: build bin/bench ## Hold 200,000 connections in many server and client processes on this machine, for 4 minutes
	bin/bench fleet --server bin/pulsewheel --bytes-most 150 $(FLEET_ARGS)

lint: ## Run the linters of .golangci.yml
	$(GOLANGCI_LINT) run ./...

fmt: ## Format the Go code
	$(GOFUMPT) -w $(GO_FILES)

fmt-check: ## Fail if the Go code isn't formatted
	@unformatted=$$($(GOFUMPT) -l $(GO_FILES)) || exit 1; \
	if [ -n "$$unformatted" ]; then echo "not formatted, run make fmt:"; echo "$$unformatted"; exit 1; fi

tidy: ## Make go.mod and go.sum match the code
	$(GO) mod tidy

tidy-check: ## Fail if go.mod or go.sum don't match the code
	$(GO) mod tidy -diff
	$(GO) mod verify

vet: ## Run go vet, on the integration tests and the invariants build too
	$(GO) vet ./...
	$(GO) vet -tags integration,invariants ./...
	cd examples/goclient && $(GO) vet ./...
	cd bench/peers && $(GO) vet -tags integration ./...

cross: ## Build for every Linux architecture, vet for the systems with kqueue
	@set -e; for arch in $(LINUX_ARCHS); do \
		echo "== build linux/$$arch"; GOOS=linux GOARCH=$$arch $(GO) build ./...; \
	done; \
	for system in $(OTHER_SYSTEMS); do \
		echo "== vet $$system"; GOOS=$${system%/*} GOARCH=$${system#*/} $(GO) vet ./...; \
	done

marks: ## Fail on marks of unfinished work and on a race detector switched off
	@if grep -rnE 'TODO|FIXME|XXX|HACK|//go:norace' --include='*.go' --include='*.js' --include='*.mjs' --include='*.html' \
		--exclude-dir=node_modules --exclude-dir=.git .; then echo "finish it, or open an issue and say it in a sentence"; exit 1; fi

check: fmt-check tidy-check vet lint race cross marks ## Everything a change must pass, besides test

# Tests behind the build tag `integration` need programs that a fresh machine may
# lack: HAProxy for two nodes behind a proxy, node and npm for the `ws` package,
# Chromium for the pages, Prometheus for rules and alerts, ip(8) for a network that
# is cut. One package at a time: two of them share node_modules. Such a test fails, and doesn't skip, when its program is
# missing; .ci/run installs them.
integration: build ## Run the tests that need HAProxy, Prometheus, node or a browser as well
	$(GO) test -tags integration -count 1 -p 1 ./client/e2e ./monitor/e2e ./deploy/haproxy ./deploy/prometheus
	$(GO) test -tags integration -count 1 -run TestUnreachable ./server
	cd examples/goclient && $(GO) test ./...

clean: ## Remove what was built
	rm -rf bin
