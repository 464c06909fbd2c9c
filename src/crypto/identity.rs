//! Who a node is: an Ed25519 key with its public half and its address, never apart.

use std::fmt;

use ed25519_dalek::{
    SigningKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes, spki::der::pem::LineEnding},
};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::wire::{Address, PublicKey, Signature};

use super::{address::compute_address, random::random_bytes, sign::Input};

/// A node's identity. Wiped when dropped; prints its address only. Share it in an `Arc`: there is
/// no `Clone`, so that copies of the key do not multiply.
pub struct MeshIdentity {
    signing: SigningKey,
    public_key: PublicKey,
    address: Address,
}

impl MeshIdentity {
    /// A new identity.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self::from_seed(random_bytes(rng))
    }

    /// The identity of an RFC 8032 private key.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        Self::from_signing_key(SigningKey::from_bytes(&seed))
    }

    fn from_signing_key(signing: SigningKey) -> Self {
        let public_key = PublicKey(signing.verifying_key().to_bytes());
        Self { address: compute_address(&public_key), public_key, signing }
    }

    /// Signs `input`.
    pub fn sign(&self, input: Input<'_>) -> Signature {
        input.sign(&self.signing)
    }

    /// The public key.
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// The address.
    pub fn address(&self) -> Address {
        self.address
    }

    /// The private key as PKCS#8 DER, for TLS.
    pub fn to_pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        // A document of fixed shape and length; its encoder has nothing to refuse.
        let der = self.keypair_bytes().to_pkcs8_der().map(|der| der.as_bytes().to_vec());
        Zeroizing::new(der.unwrap_or_default())
    }

    /// The private key as PKCS#8 PEM, as `openssl pkey` reads and writes it.
    pub fn to_pkcs8_pem(&self) -> Zeroizing<String> {
        self.keypair_bytes().to_pkcs8_pem(LineEnding::LF).unwrap_or_default()
    }

    /// Reads a private key from PKCS#8 PEM.
    ///
    /// # Errors
    /// What the decoder said; it holds nothing of the key.
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, String> {
        SigningKey::from_pkcs8_pem(pem).map(Self::from_signing_key).map_err(|error| error.to_string())
    }

    /// Without the public half: openssl 3.0 reads version 1 of the format only.
    fn keypair_bytes(&self) -> KeypairBytes {
        KeypairBytes { secret_key: self.signing.to_bytes(), public_key: None }
    }
}

impl fmt::Debug for MeshIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshIdentity({})", self.address)
    }
}
