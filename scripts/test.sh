#!/usr/bin/env bash
# Everything a change has to pass: formatting, lints, all tests, documentation, examples. Installs
# what it needs on a fresh Debian machine, works from any directory, and prints the seconds each
# step took. A step that cannot run says so; it is never silently left out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'test.sh: %s\n' "$*" >&2; exit 1; }

# --- What the tests need -----------------------------------------------------------------------

# A C compiler for the TLS library; openssl reads the key file we write; curl and jq ask a node's
# health port and read its JSON; strace lets a disk's syncs fail and sees when they come back;
# faketime sets clocks; age reads our backups and writes some for us to read.
missing=()
for tool in cc:gcc age:age openssl:openssl curl:curl jq:jq strace:strace faketime:faketime; do
    command -v "${tool%%:*}" >/dev/null || missing+=("${tool##*:}")
done
if ((${#missing[@]})); then
    as_root=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || fail "please install: ${missing[*]}"
        as_root=(sudo)
    fi
    command -v apt-get >/dev/null || fail "please install: ${missing[*]}"
    say "installing ${missing[*]}"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        ca-certificates libc6-dev "${missing[@]}" >/dev/null
fi

if ! command -v cargo >/dev/null && [[ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]]; then
    PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
fi
command -v cargo >/dev/null || fail "cargo is not installed; see https://rustup.rs (Rust 1.95 or newer, with rustfmt and clippy)"
for component in fmt clippy; do
    cargo "$component" --version >/dev/null 2>&1 || fail "cargo $component is missing; run: rustup component add rustfmt clippy"
done

# --- The steps ---------------------------------------------------------------------------------

summary=""
step() {
    local name=$1 started=$SECONDS
    shift
    say "$name"
    # Of programs side by side each has said how to run it alone.
    if ! "$@"; then
        [[ $1 == beside ]] || fail "$name failed; alone: $*"
        fail "$name failed"
    fi
    summary+=$(printf '%5d s  %s' "$((SECONDS - started))" "$name")$'\n'
}

export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}

step "format" cargo fmt --all --check
step "lints" cargo clippy --locked --all-targets --quiet -- -D warnings
# The parts that features switch off still build without them.
step "library without default features" cargo check --locked --lib --no-default-features --quiet
# All of them at once: compilers work side by side, where a test after the other keeps one core busy.
step "building the tests" cargo test --locked --lib --bins --tests --no-run --quiet
step "unit tests" cargo test --locked --lib --bins --quiet
# Real nodes wait for each other more than they compute, so test programs run side by side: one more
# than there are cores. What one says is shown when it failed.
said=$(mktemp -d)
trap 'rm -rf "$said"' EXIT
test_program() {
    local name=$1 started=$SECONDS outcome=ok
    cargo test --locked --test "$name" --quiet >"$said/$name" 2>&1 || outcome=failed
    printf '%5d s  tests/%s: %s\n' "$((SECONDS - started))" "$name" "$outcome" >"$said/$name.took"
    [[ $outcome == ok ]]
}
beside() {
    local name running=0 failed=""
    for name in "$@"; do
        if ((running > $(nproc))); then
            wait -n || failed=yes
            running=$((running - 1))
        fi
        test_program "$name" &
        running=$((running + 1))
    done
    while ((running-- > 0)); do wait -n || failed=yes; done
    for name in "$@"; do
        if grep -q ': failed$' "$said/$name.took"; then
            cat "$said/$name"
            printf 'test.sh: alone: cargo test --locked --test %s\n' "$name" >&2
        fi
    done
    cat "$said"/*.took
    [[ -z $failed ]]
}
names=()
for test in tests/*.rs tests/*/main.rs; do
    name=${test#tests/}
    name=${name%/main.rs}
    names+=("${name%.rs}")
done
# The longest first, so that none of them is left alone at the end. What measures runs by itself.
long=(mesh_processes clock_processes supervision_processes virtual_mesh)
alone=(bench_relay)
rest=()
for name in "${names[@]}"; do
    [[ " ${long[*]} ${alone[*]} " == *" $name "* ]] || rest+=("$name")
done
step "tests of real nodes and of parts" beside "${long[@]}" "${rest[@]}"
for name in "${alone[@]}"; do
    step "tests/$name" cargo test --locked --test "$name" --quiet
done
step "documentation examples" cargo test --locked --doc --quiet
step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --lib --quiet
for example in examples/*.rs; do
    [[ -e $example ]] || continue
    name=$(basename "$example" .rs)
    # An example that does not end by itself is broken.
    step "examples/$name" timeout 120 cargo run --locked --quiet --example "$name"
done

if cargo deny --version >/dev/null 2>&1; then
    step "dependencies (bans, licences, sources)" cargo deny --offline --locked check bans licenses sources
else
    summary+="    not run  dependencies: cargo-deny is not installed (cargo install cargo-deny)"$'\n'
fi

say "all passed in $SECONDS s"
printf '%s' "$summary"
