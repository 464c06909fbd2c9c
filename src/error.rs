//! Errors of the library's surface.

use std::fmt::Display;

use crate::{
    crypto::{CryptoError, IdentityError},
    messages::route::{DropReason, IncomingAction},
    proto::verify::VerifyError,
    storage::StoreError,
    transport::TransportError,
    wire::DecodeError,
};

/// Anything that can go wrong when a node is built or used. The message says what happened, to what, and
/// what to do about it.
///
/// [`MeshError::Refused`] and [`MeshError::InboxTaken`] are the caller's to change.
/// [`MeshError::Draining`] is for good, of this node. [`MeshError::Stopped`] is for good where the node
/// has ended, and else over within a minute. For what other layers say see their own types.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// A link or a listener.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A URL of a link.
    #[error(transparent)]
    Addr(#[from] crate::transport::AddrError),
    /// A URL of a listener or a peer.
    #[error(transparent)]
    Url(#[from] crate::config::ParseUrlError),
    /// Routing.
    #[error(transparent)]
    Routing(#[from] RoutingError),
    /// Keys, signatures, seals.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// The identity's key file.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// An envelope or announce whose form or proof does not hold.
    #[error(transparent)]
    Verify(VerifyError),
    /// Bytes that are not this protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// The program's part in a stop.
    #[error(transparent)]
    Shutdown(#[from] crate::node::ShutdownError),
    /// A node was built without a place for its data.
    #[error("a node needs a data directory; name one with MeshNodeBuilder::data_dir")]
    NoDataDir,
    /// A node runs once.
    #[error("this node was started before; build another on its data directory when it has ended")]
    StartedBefore,
    /// Somebody else takes messages out of the inbox; one at a time does.
    #[error("another stream or `qpc recv` takes messages from this node; end it first")]
    InboxTaken,
    /// The message cannot be taken.
    #[error("{0}")]
    Refused(String),
    /// The node drains and takes no new work.
    #[error("the node is draining and takes no new messages")]
    Draining,
    /// The node has stopped, or a part of it is being restarted.
    #[error("the node's {0} does not answer; it has stopped or is being restarted")]
    Stopped(&'static str),
    /// With what was being done.
    #[error("{context}: {source}")]
    Context {
        /// What was being done.
        context: String,
        /// What went wrong.
        source: Box<MeshError>,
    },
}

impl From<VerifyError> for MeshError {
    /// A fault of a key or signature is one of cryptography, wherever it was found.
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Crypto(error) => Self::Crypto(error),
            error => Self::Verify(error),
        }
    }
}

/// Bytes of a peer that are not this protocol.
pub type ProtocolError = DecodeError;

/// Why a destination cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoutingError {
    /// No route is known.
    #[error("no path to {0} is known; it may be offline, or nobody between has announced it yet")]
    NoPath(crate::wire::Address),
    /// An envelope whose source nobody here knows, and which does not carry its key.
    #[error(
        "the key of {0} is not known here, so nothing of it can be believed; attach the key with \
         Envelope::with_source_key"
    )]
    KeyMissing(crate::wire::Address),
    /// An envelope that was to go on did not.
    #[error("the envelope did not go on: {}", why_not(.0))]
    NotForwarded(IncomingAction),
}

fn why_not(action: &IncomingAction) -> &'static str {
    match action {
        IncomingAction::Delivered | IncomingAction::Broadcast { .. } => {
            "it is for this node or for everyone; hand it in with handle_incoming"
        }
        IncomingAction::Forwarded => "it was sent before",
        IncomingAction::ToCustody => "the link on the way is full; this node keeps it and tries again",
        IncomingAction::Dropped(DropReason::Duplicate) => "it went through here before",
        IncomingAction::Dropped(DropReason::OwnReturned) => "this node made it; use send",
        IncomingAction::Dropped(DropReason::HopLimit) => "it has crossed all the links it may",
        IncomingAction::Dropped(DropReason::Expired) => "its lifetime is over",
        IncomingAction::Dropped(DropReason::NoPath) => "there is no path over a link of this relay's",
        IncomingAction::Dropped(DropReason::Congested) => {
            "the link on the way is full; try again in a second"
        }
    }
}

/// Says what was being done when an error came up.
pub trait ErrorContext<T> {
    /// Adds `context` in front of the error.
    fn context(self, context: impl Display) -> Result<T, MeshError>;
}

impl<T, E: Into<MeshError>> ErrorContext<T> for Result<T, E> {
    fn context(self, context: impl Display) -> Result<T, MeshError> {
        self.map_err(|e| MeshError::Context { context: context.to_string(), source: Box::new(e.into()) })
    }
}
