//! An envelope that is for this node, opened and told apart. Signatures were checked before.

use bytes::Bytes;

use crate::{
    crypto::{OpenError, OpenSessions, ReceiverKeys, SignatureInput, VerifiedKeyRecord, key_record},
    proto::verify::InboundEnvelope,
    wire::{
        DecodeError, EnvelopeKind,
        content::{Chunk, Content, Sealed},
        receipt::{CannotOpen, Receipt},
        service::{Pong, Probe, TraceReply},
    },
};

/// Why an envelope for this node came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum InboundError {
    /// The payload is not what the kind says.
    #[error("undecodable payload: {0}")]
    Decode(#[from] DecodeError),
    /// The seal does not open: it was made for other fields, another key, or is damaged.
    #[error("the seal does not open")]
    Seal,
    /// The key record that came along does not hold.
    #[error("bad key record")]
    KeyRecord,
    /// A kind of a newer version; nothing is done about it.
    #[error("unknown envelope kind {0}")]
    UnknownKind(u8),
}

impl InboundError {
    /// Label of the counter.
    pub fn label(&self) -> &'static str {
        match self {
            InboundError::Decode(_) => "decode",
            InboundError::Seal => "seal",
            InboundError::KeyRecord => "key_record",
            InboundError::UnknownKind(_) => "unknown_kind",
        }
    }
}

/// What an envelope for this node turned out to be.
#[derive(Debug)]
pub enum Arrived {
    /// A message or a manifest, opened.
    Sealed(Sealed),
    /// A sealed message for a receiver key this node no longer has.
    CannotOpen,
    /// A chunk of a file.
    Chunk(Chunk),
    /// A broadcast.
    Broadcast(Content),
    /// A receipt from the destination of something this node sent.
    Receipt(Receipt),
    /// The destination could not open something this node sent.
    SealAgain(CannotOpen, Box<VerifiedKeyRecord>),
    /// A question to be answered with a pong.
    Ping(Probe),
    /// An answer to a ping.
    Pong(Pong),
    /// A question to be answered with a trace reply.
    Trace(Probe),
    /// An answer to a trace.
    TraceReply(TraceReply),
}

/// Opens and tells apart an envelope for this node.
pub fn arrived(
    keys: &ReceiverKeys,
    sessions: &mut OpenSessions,
    scratch: &mut SignatureInput,
    inbound: &InboundEnvelope,
) -> Result<Arrived, InboundError> {
    let envelope = &inbound.envelope;
    let payload = envelope.payload();
    Ok(match envelope.header().kind {
        EnvelopeKind::MESSAGE => {
            let opened = sessions.open(keys, &inbound.source_key, &payload, envelope.associated_data());
            match opened {
                Ok(plaintext) => Arrived::Sealed(Sealed::decode(&Bytes::from(plaintext))?),
                Err(OpenError::UnknownReceiverKey { .. }) => Arrived::CannotOpen,
                Err(_) => return Err(InboundError::Seal),
            }
        }
        EnvelopeKind::CHUNK => Arrived::Chunk(Chunk::decode(&payload)?),
        EnvelopeKind::BROADCAST => Arrived::Broadcast(Content::decode_broadcast(&payload)?),
        EnvelopeKind::RECEIPT => Arrived::Receipt(Receipt::decode(&payload)?),
        EnvelopeKind::CANNOT_OPEN => {
            let answer = CannotOpen::decode(&payload)?;
            let record = key_record::verify(scratch, &answer.key_record)
                .ok()
                .filter(|record| record.address() == inbound.source)
                .ok_or(InboundError::KeyRecord)?;
            Arrived::SealAgain(answer, Box::new(record))
        }
        EnvelopeKind::PING => Arrived::Ping(Probe::decode(&payload)?),
        EnvelopeKind::PONG => Arrived::Pong(Pong::decode(&payload)?),
        EnvelopeKind::TRACE => Arrived::Trace(Probe::decode(&payload)?),
        EnvelopeKind::TRACE_REPLY => Arrived::TraceReply(TraceReply::decode(&payload)?),
        other => return Err(InboundError::UnknownKind(other.0)),
    })
}
