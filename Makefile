# Names for commands. What needs more than three lines lives in a script or in Rust.
SHELL := /bin/bash
.PHONY: run test check verify bench console

# Everything on this machine, with a mock vendor and a demo bot.
run:
	.ci/needs build
	cargo run --release --locked -- up --demo

# Every test, one profile: the dependency set is built once.
test:
	.ci/needs test
	cargo build --release --locked --workspace --bins
	cargo test --release --locked --workspace --no-fail-fast

# Formatting and lints, as CI runs them.
check:
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

# The long set: the same scenarios at full size.
verify:
	.ci/needs test
	cargo build --release --locked --workspace --bins
	CLAWGATE_VERIFY=1 cargo test --release --locked --workspace --no-fail-fast

# Ratios against bare loops and other proxies, within one run.
bench:
	.ci/needs build
	cargo build --profile dist --locked --workspace --bins
	cargo bench --profile dist --locked --workspace --bench accounting
	target/dist/clawgate-bench numbers

# The web console comes with a later release.
console:
	@echo "the web console is not part of this release" && false
