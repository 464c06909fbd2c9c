//! The generator of the golden vectors: fixed keys, fixed values, real signatures and a real seal.
//!
//! What it makes depends on nothing but this file, so another implementation that is given the
//! seeds in `tests/vectors/keys.json` makes the same bytes. Vectors are added, never edited: a
//! change here that moves a committed file is a change of the wire.

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use quicprochat_mesh::wire::{
    Address, Announce, AnnounceContent, Capabilities, Digest, Envelope, EnvelopeHeader, EnvelopeKind, Frame,
    FrameExt, Lifetime, MessageUid, NetworkId, NodeName, PacketId, Priority, Proof, PublicKey, Signature,
    TrafficClass, TransferTag,
    beacon::{Beacon, BeaconListener},
    content::{Chunk, Content, Manifest, Sealed, chunk_count},
    control::{Credit, CustodyAck, PathRequest, Refuse, RefuseReason},
    handshake::{CloseReason, Goodbye, Hello},
    ids::hex,
    key_record::{KeyRecord, ReceiverKey, SignedKeyRecord},
    limits::{
        CHUNK_BYTES, CHUNKS_MAX, CONTENT_BYTES_MAX, CUSTODY_IDS_MAX, DIGEST_ENTRIES_MAX, FILE_NAME_BYTES_MAX,
        GOODBYE_TEXT_BYTES_MAX, MAX_HOPS_MAX, MERKLE_LEVELS_MAX, PAYLOAD_BYTES_MAX, RECEIPT_BITMAPS_MAX,
        RECEIPT_IDS_MAX, SEAL_PLAINTEXT_BYTES_MAX, SERVICE_DATA_BYTES_MAX, WITHDRAW_ADDRESSES_MAX,
    },
    path::{Digest as TableDigest, DigestEntry, Withdraw},
    receipt::{CannotOpen, CannotOpenReason, ChunkReceipt, Receipt, TransferState},
    service::{Pong, Probe, TraceReply},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::seal::{self, SealInput};

/// How a vector's bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Frame,
    KeyRecord,
    Receipt,
    CannotOpen,
    Sealed,
    Broadcast,
    Chunk,
    Probe,
    Pong,
    TraceReply,
    Beacon,
    /// `[rk_id, E, counter, ciphertext]`, which `crypto` reads; here only its CBOR is checked.
    Seal,
}

/// One vector: `tests/vectors/<message>/<case>.hex`, `.diag` and, where there is more to say,
/// `.json`.
pub(crate) struct Vector {
    pub(crate) message: &'static str,
    pub(crate) case: &'static str,
    pub(crate) kind: Kind,
    pub(crate) bytes: Vec<u8>,
    pub(crate) json: Option<Value>,
}

pub(crate) const NETWORK_NAME: &str = "public";
pub(crate) const ALICE_SEED: [u8; 32] = [0x01; 32];
pub(crate) const BOB_SEED: [u8; 32] = [0x02; 32];
pub(crate) const BOB_RECEIVER_SECRET: [u8; 32] = [0x42; 32];
const EPHEMERAL_SECRET: [u8; 32] = [0x24; 32];
const CREATED_UNIX_S: u32 = 1_800_000_000;
const SENT_AT_UNIX_MS: u64 = 1_800_000_000_123;
const UID: MessageUid = MessageUid([0xd1; 16]);
const CONTEXT: &str = "quicprochat/mesh/1/";

pub(crate) fn alice() -> SigningKey {
    SigningKey::from_bytes(&ALICE_SEED)
}

pub(crate) fn bob() -> SigningKey {
    SigningKey::from_bytes(&BOB_SEED)
}

pub(crate) fn public(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

fn prefix<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes[..N].try_into().unwrap()
}

pub(crate) fn address(key: &PublicKey) -> Address {
    Address(prefix(&sha256(&[&key.0])))
}

pub(crate) fn network() -> NetworkId {
    NetworkId(prefix(&sha256(&[NETWORK_NAME.as_bytes()])))
}

/// The signature input of docs/protocol.md, "Signatures".
pub(crate) fn signature_input(kind: &str, signed: &[u8]) -> Vec<u8> {
    [CONTEXT.as_bytes(), kind.as_bytes(), &[0, 16], &network().0, signed].concat()
}

fn sign(key: &SigningKey, kind: &str, signed: &[u8]) -> Signature {
    Signature(key.sign(&signature_input(kind, signed)).to_bytes())
}

