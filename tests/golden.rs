//! Golden vectors: the committed bytes of every message are what the library reads and writes, and
//! nothing else is read in their place.
//!
//! `QPC_BLESS=1 cargo test --test golden` writes vectors that are missing. It never changes one
//! that is there: to do that on purpose, delete the file first.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "golden/crypto.rs"]
mod crypto;
#[path = "golden/item.rs"]
mod item;
#[path = "golden/seal.rs"]
mod seal;
#[path = "golden/twins.rs"]
mod twins;
#[path = "golden/vectors.rs"]
mod vectors;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use ed25519_dalek::{Signature as DalekSignature, VerifyingKey};
use quicprochat_mesh::wire::{
    DecodeError, Envelope, Frame, FrameExt, FrameType, Lifetime, Proof, Signature,
    beacon::Beacon,
    cbor,
    content::{Chunk, Content, Sealed},
    explain::explain,
    ids::hex,
    key_record::{KeyRecord, SignedKeyRecord},
    limits::{FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX},
    receipt::{CannotOpen, Receipt},
    service::{Pong, Probe, TraceReply},
};
use vectors::{Kind, Vector};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// Reads a message and writes it again.
fn recode(kind: Kind, bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let bytes = Bytes::copy_from_slice(bytes);
    Ok(match kind {
        Kind::Frame => Frame::decode(&bytes)?.encode().to_vec(),
        Kind::KeyRecord => SignedKeyRecord::decode(&bytes)?.encode(),
        Kind::Receipt => Receipt::decode(&bytes)?.encode(),
        Kind::CannotOpen => CannotOpen::decode(&bytes)?.encode(),
        Kind::Sealed => Sealed::decode(&bytes)?.encode(),
        Kind::Broadcast => Content::decode_broadcast(&bytes)?.encode(),
        Kind::Chunk => Chunk::decode(&bytes)?.encode(),
        Kind::Probe => Probe::decode(&bytes)?.encode(),
        Kind::Pong => Pong::decode(&bytes)?.encode(),
        Kind::TraceReply => TraceReply::decode(&bytes)?.encode(),
        Kind::Beacon => Beacon::decode(&bytes)?.encode(),
        Kind::Seal => cbor::check(&bytes, "seal").map(|()| bytes.to_vec())?,
    })
}

fn name(vector: &Vector) -> String {
    format!("{}/{}", vector.message, vector.case)
}

/// Hex in lines of 32 bytes, so that a change shows where it is.
fn hex_lines(bytes: &[u8]) -> String {
    bytes.chunks(32).map(|line| hex(line) + "\n").collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

/// Every file of the vectors with what belongs in it.
fn files() -> Vec<(PathBuf, String)> {
    let mut out = vec![(directory().join("keys.json"), pretty(&vectors::keys_json()))];
    for vector in vectors::all() {
        let stem = directory().join(vector.message).join(vector.case);
        out.push((stem.with_extension("hex"), hex_lines(&vector.bytes)));
        out.push((stem.with_extension("diag"), item::diag(&vector.bytes)));
        if let Some(json) = &vector.json {
            out.push((stem.with_extension("json"), pretty(json)));
        }
    }
    out
}

#[test]
fn committed_vectors_are_what_the_generator_makes() {
    let bless = std::env::var_os("QPC_BLESS").is_some_and(|value| value == "1");
    for (path, wanted) in files() {
        if bless && !path.exists() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &wanted).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_else(|e| {
            panic!("{}: {e}; QPC_BLESS=1 writes vectors that are missing", path.display())
        });
        assert_eq!(committed, wanted, "{} changed: is the change of the wire meant?", path.display());
    }
}

#[test]
fn every_committed_vector_is_used() {
    let made: BTreeSet<PathBuf> = files().into_iter().map(|(path, _)| path).collect();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|e| e != "md") {
            found.insert(path);
        }
    }
    assert_eq!(found.difference(&made).collect::<Vec<_>>(), Vec::<&PathBuf>::new());
}

