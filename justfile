# Short names for what is done often; `just` lists them.

_default:
    @just --list

# Everything a change has to pass.
test:
    ./scripts/test.sh

# A local mesh that tells what it does.
mesh nodes="5":
    cargo run --release -- demo --nodes {{nodes}}

# What bytes mean.
wire hex:
    cargo run --quiet -- wire {{hex}}

# Writes golden vectors that are missing.
bless:
    QPC_BLESS=1 cargo test --test golden committed_vectors

# Fuzzes every target, or the named ones, for so many seconds each; needs a nightly compiler.
fuzz seconds="60" *targets:
    ./scripts/fuzz.sh {{seconds}} {{targets}}

# Writes those seeds of the fuzzers' corpus that are missing.
fuzz-seeds:
    QPC_BLESS=1 cargo test --test fuzz_replay committed_seeds

# Writes what is made from the code into the documents, and runs the commands of all pages.
docs:
    QPC_BLESS=1 cargo test --test docs
    cargo test --test docs_commands

# What a new person sees, written into docs/new-user-walk.md to be read.
walk:
    cargo build --release
    ./scripts/new-user-walk.sh
