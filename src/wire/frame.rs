//! Link frames: `[type, body, ?ext]`, each at most [`FRAME_BYTES_MAX`] bytes.
//!
//! `ext` speaks of one link only and is never signed. A frame of a type this version does not know
//! is [`DecodeError::UnknownFrame`]: counted and skipped, so that newer nodes can talk to older.

use bytes::Bytes;

use super::{
    TrafficClass,
    announce::Announce,
    cbor::{self, Reader},
    control::{Credit, CustodyAck, PathRequest, Refuse},
    envelope::{Envelope, EnvelopeFormat},
    error::{CanonicalRule, DecodeError},
    handshake::{Goodbye, Hello},
    ids::{Address, PublicKey},
    key_record::SignedKeyRecord,
    limits::{FRAME_BYTES_MAX, TRACE_CONTEXT_BYTES},
    path::{Digest, Withdraw},
};

/// The frame types by number. Numbers are never used again for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameType {
    /// Opens a link; nothing else is accepted before it.
    Hello = 0,
    /// Closes a link and says why.
    Goodbye = 1,
    /// Asks the neighbour for a [`FrameType::Pong`].
    Ping = 2,
    /// Answers a ping.
    Pong = 3,
    /// Grants bytes of one class.
    Credit = 4,
    /// Asks the neighbour for the public key behind an address.
    KeyNeeded = 5,
    /// Answers with a public key.
    KeyOffer = 6,
    /// An envelope with 16-byte addresses.
    EnvelopeV2 = 7,
    /// An envelope with public keys as addresses.
    EnvelopeV1 = 8,
    /// A node's announce.
    Announce = 9,
    /// Looks for a destination.
    PathRequest = 10,
    /// The neighbour (or a custodian behind it) holds these packets durably.
    CustodyAck = 11,
    /// The neighbour did not take a packet.
    Refuse = 12,
    /// Asks for the newest key record of an address.
    KeyRequest = 13,
    /// Answers with a key record.
    KeyReply = 14,
    /// The sender has no way left to these destinations.
    Withdraw = 15,
    /// What the sender holds of a range of addresses.
    Digest = 16,
    /// Answers a path request with an announce.
    PathReply = 17,
}

impl FrameType {
    /// The type of that number, where this version knows it.
    pub fn from_number(number: u64) -> Option<Self> {
        use FrameType::*;
        Some(match number {
            0 => Hello,
            1 => Goodbye,
            2 => Ping,
            3 => Pong,
            4 => Credit,
            5 => KeyNeeded,
            6 => KeyOffer,
            7 => EnvelopeV2,
            8 => EnvelopeV1,
            9 => Announce,
            10 => PathRequest,
            11 => CustodyAck,
            12 => Refuse,
            13 => KeyRequest,
            14 => KeyReply,
            15 => Withdraw,
            16 => Digest,
            17 => PathReply,
            _ => return None,
        })
    }

    /// Name in logs, metrics and `qpc wire`.
    pub fn name(self) -> &'static str {
        use FrameType::*;
        match self {
            Hello => "hello",
            Goodbye => "goodbye",
            Ping => "ping",
            Pong => "pong",
            Credit => "credit",
            KeyNeeded => "key_needed",
            KeyOffer => "key_offer",
            EnvelopeV2 => "envelope_v2",
            EnvelopeV1 => "envelope_v1",
            Announce => "announce",
            PathRequest => "path_request",
            CustodyAck => "custody_ack",
            Refuse => "refuse",
            KeyRequest => "key_request",
            KeyReply => "key_reply",
            Withdraw => "withdraw",
            Digest => "digest",
            PathReply => "path_reply",
        }
    }
}

/// What a frame says of its own crossing of one link: a map with integer keys
/// `{1: age_s, 2: flags, 3: trace context}`, each present only where it says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameExt {
    /// Seconds the envelope has spent in custody so far (key 1).
    pub age_s: u32,
    /// A resend of a packet this link has carried before (key 2, bit 0).
    pub retransmit: bool,
    /// The origin has custodians enough: who knows no way on refuses it (key 2, bit 1).
    pub custody_declined: bool,
    /// Trace context, on links marked trusted only (key 3).
    pub trace_context: Option<[u8; TRACE_CONTEXT_BYTES]>,
}