#[test]
fn every_frame_type_has_its_three_vectors() {
    let vectors = vectors::all();
    for number in 0..=u64::from(u8::MAX) {
        let Some(frame_type) = FrameType::from_number(number) else { continue };
        for case in ["smallest", "richest", "maximal"] {
            assert!(
                vectors.iter().any(|v| v.message == frame_type.name() && v.case == case),
                "{} has no vector `{case}`",
                frame_type.name()
            );
        }
    }
}

#[test]
fn vectors_read_and_write_the_same_bytes() {
    for vector in vectors::all() {
        let hex_file = directory().join(vector.message).join(vector.case).with_extension("hex");
        let committed = unhex(&fs::read_to_string(hex_file).unwrap());
        let written = recode(vector.kind, &committed).unwrap_or_else(|e| panic!("{}: {e}", name(&vector)));
        assert_eq!(hex(&written), hex(&committed), "{}", name(&vector));
    }
}

#[test]
fn every_strict_prefix_and_every_byte_more_is_refused() {
    for vector in vectors::all() {
        for end in 0..vector.bytes.len() {
            assert!(recode(vector.kind, &vector.bytes[..end]).is_err(), "{} cut at {end}", name(&vector));
        }
        for more in [0x00u8, 0x17, 0x40, 0x80, 0xa0, 0xf6, 0xff] {
            let longer = [&vector.bytes[..], &[more]].concat();
            assert!(recode(vector.kind, &longer).is_err(), "{} and {more:02x}", name(&vector));
        }
        let glued = [&vector.bytes[..], &vector.bytes].concat();
        assert!(recode(vector.kind, &glued).is_err(), "{} twice", name(&vector));
    }
}

#[test]
fn every_twin_is_refused() {
    let mut tried = 0;
    // A seal's shape is read by `crypto`; `cbor::check` alone cannot refuse a surplus element.
    for vector in vectors::all().into_iter().filter(|v| v.kind != Kind::Seal) {
        for twin in twins::twins(&vector.bytes) {
            let read = recode(vector.kind, &twin.bytes);
            let is_fine = match &read {
                Ok(written) => twin.is_shorter && *written == twin.bytes,
                Err(_) => true,
            };
            assert!(is_fine, "{}, {}: {:?}", name(&vector), twin.made, read.map(|b| hex(&b)));
            tried += 1;
        }
    }
    assert!(tried > 5_000, "only {tried} twins: the generator of twins is broken");
}

#[test]
fn a_flipped_bit_is_refused_or_means_exactly_what_it_says() {
    for vector in vectors::all() {
        let mut bytes = vector.bytes.clone();
        for at in 0..bytes.len() {
            // The middle of a long byte string is nothing but its own bytes; one bit of each will do.
            let is_inner = at >= 1024 && at + 1024 < bytes.len();
            for bit in if is_inner { at % 8..at % 8 + 1 } else { 0..8 } {
                bytes[at] ^= 1 << bit;
                if let Ok(written) = recode(vector.kind, &bytes) {
                    assert_eq!(written, bytes, "{} with bit {bit} of byte {at} flipped", name(&vector));
                }
                bytes[at] ^= 1 << bit;
            }
        }
    }
}

/// What `qpc wire` calls a vector.
fn explained_name(vector: &Vector) -> String {
    match vector.kind {
        Kind::Frame | Kind::Beacon => vector.message.to_owned(),
        Kind::Broadcast => "payload content".to_owned(),
        Kind::Pong => "payload pong".to_owned(),
        _ => format!("payload {}", vector.message),
    }
}

