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

    /// The id of an envelope with this input.
    pub fn packet_id(&self) -> PacketId {
        packet_id(&self.digest())
    }

    /// The input's place in a Merkle tree.
    pub fn leaf(&self) -> Digest {
        merkle::leaf(&self.digest())
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

/// The id of an envelope whose signature input has this digest: its first 16 bytes.
pub fn packet_id(input: &Digest) -> PacketId {
    PacketId(prefix(input))
}

/// A public key that was decoded and found fit: canonical and not of small order. Decoding takes a
/// good part of what a verification takes, so a relay keeps these rather than the bytes.
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
        if !is_canonical(public_key) {
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

/// True where the y coordinate is below the field prime 2^255 - 19: decoding follows ZIP 215 and
/// takes it modulo the prime. (The other second spelling, a sign on an x of zero, exists for points
/// of small order only.)
fn is_canonical(key: &PublicKey) -> bool {
    let [low, middle @ .., high] = key.as_bytes();
    high & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff) || *low < 0xed
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{crypto::MeshIdentity, crypto::network_id, wire::ids::unhex};

    fn identity() -> MeshIdentity {
        MeshIdentity::from_seed([1; 32])
    }

    fn key() -> VerifyKey {
        VerifyKey::new(&identity().public_key()).unwrap()
    }

    #[test]
    fn the_input_is_exactly_what_the_specification_says() {
        let network = NetworkId([0xee; 16]);
        let mut scratch = SignatureInput::new(network);
        // A longer one first: nothing of it may stay in the buffer.
        scratch.of(SignedType::EnvelopeV1, &[0x55; 500]);
        let input = scratch.of(SignedType::EnvelopeV2, b"signed");
        let mut expected = b"quicprochat/mesh/1/envelope-v2\0\x10".to_vec();
        expected.extend_from_slice(&[0xee; 16]);
        expected.extend_from_slice(b"signed");
        assert_eq!(input.as_bytes(), expected);
        assert_eq!(input.digest(), sha256(&[&expected]));
        assert_eq!(input.packet_id().as_bytes()[..], input.digest().as_bytes()[..16]);
        assert_eq!(input.leaf(), sha256(&[&[0], sha256(&[&expected]).as_bytes()]));
    }

    #[test]
    fn the_buffer_is_reused() {
        let mut scratch = SignatureInput::new(network_id("public"));
        let first = scratch.of(SignedType::EnvelopeV2, &[0; 1000]).as_bytes().as_ptr();
        for len in [0, 10, 1000] {
            assert_eq!(scratch.of(SignedType::EnvelopeV2, &vec![1; len]).as_bytes().as_ptr(), first);
        }
    }

    #[test]
    fn a_signature_holds_for_its_own_kind_and_network_only() {
        let (identity, key) = (identity(), key());
        let mut public = SignatureInput::new(network_id("public"));
        let mut other = SignatureInput::new(network_id("other"));
        for kind in SignedType::ALL {
            let input = public.of(kind, b"content");
            let signature = identity.sign(input);
            assert_eq!(input.verify(&key, &signature), Ok(()));
            assert_eq!(identity.sign(input), signature, "signatures are deterministic");
            for wrong in SignedType::ALL.into_iter().filter(|wrong| *wrong != kind) {
                let refused = public.of(wrong, b"content").verify(&key, &signature);
                assert_eq!(refused, Err(CryptoError::Signature { signed_type: wrong }));
            }
            assert!(other.of(kind, b"content").verify(&key, &signature).is_err());
        }
    }

    #[test]
    fn names_are_distinct_and_none_holds_the_separator() {
        for (at, kind) in SignedType::ALL.into_iter().enumerate() {
            assert!(!kind.name().contains('\0'));
            assert!(SignedType::ALL[at + 1..].iter().all(|other| other.name() != kind.name()));
        }
    }

    #[test]
    fn no_flipped_bit_passes() {
        let (identity, key) = (identity(), key());
        let mut scratch = SignatureInput::new(network_id("public"));
        let signed = b"all of this is covered";
        let signature = identity.sign(scratch.of(SignedType::EnvelopeV2, signed));
        for bit in 0..64 * 8 {
            let mut wrong = signature;
            wrong.0[bit / 8] ^= 1 << (bit % 8);
            assert!(scratch.of(SignedType::EnvelopeV2, signed).verify(&key, &wrong).is_err(), "{bit}");
        }
        for bit in 0..signed.len() * 8 {
            let mut wrong = *signed;
            wrong[bit / 8] ^= 1 << (bit % 8);
            let input = scratch.of(SignedType::EnvelopeV2, &wrong);
            assert!(input.verify(&key, &signature).is_err(), "{bit}");
        }
        let stranger = MeshIdentity::from_seed([2; 32]).public_key();
        let input = scratch.of(SignedType::EnvelopeV2, signed);
        assert!(input.verify(&VerifyKey::new(&stranger).unwrap(), &signature).is_err());
    }

    fn refused(key: &str, fault: KeyFault) {
        let key = PublicKey(unhex(key).unwrap());
        assert_eq!(VerifyKey::new(&key), Err(CryptoError::PublicKey { key, fault }));
    }

    #[test]
    fn keys_that_anybody_can_sign_for_are_refused() {
        // The eight points of small order, as the curve equation gives them.
        for key in [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "0000000000000000000000000000000000000000000000000000000000000080",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
            // The same in other spellings: y = p and p + 1, and a sign where x is zero.
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "0100000000000000000000000000000000000000000000000000000000000080",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        ] {
            refused(key, KeyFault::SmallOrder);
        }
    }

    #[test]
    fn second_spellings_of_a_key_are_refused() {
        // y = p + 3 and p + 18, points of large order; y = 3 itself is a key like another.
        refused("f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", KeyFault::NotCanonical);
        refused("ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", KeyFault::NotCanonical);
        let mut canonical = [0; 32];
        canonical[0] = 3;
        assert!(VerifyKey::new(&PublicKey(canonical)).is_ok());
    }

    #[test]
    fn bytes_off_the_curve_are_refused() {
        refused("0200000000000000000000000000000000000000000000000000000000000000", KeyFault::NotAPoint);
    }

    #[test]
    fn a_key_of_another_address_is_refused() {
        let (expected, got) = (Address([7; 16]), identity().address());
        let refused = VerifyKey::of_address(&expected, &identity().public_key());
        assert_eq!(refused, Err(CryptoError::AddressMismatch { expected, got }));
        let key = VerifyKey::of_address(&got, &identity().public_key()).unwrap();
        assert_eq!((key.address(), key.public_key()), (got, identity().public_key()));
    }
}
