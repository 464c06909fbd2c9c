//! The key record: the X25519 keys to which a node lets others seal, signed by its identity.
//!
//! `[signed bstr, signature bstr64]`, where `signed` is the deterministic CBOR array
//! `[public_key bstr32, order u32, not_after u32, [[rk_id u32, suite u8, x25519 bstr32]…]]` with
//! one or two keys, best first. Only the shape is read here: that the signature holds, and that
//! the key belongs to an address, is `crypto::key_record`'s to say.

use bytes::Bytes;

use super::{
    cbor::{self, Reader},
    error::DecodeError,
    ids::{PublicKey, Signature},
    limits::KEY_RECORD_KEYS_MAX,
};

/// The suite every node knows: X25519, HKDF-SHA-256, ChaCha20-Poly1305.
pub const SUITE_X25519_CHACHA20: u8 = 1;

/// Largest `signed` part in bytes: array heads 2, public key 34, two u32 10, and for each key its
/// head 1, rk_id 5, suite 2, X25519 key 34.
pub const KEY_RECORD_SIGNED_BYTES_MAX: usize = 2 + 34 + 10 + KEY_RECORD_KEYS_MAX * 42;

/// Largest signed key record in bytes: array head 1, byte string heads 4, both parts.
pub const KEY_RECORD_BYTES_MAX: usize = 5 + KEY_RECORD_SIGNED_BYTES_MAX + Signature::LEN;

/// One key to seal to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiverKey {
    /// Names this key of this record to its owner: drawn at random, so that a key made after a
    /// loss of state is not taken for one made before.
    pub rk_id: u32,
    /// How to seal to it. A suite nobody has told us of is carried, and not used.
    pub suite: u8,
    /// The X25519 public key.
    pub x25519: [u8; 32],
}

/// What a key record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Whose keys these are.
    pub public_key: PublicKey,
    /// Rises with every record of this node; the highest one heard counts.
    pub order: u32,
    /// Unix seconds after which nobody may seal to these keys.
    pub not_after: u32,
    /// One or two keys, best first: a sender takes the first whose suite it knows.
    pub keys: Vec<ReceiverKey>,
}

impl KeyRecord {
    /// The slice that is signed and whose SHA-256 goes into every seal.
    pub fn encode_signed(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(KEY_RECORD_SIGNED_BYTES_MAX);
        cbor::put_array(&mut out, 4);
        cbor::put_bytes(&mut out, self.public_key.as_bytes());
        cbor::put_uint(&mut out, u64::from(self.order));
        cbor::put_uint(&mut out, u64::from(self.not_after));
        cbor::put_array(&mut out, self.keys.len() as u64);
        for key in &self.keys {
            cbor::put_array(&mut out, 3);
            cbor::put_uint(&mut out, u64::from(key.rk_id));
            cbor::put_uint(&mut out, u64::from(key.suite));
            cbor::put_bytes(&mut out, &key.x25519);
        }
        out
    }

    /// Reads a signed slice.
    ///
    /// # Errors
    /// Any other spelling, no key or more than two, an rk_id named twice, trailing bytes.
    pub fn decode_signed(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.array(4, 4, "key record")?;
        let public_key = PublicKey(reader.fixed("key record public key")?);
        let order = reader.u32("key record order")?;
        let not_after = reader.u32("key record not_after")?;
        let count = reader.array(1, KEY_RECORD_KEYS_MAX as u64, "key record keys")?;
        let mut keys: Vec<ReceiverKey> = Vec::with_capacity(KEY_RECORD_KEYS_MAX);
        for _ in 0..count {
            reader.array(3, 3, "receiver key")?;
            let offset = reader.offset();
            let rk_id = reader.u32("receiver key id")?;
            if keys.iter().any(|key| key.rk_id == rk_id) {
                return Err(DecodeError::OutOfRange {
                    field: "receiver key id",
                    offset,
                    got: u64::from(rk_id),
                });
            }
            let suite = reader.u8(u8::MAX, "receiver key suite")?;
            keys.push(ReceiverKey { rk_id, suite, x25519: reader.fixed("receiver key")? });
        }
        reader.finish()?;
        Ok(Self { public_key, order, not_after, keys })
    }
}

/// A key record as it travels: the bytes as received and the signature over them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedKeyRecord {
    /// The signed slice, exactly as received.
    pub signed: Bytes,
    /// Under the identity that `signed` names.
    pub signature: Signature,
}

impl SignedKeyRecord {
    /// Appends the record, for a message that carries one.
    pub fn write(&self, out: &mut Vec<u8>) {
        cbor::put_array(out, 2);
        cbor::put_bytes(out, &self.signed);
        cbor::put_bytes(out, self.signature.as_bytes());
    }

