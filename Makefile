# `make verify` checks everything and never writes to the tree; `make fix` writes what tools can put right by themselves.

.PHONY: verify quick fix fuzz

# All of it: Debian packages (where this may install them), format, lints, release build, all tests, documents. See tests/gate.
verify:
	@tests/gate

# Without the tests that run clusters of processes or need packages.
quick:
	@tests/gate quick

fix:
	cargo fmt --all
	cargo clippy --workspace --all-targets --locked --fix --allow-dirty --allow-staged
	cargo fmt --all

# Mutated inputs for every parser of foreign bytes: MINUTES for each of them (tests/fuzz-corpus, tests/src/fuzz).
MINUTES ?= 30
fuzz:
	HOLDFAST_FUZZ_MINUTES=$(MINUTES) cargo test --release --locked -p holdfast-tests --test fuzz -- --nocapture
