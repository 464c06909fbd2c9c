//! See `src/testing/fuzz/journal_lines.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quicprochat_mesh::testing::fuzz::run("journal_lines", data));
