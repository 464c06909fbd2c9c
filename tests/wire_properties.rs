//! Whatever a message says, its bytes say the same.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use proptest::{
    array,
    collection::{btree_map, btree_set, vec},
    option,
    prelude::*,
};
use quicprochat_mesh::wire::{
    Address, Announce, AnnounceContent, Capabilities, Digest, Envelope, EnvelopeHeader, EnvelopeKind, Frame,
    FrameExt, Lifetime, MessageUid, NodeName, PacketId, Priority, Proof, PublicKey, Signature, TrafficClass,
    TransferTag, UidPrefix,
    content::{Chunk, Content, Manifest, Sealed},
    control::{Credit, CustodyAck, PathRequest, Refuse},
    handshake::{Goodbye, Hello},
    key_record::{KeyRecord, ReceiverKey, SignedKeyRecord},
    limits::{CHUNK_BYTES, CHUNKS_MAX, CONTENT_BYTES_MAX, MAX_HOPS_MAX, PAYLOAD_BYTES_MAX},
    path::{Digest as TableDigest, DigestEntry, Withdraw},
    receipt::{CannotOpen, ChunkReceipt, Receipt},
    service::{Pong, Probe, TraceReply},
};

fn bytes16() -> impl Strategy<Value = [u8; 16]> {
    array::uniform16(any::<u8>())
}

fn bytes32() -> impl Strategy<Value = [u8; 32]> {
    array::uniform32(any::<u8>())
}

fn signature() -> impl Strategy<Value = Signature> {
    (bytes32(), bytes32()).prop_map(|(r, s)| {
        let mut out = [0; 64];
        out[..32].copy_from_slice(&r);
        out[32..].copy_from_slice(&s);
        Signature(out)
    })
}

fn blob(most: usize) -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..300.min(most)),
        1 => Just(vec![0xa5; most]),
    ]
    .prop_map(Bytes::from)
}

fn text(most: usize) -> impl Strategy<Value = String> {
    "\\PC{0,40}".prop_map(move |mut text| {
        while text.len() > most {
            text.pop();
        }
        text
    })
}

/// A number whose every length on the wire is likely.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0u32..64).prop_map(|(n, shift)| n >> shift)
}

fn number32() -> impl Strategy<Value = u32> {
    (any::<u32>(), 0u32..32).prop_map(|(n, shift)| n >> shift)
}

fn packet_ids(most: usize) -> impl Strategy<Value = Vec<PacketId>> {
    vec(bytes16().prop_map(PacketId), 0..=most)
}

fn key_record() -> impl Strategy<Value = SignedKeyRecord> {
    let key = (any::<u8>(), bytes32());
    let content = (bytes32(), number32(), number32(), number32(), vec(key, 1..=2));
    (content, signature()).prop_map(|((public_key, order, not_after, rk_id, keys), signature)| {
        let keys = keys.into_iter().enumerate().map(|(at, (suite, x25519))| ReceiverKey {
            rk_id: rk_id.wrapping_add(at as u32),
            suite,
            x25519,
        });
        let record = KeyRecord { public_key: PublicKey(public_key), order, not_after, keys: keys.collect() };
        SignedKeyRecord { signed: record.encode_signed().into(), signature }
    })
}

fn proof() -> impl Strategy<Value = Proof> {
    prop_oneof![
        signature().prop_map(Proof::Signature),
        (signature(), any::<u32>(), vec(bytes32().prop_map(Digest), 1..=8)).prop_map(
            |(root_signature, index, path)| Proof::Merkle {
                root_signature,
                index: index % (1 << path.len()),
                path,
            }
        ),
    ]
}