impl FrameExt {
    /// True where nothing would be written.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn flags(&self) -> u64 {
        u64::from(self.retransmit) | (u64::from(self.custody_declined) << 1)
    }

    fn put(&self, out: &mut Vec<u8>) {
        let flags = self.flags();
        let entries =
            u64::from(self.age_s > 0) + u64::from(flags > 0) + u64::from(self.trace_context.is_some());
        cbor::put_head(out, cbor::major::MAP, entries);
        if self.age_s > 0 {
            cbor::put_uint(out, 1);
            cbor::put_uint(out, u64::from(self.age_s));
        }
        if flags > 0 {
            cbor::put_uint(out, 2);
            cbor::put_uint(out, flags);
        }
        if let Some(context) = &self.trace_context {
            cbor::put_uint(out, 3);
            cbor::put_bytes(out, context);
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let start = r.offset();
        let entries = r.map(3, "ext")?;
        let mut ext = Self::default();
        let mut last = 0;
        for _ in 0..entries {
            let offset = r.offset();
            let key = r.uint(3, "ext key")?;
            if key <= last {
                return Err(DecodeError::NotCanonical { offset, rule: CanonicalRule::SortedKeys });
            }
            last = key;
            match key {
                1 => ext.age_s = r.u32("ext age")?,
                2 => {
                    let flags = r.uint(3, "ext flags")?;
                    ext.retransmit = flags & 1 != 0;
                    ext.custody_declined = flags & 2 != 0;
                }
                _ => ext.trace_context = Some(r.fixed("ext trace context")?),
            }
        }
        // An empty map, a zero age and zero flags have a shorter spelling: to be left out.
        let mut shortest = Vec::new();
        ext.put(&mut shortest);
        if entries == 0 || shortest.len() != r.offset().saturating_sub(start) {
            return Err(DecodeError::NotCanonical { offset: start, rule: CanonicalRule::Respelled });
        }
        Ok(ext)
    }
}

/// One link frame, decoded.
#[derive(Debug, Clone)]
pub enum Frame {
    /// Opens a link.
    Hello(Hello),
    /// Closes a link.
    Goodbye(Goodbye),
    /// Asks for a pong with the same number.
    Ping(u64),
    /// Answers a ping.
    Pong(u64),
    /// Grants bytes of one class.
    Credit(Credit),
    /// Asks for the public key behind an address.
    KeyNeeded(Address),
    /// A public key, certified by its own address.
    KeyOffer(PublicKey),
    /// An envelope of either format, not yet verified.
    Envelope(Envelope, FrameExt),
    /// An announce, not yet verified.
    Announce(Announce),
    /// Looks for a destination.
    PathRequest(PathRequest),
    /// Packets that are durably held.
    CustodyAck(CustodyAck),
    /// A packet that was not taken.
    Refuse(Refuse),
    /// Asks for the newest key record of an address.
    KeyRequest(Address),
    /// A key record, not yet verified.
    KeyReply(SignedKeyRecord),
    /// Destinations that the sender has no way to any more.
    Withdraw(Withdraw),
    /// What the sender holds of a range of addresses.
    Digest(Digest),
    /// An announce, not yet verified, that answers a path request: it goes back the way the request
    /// came and is passed on to nobody else.
    PathReply(Announce),
}

impl Frame {
    /// Decodes one frame. Received bytes stay shared: envelopes and announces keep slices of them.
    pub fn decode(frame: &Bytes) -> Result<Frame, DecodeError> {
        if frame.len() > FRAME_BYTES_MAX {
            return Err(DecodeError::TooLarge {
                field: "frame",
                got: frame.len() as u64,
                limit: FRAME_BYTES_MAX as u64,
            });
        }
        let mut r = Reader::new(frame);
        let parts = r.array(2, 3, "frame")?;
        let number = r.uint(u64::MAX, "frame type")?;
        let Some(kind) = FrameType::from_number(number) else {
            // Still sound CBOR, or it is noise rather than a newer version.
            cbor::check(frame, "frame")?;
            return Err(DecodeError::UnknownFrame(number));
        };
        if matches!(kind, FrameType::EnvelopeV1 | FrameType::EnvelopeV2) {
            let format = if kind == FrameType::EnvelopeV1 { EnvelopeFormat::V1 } else { EnvelopeFormat::V2 };
            let envelope = Envelope::read(frame, &mut r, format)?;
            let ext = if parts == 3 { FrameExt::read(&mut r)? } else { FrameExt::default() };
            r.finish()?;
            return Ok(Frame::Envelope(envelope, ext));
        }
        let start = r.offset();
        r.skip(kind.name())?;
        let body = frame.slice(start..r.offset());
        if parts == 3 {
            // Nothing it can say applies to other frames, so it would only be a second spelling.
            return Err(DecodeError::Shape {
                message: kind.name(),
                detail: "has an ext, which only envelopes have".into(),
            });
        }
        r.finish()?;
        Self::decode_body(kind, &body).map_err(|e| e.shifted(start))
    }

