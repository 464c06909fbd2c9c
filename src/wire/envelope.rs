//! Envelopes: what every relay reads of a message, and all it reads.
//!
//! An envelope is `[hop_count, signed, proof, ?source_key]`. `signed` is a byte string holding
//! `[kind·4 + priority, source, destination, boot_epoch, sequence, created, lifetime, max_hops,
//! payload]`. The signature and the packet id cover those bytes exactly as received; nothing is
//! ever encoded again to be verified. Mutable is the hop count alone.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    TrafficClass,
    cbor::{self, Reader},
    error::DecodeError,
    frame::{FrameExt, FrameParts, FrameType, HEAD_BYTES_MAX, put_ext},
    ids::{Address, Digest, PublicKey, Signature},
    limits::{MAX_HOPS_MAX, MERKLE_LEVELS_MAX, PAYLOAD_BYTES_MAX},
};

/// Fields of `signed`.
const SIGNED_FIELDS: u64 = 9;

/// Head bytes of `signed` in front of its payload at most: V1, largest values.
const SIGNED_PREFIX_BYTES_MAX: usize = 96;

/// Room for a frame's head and an extension with every entry.
const EXT_ROOM_BYTES: usize = 64;

/// Version of the Merkle proof form, its first element.
const MERKLE_PROOF_FORM: u64 = 1;

/// How an envelope names its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EnvelopeFormat {
    /// 32-byte public keys (`MeshEnvelope`).
    V1,
    /// 16-byte addresses (`MeshEnvelopeV2`).
    V2,
}

impl EnvelopeFormat {
    /// The frame type that carries it.
    pub fn frame_type(self) -> FrameType {
        match self {
            EnvelopeFormat::V1 => FrameType::EnvelopeV1,
            EnvelopeFormat::V2 => FrameType::EnvelopeV2,
        }
    }
}

/// A node as an envelope names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeName {
    /// By public key (V1).
    Key(PublicKey),
    /// By address (V2).
    Address(Address),
}

impl NodeName {
    /// The public key where the name is one.
    pub fn key(&self) -> Option<PublicKey> {
        match self {
            NodeName::Key(key) => Some(*key),
            NodeName::Address(_) => None,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            NodeName::Key(key) => cbor::put_bytes(out, &key.0),
            NodeName::Address(address) => cbor::put_bytes(out, &address.0),
        }
    }

    fn read(r: &mut Reader<'_>, format: EnvelopeFormat, field: &'static str) -> Result<Self, DecodeError> {
        Ok(match format {
            EnvelopeFormat::V1 => NodeName::Key(PublicKey(r.fixed(field)?)),
            EnvelopeFormat::V2 => NodeName::Address(Address(r.fixed(field)?)),
        })
    }
}

/// What an envelope carries. An unknown kind is forwarded opaquely when its signature holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnvelopeKind(pub u8);

impl EnvelopeKind {
    /// A sealed message.
    pub const MESSAGE: Self = Self(0);
    /// A chunk of a file, sealed under the file's key.
    pub const CHUNK: Self = Self(1);
    /// The destination's receipt for what it stored.
    pub const RECEIPT: Self = Self(2);
    /// The destination cannot open a message; carries its newest key record.
    pub const CANNOT_OPEN: Self = Self(3);
    /// Signed, not encrypted, to everyone.
    pub const BROADCAST: Self = Self(4);
    /// Asks the destination for a pong.
    pub const PING: Self = Self(5);
    /// Answers a ping.
    pub const PONG: Self = Self(6);
    /// Asks every relay on the way, and the destination, for a trace reply.
    pub const TRACE: Self = Self(7);
    /// Answers a trace.
    pub const TRACE_REPLY: Self = Self(8);
    /// Largest kind the field holds.
    pub const MAX: u8 = 63;

    /// Name in logs and metrics; one name for all kinds this version does not know.
    pub fn name(self) -> &'static str {
        match self {
            Self::MESSAGE => "message",
            Self::CHUNK => "chunk",
            Self::RECEIPT => "receipt",
            Self::CANNOT_OPEN => "cannot_open",
            Self::BROADCAST => "broadcast",
            Self::PING => "ping",
            Self::PONG => "pong",
            Self::TRACE => "trace",
            Self::TRACE_REPLY => "trace_reply",
            _ => "unknown",
        }
    }

    /// Kinds that a custodian keeps while their destination is away: what has an outbox row.
    pub fn is_stored_for_others(self) -> bool {
        matches!(self, Self::MESSAGE | Self::CHUNK)
    }
}

