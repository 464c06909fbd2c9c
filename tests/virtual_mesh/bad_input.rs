//! A-16 and everything else that is wrong in itself: refused, counted, answered by nothing, and in
//! the end the death of the link.

use bytes::Bytes;
use quicprochat_mesh::{
    MetricsSnapshot,
    crypto::{MerkleTree, SignedType},
    telemetry,
    testing::with_virtual_time,
    transport::MemNetwork,
    wire::{
        Address, Announce, Digest, EnvelopeHeader, EnvelopeKind, Frame, NodeName, PacketId, Proof, PublicKey,
        Signature, TrafficClass, cbor,
        control::{Credit, CustodyAck, Refuse, RefuseReason},
        handshake::CloseReason,
        limits::{DIGEST_ENTRIES_MAX, MERKLE_LEVELS_MAX, WITHDRAW_ADDRESSES_MAX},
        path::{self, DigestEntry, Withdraw},
    },
};

use crate::{
    attacker::{Attacker, RawLink, Signer, framed},
    node::*,
};

/// Says something wrong and makes sure that nothing comes back, and nobody else hears of it.
async fn say_in_vain(nodes: &[Node], link: &mut RawLink, what: &str, bytes: impl Into<Bytes>) {
    link.take();
    nodes.iter().for_each(|node| drop(node.tap.take()));
    let ways = nodes[1].ways().await;
    link.send(bytes);
    // A failure costs 20 of a budget that gets 20 a second.
    tokio::time::sleep(secs(1)).await;
    let back = link.take();
    assert!(back.is_empty(), "{what} was answered: {back:?}");
    for (n, node) in nodes.iter().enumerate() {
        let heard = node.tap.take();
        let on = heard.iter().filter(|heard| n != 1 && !heard.is_links_own()).count();
        assert_eq!(on, 0, "{what} went on: {heard:?}");
    }
    assert_eq!(nodes[1].ways().await, ways, "{what} turned a route");
    assert!(!link.is_over(), "{what} cost the link at once");
}

/// A line of three whose middle has the attacker for a neighbour, quiet for a while.
async fn quiet(network: &MemNetwork) -> (Vec<Node>, Attacker, RawLink) {
    let nodes = line(network, 3).await;
    let mut attacker = Attacker::new(network, 99);
    let link = attacker.link(&nodes[1]).await;
    link.say(&Frame::Announce(attacker.signer.announce((1, 1))));
    nodes.iter().for_each(|node| node.tap.listen());
    tokio::time::sleep(secs(60)).await;
    (nodes, attacker, link)
}

/// Honest messages pass as they did before.
async fn honest_traffic_passes(nodes: &[Node]) {
    let before = nodes[2].inbox().await;
    let sent = nodes[0].send(nodes[2].address(), "all is well").await;
    tokio::time::sleep(secs(1)).await;
    assert!(sent.within(FIRST_RETRY));
    assert_eq!(nodes[2].inbox().await, before + 1);
}

fn failures(counted: &MetricsSnapshot, reason: &str) -> f64 {
    counted.value(telemetry::VERIFY_FAILURES, &[("reason", reason)]).unwrap()
}

/// The same announce under another key, unsigned: no such key signs anything.
fn under_key(announce: &Announce, key: PublicKey) -> Bytes {
    let mut content = announce.content.clone();
    content.public_key = key;
    let signed = Bytes::from(content.encode());
    Frame::Announce(Announce::new(content, signed, announce.signature, None)).encode()
}

