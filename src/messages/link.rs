//! Conversations between links, the links' registry and the router.

use std::fmt;

use actix::Recipient;

use super::message;
use crate::{
    crypto::VerifiedKeyRecord,
    proto::{
        table::LinkClass,
        verify::{InboundAnnounce, InboundEnvelope, Verified},
    },
    wire::{
        Address, Frame, LinkId, PublicKey,
        handshake::{CloseReason, Hello},
    },
};

/// Link to router: envelopes that were decoded and verified. Whoever ends the batch drops the
/// permit, which lets the link read on.
#[derive(Debug)]
pub struct EnvelopesVerified {
    /// Where they came from.
    pub link: LinkId,
    /// In the order of arrival.
    pub batch: Vec<Verified<InboundEnvelope>>,
    /// Room in the link's in-flight budget.
    pub permit: Option<Permit>,
}
message!(EnvelopesVerified => ());

/// Room that a batch takes up on its link, given back when this is dropped.
pub struct Permit(#[expect(dead_code, reason = "kept for its drop")] Box<dyn Send>);

impl Permit {
    /// Gives back what dropping `room` gives back.
    pub fn new(room: impl Send + 'static) -> Self {
        Self(Box::new(room))
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

/// Link to router: an announce that was verified.
#[derive(Debug)]
pub struct AnnounceVerified {
    /// Where it came from.
    pub link: LinkId,
    /// The announce.
    pub announce: Box<Verified<InboundAnnounce>>,
    /// It answers a path request.
    pub is_reply: bool,
}
message!(AnnounceVerified => ());

/// Link to router: control that is not about the link itself.
#[derive(Debug)]
pub struct LinkControl {
    /// Where it came from.
    pub link: LinkId,
    /// What came.
    pub control: NeighbourControl,
}
message!(LinkControl => ());

/// What a neighbour says to the router.
#[derive(Debug)]
pub enum NeighbourControl {
    /// Custody, refusals, path and key requests.
    Frame(Box<Frame>),
    /// A key record, verified.
    KeyRecord(Box<VerifiedKeyRecord>),
}

/// Links to router: a neighbour can be reached.
#[derive(Debug, Clone)]
pub struct LinkUp {
    /// The link.
    pub link: LinkId,
    /// Its neighbour.
    pub peer: Address,
    /// Its neighbour's key.
    pub peer_key: PublicKey,
    /// What the neighbour said of itself.
    pub hello: Hello,
    /// `quic`, `tcp`, …
    pub transport: &'static str,
    /// What kind of medium it runs over.
    pub class: LinkClass,
    /// In whose name it takes shares of what this node holds, where that is not its neighbour.
    pub account: Option<Address>,
    /// Takes batches for the link.
    pub outlet: Recipient<ForwardBatch>,
}
message!(LinkUp => ());

/// Links to router: a link is gone.
#[derive(Debug, Clone, Copy)]
pub struct LinkDown(pub LinkId);
message!(LinkDown => ());

/// Router to link: send these. Hop counts and extensions are set.
#[derive(Debug, Default)]
pub struct ForwardBatch {
    /// Frames that go ahead of data.
    pub control: Vec<Frame>,
    /// Envelopes, each in its own class.
    pub envelopes: Vec<Verified<InboundEnvelope>>,
}
message!(ForwardBatch => ());

/// Link to router: these did not fit the link's queues.
#[derive(Debug)]
pub struct EgressFull {
    /// The link.
    pub link: LinkId,
    /// What did not fit.
    pub envelopes: Vec<Verified<InboundEnvelope>>,
}
message!(EgressFull => ());

/// Registry to link: close, and say why.
#[derive(Debug, Clone)]
pub struct CloseLink {
    /// Why.
    pub reason: CloseReason,
    /// The same for people.
    pub text: String,
}
message!(CloseLink => ());
