//! Errors of the library's surface.

use std::fmt::Display;

use crate::{
    crypto::{CryptoError, IdentityError},
    storage::StoreError,
    transport::TransportError,
    wire::DecodeError,
};

/// Anything that can go wrong when a node is built or used.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// A link or a listener.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A URL of a link.
    #[error(transparent)]
    Addr(#[from] crate::transport::AddrError),
    /// Routing.
    #[error(transparent)]
    Routing(#[from] RoutingError),
    /// Keys, signatures, seals.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// The identity's key file.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Bytes that are not this protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
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

/// Bytes of a peer that are not this protocol.
pub type ProtocolError = DecodeError;

/// Why a destination cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoutingError {
    /// No route is known.
    #[error("no path to {0} is known; it may be offline, or nobody between has announced it yet")]
    NoPath(crate::wire::Address),
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