/// Priority classes; shedding drops from the bottom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Priority {
    /// First to be shed.
    Low = 0,
    /// What nothing else was said of.
    #[default]
    Normal = 1,
    /// Before normal.
    High = 2,
    /// Last to be shed; at most 5 % of a neighbour's lease.
    Critical = 3,
}

impl Priority {
    /// From its two bits.
    pub fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Low,
            1 => Self::Normal,
            2 => Self::High,
            _ => Self::Critical,
        }
    }
}

/// How long a message may live, as a code 0…23.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lifetime(u8);

/// Seconds by code: 10 s to 14 d.
const LIFETIMES_S: [u32; 24] = [
    10, 20, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 14_400, 21_600, 28_800, 43_200, 64_800,
    86_400, 129_600, 172_800, 259_200, 432_000, 604_800, 1_209_600,
];

impl Lifetime {
    /// Ten minutes, the longest a broadcast may live.
    pub const TEN_MINUTES: Self = Self(6);
    /// One minute, for questions somebody waits for.
    pub const ONE_MINUTE: Self = Self(3);
    /// One day, the default.
    pub const ONE_DAY: Self = Self(17);
    /// Fourteen days, the longest.
    pub const MAX: Self = Self(23);

    /// From its code.
    pub fn from_code(code: u8) -> Option<Self> {
        (usize::from(code) < LIFETIMES_S.len()).then_some(Self(code))
    }

    /// The shortest lifetime of at least `wanted`, the longest where none is.
    pub fn at_least(wanted: Duration) -> Self {
        let code = LIFETIMES_S.iter().position(|s| Duration::from_secs(u64::from(*s)) >= wanted);
        code.map_or(Self::MAX, |code| Self(code as u8))
    }

    /// The code.
    pub fn code(self) -> u8 {
        self.0
    }

    /// Seconds.
    pub fn as_secs(self) -> u32 {
        LIFETIMES_S.get(usize::from(self.0)).copied().unwrap_or(0)
    }
}

/// The immutable fields before the payload. As associated data they bind a sealed payload to its
/// envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvelopeHeader {
    /// What the payload is, at most [`EnvelopeKind::MAX`]: the field has six bits.
    pub kind: EnvelopeKind,
    /// Queueing and shedding class.
    pub priority: Priority,
    /// Who signed it.
    pub source: NodeName,
    /// Who it is for; [`Address::BROADCAST`] for everyone.
    pub destination: NodeName,
    /// Low 16 bits of the source's boot epoch.
    pub boot_epoch: u16,
    /// Number within the boot epoch.
    pub sequence: u32,
    /// Seconds since 1970 by the source's clock.
    pub created_unix_s: u32,
    /// How long it may live.
    pub lifetime: Lifetime,
    /// Links it may cross, 1…128.
    pub max_hops: u8,
}

impl EnvelopeHeader {
    /// Which of the two formats these names are spelled in.
    pub fn format(&self) -> EnvelopeFormat {
        match self.source {
            NodeName::Key(_) => EnvelopeFormat::V1,
            NodeName::Address(_) => EnvelopeFormat::V2,
        }
    }

    /// The bytes of `signed` before its payload: the associated data of a sealed payload.
    pub fn prefix(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SIGNED_PREFIX_BYTES_MAX);
        cbor::put_array(&mut out, SIGNED_FIELDS);
        cbor::put_uint(&mut out, u64::from((self.kind.0 << 2) | self.priority as u8));
        self.source.put(&mut out);
        self.destination.put(&mut out);
        cbor::put_uint(&mut out, u64::from(self.boot_epoch));
        cbor::put_uint(&mut out, u64::from(self.sequence));
        cbor::put_uint(&mut out, u64::from(self.created_unix_s));
        cbor::put_uint(&mut out, u64::from(self.lifetime.code()));
        cbor::put_uint(&mut out, u64::from(self.max_hops));
        out
    }

    /// The whole of `signed`: the prefix and the payload, of at most
    /// [`PAYLOAD_BYTES_MAX`] bytes.
    pub fn signed(&self, payload: &[u8]) -> Vec<u8> {
        let mut out = self.prefix();
        out.reserve(payload.len().saturating_add(3));
        cbor::put_bytes(&mut out, payload);
        out
    }

    /// The queue it rides in: what a destination answers to a message is control, chunks are bulk.
    pub fn class(&self) -> TrafficClass {
        match self.kind {
            EnvelopeKind::CHUNK => TrafficClass::Bulk,
            EnvelopeKind::RECEIPT | EnvelopeKind::CANNOT_OPEN => TrafficClass::Control,
            _ => TrafficClass::Interactive,
        }
    }
}

