//! CBOR bombs: bytes made to cost memory or time. One test, so that the process's peak memory is
//! this test's own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use quicprochat_mesh::{
    crypto::{ReceiverKeys, seal::SealedPayload},
    proto::delivery::record::{InboxRecord, OutboxRecord, PartialRecord},
    wire::{
        Frame, PublicKey, SignedKeyRecord,
        cbor::{self, major},
        content::{Chunk, Content, Sealed},
        receipt::{CannotOpen, Receipt},
        service::{Pong, Probe, TraceReply},
    },
};

/// Largest memory a refusal may take on top, in KiB.
const PEAK_GROWTH_KIB_MAX: u64 = 1024;

/// Longest time a refusal may take for each KiB of input; ours takes microseconds.
const TIME_PER_KIB_MAX: Duration = Duration::from_millis(1);

/// Of an unoptimised reader on a machine that others use as well. What a bomb takes grows without bound.
const SLOWER: u32 = if cfg!(debug_assertions) { 10 } else { 1 };

/// Peak resident memory in KiB, on systems that tell it.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn head(kind: u8, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    cbor::put_head(&mut out, kind, value);
    out
}

fn repeated(item: &[u8], times: usize) -> Vec<u8> {
    item.iter().copied().cycle().take(item.len() * times).collect()
}

/// Items one inside the other, each of which says it holds as much as all that is left.
fn nested_lengths(kind: u8, total: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(total);
    while out.len() + 5 < total {
        let rest = (total - out.len()) as u32;
        out.push(kind << 5 | 26);
        out.extend_from_slice(&rest.to_be_bytes());
    }
    out
}

fn bombs() -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    for depth in [100, 1_000, 10_000, 100_000, 1_000_000] {
        out.push((format!("{depth} arrays"), repeated(&[0x81], depth)));
        out.push((format!("{depth} maps"), repeated(&[0xa1, 0x00], depth)));
        out.push((format!("{depth} tags"), repeated(&[0xc1], depth)));
        out.push((format!("{depth} indefinite arrays"), repeated(&[0x9f], depth)));
        out.push((
            format!("{depth} empty chunks"),
            [&[0x5f][..], &repeated(&[0x40], depth), &[0xff]].concat(),
        ));
    }
    for length in [1u64 << 31, 1 << 60, u64::MAX] {
        for kind in [major::BYTES, major::TEXT, major::ARRAY, major::MAP] {
            out.push((format!("{length} items of type {kind}"), head(kind, length)));
        }
    }
    for kind in [major::BYTES, major::ARRAY, major::MAP] {
        out.push((format!("type {kind}, lengths that equal what is left"), nested_lengths(kind, 40_000)));
    }
    for (what, bytes) in [
        ("duplicate keys", &[0xa2, 0x01, 0x00, 0x01, 0x00][..]),
        ("unsorted keys", &[0xa2, 0x02, 0x00, 0x01, 0x00]),
        ("long integer", &[0x1b, 0, 0, 0, 0, 0, 0, 0, 1]),
        ("float", &[0xfb, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("NaN", &[0xf9, 0x7e, 0x00]),
        ("bad UTF-8", &[0x62, 0xc3, 0x28]),
        ("half of a surrogate pair", &[0x63, 0xed, 0xa0, 0x80]),
        ("long length", &[0x58, 0x01, 0x00]),
        ("long length of an array", &[0x98, 0x01, 0x00]),
        ("something behind the end", &[0x00, 0x00, 0x00]),
        ("indefinite text", &[0x7f, 0x61, 0x61, 0xff]),
        ("indefinite map", &[0xbf, 0x00, 0x00, 0xff]),
        ("a stop without a start", &[0xff]),
        ("undefined", &[0xf7]),
        ("a reserved head", &[0x1c]),
    ] {
        out.push((what.into(), bytes.to_vec()));
    }
    out
}

/// What stands before the bomb: nothing, and the beginning of every message that has a place for an
/// item.
fn places() -> Vec<Vec<u8>> {
    let mut out = vec![vec![], vec![0x82, 0x18, 0x63], vec![0x82, 0x07, 0x83, 0x00], vec![0x82, 0x40]];
    out.push(vec![0x82, 0x40, 0x81, 0x84]);
    for frame_type in [0u8, 2, 4, 7, 8, 9, 11, 14] {
        out.push(vec![0x82, frame_type]);
        out.push(vec![0x83, frame_type, 0x00]);
    }
    out
}

fn is_refused(bytes: &Bytes) -> bool {
    Frame::decode(bytes).is_err()
        && Sealed::decode(bytes).is_err()
        && Content::decode_broadcast(bytes).is_err()
        && Receipt::decode(bytes).is_err()
        && CannotOpen::decode(bytes).is_err()
        && Chunk::decode(bytes).is_err()
        && SignedKeyRecord::decode(bytes).is_err()
        && Probe::decode(bytes).is_err()
        && Pong::decode(bytes).is_err()
        && TraceReply::decode(bytes).is_err()
        && SealedPayload::decode(bytes).is_err()
        && ReceiverKeys::from_bytes(PublicKey([7; 32]), bytes).is_err()
        // A damaged disk may hold anything as well.
        && OutboxRecord::decode(bytes).is_err()
        && InboxRecord::decode(bytes).is_err()
        && PartialRecord::decode(bytes).is_err()
        && cbor::check(bytes, "bomb").is_err()
}

#[test]
fn bombs_are_refused_without_memory_or_time() {
    let bombs = bombs();
    let places = places();
    // One copy of the largest input is the test's own, not the reader's.
    let largest = bombs.iter().max_by_key(|(_, bomb)| bomb.len()).map(|(_, bomb)| bomb.clone());
    let before = peak_kib();
    drop(largest);
    for (what, bomb) in &bombs {
        for place in &places {
            let bytes = Bytes::from([&place[..], bomb].concat());
            let started = Instant::now();
            assert!(is_refused(&bytes), "{what} after {place:02x?}");
            let allowed = SLOWER * TIME_PER_KIB_MAX * (bytes.len() as u32 / 1024 + 10);
            assert!(started.elapsed() < allowed, "{what} after {place:02x?}: {:?}", started.elapsed());
        }
    }
    if let (Some(before), Some(after)) = (before, peak_kib()) {
        let grown_kib = after.saturating_sub(before);
        assert!(grown_kib <= PEAK_GROWTH_KIB_MAX, "peak memory grew by {grown_kib} KiB");
    }
}
