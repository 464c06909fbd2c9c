//! See `src/testing/fuzz/inbound_payload.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| quicprochat_mesh::testing::fuzz::run("inbound_payload", data));
