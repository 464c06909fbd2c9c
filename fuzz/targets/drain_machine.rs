//! See `src/testing/fuzz/drain_machine.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quicprochat_mesh::testing::fuzz::run("drain_machine", data));
