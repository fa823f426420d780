#!/usr/bin/env bash
# Builds the image from the release binary without asking any registry.
#
#   deploy/build-image.sh [TAG]          default: clawgate:local
#   CLAWGATE_BINARY=path                 default: target/release/clawgate
set -euo pipefail
cd "$(dirname "$0")/.."
tag=${1:-clawgate:local}
binary=${CLAWGATE_BINARY:-${CARGO_TARGET_DIR:-target}/release/clawgate}
[ -x "$binary" ] || { echo "build-image.sh: $binary is missing; build it with: cargo build --release" >&2; exit 1; }

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
deploy/rootfs.sh "$binary" "$context"
# The classic builder takes the stages in order and stops at the target.
DOCKER_BUILDKIT=0 docker build --network none --target prebuilt -f deploy/Dockerfile -t "$tag" "$context"
