//! HKDF-SHA-256 (RFC 5869).

use hkdf::Hkdf;
use sha2::Sha256;

use super::error::CryptoError;

/// Fills `out` from `secret`. `salt` binds the transcript, `info` names the purpose: two keys of
/// one secret differ in `info`.
///
/// # Errors
/// [`CryptoError::KdfOutput`] where `out` is longer than 255 · 32 bytes.
pub fn hkdf_sha256(salt: &[u8], secret: &[u8], info: &[u8], out: &mut [u8]) -> Result<(), CryptoError> {
    let asked = out.len();
    Hkdf::<Sha256>::new(Some(salt), secret).expand(info, out).map_err(|_| CryptoError::KdfOutput { asked })
}
