//! Announces: how a node tells the mesh that it exists, and what routes are made of.

use bytes::Bytes;

use super::{
    cbor::{self, Reader},
    error::DecodeError,
    ids::{Digest, PublicKey, Signature},
    key_record::SignedKeyRecord,
    limits::{MAX_HOPS_MAX, SERVICE_DATA_BYTES_MAX},
};

/// Fields of an announce's signed part.
const SIGNED_FIELDS: u64 = 9;

/// Largest signed part: fixed fields and service data.
const SIGNED_BYTES_MAX: usize = 128 + SERVICE_DATA_BYTES_MAX;

/// Longest signed lifetime: constrained origins announce seldom.
pub const ANNOUNCE_LIFETIME_S_MAX: u32 = 24 * 3600;

/// What a node offers, as bits. Unknown bits are kept and passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Capabilities(pub u16);

impl Capabilities {
    /// Forwards for others.
    pub const RELAY: u16 = 0x0001;
    /// Stores for others, and serves key records.
    pub const STORE: u16 = 0x0002;
    /// Has a route out of this network, for instance to another mesh.
    pub const GATEWAY: u16 = 0x0004;
    /// Asks others to spare its links.
    pub const CONSTRAINED: u16 = 0x0008;
    /// Announces appointments.
    pub const FAPP_THERAPIST: u16 = 0x0100;
    /// Carries appointments for others.
    pub const FAPP_RELAY: u16 = 0x0200;

    /// True when every bit of `bits` is set.
    pub fn has(self, bits: u16) -> bool {
        self.0 & bits == bits
    }

    /// Names of the known bits, for people and JSON.
    pub fn names(self) -> Vec<&'static str> {
        [
            (Self::RELAY, "relay"),
            (Self::STORE, "store"),
            (Self::GATEWAY, "gateway"),
            (Self::CONSTRAINED, "constrained"),
            (Self::FAPP_THERAPIST, "fapp_therapist"),
            (Self::FAPP_RELAY, "fapp_relay"),
        ]
        .into_iter()
        .filter_map(|(bit, name)| self.has(bit).then_some(name))
        .collect()
    }
}

/// The signed content of an announce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnounceContent {
    /// Whose announce it is; certified by the address it hashes to.
    pub public_key: PublicKey,
    /// First part of the order: incremented durably at each start.
    pub boot_epoch: u32,
    /// Second part of the order.
    pub sequence: u32,
    /// What the node offers.
    pub capabilities: Capabilities,
    /// Seconds from first reception for which the announce holds, 1…86,400.
    pub lifetime_s: u32,
    /// Links it may cross, 1…128.
    pub max_hops: u8,
    /// First 8 bytes of SHA-256 over the signed part of the node's key record.
    pub key_record_hash: Option<[u8; 8]>,
    /// Hash of the node's current MLS key package.
    pub keypackage_hash: Option<Digest>,
    /// Free bytes for services, at most 256.
    pub service_data: Bytes,
}

impl AnnounceContent {
    /// The bytes to sign.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        cbor::put_array(&mut out, SIGNED_FIELDS);
        cbor::put_bytes(&mut out, &self.public_key.0);
        cbor::put_uint(&mut out, u64::from(self.boot_epoch));
        cbor::put_uint(&mut out, u64::from(self.sequence));
        cbor::put_uint(&mut out, u64::from(self.capabilities.0));
        cbor::put_uint(&mut out, u64::from(self.lifetime_s));
        cbor::put_uint(&mut out, u64::from(self.max_hops));
        cbor::put_bytes(&mut out, self.key_record_hash.as_ref().map_or(&[], |h| &h[..]));
        cbor::put_bytes(&mut out, self.keypackage_hash.as_ref().map_or(&[], |h| &h.0[..]));
        cbor::put_bytes(&mut out, &self.service_data);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        r.array(SIGNED_FIELDS, SIGNED_FIELDS, "announce")?;
        let public_key = PublicKey(r.fixed("public_key")?);
        let boot_epoch = r.u32("boot_epoch")?;
        let sequence = r.u32("sequence")?;
        let capabilities = Capabilities(r.u16("capabilities")?);
        let lifetime_s = at_least_one(&mut r, u64::from(ANNOUNCE_LIFETIME_S_MAX), "lifetime")? as u32;
        let max_hops = at_least_one(&mut r, u64::from(MAX_HOPS_MAX), "max_hops")? as u8;
        let key_record_hash = optional(&mut r, "key_record_hash")?;
        let keypackage_hash = optional(&mut r, "keypackage_hash")?.map(Digest);
        let service_data = Bytes::copy_from_slice(r.bytes(SERVICE_DATA_BYTES_MAX, "service_data")?);
        r.finish()?;
        Ok(Self {
            public_key,
            boot_epoch,
            sequence,
            capabilities,
            lifetime_s,
            max_hops,
            key_record_hash,
            keypackage_hash,
            service_data,
        })
    }

    /// The order of announces of one origin: the higher wins, and wall time never matters.
    pub fn order(&self) -> (u32, u32) {
        (self.boot_epoch, self.sequence)
    }
}

