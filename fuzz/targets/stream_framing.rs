//! See `src/testing/fuzz/stream_framing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quicprochat_mesh::testing::fuzz::run("stream_framing", data));
