//! The objects that answers are made of, named and shaped as `CLI.md` has them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{PeerEntry, Timestamp};
pub use crate::events::EventKind;
use crate::wire::{Address, Digest, MessageUid, PacketId, PublicKey};

/// Whether a node, or a part of it, does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// All is well.
    Healthy,
    /// Works, with less than it should have.
    Degraded,
    /// On its way to a clean end; takes no new work.
    Draining,
    /// Does not do its work.
    Unhealthy,
}

impl NodeState {
    /// The word used in JSON and text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Draining => "draining",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// How one part of a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubsystemStatus {
    /// Its state.
    pub status: NodeState,
    /// Why, for people; none where there is nothing to say.
    pub detail: Option<String>,
}

/// Answer to `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The node's address.
    pub address: Address,
    /// The node's version.
    pub version: String,
    /// Name of the network.
    pub network: String,
    /// Seconds since start.
    pub uptime_s: u64,
    /// All parts folded into one state.
    pub state: NodeState,
    /// By name, at least `transport`, `routing` and `store`.
    pub subsystems: BTreeMap<String, SubsystemStatus>,
    /// Links that are up.
    pub peers: u64,
    /// Destinations with a route.
    pub routes: u64,
    /// Messages on disk: inbox, outbox and held for others.
    pub stored: u64,
    /// Where the health endpoint listens.
    pub health: Option<String>,
    /// What the node listens on, real ports.
    pub listen: Vec<String>,
    /// Where it is reached from outside the local network, by the word of the router there.
    #[serde(default)]
    pub external: Vec<String>,
}

/// Who opened a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The peer dialled.
    In,
    /// This node dialled.
    Out,
}

impl Direction {
    /// The word used in JSON and text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// What a link can carry, classified from bitrate, frame size and duty cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Internet and LAN links.
    Unconstrained,
    /// Slow but continuous links.
    Medium,
    /// Radio at its better settings.
    Constrained,
    /// Radio at its longest range.
    SeverelyConstrained,
}

impl Capability {
    /// The word used in JSON and text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unconstrained => "unconstrained",
            Self::Medium => "medium",
            Self::Constrained => "constrained",
            Self::SeverelyConstrained => "severely_constrained",
        }
    }
}

/// One link, in the answer to `peers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Who is on the other end; none where a medium does not say.
    pub address: Option<Address>,
    /// Where it was dialled, or where it came from.
    pub url: String,
    /// `quic`, `tcp`, `memory`, …
    pub transport: String,
    /// Who opened it.
    pub direction: Direction,
    /// How it came about: `config`, `added`, `discovered` or `inbound`.
    #[serde(default)]
    pub origin: String,
    /// Seconds since it came up.
    pub since_s: u64,
    /// Smoothed round trip.
    pub rtt_ms: Option<f64>,
    /// Frames sent.
    pub tx_frames: u64,
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// What it can carry.
    pub capability: Capability,
    /// Radio: signal strength.
    pub rssi_dbm: Option<f64>,
    /// Radio: signal to noise.
    pub snr_db: Option<f64>,
}

/// One destination, in the answer to `routes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub destination: Address,
    /// The neighbour it goes through first.
    pub next_hop: Address,
    /// Links to cross.
    pub hops: u8,
    /// Sequence number of the announce behind it.
    pub sequence: u32,
    /// Boot epoch of the announce behind it.
    pub boot_epoch: u32,
    /// Seconds until it expires.
    pub expires_s: u64,
    /// What the destination announced: `relay`, `store`, …
    pub capabilities: Vec<String>,
    /// Transport of the link to the next hop.
    pub transport: String,
    /// Other usable next hops.
    pub alternatives: u64,
    /// Share of messages over this route that were receipted, 0 to 1; none before the first.
    pub delivered_share: Option<f64>,
}

/// A node that was heard within the last day, in the answer to `known`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownNode {
    /// Who.
    pub address: Address,
    /// Boot epoch of the newest announce.
    pub boot_epoch: u32,
    /// Sequence number of the newest announce.
    pub sequence: u32,
    /// What it announced: `relay`, `store`, …
    pub capabilities: Vec<String>,
    /// There is a path to it now.
    pub reachable: bool,
    /// Its keys are here, so that it can be written to.
    pub has_key: bool,
    /// Seconds until it is forgotten if nothing more is heard of it.
    pub forgotten_s: u64,
}

/// Which messages go first when a link is full; shedding begins at the low end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// First to wait.
    Low,
    /// Everything that is not special.
    #[default]
    Normal,
    /// Before normal traffic.
    High,
    /// Before everything, at most a twentieth of what a neighbour may send.
    Critical,
}

