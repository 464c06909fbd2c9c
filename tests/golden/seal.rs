//! The seal and the chunk's encryption, written a second time from docs/protocol.md alone, so that
//! the vectors check the library rather than repeat it.

use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit,
    aead::{Aead, Payload},
};
use quicprochat_mesh::wire::{MessageUid, NetworkId, PublicKey, cbor};
use x25519_dalek::StaticSecret;

use super::vectors::sha256;

pub(crate) struct SealInput<'a> {
    pub(crate) network: NetworkId,
    pub(crate) source: PublicKey,
    pub(crate) destination: PublicKey,
    pub(crate) record_signed: &'a [u8],
    pub(crate) receiver_public: [u8; 32],
    pub(crate) rk_id: u32,
    pub(crate) suite: u8,
    pub(crate) ephemeral_secret: [u8; 32],
    pub(crate) counter: u32,
    pub(crate) associated_data: &'a [u8],
    pub(crate) plaintext: &'a [u8],
    /// Bytes of the plaintext with its end mark and padding.
    pub(crate) padded: usize,
}

pub(crate) struct SealedOutput {
    pub(crate) bytes: Vec<u8>,
    pub(crate) shared_secret: [u8; 32],
    pub(crate) salt: [u8; 32],
    pub(crate) key: [u8; 32],
    pub(crate) nonce: [u8; 12],
}

pub(crate) fn public_of(secret: [u8; 32]) -> [u8; 32] {
    x25519_dalek::PublicKey::from(&StaticSecret::from(secret)).to_bytes()
}

fn counter_nonce(counter: u32) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[8..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

fn encrypt(key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], msg: &[u8]) -> Vec<u8> {
    ChaCha20Poly1305::new(key.into()).encrypt(nonce.into(), Payload { msg, aad }).unwrap()
}

fn hkdf(salt: &[u8], secret: &[u8], info: &[u8], out: &mut [u8]) {
    hkdf::Hkdf::<sha2::Sha256>::new(Some(salt), secret).expand(info, out).unwrap();
}

pub(crate) fn seal(input: &SealInput<'_>) -> SealedOutput {
    let secret = StaticSecret::from(input.ephemeral_secret);
    let ephemeral = public_of(input.ephemeral_secret);
    let shared = secret.diffie_hellman(&x25519_dalek::PublicKey::from(input.receiver_public)).to_bytes();
    let salt = sha256(&[
        b"quicprochat/mesh/1/seal\0",
        &input.network.0,
        &[input.suite],
        &input.source.0,
        &input.destination.0,
        &sha256(&[input.record_signed]),
        &input.rk_id.to_be_bytes(),
        &ephemeral,
    ]);
    let mut key = [0; 32];
    hkdf(&salt, &shared, b"quicprochat/mesh/1/seal-key", &mut key);
    let nonce = counter_nonce(input.counter);

    let mut padded = input.plaintext.to_vec();
    padded.push(0x80);
    assert!(padded.len() <= input.padded);
    padded.resize(input.padded, 0);
    let ciphertext = encrypt(&key, &nonce, input.associated_data, &padded);

    let mut bytes = Vec::new();
    cbor::put_array(&mut bytes, 4);
    cbor::put_uint(&mut bytes, u64::from(input.rk_id));
    cbor::put_bytes(&mut bytes, &ephemeral);
    cbor::put_uint(&mut bytes, u64::from(input.counter));
    cbor::put_bytes(&mut bytes, &ciphertext);
    SealedOutput { bytes, shared_secret: shared, salt, key, nonce }
}

pub(crate) struct ChunkOutput {
    pub(crate) transfer_tag: [u8; 16],
    pub(crate) nonce: [u8; 12],
    pub(crate) associated_data: Vec<u8>,
    pub(crate) ciphertext: Vec<u8>,
}

pub(crate) fn file_chunk(
    key: [u8; 32],
    uid: MessageUid,
    index: u32,
    total: u32,
    plaintext: &[u8],
) -> ChunkOutput {
    let mut transfer_tag = [0; 16];
    hkdf(&[], &key, b"quicprochat/mesh/1/transfer-tag", &mut transfer_tag);
    let nonce = counter_nonce(index);
    let associated_data = [&uid.0[..], &index.to_be_bytes(), &total.to_be_bytes()].concat();
    let ciphertext = encrypt(&key, &nonce, &associated_data, plaintext);
    ChunkOutput { transfer_tag, nonce, associated_data, ciphertext }
}
