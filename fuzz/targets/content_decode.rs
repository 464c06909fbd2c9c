//! See `src/testing/fuzz/content_decode.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quicprochat_mesh::testing::fuzz::run("content_decode", data));
