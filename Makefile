# `make verify` checks everything and never writes to the tree; `make fix` writes what tools can put right by themselves.

.PHONY: verify quick fix fuzz simulate mutations

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

# Whole clusters under SEEDS seeds, from FROM on; with SEED one alone, told event by event. SCENARIO and BROKEN as `simulate --help` says.
# The last line: seeds run, seeds a minute, findings.
SEEDS ?= 1000
FROM ?= 1
SIMULATE = cargo run --release --locked --quiet -p holdfast-tests --features faults --bin simulate --
simulate:
	@$(SIMULATE) $(if $(SEED),--seed $(SEED) --trace,--seeds $(SEEDS) --from $(FROM)) \
		$(if $(SCENARIO),--scenario $(SCENARIO)) $(if $(BROKEN),--broken $(BROKEN))

# Every rule of the protocol that has a switch is broken in turn: after how many seeds is that noticed?
mutations: SEEDS = 5000
mutations:
	@$(SIMULATE) --mutations --seeds $(SEEDS)
