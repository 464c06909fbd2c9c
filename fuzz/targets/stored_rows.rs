//! See `src/testing/fuzz/stored_rows.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quicprochat_mesh::testing::fuzz::run("stored_rows", data));
