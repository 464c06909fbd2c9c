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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{crypto::random::SeededRng, wire::limits::PAYLOAD_BYTES_MAX};

    const UID: MessageUid = MessageUid([1; 16]);

    fn key(seed: u64) -> FileKey {
        FileKey::generate(&mut SeededRng::new(seed))
    }

    #[test]
    fn chunks_round_trip_at_every_size() {
        let key = key(1);
        for len in [0, 1, 1000, CHUNK_BYTES] {
            let plaintext = vec![7; len];
            let sealed = key.seal_chunk(&UID, 0, 1, &plaintext).unwrap();
            assert_eq!(sealed.len(), len + TAG_BYTES);
            assert!(sealed.len() <= PAYLOAD_BYTES_MAX - 15);
            assert_eq!(key.open_chunk(&UID, 0, 1, &sealed), Ok(plaintext));
        }
    }

    #[test]
    fn a_resent_chunk_is_byte_for_byte_the_same() {
        let restored = FileKey::from_bytes(*key(2).as_bytes());
        let chunk = |key: &FileKey| key.seal_chunk(&UID, 3, 4, b"chunk").unwrap();
        assert_eq!(chunk(&key(2)), chunk(&restored));
        assert_ne!(chunk(&key(2)), chunk(&key(3)));
    }

    #[test]
    fn a_chunk_opens_in_its_own_place_only() {
        let key = key(4);
        let sealed = key.seal_chunk(&UID, 1, 3, b"chunk").unwrap();
        for (uid, index, total) in [(MessageUid([2; 16]), 1, 3), (UID, 2, 3), (UID, 1, 4)] {
            assert_eq!(key.open_chunk(&uid, index, total, &sealed), Err(CryptoError::Aead));
        }
        assert_eq!(self::key(5).open_chunk(&UID, 1, 3, &sealed), Err(CryptoError::Aead));
        for bit in 0..sealed.len() * 8 {
            let mut wrong = sealed.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open_chunk(&UID, 1, 3, &wrong), Err(CryptoError::Aead));
        }
        for end in 0..sealed.len() {
            assert_eq!(key.open_chunk(&UID, 1, 3, &sealed[..end]), Err(CryptoError::Aead));
        }
    }

    #[test]
    fn places_outside_a_file_and_chunks_too_large_are_refused() {
        let key = key(6);
        for (index, total) in [(0, 0), (1, 1), (0, CHUNKS_MAX + 1), (u32::MAX, u32::MAX)] {
            let refused = Err(CryptoError::ChunkOutOfRange { index, total });
            assert_eq!(key.seal_chunk(&UID, index, total, b""), refused);
            assert_eq!(key.open_chunk(&UID, index, total, &[0; 20]), refused);
        }
        assert!(key.seal_chunk(&UID, CHUNKS_MAX - 1, CHUNKS_MAX, b"").is_ok());
        assert!(key.seal_chunk(&UID, 0, 1, &vec![0; CHUNK_BYTES + 1]).is_err());
    }

    #[test]
    fn the_transfer_tag_follows_from_the_key_alone() {
        assert_eq!(key(7).transfer_tag(), key(7).transfer_tag());
        assert_ne!(key(7).transfer_tag(), key(8).transfer_tag());
        assert_eq!(format!("{:?}", key(7)), "FileKey(..)");
    }
}
