//! See `src/testing/fuzz/verify_edge.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quicprochat_mesh::testing::fuzz::run("verify_edge", data));