/// What shows that the source made the envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A signature over the envelope's own signature input.
    Signature(Signature),
    /// A signature over the Merkle root of many envelopes, with this one's path.
    Merkle {
        /// Signature over the root, in a context of its own.
        root_signature: Signature,
        /// The leaf's index.
        index: u32,
        /// Sibling digests from the leaf up.
        path: Vec<Digest>,
    },
}

impl Proof {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Proof::Signature(signature) => cbor::put_bytes(out, &signature.0),
            Proof::Merkle { root_signature, index, path } => {
                cbor::put_array(out, 4);
                cbor::put_uint(out, MERKLE_PROOF_FORM);
                cbor::put_bytes(out, &root_signature.0);
                cbor::put_uint(out, u64::from(*index));
                cbor::put_head(out, cbor::major::BYTES, (path.len() as u64).saturating_mul(32));
                for digest in path {
                    out.extend_from_slice(&digest.0);
                }
            }
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if r.peek_major() == Some(cbor::major::BYTES) {
            return Ok(Proof::Signature(Signature(r.fixed("proof signature")?)));
        }
        r.array(4, 4, "proof")?;
        let offset = r.offset();
        let form = r.uint(u64::MAX, "proof form")?;
        if form != MERKLE_PROOF_FORM {
            return Err(DecodeError::OutOfRange { field: "proof form", offset, got: form });
        }
        let root_signature = Signature(r.fixed("root signature")?);
        let index_offset = r.offset();
        let index = r.u32("leaf index")?;
        let offset = r.offset();
        let bytes = r.bytes(MERKLE_LEVELS_MAX * 32, "Merkle path")?;
        let (levels, rest) = bytes.as_chunks::<32>();
        if !rest.is_empty() || levels.is_empty() {
            return Err(DecodeError::OutOfRange {
                field: "Merkle path length",
                offset,
                got: bytes.len() as u64,
            });
        }
        if u64::from(index) >= 1u64 << levels.len() {
            return Err(DecodeError::OutOfRange {
                field: "leaf index",
                offset: index_offset,
                got: u64::from(index),
            });
        }
        Ok(Proof::Merkle { root_signature, index, path: levels.iter().map(|d| Digest(*d)).collect() })
    }
}

/// One envelope, decoded and not verified. It is handed from task to actor to task, so it is small to
/// move; cloning shares everything but the hop count.
#[derive(Debug, Clone)]
pub struct Envelope {
    hop_count: u8,
    body: Arc<Body>,
}

/// What no relay changes.
#[derive(Debug, Clone)]
struct Body {
    header: EnvelopeHeader,
    proof: Proof,
    source_key: Option<PublicKey>,
    /// From the head of `signed` to the end of the envelope, as received.
    tail: Bytes,
    signed: Range<usize>,
    payload: Range<usize>,
    elements: u8,
}

impl Envelope {
    /// Reads an envelope where `r` stands in `frame`.
    pub(super) fn read(
        frame: &Bytes,
        r: &mut Reader<'_>,
        format: EnvelopeFormat,
    ) -> Result<Self, DecodeError> {
        // A V1 envelope names its source by key, so an attached one would only be a second spelling.
        let most = if format == EnvelopeFormat::V1 { 3 } else { 4 };
        let elements = r.array(3, most, "envelope")? as u8;
        let hop_count = r.u8(u8::MAX, "hop_count")?;
        let tail_at = r.offset();
        let max = SIGNED_PREFIX_BYTES_MAX + 3 + PAYLOAD_BYTES_MAX;
        let signed_bytes = r.bytes(max, "signed")?;
        let signed_end = r.offset();
        let signed_at = signed_end.saturating_sub(signed_bytes.len());
        let (header, payload_len) = read_signed(signed_bytes, format).map_err(|e| e.shifted(signed_at))?;
        let proof = Proof::read(r)?;
        let source_key = if elements == 4 { Some(PublicKey(r.fixed("source_key")?)) } else { None };
        let end = r.offset();
        let relative = |at: usize| at.saturating_sub(tail_at);
        let body = Body {
            header,
            proof,
            source_key,
            tail: frame.slice(tail_at..end),
            signed: relative(signed_at)..relative(signed_end),
            payload: relative(signed_end.saturating_sub(payload_len))..relative(signed_end),
            elements,
        };
        Ok(Self { hop_count, body: Arc::new(body) })
    }