/// The Merkle root over `leaves` and the path of leaf `index` (docs/protocol.md, "Merkle proofs").
pub(crate) fn merkle(mut leaves: Vec<[u8; 32]>, mut index: usize) -> ([u8; 32], Vec<[u8; 32]>) {
    leaves.resize(leaves.len().next_power_of_two(), [0; 32]);
    let mut path = Vec::new();
    while leaves.len() > 1 {
        path.push(leaves[index ^ 1]);
        leaves = leaves.chunks(2).map(|pair| sha256(&[&[1], &pair[0], &pair[1]])).collect();
        index >>= 1;
    }
    (leaves[0], path)
}

fn filler(len: usize) -> Vec<u8> {
    (0u32..).map(|i| (i.wrapping_mul(31).wrapping_add(7) % 251) as u8).take(len).collect()
}

/// Every vector there is.
pub(crate) fn all() -> Vec<Vector> {
    [links(), controls(), paths(), keys(), announces(), envelopes(), payloads()]
        .into_iter()
        .flatten()
        .collect()
}

/// The keys every vector is made with.
pub(crate) fn keys_json() -> Value {
    let person = |seed: &[u8; 32], key: &SigningKey| {
        json!({
            "ed25519_seed": hex(seed),
            "public_key": public(key).to_string(),
            "address": address(&public(key)).to_string(),
        })
    };
    json!({
        "network_name": NETWORK_NAME,
        "network_id": network().to_string(),
        "alice": person(&ALICE_SEED, &alice()),
        "bob": person(&BOB_SEED, &bob()),
        "bob_receiver_secret": hex(&BOB_RECEIVER_SECRET),
        "ephemeral_secret": hex(&EPHEMERAL_SECRET),
    })
}

fn frame(message: &'static str, case: &'static str, frame: Frame) -> Vector {
    Vector { message, case, kind: Kind::Frame, bytes: frame.encode().to_vec(), json: None }
}

fn payload(message: &'static str, case: &'static str, kind: Kind, bytes: Vec<u8>) -> Vector {
    Vector { message, case, kind, bytes, json: None }
}

fn with_json(mut vector: Vector, json: Value) -> Vector {
    vector.json = Some(json);
    vector
}

fn links() -> Vec<Vector> {
    use hmac::{Hmac, KeyInit, Mac};

    let secret = b"a secret of the network".as_slice();
    let binding = [0xb1; 32];
    let role = 0u8;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(&binding);
    mac.update(&[role]);
    let proof: [u8; 32] = mac.finalize().into_bytes().into();

    let hello = |min, max, proof, features, boot_epoch, nonce, clock_unix_s, credit| {
        Frame::Hello(Hello {
            version_min: min,
            version_max: max,
            network_tag: prefix(&network().0),
            network_proof: proof,
            features,
            boot_epoch,
            nonce,
            clock_unix_s,
            initial_credit: credit,
        })
    };
    let all_ones =
        hello(u8::MAX, u8::MAX, Some([0xff; 32]), u64::MAX, u32::MAX, [0xff; 8], u64::MAX, [u32::MAX; 3]);
    let goodbye = |reason, text: String| Frame::Goodbye(Goodbye { reason, text });
    vec![
        frame("hello", "smallest", hello(1, 1, None, 0, 0, [0; 8], 0, [0; 3])),
        with_json(
            frame(
                "hello",
                "richest",
                hello(1, 2, Some(proof), 5, 7, *b"nonce-01", 1_800_000_000, [65_536, 262_144, 1_048_576]),
            ),
            json!({
                "network_secret": hex(secret),
                "channel_binding": hex(&binding),
                "role": role,
                "network_proof": hex(&proof),
            }),
        ),
        frame("hello", "maximal", all_ones),
        frame("goodbye", "smallest", goodbye(CloseReason::Shutdown, String::new())),
        frame("goodbye", "richest", goodbye(CloseReason::Duplicate, "ein jüngerer Link bleibt".into())),
        frame("goodbye", "maximal", goodbye(CloseReason::Other(255), "é".repeat(GOODBYE_TEXT_BYTES_MAX / 2))),
        frame("ping", "smallest", Frame::Ping(0)),
        frame("ping", "richest", Frame::Ping(0x1234_5678)),
        frame("ping", "maximal", Frame::Ping(u64::MAX)),
        frame("pong", "smallest", Frame::Pong(0)),
        frame("pong", "richest", Frame::Pong(0x1234_5678)),
        frame("pong", "maximal", Frame::Pong(u64::MAX)),
    ]
}

