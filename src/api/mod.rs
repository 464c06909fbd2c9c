//! What a node says about itself and what it can be asked: the JSON objects of `CLI.md` as types.
//!
//! The same types serve the control socket, the command line's `--json` and the HTTP surface, so
//! that a field has one name and one meaning everywhere. Fields without a value are `null`, never
//! absent. Units stand at the end of the name; a time of day is RFC 3339 in UTC ([`Timestamp`]).

pub mod card;
pub mod error;
pub mod objects;
pub mod peers;
pub mod request;
pub mod target;
pub mod time;

pub use card::{Card, CardError};
pub use error::{ApiError, ErrorClass};
pub use objects::{
    BackedUp, Blocked, Capability, ClockState, Contact, DeliveryStatus, Dialled, Direction, Done, EventItem,
    EventKind, FileProgress, InboxItem, Initialised, KnownNode, LogLevel, Mailbox, Message, MessageEvent,
    MessageId, NodeState, OutboxItem, OwnState, Peer, PhaseTime, Pong, Priority, Ready, ReadyEvent, Received,
    Reloaded, Reply, RequestAnswered, Route, SendOutcome, SenderRequest, Status, Stopped, StoppedEvent,
    SubsystemStatus, Trace, TraceHop, Version,
};
pub use peers::{PeerEntry, PeerKind, PeerState};
pub use request::Request;
pub use target::{Known, Target, check_contact_name};
pub use time::Timestamp;
