//! See `src/testing/fuzz/link_machine.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quicprochat_mesh::testing::fuzz::run("link_machine", data));
