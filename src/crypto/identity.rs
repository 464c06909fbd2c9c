//! Who a node is: an Ed25519 key with its public half and its address, never apart.

use std::fmt;

use ed25519_dalek::{
    SigningKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes, spki::der::pem::LineEnding},
};
use rand_core::CryptoRng;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::wire::{Address, PublicKey, Signature};

use super::{address::compute_address, error::CryptoError, random::random_bytes, sign::Input};

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

    /// The private key of RFC 8032, to derive others from.
    pub(super) fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.signing.to_bytes())
    }

    /// The private key as PKCS#8 DER, for TLS.
    pub fn to_pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        let der = self.keypair_bytes().to_pkcs8_der();
        Zeroizing::new(der.expect("32 bytes of key always encode").as_bytes().to_vec())
    }

    /// The private key as PKCS#8 PEM, as `openssl pkey` reads and writes it.
    pub fn to_pkcs8_pem(&self) -> Zeroizing<String> {
        self.keypair_bytes().to_pkcs8_pem(LineEnding::LF).expect("32 bytes of key always encode")
    }

    /// Reads a private key from PKCS#8 PEM.
    ///
    /// # Errors
    /// [`CryptoError::PrivateKey`].
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, CryptoError> {
        SigningKey::from_pkcs8_pem(pem)
            .map(Self::from_signing_key)
            .map_err(|error| CryptoError::PrivateKey { detail: error.to_string() })
    }

    /// Without the public half: openssl 3.0 reads version 1 of the format only.
    fn keypair_bytes(&self) -> KeypairBytes {
        KeypairBytes { secret_key: self.signing.to_bytes(), public_key: None }
    }
}

/// The one secret field, the signing key, wipes itself.
impl ZeroizeOnDrop for MeshIdentity {}

impl fmt::Debug for MeshIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshIdentity({})", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::{SignatureInput, SignedType, VerifyKey, network_id, random::SeededRng},
        wire::ids::unhex,
    };

    fn wipes_itself<T: ZeroizeOnDrop>() {}

    #[test]
    fn the_halves_belong_together() {
        // RFC 8032 section 7.1, test 1.
        let seed = unhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let identity = MeshIdentity::from_seed(seed);
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(identity.public_key().to_string(), public);
        assert_eq!(identity.address(), compute_address(&identity.public_key()));

        let mut scratch = SignatureInput::new(network_id("public"));
        let input = scratch.of(SignedType::Announce, b"content");
        let key = VerifyKey::of_address(&identity.address(), &identity.public_key()).unwrap();
        assert_eq!(input.verify(&key, &identity.sign(input)), Ok(()));
    }

    #[test]
    fn two_identities_differ() {
        let mut rng = SeededRng::new(1);
        assert_ne!(MeshIdentity::generate(&mut rng).address(), MeshIdentity::generate(&mut rng).address());
    }

    #[test]
    fn pem_round_trips_and_other_text_is_refused() {
        let identity = MeshIdentity::from_seed([3; 32]);
        let pem = identity.to_pkcs8_pem();
        assert_eq!(MeshIdentity::from_pkcs8_pem(&pem).unwrap().address(), identity.address());
        let cut = &pem[..pem.len() / 2];
        for text in ["", "hello", cut, &pem.replace("PRIVATE", "PUBLIC"), &pem.replacen('M', "!", 1)] {
            let refused = MeshIdentity::from_pkcs8_pem(text);
            assert!(matches!(refused, Err(CryptoError::PrivateKey { .. })), "{text}: {refused:?}");
        }
    }

    #[test]
    fn a_private_key_with_the_wrong_public_half_is_refused() {
        let stranger = MeshIdentity::from_seed([4; 32]).public_key();
        let pair = KeypairBytes {
            secret_key: [3; 32],
            public_key: Some(ed25519_dalek::pkcs8::PublicKeyBytes(*stranger.as_bytes())),
        };
        let pem = pair.to_pkcs8_pem(LineEnding::LF).unwrap();
        assert!(MeshIdentity::from_pkcs8_pem(&pem).is_err());
    }

    #[test]
    fn tls_takes_the_private_key() {
        use rustls::{crypto::aws_lc_rs::sign::any_eddsa_type, pki_types::PrivatePkcs8KeyDer};
        let identity = MeshIdentity::from_seed([3; 32]);
        let der = identity.to_pkcs8_der();
        let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(der.as_slice())).unwrap();
        let public = rustls::sign::SigningKey::public_key(&*key).unwrap();
        assert!(public.ends_with(identity.public_key().as_bytes()));
    }

    #[test]
    fn debug_shows_the_address_only_and_the_key_wipes_itself() {
        let identity = MeshIdentity::from_seed([0xa7; 32]);
        assert_eq!(format!("{identity:?}"), format!("MeshIdentity({})", identity.address()));
        wipes_itself::<MeshIdentity>();
        wipes_itself::<SigningKey>();
        wipes_itself::<Zeroizing<Vec<u8>>>();
    }
}
