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

# Fuzzes one target from the golden vectors; needs a nightly compiler and cargo-fuzz.
fuzz target="frame_decode":
    ./scripts/fuzz-corpus.sh
    cargo +nightly fuzz run {{target}} fuzz/corpus/{{target}}