    fn decode_body(kind: FrameType, body: &Bytes) -> Result<Frame, DecodeError> {
        Ok(match kind {
            FrameType::Hello => Frame::Hello(Hello::decode(body)?),
            FrameType::Goodbye => Frame::Goodbye(Goodbye::decode(body)?),
            FrameType::Ping => Frame::Ping(cbor::decode(body, 9, "ping")?),
            FrameType::Pong => Frame::Pong(cbor::decode(body, 9, "pong")?),
            FrameType::Credit => Frame::Credit(Credit::decode(body)?),
            FrameType::KeyNeeded => Frame::KeyNeeded(cbor::decode(body, 17, "key_needed")?),
            FrameType::KeyOffer => Frame::KeyOffer(cbor::decode(body, 34, "key_offer")?),
            FrameType::Announce => Frame::Announce(Announce::decode(body)?),
            FrameType::PathRequest => Frame::PathRequest(PathRequest::decode(body)?),
            FrameType::CustodyAck => Frame::CustodyAck(CustodyAck::decode(body)?),
            FrameType::Refuse => Frame::Refuse(Refuse::decode(body)?),
            FrameType::KeyRequest => Frame::KeyRequest(cbor::decode(body, 17, "key_request")?),
            FrameType::KeyReply => Frame::KeyReply(SignedKeyRecord::decode(body)?),
            FrameType::Withdraw => Frame::Withdraw(Withdraw::decode(body)?),
            FrameType::Digest => Frame::Digest(Digest::decode(body)?),
            FrameType::PathReply => Frame::PathReply(Announce::decode(body)?),
            // Read in `decode`, which keeps their bytes.
            FrameType::EnvelopeV1 | FrameType::EnvelopeV2 => {
                return Err(DecodeError::UnknownFrame(kind as u64));
            }
        })
    }

    /// Encodes the frame.
    pub fn encode(&self) -> Bytes {
        let (kind, body) = match self {
            // Written once for each neighbour: in one piece.
            Frame::Announce(x) | Frame::PathReply(x) => {
                let mut out = Vec::with_capacity(x.room());
                cbor::put_array(&mut out, 2);
                cbor::put_uint(&mut out, self.kind() as u64);
                x.write(&mut out);
                return Bytes::from(out);
            }
            Frame::Hello(x) => (FrameType::Hello, x.encode()),
            Frame::Goodbye(x) => (FrameType::Goodbye, x.encode()),
            Frame::Ping(n) => (FrameType::Ping, cbor::encode(n)),
            Frame::Pong(n) => (FrameType::Pong, cbor::encode(n)),
            Frame::Credit(x) => (FrameType::Credit, x.encode()),
            Frame::KeyNeeded(a) => (FrameType::KeyNeeded, cbor::encode(a)),
            Frame::KeyOffer(k) => (FrameType::KeyOffer, cbor::encode(k)),
            Frame::Envelope(envelope, ext) => return envelope.to_frame(*ext).to_bytes(),
            Frame::PathRequest(x) => (FrameType::PathRequest, x.encode()),
            Frame::CustodyAck(x) => (FrameType::CustodyAck, x.encode()),
            Frame::Refuse(x) => (FrameType::Refuse, x.encode()),
            Frame::KeyRequest(a) => (FrameType::KeyRequest, cbor::encode(a)),
            Frame::KeyReply(x) => (FrameType::KeyReply, x.encode()),
            Frame::Withdraw(x) => (FrameType::Withdraw, x.encode()),
            Frame::Digest(x) => (FrameType::Digest, x.encode()),
        };
        let mut out = Vec::with_capacity(body.len().saturating_add(2));
        cbor::put_array(&mut out, 2);
        cbor::put_uint(&mut out, kind as u64);
        out.extend_from_slice(&body);
        Bytes::from(out)
    }

    /// The queue this frame rides in.
    pub fn class(&self) -> TrafficClass {
        match self {
            Frame::Envelope(envelope, _) => envelope.header().class(),
            _ => TrafficClass::Control,
        }
    }

    /// Name in logs and metrics.
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }

    fn kind(&self) -> FrameType {
        match self {
            Frame::Hello(_) => FrameType::Hello,
            Frame::Goodbye(_) => FrameType::Goodbye,
            Frame::Ping(_) => FrameType::Ping,
            Frame::Pong(_) => FrameType::Pong,
            Frame::Credit(_) => FrameType::Credit,
            Frame::KeyNeeded(_) => FrameType::KeyNeeded,
            Frame::KeyOffer(_) => FrameType::KeyOffer,
            Frame::Envelope(e, _) => e.format().frame_type(),
            Frame::Announce(_) => FrameType::Announce,
            Frame::PathRequest(_) => FrameType::PathRequest,
            Frame::CustodyAck(_) => FrameType::CustodyAck,
            Frame::Refuse(_) => FrameType::Refuse,
            Frame::KeyRequest(_) => FrameType::KeyRequest,
            Frame::KeyReply(_) => FrameType::KeyReply,
            Frame::Withdraw(_) => FrameType::Withdraw,
            Frame::Digest(_) => FrameType::Digest,
            Frame::PathReply(_) => FrameType::PathReply,
        }
    }
}