impl Priority {
    /// The word used in JSON and text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    /// Stored by the recipient's node, which signed a receipt; not: read.
    Delivered,
    /// Safe on this node's disk and on its way.
    Queued,
    /// Its lifetime ended first.
    Expired,
    /// Refused, or cancelled.
    Failed,
}

impl DeliveryStatus {
    /// The word used in JSON and text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Queued => "queued",
            Self::Expired => "expired",
            Self::Failed => "failed",
        }
    }
}

/// Answer to `send`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SendOutcome {
    /// The message's uid, the same at sender and receiver.
    pub id: MessageUid,
    /// What became of it.
    pub status: DeliveryStatus,
    /// Why it is not delivered: `no_key`, `no_path`, `refused: …`.
    pub reason: Option<String>,
    /// From the outbox to the receipt.
    pub rtt_ms: Option<f64>,
    /// Links crossed.
    pub hops: Option<u8>,
    /// How much of a file is there, while somebody waits; for people, never in what `qpc` prints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<FileProgress>,
}

/// How much of a file its destination has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileProgress {
    /// Chunks that it has.
    pub chunks_done: u32,
    /// Chunks in all.
    pub chunks: u32,
}

/// Answer to `broadcast`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageId {
    /// The message's uid.
    pub id: MessageUid,
}

/// One line of `inbox list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxItem {
    /// The message's uid.
    pub id: MessageUid,
    /// Who signed it.
    pub from: Address,
    /// The contact's name of that address, when it has one.
    pub from_name: Option<String>,
    /// Whether it went to everyone, and so was not encrypted.
    pub broadcast: bool,
    /// The sender's clock.
    pub sent_at: Option<Timestamp>,
    /// This node's clock.
    pub received_at: Timestamp,
    /// Links crossed.
    pub hops: Option<u8>,
    /// Bytes of content.
    pub size: u64,
    /// The file's name as its sender gave it: from a stranger, never a path to write to.
    pub name: Option<String>,
}

/// One line of `recv`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// The message's uid.
    pub id: MessageUid,
    /// Who signed it.
    pub from: Address,
    /// The contact's name of that address, when it has one.
    pub from_name: Option<String>,
    /// Whether it went to everyone, and so was not encrypted.
    pub broadcast: bool,
    /// The sender's clock.
    pub sent_at: Option<Timestamp>,
    /// This node's clock.
    pub received_at: Timestamp,
    /// Links crossed.
    pub hops: Option<u8>,
    /// Bytes of content.
    pub size: u64,
    /// The file's name as its sender gave it.
    pub name: Option<String>,
    /// The content where it is UTF-8 and at most 64 KiB.
    pub text: Option<String>,
    /// Else the content in base64, up to 64 KiB or when asked for inline.
    pub payload_b64: Option<String>,
    /// Where the content was written, when asked to save.
    pub file: Option<String>,
    /// SHA-256 of the content.
    pub sha256: Digest,
}

/// One line of `outbox list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxItem {
    /// The message's uid.
    pub id: MessageUid,
    /// Destination.
    pub to: Address,
    /// Bytes of content.
    pub size: u64,
    /// Its class.
    pub priority: Priority,
    /// How often it was sent.
    pub attempts: u32,
    /// Seconds until the next attempt; none while one is under way or no path is known.
    pub next_retry_s: Option<u64>,
    /// Seconds until it expires.
    pub expires_s: u64,
    /// `queued`, `sent`, `in_custody`, …
    pub state: String,
    /// Why it is still here: `no_key`, `no_path`, `refused: …`.
    pub reason: Option<String>,
    /// Chunks that the destination has, for a file; not there for what fits one envelope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks_done: Option<u32>,
    /// Chunks in all, for a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks: Option<u32>,
}

/// Answer to `message`: how a message stands here, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The message's uid.
    pub id: MessageUid,
    /// `out` for what was sent from here.
    pub direction: Direction,
    /// Who it is for, or who sent it; none where it went to everyone, or that is not known any more.
    pub peer: Option<Address>,
    /// The contact's name of that address, when it has one.
    pub peer_name: Option<String>,
    /// Whether it went to everyone, and so was not encrypted.
    pub broadcast: bool,
    /// `queued`, `sent`, `waiting`, `in_custody`, `delivered`, `expired`, `rejected`, `cancelled`; for
    /// what arrived `arriving`, `in_inbox`, `taken`, `given_up`; `unknown` where it is gone and nothing
    /// says how.
    pub state: String,
    /// Why it is still here: `no_key`, `no_path`, `refused: …`.
    pub reason: Option<String>,
    /// Bytes of content.
    pub size: Option<u64>,
    /// Its class, while it is on its way.
    pub priority: Option<Priority>,
    /// How often it was sent.
    pub attempts: Option<u32>,
    /// Seconds until the next attempt.
    pub next_retry_s: Option<u64>,
    /// Seconds until it expires.
    pub expires_s: Option<u64>,
    /// From the first transmission to the receipt.
    pub rtt_ms: Option<f64>,
    /// Links crossed: by it where it arrived, else by its receipt.
    pub hops: Option<u8>,
    /// Chunks that are there, for a file on its way.
    pub chunks_done: Option<u32>,
    /// Chunks in all, for a file on its way.
    pub chunks: Option<u32>,
    /// What happened, oldest first, as far as it is remembered.
    pub history: Vec<MessageEvent>,
}

