//! See `src/testing/fuzz/credit_window.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quicprochat_mesh::testing::fuzz::run("credit_window", data));
