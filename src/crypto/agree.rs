//! X25519 (RFC 7748) that refuses the results the other side chose alone.

use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::error::CryptoError;

/// The secret shared by `secret` and `public`, never to be used as a key itself.
///
/// # Errors
/// [`CryptoError::NonContributory`] where the result is zero, which only a small-order `public`
/// gives: everybody would know that secret.
pub fn agree(secret: &StaticSecret, public: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>, CryptoError> {
    let shared = secret.diffie_hellman(&PublicKey::from(*public));
    if shared.was_contributory() {
        Ok(Zeroizing::new(shared.to_bytes()))
    } else {
        Err(CryptoError::NonContributory)
    }
}

/// The public half of `secret`.
pub fn public_of(secret: &StaticSecret) -> [u8; 32] {
    PublicKey::from(secret).to_bytes()
}
