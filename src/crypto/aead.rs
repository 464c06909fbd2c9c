//! ChaCha20-Poly1305 (RFC 8439) in place, with counters for nonces.

use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit, Tag};

use super::error::CryptoError;

/// Length of a key in bytes.
pub const KEY_BYTES: usize = 32;

/// Length of an authentication tag in bytes.
pub const TAG_BYTES: usize = 16;

/// The nonce of message `counter` under a key of its own: eight zero bytes, then the counter with
/// its most significant byte first.
pub fn counter_nonce(counter: u32) -> [u8; 12] {
    let [a, b, c, d] = counter.to_be_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
}

/// Encrypts `buffer` in place and returns the tag.
///
/// # Errors
/// [`CryptoError::PlaintextTooLarge`] beyond 2^38 bytes, which no message here comes near.
pub fn encrypt(
    key: &[u8; KEY_BYTES],
    nonce: &[u8; 12],
    aad: &[u8],
    buffer: &mut [u8],
) -> Result<[u8; TAG_BYTES], CryptoError> {
    let got = buffer.len();
    let tag = ChaCha20Poly1305::new(key.into())
        .encrypt_inout_detached(nonce.into(), aad, buffer.into())
        .map_err(|_| CryptoError::PlaintextTooLarge { got, limit: usize::MAX })?;
    Ok(tag.into())
}

/// Checks `tag` and then decrypts `buffer` in place.
///
/// # Errors
/// [`CryptoError::Aead`]; `buffer` is then not to be used.
pub fn decrypt(
    key: &[u8; KEY_BYTES],
    nonce: &[u8; 12],
    aad: &[u8],
    buffer: &mut [u8],
    tag: &[u8; TAG_BYTES],
) -> Result<(), CryptoError> {
    ChaCha20Poly1305::new(key.into())
        .decrypt_inout_detached(nonce.into(), aad, buffer.into(), &Tag::from(*tag))
        .map_err(|_| CryptoError::Aead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_differ_by_counter() {
        assert_eq!(counter_nonce(0x0102_0304), [0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
    }
}