#[test]
fn every_vector_is_explained() {
    for vector in vectors::all() {
        let explained = explain(&vector.bytes);
        let wanted = explained_name(&vector);
        let names: Vec<&String> = explained.message.iter().chain(&explained.or).collect();
        // A pong's payload of two small numbers is a ping frame as well.
        let is_ambiguous = vector.kind == Kind::Pong && names == ["hello"] || names == ["ping"];
        assert!(names.contains(&&wanted) || is_ambiguous, "{}: {names:?}", name(&vector));
        assert_eq!(explained.fault, None, "{}", name(&vector));
        let whole = explained.fields.first().unwrap();
        assert_eq!((whole.offset, whole.bytes), (0, vector.bytes.len()), "{}", name(&vector));
        assert!(explained.fields.iter().all(|f| f.value != "unreadable"), "{}", name(&vector));
        let unnamed = explained.fields.iter().find(|f| f.name.starts_with('['));
        assert_eq!(unnamed, None, "{}: an element has no name", name(&vector));
        assert!(explained.to_string().chars().all(|c| c == '\n' || !c.is_control()), "{}", name(&vector));
    }
}

#[test]
fn cut_and_damaged_vectors_are_explained_too() {
    for vector in vectors::all().into_iter().filter(|v| v.bytes.len() < 1024) {
        for end in 0..vector.bytes.len() {
            let explained = explain(&vector.bytes[..end]);
            assert!(explained.fields.iter().all(|f| f.offset <= end), "{} cut at {end}", name(&vector));
        }
        let mut bytes = vector.bytes.clone();
        for at in 0..bytes.len() {
            bytes[at] ^= 1 << (at % 8);
            let _ = explain(&bytes).to_string();
            bytes[at] ^= 1 << (at % 8);
        }
    }
}

fn strictly_signed(key: &[u8; 32], input: &[u8], signature: &Signature) -> bool {
    VerifyingKey::from_bytes(key)
        .and_then(|key| key.verify_strict(input, &DalekSignature::from_bytes(&signature.0)))
        .is_ok()
}

/// Checks an envelope as docs/protocol.md says, from its bytes alone.
fn envelope_holds(envelope: &Envelope, context: &str) -> bool {
    let input = vectors::signature_input(context, envelope.signed());
    let signer = vectors::public(&vectors::alice());
    match envelope.proof() {
        Proof::Signature(signature) => strictly_signed(&signer.0, &input, signature),
        Proof::Merkle { root_signature, index, path } => {
            let leaf = vectors::sha256(&[&[0], &vectors::sha256(&[&input])]);
            let root = path.iter().enumerate().fold(leaf, |below, (height, sibling)| {
                if (index >> height) & 1 == 0 {
                    vectors::sha256(&[&[1], &below, &sibling.0])
                } else {
                    vectors::sha256(&[&[1], &sibling.0, &below])
                }
            });
            strictly_signed(&signer.0, &vectors::signature_input("merkle-root", &root), root_signature)
        }
    }
}

#[test]
fn every_signature_in_a_vector_holds() {
    let mut checked = BTreeSet::new();
    for vector in vectors::all().iter().filter(|v| v.kind == Kind::Frame) {
        let holds = match Frame::decode(&Bytes::copy_from_slice(&vector.bytes)).unwrap() {
            Frame::Envelope(envelope, _) => {
                let context = if vector.message == "envelope_v1" { "envelope-v1" } else { "envelope-v2" };
                envelope_holds(&envelope, context)
            }
            Frame::Announce(announce) | Frame::PathReply(announce) => {
                let input = vectors::signature_input("announce", &announce.signed);
                strictly_signed(&announce.content.public_key.0, &input, &announce.signature)
            }
            Frame::KeyReply(record) => {
                let key = KeyRecord::decode_signed(&record.signed).unwrap().public_key;
                let input = vectors::signature_input("key-record", &record.signed);
                strictly_signed(&key.0, &input, &record.signature)
            }
            _ => continue,
        };
        assert!(holds, "{}", name(vector));
        checked.insert(vector.message);
    }
    assert_eq!(
        checked,
        BTreeSet::from(["announce", "envelope_v1", "envelope_v2", "key_reply", "path_reply"])
    );
}

