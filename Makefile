# Names for commands. What needs more than three lines lives in a script or in Rust.
SHELL := /bin/bash
.PHONY: run test check verify bench console

# Everything on this machine, with a mock vendor and a demo bot.
run:
	.ci/needs build
	cargo run --release --locked -- up --demo

# Every test, one profile. Programs and tests are built in one go: apart they want
# different features of the same dependencies, and these would be built twice.
test:
	.ci/needs test
	cargo build --release --locked --workspace --bins --tests
	cargo test --release --locked --workspace --no-fail-fast

# Formatting and lints, as CI runs them.
check:
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

# The long set: the same scenarios at full size, and the fuzz targets.
verify:
	.ci/needs test
	cargo build --release --locked --workspace --bins --tests
	CLAWGATE_VERIFY=1 cargo test --release --locked --workspace --no-fail-fast
	fuzz/run.sh

# Ratios against bare loops and other proxies, within one run.
bench:
	.ci/needs build
	cargo build --profile dist --locked --workspace --bins
	cargo bench --profile dist --locked --workspace --bench accounting
	target/dist/clawgate-bench numbers

# The web console comes with a later release.
console:
	@echo "the web console is not part of this release" && false
