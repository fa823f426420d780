#!/usr/bin/env bash
# Runs the fuzz targets, or those that are named, one after the other: each for
# CLAWGATE_FUZZ_SECS seconds (600), or until it finds something. The seed corpus
# is made from the recordings; what is found and learnt stays in
# fuzz/{artifacts,corpus}, which are no part of the repository. Needs a nightly
# toolchain; cargo-fuzz works as well, and is not needed.
set -euo pipefail
cd "$(dirname "$0")"

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  targets=(peek splice sse ndjson eventstream usage path address)
fi
seconds=${CLAWGATE_FUZZ_SECS:-600}
triple=$(rustc +nightly --version --verbose | sed -n 's/^host: //p')
if [ -z "$triple" ]; then
  echo "missing: a nightly toolchain (rustup toolchain install nightly)" >&2
  exit 1
fi

# The flags of cargo-fuzz. Ours has no unsafe code, its libraries do.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
-Zsanitizer=address"
cargo +nightly build --release --locked --target "$triple" --bins
unset RUSTFLAGS

python3 seeds.py corpus
failed=()
for target in "${targets[@]}"; do
  mkdir -p "corpus/$target" "artifacts/$target"
  echo "fuzzing $target for $seconds s"
  nice "target/$triple/release/$target" -max_total_time="$seconds" -rss_limit_mb=2048 \
    -timeout=10 -print_final_stats=1 -max_len=8192 \
    -artifact_prefix="artifacts/$target/" "corpus/$target" >"artifacts/$target.txt" 2>&1 || failed+=("$target")
  grep -E 'stat::number_of_executed_units|^#[0-9]+.*DONE' "artifacts/$target.txt" || true
done
if [ ${#failed[@]} -gt 0 ]; then
  for target in "${failed[@]}"; do
    echo "FOUND by $target:" >&2
    tail -n 40 "artifacts/$target.txt" >&2
  done
  exit 1
fi
