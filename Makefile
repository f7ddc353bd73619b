# All commands for people and machines. `make help` lists them.

.DEFAULT_GOAL := help
SHELL := /bin/bash

PORT ?= 9000
SEEDS ?= 20000
TRACES ?= 100000
FUZZ_SECONDS ?= 300

.PHONY: help
help: ## List all targets
	@echo "highwater: TCP servers in which no slow client can hurt the others"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'
	@echo
	@echo "Start with 'make run', talk to it with 'nc 127.0.0.1 9000', then try 'make slow-test'."

.PHONY: tools
tools:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.88 or newer, for instance with rustup"; exit 1; }
	@cargo fmt --version >/dev/null 2>&1 || { echo "rustfmt is missing: install it with 'rustup component add rustfmt'"; exit 1; }
	@cargo clippy --version >/dev/null 2>&1 || { echo "clippy is missing: install it with 'rustup component add clippy'"; exit 1; }

.PHONY: build
build: tools ## Build the optimized command
	cargo build --release

.PHONY: run
run: build ## Start the echo server on port 9000 (PORT=N for another)
	@echo
	@echo "Try in another terminal:"
	@echo "  nc 127.0.0.1 $(PORT)                                     type a line, get it back"
	@echo "  target/release/highwater probe --port $(PORT)            is it safe from slow clients?"
	@echo "  cat /dev/zero >/dev/tcp/127.0.0.1/$(PORT)               a client that never reads: reset after 5 s"
	@echo "Ctrl-C stops it in order."
	@echo
	target/release/highwater echo --port $(PORT)

.PHONY: slow-test
slow-test: build ## Watch slow clients being disconnected while others go on (KEEP_LOGS=DIR keeps the logs)
	scripts/slow-test.sh

.PHONY: simulate
simulate: tools ## Run the engine in a simulated world, for SEEDS=20000 seeds
	cargo run --release --example simulate -- --seeds $(SEEDS)

.PHONY: torture
torture: tools ## Random trouble on real sockets, for a few minutes
	cargo test --release --test torture -- --ignored --nocapture

.PHONY: slow-network
slow-network: tools ## Test over a slow, far, lossy link (needs root)
	@if [ "$$(id -u)" = 0 ]; then cargo test --test slow_network -- --ignored --nocapture --test-threads=1; \
	else echo "slow-network: skipped: it makes network namespaces, so run it as root"; fi

.PHONY: oracle
oracle: tools ## Compare queue and pipe with Node's streams on TRACES=100000 traces
	HIGHWATER_ORACLE_TRACES=$(TRACES) cargo test --test node_oracle -- --nocapture

.PHONY: prove
prove: tools ## Demand that a test fails for each known fault
	scripts/prove-simulation.sh

.PHONY: fuzz
fuzz: tools ## Fuzz each parser and the queue for FUZZ_SECONDS=300 each
	@cargo fuzz --version >/dev/null 2>&1 || { echo "cargo-fuzz is missing: install it with 'cargo install cargo-fuzz --locked'"; exit 1; }
	set -e; for target in frame sizes_and_times send_queue http_request http_ranges resp; do \
	    cargo fuzz run --sanitizer none $$target -- -max_total_time=$(FUZZ_SECONDS) -max_len=2048; done

.PHONY: http-tests
http-tests: build ## Have curl, wget, aria2, h2load, REDbot, Chromium and slowhttptest judge `serve`
	scripts/http-tests.sh

.PHONY: broker-tests
broker-tests: build ## Judge broadcast by Redis's own tests, redis-py, ioredis and redis-benchmark
	scripts/broker-tests.sh

.PHONY: zoo
zoo: tools ## Hold the prober against servers whose truth is known; write docs/zoo.md
	cargo test --test probe_zoo -- --write docs/zoo.md

.PHONY: probe-peers
probe-peers: build ## Probe 17 other servers, the examples and our own (10 minutes); write docs/servers.md
	scripts/install-peers.sh
	scripts/probe-peers.sh

.PHONY: bench
bench: tools ## Compare speed with other servers; write docs/benchmarks.md, print the tables of docs/serve.md
	scripts/install-peers.sh
	cargo bench --bench compare -- --write docs/benchmarks.md
	cargo build --release
	scripts/bench-serve.sh

.PHONY: bench-quick
bench-quick: tools ## Compare speed in three minutes, with the installed peers
	cargo bench --bench compare -- --quick

.PHONY: bench-micro
bench-micro: tools ## Time the send queue and the frame parser alone
	cargo bench --bench micro

.PHONY: package
package: tools ## Build a Debian package and a static binary into target/package, and print their paths
	@scripts/package.sh

.PHONY: check-package
check-package: ## Check what `make package` built: lintian, install and purge, serve from an empty root
	scripts/check-package.sh

.PHONY: check
check: tools ## Format, lints, documentation, and how little the library needs
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --all-targets --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --no-default-features
	scripts/count-crates.sh

.PHONY: api
api: ## Write the list of public names, docs/api.txt, anew
	HIGHWATER_WRITE_API=1 cargo test --test api the_public_names

.PHONY: test
test: check ## All checks and tests, and the slow-client scenarios
	scripts/test.sh

.PHONY: test-quick
test-quick: tools ## What to run after every change, under 90 seconds
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	scripts/test.sh --quick
