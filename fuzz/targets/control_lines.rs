//! See `src/testing/fuzz/control_lines.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quicprochat_mesh::testing::fuzz::run("control_lines", data));