fn header() -> impl Strategy<Value = EnvelopeHeader> {
    let names = (any::<bool>(), bytes32(), bytes32());
    let numbers = (any::<u16>(), number32(), number32(), 0u8..24, 1..=MAX_HOPS_MAX);
    (0u8..=EnvelopeKind::MAX, 0u8..4, names, numbers).prop_map(
        |(kind, priority, (is_v1, source, destination), numbers)| {
            let name = |bytes: [u8; 32]| match is_v1 {
                true => NodeName::Key(PublicKey(bytes)),
                false => NodeName::Address(Address(bytes[..16].try_into().unwrap())),
            };
            let (boot_epoch, sequence, created_unix_s, code, max_hops) = numbers;
            EnvelopeHeader {
                kind: EnvelopeKind(kind),
                priority: Priority::from_bits(priority),
                source: name(source),
                destination: name(destination),
                boot_epoch,
                sequence,
                created_unix_s,
                lifetime: Lifetime::from_code(code).unwrap(),
                max_hops,
            }
        },
    )
}

fn envelope() -> impl Strategy<Value = Envelope> {
    let key = option::of(bytes32().prop_map(PublicKey));
    (header(), blob(PAYLOAD_BYTES_MAX), proof(), key, any::<u8>()).prop_map(
        |(header, payload, proof, key, hop_count)| {
            let envelope = Envelope::assemble(header, &header.signed(&payload), proof, key).unwrap();
            envelope.with_hop_count(hop_count)
        },
    )
}

fn ext() -> impl Strategy<Value = FrameExt> {
    let context = option::of((bytes16(), any::<[u8; 9]>()).prop_map(|(a, b)| {
        let mut out = [0; 25];
        out[..16].copy_from_slice(&a);
        out[16..].copy_from_slice(&b);
        out
    }));
    (number32(), any::<bool>(), any::<bool>(), context).prop_map(
        |(age_s, retransmit, custody_declined, trace_context)| FrameExt {
            age_s,
            retransmit,
            custody_declined,
            trace_context,
        },
    )
}

fn announce() -> impl Strategy<Value = Announce> {
    let order = (bytes32(), number32(), number32(), any::<u16>());
    let rest = (1u32..=86_400, 1..=MAX_HOPS_MAX, option::of(any::<[u8; 8]>()), option::of(bytes32()));
    let outside = (any::<u8>(), signature(), option::of(key_record()));
    (order, rest, blob(256), outside).prop_map(|(order, rest, service_data, outside)| {
        let content = AnnounceContent {
            public_key: PublicKey(order.0),
            boot_epoch: order.1,
            sequence: order.2,
            capabilities: Capabilities(order.3),
            lifetime_s: rest.0,
            max_hops: rest.1,
            key_record_hash: rest.2,
            keypackage_hash: rest.3.map(Digest),
            service_data,
        };
        let signed = content.encode();
        let mut announce = Announce::new(content, signed.into(), outside.1, outside.2);
        announce.hop_count = outside.0;
        announce
    })
}

fn hello() -> impl Strategy<Value = Hello> {
    let versions = (any::<u8>(), any::<u8>());
    let fixed = (any::<[u8; 8]>(), option::of(bytes32()), any::<[u8; 8]>());
    let numbers = (number(), number32(), number(), [number32(), number32(), number32()]);
    (versions, fixed, numbers).prop_map(|((a, b), (network_tag, network_proof, nonce), numbers)| Hello {
        version_min: a.min(b),
        version_max: a.max(b),
        network_tag,
        network_proof,
        features: numbers.0,
        boot_epoch: numbers.1,
        nonce,
        clock_unix_s: numbers.2,
        initial_credit: numbers.3,
    })
}

