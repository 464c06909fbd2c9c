//! See `src/testing/fuzz/dedup_window.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quicprochat_mesh::testing::fuzz::run("dedup_window", data));
