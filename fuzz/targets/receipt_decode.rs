//! See `src/testing/fuzz/receipt_decode.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quicprochat_mesh::testing::fuzz::run("receipt_decode", data));
