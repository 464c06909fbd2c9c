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
    /// One that this process verified before and kept as bytes; none where they are no record.
    pub(crate) fn kept(signed: SignedKeyRecord) -> Option<Self> {
        let record = signed.content().ok()?;
        Some(Self {
            digest: sha256(&[&signed.signed]),
            address: compute_address(&record.public_key),
            signed,
            record,
        })
    }

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

/// Signs one's own record (`ReceiverKeys::record`).
///
/// # Errors
/// [`CryptoError::AddressMismatch`] where the record is not `identity`'s.
pub fn sign(
    identity: &MeshIdentity,
    scratch: &mut SignatureInput,
    record: &KeyRecord,
) -> Result<VerifiedKeyRecord, CryptoError> {
    if record.public_key != identity.public_key() {
        let got = compute_address(&record.public_key);
        return Err(CryptoError::AddressMismatch { expected: identity.address(), got });
    }
    let signed = record.encode_signed();
    let signature = identity.sign(scratch.of(SignedType::KeyRecord, &signed));
    Ok(VerifiedKeyRecord {
        digest: sha256(&[&signed]),
        address: identity.address(),
        signed: SignedKeyRecord { signed: signed.into(), signature },
        record: record.clone(),
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::network_id,
        wire::{Signature, key_record::KEY_RECORD_BYTES_MAX},
    };

    fn scratch() -> SignatureInput {
        SignatureInput::new(network_id("public"))
    }

    fn record(identity: &MeshIdentity, order: u32) -> KeyRecord {
        let key = ReceiverKey { rk_id: order, suite: SUITE_X25519_CHACHA20, x25519: [9; 32] };
        KeyRecord { public_key: identity.public_key(), order, not_after: 1000, keys: vec![key] }
    }

    fn signed(identity: &MeshIdentity, record: &KeyRecord) -> VerifiedKeyRecord {
        sign(identity, &mut scratch(), record).unwrap()
    }

    #[test]
    fn a_record_verifies_as_received() {
        let identity = MeshIdentity::from_seed([1; 32]);
        let ours = signed(&identity, &record(&identity, 1));
        let received = SignedKeyRecord::decode(&ours.signed().encode()).unwrap();
        let theirs = verify(&mut scratch(), &received).unwrap();
        assert_eq!(theirs, ours);
        assert_eq!(theirs.address(), identity.address());
        assert_eq!(*theirs.digest(), sha256(&[&received.signed]));
        assert_eq!(theirs.hash8(), theirs.digest().as_bytes()[..8]);
        assert_eq!(*theirs.digest(), digest(theirs.record()));
    }

    #[test]
    fn no_flipped_bit_passes() {
        let identity = MeshIdentity::from_seed([1; 32]);
        let good = signed(&identity, &record(&identity, 1)).signed().encode();
        assert!(good.len() <= KEY_RECORD_BYTES_MAX);
        for at in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            let passed = SignedKeyRecord::decode(&bytes)
                .map_err(CryptoError::KeyRecord)
                .and_then(|record| verify(&mut scratch(), &record));
            assert!(passed.is_err_and(|error| error.is_peer_fault()), "bit {at}");
        }
    }

    #[test]
    fn another_network_context_or_signer_is_refused() {
        let identity = MeshIdentity::from_seed([1; 32]);
        let good = signed(&identity, &record(&identity, 1)).signed().clone();
        let mut elsewhere = SignatureInput::new(network_id("other"));
        let refused = CryptoError::Signature { signed_type: SignedType::KeyRecord };
        assert_eq!(verify(&mut elsewhere, &good), Err(refused.clone()));

        let mut scratch = scratch();
        let wrong = identity.sign(scratch.of(SignedType::Announce, &good.signed));
        let wrong = SignedKeyRecord { signature: wrong, ..good.clone() };
        assert_eq!(verify(&mut scratch, &wrong), Err(refused.clone()));

        let stranger = MeshIdentity::from_seed([2; 32]);
        let wrong = stranger.sign(scratch.of(SignedType::KeyRecord, &good.signed));
        let wrong = SignedKeyRecord { signature: wrong, ..good };
        assert_eq!(verify(&mut scratch, &wrong), Err(refused));

        let foreign = sign(&stranger, &mut scratch, &record(&identity, 1));
        assert!(matches!(foreign, Err(CryptoError::AddressMismatch { .. })));
    }

    #[test]
    fn a_small_order_identity_is_refused_before_its_signature() {
        let mut record = record(&MeshIdentity::from_seed([1; 32]), 1);
        record.public_key = PublicKey([0; 32]);
        // R and S of zero hold for a small-order key in a lax check.
        let forged = SignedKeyRecord { signed: record.encode_signed().into(), signature: Signature([0; 64]) };
        assert!(matches!(verify(&mut scratch(), &forged), Err(CryptoError::PublicKey { .. })));
    }

    #[test]
    fn the_highest_order_counts_and_equals_settle_on_one() {
        let identity = MeshIdentity::from_seed([1; 32]);
        let [one, two] = [1, 2].map(|order| signed(&identity, &record(&identity, order)));
        assert!(two.supersedes(&one) && !one.supersedes(&two) && !one.supersedes(&one));

        let mut twin = record(&identity, 1);
        twin.not_after = 2000;
        let twin = signed(&identity, &twin);
        assert_ne!(twin.supersedes(&one), one.supersedes(&twin));

        let stranger = MeshIdentity::from_seed([2; 32]);
        assert!(!signed(&stranger, &record(&stranger, 9)).supersedes(&one));
    }

    #[test]
    fn a_record_ends_and_only_known_suites_serve() {
        let identity = MeshIdentity::from_seed([1; 32]);
        let mut content = record(&identity, 1);
        let known = content.keys[0];
        content.keys.insert(0, ReceiverKey { rk_id: 77, suite: 200, x25519: [0; 32] });
        let both = signed(&identity, &content);
        assert!(both.is_current(1000) && !both.is_current(1001));
        assert_eq!(both.receiver_key(), Ok(&known));

        content.keys.pop();
        let unknown = signed(&identity, &content);
        assert_eq!(unknown.receiver_key(), Err(CryptoError::NoKnownSuite { address: identity.address() }));
    }
}