fn controls() -> Vec<Vector> {
    let bob_address = address(&public(&bob()));
    let credit = |class, bytes| Frame::Credit(Credit { class, bytes });
    let request = |request_id, destination, max_hops, hop_count| {
        Frame::PathRequest(PathRequest { request_id, destination, max_hops, hop_count, newer_than: None })
    };
    let ids = |count: usize| -> Vec<PacketId> {
        (0..count).map(|i| PacketId(prefix(&sha256(&[b"packet", &[i as u8]])))).collect()
    };
    let ack = |domain, packet_ids| Frame::CustodyAck(CustodyAck { domain, packet_ids });
    let refuse =
        |packet_id, reason, retry_after_s| Frame::Refuse(Refuse { packet_id, reason, retry_after_s });
    vec![
        frame("credit", "smallest", credit(TrafficClass::Control, 0)),
        frame("credit", "richest", credit(TrafficClass::Interactive, 65_536)),
        frame("credit", "maximal", credit(TrafficClass::Bulk, u32::MAX)),
        frame("path_request", "smallest", request([0; 8], Address([0; 16]), 1, 0)),
        frame("path_request", "richest", request(*b"request1", bob_address, 8, 3)),
        frame("path_request", "maximal", request([0xff; 8], Address([0xff; 16]), MAX_HOPS_MAX, 255)),
        frame("custody_ack", "smallest", ack(Address([0; 16]), vec![])),
        frame("custody_ack", "richest", ack(bob_address, ids(3))),
        frame("custody_ack", "maximal", ack(Address([0xff; 16]), ids(CUSTODY_IDS_MAX))),
        frame("refuse", "smallest", refuse(PacketId([0; 16]), RefuseReason::NoRoute, 0)),
        frame("refuse", "richest", refuse(ids(1)[0], RefuseReason::StoreFull, 600)),
        frame("refuse", "maximal", refuse(PacketId([0xff; 16]), RefuseReason::Other(255), u16::MAX)),
    ]
}

fn paths() -> Vec<Vector> {
    let bob_address = address(&public(&bob()));
    let newer = |request_id, destination, max_hops, hop_count, order| {
        let newer_than = Some(order);
        Frame::PathRequest(PathRequest { request_id, destination, max_hops, hop_count, newer_than })
    };
    let addresses = |count: usize| -> Vec<Address> {
        let mut out: Vec<_> =
            (0..count as u16).map(|i| Address(prefix(&sha256(&[b"address", &i.to_be_bytes()])))).collect();
        out.sort();
        out
    };
    let withdraw = |addresses| Frame::Withdraw(Withdraw { addresses });
    let digest = |after, through, entries| Frame::Digest(TableDigest { after, through, entries });
    let (first, last) = (Address([0; 16]), Address([0xff; 16]));
    let entry =
        |origin, boot_epoch, sequence, hop_count| DigestEntry { origin, boot_epoch, sequence, hop_count };
    let three = addresses(3);
    let richest = vec![
        entry(three[0], 7, 4_000, Some(0)),
        entry(three[1], 1, 0x0102_0304, Some(12)),
        entry(three[2], 3, 1, None),
    ];
    let maximal = addresses(DIGEST_ENTRIES_MAX);
    let maximal = maximal.into_iter().map(|origin| entry(origin, u32::MAX, u32::MAX, Some(127))).collect();
    vec![
        frame("path_request", "newer_richest", newer(*b"request2", bob_address, 128, 3, (7, 4_000))),
        frame(
            "path_request",
            "newer_maximal",
            newer([0xff; 8], last, MAX_HOPS_MAX, 255, (u32::MAX, u32::MAX)),
        ),
        frame("withdraw", "smallest", withdraw(vec![first])),
        frame("withdraw", "richest", withdraw(addresses(3))),
        frame("withdraw", "maximal", withdraw(addresses(WITHDRAW_ADDRESSES_MAX))),
        frame("digest", "smallest", digest(first, last, vec![])),
        frame("digest", "richest", digest(first, three[2], richest)),
        frame("digest", "maximal", digest(first, last, maximal)),
    ]
}

/// Bob's key record with one receiver key, which the sealed vectors are sealed to.
fn bob_record() -> KeyRecord {
    KeyRecord {
        public_key: public(&bob()),
        order: 1,
        not_after: CREATED_UNIX_S + 21 * 86_400,
        keys: vec![ReceiverKey {
            rk_id: 0x00c0_ffee,
            suite: 1,
            x25519: seal::public_of(BOB_RECEIVER_SECRET),
        }],
    }
}

