//! Bytes and types of the wire. No IO, clock, randomness or actors here; `docs/protocol.md` is
//! the specification.

pub mod announce;
pub mod beacon;
pub mod cbor;
pub mod content;
pub mod control;
pub mod envelope;
pub mod error;
pub mod explain;
pub mod frame;
pub mod handshake;
pub mod ids;
pub mod key_record;
pub mod limits;
pub mod mesh_envelope;
pub mod path;
pub mod receipt;
pub mod service;

pub use announce::{Announce, AnnounceContent, Capabilities};
pub use envelope::{
    Envelope, EnvelopeFormat, EnvelopeHeader, EnvelopeKind, Lifetime, NodeName, Priority, Proof,
};
pub use frame::{Frame, FrameExt, FrameParts, FrameType};

pub use error::DecodeError;
pub use ids::{
    Address, Digest, LinkId, MessageUid, NetworkId, PacketId, PublicKey, Signature, TransferTag, UidPrefix,
};
pub use key_record::{KeyRecord, ReceiverKey, SignedKeyRecord};
pub use mesh_envelope::{MeshEnvelope, MeshEnvelopeV2};

/// The three queues of a link, most urgent first. Control never waits behind data, and a file
/// never delays a chat line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TrafficClass {
    /// Link control, announces, receipts, acknowledgements.
    Control = 0,
    /// Messages of one envelope.
    Interactive = 1,
    /// Chunks of files.
    Bulk = 2,
}

impl TrafficClass {
    /// All classes, most urgent first.
    pub const ALL: [TrafficClass; 3] = [Self::Control, Self::Interactive, Self::Bulk];
}
