//! See `src/testing/fuzz/frame_decode.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quicprochat_mesh::testing::fuzz::run("frame_decode", data));
