//! What a running node can be asked over its control socket.

use serde::{Deserialize, Serialize};

use super::objects::Priority;
use crate::wire::MessageUid;

/// One request. Durations are milliseconds; an address is text as a person gave it and is resolved
/// by the node ([`super::Target`]), which alone knows contacts, links and announced nodes.
///
/// Each variant names the replies it is answered with, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The node's state. One [`super::Status`].
    Status,
    /// Links. One [`super::Peer`] each.
    Peers,
    /// The routing table. One [`super::Route`] each.
    Routes {
        /// Only routes to this address.
        destination: Option<String>,
    },
    /// Everyone heard within the last day, routed or not. One [`super::KnownNode`] each.
    Known,
    /// Look for a path. One [`super::Done`] once the neighbours are asked, or where there is one.
    PathRequest {
        /// Destination.
        destination: String,
    },
    /// Forget the paths to a node, and how often it was looked for in vain. One [`super::Done`].
    PathDrop {
        /// Destination.
        destination: String,
    },
    /// Counters. One JSON object.
    Stats,
    /// Drain and stop. One [`super::Stopped`], then the node ends.
    Drain {
        /// Deadline for the whole drain; the configured ones when not given.
        timeout_ms: Option<u64>,
    },
    /// Dial a peer now and keep the link, also after a restart. One [`super::Done`].
    PeerAdd {
        /// `quic://HOST:PORT[#HEX32]` or `tcp://…`.
        url: String,
    },
    /// Drop a link or a remembered peer. One [`super::Done`].
    PeerRemove {
        /// An address or the URL it was added with.
        peer: String,
    },
    /// Put a message, whose content is the request's payload, into the outbox. One
    /// [`super::SendOutcome`] with `queued` once it is on disk; with `wait` a second one when its
    /// fate is known.
    Send {
        /// Destination.
        to: String,
        /// Which messages go first.
        priority: Priority,
        /// Lifetime; the configured default when not given.
        ttl_ms: Option<u64>,
        /// Also answer with the fate of the message. The caller bounds the wait by going away.
        wait: bool,
        /// Name of the file that the content was read from, without directories.
        file_name: Option<String>,
    },
    /// Send the payload to everyone, signed and not encrypted. One [`super::MessageId`].
    Broadcast {
        /// Lifetime; the configured default when not given.
        ttl_ms: Option<u64>,
        /// How far it travels.
        max_hops: Option<u8>,
        /// Name of the file that the content was read from, without directories.
        file_name: Option<String>,
    },
    /// Take messages out of the inbox in arrival order. One [`super::InboxItem`] each with the
    /// content as payload, through `ReplyTx::deliver`; removed after the caller's acknowledgement.
    Recv {
        /// End after this many.
        count: Option<u64>,
        /// Wait for messages still to come; else end when the inbox is empty.
        wait: bool,
        /// Leave what was delivered in the inbox.
        keep: bool,
    },
    /// The inbox without content. One [`super::InboxItem`] each.
    InboxList,
    /// Remove a message from the inbox. One [`super::Done`].
    InboxAck {
        /// Which message.
        id: MessageUid,
    },
    /// What is on its way. One [`super::OutboxItem`] each.
    OutboxList,
    /// Give a message up. One [`super::Done`].
    OutboxCancel {
        /// Which message.
        id: MessageUid,
    },
    /// How a message stands and what became of it. One [`super::Message`], more where another node sent
    /// a message under the id of one that it got from here.
    Message {
        /// Its id, or the first 8 digits of it or more.
        id: String,
    },
    /// Copy the data directory while the node runs. One [`super::BackedUp`].
    Backup {
        /// Where to: an absolute path that does not exist yet, or an empty directory.
        dir: String,
    },
    /// What is held for other nodes. One [`super::Mailbox`] each.
    Mailboxes,
    /// The path to a node, hop by hop. One [`super::Trace`].
    Trace {
        /// Destination.
        destination: String,
        /// How long to wait for answers.
        timeout_ms: u64,
    },
    /// Round trips end to end. One [`super::Pong`] each.
    Ping {
        /// Destination.
        destination: String,
        /// How many.
        count: u32,
        /// From the start of one to the start of the next.
        interval_ms: u64,
        /// How long to wait for each answer.
        timeout_ms: u64,
    },
    /// Announce now. One [`super::Done`].
    Announce,
    /// Remember a name for an address. One [`super::Contact`].
    ContactAdd {
        /// The name; must pass [`super::check_contact_name`].
        name: String,
        /// A full address (32 hex digits) or a public key (64 hex digits).
        address: String,
    },
    /// All contacts by name. One [`super::Contact`] each.
    ContactList,
    /// Forget a contact. One [`super::Done`].
    ContactRemove {
        /// Its name.
        name: String,
    },
    /// Take nothing more of a sender. One [`super::Blocked`].
    Block {
        /// Who.
        address: String,
    },
    /// Take messages of a sender again. One [`super::Blocked`].
    Unblock {
        /// Who.
        address: String,
    },
    /// Who is blocked. One [`super::Blocked`] each.
    BlockedList,
    /// Strangers whose messages wait to be accepted. One [`super::SenderRequest`] each.
    RequestList,
    /// Have a stranger's messages enter the inbox, or drop them. One [`super::RequestAnswered`].
    RequestAnswer {
        /// Who.
        address: String,
        /// True to have them enter.
        accept: bool,
    },
    /// What happened lately, and with `follow` what happens from then on, until the caller goes away.
    /// One [`super::EventItem`] each.
    Events {
        /// Go on.
        follow: bool,
    },
    /// Read the configuration again and have hold what can change. One [`super::Reloaded`].
    Reload,
    /// Log what a filter lets through. One [`super::LogLevel`].
    LogLevel {
        /// Levels by module, as `logging.filter`.
        filter: String,
    },
    /// What a backup of the identity has besides it, without the contacts, which
    /// [`Request::ContactList`] gives. One [`super::OwnState`].
    OwnState,
    /// Whether the node believes the machine's clock. One [`super::ClockState`].
    Clock,
    /// Whom the node dials, linked or not. One [`super::Dialled`] each.
    Dialled,
    /// See what arrives from now on, and leave it in the inbox. One [`super::Done`] once nothing can be
    /// missed, then one [`super::InboxItem`] each with its content as payload, until the client goes away.
    InboxWatch {
        /// A longer content is not sent along.
        content_bytes_max: u64,
    },
    /// Have no link with a node, now and later. One [`super::Done`].
    PeerBan {
        /// Its address.
        peer: String,
    },
    /// Lift a ban. One [`super::Done`].
    PeerUnban {
        /// Its address.
        peer: String,
    },
    /// Who is dialled, banned or allowed. One [`super::PeerEntry`] each.
    PeerList,
}

impl Request {
    /// Whether a payload follows the request.
    pub fn takes_payload(&self) -> bool {
        matches!(self, Self::Send { .. } | Self::Broadcast { .. })
    }
}