    /// Puts a fresh envelope together; `signed` must come from [`EnvelopeHeader::signed`] of the
    /// same header. A V1 envelope names its source by key, so `source_key` is left out of it.
    pub fn assemble(
        header: EnvelopeHeader,
        signed: &[u8],
        proof: Proof,
        source_key: Option<PublicKey>,
    ) -> Result<Self, DecodeError> {
        let source_key = source_key.filter(|_| header.format() == EnvelopeFormat::V2);
        let elements = 3 + u64::from(source_key.is_some());
        let mut bytes = Vec::with_capacity(signed.len().saturating_add(128));
        cbor::put_array(&mut bytes, elements);
        cbor::put_uint(&mut bytes, 0);
        cbor::put_bytes(&mut bytes, signed);
        proof.put(&mut bytes);
        if let Some(key) = source_key {
            cbor::put_bytes(&mut bytes, &key.0);
        }
        let frame = Bytes::from(bytes);
        Self::read(&frame, &mut Reader::new(&frame), header.format())
    }

    /// Which format it is spelled in.
    pub fn format(&self) -> EnvelopeFormat {
        self.body.header.format()
    }

    /// Links crossed before the one it came over. A claim of the neighbour's.
    pub fn hop_count(&self) -> u8 {
        self.hop_count
    }

    /// The same envelope with another hop count.
    pub fn with_hop_count(&self, hop_count: u8) -> Self {
        Self { hop_count, body: Arc::clone(&self.body) }
    }

    /// Sets the hop count in place, for an envelope that goes on over its next link.
    pub fn set_hop_count(&mut self, hop_count: u8) {
        self.hop_count = hop_count;
    }

    /// The immutable fields.
    pub fn header(&self) -> &EnvelopeHeader {
        &self.body.header
    }

    /// The bytes that the signature and the packet id cover.
    pub fn signed(&self) -> &[u8] {
        self.body.tail.get(self.body.signed.clone()).unwrap_or(&[])
    }

    /// The payload.
    pub fn payload(&self) -> Bytes {
        self.body.tail.slice(self.body.payload.clone())
    }

    /// Bytes of the payload.
    pub fn payload_len(&self) -> usize {
        self.body.payload.len()
    }

    /// Bytes that it shares with the frame it came in.
    pub fn shared_len(&self) -> usize {
        self.body.tail.len()
    }

    /// The immutable fields as spelled: associated data of a sealed payload.
    pub fn associated_data(&self) -> &[u8] {
        let payload_len = self.body.payload.len();
        let head = match payload_len {
            0..=23 => 1,
            24..=0xff => 2,
            _ => 3,
        };
        let signed = self.signed();
        let end = signed.len().saturating_sub(payload_len).saturating_sub(head);
        signed.get(..end).unwrap_or(&[])
    }

    /// The proof.
    pub fn proof(&self) -> &Proof {
        &self.body.proof
    }

    /// The source's key where the envelope carries it: a V1 source or an attached key.
    pub fn source_key(&self) -> Option<PublicKey> {
        self.body.header.source.key().or(self.body.source_key)
    }

    /// True where the source's key is attached beside the signed bytes.
    pub fn has_attached_key(&self) -> bool {
        self.body.source_key.is_some()
    }

    /// Bytes of the envelope, the frame around it not counted.
    pub fn encoded_len(&self) -> usize {
        self.body.tail.len().saturating_add(if self.hop_count < 24 { 2 } else { 3 })
    }

