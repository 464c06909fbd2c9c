#!/usr/bin/env bash
# Explores with a coverage-guided fuzzer (libFuzzer): debug assertions, overflow checks and, where the
# compiler has it, AddressSanitizer. Needs a nightly compiler and a C++ compiler.
#
#   fuzz.sh [SECONDS] [TARGET…]    each target for so long (60), all of them where none is named
#   fuzz.sh replay TARGET FILE…    runs a target over files, such as the one that a fault left
#   fuzz.sh keep [TARGET…]         adds what exploring found to the committed corpus, as little as covers it
#
# Begins with the committed corpus and with what earlier runs found, which stays in the target
# directory. Leaves target/campaign/fuzz.json: for each target executions, executions a second, the
# slowest input, peak memory and coverage, with the seed (QPC_SEED to repeat one) and the commit.
# Exit 0: no fault. 1: a fault, with the input that shows it and how to run it again.
#
# FUZZ_SANITIZER=none leaves AddressSanitizer out, which is some three times as fast.
# CARGO_TARGET_DIR names another place than fuzz/target; CAMPAIGN_OUT another one for the JSON file.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Longest input: what decoders take is longer, and what it teaches is not. A story of hundreds of things that
# happen teaches no more than some shorter ones in the same time.
input_bytes_max=4096
story_bytes_max=512
# An input that takes longer, or more memory, is a fault (THREATS F-01: 100 ms, 64 MiB above the
# fuzzer's own; a sanitizer triples both).
input_seconds_max=1
rss_mib_max=768
# What a target adds to the corpus at most, so that the whole stays below 1 MiB.
kept_files_max=40
kept_bytes_max=24576

say() { printf '%s  %s\n' "$(date +%T)" "$*" >&2; }
die() { say "failed: $*"; exit 1; }

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/fuzz/target}
sanitizer=${FUZZ_SANITIZER:-address}
out=${CAMPAIGN_OUT:-target/campaign}
work=$CARGO_TARGET_DIR/fuzzing
seed=${QPC_SEED:-$((RANDOM * 32768 + RANDOM))}
host=$(rustc +nightly -vV | sed -n 's/^host: //p') || die "there is no nightly compiler: rustup toolchain install nightly"

build() {
    local flags="--cfg fuzzing -Cpasses=sancov-module"
    local arg
    for arg in -sanitizer-coverage-level=4 -sanitizer-coverage-inline-8bit-counters \
        -sanitizer-coverage-pc-table -sanitizer-coverage-trace-compares; do
        flags+=" -Cllvm-args=$arg"
    done
    [[ $sanitizer == none ]] || flags+=" -Zsanitizer=$sanitizer"
    # With a target named, build scripts and macros are not instrumented.
    (cd fuzz && RUSTFLAGS="$flags" cargo +nightly build --release --locked --quiet --target "$host" --bins) ||
        die "the targets do not build"
}

program() { printf '%s/%s/release/%s' "$CARGO_TARGET_DIR" "$host" "$1"; }

