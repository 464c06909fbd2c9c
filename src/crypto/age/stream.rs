//! The payload of an age file: chunks of 64 KiB, each sealed under its number and whether it is the
//! last. So none can be left out, repeated, moved or put at the end without its opening failing.

use zeroize::Zeroizing;

use super::AgeError;
use crate::crypto::aead::{self, TAG_BYTES};

/// Bytes of plaintext in each chunk but the last.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

const SEALED_BYTES: usize = CHUNK_BYTES + TAG_BYTES;

/// Bytes of plaintext in a payload of so many bytes; none where no payload has that length.
pub(super) fn plaintext_bytes(sealed: usize) -> Option<usize> {
    let chunks = sealed.div_ceil(SEALED_BYTES).max(1);
    sealed.checked_sub(chunks.checked_mul(TAG_BYTES)?)
}

/// Appends `plaintext`, sealed, to `out`.
pub(super) fn seal(key: &[u8; 32], plaintext: &[u8], out: &mut Vec<u8>) {
    let mut number = 0_u64;
    let mut rest = plaintext;
    loop {
        let (chunk, after) = rest.split_at(rest.len().min(CHUNK_BYTES));
        // The last one is full where that comes out even; an empty one is all of an empty plaintext.
        let is_last = after.is_empty();
        let start = out.len();
        out.extend_from_slice(chunk);
        let buffer = out.get_mut(start..).unwrap_or_default();
        let tag = aead::encrypt(key, &nonce(number, is_last), &[], buffer).expect("a chunk is small enough");
        out.extend_from_slice(&tag);
        if is_last {
            return;
        }
        rest = after;
        number = number.saturating_add(1);
    }
}

/// The plaintext of a payload.
///
/// # Errors
/// [`AgeError::Content`].
pub(super) fn open(key: &[u8; 32], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, AgeError> {
    // Room from the start, since a vector that grows leaves copies of its content behind.
    let mut out = Zeroizing::new(Vec::with_capacity(sealed.len()));
    let mut number = 0_u64;
    let mut rest = sealed;
    loop {
        let wrong = || AgeError::Content { chunk: number };
        let (chunk, after) = rest.split_at(rest.len().min(SEALED_BYTES));
        let is_last = after.is_empty();
        let (ciphertext, tag) = chunk.split_last_chunk::<TAG_BYTES>().ok_or_else(wrong)?;
        if is_last && ciphertext.is_empty() && number > 0 {
            return Err(wrong());
        }
        let start = out.len();
        out.extend_from_slice(ciphertext);
        let buffer = out.get_mut(start..).unwrap_or_default();
        aead::decrypt(key, &nonce(number, is_last), &[], buffer, tag).map_err(|_| wrong())?;
        if is_last {
            return Ok(out);
        }
        rest = after;
        number = number.checked_add(1).ok_or_else(wrong)?;
    }
}

/// Eleven bytes of number, most significant first, then 1 for the last chunk.
fn nonce(number: u64, is_last: bool) -> [u8; 12] {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    [0, 0, 0, a, b, c, d, e, f, g, h, u8::from(is_last)]
}
