# Everything a person or a machine does with this project. `make help` lists it.

.DEFAULT_GOAL := help
SHELL := /bin/bash

PORT ?= 9000
SEEDS ?= 20000
TRACES ?= 100000
FUZZ_SECONDS ?= 300

.PHONY: help
help: ## What can be made
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
build: tools ## Build the command, as fast as it gets
	cargo build --release

.PHONY: run
run: build ## Start the echo server on port 9000 (PORT=N for another)
	@echo
	@echo "Try in another terminal:"
	@echo "  nc 127.0.0.1 $(PORT)                                     type a line, get it back"
	@echo "  target/release/highwater probe --port $(PORT)            is it safe from slow clients?"
	@echo "  cat /dev/zero >/dev/tcp/127.0.0.1/$(PORT)               a client that never reads: out after 5 s"
	@echo "Ctrl-C stops it in order."
	@echo
	target/release/highwater echo --port $(PORT)

.PHONY: slow-test
slow-test: build ## Watch slow clients being thrown out while others go on
	scripts/slow-test.sh

.PHONY: simulate
simulate: tools ## The engine in a simulated world, SEEDS=20000 of them
	cargo run --release --example simulate -- --seeds $(SEEDS)

.PHONY: torture
torture: tools ## Trouble of all kinds at once on real sockets, for a few minutes
	cargo test --release --test torture -- --ignored --nocapture

.PHONY: slow-network
slow-network: tools ## A slow, far, lossy link between network namespaces (needs root)
	@if [ "$$(id -u)" = 0 ]; then cargo test --test slow_network -- --ignored --nocapture --test-threads=1; \
	else echo "slow-network: skipped, as it makes network namespaces: run it as root"; fi

.PHONY: oracle
oracle: tools ## Compare with Node's own streams on TRACES=100000 fresh traces
	HIGHWATER_ORACLE_TRACES=$(TRACES) cargo test --test node_oracle -- --nocapture

.PHONY: prove
prove: tools ## Put known faults in, one at a time, and see a test fail for each
	scripts/prove-simulation.sh

.PHONY: fuzz
fuzz: tools ## Fuzz each parser and the queue for FUZZ_SECONDS=300
	@cargo fuzz --version >/dev/null 2>&1 || { echo "cargo-fuzz is missing: install it with 'cargo install cargo-fuzz --locked'"; exit 1; }
	set -e; for target in frame sizes_and_times send_queue; do \
	    cargo fuzz run --sanitizer none $$target -- -max_total_time=$(FUZZ_SECONDS) -max_len=2048; done

.PHONY: probe-peers
probe-peers: build ## What Redis, NATS, nginx, HAProxy, socat and Node do with slow clients
	scripts/install-peers.sh
	scripts/probe-peers.sh

.PHONY: bench
bench: tools ## Compare the speed with that of other servers, side by side
	scripts/install-peers.sh
	cargo bench --bench compare -- --write docs/benchmarks.md

.PHONY: bench-quick
bench-quick: tools ## The same in three minutes, with the peers that are there
	cargo bench --bench compare -- --quick

.PHONY: bench-micro
bench-micro: tools ## Time the send queue and the frame parser alone
	cargo bench --bench micro

.PHONY: check
check: tools ## Format, lints and documentation
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

.PHONY: test
test: check ## All checks and tests, the slow-client scenarios too
	cargo test
	$(MAKE) slow-test