#[test]
fn keys_and_names_that_no_node_may_have_are_refused_counted_and_not_answered() {
    let ((), counted) = telemetry::isolated(|| {
        with_virtual_time(|| async {
            let network = MemNetwork::new();
            let (nodes, mut attacker, mut link) = quiet(&network).await;
            let victim = &nodes[1];
            let announce = attacker.signer.announce((1, 2));
            let told = link.take().into_iter().find_map(|(frame, _)| match frame {
                Frame::Announce(told) if told.content.public_key == victim.spec.key() => Some(told),
                _ => None,
            });
            let told = told.expect("a new link hears of its neighbour");

            // Keys under which everything verifies, or that have two spellings.
            let mut small_order = [0; 32];
            small_order[0] = 1;
            let mut non_canonical = [0xff; 32];
            (non_canonical[0], non_canonical[31]) = (0xee, 0x7f);
            for (what, key) in [
                ("the neutral element", small_order),
                ("a key of order two", [0; 32]),
                ("a non-canonical key", non_canonical),
            ] {
                let frame = under_key(&announce, PublicKey(key));
                say_in_vain(&nodes, &mut link, what, frame).await;
            }
            // No key at all.
            let key = attacker.signer.key();
            let signed = &announce.signed;
            let at = signed.windows(32).position(|window| window == key.0).unwrap();
            let keyless = [&signed[..at - 2], &[0x40], &signed[at + 32..]].concat();
            let keyless = Announce { signed: keyless.into(), ..announce.clone() };
            say_in_vain(&nodes, &mut link, "an empty key", Frame::Announce(keyless).encode()).await;

            // Sources and destinations that are nobody's.
            let header = attacker.signer.header(EnvelopeKind::MESSAGE, nodes[2].address());
            let named = |name, to| EnvelopeHeader {
                source: NodeName::Address(name),
                destination: NodeName::Address(to),
                ..header
            };
            let own = attacker.address();
            for (what, header) in [
                ("the zero source", named(Address([0; 16]), nodes[2].address())),
                ("the broadcast source", named(Address::BROADCAST, nodes[2].address())),
                ("the zero destination", named(own, Address([0; 16]))),
                ("a message to everyone", named(own, Address::BROADCAST)),
            ] {
                let (_, envelope) = attacker.signer.seal(header, b"payload");
                say_in_vain(&nodes, &mut link, what, framed(&envelope)).await;
            }
            tokio::time::sleep(secs(10)).await;

            // Another key for an address that is known: in an envelope, and as an answer nobody wanted.
            let other = Signer::stranger(5);
            let (_, envelope) = attacker.signer.envelope(EnvelopeKind::MESSAGE, nodes[2].address());
            let foreign = envelope.without_source_key().with_source_key(other.key());
            say_in_vain(&nodes, &mut link, "another key for an address", framed(&foreign)).await;
            say_in_vain(&nodes, &mut link, "a key nobody asked for", Frame::KeyOffer(other.key()).encode())
                .await;

            // The victim itself, as others see it, told back to it; and a newer one that is forged.
            let before = victim.counters().await;
            let mut forged = announce.content.clone();
            forged.public_key = victim.spec.key();
            forged.boot_epoch = 77;
            let signed = Bytes::from(forged.encode());
            let forged = Announce { hop_count: 3, ..Announce::new(forged, signed, announce.signature, None) };
            say_in_vain(&nodes, &mut link, "a forged order of its own", Frame::Announce(forged).encode())
                .await;
            for hop_count in [1, 4] {
                let echo = Frame::Announce(Announce { hop_count, ..told.clone() }).encode();
                say_in_vain(&nodes, &mut link, "its own announce", echo).await;
            }
            assert_eq!(victim.counters().await.own_order_seen, before.own_order_seen);

            // Straight from another node than the neighbour, by its own word.
            let strange = Frame::Announce(Signer::stranger(6).announce((1, 1))).encode();
            say_in_vain(&nodes, &mut link, "an origin that is not the neighbour", strange).await;
            let far = Announce { hop_count: 128, ..Signer::stranger(7).announce((1, 1)) };
            say_in_vain(&nodes, &mut link, "an announce past its limit", Frame::Announce(far).encode()).await;
            let counters = victim.counters().await;
            assert_eq!((counters.announces_not_origin, counters.announces_hop_limit), (1, 1));
            assert_eq!(counters.forwarded, before.forwarded);
            honest_traffic_passes(&nodes).await;
        });
    });
    assert_eq!(failures(&counted, "weak_key"), 3.0);
    assert_eq!(failures(&counted, "reserved_source"), 2.0);
    assert_eq!(failures(&counted, "reserved_destination"), 1.0);
    assert_eq!(failures(&counted, "broadcast_kind"), 1.0);
    assert_eq!(failures(&counted, "foreign_key"), 1.0);
    assert_eq!(failures(&counted, "bad_signature"), 1.0);
    assert_eq!(counted.sum(telemetry::DECODE_ERRORS), 1.0, "the empty key");
}

