//! Key records: signing one's own, checking those of others, and which of two counts.
//!
//! A record proves itself: the key it is signed with is in it, and the address follows from the
//! key. Of one address the highest `order` counts; between equals, which only a node that lost its
//! state can have made, the greater digest does, so that all who heard both settle on one.

use crate::wire::{
    Address, Digest, KeyRecord, PublicKey, ReceiverKey, SignedKeyRecord, key_record::SUITE_X25519_CHACHA20,
};

use super::{
    address::compute_address,
    error::CryptoError,
    hash::{prefix, sha256},
    identity::MeshIdentity,
    sign::{SignatureInput, SignedType, VerifyKey},
};

/// A key record whose signature holds. Only [`verify`] and [`sign`] make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedKeyRecord {
    signed: SignedKeyRecord,
    record: KeyRecord,
    digest: Digest,
    address: Address,
}

impl VerifiedKeyRecord {
    /// What it says.
    pub fn record(&self) -> &KeyRecord {
        &self.record
    }

    /// The record as received, for whoever asks for it.
    pub fn signed(&self) -> &SignedKeyRecord {
        &self.signed
    }

    /// SHA-256 over the signed slice, which every seal to these keys is bound to.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The first 8 bytes of the digest, which announces carry on radio in place of the record.
    pub fn hash8(&self) -> [u8; 8] {
        prefix(&self.digest)
    }

    /// Whose record it is.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Whose record it is.
    pub fn public_key(&self) -> &PublicKey {
        &self.record.public_key
    }

    /// True where this record takes the place of `held`. Records of two addresses never do.
    pub fn supersedes(&self, held: &VerifiedKeyRecord) -> bool {
        self.address == held.address && (self.record.order, self.digest) > (held.record.order, held.digest)
    }

    /// True while others may seal to it. Asked of a trusted clock only: where it is not, sealing to
    /// a key that is gone costs a `cannot_open`, waiting for a right clock costs the message.
    pub fn is_current(&self, now_unix_s: u64) -> bool {
        now_unix_s <= u64::from(self.record.not_after)
    }

    /// The key to seal to: the first of a suite known here.
    ///
    /// # Errors
    /// [`CryptoError::NoKnownSuite`].
    pub fn receiver_key(&self) -> Result<&ReceiverKey, CryptoError> {
        let known = self.record.keys.iter().find(|key| key.suite == SUITE_X25519_CHACHA20);
        known.ok_or(CryptoError::NoKnownSuite { address: self.address })
    }
}

/// The digest that a record of this content has.
pub fn digest(record: &KeyRecord) -> Digest {
    sha256(&[&record.encode_signed()])
}

/// Signs `record`, whose public key is made `identity`'s.
pub fn sign(identity: &MeshIdentity, scratch: &mut SignatureInput, record: &KeyRecord) -> VerifiedKeyRecord {
    let record = KeyRecord { public_key: identity.public_key(), ..record.clone() };
    let signed = record.encode_signed();
    let signature = identity.sign(scratch.of(SignedType::KeyRecord, &signed));
    VerifiedKeyRecord {
        digest: sha256(&[&signed]),
        address: identity.address(),
        signed: SignedKeyRecord { signed: signed.into(), signature },
        record,
    }
}

/// Checks a record as received. Whoever expects a certain node's compares
/// [`VerifiedKeyRecord::address`].
///
/// # Errors
/// Malformed content, a key that is refused, a signature that does not hold in this network.
pub fn verify(
    scratch: &mut SignatureInput,
    signed: &SignedKeyRecord,
) -> Result<VerifiedKeyRecord, CryptoError> {
    let record = signed.content().map_err(CryptoError::KeyRecord)?;
    let key = VerifyKey::new(&record.public_key)?;
    scratch.of(SignedType::KeyRecord, &signed.signed).verify(&key, &signed.signature)?;
    Ok(VerifiedKeyRecord {
        digest: sha256(&[&signed.signed]),
        address: compute_address(&record.public_key),
        signed: signed.clone(),
        record,
    })
}
