use std::time::{Duration, Instant};

use super::*;
use crate::{
    proto::router::testkit::{NETWORK, Node},
    wire::{Digest, EnvelopeHeader, Frame, Signature},
};

const US: Address = Address([0xee; 16]);
const THEM: Address = Address([0x77; 16]);

fn verifier() -> Verifier {
    Verifier::new(US, NETWORK)
}

fn verify(verifier: &mut Verifier, envelope: Envelope) -> Result<Verified<InboundEnvelope>, &'static str> {
    match verifier.verify(envelope, FrameExt::default()) {
        VerifyOutcome::Verified(packet) => Ok(packet),
        VerifyOutcome::KeyNeeded { .. } => Err("key_needed"),
        VerifyOutcome::CameBack(_) => Err("came_back"),
        VerifyOutcome::Failed(error) => Err(error.name()),
    }
}

/// The same envelope with one bit of its encoding flipped; none where it no longer decodes.
fn flip(envelope: &Envelope, byte: usize, bit: u8) -> Option<Envelope> {
    let mut frame = envelope.to_frame(FrameExt::default()).to_bytes().to_vec();
    frame[byte] ^= 1 << bit;
    match Frame::decode(&frame.into()) {
        Ok(Frame::Envelope(envelope, _)) => Some(envelope),
        _ => None,
    }
}

#[test]
fn an_envelope_is_believed_by_its_source_s_signature() {
    let mut node = Node::new(1);
    let (packet_id, envelope) = node.envelope(THEM, EnvelopeKind::MESSAGE);
    let mut verifier = verifier();
    assert_eq!(verify(&mut verifier, envelope.clone()).unwrap_err(), "key_needed");
    let packet = verify(&mut verifier, envelope.with_source_key(node.key())).unwrap();
    assert_eq!((packet.packet_id, packet.source), (packet_id, node.address()));
    assert_eq!((packet.destination, packet.source_key), (THEM, node.key()));
    // The key is remembered from here on.
    let (_, next) = node.envelope(THEM, EnvelopeKind::MESSAGE);
    verify(&mut verifier, next).unwrap();
}

#[test]
fn who_checked_an_announce_knows_the_key_of_its_origin() {
    let mut node = Node::new(1);
    let mut verifier = verifier();
    verifier.verify_announce(node.announce((1, 1), 128)).unwrap();
    let (_, envelope) = node.envelope(THEM, EnvelopeKind::MESSAGE);
    verify(&mut verifier, envelope).unwrap();
}

#[test]
fn names_of_v1_become_addresses() {
    let (mut node, peer) = (Node::new(1), Node::new(2));
    let header = EnvelopeHeader {
        source: NodeName::Key(node.key()),
        destination: NodeName::Key(peer.key()),
        ..node.header(THEM, EnvelopeKind::MESSAGE)
    };
    let (_, envelope) = node.seal(header, b"hello");
    let packet = verify(&mut verifier(), envelope).unwrap();
    assert_eq!((packet.source, packet.destination), (node.address(), peer.address()));

    let everyone = EnvelopeHeader {
        destination: NodeName::Key(PublicKey([0xff; 32])),
        kind: EnvelopeKind::BROADCAST,
        lifetime: Lifetime::TEN_MINUTES,
        ..header
    };
    let (_, envelope) = node.seal(everyone, b"hello");
    assert_eq!(verify(&mut verifier(), envelope).unwrap().destination, Address::BROADCAST);
}

#[test]
fn no_flipped_bit_of_a_frame_passes() {
    let mut node = Node::new(1);
    let (_, envelope) = node.envelope(THEM, EnvelopeKind::MESSAGE);
    let envelope = envelope.with_source_key(node.key());
    let len = envelope.to_frame(FrameExt::default()).len();
    let mut verifier = verifier();
    let mut decoded = 0;
    for byte in 0..len {
        // One bit a byte keeps the test short; which one changes along the frame.
        let Some(flipped) = flip(&envelope, byte, (byte % 8) as u8) else { continue };
        if flipped.hop_count() != envelope.hop_count() {
            continue;
        }
        decoded += 1;
        assert!(verify(&mut verifier, flipped).is_err(), "byte {byte}");
    }
    assert!(decoded > 100, "{decoded}");
}