fn frame() -> impl Strategy<Value = Frame> {
    let class = prop::sample::select(&TrafficClass::ALL[..]);
    let address = || bytes16().prop_map(Address);
    let order = option::of((number32(), number32()));
    let held = (number32(), number32(), option::of(0u8..128));
    prop_oneof![
        hello().prop_map(Frame::Hello),
        (any::<u8>(), text(128))
            .prop_map(|(reason, text)| Frame::Goodbye(Goodbye { reason: reason.into(), text })),
        number().prop_map(Frame::Ping),
        number().prop_map(Frame::Pong),
        (class, number32()).prop_map(|(class, bytes)| Frame::Credit(Credit { class, bytes })),
        address().prop_map(Frame::KeyNeeded),
        bytes32().prop_map(|key| Frame::KeyOffer(PublicKey(key))),
        (envelope(), ext()).prop_map(|(envelope, ext)| Frame::Envelope(envelope, ext)),
        announce().prop_map(Frame::Announce),
        (any::<[u8; 8]>(), address(), 1..=MAX_HOPS_MAX, any::<u8>(), order).prop_map(
            |(request_id, destination, max_hops, hop_count, newer_than)| Frame::PathRequest(PathRequest {
                request_id,
                destination,
                max_hops,
                hop_count,
                newer_than
            })
        ),
        (address(), packet_ids(256))
            .prop_map(|(domain, packet_ids)| Frame::CustodyAck(CustodyAck { domain, packet_ids })),
        (bytes16(), any::<u8>(), any::<u16>()).prop_map(|(id, reason, retry_after_s)| Frame::Refuse(
            Refuse { packet_id: PacketId(id), reason: reason.into(), retry_after_s }
        )),
        address().prop_map(Frame::KeyRequest),
        key_record().prop_map(Frame::KeyReply),
        announce().prop_map(Frame::PathReply),
        btree_set(address(), 1..20)
            .prop_map(|set| Frame::Withdraw(Withdraw { addresses: set.into_iter().collect() })),
        btree_map(address(), held, 0..20).prop_map(|held| {
            let entries = held.into_iter().map(|(origin, (boot_epoch, sequence, hop_count))| DigestEntry {
                origin,
                boot_epoch,
                sequence,
                hop_count,
            });
            let (after, through) = (Address([0; 16]), Address([0xff; 16]));
            let entries = entries.filter(|entry| entry.origin > after).collect();
            Frame::Digest(TableDigest { after, through, entries })
        }),
    ]
}

fn receipt() -> impl Strategy<Value = Receipt> {
    let chunk = (bytes16(), any::<u8>(), 0..=CHUNKS_MAX, vec(any::<u8>(), 0..137));
    let chunk = chunk.prop_map(|(tag, state, total, mut bitmap)| {
        bitmap.truncate(total.div_ceil(8) as usize);
        if bitmap.len() == total.div_ceil(8) as usize && total % 8 != 0 {
            *bitmap.last_mut().unwrap() &= (1 << (total % 8)) - 1;
        }
        ChunkReceipt { tag: TransferTag(tag), state: state.into(), total, bitmap }
    });
    (packet_ids(256), vec(chunk, 0..=8), packet_ids(256)).prop_map(|(packet_ids, chunks, unwanted)| Receipt {
        packet_ids,
        chunks,
        unwanted,
    })
}

fn content() -> impl Strategy<Value = Content> {
    (bytes16(), text(255), number(), blob(15_000), proptest::option::of(any::<[u8; 8]>())).prop_map(
        |(uid, name, sent_at_unix_ms, bytes, follows)| Content {
            uid: MessageUid(uid),
            name,
            sent_at_unix_ms,
            bytes,
            follows: follows.map(UidPrefix),
        },
    )
}

fn manifest() -> impl Strategy<Value = Manifest> {
    (bytes16(), text(255), number(), 0..=CONTENT_BYTES_MAX, bytes32(), bytes32()).prop_map(
        |(uid, name, sent_at_unix_ms, length, sha256, file_key)| Manifest {
            uid: MessageUid(uid),
            name,
            sent_at_unix_ms,
            length,
            sha256: Digest(sha256),
            file_key,
        },
    )
}

