//! Answers to `peer list`.

use serde::{Deserialize, Serialize};

use crate::wire::Address;

/// Why a peer stands in the answer to `peer list`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerKind {
    /// The configuration says to dial it.
    Config,
    /// It was added at run time, to be dialled.
    Added,
    /// It was banned at run time.
    Banned,
    /// `peers.deny` names it.
    Deny,
    /// `peers.allow` names it.
    Allow,
}

impl PeerKind {
    /// The word used in JSON and text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Added => "added",
            Self::Banned => "banned",
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

/// How it stands with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// A link is up.
    Linked,
    /// It is dialled again and again.
    Dialled,
    /// There is no link with it, whoever dials.
    Refused,
    /// It may link, and has not.
    Allowed,
}

impl PeerState {
    /// The word used in JSON and text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Linked => "linked",
            Self::Dialled => "dialled",
            Self::Refused => "refused",
            Self::Allowed => "allowed",
        }
    }
}

/// A peer by somebody's word, in the answer to `peer list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerEntry {
    /// By whose word, and what it says.
    pub kind: PeerKind,
    /// Which node; none where only a place is known.
    pub address: Option<Address>,
    /// Where it is dialled.
    pub url: Option<String>,
    /// How it stands.
    pub state: PeerState,
    /// Why there is no link.
    pub reason: Option<String>,
}