fn at_least_one(r: &mut Reader<'_>, max: u64, field: &'static str) -> Result<u64, DecodeError> {
    let offset = r.offset();
    match r.uint(max, field)? {
        0 => Err(DecodeError::OutOfRange { field, offset, got: 0 }),
        value => Ok(value),
    }
}

fn optional<const N: usize>(r: &mut Reader<'_>, field: &'static str) -> Result<Option<[u8; N]>, DecodeError> {
    let offset = r.offset();
    let bytes = r.bytes(N, field)?;
    match bytes.len() {
        0 => Ok(None),
        got => {
            bytes.try_into().map(Some).map_err(|_| DecodeError::OutOfRange { field, offset, got: got as u64 })
        }
    }
}

/// One announce, decoded and not verified: `[hop_count, signed, signature, ?key_record]`.
#[derive(Debug, Clone)]
pub struct Announce {
    /// Links crossed before the one it came over. A claim of the neighbour's.
    pub hop_count: u8,
    /// The signed content.
    pub content: AnnounceContent,
    /// The signed bytes as received.
    pub signed: Bytes,
    /// Signature over them.
    pub signature: Signature,
    /// The key record whose hash the announce names, on links wide enough for it. It carries a
    /// signature of its own, so any relay may add or drop it.
    pub key_record: Option<SignedKeyRecord>,
}

impl Announce {
    /// Puts a fresh announce together.
    pub fn new(
        content: AnnounceContent,
        signed: Bytes,
        signature: Signature,
        key_record: Option<SignedKeyRecord>,
    ) -> Self {
        Self { hop_count: 0, content, signed, signature, key_record }
    }

    pub(super) fn decode(body: &Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(body);
        let elements = r.array(3, 4, "announce")?;
        let hop_count = r.u8(u8::MAX, "hop_count")?;
        let signed = r.bytes(SIGNED_BYTES_MAX, "announce content")?;
        let signed_at = r.offset().saturating_sub(signed.len());
        let content = AnnounceContent::decode(signed).map_err(|e| e.shifted(signed_at))?;
        let signed = body.slice_ref(signed);
        let signature = Signature(r.fixed("signature")?);
        let key_record = if elements == 4 {
            let start = r.offset();
            r.skip("key_record")?;
            let record = SignedKeyRecord::decode(&body.slice(start..r.offset()));
            Some(record.map_err(|e| e.shifted(start))?)
        } else {
            None
        };
        r.finish()?;
        Ok(Self { hop_count, content, signed, signature, key_record })
    }

    /// The body of the frame that carries it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.room());
        self.write(&mut out);
        out
    }

    /// Appends the body of the frame.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        cbor::put_array(out, 3 + u64::from(self.key_record.is_some()));
        cbor::put_uint(out, u64::from(self.hop_count));
        cbor::put_bytes(out, &self.signed);
        cbor::put_bytes(out, &self.signature.0);
        if let Some(record) = &self.key_record {
            record.write(out);
        }
    }

    /// Bytes that its frame takes at most.
    pub(super) fn room(&self) -> usize {
        let record = self.key_record.as_ref().map_or(0, |record| record.signed.len().saturating_add(80));
        self.signed.len().saturating_add(80).saturating_add(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> AnnounceContent {
        AnnounceContent {
            public_key: PublicKey([1; 32]),
            boot_epoch: 1,
            sequence: 2,
            capabilities: Capabilities(Capabilities::RELAY | 0x8000),
            lifetime_s: 1_800,
            max_hops: 8,
            key_record_hash: None,
            keypackage_hash: None,
            service_data: Bytes::new(),
        }
    }

    #[test]
    fn lifetimes_and_hop_limits_stay_in_their_range() {
        let is_fine = |content: AnnounceContent| AnnounceContent::decode(&content.encode()).is_ok();
        assert!(is_fine(content()));
        assert!(is_fine(AnnounceContent { lifetime_s: ANNOUNCE_LIFETIME_S_MAX, max_hops: 128, ..content() }));
        assert!(!is_fine(AnnounceContent { lifetime_s: 0, ..content() }));
        assert!(!is_fine(AnnounceContent { lifetime_s: ANNOUNCE_LIFETIME_S_MAX + 1, ..content() }));
        assert!(!is_fine(AnnounceContent { max_hops: 0, ..content() }));
        assert!(!is_fine(AnnounceContent { max_hops: 129, ..content() }));
        let service_data = Bytes::from(vec![0; SERVICE_DATA_BYTES_MAX + 1]);
        assert!(!is_fine(AnnounceContent { service_data, ..content() }));
    }

    #[test]
    fn unknown_capabilities_are_kept_and_not_named() {
        let read = AnnounceContent::decode(&content().encode()).expect("an announce");
        assert_eq!(read.capabilities.0, 0x8001);
        assert_eq!(read.capabilities.names(), ["relay"]);
    }

    #[test]
    fn the_boot_epoch_counts_before_the_sequence() {
        let later = AnnounceContent { boot_epoch: 2, sequence: 0, ..content() };
        assert!(later.order() > content().order());
    }
}
