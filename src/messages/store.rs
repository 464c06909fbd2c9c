//! Conversations about what is held for others.

use super::message;
use crate::{
    error::MeshError,
    proto::verify::{InboundEnvelope, Verified},
    storage::HeldSummary,
    wire::{Address, PacketId, control::RefuseReason},
};

/// Router to store: these have no path. Answered by [`CustodyAnswer`].
#[derive(Debug)]
pub struct HoldEnvelopes {
    /// The neighbour they came from, or the address that it shares with others: whose quota is charged.
    pub ingress: Address,
    /// The envelopes.
    pub envelopes: Vec<Verified<InboundEnvelope>>,
}
message!(HoldEnvelopes => ());

/// Store to router: what became of [`HoldEnvelopes`]. From delivery: what the inbox has no room for.
#[derive(Debug)]
pub struct CustodyAnswer {
    /// Durably held.
    pub taken: Vec<PacketId>,
    /// Not held, and why.
    pub refused: Vec<(PacketId, RefuseReason)>,
}
message!(CustodyAnswer => ());

/// Store to router: hand these on.
#[derive(Debug)]
pub struct FromCustody(pub Vec<Verified<InboundEnvelope>>);
message!(FromCustody => ());

/// Router to store: what changed about destinations and packets that may be held.
#[derive(Debug)]
pub enum CustodyNews {
    /// There is a path now.
    Reachable(Address),
    /// The answer to [`WhichReachable`]: there is a path to these.
    AllReachable(Vec<Address>),
    /// There is none any more.
    Unreachable(Address),
    /// Receipted. Counts for packets whose destination is `by` and for no others: anybody can sign
    /// a receipt that names any packet.
    Settled {
        /// Who signed the receipt.
        by: Address,
        /// What it names.
        packets: Vec<PacketId>,
    },
    /// Taken by the next custodian, over the link they were handed on over.
    HandedOver(Vec<PacketId>),
    /// Not taken on the way.
    Refused(PacketId),
}
message!(CustodyNews => ());

/// Store to router: to which of these is there a path? Answered by [`CustodyNews::AllReachable`].
#[derive(Debug)]
pub struct WhichReachable(pub Vec<Address>);
message!(WhichReachable => ());

/// Handle to store: what is held.
#[derive(Debug, Clone, Copy)]
pub struct GetHeld;
message!(GetHeld => HeldSummary);

/// Handle to store: hand over now what is held for a destination. How many messages; none where
/// something is held and there is no path.
#[derive(Debug, Clone, Copy)]
pub struct HandOver(pub Address);
message!(HandOver => Result<Option<u64>, MeshError>);

/// Handle to store: whose mailboxes there are, from behind `after` on.
#[derive(Debug, Clone, Copy)]
pub struct ListMailboxes {
    /// The `next` of the page before; `None` starts.
    pub after: Option<Address>,
}
message!(ListMailboxes => Result<MailboxPage, MeshError>);

/// Some mailboxes, in the order of their addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MailboxPage {
    /// The mailboxes.
    pub rows: Vec<MailboxLine>,
    /// Give it as `after` for the next page; `None` at the end.
    pub next: Option<Address>,
}

/// What is held for one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxLine {
    /// Who.
    pub destination: Address,
    /// How much.
    pub held: HeldSummary,
    /// How long the first of it has lain here, in seconds.
    pub oldest_s: Option<u64>,
    /// True where there is a path, and so it is being handed over.
    pub is_reachable: bool,
}

/// Handle to store: drop what has expired. How many messages.
#[derive(Debug, Clone, Copy)]
pub struct ExpireHeld;
message!(ExpireHeld => Result<u64, MeshError>);
