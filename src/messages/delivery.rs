//! Conversations about messages end to end: the handle, the router and the delivery actor.

use std::time::Duration;

use actix::Message;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::{
    crypto::VerifiedKeyRecord,
    error::MeshError,
    proto::{
        delivery::outbox::{Finished, Hold, OutboxLine},
        verify::{InboundEnvelope, Verified},
    },
    wire::{
        Address, Envelope, LinkId, MessageUid, PacketId, Priority, control::RefuseReason,
        service::TraceReply,
    },
};

/// Handle to delivery: send this. Answered when the row is on disk.
#[derive(Debug, Message)]
#[rtype(result = "Result<MessageUid, MeshError>")]
pub struct SendContent {
    /// Who it is for.
    pub destination: Address,
    /// File name, empty where there is none.
    pub name: String,
    /// The content.
    pub bytes: Bytes,
    /// How long it may live.
    pub ttl: Duration,
    /// Its class.
    pub priority: Priority,
}

/// Handle to delivery: tell everyone. Answered when it was handed to the router.
#[derive(Debug, Message)]
#[rtype(result = "Result<MessageUid, MeshError>")]
pub struct SendBroadcast {
    /// File name, empty where there is none.
    pub name: String,
    /// The content.
    pub bytes: Bytes,
    /// How long it may live, at most ten minutes.
    pub ttl: Duration,
    /// Links it may cross.
    pub max_hops: u8,
}

/// Handle to delivery: tell when this message has ended. A message that is not in the outbox
/// drops the sender.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct AwaitEnd {
    /// Which message.
    pub uid: MessageUid,
    /// Where to tell.
    pub tell: oneshot::Sender<Finished>,
}

/// Handle to delivery: the outbox as people see it.
#[derive(Debug, Message)]
#[rtype(result = "Vec<OutboxLine>")]
pub struct ListOutbox;

/// Handle to delivery: why a message is not under way.
#[derive(Debug, Message)]
#[rtype(result = "Option<Hold>")]
pub struct GetHold(pub MessageUid);

/// Handle to delivery: take a message back. True where it was there.
#[derive(Debug, Message)]
#[rtype(result = "bool")]
pub struct CancelMessage(pub MessageUid);

/// What came back to a ping or a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// A pong.
    Pong {
        /// Since the ping left.
        rtt: Duration,
        /// Links the ping crossed.
        hops: u8,
    },
    /// One node on the way.
    Hop {
        /// Who.
        address: Address,
        /// Since the trace left.
        rtt: Duration,
        /// What it said.
        reply: TraceReply,
    },
    /// No path is known.
    NoPath,
}

/// Handle to delivery: ping or trace a destination; answers come until the receiver is dropped.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), MeshError>")]
pub struct Probe {
    /// Who.
    pub destination: Address,
    /// True to ask every hop, false to ask the destination alone.
    pub trace: bool,
    /// Where answers go.
    pub answers: mpsc::Sender<ProbeAnswer>,
}

/// Router to delivery: envelopes that are for this node, or (traces) that it forwarded and may
/// answer. `via` names the link's transport for trace replies.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct DeliverLocal {
    /// The link they came over.
    pub link: LinkId,
    /// That link's transport.
    pub via: &'static str,
    /// The envelopes.
    pub envelopes: Vec<Verified<InboundEnvelope>>,
}

/// Router to delivery: this destination can be reached now.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct DestinationUp(pub Address);

/// Router to delivery: what became of packets this node sent.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum PacketFate {
    /// Not taken, here or on the way.
    Refused {
        /// Which packet.
        packet_id: PacketId,
        /// Why.
        reason: RefuseReason,
        /// When another try makes sense.
        retry_after: Duration,
    },
    /// Durably held on the way.
    InCustody(Vec<PacketId>),
}

/// Delivery to router: send these. Each is this node's own.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Originate(pub Vec<(PacketId, Envelope)>);

/// Delivery to router: what key record is known of this address? Answered by [`KeyRecordFound`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct FindKeyRecord(pub Address);

/// Router to delivery: the newest key record known of an address.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct KeyRecordFound {
    /// Whose.
    pub address: Address,
    /// The record, where one is known.
    pub record: Option<Box<VerifiedKeyRecord>>,
}