fn largest_record() -> KeyRecord {
    let key = ReceiverKey { rk_id: u32::MAX, suite: u8::MAX, x25519: [0xff; 32] };
    KeyRecord {
        public_key: public(&bob()),
        order: u32::MAX,
        not_after: u32::MAX,
        keys: vec![key, ReceiverKey { rk_id: u32::MAX - 1, ..key }],
    }
}

fn signed_record(record: &KeyRecord) -> SignedKeyRecord {
    let signed = record.encode_signed();
    let signature = sign(&bob(), "key-record", &signed);
    SignedKeyRecord { signed: signed.into(), signature }
}

fn record_json(record: &SignedKeyRecord) -> Value {
    json!({
        "signer": public(&bob()).to_string(),
        "signature_input": hex(&signature_input("key-record", &record.signed)),
        "signature": record.signature.to_string(),
        "sha256_of_signed": hex(&sha256(&[&record.signed])),
    })
}

fn keys() -> Vec<Vector> {
    let smallest = KeyRecord {
        public_key: public(&bob()),
        order: 0,
        not_after: 0,
        keys: vec![ReceiverKey { rk_id: 0, suite: 1, x25519: seal::public_of([0x43; 32]) }],
    };
    let mut richest = bob_record();
    richest.order = 2;
    richest.keys.insert(0, ReceiverKey { rk_id: 0x0bad_cafe, suite: 1, x25519: seal::public_of([0x43; 32]) });
    let mut out = Vec::new();
    for (case, record) in [("smallest", smallest), ("richest", richest), ("maximal", largest_record())] {
        let record = signed_record(&record);
        let json = record_json(&record);
        out.push(with_json(payload("key_record", case, Kind::KeyRecord, record.encode()), json));
        out.push(frame("key_reply", case, Frame::KeyReply(record)));
    }
    let bob_address = address(&public(&bob()));
    let corners = [
        ("smallest", Address([0; 16]), PublicKey([0; 32])),
        ("richest", bob_address, public(&bob())),
        ("maximal", Address([0xff; 16]), PublicKey([0xff; 32])),
    ];
    for (case, address, key) in corners {
        out.push(frame("key_needed", case, Frame::KeyNeeded(address)));
        out.push(frame("key_offer", case, Frame::KeyOffer(key)));
        out.push(frame("key_request", case, Frame::KeyRequest(address)));
    }
    out
}

fn announce(
    case: &'static str,
    hop_count: u8,
    content: AnnounceContent,
    record: Option<KeyRecord>,
) -> [Vector; 2] {
    let signed = content.encode();
    let signature = sign(&bob(), "announce", &signed);
    let json = json!({
        "signer": content.public_key.to_string(),
        "signature_input": hex(&signature_input("announce", &signed)),
        "signature": signature.to_string(),
    });
    let mut announce = Announce::new(content, signed.into(), signature, record.as_ref().map(signed_record));
    announce.hop_count = hop_count;
    [
        with_json(frame("announce", case, Frame::Announce(announce.clone())), json.clone()),
        with_json(frame("path_reply", case, Frame::PathReply(announce)), json),
    ]
}