#[test]
fn headers_that_no_signature_makes_good() {
    let mut node = Node::new(1);
    let base = node.header(THEM, EnvelopeKind::MESSAGE);
    let mut check = |header: EnvelopeHeader, want: Result<(), &str>| {
        let (_, envelope) = node.seal(header, b"x");
        let got = verify(&mut verifier(), envelope.with_source_key(node.key())).map(|_| ());
        assert_eq!(got, want, "{header:?}");
    };
    let to = |destination, kind, lifetime| EnvelopeHeader {
        destination: NodeName::Address(destination),
        kind,
        lifetime,
        ..base
    };
    let (day, ten) = (Lifetime::ONE_DAY, Lifetime::TEN_MINUTES);
    check(base, Ok(()));
    let from = |source| EnvelopeHeader { source: NodeName::Address(source), ..base };
    check(from(Address([0; 16])), Err("reserved_source"));
    check(from(Address::BROADCAST), Err("reserved_source"));
    check(from(US), Err("came_back"));
    let ours = |destination, kind| EnvelopeHeader {
        source: NodeName::Address(US),
        ..to(destination, kind, Lifetime::TEN_MINUTES)
    };
    check(ours(Address::BROADCAST, EnvelopeKind::BROADCAST), Err("own_source"));
    check(ours(US, EnvelopeKind::MESSAGE), Err("own_source"));
    check(from(THEM), Err("foreign_key"));
    check(to(Address([0; 16]), EnvelopeKind::MESSAGE, day), Err("reserved_destination"));
    // Questions and private messages to everyone would be answered by everyone.
    for kind in [EnvelopeKind::MESSAGE, EnvelopeKind::PING, EnvelopeKind::TRACE, EnvelopeKind::RECEIPT] {
        check(to(Address::BROADCAST, kind, ten), Err("broadcast_kind"));
    }
    check(to(THEM, EnvelopeKind::BROADCAST, ten), Err("broadcast_kind"));
    check(to(Address::BROADCAST, EnvelopeKind::BROADCAST, day), Err("broadcast_lifetime"));
    check(to(Address::BROADCAST, EnvelopeKind::BROADCAST, ten), Ok(()));
    // Kinds of a newer version go anywhere.
    check(to(Address::BROADCAST, EnvelopeKind(40), ten), Ok(()));
    check(to(THEM, EnvelopeKind(40), day), Ok(()));
}

#[test]
fn a_signature_of_another_network_or_kind_fails() {
    let mut node = Node::new(1);
    let (_, envelope) = node.envelope(THEM, EnvelopeKind::MESSAGE);
    let envelope = envelope.with_source_key(node.key());
    let mut elsewhere = Verifier::new(US, NetworkId([8; 16]));
    assert_eq!(verify(&mut elsewhere, envelope).unwrap_err(), "bad_signature");
}

#[test]
fn keys_that_anybody_can_sign_for_are_refused() {
    // The identity point, whose signatures anybody can make.
    let mut weak = [0; 32];
    weak[0] = 1;
    let weak = PublicKey(weak);
    let header = EnvelopeHeader {
        source: NodeName::Address(compute_address(&weak)),
        ..Node::new(1).header(THEM, EnvelopeKind::MESSAGE)
    };
    let envelope =
        Envelope::assemble(header, &header.signed(b"x"), Proof::Signature(Signature([0; 64])), Some(weak));
    assert_eq!(verify(&mut verifier(), envelope.unwrap()).unwrap_err(), "weak_key");
}

#[test]
fn failures_leave_no_trace_in_the_caches() {
    let mut node = Node::new(1);
    let (_, envelope) = node.envelope(THEM, EnvelopeKind::MESSAGE);
    let bad = Envelope::assemble(
        *envelope.header(),
        envelope.signed(),
        Proof::Signature(Signature([1; 64])),
        Some(node.key()),
    );
    let mut verifier = verifier();
    assert_eq!(verify(&mut verifier, bad.unwrap()).unwrap_err(), "bad_signature");
    assert_eq!(verify(&mut verifier, envelope).unwrap_err(), "key_needed");
}

