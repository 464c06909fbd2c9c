//! Why a link closed itself.

use std::time::Duration;

use crate::wire::{DecodeError, handshake::CloseReason};

/// What went wrong on a link, and with that why it was closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The connection leads back to this node.
    #[error("the connection leads back to this node; remove its own address from the peers")]
    OwnIdentity,
    /// The peer belongs to another network.
    #[error("the peer's network tag is {got}, ours is {expected}; set the same `network` on both")]
    NetworkTag {
        /// Our tag in hex.
        expected: String,
        /// The peer's tag in hex.
        got: String,
    },
    /// One side has a network secret, or both have different ones.
    #[error("network secret: {fault}; use the same `network_secret_file` on both")]
    NetworkSecret {
        /// What does not fit.
        fault: SecretFault,
    },
    /// No link protocol version in common.
    #[error("the peer speaks link versions {peer_min} to {peer_max}, we speak {ours}; update the older node")]
    Version {
        /// Our version.
        ours: u8,
        /// Oldest version of the peer's.
        peer_min: u8,
        /// Newest version of the peer's.
        peer_max: u8,
    },
    /// The peer said nothing, or no hello, after the connection stood.
    #[error("no hello within {after:?}")]
    HelloTimeout {
        /// The longest wait.
        after: Duration,
    },
    /// The peer began with something else than a hello.
    #[error("a {frame} frame came before the hello")]
    BeforeHello {
        /// What came.
        frame: &'static str,
    },
    /// The peer said hello twice.
    #[error("a second hello came")]
    SecondHello,
    /// More frames were unreadable than a link may carry.
    #[error("unreadable frame: {error}")]
    Undecodable {
        /// What was wrong with the last of them.
        error: DecodeError,
    },
    /// More frames made no sense than a link may carry.
    #[error("too many frames make no sense, the last one: {what}")]
    Odd {
        /// The fault of the last of them.
        what: &'static str,
    },
    /// The peer left a ping and everything else unanswered.
    #[error("nothing heard for {silent_for:?}")]
    PeerSilent {
        /// Since when nothing came.
        silent_for: Duration,
    },
}

/// How two nodes differ in their network secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretFault {
    /// We have one, the peer shows none.
    #[error("the peer has none")]
    PeerHasNone,
    /// The peer has one, we have none.
    #[error("the peer has one and we have none")]
    WeHaveNone,
    /// Both have one, and they differ.
    #[error("the peer has another one")]
    Differs,
}

impl LinkError {
    /// True where the peer broke the protocol. A peer of another network, of another version, or
    /// behind a bad line did not, and is not punished.
    pub fn peer_fault(&self) -> bool {
        matches!(
            self,
            Self::BeforeHello { .. } | Self::SecondHello | Self::Undecodable { .. } | Self::Odd { .. }
        )
    }

    /// Label of the counter.
    pub fn name(&self) -> &'static str {
        match self {
            Self::OwnIdentity => "own_identity",
            Self::NetworkTag { .. } => "network_tag",
            Self::NetworkSecret { .. } => "network_secret",
            Self::Version { .. } => "version",
            Self::HelloTimeout { .. } => "hello_timeout",
            Self::BeforeHello { .. } => "before_hello",
            Self::SecondHello => "second_hello",
            Self::Undecodable { .. } => "undecodable",
            Self::Odd { .. } => "odd_frames",
            Self::PeerSilent { .. } => "peer_silent",
        }
    }

    /// What the goodbye says.
    pub fn close_reason(&self) -> CloseReason {
        match self {
            Self::OwnIdentity => CloseReason::NotAllowed,
            Self::NetworkTag { .. } | Self::NetworkSecret { .. } => CloseReason::NetworkMismatch,
            Self::Version { .. } => CloseReason::VersionMismatch,
            Self::BeforeHello { .. } | Self::SecondHello | Self::Undecodable { .. } | Self::Odd { .. } => {
                CloseReason::ProtocolError
            }
            Self::HelloTimeout { .. } | Self::PeerSilent { .. } => CloseReason::Unresponsive,
        }
    }
}
