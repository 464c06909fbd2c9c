//! Arithmetic that stands between a neighbour and more than its share, looked at whole: every case of a
//! small world, and every number at its ends.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use quicprochat_mesh::{
    proto::{
        credit::{CreditIn, CreditOut, cost},
        fib::{Decision, Hops, decide},
        limit::TokenBucket,
    },
    storage::Quota,
    wire::{
        Address, AnnounceContent, Capabilities, DecodeError, Envelope, EnvelopeHeader, EnvelopeKind, Frame,
        FrameExt, Lifetime, LinkId, NodeName, PacketId, Priority, Proof, PublicKey, Signature, TrafficClass,
        control::{Credit, PathRequest, Refuse, RefuseReason},
        handshake::Hello,
        limits::MAX_HOPS_MAX,
    },
};

/// The ends of a number of so many bits, and what lies beside them.
fn ends(bits: u32) -> Vec<u64> {
    let max = u64::MAX >> (64 - bits);
    vec![0, 1, max / 2, max / 2 + 1, max - 1, max]
}

#[test]
fn no_packet_crosses_more_links_than_its_origin_signed() {
    const OWN: Address = Address([1; 16]);
    const FAR: Address = Address([2; 16]);
    let (a, b) = (LinkId(1), LinkId(2));
    let ways = [
        None,
        Some(Hops { first: a, second: None }),
        Some(Hops { first: a, second: Some(b) }),
        Some(Hops { first: b, second: Some(a) }),
    ];
    for hop_count in 0..=u8::MAX {
        for max_hops in 0..=u8::MAX {
            for ingress in [None, Some(a), Some(b)] {
                for destination in [OWN, FAR, Address::BROADCAST] {
                    for way in ways {
                        let got = decide(&OWN, &destination, ingress, hop_count, max_hops, |_| way);
                        // In whole numbers, which do not end at 255.
                        let crossed = if ingress.is_some() { u32::from(hop_count) + 1 } else { 0 };
                        let most = u32::from(max_hops);
                        let what =
                            format!("{hop_count} of {max_hops} over {ingress:?} to {destination}: {got:?}");
                        match got {
                            Decision::Local => assert!(destination == OWN && crossed <= most, "{what}"),
                            Decision::Forward { link, .. } => {
                                assert!(crossed < most && Some(link) != ingress, "{what}");
                            }
                            Decision::Broadcast { flood } => {
                                assert!(crossed <= most && (!flood || crossed < most), "{what}")
                            }
                            Decision::HopLimit => {
                                assert!(crossed > most || (destination == FAR && crossed == most), "{what}")
                            }
                            Decision::NoRoute => assert!(destination == FAR && crossed < most, "{what}"),
                        }
                    }
                }
            }
        }
    }
}

/// A bucket in billionths of a unit, without an end to its numbers.
struct Exact {
    capacity: u128,
    per_s: u128,
    held: u128,
    at: Instant,
}

const UNIT: u128 = 1_000_000_000;

impl Exact {
    fn take(&mut self, now: Instant, units: u64) -> bool {
        let earned = now.saturating_duration_since(self.at).as_nanos() * self.per_s;
        self.at = self.at.max(now);
        self.held = (self.held + earned).min(self.capacity * UNIT);
        match self.held.checked_sub(u128::from(units) * UNIT) {
            Some(left) => {
                self.held = left;
                true
            }
            None => false,
        }
    }
}

#[test]
fn a_bucket_gives_what_was_earned_to_the_last_billionth() {
    let start = Instant::now();
    let waits = [0, 1, 333_333_333, 333_333_334, 1_000_000_000, 2_500_000_000].map(Duration::from_nanos);
    let steps: Vec<(Duration, u64)> =
        waits.iter().flat_map(|wait| [0, 1, 2, 5].map(|units| (*wait, units))).collect();
    for (capacity, per_s) in (0..5).flat_map(|capacity| (0..4).map(move |per_s| (capacity, per_s))) {
        for first in &steps {
            for second in &steps {
                for third in &steps {
                    let mut bucket = TokenBucket::new(capacity, per_s, start);
                    let (capacity, per_s) = (u128::from(capacity), u128::from(per_s));
                    let mut exact = Exact { capacity, per_s, held: capacity * UNIT, at: start };
                    let mut now = start;
                    for (wait, units) in [first, second, third] {
                        now += *wait;
                        assert_eq!(bucket.try_take(now, *units), exact.take(now, *units));
                        assert_eq!(u128::from(bucket.available(now)), exact.held / UNIT);
                    }
                }
            }
        }
    }
}

#[test]
fn a_bucket_of_any_size_never_wraps() {
    let start = Instant::now();
    for (capacity, per_s) in ends(64).into_iter().flat_map(|c| ends(64).into_iter().map(move |r| (c, r))) {
        for units in ends(64) {
            let mut bucket = TokenBucket::new(capacity, per_s, start);
            assert_eq!(bucket.try_take(start, units), units <= capacity);
            let now = start + Duration::from_secs(1 << 30);
            assert!(bucket.available(now) <= capacity);
            assert!(!bucket.charge(now, units) || units <= capacity);
            if let Some(wait) = bucket.ready_in(now, units) {
                assert!(units <= capacity);
                // What has to be waited for longer than clocks count is waited for in vain.
                let at = now.checked_add(wait).filter(|_| wait < Duration::from_secs(1 << 30));
                assert!(at.is_none_or(|at| bucket.try_take(at, units)), "{units} of {capacity} at {per_s}/s");
            }
        }
    }
}

