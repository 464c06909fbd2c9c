//! Conversations about messages end to end: the handle, the router and the delivery actor.

use std::{ops::RangeInclusive, time::Duration};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::message;
use crate::{
    crypto::VerifiedKeyRecord,
    error::MeshError,
    proto::{
        delivery::{
            outbox::{Finished, Hold, OutboxLine},
            transfer::ArrivingFile,
        },
        router::CustodyWish,
        verify::{InboundEnvelope, Verified},
    },
    wire::{
        Address, Envelope, LinkId, MessageUid, PacketId, Priority, control::RefuseReason, service::TraceReply,
    },
};

/// Where it is told how a message ended; none where the outbox does not know the message. What is
/// dropped untold says nothing about it: delivery has ended, and the next incarnation is to be asked.
pub type TellEnd = oneshot::Sender<Option<Finished>>;

/// Handle to delivery: send this. Answered when the row is on disk.
#[derive(Debug)]
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
    /// Where to tell how it ended, from the first moment on.
    pub tell: Option<TellEnd>,
}
message!(SendContent => Result<Accepted, MeshError>);

/// A message that is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Its id.
    pub uid: MessageUid,
    /// What it would have to wait for, as far as was known when it came.
    pub hold: Hold,
}

/// Handle to delivery: tell everyone. Answered when it was handed to the router.
#[derive(Debug)]
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
message!(SendBroadcast => Result<MessageUid, MeshError>);

/// Handle to delivery: tell when this message has ended, at once where it has and is remembered.
#[derive(Debug)]
pub struct AwaitEnd {
    /// Which message.
    pub uid: MessageUid,
    /// Where to tell.
    pub tell: TellEnd,
}
message!(AwaitEnd => ());

/// Handle to delivery: the outbox as people see it.
#[derive(Debug)]
pub struct ListOutbox;
message!(ListOutbox => Vec<OutboxLine>);

/// Handle to delivery: why a message is not under way.
#[derive(Debug)]
pub struct GetHold(pub MessageUid);
message!(GetHold => Option<Hold>);

/// Handle to delivery: how many chunks of a file the destination has, and how many there are.
#[derive(Debug)]
pub struct GetProgress(pub MessageUid);
message!(GetProgress => Option<(u32, u32)>);

/// Handle to delivery: take a message back. True where it was there; answered when its row is gone,
/// so that no later start sends it.
#[derive(Debug)]
pub struct CancelMessage(pub MessageUid);
message!(CancelMessage => Result<bool, MeshError>);

/// Handle to delivery: these were taken out of the inbox; each with who sent it.
#[derive(Debug)]
pub struct MessagesTaken(pub Vec<(MessageUid, Address)>);
message!(MessagesTaken => ());

/// Handle to delivery: so many messages entered the inbox by the word of this node's owner.
#[derive(Debug, Clone, Copy)]
pub struct MessagesEntered(pub u64);
message!(MessagesEntered => ());

/// Handle to delivery: what is here of messages with these ids? Answered when their history is written
/// as far as it goes.
#[derive(Debug)]
pub struct FindMessages(pub RangeInclusive<MessageUid>);
message!(FindMessages => FoundMessages);

/// The answer to [`FindMessages`]; no more than two of each, since more than one is too many.
#[derive(Debug, Clone, Default)]
pub struct FoundMessages {
    /// On their way out.
    pub outgoing: Vec<OutboxLine>,
    /// Files on their way in.
    pub arriving: Vec<ArrivingFile>,
}

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
#[derive(Debug)]
pub struct Probe {
    /// Who.
    pub destination: Address,
    /// True to ask every hop, false to ask the destination alone.
    pub trace: bool,
    /// Where answers go.
    pub answers: mpsc::Sender<ProbeAnswer>,
}
message!(Probe => Result<(), MeshError>);

/// Router to delivery: envelopes that are for this node, or (traces) that it forwarded and may
/// answer. `via` names the link's transport for trace replies.
#[derive(Debug)]
pub struct DeliverLocal {
    /// The link they came over; none for this node's own.
    pub link: Option<LinkId>,
    /// That link's transport.
    pub via: &'static str,
    /// The neighbour they came from, or the address that it shares with others: whose quotas are charged.
    /// None where no neighbour brought them.
    pub ingress: Option<Address>,
    /// The envelopes.
    pub envelopes: Vec<Verified<InboundEnvelope>>,
}
message!(DeliverLocal => ());

/// Router to delivery: this destination can be reached now.
#[derive(Debug)]
pub struct DestinationUp {
    /// Which.
    pub address: Address,
    /// True where the way there, or the destination by its own word, is constrained.
    pub is_thin: bool,
}
message!(DestinationUp => ());

/// Router to delivery: what became of packets this node sent.
#[derive(Debug)]
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
    InCustody {
        /// By whom: a custodian, or the cluster it belongs to.
        domain: Address,
        /// Which packets.
        packet_ids: Vec<PacketId>,
    },
}
message!(PacketFate => ());

/// Delivery to router: send these. Each is this node's own.
#[derive(Debug)]
pub struct Originate(pub Vec<(PacketId, Envelope)>, pub CustodyWish);
message!(Originate => ());

/// Delivery to router: what key record is known of this address? [`KeyRecordFound`] follows if it
/// is or becomes known.
#[derive(Debug)]
pub struct FindKeyRecord(pub Address);
message!(FindKeyRecord => ());

/// Router to delivery: a key record that is newer than what was known, or that was asked for.
#[derive(Debug)]
pub struct KeyRecordFound(pub Box<VerifiedKeyRecord>);
message!(KeyRecordFound => ());
