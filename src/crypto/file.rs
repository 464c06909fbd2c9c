//! Chunks of a file: sealed under a random key of the file's own, which its manifest carries.
//!
//! ChaCha20-Poly1305; the nonce is the chunk's index, associated data is
//! `uid (16) ‖ index (u32) ‖ total (u32)`, most significant bytes first. A key is drawn for one
//! content and never serves another, since chunk `i` of both would share a nonce. That lets a
//! chunk be sealed again, byte for byte the same, whenever it has to be resent.

use std::fmt;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::wire::{
    MessageUid, TransferTag,
    limits::{CHUNK_BYTES, CHUNKS_MAX},
};

use super::{
    aead::{self, TAG_BYTES, counter_nonce},
    error::CryptoError,
    kdf::hkdf_sha256,
    random::random_bytes,
};

const TRANSFER_TAG_INFO: &[u8] = b"quicprochat/mesh/1/transfer-tag";

/// The key of one file. Wiped when dropped; prints nothing.
#[derive(Clone)]
pub struct FileKey(Zeroizing<[u8; 32]>);

impl FileKey {
    /// A new key, for one content.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self(Zeroizing::new(random_bytes(rng)))
    }

    /// The key a manifest carried, or the store kept.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key's bytes, for the manifest inside its seal and for the store.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Marks the file's chunks without telling its uid: the first 16 bytes of HKDF-SHA-256 over
    /// the key.
    pub fn transfer_tag(&self) -> TransferTag {
        let mut tag = [0; TransferTag::LEN];
        // Sixteen bytes are less than the 8160 that the derivation gives.
        let derived = hkdf_sha256(&[], &*self.0, TRANSFER_TAG_INFO, &mut tag);
        debug_assert!(derived.is_ok());
        TransferTag(tag)
    }

    /// Seals chunk `index` of `total`: ciphertext, then tag.
    ///
    /// # Errors
    /// An index or total out of range, more than [`CHUNK_BYTES`].
    pub fn seal_chunk(
        &self,
        uid: &MessageUid,
        index: u32,
        total: u32,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        check_range(index, total)?;
        if plaintext.len() > CHUNK_BYTES {
            return Err(CryptoError::PlaintextTooLarge { got: plaintext.len(), limit: CHUNK_BYTES });
        }
        let mut out = Vec::with_capacity(plaintext.len().saturating_add(TAG_BYTES));
        out.extend_from_slice(plaintext);
        let aad = associated_data(uid, index, total);
        let tag = aead::encrypt(&self.0, &counter_nonce(index), &aad, &mut out)?;
        out.extend_from_slice(&tag);
        Ok(out)
    }

    /// Opens chunk `index` of `total`.
    ///
    /// # Errors
    /// An index or total out of range; [`CryptoError::Aead`] where anything was changed.
    pub fn open_chunk(
        &self,
        uid: &MessageUid,
        index: u32,
        total: u32,
        sealed: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        check_range(index, total)?;
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(CryptoError::Aead)?;
        let mut out = ciphertext.to_vec();
        let aad = associated_data(uid, index, total);
        aead::decrypt(&self.0, &counter_nonce(index), &aad, &mut out, tag)?;
        Ok(out)
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileKey(..)")
    }
}

fn check_range(index: u32, total: u32) -> Result<(), CryptoError> {
    if index < total && total <= CHUNKS_MAX {
        Ok(())
    } else {
        Err(CryptoError::ChunkOutOfRange { index, total })
    }
}

fn associated_data(uid: &MessageUid, index: u32, total: u32) -> Vec<u8> {
    [uid.as_ref(), &index.to_be_bytes(), &total.to_be_bytes()].concat()
}
