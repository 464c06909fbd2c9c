//! Key records: the X25519 keys that messages to a node are sealed to.

use bytes::Bytes;

use super::{
    cbor::{self, Reader},
    error::DecodeError,
    ids::{PublicKey, Signature},
    limits::KEY_RECORD_KEYS_MAX,
};

/// Largest signed part: a key, two numbers and two receiver keys.
const SIGNED_BYTES_MAX: usize = 160;

/// One receiver key of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverKey {
    /// Names the key inside its owner's records; selects exactly one secret.
    pub rk_id: u32,
    /// How to seal to it; 1 is X25519, HKDF-SHA-256, ChaCha20-Poly1305.
    pub suite: u8,
    /// The X25519 public key.
    pub x25519: [u8; 32],
}

/// The content of a key record: `[public_key, order, not_after, [[rk_id, suite, x25519]…]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Whose record it is.
    pub public_key: PublicKey,
    /// The higher of two records of one node wins.
    pub order: u32,
    /// Seconds since 1970 after which nobody seals to it.
    pub not_after_unix_s: u32,
    /// One or two keys, the preferred one first.
    pub keys: Vec<ReceiverKey>,
}

impl KeyRecord {
    /// The bytes to sign.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SIGNED_BYTES_MAX);
        cbor::put_array(&mut out, 4);
        cbor::put_bytes(&mut out, &self.public_key.0);
        cbor::put_uint(&mut out, u64::from(self.order));
        cbor::put_uint(&mut out, u64::from(self.not_after_unix_s));
        cbor::put_array(&mut out, self.keys.len() as u64);
        for key in &self.keys {
            cbor::put_array(&mut out, 3);
            cbor::put_uint(&mut out, u64::from(key.rk_id));
            cbor::put_uint(&mut out, u64::from(key.suite));
            cbor::put_bytes(&mut out, &key.x25519);
        }
        out
    }

    /// Reads the signed bytes.
    pub fn decode(signed: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(signed);
        r.array(4, 4, "key_record")?;
        let public_key = PublicKey(r.fixed("public_key")?);
        let order = r.u32("order")?;
        let not_after_unix_s = r.u32("not_after")?;
        let count = r.array(1, KEY_RECORD_KEYS_MAX as u64, "keys")?;
        let mut keys = Vec::with_capacity(KEY_RECORD_KEYS_MAX);
        for _ in 0..count {
            r.array(3, 3, "receiver key")?;
            let rk_id = r.u32("rk_id")?;
            let suite = r.u8(u8::MAX, "suite")?;
            let x25519 = r.fixed("x25519")?;
            keys.push(ReceiverKey { rk_id, suite, x25519 });
        }
        r.finish()?;
        Ok(Self { public_key, order, not_after_unix_s, keys })
    }
}

/// A key record as it travels, not yet verified: `[signed, signature]`. Keeps the received bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedKeyRecord {
    /// The signed bytes; [`KeyRecord::decode`] reads them.
    pub signed: Bytes,
    /// Signature over them.
    pub signature: Signature,
}

impl SignedKeyRecord {
    /// Reads `[signed, signature]`; the content is checked for its shape too.
    pub fn decode(body: &Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(body);
        r.array(2, 2, "key_record")?;
        let signed = r.bytes(SIGNED_BYTES_MAX, "key_record content")?;
        let signed_at = r.offset().saturating_sub(signed.len());
        KeyRecord::decode(signed).map_err(|e| e.shifted(signed_at))?;
        let signed = body.slice_ref(signed);
        let signature = Signature(r.fixed("signature")?);
        r.finish()?;
        Ok(Self { signed, signature })
    }

    /// Writes `[signed, signature]`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.signed.len().saturating_add(72));
        cbor::put_array(&mut out, 2);
        cbor::put_bytes(&mut out, &self.signed);
        cbor::put_bytes(&mut out, &self.signature.0);
        out
    }
}
