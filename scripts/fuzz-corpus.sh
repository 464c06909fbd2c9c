#!/usr/bin/env bash
# Makes the fuzzers' corpus from the golden vectors: every vector is a seed of every target.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for target in frame_decode content_decode receipt_decode; do
    mkdir -p "fuzz/corpus/$target"
    for vector in tests/vectors/*/*.hex; do
        message=$(basename "$(dirname "$vector")")
        # basenc and xxd are not everywhere; printf is.
        digits=$(tr -d '[:space:]' <"$vector")
        printf '%b' "$(sed 's/../\\x&/g' <<<"$digits")" >"fuzz/corpus/$target/$message-$(basename "$vector" .hex)"
    done
    echo "$target: $(find "fuzz/corpus/$target" -type f | wc -l) seeds"
done
