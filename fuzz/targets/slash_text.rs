//! See `src/testing/fuzz/slash_text.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quicprochat_mesh::testing::fuzz::run("slash_text", data));