/// Bytes of a frame's fresh head: two array heads, a type below 24 and a hop count take five.
pub(super) const HEAD_BYTES_MAX: usize = 8;

/// A frame ready to be sent: a fresh head of a few bytes and a shared tail. A forwarded envelope
/// differs from the received one in its hop count alone, so its tail is the received bytes.
#[derive(Debug, Clone)]
pub struct FrameParts {
    head: [u8; HEAD_BYTES_MAX],
    head_len: u8,
    tail: Bytes,
}

impl FrameParts {
    /// A frame whose bytes are all in one piece.
    pub fn whole(frame: impl Into<Bytes>) -> Self {
        Self { head: [0; HEAD_BYTES_MAX], head_len: 0, tail: frame.into() }
    }

    /// A fresh head before shared bytes; where the head is longer than it may be, both are copied.
    pub fn with_head(head: &[u8], tail: Bytes) -> Self {
        let mut parts = Self::whole(tail);
        match parts.head.get_mut(..head.len()) {
            Some(slot) => {
                slot.copy_from_slice(head);
                parts.head_len = head.len() as u8;
                parts
            }
            None => Self::whole([head, &parts.tail].concat()),
        }
    }

    /// The fresh bytes.
    pub fn head(&self) -> &[u8] {
        self.head.get(..usize::from(self.head_len)).unwrap_or(&[])
    }

    /// The shared bytes.
    pub fn tail(&self) -> &Bytes {
        &self.tail
    }

    /// Bytes of the frame.
    pub fn len(&self) -> usize {
        usize::from(self.head_len).saturating_add(self.tail.len())
    }

    /// True for a frame of no bytes, which no link carries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The frame in one piece; copies where there is a fresh head.
    pub fn to_bytes(&self) -> Bytes {
        if self.head_len == 0 { self.tail.clone() } else { [self.head(), &self.tail].concat().into() }
    }
}

impl From<&Frame> for FrameParts {
    fn from(frame: &Frame) -> Self {
        FrameParts::whole(frame.encode())
    }
}

/// Appends `ext` to a frame's bytes; used where an envelope's frame has one.
pub(super) fn put_ext(out: &mut Vec<u8>, ext: &FrameExt) {
    ext.put(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Frame, DecodeError> {
        Frame::decode(&Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn numbers_and_types_agree() {
        for number in 0..=u64::from(u8::MAX) {
            if let Some(kind) = FrameType::from_number(number) {
                assert_eq!(kind as u64, number);
            }
        }
        assert!(FrameType::from_number(u64::MAX).is_none());
    }

    #[test]
    fn only_envelopes_have_an_ext() {
        assert!(decode(&[0x82, 0x02, 0x07]).is_ok());
        let error = decode(&[0x83, 0x02, 0x07, 0xa1, 0x01, 0x05]).unwrap_err();
        assert!(matches!(error, DecodeError::Shape { message: "ping", .. }), "{error}");
    }

    #[test]
    fn an_ext_says_something_and_nothing_unknown() {
        let read = |bytes: &[u8]| FrameExt::read(&mut Reader::new(bytes));
        assert_eq!(read(&[0xa1, 0x01, 0x05]), Ok(FrameExt { age_s: 5, ..FrameExt::default() }));
        // Empty, zero age, zero flags, unknown flag, unknown key, out of order, twice.
        for refused in [
            &[0xa0][..],
            &[0xa1, 0x01, 0x00],
            &[0xa1, 0x02, 0x00],
            &[0xa1, 0x02, 0x04],
            &[0xa1, 0x04, 0x01],
            &[0xa2, 0x02, 0x01, 0x01, 0x05],
            &[0xa2, 0x01, 0x05, 0x01, 0x05],
        ] {
            assert!(read(refused).is_err(), "{refused:02x?}");
        }
    }

    #[test]
    fn a_head_of_any_length_is_sent_whole() {
        let tail = Bytes::from_static(b"tail");
        for len in 0..12 {
            let head = vec![0xaa; len];
            let parts = FrameParts::with_head(&head, tail.clone());
            assert_eq!(parts.to_bytes(), [&head[..], b"tail"].concat());
            assert_eq!(parts.len(), len + 4);
        }
    }
}
