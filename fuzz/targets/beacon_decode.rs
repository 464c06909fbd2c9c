//! See `src/testing/fuzz/beacon_decode.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quicprochat_mesh::testing::fuzz::run("beacon_decode", data));
