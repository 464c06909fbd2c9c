//! See `src/testing/fuzz/routing_table.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quicprochat_mesh::testing::fuzz::run("routing_table", data));