    /// The envelope without an attached key, for a link whose neighbour already has it.
    pub fn without_source_key(&self) -> Self {
        if self.body.source_key.is_none() {
            return self.clone();
        }
        // The attached key is the last 34 bytes: a two-byte head and the key.
        let end = self.body.tail.len().saturating_sub(34);
        let tail = self.body.tail.slice(..end);
        self.with_body(Body { source_key: None, elements: 3, tail, ..Body::clone(&self.body) })
    }

    /// The envelope with the source's key attached. Any relay may do so: the address certifies it.
    pub fn with_source_key(&self, key: PublicKey) -> Self {
        if self.source_key().is_some() {
            return self.clone();
        }
        let mut tail = Vec::with_capacity(self.body.tail.len().saturating_add(34));
        tail.extend_from_slice(&self.body.tail);
        cbor::put_bytes(&mut tail, &key.0);
        let tail = tail.into();
        self.with_body(Body { source_key: Some(key), elements: 4, tail, ..Body::clone(&self.body) })
    }

    /// The frame that carries it. Without an extension the received bytes are shared.
    pub fn to_frame(&self, ext: FrameExt) -> FrameParts {
        let mut head = [0; HEAD_BYTES_MAX];
        let mut rest = head.as_mut_slice();
        cbor::put_array(&mut rest, if ext.is_empty() { 2 } else { 3 });
        cbor::put_uint(&mut rest, self.format().frame_type() as u64);
        cbor::put_array(&mut rest, u64::from(self.body.elements));
        cbor::put_uint(&mut rest, u64::from(self.hop_count));
        let head_len = HEAD_BYTES_MAX.saturating_sub(rest.len());
        let head = head.get(..head_len).unwrap_or(&[]);
        if ext.is_empty() {
            return FrameParts::with_head(head, self.body.tail.clone());
        }
        let mut whole = Vec::with_capacity(self.body.tail.len().saturating_add(EXT_ROOM_BYTES));
        whole.extend_from_slice(head);
        whole.extend_from_slice(&self.body.tail);
        put_ext(&mut whole, &ext);
        FrameParts::whole(whole)
    }

    fn with_body(&self, body: Body) -> Self {
        Self { hop_count: self.hop_count, body: Arc::new(body) }
    }
}