#[test]
fn a_root_is_checked_once_for_its_whole_batch() {
    let mut node = Node::new(1);
    let batch = node.merkle_batch(THEM, 5);
    let mut verifier = verifier();
    verifier.learn_key(&node.address(), &node.key()).unwrap();
    for envelope in &batch {
        verify(&mut verifier, envelope.clone()).unwrap();
    }
    assert_eq!((verifier.signatures_checked(), verifier.sources.roots_of(&node.address())), (1, 1));
    // A known root does not lend itself to another signature over it: the next relay would refuse
    // that one, at our cost.
    let Proof::Merkle { index, path, .. } = batch[0].proof() else { panic!() };
    let forged = Proof::Merkle { root_signature: Signature([3; 64]), index: *index, path: path.clone() };
    let forged = Envelope::assemble(*batch[0].header(), batch[0].signed(), forged, None).unwrap();
    assert_eq!(verify(&mut verifier, forged).unwrap_err(), "bad_signature");
    // Nor to a path of another leaf.
    let moved = Envelope::assemble(*batch[1].header(), batch[1].signed(), batch[0].proof().clone(), None);
    assert_eq!(verify(&mut verifier, moved.unwrap()).unwrap_err(), "bad_signature");
}

#[test]
fn announces_and_their_key_records() {
    let (mut node, mut other) = (Node::new(1), Node::new(2));
    let record = node.key_record(1);
    let good = node.announce_with_record((1, 1), &record);
    let mut verifier = verifier();
    let inbound = verifier.verify_announce(good.clone()).unwrap();
    assert_eq!(inbound.origin, node.address());
    assert_eq!(inbound.key_record.as_ref(), Some(&record));

    let mut check = |announce: Announce, want: &str| {
        assert_eq!(verifier.verify_announce(announce).unwrap_err().name(), want);
    };
    // A record that the announce does not name, and one without being named.
    let older = node.key_record(0);
    check(Announce { key_record: Some(older.signed().clone()), ..good.clone() }, "foreign_key_record");
    let plain = node.announce((1, 2), 128);
    check(Announce { key_record: Some(record.signed().clone()), ..plain.clone() }, "foreign_key_record");
    // Another node's record, named.
    let foreign = other.key_record(1);
    check(node.announce_with_record((1, 3), &foreign), "foreign_key_record");
    // A record whose signature does not hold; its hash covers the content alone.
    let forged = SignedKeyRecord { signature: Signature([5; 64]), ..record.signed().clone() };
    check(Announce { key_record: Some(forged), ..good.clone() }, "bad_signature");
    check(Announce { signature: Signature([5; 64]), ..plain.clone() }, "bad_signature");
    // Content and signature of two announces.
    check(Announce { signature: good.signature, ..plain }, "bad_signature");
}

#[test]
fn a_hop_count_is_nobody_s_signature() {
    let mut node = Node::new(1);
    let announce = Announce { hop_count: 77, ..node.announce((1, 1), 128) };
    assert_eq!(verifier().verify_announce(announce).unwrap().announce.hop_count, 77);
}

#[test]
fn an_announce_of_our_own_passes_for_it_may_show_a_rollback() {
    let mut node = Node::new(1);
    let announce = node.announce((1, 1), 128);
    assert!(Verifier::new(node.address(), NETWORK).verify_announce(announce).is_ok());
}

#[test]
fn a_key_comes_only_for_the_address_that_was_asked_for() {
    let node = Node::new(1);
    let mut verifier = verifier();
    assert_eq!(verifier.learn_key(&THEM, &node.key()).unwrap_err().name(), "foreign_key");
    verifier.learn_key(&node.address(), &node.key()).unwrap();
}

#[test]
fn what_one_link_checked_no_other_checks_again() {
    let mut node = Node::new(1);
    let record = node.key_record(1);
    let first = node.announce_with_record((1, 1), &record);
    let shared = Checked::default();
    let mut links: Vec<_> =
        (0..5).map(|_| Verifier::sharing(Node::new(9).address(), NETWORK, shared.clone())).collect();
    let mut signatures = |announce: &Announce| -> u64 {
        for link in &mut links {
            assert_eq!(link.verify_announce(announce.clone()).unwrap().key_record.as_ref(), Some(&record));
        }
        links.iter().map(Verifier::signatures_checked).sum()
    };
    // The announce and its record; then the next one, which repeats the record.
    assert_eq!(signatures(&first), 2);
    assert_eq!(signatures(&Announce { hop_count: 3, ..first.clone() }), 2);
    let second = node.announce_with_record((1, 2), &record);
    assert_eq!(signatures(&second), 3);

    // What is known to be good does not make another signature good.
    let mut check = |announce: Announce| links[0].verify_announce(announce).unwrap_err().name();
    assert_eq!(check(Announce { signature: first.signature, ..second.clone() }), "bad_signature");
    let forged = SignedKeyRecord { signature: Signature([5; 64]), ..record.signed().clone() };
    assert_eq!(check(Announce { key_record: Some(forged), ..second }), "bad_signature");
}

