//! The library's crypto against the vectors, whose signatures and seals it did not make.

use bytes::Bytes;
use quicprochat_mesh::{
    crypto::{
        FileKey, ReceiverKeys, SignatureInput, SignedType, VerifyKey, compute_address, key_record,
        merkle::root_from_path, network_id, seal,
    },
    wire::{
        Frame, MessageUid, Proof, cbor,
        content::Chunk,
        ids::unhex,
        key_record::{KeyRecord, SignedKeyRecord},
    },
};
use serde_json::Value;

use super::vectors::{self, Kind, Vector};

fn input() -> SignatureInput {
    SignatureInput::new(network_id(vectors::NETWORK_NAME))
}

fn text<'a>(json: &'a Value, name: &str) -> &'a str {
    json[name].as_str().unwrap_or_else(|| panic!("no {name}"))
}

fn vector(message: &str, case: &str) -> Vector {
    vectors::all().into_iter().find(|v| v.message == message && v.case == case).unwrap()
}

#[test]
fn addresses_and_networks_are_named_alike() {
    assert_eq!(network_id(vectors::NETWORK_NAME), vectors::network());
    let key = vectors::public(&vectors::alice());
    assert_eq!(compute_address(&key), vectors::address(&key));
}

#[test]
fn every_envelope_of_the_vectors_verifies() {
    let mut checked = 0;
    for vector in vectors::all().iter().filter(|v| v.message.starts_with("envelope_")) {
        let frame = Frame::decode(&Bytes::copy_from_slice(&vector.bytes)).unwrap();
        let Frame::Envelope(envelope, _) = frame else { panic!("{} is no envelope", vector.message) };
        let signed_type = match vector.message {
            "envelope_v1" => SignedType::EnvelopeV1,
            _ => SignedType::EnvelopeV2,
        };
        let key = VerifyKey::new(&vectors::public(&vectors::alice())).unwrap();
        let mut scratch = input();
        let own = scratch.of(signed_type, envelope.signed());
        let json = vector.json.as_ref().unwrap();
        assert_eq!(own.packet_id().to_string(), text(json, "packet_id"));
        let verified = match envelope.proof() {
            Proof::Signature(signature) => own.verify(&key, signature),
            Proof::Merkle { root_signature, index, path } => {
                let root = root_from_path(own.leaf(), *index, path).unwrap();
                assert_eq!(root.to_string(), text(json, "root"));
                scratch.of(SignedType::MerkleRoot, root.as_bytes()).verify(&key, root_signature)
            }
        };
        assert_eq!(verified, Ok(()), "{}/{}", vector.message, vector.case);
        checked += 1;
    }
    assert!(checked > 5);
}

#[test]
fn every_key_record_of_the_vectors_verifies() {
    for vector in vectors::all().iter().filter(|v| v.kind == Kind::KeyRecord) {
        let record = SignedKeyRecord::decode(&vector.bytes).unwrap();
        let verified = key_record::verify(&mut input(), &record).unwrap();
        assert_eq!(verified.digest().to_string(), text(vector.json.as_ref().unwrap(), "sha256_of_signed"));
    }
}

/// Bob's receiver keys as his store holds them, with the one secret of the vectors.
fn bob_keys(record: &KeyRecord) -> ReceiverKeys {
    let mut state = Vec::new();
    cbor::put_array(&mut state, 4);
    cbor::put_uint(&mut state, 1);
    cbor::put_uint(&mut state, u64::from(record.order));
    cbor::put_uint(&mut state, 0);
    cbor::put_array(&mut state, 1);
    cbor::put_array(&mut state, 6);
    let not_after = u64::from(record.not_after);
    for number in
        [u64::from(record.keys[0].rk_id), u64::from(record.order), 0, not_after, not_after + 1_209_600]
    {
        cbor::put_uint(&mut state, number);
    }
    cbor::put_bytes(&mut state, &vectors::BOB_RECEIVER_SECRET);
    ReceiverKeys::from_bytes(vectors::public(&vectors::bob()), &state).unwrap()
}

fn unhex_all(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| unhex::<1>(std::str::from_utf8(pair).unwrap()).unwrap()[0]).collect()
}

#[test]
fn every_seal_of_the_vectors_opens_and_in_no_other_envelope() {
    for vector in vectors::all().iter().filter(|v| v.kind == Kind::Seal) {
        let json = vector.json.as_ref().unwrap();
        let record = KeyRecord::decode_signed(&unhex_all(text(json, "key_record_signed"))).unwrap();
        let keys = bob_keys(&record);
        let mut associated_data = unhex_all(text(json, "associated_data"));
        let source = vectors::public(&vectors::alice());
        let opened = seal::open(&keys, &vectors::network(), &source, &vector.bytes, &associated_data);
        let opened = opened.unwrap_or_else(|e| panic!("seal/{}: {e}", vector.case));
        if let Some(plaintext) = json["plaintext"].as_str() {
            assert_eq!(opened, unhex_all(plaintext));
        }
        associated_data[1] ^= 1;
        assert!(seal::open(&keys, &vectors::network(), &source, &vector.bytes, &associated_data).is_err());
    }
}

#[test]
fn the_chunk_of_the_vectors_opens() {
    let vector = vector("chunk", "richest");
    let json = vector.json.as_ref().unwrap();
    let chunk = Chunk::decode(&Bytes::copy_from_slice(&vector.bytes)).unwrap();
    let key = FileKey::from_bytes(unhex(text(json, "file_key")).unwrap());
    assert_eq!(key.transfer_tag(), chunk.tag);
    let uid: MessageUid = text(json, "uid").parse().unwrap();
    let opened = key.open_chunk(&uid, chunk.index, chunk.total, &chunk.ciphertext).unwrap();
    assert_eq!(opened, unhex_all(text(json, "plaintext")));
}