/// One event in the history of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageEvent {
    /// When, by this node's clock.
    pub at: Timestamp,
    /// Whether that clock was believed then.
    pub clock_trusted: bool,
    /// `started` (the node did), `accepted`, `broadcast`, `waiting`, `sent`, `refused`, `in_custody`,
    /// `sealed_again`, `progress`, `delivered`, `expired`, `rejected`, `cancelled`; for what arrives
    /// `offered`, `arriving`, `received`, `taken`, `given_up`.
    pub event: String,
    /// The packet it is about.
    pub packet: Option<PacketId>,
    /// Who keeps it, for `in_custody`.
    pub custodian: Option<Address>,
    /// How often the message was sent by then.
    pub attempt: Option<u32>,
    /// Why.
    pub reason: Option<String>,
    /// Bytes of content.
    pub size: Option<u64>,
    /// Links crossed.
    pub hops: Option<u8>,
    /// From the first transmission to the receipt.
    pub rtt_ms: Option<f64>,
    /// Chunks that were there.
    pub chunks_done: Option<u32>,
    /// Chunks in all.
    pub chunks: Option<u32>,
}

/// A backup that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUp {
    /// Where.
    pub dir: String,
    /// Rows of the store.
    pub rows: u64,
    /// Files beside it.
    pub files: u64,
    /// Bytes of all of it.
    pub bytes: u64,
}

/// What this node keeps for another one that cannot be reached, or not fast enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    /// Whom for.
    pub destination: Address,
    /// How many messages.
    pub messages: u64,
    /// Their bytes on disk.
    pub bytes: u64,
    /// Seconds since the first of them came.
    pub oldest_s: Option<u64>,
    /// Whether there is a path, and so they are being handed over.
    pub reachable: bool,
}

/// One hop of a trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceHop {
    /// Who it is; none where the hop declined to say.
    pub address: Option<Address>,
    /// Round trip to it.
    pub rtt_ms: Option<f64>,
    /// Transport it is reached over from the hop before.
    pub transport: Option<String>,
    /// Radio: signal to noise.
    pub snr_db: Option<f64>,
}

/// Answer to `trace`: the path without this node, with the destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Destination asked for.
    pub destination: Address,
    /// Whether it answered in time.
    pub reached: bool,
    /// Nearest first.
    pub hops: Vec<TraceHop>,
}

/// One answer, or one silence, of `ping`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pong {
    /// Number of the ping, from 1.
    pub seq: u32,
    /// Round trip; none when no answer came in time.
    pub rtt_ms: Option<f64>,
    /// Links crossed.
    pub hops: Option<u8>,
}

/// A name for an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The name.
    pub name: String,
    /// Whom it names.
    pub address: Address,
    /// The key, when known.
    pub public_key: Option<PublicKey>,
}

/// A sender that is blocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// Who.
    pub address: Address,
    /// The contact's name of that address, when it has one.
    pub name: Option<String>,
}

/// A stranger whose messages wait to be accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderRequest {
    /// Who signed them.
    pub from: Address,
    /// How many wait.
    pub messages: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// When the first of them came.
    pub first_at: Timestamp,
    /// When the last of them came.
    pub last_at: Timestamp,
    /// How the first of them begins, where it is text: from a stranger.
    pub preview: Option<String>,
}

/// What became of a stranger's messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestAnswered {
    /// Who signed them.
    pub from: Address,
    /// True where they entered the inbox, false where they were dropped.
    pub accepted: bool,
    /// How many there were.
    pub messages: u64,
}

/// Answer to `reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Keys whose new values hold now.
    pub changed: Vec<String>,
    /// Keys whose new values hold from the next start on.
    pub needs_restart: Vec<String>,
}

/// Answer to `log-level`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevel {
    /// What is logged from now on.
    pub filter: String,
}

/// One line of `events`: something that happened in the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventItem {
    /// When, by this node's clock.
    pub at: Timestamp,
    /// What, as `event`, with what belongs to it.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// A peer that the node dials, in the answer to `dialled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialled {
    /// Where, with its pin.
    pub url: String,
    /// Whether there is a link.
    pub linked: bool,
    /// Why there is none, for people; none where nothing is known yet.
    pub trouble: Option<String>,
}