#[test]
fn what_failed_is_not_remembered_as_good() {
    let mut node = Node::new(1);
    let forged = Announce { signature: Signature([5; 64]), ..node.announce((1, 1), 128) };
    let shared = Checked::default();
    for _ in 0..2 {
        let mut link = Verifier::sharing(Node::new(9).address(), NETWORK, shared.clone());
        assert_eq!(link.verify_announce(forged.clone()).unwrap_err().name(), "bad_signature");
    }
    assert_eq!(shared.len(), (0, 0));
}

#[test]
fn what_is_remembered_is_bounded() {
    let shared = Checked::default();
    for n in 0..100_000u32 {
        let digest = sha256(&[&n.to_be_bytes()]);
        shared.announce_held_good(digest);
        shared.record_held_good(digest);
    }
    assert_eq!(shared.len(), (ANNOUNCES_MAX, RECORDS_MAX));
}

/// A verifier that knows this node's key.
fn knows(node: &Node) -> Verifier {
    let mut verifier = verifier();
    verifier.learn_key(&node.address(), &node.key()).unwrap();
    verifier
}

/// The envelope with another proof.
fn with_proof(envelope: &Envelope, proof: Proof) -> Envelope {
    Envelope::assemble(*envelope.header(), envelope.signed(), proof, None).unwrap()
}

#[test]
fn a_source_that_makes_a_root_for_every_message_takes_its_own_room_only() {
    let (mut busy, mut hostile) = (Node::new(1), Node::new(2));
    let mut verifier = knows(&busy);
    verifier.learn_key(&hostile.address(), &hostile.key()).unwrap();
    let batch = busy.merkle_batch(THEM, 64);
    for (n, envelope) in batch.iter().enumerate() {
        verify(&mut verifier, envelope.clone()).unwrap();
        for _ in 0..ROOTS_PER_SOURCE {
            let single = hostile.merkle_batch(THEM, 2).swap_remove(0);
            verify(&mut verifier, single).unwrap();
        }
        assert!(verifier.sources.roots_of(&hostile.address()) <= ROOTS_PER_SOURCE);
        // The honest batch has cost one signature, however many the other source made us check:
        // one a message, as a plain one would have.
        let checked = 1 + (n as u64 + 1) * ROOTS_PER_SOURCE as u64;
        assert_eq!(verifier.signatures_checked(), checked);
    }
}

#[test]
fn old_roots_shown_again_cost_a_signature_a_message_and_no_more() {
    let mut node = Node::new(1);
    let mut verifier = knows(&node);
    let old: Vec<_> = (0..ROOTS_PER_SOURCE * 2).map(|_| node.merkle_batch(THEM, 2).swap_remove(0)).collect();
    let batch = node.merkle_batch(THEM, 16);
    let mut messages = 0;
    for envelope in &batch {
        for envelope in old.iter().chain([envelope]) {
            verify(&mut verifier, envelope.clone()).unwrap();
            messages += 1;
            assert!(verifier.signatures_checked() <= messages);
            assert!(verifier.sources.roots_of(&node.address()) <= ROOTS_PER_SOURCE);
        }
    }
}

#[test]
fn a_flood_of_sources_pushes_out_no_source_that_is_heard() {
    let mut busy = Node::new(1);
    let mut verifier = knows(&busy);
    let batch = busy.merkle_batch(THEM, 12);
    let mut sources = 0u32;
    for (n, envelope) in batch.into_iter().enumerate() {
        let before = verifier.signatures_checked();
        // Without its key attached: a source that was forgotten would be asked for again.
        verify(&mut verifier, envelope).unwrap();
        assert_eq!(verifier.signatures_checked() - before, u64::from(n == 0));
        for _ in 0..SOURCES_MAX / 4 {
            sources += 1;
            let mut seed = [9; 32];
            seed[..4].copy_from_slice(&sources.to_be_bytes());
            let mut stranger = Node::of_seed(seed);
            for envelope in stranger.merkle_batch(THEM, 2) {
                verify(&mut verifier, envelope.with_source_key(stranger.key())).unwrap();
            }
            assert!(verifier.sources.len() <= SOURCES_MAX);
        }
    }
    assert!(sources as usize > 2 * SOURCES_MAX);
    assert_eq!(verifier.sources.len(), SOURCES_MAX);
}