all_targets() { for file in fuzz/targets/*.rs; do basename "$file" .rs; done; }

# Where a target's corpus of this machine lies.
found_of() { mkdir -p "$work/corpus/$1" && printf '%s/corpus/%s' "$work" "$1"; }

stat_of() { sed -n "s/^stat::$2: *//p" "$1"; }

# explore TARGET SECONDS: one line of JSON.
explore() {
    local target=$1 seconds=$2 log faults started code=0 bytes_max=$input_bytes_max
    [[ ! -e fuzz/corpus/$target/seed-story-0 ]] || bytes_max=$story_bytes_max
    log=$work/$target.log
    faults=$work/faults/$target
    mkdir -p "$faults" "fuzz/corpus/$target"
    started=$SECONDS
    "$(program "$target")" "$(found_of "$target")" "fuzz/corpus/$target" \
        -max_total_time="$seconds" -max_len="$bytes_max" -timeout=$input_seconds_max \
        -rss_limit_mb=$rss_mib_max -seed="$seed" -artifact_prefix="$faults/" \
        -print_final_stats=1 -use_value_profile=1 >"$log" 2>&1 || code=$?
    local covered
    covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    jq -nc --arg target "$target" --argjson seconds "$((SECONDS - started))" \
        --argjson executions "$(stat_of "$log" number_of_executed_units | grep . || echo 0)" \
        --argjson a_second "$(stat_of "$log" average_exec_per_sec | grep . || echo 0)" \
        --argjson slowest_s "$(stat_of "$log" slowest_unit_time_sec | grep . || echo 0)" \
        --argjson peak_rss_mib "$(stat_of "$log" peak_rss_mb | grep . || echo 0)" \
        --argjson edges "${covered:-0}" --argjson passed "$([[ $code == 0 ]] && echo true || echo false)" \
        '{$target, $passed, $seconds, $executions, $a_second, $slowest_s, $peak_rss_mib, $edges}'
    [[ $code == 0 ]] || show_fault "$target" "$log" "$faults"
}

show_fault() {
    local target=$1 log=$2 faults=$3 file
    file=$(find "$faults" -type f -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
    {
        say "FAULT in $target:"
        grep -m1 -A3 "panicked at\|ERROR: \|SUMMARY: " "$log" || tail -n 20 "$log"
        say "input: ${file:-none kept, see $log}"
        say "again: scripts/fuzz.sh replay $target ${file:-FILE}"
        say "on a stable compiler: copy it to fuzz/corpus/$target/, then cargo test --test fuzz_replay"
    } >&2
}

# keep TARGET: the least of what was found that covers more than the committed corpus does.
keep() {
    local target=$1 merged bytes=0 files=0 file size kept
    merged=$(mktemp -d)
    mkdir -p "fuzz/corpus/$target"
    cp "fuzz/corpus/$target/"* "$merged/" 2>/dev/null || true
    "$(program "$target")" -set_cover_merge=1 -max_len=1024 "$merged" "$(found_of "$target")" >"$work/$target.merge.log" 2>&1 ||
        die "merging $target: $work/$target.merge.log"
    # The smallest first; what is there already stays.
    while read -r size file; do
        kept=fuzz/corpus/$target/found-$(basename "$file" | cut -c1-12)
        if [[ -e fuzz/corpus/$target/$(basename "$file") || -e $kept ]]; then continue; fi
        if ((files >= kept_files_max || bytes + size > kept_bytes_max)); then break; fi
        cp "$file" "$kept"
        files=$((files + 1)) bytes=$((bytes + size))
    done < <(find "$merged" -type f -printf '%s %p\n' | sort -n)
    rm -rf "$merged"
    say "$target: $files files, $bytes bytes kept"
}

command=${1:-60}
case $command in
    replay)
        (($# >= 3)) || die "which target, and which file?"
        build
        exec "$(program "$2")" -timeout=$input_seconds_max -rss_limit_mb=$rss_mib_max "${@:3}"
        ;;
    keep)
        build
        for target in $(if (($# > 1)); then printf '%s\n' "${@:2}"; else all_targets; fi); do keep "$target"; done
        ;;
    *)
        [[ $command =~ ^[0-9]+$ ]] || die "$command is no number of seconds"
        command -v jq >/dev/null || die "please install jq"
        say "building"
        build
        mkdir -p "$out" "$work"
        results=$work/results.jsonl
        : >"$results"
        for target in $(if (($# > 1)); then printf '%s\n' "${@:2}"; else all_targets; fi); do
            [[ -x $(program "$target") ]] || die "there is no target $target"
            explore "$target" "$command" | tee -a "$results"
        done
        jq -s --arg commit "$(git rev-parse HEAD)" --arg sanitizer "$sanitizer" --argjson seed "$seed" \
            --arg compiler "$(rustc +nightly -V)" --argjson cores "$(nproc)" \
            '{campaign: "fuzz", passed: all(.passed), $commit, $seed, $sanitizer, $compiler, $cores,
              executions: (map(.executions) | add), targets: .}' "$results" >"$out/fuzz.json"
        jq -e .passed "$out/fuzz.json" >/dev/null || die "see $out/fuzz.json"
        say "no fault in $(jq .executions "$out/fuzz.json") executions: $out/fuzz.json"
        ;;
esac
