//! See `quicprochat_mesh::testing::fuzz::receipt_decode`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quicprochat_mesh::testing::fuzz::receipt_decode(data));
