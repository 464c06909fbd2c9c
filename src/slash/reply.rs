//! What a command is answered with.

use serde::Serialize;
use serde_json::{Map, Value};

use super::table::CommandHelp;
use crate::{
    api::{
        Contact, DeliveryStatus, Done, InboxItem, KnownNode, MessageId, OutboxItem, Peer, Pong, Received,
        Route, SendOutcome, Status, Trace,
    },
    wire::Address,
};

/// The answer to a command. As JSON it is the object of [`crate::api`], or an array of them; written
/// with [`std::fmt::Display`] it is text for people, without a line break at its end and with the text
/// of others escaped.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum SlashReply {
    /// `/to`: whom lines go to now.
    Conversation(Option<Party>),
    /// `/msg`.
    Sent(SendOutcome),
    /// `/broadcast`.
    Broadcast(MessageId),
    /// `/inbox`.
    Inbox(Vec<InboxItem>),
    /// `/recv`: to be shown, and then confirmed with [`super::confirm_slash`].
    Received(Taken),
    /// `/outbox`.
    Outbox(Vec<OutboxItem>),
    /// `/contacts`.
    Contacts(Vec<Contact>),
    /// `/contact add`.
    ContactAdded(Contact),
    /// `/contact remove`.
    ContactRemoved(Done),
    /// `/whoami`.
    WhoAmI(WhoAmI),
    /// `/status`.
    Status(Status),
    /// `/known`.
    Known(Vec<KnownNode>),
    /// `/ping`.
    Ping(Vec<Pong>),
    /// `/mesh trace`.
    Trace(Trace),
    /// `/mesh stats`.
    Stats(Map<String, Value>),
    /// `/mesh peers`.
    Peers(Vec<Peer>),
    /// `/mesh routes`.
    Routes(Vec<Route>),
    /// `/help`.
    Help(Vec<CommandHelp>),
    /// `/quit`.
    Quit,
}

impl SlashReply {
    /// Why the command did not do what it was for, although the node answered: a trace that did not
    /// arrive, pings without an answer, a message that will not be delivered.
    pub fn failure(&self) -> Option<String> {
        match self {
            Self::Trace(trace) if !trace.reached => Some(format!("{} did not answer", trace.destination)),
            Self::Ping(pongs) if pongs.iter().all(|pong| pong.rtt_ms.is_none()) => {
                Some(format!("none of {} pings was answered", pongs.len()))
            }
            Self::Sent(SendOutcome {
                id,
                status: DeliveryStatus::Expired | DeliveryStatus::Failed,
                reason,
                ..
            }) => {
                let reason = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
                Some(format!("{id} was not delivered{reason}"))
            }
            _ => None,
        }
    }
}

/// Somebody to write to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Party {
    /// Who.
    pub address: Address,
    /// The contact's name of that address, when it has one.
    pub name: Option<String>,
}

/// What `/recv` gives.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Taken {
    /// Texts, oldest first.
    pub messages: Vec<Received>,
    /// Files and other content among them that is no text: it stays in the inbox, for `qpc recv`.
    pub files_left: u64,
}

/// Who this node is to others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WhoAmI {
    /// Its address.
    pub address: Address,
    /// Name of its network.
    pub network: String,
    /// What others dial, with the address that has to answer there. What a node listens on may be
    /// another place than where it is reached from outside.
    pub dial: Vec<String>,
}

impl WhoAmI {
    pub(super) fn of(status: Status) -> Self {
        let dial = status.listen.iter().map(|url| format!("{url}#{}", status.address)).collect();
        Self { address: status.address, network: status.network, dial }
    }
}