fn announces() -> Vec<Vector> {
    let smallest = AnnounceContent {
        public_key: public(&bob()),
        boot_epoch: 0,
        sequence: 0,
        capabilities: Capabilities(0),
        lifetime_s: 1,
        max_hops: 1,
        key_record_hash: None,
        keypackage_hash: None,
        service_data: Bytes::new(),
    };
    let richest = AnnounceContent {
        boot_epoch: 3,
        sequence: 1_041,
        capabilities: Capabilities(Capabilities::RELAY | Capabilities::STORE),
        lifetime_s: 1_800,
        max_hops: 8,
        key_record_hash: Some(prefix(&sha256(&[&bob_record().encode_signed()]))),
        keypackage_hash: Some(Digest(sha256(&[b"a key package"]))),
        service_data: Bytes::from_static(b"service"),
        ..smallest.clone()
    };
    let maximal = AnnounceContent {
        boot_epoch: u32::MAX,
        sequence: u32::MAX,
        capabilities: Capabilities(u16::MAX),
        lifetime_s: 86_400,
        max_hops: MAX_HOPS_MAX,
        key_record_hash: Some([0xff; 8]),
        keypackage_hash: Some(Digest([0xff; 32])),
        service_data: filler(SERVICE_DATA_BYTES_MAX).into(),
        ..smallest.clone()
    };
    vec![
        announce("smallest", 0, smallest, None),
        announce("richest", 2, richest, Some(bob_record())),
        announce("maximal", 255, maximal, Some(largest_record())),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn v2_header(kind: EnvelopeKind) -> EnvelopeHeader {
    EnvelopeHeader {
        kind,
        priority: Priority::Normal,
        source: NodeName::Address(address(&public(&alice()))),
        destination: NodeName::Address(address(&public(&bob()))),
        boot_epoch: 3,
        sequence: 77,
        created_unix_s: CREATED_UNIX_S,
        lifetime: Lifetime::ONE_DAY,
        max_hops: 16,
    }
}

fn v1_header(kind: EnvelopeKind) -> EnvelopeHeader {
    EnvelopeHeader {
        source: NodeName::Key(public(&alice())),
        destination: NodeName::Key(public(&bob())),
        ..v2_header(kind)
    }
}

/// The smallest values of every field that is a number.
pub(crate) fn smallest(mut header: EnvelopeHeader) -> EnvelopeHeader {
    header.kind = EnvelopeKind(0);
    header.priority = Priority::Low;
    (header.boot_epoch, header.sequence, header.created_unix_s) = (0, 0, 0);
    header.lifetime = Lifetime::from_code(0).unwrap();
    header.max_hops = 1;
    header
}

/// The largest values of every field that is a number.
pub(crate) fn largest(mut header: EnvelopeHeader) -> EnvelopeHeader {
    header.kind = EnvelopeKind(EnvelopeKind::MAX);
    header.priority = Priority::Critical;
    (header.boot_epoch, header.sequence, header.created_unix_s) = (u16::MAX, u32::MAX, u32::MAX);
    header.lifetime = Lifetime::MAX;
    header.max_hops = MAX_HOPS_MAX;
    header
}

/// The largest header of either format.
pub(crate) fn largest_headers() -> [EnvelopeHeader; 2] {
    [largest(v2_header(EnvelopeKind::MESSAGE)), largest(v1_header(EnvelopeKind::MESSAGE))]
}

fn envelope_type(header: &EnvelopeHeader) -> (&'static str, &'static str) {
    match header.source {
        NodeName::Address(_) => ("envelope_v2", "envelope-v2"),
        NodeName::Key(_) => ("envelope_v1", "envelope-v1"),
    }
}

/// How a vector's envelope is proven.
enum ProofKind {
    Plain,
    /// One leaf of so many.
    Merkle {
        index: usize,
        leaves: usize,
    },
}

struct EnvelopeCase {
    case: &'static str,
    header: EnvelopeHeader,
    payload: Vec<u8>,
    proof: ProofKind,
    source_key: bool,
    hop_count: u8,
    ext: FrameExt,
}

fn envelope(case: EnvelopeCase) -> Vector {
    let (message, context) = envelope_type(&case.header);
    let signed = case.header.signed(&case.payload);
    let input = signature_input(context, &signed);
    let mut json = json!({
        "signer": public(&alice()).to_string(),
        "signature_input_sha256": hex(&sha256(&[&input])),
        "packet_id": hex(&sha256(&[&input])[..16]),
    });
    if input.len() <= 1024 {
        json["signature_input"] = hex(&input).into();
    }
    let proof = match case.proof {
        ProofKind::Plain => Proof::Signature(sign(&alice(), context, &signed)),
        ProofKind::Merkle { index, leaves } => {
            let own = sha256(&[&[0], &sha256(&[&input])]);
            let mut all: Vec<_> = (0..leaves).map(|i| sha256(&[b"another leaf", &[i as u8]])).collect();
            all[index] = own;
            let (root, path) = merkle(all, index);
            let root_signature = sign(&alice(), "merkle-root", &root);
            json["leaf"] = hex(&own).into();
            json["root"] = hex(&root).into();
            json["root_signature_input"] = hex(&signature_input("merkle-root", &root)).into();
            Proof::Merkle {
                root_signature,
                index: index as u32,
                path: path.into_iter().map(Digest).collect(),
            }
        }
    };
    let source_key = case.source_key.then(|| public(&alice()));
    let envelope = Envelope::assemble(case.header, &signed, proof, source_key).unwrap();
    let envelope = envelope.with_hop_count(case.hop_count);
    with_json(frame(message, case.case, Frame::Envelope(envelope, case.ext)), json)
}

fn seal_message(header: &EnvelopeHeader, plaintext: &[u8], padded: usize) -> seal::SealedOutput {
    seal::seal(&SealInput {
        network: network(),
        source: public(&alice()),
        destination: public(&bob()),
        record_signed: &bob_record().encode_signed(),
        receiver_public: seal::public_of(BOB_RECEIVER_SECRET),
        rk_id: 0x00c0_ffee,
        suite: 1,
        ephemeral_secret: EPHEMERAL_SECRET,
        counter: 4,
        associated_data: &header.prefix(),
        plaintext,
        padded,
    })
}

fn hello_world() -> Content {
    Content {
        uid: UID,
        name: String::new(),
        sent_at_unix_ms: SENT_AT_UNIX_MS,
        bytes: Bytes::from_static(b"Guten Tag"),
        follows: None,
    }
}

fn envelopes() -> Vec<Vector> {
    let ext = FrameExt {
        age_s: 90,
        retransmit: true,
        custody_declined: true,
        trace_context: Some(std::array::from_fn(|i| i as u8)),
    };
    let largest_ext = FrameExt { age_s: u32::MAX, trace_context: Some([0xff; 25]), ..ext };
    let full_tree = ProofKind::Merkle { index: (1 << MERKLE_LEVELS_MAX) - 1, leaves: 1 << MERKLE_LEVELS_MAX };
    let message = v2_header(EnvelopeKind::MESSAGE);
    let sealed = seal_message(&message, &Sealed::Content(hello_world()).encode(), 64).bytes;
    let broadcast = EnvelopeHeader {
        destination: NodeName::Address(Address::BROADCAST),
        lifetime: Lifetime::TEN_MINUTES,
        ..v2_header(EnvelopeKind::BROADCAST)
    };
    let v1_message = v1_header(EnvelopeKind::MESSAGE);
    let v1_sealed = seal_message(&v1_message, &Sealed::Content(hello_world()).encode(), 64).bytes;
    let plain = |case, header, payload| EnvelopeCase {
        case,
        header,
        payload,
        proof: ProofKind::Plain,
        source_key: false,
        hop_count: 0,
        ext: FrameExt::default(),
    };
    [
        plain("smallest", smallest(message), vec![]),
        EnvelopeCase { source_key: true, hop_count: 2, ..plain("signed_with_key", message, sealed.clone()) },
        EnvelopeCase {
            proof: ProofKind::Merkle { index: 2, leaves: 5 },
            source_key: true,
            hop_count: 3,
            ext,
            ..plain("richest", message, sealed)
        },
        EnvelopeCase {
            proof: full_tree,
            source_key: true,
            hop_count: 255,
            ext: largest_ext,
            ..plain("maximal", largest(message), filler(PAYLOAD_BYTES_MAX))
        },
        plain("broadcast", broadcast, hello_world().encode()),
        plain("ping", v2_header(EnvelopeKind::PING), Probe { nonce: 1 }.encode()),
        plain("unknown_kind", v2_header(EnvelopeKind(42)), b"opaque".to_vec()),
        plain("smallest", smallest(v1_message), vec![]),
        EnvelopeCase {
            proof: ProofKind::Merkle { index: 0, leaves: 2 },
            hop_count: 1,
            ext: FrameExt { age_s: 90, ..FrameExt::default() },
            ..plain("richest", v1_message, v1_sealed)
        },
        EnvelopeCase {
            proof: ProofKind::Merkle { index: 255, leaves: 256 },
            hop_count: 255,
            ext: largest_ext,
            ..plain("maximal", largest(v1_message), filler(PAYLOAD_BYTES_MAX))
        },
    ]
    .into_iter()
    .map(envelope)
    .collect()
}

fn payloads() -> Vec<Vector> {
    [receipts(), contents(), services(), seals(), beacons()].into_iter().flatten().collect()
}

fn receipts() -> Vec<Vector> {
    let ids = |count: usize| -> Vec<PacketId> {
        (0..count).map(|i| PacketId(prefix(&sha256(&[b"packet", &[i as u8]])))).collect()
    };
    let chunk =
        |tag, state, total, bitmap| ChunkReceipt { tag: TransferTag([tag; 16]), state, total, bitmap };
    let receipt = |packet_ids, chunks, unwanted| Receipt { packet_ids, chunks, unwanted }.encode();
    let richest = vec![
        chunk(0xa1, TransferState::Partial, 11, vec![0b1110_1111, 0b0000_0101]),
        chunk(0xa2, TransferState::Complete, 3, vec![]),
    ];
    let full: Vec<u8> = vec![0xff; (CHUNKS_MAX / 8) as usize];
    let largest = vec![chunk(0xff, TransferState::Other(255), CHUNKS_MAX, full); RECEIPT_BITMAPS_MAX];
    let cannot_open = |packet_id, reason, record: &KeyRecord| {
        CannotOpen { packet_id, reason, key_record: signed_record(record) }.encode()
    };
    let smallest_record = KeyRecord { order: 0, not_after: 0, ..bob_record() };
    vec![
        payload("receipt", "smallest", Kind::Receipt, receipt(vec![], vec![], vec![])),
        payload("receipt", "richest", Kind::Receipt, receipt(ids(2), richest, ids(1))),
        payload(
            "receipt",
            "maximal",
            Kind::Receipt,
            receipt(ids(RECEIPT_IDS_MAX), largest, ids(RECEIPT_IDS_MAX)),
        ),
        payload(
            "cannot_open",
            "smallest",
            Kind::CannotOpen,
            cannot_open(PacketId([0; 16]), CannotOpenReason::UnknownKey, &smallest_record),
        ),
        payload(
            "cannot_open",
            "richest",
            Kind::CannotOpen,
            cannot_open(ids(1)[0], CannotOpenReason::UnknownKey, &bob_record()),
        ),
        payload(
            "cannot_open",
            "maximal",
            Kind::CannotOpen,
            cannot_open(PacketId([0xff; 16]), CannotOpenReason::Other(255), &largest_record()),
        ),
    ]
}

fn contents() -> Vec<Vector> {
    let content = |uid, name: &str, sent_at_unix_ms, bytes: Vec<u8>| Content {
        uid: MessageUid(uid),
        name: name.into(),
        sent_at_unix_ms,
        bytes: bytes.into(),
        follows: None,
    };
    let name = "ä".repeat(FILE_NAME_BYTES_MAX / 2) + "a";
    // Head bytes of a content whose numbers are largest: array, uid, type, name, time, byte string.
    let heads = 1 + 17 + 1 + 2 + FILE_NAME_BYTES_MAX + 9 + 3;
    let manifest = |uid, name: &str, sent_at_unix_ms, length, sha256, file_key| {
        Sealed::Manifest(Manifest {
            uid: MessageUid(uid),
            name: name.into(),
            sent_at_unix_ms,
            length,
            sha256: Digest(sha256),
            file_key,
        })
        .encode()
    };
    let chunk = |tag, index, total, ciphertext: Vec<u8>| {
        Chunk { tag: TransferTag(tag), index, total, ciphertext: ciphertext.into() }.encode()
    };
    let file = seal::file_chunk([0xf1; 32], UID, 1, 2, b"the second chunk");
    let richest = content(UID.0, "brief.txt", SENT_AT_UNIX_MS, b"Guten Tag".to_vec());
    let following = Content { follows: Some(MessageUid([0x5e; 16]).prefix()), ..richest.clone() };
    let broadcast_filler = filler(PAYLOAD_BYTES_MAX - heads);
    vec![
        payload("content", "smallest", Kind::Sealed, content([0; 16], "", 0, vec![]).encode()),
        payload("content", "richest", Kind::Sealed, richest.encode()),
        payload(
            "content",
            "maximal",
            Kind::Sealed,
            content([0xff; 16], &name, u64::MAX, filler(SEAL_PLAINTEXT_BYTES_MAX - heads)).encode(),
        ),
        payload("content", "follows", Kind::Sealed, following.encode()),
        payload("manifest", "smallest", Kind::Sealed, manifest([0; 16], "", 0, 0, [0; 32], [0; 32])),
        payload(
            "manifest",
            "richest",
            Kind::Sealed,
            manifest(UID.0, "Cargo.lock", SENT_AT_UNIX_MS, 16_000, sha256(&[b"a file"]), [0xf1; 32]),
        ),
        payload(
            "manifest",
            "maximal",
            Kind::Sealed,
            manifest([0xff; 16], &name, u64::MAX, CONTENT_BYTES_MAX, [0xff; 32], [0xff; 32]),
        ),
        payload("chunk", "smallest", Kind::Chunk, chunk([0; 16], 0, 1, vec![0; 16])),
        with_json(
            payload("chunk", "richest", Kind::Chunk, chunk(file.transfer_tag, 1, 2, file.ciphertext)),
            json!({
                "file_key": hex(&[0xf1; 32]),
                "uid": UID.to_string(),
                "transfer_tag": hex(&file.transfer_tag),
                "nonce": hex(&file.nonce),
                "associated_data": hex(&file.associated_data),
                "plaintext": hex(b"the second chunk"),
            }),
        ),
        payload(
            "chunk",
            "maximal",
            Kind::Chunk,
            chunk([0xff; 16], CHUNKS_MAX - 1, chunk_count(CONTENT_BYTES_MAX), filler(CHUNK_BYTES + 16)),
        ),
        payload("broadcast", "smallest", Kind::Broadcast, content([0; 16], "", 0, vec![]).encode()),
        payload("broadcast", "richest", Kind::Broadcast, richest.encode()),
        payload(
            "broadcast",
            "maximal",
            Kind::Broadcast,
            content([0xff; 16], &name, u64::MAX, broadcast_filler).encode(),
        ),
    ]
}

fn services() -> Vec<Vector> {
    let pong = |nonce, hops| Pong { nonce, hops }.encode();
    let reply = |nonce, hop, reached, transport: &str, snr_quarter_db| {
        TraceReply { nonce, hop, reached, transport: transport.into(), snr_quarter_db }.encode()
    };
    vec![
        payload("probe", "smallest", Kind::Probe, Probe { nonce: 0 }.encode()),
        payload("probe", "richest", Kind::Probe, Probe { nonce: 0x1234_5678 }.encode()),
        payload("probe", "maximal", Kind::Probe, Probe { nonce: u64::MAX }.encode()),
        payload("pong_payload", "smallest", Kind::Pong, pong(0, 0)),
        payload("pong_payload", "richest", Kind::Pong, pong(0x1234_5678, 4)),
        payload("pong_payload", "maximal", Kind::Pong, pong(u64::MAX, 255)),
        payload("trace_reply", "smallest", Kind::TraceReply, reply(0, 0, false, "", None)),
        payload("trace_reply", "richest", Kind::TraceReply, reply(7, 3, true, "lora-sim", Some(-31))),
        payload(
            "trace_reply",
            "maximal",
            Kind::TraceReply,
            reply(u64::MAX, 255, true, "0123456789abcdef", Some(i16::MIN)),
        ),
    ]
}

/// The proof of a beacon of a network without a secret (docs/protocol.md, "Beacons").
fn beacon(instance: [u8; 8], ask: bool, listeners: &[(u8, u16)], nonce: [u8; 8]) -> Vec<u8> {
    let listeners = listeners.iter().map(|(medium, port)| BeaconListener { medium: *medium, port: *port });
    let mut beacon = Beacon { instance, ask, listeners: listeners.collect(), nonce, proof: [0; 8] };
    let mut mac = Hmac::<Sha256>::new_from_slice(&network().0).unwrap();
    mac.update(&signature_input("beacon", &beacon.proven()));
    beacon.proof = prefix(&mac.finalize().into_bytes());
    beacon.encode()
}

fn beacons() -> Vec<Vector> {
    let most = [(0xfc, u16::MAX), (0xfd, u16::MAX), (0xfe, u16::MAX), (0xff, u16::MAX)];
    let both = [(BeaconListener::QUIC, 7410), (BeaconListener::TCP, 7410)];
    vec![
        payload("beacon", "smallest", Kind::Beacon, beacon([0; 8], false, &[(0, 1)], [0; 8])),
        payload("beacon", "richest", Kind::Beacon, beacon([0xb1; 8], true, &both, [0xb2; 8])),
        payload("beacon", "maximal", Kind::Beacon, beacon([0xff; 8], true, &most, [0xff; 8])),
    ]
}

fn seals() -> Vec<Vector> {
    let header = v2_header(EnvelopeKind::MESSAGE);
    let plaintext = Sealed::Content(hello_world()).encode();
    let cases = [
        ("smallest", vec![], 1),
        ("richest", plaintext, 64),
        ("maximal", filler(SEAL_PLAINTEXT_BYTES_MAX - 1), SEAL_PLAINTEXT_BYTES_MAX),
    ];
    cases
        .into_iter()
        .map(|(case, plaintext, padded)| {
            let sealed = seal_message(&header, &plaintext, padded);
            let mut json = json!({
                "key_record_signed": hex(&bob_record().encode_signed()),
                "associated_data": hex(&header.prefix()),
                "shared_secret": hex(&sealed.shared_secret),
                "salt": hex(&sealed.salt),
                "key": hex(&sealed.key),
                "nonce": hex(&sealed.nonce),
                "padded_bytes": padded,
            });
            if plaintext.len() <= 1024 {
                json["plaintext"] = hex(&plaintext).into();
            }
            with_json(payload("seal", case, Kind::Seal, sealed.bytes), json)
        })
        .collect()
}