#[test]
fn a_quota_admits_what_fits_and_nothing_else() {
    for bytes_max in ends(64) {
        for rows_max in ends(64) {
            let quota = Quota { bytes_max, rows_max };
            for used_bytes in ends(64) {
                for used_rows in ends(64) {
                    for bytes in ends(64) {
                        let sum = u128::from(used_bytes) + u128::from(bytes);
                        let fits = sum <= u128::from(bytes_max) && used_rows < rows_max;
                        let admits = quota.admits(used_bytes, used_rows, bytes);
                        // Saturating, it errs where nobody has as many bytes as a number holds.
                        assert!(admits == fits || (bytes_max == u64::MAX && sum > u128::from(u64::MAX)));
                    }
                }
            }
        }
    }
}

#[test]
fn credit_is_kept_to_the_byte() {
    let class = TrafficClass::Bulk;
    for initial in ends(32) {
        for granted in ends(32) {
            for frame in [0, 1, 2, 16_384, u32::MAX as usize - 2, u32::MAX as usize - 1, u32::MAX as usize] {
                let mut out = CreditOut::new([0, 0, initial as u32]);
                let grant = out.grant(Credit { class, bytes: granted as u32 });
                let held = (initial + granted).min(u64::from(u32::MAX));
                assert_eq!(grant.is_ok(), granted > 0 && initial + granted == held);
                let held = if granted == 0 { initial } else { held };
                assert_eq!(out.spend(class, frame), cost(frame) <= held);
                assert!(!out.spend(TrafficClass::Control, frame));
            }
            let mut credit = CreditIn::new([0, 0, initial as u32]);
            assert_eq!(credit.came([0, 0, granted]).is_ok(), granted <= initial);
        }
    }
}

/// Over the wire and back.
fn again(frame: &Frame) -> Result<Frame, DecodeError> {
    let bytes = frame.encode();
    let read = Frame::decode(&bytes)?;
    assert_eq!(read.encode(), bytes, "{frame:?}");
    Ok(read)
}

#[test]
fn every_number_of_a_frame_holds_its_ends() {
    for n in ends(64) {
        again(&Frame::Ping(n)).unwrap();
        again(&Frame::Pong(n)).unwrap();
        let hello = Hello {
            version_min: n as u8,
            version_max: u8::MAX,
            network_tag: [1; 8],
            network_proof: None,
            features: n,
            boot_epoch: n as u32,
            nonce: [2; 8],
            clock_unix_s: n,
            initial_credit: [n as u32; 3],
        };
        again(&Frame::Hello(hello)).unwrap();
    }
    for n in ends(32) {
        let bytes = n as u32;
        again(&Frame::Credit(Credit { class: TrafficClass::Control, bytes })).unwrap();
        let retry_after_s = n as u16;
        let reason = RefuseReason::from(n as u8);
        again(&Frame::Refuse(Refuse { packet_id: PacketId([1; 16]), reason, retry_after_s })).unwrap();
        for hop_count in [0, 1, u8::MAX - 1, u8::MAX] {
            let request = PathRequest {
                request_id: [1; 8],
                destination: Address([2; 16]),
                max_hops: MAX_HOPS_MAX,
                hop_count,
                newer_than: Some((n as u32, n as u32)),
            };
            again(&Frame::PathRequest(request)).unwrap();
            check_announce(n as u32, hop_count);
            check_envelope(n as u32, hop_count);
        }
    }
}

fn check_announce(n: u32, hop_count: u8) {
    for (lifetime_s, max_hops, is_fine) in
        [(1, 1, true), (86_400, 128, true), (0, 1, false), (86_401, 1, false), (1, 0, false), (1, 129, false)]
    {
        let content = AnnounceContent {
            public_key: PublicKey([1; 32]),
            boot_epoch: n,
            sequence: n,
            capabilities: Capabilities(n as u16),
            lifetime_s,
            max_hops,
            key_record_hash: None,
            keypackage_hash: None,
            service_data: Bytes::new(),
        };
        let signed = Bytes::from(content.encode());
        let mut announce = quicprochat_mesh::wire::Announce::new(content, signed, Signature([3; 64]), None);
        announce.hop_count = hop_count;
        assert_eq!(again(&Frame::Announce(announce)).is_ok(), is_fine, "{lifetime_s} s, {max_hops} links");
    }
}

fn check_envelope(n: u32, hop_count: u8) {
    for (code, max_hops, is_fine) in
        [(0, 1, true), (23, 128, true), (0, 0, false), (23, 129, false), (23, u8::MAX, false)]
    {
        let header = EnvelopeHeader {
            kind: EnvelopeKind(n as u8 & EnvelopeKind::MAX),
            priority: Priority::from_bits(n as u8),
            source: NodeName::Address(Address([1; 16])),
            destination: NodeName::Address(Address([2; 16])),
            boot_epoch: n as u16,
            sequence: n,
            created_unix_s: n,
            lifetime: Lifetime::from_code(code).unwrap(),
            max_hops,
        };
        let proof = Proof::Signature(Signature([3; 64]));
        let envelope = Envelope::assemble(header, &header.signed(b"x"), proof, None);
        assert_eq!(envelope.is_ok(), is_fine, "{max_hops} links");
        let Ok(envelope) = envelope else { continue };
        let ext = FrameExt { age_s: n, ..FrameExt::default() };
        again(&Frame::Envelope(envelope.with_hop_count(hop_count), ext)).unwrap();
    }
}