    /// The record by itself.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(KEY_RECORD_BYTES_MAX);
        self.write(&mut out);
        out
    }

    /// Reads a record where a message carries one. The signed part's shape is checked as well.
    ///
    /// # Errors
    /// As [`KeyRecord::decode_signed`].
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array(2, 2, "signed key record")?;
        let signed = reader.bytes(KEY_RECORD_SIGNED_BYTES_MAX, "signed key record")?;
        let signed_at = reader.offset().saturating_sub(signed.len());
        KeyRecord::decode_signed(signed).map_err(|e| e.shifted(signed_at))?;
        let signature = Signature(reader.fixed("key record signature")?);
        Ok(Self { signed: Bytes::copy_from_slice(signed), signature })
    }

    /// Reads a record by itself.
    ///
    /// # Errors
    /// As [`SignedKeyRecord::read`], and trailing bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let record = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(record)
    }

    /// What the record says, its signature not considered.
    ///
    /// # Errors
    /// As [`KeyRecord::decode_signed`].
    pub fn content(&self) -> Result<KeyRecord, DecodeError> {
        KeyRecord::decode_signed(&self.signed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::error::CanonicalRule;

    fn key(rk_id: u32) -> ReceiverKey {
        ReceiverKey { rk_id, suite: SUITE_X25519_CHACHA20, x25519: [rk_id as u8; 32] }
    }

    fn record(keys: Vec<ReceiverKey>) -> KeyRecord {
        KeyRecord { public_key: PublicKey([7; 32]), order: 9, not_after: 1_800_000_000, keys }
    }

    fn signed(record: &KeyRecord) -> SignedKeyRecord {
        SignedKeyRecord { signed: record.encode_signed().into(), signature: Signature([5; 64]) }
    }

    #[test]
    fn a_record_round_trips_byte_for_byte() {
        for keys in [vec![key(1)], vec![key(1), key(2)]] {
            let before = signed(&record(keys));
            let bytes = before.encode();
            let after = SignedKeyRecord::decode(&bytes).unwrap();
            assert_eq!(after, before);
            assert_eq!(after.encode(), bytes);
            assert_eq!(after.content().unwrap().encode_signed(), before.signed);
        }
    }

    #[test]
    fn the_largest_record_has_exactly_the_size_said() {
        let mut largest = record(vec![key(u32::MAX), key(u32::MAX - 1)]);
        largest.order = u32::MAX;
        largest.not_after = u32::MAX;
        largest.keys.iter_mut().for_each(|key| key.suite = u8::MAX);
        assert_eq!(largest.encode_signed().len(), KEY_RECORD_SIGNED_BYTES_MAX);
        assert_eq!(signed(&largest).encode().len(), KEY_RECORD_BYTES_MAX);
    }

    #[test]
    fn prefixes_and_surplus_bytes_are_refused() {
        let bytes = signed(&record(vec![key(1), key(2)])).encode();
        for end in 0..bytes.len() {
            assert!(SignedKeyRecord::decode(&bytes[..end]).is_err(), "prefix of {end}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(
            SignedKeyRecord::decode(&longer),
            Err(DecodeError::Trailing { offset: bytes.len(), count: 1 })
        );
        let mut inner = record(vec![key(1)]).encode_signed();
        inner.push(0);
        assert!(matches!(KeyRecord::decode_signed(&inner), Err(DecodeError::Trailing { .. })));
    }

    #[test]
    fn none_three_or_twin_keys_are_refused() {
        for keys in [vec![], vec![key(1), key(2), key(3)], vec![key(1), key(1)]] {
            let refused = KeyRecord::decode_signed(&record(keys).encode_signed());
            assert!(matches!(refused, Err(DecodeError::OutOfRange { .. })), "{refused:?}");
        }
    }

    #[test]
    fn a_longer_spelling_is_refused() {
        let mut bytes = record(vec![key(1)]).encode_signed();
        // The order, 9, sits behind the array head and the public key.
        assert_eq!(bytes[35], 9);
        bytes.splice(35..36, [0x18, 9]);
        assert_eq!(
            KeyRecord::decode_signed(&bytes),
            Err(DecodeError::NotCanonical { offset: 35, rule: CanonicalRule::ShortestLength })
        );
    }

    #[test]
    fn an_unknown_suite_is_carried() {
        let mut newer = key(1);
        newer.suite = 200;
        let newer = record(vec![newer, key(2)]);
        assert_eq!(KeyRecord::decode_signed(&newer.encode_signed()), Ok(newer));
    }
}