#[test]
fn what_fails_is_not_remembered_and_does_not_count_as_heard() {
    let mut node = Node::new(1);
    let mut verifier = knows(&node);
    let batch = node.merkle_batch(THEM, 4);
    let Proof::Merkle { root_signature, index, path } = batch[0].proof().clone() else { panic!() };
    let forged = Proof::Merkle { root_signature: Signature([3; 64]), index, path: path.clone() };
    let mut flipped = path.clone();
    flipped[1].0[0] ^= 1;
    let strayed = Proof::Merkle { root_signature, index, path: flipped };
    let shorter = Proof::Merkle { root_signature, index, path: path[..1].to_vec() };
    for _ in 0..2 {
        for proof in [&forged, &strayed, &shorter] {
            let refused = verify(&mut verifier, with_proof(&batch[0], proof.clone())).unwrap_err();
            assert_eq!(refused, "bad_signature");
        }
        assert_eq!((verifier.signatures_checked(), verifier.sources.roots_of(&node.address())), (0, 0));
    }
    // Once the root is known the same forgeries fare no better.
    verify(&mut verifier, batch[0].clone()).unwrap();
    for proof in [forged, strayed, shorter] {
        assert_eq!(verify(&mut verifier, with_proof(&batch[0], proof)).unwrap_err(), "bad_signature");
    }
    assert_eq!(verifier.sources.roots_of(&node.address()), 1);
}

#[test]
fn a_root_of_one_source_proves_nothing_of_another() {
    let (mut node, other) = (Node::new(1), Node::new(2));
    let mut verifier = knows(&node);
    verifier.learn_key(&other.address(), &other.key()).unwrap();
    let batch = node.merkle_batch(THEM, 4);
    verify(&mut verifier, batch[0].clone()).unwrap();
    // The same proof around fields that name the other source.
    let header = EnvelopeHeader { source: NodeName::Address(other.address()), ..*batch[0].header() };
    let stolen = Envelope::assemble(header, &header.signed(b"payload"), batch[0].proof().clone(), None);
    assert_eq!(verify(&mut verifier, stolen.unwrap()).unwrap_err(), "bad_signature");
}

#[test]
fn paths_deeper_than_any_tree_are_refused_before_anything_is_hashed() {
    use crate::wire::limits::MERKLE_LEVELS_MAX;
    let mut node = Node::new(1);
    let (_, envelope) = node.envelope(THEM, EnvelopeKind::MESSAGE);
    for levels in [0, MERKLE_LEVELS_MAX + 1, 400] {
        let proof = Proof::Merkle {
            root_signature: Signature([3; 64]),
            index: 0,
            path: vec![Digest([0; 32]); levels],
        };
        assert!(
            Envelope::assemble(*envelope.header(), envelope.signed(), proof, None).is_err(),
            "{levels} levels"
        );
    }
}

#[test]
fn blame_falls_on_who_passed_a_forgery_on() {
    assert!(!VerifyError::OwnSource.peer_fault());
    assert!(VerifyError::MerklePath.peer_fault());
    assert!(VerifyError::ReservedSource(US).peer_fault());
}

#[test]
fn envelopes_wait_for_a_key_within_bounds() {
    let start = Instant::now();
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let mut held = HeldForKey::new();
    let hold = |held: &mut HeldForKey, node: &mut Node, now| {
        let (_, envelope) = node.envelope(THEM, EnvelopeKind::MESSAGE);
        held.hold(now, node.address(), envelope, FrameExt::default())
    };
    assert_eq!(hold(&mut held, &mut a, start), Hold::Ask);
    assert_eq!(hold(&mut held, &mut a, start), Hold::Waits);
    let later = start + Duration::from_millis(400);
    assert_eq!(hold(&mut held, &mut b, later), Hold::Ask);
    assert_eq!(held.next_wake(), Some(start + HELD_FOR));

    assert_eq!(held.take(&THEM).map(|all| all.len()), None);
    assert_eq!(held.expire(start + HELD_FOR), 2);
    assert_eq!(held.take(&a.address()).map(|all| all.len()), None);
    assert_eq!(held.take(&b.address()).map(|all| all.len()), Some(1));
    assert_eq!((held.bytes(), held.next_wake()), (0, None));

    let taken = std::iter::from_fn(|| (hold(&mut held, &mut a, start) != Hold::Full).then_some(())).count();
    assert!(taken > 50, "{taken}");
    assert!(held.bytes() <= HELD_BYTES_MAX);
    // After the wait there is room again, and the neighbour is asked again.
    held.expire(start + HELD_FOR);
    assert_eq!(hold(&mut held, &mut a, start + HELD_FOR), Hold::Ask);
}
