//! See `src/testing/fuzz/key_files.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quicprochat_mesh::testing::fuzz::run("key_files", data));