/// Reads `signed` by position; also gives the payload's length.
fn read_signed(bytes: &[u8], format: EnvelopeFormat) -> Result<(EnvelopeHeader, usize), DecodeError> {
    let mut r = Reader::new(bytes);
    r.array(SIGNED_FIELDS, SIGNED_FIELDS, "signed")?;
    let kind_priority = r.u8(u8::MAX, "kind and priority")?;
    let source = NodeName::read(&mut r, format, "source")?;
    let destination = NodeName::read(&mut r, format, "destination")?;
    let boot_epoch = r.u16("boot_epoch")?;
    let sequence = r.u32("sequence")?;
    let created_unix_s = r.u32("created")?;
    let offset = r.offset();
    let code = r.u8(u8::MAX, "lifetime")?;
    let lifetime = Lifetime::from_code(code).ok_or(DecodeError::OutOfRange {
        field: "lifetime",
        offset,
        got: u64::from(code),
    })?;
    let offset = r.offset();
    let max_hops = r.u8(MAX_HOPS_MAX, "max_hops")?;
    if max_hops == 0 {
        return Err(DecodeError::OutOfRange { field: "max_hops", offset, got: 0 });
    }
    let payload = r.bytes(PAYLOAD_BYTES_MAX, "payload")?.len();
    r.finish()?;
    let header = EnvelopeHeader {
        kind: EnvelopeKind(kind_priority >> 2),
        priority: Priority::from_bits(kind_priority),
        source,
        destination,
        boot_epoch,
        sequence,
        created_unix_s,
        lifetime,
        max_hops,
    };
    Ok((header, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> EnvelopeHeader {
        EnvelopeHeader {
            kind: EnvelopeKind::MESSAGE,
            priority: Priority::Normal,
            source: NodeName::Address(Address([1; 16])),
            destination: NodeName::Address(Address([2; 16])),
            boot_epoch: 1,
            sequence: 2,
            created_unix_s: 3,
            lifetime: Lifetime::ONE_DAY,
            max_hops: 16,
        }
    }

    fn assemble(header: EnvelopeHeader, proof: Proof) -> Result<Envelope, DecodeError> {
        Envelope::assemble(header, &header.signed(b"payload"), proof, Some(PublicKey([9; 32])))
    }

    fn signature() -> Proof {
        Proof::Signature(Signature([7; 64]))
    }

    #[test]
    fn lifetimes_are_rounded_up() {
        let at_least = |ms| Lifetime::at_least(Duration::from_millis(ms)).as_secs();
        assert_eq!(at_least(0), 10);
        assert_eq!(at_least(10_000), 10);
        assert_eq!(at_least(10_001), 20);
        assert_eq!(at_least(86_400_000), 86_400);
        assert_eq!(at_least(u64::MAX), 1_209_600);
        assert_eq!(Lifetime::from_code(24), None);
        assert_eq!(Lifetime::TEN_MINUTES.as_secs(), 600);
        assert_eq!(Lifetime::ONE_MINUTE.as_secs(), 60);
        assert_eq!(Lifetime::ONE_DAY.as_secs(), 86_400);
        assert_eq!(Lifetime::MAX.as_secs(), 1_209_600);
    }

    #[test]
    fn hop_limits_outside_their_range_are_refused() {
        for max_hops in [0, 129, 255] {
            let error = assemble(EnvelopeHeader { max_hops, ..header() }, signature()).unwrap_err();
            assert!(matches!(error, DecodeError::OutOfRange { field: "max_hops", .. }), "{error}");
        }
        assert!(assemble(EnvelopeHeader { max_hops: 128, ..header() }, signature()).is_ok());
    }

    #[test]
    fn a_merkle_proof_has_one_to_eight_levels_and_an_index_below_them() {
        let merkle = |index, levels| Proof::Merkle {
            root_signature: Signature([7; 64]),
            index,
            path: vec![Digest([1; 32]); levels],
        };
        assert!(assemble(header(), merkle(255, 8)).is_ok());
        assert!(assemble(header(), merkle(0, 1)).is_ok());
        for (index, levels) in [(0, 0), (2, 1), (256, 8), (0, 9), (u32::MAX, 8)] {
            assert!(assemble(header(), merkle(index, levels)).is_err(), "{index} of {levels} levels");
        }
    }

    #[test]
    fn a_v1_envelope_carries_no_second_key() {
        let v1 = EnvelopeHeader {
            source: NodeName::Key(PublicKey([1; 32])),
            destination: NodeName::Key(PublicKey([2; 32])),
            ..header()
        };
        let envelope = assemble(v1, signature()).expect("an envelope");
        assert_eq!(envelope.source_key(), Some(PublicKey([1; 32])));
        let longer = envelope.with_source_key(PublicKey([9; 32]));
        assert_eq!(longer.encoded_len(), envelope.encoded_len());
    }

    #[test]
    fn names_of_both_formats_in_one_envelope_are_refused() {
        let mixed = EnvelopeHeader { destination: NodeName::Key(PublicKey([2; 32])), ..header() };
        assert!(assemble(mixed, signature()).is_err());
    }

    #[test]
    fn a_fault_inside_signed_is_counted_from_the_frame() {
        let envelope = assemble(header(), signature()).expect("an envelope");
        let mut frame = envelope.to_frame(FrameExt::default()).to_bytes().to_vec();
        // [2 frame, type, 4 envelope, hop_count, head of signed (2), then signed: array, kind].
        assert_eq!((frame[6], frame[7]), (0x89, 0x01));
        frame[7] = 0x41;
        let error = crate::wire::Frame::decode(&frame.into()).unwrap_err();
        assert_eq!(error.offset(), Some(7), "{error}");
    }

    #[test]
    fn chunks_are_bulk_and_answers_of_a_destination_control() {
        let class = |kind| EnvelopeHeader { kind, ..header() }.class();
        assert_eq!(class(EnvelopeKind::CHUNK), TrafficClass::Bulk);
        assert_eq!(class(EnvelopeKind::RECEIPT), TrafficClass::Control);
        assert_eq!(class(EnvelopeKind::CANNOT_OPEN), TrafficClass::Control);
        assert_eq!(class(EnvelopeKind::MESSAGE), TrafficClass::Interactive);
        assert_eq!(class(EnvelopeKind(63)), TrafficClass::Interactive);
    }
}