/// Whether a node believes its machine's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockState {
    /// True where it does.
    pub trusted: bool,
    /// Why not, for people.
    pub reason: Option<String>,
}

/// What a node is besides its identity, for a backup of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OwnState {
    /// Number of its last start, as others have seen it.
    pub boot_epoch: u32,
    /// Contacts by name.
    pub contacts: Vec<(String, Address)>,
    /// URLs of peers added at run time.
    pub peers: Vec<String>,
}

/// It is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Always true.
    pub ok: bool,
}

impl Done {
    /// `{"ok":true}`.
    pub const OK: Done = Done { ok: true };
}

/// Answer to `init`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Initialised {
    /// The new node's address.
    pub address: Address,
    /// The new node's key.
    pub public_key: PublicKey,
    /// Where its state lives.
    pub data_dir: String,
}

/// Answer to `version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Version of this program.
    pub version: String,
    /// Protocol it speaks on links, as negotiated by TLS.
    pub protocol: String,
    /// Version of the control protocol.
    pub control: u32,
    /// Operating system and processor.
    pub target: String,
    /// Optional parts compiled in.
    pub features: Vec<String>,
}

/// First line of `run`: every listener is bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Says which event the object is.
    pub event: ReadyEvent,
    /// The node's address.
    pub address: Address,
    /// The node's key.
    pub public_key: PublicKey,
    /// What it listens on, real ports.
    pub listen: Vec<String>,
    /// Where its health endpoint listens, none when off.
    pub health: Option<String>,
    /// Path of the control socket.
    pub control: String,
    /// Process id.
    pub pid: u32,
}

/// Last line of `run` and the answer to `drain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Says which event the object is.
    pub event: StoppedEvent,
    /// What made it stop: `signal`, `drain`, `failed: …`.
    pub reason: String,
    /// Whether every phase ended within its deadline.
    pub drained: bool,
    /// How long each phase took, in order.
    pub phases: Vec<PhaseTime>,
    /// Messages in the store that the next start goes on with.
    pub undelivered_kept: u64,
    /// Messages that the node answered for: found on its disk when it started, or acknowledged since.
    /// They are those that were delivered, rejected or kept.
    pub accepted: u64,
    /// Of those, messages that were receipted, or handed to somebody else who keeps them.
    pub delivered: u64,
    /// Of those, messages that ended otherwise, each reported: expired, failed, cancelled.
    pub rejected: u64,
    /// Frames that still waited to be written when their link closed.
    pub frames_dropped: u64,
}

/// How long one phase of a drain took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// `draining`, `persisting`, `cleanup`, `complete`.
    pub name: String,
    /// Milliseconds.
    pub ms: u64,
}

/// The word `ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadyEvent {
    /// The only value.
    #[default]
    Ready,
}

/// The word `stopped`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoppedEvent {
    /// The only value.
    #[default]
    Stopped,
}

/// Everything a node answers with over its control socket, one object each. Written as the object
/// itself; who asked knows which one comes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[allow(missing_docs)] // Each variant is named after the object it carries.
pub enum Reply {
    Status(Status),
    Peer(Peer),
    Route(Route),
    KnownNode(KnownNode),
    Stats(serde_json::Map<String, serde_json::Value>),
    Stopped(Stopped),
    SendOutcome(SendOutcome),
    MessageId(MessageId),
    InboxItem(InboxItem),
    OutboxItem(OutboxItem),
    Mailbox(Mailbox),
    Message(Box<Message>),
    BackedUp(BackedUp),
    Trace(Trace),
    Pong(Pong),
    Contact(Contact),
    Blocked(Blocked),
    SenderRequest(SenderRequest),
    RequestAnswered(RequestAnswered),
    Reloaded(Reloaded),
    LogLevel(LogLevel),
    EventItem(EventItem),
    OwnState(OwnState),
    ClockState(ClockState),
    Dialled(Dialled),
    Done(Done),
    PeerEntry(PeerEntry),
}

macro_rules! reply_from {
    ($($name:ident),*) => {
        $(impl From<$name> for Reply {
            fn from(object: $name) -> Self {
                Self::$name(object)
            }
        })*
    };
}

impl From<Message> for Reply {
    fn from(object: Message) -> Self {
        Self::Message(Box::new(object))
    }
}

reply_from!(
    Status,
    Peer,
    Route,
    KnownNode,
    Stopped,
    SendOutcome,
    MessageId,
    InboxItem,
    OutboxItem,
    Mailbox,
    BackedUp,
    Trace,
    Pong,
    Contact,
    Blocked,
    SenderRequest,
    RequestAnswered,
    Reloaded,
    LogLevel,
    EventItem,
    OwnState,
    ClockState,
    Dialled,
    Done,
    PeerEntry
);