/// Envelopes of one signer under one signature.
fn batch(signer: &mut Signer, to: Address, count: usize) -> Vec<(EnvelopeHeader, Vec<u8>, Proof)> {
    let headers: Vec<_> = (0..count).map(|_| signer.header(EnvelopeKind::MESSAGE, to)).collect();
    let signed: Vec<Vec<u8>> = headers.iter().map(|header| header.signed(b"payload").to_vec()).collect();
    let leaves = signed.iter().map(|signed| signer.input.of(SignedType::EnvelopeV2, signed).leaf()).collect();
    let tree = MerkleTree::new(leaves).unwrap();
    let root = tree.root();
    let root_signature = signer.identity.sign(signer.input.of(SignedType::MerkleRoot, root.as_bytes()));
    let proofs = (0..count).map(|n| {
        let path = tree.path(n).unwrap();
        Proof::Merkle { root_signature, index: u32::try_from(n).unwrap(), path }
    });
    headers.into_iter().zip(signed).zip(proofs.collect::<Vec<_>>()).map(|((h, s), p)| (h, s, p)).collect()
}

#[test]
fn forged_paths_control_without_an_object_and_absurd_sizes_are_bounded_counted_and_end_the_link() {
    let ((), counted) = telemetry::isolated(|| {
        with_virtual_time(|| async {
            let network = MemNetwork::new();
            let (nodes, mut attacker, mut link) = quiet(&network).await;
            let victim = &nodes[1];
            let to = nodes[2].address();
            let key = attacker.signer.key();
            let four = batch(&mut attacker.signer, to, 4);
            let mut other = Signer::stranger(1);
            let others = batch(&mut other, to, 4);
            let (_, signed, Proof::Merkle { root_signature, path, .. }) = &four[0] else {
                panic!("a batch has paths")
            };
            // By hand: nothing here writes a proof that is out of range.
            let framed_with = |(root_signature, index, path): (&Signature, u32, &[Digest])| {
                let mut frame = vec![0x82, 7, 0x84, 0];
                cbor::put_bytes(&mut frame, signed);
                frame.extend([0x84, 1]);
                cbor::put_bytes(&mut frame, &root_signature.0);
                cbor::put_uint(&mut frame, index.into());
                cbor::put_bytes(&mut frame, &path.iter().flat_map(|digest| digest.0).collect::<Vec<_>>());
                cbor::put_bytes(&mut frame, &key.0);
                frame
            };
            let mut forged = path.clone();
            forged[1].0[3] ^= 1;
            let Proof::Merkle { root_signature: others_root, .. } = &others[0].2 else { panic!() };
            let deep = vec![Digest([5; 32]); MERKLE_LEVELS_MAX + 1];
            for (what, proof) in [
                ("a forged path", (root_signature, 0, &forged[..])),
                ("the root of another source", (others_root, 0, &path[..])),
                ("another leaf's place", (root_signature, 1, &path[..])),
                ("an index outside of the tree", (root_signature, 4, &path[..])),
                ("the last index there is", (root_signature, u32::MAX, &path[..])),
                ("a path deeper than any tree", (root_signature, 0, &deep[..])),
            ] {
                say_in_vain(&nodes, &mut link, what, framed_with(proof)).await;
            }
            say_in_vain(&nodes, &mut link, "a thousand arrays in each other", vec![0x81; 1000]).await;
            tokio::time::sleep(secs(10)).await;

            // Credit, which this medium does not use, and more of it than fits.
            for bytes in [1, u32::MAX] {
                let credit = Frame::Credit(Credit { class: TrafficClass::Bulk, bytes }).encode();
                say_in_vain(&nodes, &mut link, "credit nobody uses", credit).await;
            }

            // About packets, ways and origins that there are not.
            let before = victim.counters().await;
            let never_sent = PacketId([9; 16]);
            for reason in [RefuseReason::NoRoute, RefuseReason::Loop, RefuseReason::StoreFull] {
                let refuse = Refuse { packet_id: never_sent, reason, retry_after_s: u16::MAX };
                say_in_vain(&nodes, &mut link, "a refusal", Frame::Refuse(refuse).encode()).await;
            }
            let ack = CustodyAck { domain: attacker.address(), packet_ids: vec![never_sent; 1] };
            say_in_vain(&nodes, &mut link, "custody", Frame::CustodyAck(ack).encode()).await;
            let mut addresses = vec![nodes[0].address(), to, Address([9; 16])];
            addresses.sort_unstable();
            let withdraw = Frame::Withdraw(Withdraw { addresses }).encode();
            say_in_vain(&nodes, &mut link, "a withdrawal", withdraw).await;
            let after = victim.counters().await;
            assert_eq!(after.control_ignored - before.control_ignored, 3);
            assert_eq!(after.withdrawals_foreign - before.withdrawals_foreign, 3);
            assert_eq!(after.withdrawals, before.withdrawals);

            // Digests: of invented origins, of the same range again, of more than fits.
            let address = |n: usize| {
                let mut bytes = [1; 16];
                bytes[..2].copy_from_slice(&u16::try_from(n).unwrap().to_be_bytes());
                Address(bytes)
            };
            let entry =
                |n| DigestEntry { origin: address(n), boot_epoch: 9, sequence: 9, hop_count: Some(0) };
            let digest = |count: usize| {
                let entries = (0..count).map(entry).collect();
                Frame::Digest(path::Digest { after: Address([0; 16]), through: address(2000), entries })
                    .encode()
            };
            let routes = victim.routes().await.len();
            link.send(digest(DIGEST_ENTRIES_MAX));
            tokio::time::sleep(secs(5)).await;
            say_in_vain(&nodes, &mut link, "the same digest again", digest(DIGEST_ENTRIES_MAX)).await;
            say_in_vain(&nodes, &mut link, "a digest too large", digest(DIGEST_ENTRIES_MAX + 1)).await;
            let too_many = Withdraw { addresses: (0..=WITHDRAW_ADDRESSES_MAX).map(address).collect() };
            let too_many = Frame::Withdraw(too_many).encode();
            say_in_vain(&nodes, &mut link, "a withdrawal too large", too_many).await;
            let last = victim.counters().await;
            assert_eq!((last.digests - after.digests, last.digests_ignored - after.digests_ignored), (1, 1));
            assert_eq!(victim.routes().await.len(), routes, "an invented origin has a route");
            assert_eq!(last.forwarded, before.forwarded);
            honest_traffic_passes(&nodes).await;

            // Without end it costs the link.
            for _ in 0..20 {
                link.send(vec![0x81; 1000]);
            }
            tokio::time::sleep(secs(5)).await;
            assert!(link.is_over());
            assert_eq!(link.goodbye(), Some(CloseReason::ProtocolError));
            honest_traffic_passes(&nodes).await;
        });
    });
    assert_eq!(failures(&counted, "bad_signature"), 3.0);
    let outside = failures(&counted, "merkle_path");
    let unreadable = counted.sum(telemetry::DECODE_ERRORS);
    println!("outside of the tree {outside}, unreadable {unreadable}");
    assert!(outside + unreadable >= 5.0);
    assert_eq!(counted.value(telemetry::LINK_FAULTS, &[("reason", "credit_foreign")]), Some(2.0));
    assert_eq!(counted.value(telemetry::LINK_FAULTS, &[("reason", "undecodable")]), Some(1.0));
}