/// Bytes of the envelope around a payload, the frame not counted.
fn overhead(envelope: &Envelope) -> usize {
    envelope.encoded_len() - envelope.payload().len()
}

#[test]
fn envelopes_keep_their_overhead_budget() {
    let payload = vec![0xff; PAYLOAD_BYTES_MAX];
    let proof = Proof::Signature(Signature([0xff; 64]));
    let [v2, v1] = vectors::largest_headers();
    let assemble = |header: quicprochat_mesh::wire::EnvelopeHeader, key| {
        Envelope::assemble(header, &header.signed(&payload), proof.clone(), key).unwrap().with_hop_count(255)
    };
    let key = vectors::public(&vectors::alice());
    assert_eq!(overhead(&assemble(v2, None)), 128);
    assert_eq!(overhead(&assemble(v2, Some(key))), 128 + 34);
    assert_eq!(overhead(&assemble(v1, None)), 162);
    // What the frame adds: its array, its type, nothing else.
    assert_eq!(assemble(v2, None).to_frame(FrameExt::default()).len(), PAYLOAD_BYTES_MAX + 128 + 2);
}

#[test]
fn envelopes_of_young_nodes_are_smaller() {
    for (header, wanted) in vectors::largest_headers().into_iter().zip([123, 157]) {
        let young = quicprochat_mesh::wire::EnvelopeHeader {
            kind: quicprochat_mesh::wire::EnvelopeKind::MESSAGE,
            priority: quicprochat_mesh::wire::Priority::Normal,
            boot_epoch: 30,
            sequence: 4_000,
            created_unix_s: 1_800_000_000,
            lifetime: Lifetime::ONE_DAY,
            max_hops: 32,
            ..header
        };
        let signed = young.signed(&[0; 300]);
        let proof = Proof::Signature(Signature([0; 64]));
        let envelope = Envelope::assemble(young, &signed, proof, None).unwrap().with_hop_count(3);
        assert_eq!(overhead(&envelope), wanted);
    }
}

#[test]
fn the_largest_envelope_fits_one_frame() {
    for vector in vectors::all().iter().filter(|v| v.kind == Kind::Frame) {
        assert!(vector.bytes.len() <= FRAME_BYTES_MAX, "{}: {}", name(vector), vector.bytes.len());
    }
}

#[test]
fn a_key_is_attached_to_v2_only() {
    for (message, is_read) in [("envelope_v2", true), ("envelope_v1", false)] {
        let smallest =
            vectors::all().into_iter().find(|v| v.message == message && v.case == "smallest").unwrap();
        let mut bytes = smallest.bytes;
        assert_eq!(bytes[2], 0x83, "an envelope of three elements");
        bytes[2] = 0x84;
        bytes.extend_from_slice(&[0x58, 32]);
        bytes.extend_from_slice(&vectors::public(&vectors::alice()).0);
        assert_eq!(recode(Kind::Frame, &bytes).is_ok(), is_read, "{message}");
    }
}

#[test]
fn unknown_frames_are_told_from_noise() {
    let unknown = Bytes::from_static(&[0x82, 0x18, 0x63, 0x81, 0x00]);
    let error = Frame::decode(&unknown).unwrap_err();
    assert_eq!(error, DecodeError::UnknownFrame(99));
    assert!(error.is_unknown_version());
    for noise in
        [&[0x82, 0x18, 0x63, 0x9f, 0xff][..], &[0x82, 0x18, 0x63, 0x81, 0x00, 0x00], &[0x82, 0x18, 0x63]]
    {
        let error = Frame::decode(&Bytes::copy_from_slice(noise)).unwrap_err();
        assert!(!error.is_unknown_version(), "{noise:02x?}: {error}");
    }
}

#[test]
fn a_frame_over_the_limit_is_refused_before_it_is_read() {
    let bytes = Bytes::from(vec![0x82; FRAME_BYTES_MAX + 1]);
    assert!(matches!(Frame::decode(&bytes), Err(DecodeError::TooLarge { field: "frame", .. })));
}