proptest! {
    #[test]
    fn frames_come_back_as_they_went(frame in frame()) {
        let bytes = frame.encode();
        let read = Frame::decode(&bytes);
        prop_assert!(read.is_ok(), "{:?}", read);
        let read = read.unwrap();
        prop_assert_eq!(read.encode(), bytes);
        prop_assert_eq!(format!("{read:?}"), format!("{frame:?}"));
    }

    #[test]
    fn a_forwarded_envelope_differs_in_its_hop_count_alone(envelope in envelope(), ext in ext()) {
        let received = Frame::decode(&envelope.to_frame(ext).to_bytes()).unwrap();
        let Frame::Envelope(received, _) = received else { panic!("not an envelope") };
        let next = received.hop_count().saturating_add(1);
        let forwarded = Frame::decode(&received.with_hop_count(next).to_frame(FrameExt::default()).to_bytes());
        let Ok(Frame::Envelope(forwarded, ext)) = forwarded else { panic!("not an envelope") };
        prop_assert!(ext.is_empty());
        prop_assert_eq!(forwarded.hop_count(), next);
        prop_assert_eq!(forwarded.signed(), envelope.signed());
        prop_assert_eq!(forwarded.proof(), envelope.proof());
        prop_assert_eq!(forwarded.source_key(), envelope.source_key());
    }

    #[test]
    fn an_attached_key_comes_off_again(envelope in envelope(), key in bytes32()) {
        let bare = envelope.without_source_key();
        let with = bare.with_source_key(PublicKey(key));
        if bare.source_key().is_none() {
            prop_assert_eq!(with.source_key(), Some(PublicKey(key)));
            prop_assert_eq!(with.encoded_len(), bare.encoded_len() + 34);
        }
        let again = with.without_source_key();
        prop_assert_eq!(again.to_frame(FrameExt::default()).to_bytes(), bare.to_frame(FrameExt::default()).to_bytes());
    }

    #[test]
    fn associated_data_is_the_header_as_spelled(header in header(), payload in blob(PAYLOAD_BYTES_MAX)) {
        let signed = header.signed(&payload);
        let proof = Proof::Signature(Signature([0; 64]));
        let envelope = Envelope::assemble(header, &signed, proof, None).unwrap();
        prop_assert_eq!(envelope.associated_data(), &header.prefix()[..]);
        prop_assert_eq!(envelope.payload(), payload);
        prop_assert_eq!(envelope.header(), &header);
    }

    #[test]
    fn receipts_come_back_as_they_went(receipt in receipt()) {
        prop_assert_eq!(Receipt::decode(&receipt.encode()), Ok(receipt));
    }

    #[test]
    fn contents_come_back_as_they_went(content in content()) {
        let bytes = Bytes::from(content.encode());
        match content.follows {
            None => prop_assert_eq!(Content::decode_broadcast(&bytes), Ok(content.clone())),
            Some(_) => prop_assert!(Content::decode_broadcast(&bytes).is_err()),
        }
        prop_assert_eq!(Sealed::decode(&bytes), Ok(Sealed::Content(content)));
    }

    #[test]
    fn manifests_come_back_as_they_went(manifest in manifest()) {
        let sealed = Sealed::Manifest(manifest);
        let bytes = Bytes::from(sealed.encode());
        prop_assert!(Content::decode_broadcast(&bytes).is_err());
        prop_assert_eq!(Sealed::decode(&bytes), Ok(sealed));
    }

    #[test]
    fn chunks_come_back_as_they_went(
        tag in bytes16(), total in 1..=CHUNKS_MAX, at in any::<u32>(), len in 16..=CHUNK_BYTES + 16,
    ) {
        let ciphertext = Bytes::from(vec![0x5a; len]);
        let chunk = Chunk { tag: TransferTag(tag), index: at % total, total, ciphertext };
        prop_assert!(chunk.encode().len() <= PAYLOAD_BYTES_MAX);
        prop_assert_eq!(Chunk::decode(&Bytes::from(chunk.encode())), Ok(chunk));
    }

    #[test]
    fn answers_come_back_as_they_went(
        id in bytes16(), reason in any::<u8>(), key_record in key_record(), nonce in number(),
        hops in any::<u8>(), reached in any::<bool>(), transport in text(16), snr in any::<Option<i16>>(),
    ) {
        let answer = CannotOpen { packet_id: PacketId(id), reason: reason.into(), key_record };
        let read = CannotOpen::decode(&Bytes::from(answer.encode())).unwrap();
        prop_assert_eq!(format!("{read:?}"), format!("{answer:?}"));
        prop_assert_eq!(Probe::decode(&Probe { nonce }.encode()), Ok(Probe { nonce }));
        prop_assert_eq!(Pong::decode(&Pong { nonce, hops }.encode()), Ok(Pong { nonce, hops }));
        let reply = TraceReply { nonce, hop: hops, reached, transport, snr_quarter_db: snr };
        prop_assert_eq!(TraceReply::decode(&reply.encode()), Ok(reply));
    }
}
