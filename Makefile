# Everything a person or a machine does with this project. `make help` lists it.

.DEFAULT_GOAL := help
SHELL := /bin/bash

PORT ?= 9000
SEEDS ?= 20000

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

.PHONY: check
check: tools ## Format, lints and documentation
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

.PHONY: test
test: check ## All checks and tests, the slow-client scenarios too
	cargo test
	$(MAKE) slow-test
