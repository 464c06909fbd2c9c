//! See `src/testing/fuzz/saved_routes.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quicprochat_mesh::testing::fuzz::run("saved_routes", data));
