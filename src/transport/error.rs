//! What goes wrong with ports and links, and what to do about it.

use std::io;

use super::{addr::AddrError, addr::TransportAddr};
use crate::wire::Address;

/// A port or a link failed.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Text that is no URL of a link.
    #[error(transparent)]
    Addr(#[from] AddrError),
    /// Another program listens there.
    #[error("cannot listen on {addr}: the port is in use; choose another with --listen, or port 0 for any")]
    PortInUse {
        /// The URL.
        addr: TransportAddr,
    },
    /// The port cannot be opened.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The URL.
        addr: TransportAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The name leads nowhere.
    #[error("cannot resolve {addr}: {reason}")]
    Resolve {
        /// The URL.
        addr: TransportAddr,
        /// What the resolver said.
        reason: String,
    },
    /// Nobody answers there, or not in time.
    #[error("cannot reach {addr}: {reason}")]
    Unreachable {
        /// The URL.
        addr: TransportAddr,
        /// What happened.
        reason: String,
    },
    /// Somebody answers, but not as a node of this protocol.
    #[error("handshake with {addr} failed: {reason}")]
    Handshake {
        /// The URL.
        addr: TransportAddr,
        /// What happened.
        reason: String,
    },
    /// Another identity than the pinned one answers.
    #[error(
        "{addr} answers as {got}, not as the pinned {expected}; if the node has a new identity, change the pin"
    )]
    PinMismatch {
        /// The URL.
        addr: TransportAddr,
        /// The pin.
        expected: Address,
        /// Who answered.
        got: Address,
    },
    /// This node reached itself.
    #[error("{addr} is this node itself, or one with the same identity")]
    SelfDial {
        /// The URL.
        addr: TransportAddr,
    },
    /// No port of this scheme.
    #[error("no {scheme} port on this node; give it one with --listen {scheme}://…")]
    NoPort {
        /// The scheme.
        scheme: String,
    },
    /// The medium has no such thing.
    #[error("this medium has no {0}")]
    Unsupported(&'static str),
    /// A frame that is larger than the link carries.
    #[error("a frame of {got} bytes, the limit is {limit}")]
    FrameTooLarge {
        /// Bytes.
        got: usize,
        /// Most.
        limit: usize,
    },
    /// A length prefix of zero.
    #[error("an empty frame")]
    EmptyFrame,
    /// The link is over.
    #[error("the link closed: {reason}")]
    Closed {
        /// Why, as far as known.
        reason: String,
        /// True where the peer closed it in order.
        by_peer: bool,
    },
    /// The node's own keys do not make a TLS identity.
    #[error("cannot make a TLS identity: {0}")]
    Tls(String),
}

impl TransportError {
    /// The link ended from the other side.
    pub fn closed_by_peer(reason: impl Into<String>) -> Self {
        Self::Closed { reason: reason.into(), by_peer: true }
    }

    /// The link broke.
    pub fn broken(reason: impl std::fmt::Display) -> Self {
        Self::Closed { reason: reason.to_string(), by_peer: false }
    }

    /// True where the peer did something no honest one does.
    pub fn is_peer_fault(&self) -> bool {
        matches!(self, Self::FrameTooLarge { .. } | Self::EmptyFrame | Self::PinMismatch { .. })
    }

    /// True where the operator of this node can mend it.
    pub fn is_local(&self) -> bool {
        matches!(
            self,
            Self::Addr(_)
                | Self::PortInUse { .. }
                | Self::Listen { .. }
                | Self::NoPort { .. }
                | Self::Tls(_)
                | Self::SelfDial { .. }
        )
    }
}
