//! Signatures with a context: what is signed says its kind and its network.
//!
//! The signature input is
//!
//! ```text
//! "quicprochat/mesh/1/" type ‖ 0x00 ‖ 0x10 ‖ network id (16 bytes) ‖ signed slice
//! ```
//!
//! with `type` the name of a [`SignedType`]. `signed` is the byte slice as received, never a
//! re-encoding. The same input gives the packet id of an envelope and its Merkle leaf, so a relay
//! builds it once, in a buffer that it keeps ([`SignatureInput`]).
//!
//! One predicate everywhere: the strict one. S below the group order, A and R canonical and not of
//! small order, and the equation without the cofactor.

use std::fmt;

use ed25519_dalek::{SigningKey, VerifyingKey};

use crate::wire::{Address, Digest, NetworkId, PacketId, PublicKey, Signature};

use super::{
    address::compute_address,
    error::{CryptoError, KeyFault},
    hash::{prefix, sha256},
    merkle,
};

/// Opens every signature input and every key derivation of this protocol version.
pub const CONTEXT: &str = "quicprochat/mesh/1/";

/// What a signature is about. One name each, so that no signature passes for one of another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignedType {
    /// `MeshEnvelope`, with 32-byte public keys for addresses.
    EnvelopeV1,
    /// `MeshEnvelopeV2`, with 16-byte addresses.
    EnvelopeV2,
    /// `MeshAnnounce`.
    Announce,
    /// `KeyRecord`.
    KeyRecord,
    /// The root over many envelopes of one source (`merkle`).
    MerkleRoot,
}

impl SignedType {
    /// All kinds.
    pub const ALL: [SignedType; 5] =
        [Self::EnvelopeV1, Self::EnvelopeV2, Self::Announce, Self::KeyRecord, Self::MerkleRoot];

    /// The name that is signed.
    pub fn name(self) -> &'static str {
        match self {
            Self::EnvelopeV1 => "envelope-v1",
            Self::EnvelopeV2 => "envelope-v2",
            Self::Announce => "announce",
            Self::KeyRecord => "key-record",
            Self::MerkleRoot => "merkle-root",
        }
    }
}

impl fmt::Display for SignedType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Builds signature inputs of one network in a buffer that it reuses.
#[derive(Debug, Clone)]
pub struct SignatureInput {
    network: NetworkId,
    buffer: Vec<u8>,
}

impl SignatureInput {
    /// For `network`.
    pub fn new(network: NetworkId) -> Self {
        Self { network, buffer: Vec::new() }
    }

    /// The network whose signatures it makes and checks.
    pub fn network(&self) -> &NetworkId {
        &self.network
    }

    /// The input for `signed`, a slice exactly as received or as it will be sent.
    pub fn of<'a>(&'a mut self, signed_type: SignedType, signed: &[u8]) -> Input<'a> {
        self.buffer.clear();
        self.buffer.extend_from_slice(CONTEXT.as_bytes());
        self.buffer.extend_from_slice(signed_type.name().as_bytes());
        self.buffer.extend_from_slice(&[0, NetworkId::LEN as u8]);
        self.buffer.extend_from_slice(self.network.as_bytes());
        self.buffer.extend_from_slice(signed);
        Input { signed_type, bytes: &self.buffer }
    }
}

/// One signature input. Only [`SignatureInput::of`] makes it, so nothing is signed or checked
/// without its kind and network.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    signed_type: SignedType,
    bytes: &'a [u8],
}

impl Input<'_> {
    /// What is signed.
    pub fn signed_type(&self) -> SignedType {
        self.signed_type
    }

    /// The bytes that are signed.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes
    }

    /// SHA-256 over the input.
    pub fn digest(&self) -> Digest {
        sha256(&[self.bytes])
    }

    /// The first 16 bytes of [`Input::digest`].
    pub fn packet_id(&self) -> PacketId {
        PacketId(prefix(&self.digest()))
    }

    /// The input's place in a Merkle tree.
    pub fn leaf(&self) -> Digest {
        merkle::leaf(self.bytes)
    }

    /// Checks `signature` with the strict predicate.
    ///
    /// # Errors
    /// [`CryptoError::Signature`].
    pub fn verify(&self, key: &VerifyKey, signature: &Signature) -> Result<(), CryptoError> {
        verify_strict(key, self.bytes, signature)
            .then_some(())
            .ok_or(CryptoError::Signature { signed_type: self.signed_type })
    }

    pub(super) fn sign(&self, key: &SigningKey) -> Signature {
        sign(key, self.bytes)
    }
}

/// A public key that was decoded and found fit: canonical and not of small order. Decoding takes
/// about a tenth of a verification, so a relay keeps these rather than the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifyKey {
    key: VerifyingKey,
}

impl VerifyKey {
    /// Decodes a key that enters the system.
    ///
    /// # Errors
    /// [`CryptoError::PublicKey`] with the fault.
    pub fn new(public_key: &PublicKey) -> Result<Self, CryptoError> {
        let refuse = |fault| CryptoError::PublicKey { key: *public_key, fault };
        let key = VerifyingKey::from_bytes(public_key.as_bytes()).map_err(|_| refuse(KeyFault::NotAPoint))?;
        if key.is_weak() {
            return Err(refuse(KeyFault::SmallOrder));
        }
        // Decompression follows ZIP 215 and takes y at or above the field prime; compressing the
        // point again shows it.
        if VerifyingKey::from(key.to_edwards()).as_bytes() != public_key.as_bytes() {
            return Err(refuse(KeyFault::NotCanonical));
        }
        Ok(Self { key })
    }

    /// As [`VerifyKey::new`], for a key that came with an address.
    ///
    /// # Errors
    /// [`CryptoError::AddressMismatch`] where the key is another node's, before it is decoded.
    pub fn of_address(address: &Address, public_key: &PublicKey) -> Result<Self, CryptoError> {
        let got = compute_address(public_key);
        if got != *address {
            return Err(CryptoError::AddressMismatch { expected: *address, got });
        }
        Self::new(public_key)
    }

    /// The key as it travels.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.key.to_bytes())
    }

    /// The key's address.
    pub fn address(&self) -> Address {
        compute_address(&self.public_key())
    }
}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyKey({})", self.public_key())
    }
}

fn verify_strict(key: &VerifyKey, message: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
    key.key.verify_strict(message, &signature).is_ok()
}

fn sign(key: &SigningKey, message: &[u8]) -> Signature {
    use ed25519_dalek::Signer;
    Signature(key.sign(message).to_bytes())
}

/// The predicate and the signer without a context, for published test vectors. Never part of a
/// node.
#[cfg(any(test, feature = "testing"))]
pub mod untagged {
    use super::*;

    /// The strict predicate over `message` itself.
    pub fn verify(key: &VerifyKey, message: &[u8], signature: &Signature) -> bool {
        super::verify_strict(key, message, signature)
    }

    /// Signs `message` itself with the key of `seed`.
    pub fn sign(seed: &[u8; 32], message: &[u8]) -> (PublicKey, Signature) {
        let key = SigningKey::from_bytes(seed);
        (PublicKey(key.verifying_key().to_bytes()), super::sign(&key, message))
    }
}
