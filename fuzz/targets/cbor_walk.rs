//! See `src/testing/fuzz/cbor_walk.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quicprochat_mesh::testing::fuzz::run("cbor_walk", data));
