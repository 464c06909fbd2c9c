//! What goes wrong with ports and links: what happened, to what, and what to do about it.

use std::{fmt, io};

use crate::wire::{Address, TrafficClass, limits::FRAME_BYTES_MAX};

use super::{AddrError, TransportAddr};

/// An error of a port or a link.
///
/// Where it [ends the link](TransportError::ends_link), dial again; a node does that by itself. What
/// [is the peer's fault](TransportError::is_peer_fault) is charged to it, and what
/// [is local](TransportError::is_local) is this program's to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The URL does not parse.
    #[error(transparent)]
    Addr(#[from] AddrError),

    /// No port of this node speaks the URL's scheme.
    #[error(
        "no port to reach {url} from; this node has {}; add `--listen {}://…`",
        OrNone(.have),
        .url.scheme()
    )]
    NoPort {
        /// What was to be dialled.
        url: TransportAddr,
        /// Schemes of the ports there are.
        have: Vec<&'static str>,
    },
    /// The port has no such operation.
    #[error("a {scheme} port cannot {what}")]
    Unsupported {
        /// The port's scheme.
        scheme: &'static str,
        /// The operation.
        what: &'static str,
    },

    /// Somebody else listens there.
    #[error(
        "{url} is in use by another program; stop it, or listen on another port (port 0 takes any free one)"
    )]
    PortInUse {
        /// Where to listen.
        url: TransportAddr,
    },
    /// The operating system does not let this user listen or send there.
    #[error(
        "not permitted to use {url}; ports below 1024 need a privilege, and a firewall may refuse others"
    )]
    Permission {
        /// Where to listen, or what was dialled.
        url: TransportAddr,
    },
    /// No interface of this host has the address.
    #[error("no interface of this host has the address of {url}; listen on one it has, or on [::] for all")]
    NotLocal {
        /// Where to listen.
        url: TransportAddr,
    },
    /// The process has no more file descriptors.
    #[error("out of file descriptors while opening {url}; raise the limit (`ulimit -n`)")]
    OutOfFiles {
        /// What was to be opened.
        url: TransportAddr,
    },
    /// The operating system refused for another reason.
    #[error("{url}: {detail}")]
    Io {
        /// What was to be opened.
        url: TransportAddr,
        /// What the operating system said.
        detail: String,
    },
    /// The shared medium has a link with this neighbour already, or with too many.
    #[error("there is a link with {url} already, or with too many neighbours; use or close it first")]
    AlreadyLinked {
        /// What was dialled.
        url: TransportAddr,
    },
    /// The identity's key does not work for TLS.
    #[error("the node's key cannot be used for TLS: {detail}")]
    LocalKey {
        /// What the TLS library said; nothing of the key.
        detail: String,
    },

    /// The host name has no address.
    #[error("cannot resolve {host}: {detail}; check the name and the host's DNS")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        detail: String,
    },
    /// Nobody listens there.
    #[error("{url} refused the connection; nothing listens there")]
    Refused {
        /// What was dialled.
        url: TransportAddr,
    },
    /// No way there from this host.
    #[error("no network path to {url}: {detail}")]
    Unreachable {
        /// What was dialled.
        url: TransportAddr,
        /// What the operating system said.
        detail: String,
    },
    /// No answer in time.
    #[error("{url} did not complete the handshake within {after_ms} ms")]
    TimedOut {
        /// What was dialled.
        url: TransportAddr,
        /// How long it was given.
        after_ms: u64,
    },

    /// The other end speaks, but not this protocol, or failed to prove its key.
    #[error("handshake with {url} failed: {detail}")]
    Handshake {
        /// Who it was with.
        url: TransportAddr,
        /// What was wrong.
        detail: String,
    },
    /// Another identity than the pinned one answered.
    #[error(
        "{url} answered as {got}, but is pinned to {expected}; correct the pin if the peer's identity changed on purpose"
    )]
    PinMismatch {
        /// What was dialled.
        url: TransportAddr,
        /// The pinned address.
        expected: Address,
        /// The address of the key that was proven.
        got: Address,
    },
    /// The other end has this node's own key.
    #[error(
        "{url} is this node itself, or another one that runs with a copy of its key: remove it from the \
         peers, or give the other node a key of its own"
    )]
    SelfDial {
        /// What was dialled, or who dialled.
        url: TransportAddr,
    },

    /// A frame larger than the link takes.
    #[error("a frame of {got_bytes} bytes {}; the limit is {limit_bytes}", FromPeer(.from_peer))]
    FrameTooLarge {
        /// Its size.
        got_bytes: usize,
        /// The link's limit.
        limit_bytes: usize,
        /// True where the peer announced it, false where it was to be sent.
        from_peer: bool,
    },
    /// A frame without a byte.
    #[error("an empty frame {}", FromPeer(.from_peer))]
    EmptyFrame {
        /// True where the peer sent it, false where it was to be sent.
        from_peer: bool,
    },
    /// The peer broke the rules of the medium's framing.
    #[error("the peer broke the link's framing: {detail}")]
    Protocol {
        /// What it did.
        detail: &'static str,
    },
    /// More is waiting on the link than it holds.
    #[error("{unwritten_bytes} bytes of {class:?} traffic are still unwritten on the link")]
    Backlogged {
        /// The class.
        class: TrafficClass,
        /// What is waiting.
        unwritten_bytes: usize,
    },

    /// The peer closed the link.
    #[error("the peer closed the link ({code}{})", Reason(.reason))]
    Closed {
        /// Its code.
        code: CloseCode,
        /// Its reason, printable, at most
        /// [`CLOSE_REASON_BYTES_MAX`](super::CLOSE_REASON_BYTES_MAX) bytes.
        reason: String,
    },
    /// The link ended without a word.
    #[error("the link was lost: {detail}")]
    Lost {
        /// How that showed.
        detail: String,
    },
    /// This end closed the link.
    #[error("the link was closed on this side")]
    LinkClosed,
    /// The port was closed, or does not listen.
    #[error("the port is closed")]
    PortClosed,
}

impl TransportError {
    /// True where the other end is to blame: it broke a protocol, or is not who it should be.
    pub fn is_peer_fault(&self) -> bool {
        match self {
            Self::Handshake { .. } | Self::PinMismatch { .. } | Self::Protocol { .. } => true,
            Self::FrameTooLarge { from_peer, .. } | Self::EmptyFrame { from_peer } => *from_peer,
            _ => false,
        }
    }

    /// True where the cause is on this host and only its operator or its code can change it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Addr(_)
            | Self::NoPort { .. }
            | Self::Unsupported { .. }
            | Self::PortInUse { .. }
            | Self::Permission { .. }
            | Self::NotLocal { .. }
            | Self::OutOfFiles { .. }
            | Self::Io { .. }
            | Self::LocalKey { .. }
            | Self::AlreadyLinked { .. }
            | Self::SelfDial { .. }
            | Self::Backlogged { .. }
            | Self::LinkClosed
            | Self::PortClosed => true,
            Self::FrameTooLarge { from_peer, .. } | Self::EmptyFrame { from_peer } => !from_peer,
            _ => false,
        }
    }

    /// True where the link is over after this error.
    pub fn ends_link(&self) -> bool {
        !matches!(
            self,
            Self::Backlogged { .. }
                | Self::FrameTooLarge { from_peer: false, .. }
                | Self::EmptyFrame { from_peer: false }
        )
    }

    /// An operating system error while listening on or dialling `url`.
    pub(super) fn from_io(url: &TransportAddr, error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        let url = url.clone();
        let detail = error.to_string();
        match error.kind() {
            Kind::AddrInUse => Self::PortInUse { url },
            Kind::PermissionDenied => Self::Permission { url },
            Kind::AddrNotAvailable => Self::NotLocal { url },
            Kind::ConnectionRefused => Self::Refused { url },
            Kind::NetworkUnreachable | Kind::HostUnreachable | Kind::NetworkDown => {
                Self::Unreachable { url, detail }
            }
            _ if is_out_of_files(error) => Self::OutOfFiles { url },
            _ => Self::Io { url, detail },
        }
    }

    pub(super) fn peer_frame_too_large(got_bytes: usize) -> Self {
        Self::FrameTooLarge { got_bytes, limit_bytes: FRAME_BYTES_MAX, from_peer: true }
    }

    pub(super) fn lost(detail: impl fmt::Display) -> Self {
        Self::Lost { detail: detail.to_string() }
    }

    /// The peer's close as it came over the wire: at most
    /// [`CLOSE_REASON_BYTES_MAX`](super::CLOSE_REASON_BYTES_MAX) bytes of it, made printable.
    pub(super) fn closed_by_peer(code: CloseCode, reason: &[u8]) -> Self {
        let reason = reason.get(..super::CLOSE_REASON_BYTES_MAX).unwrap_or(reason);
        let reason = String::from_utf8_lossy(reason);
        let reason = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self::Closed { code, reason }
    }
}

/// Per process or per system: 24 and 23 on every system this runs on.
fn is_out_of_files(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

/// The longest prefix of `reason` that a close carries.
pub(super) fn cut_reason(reason: &str) -> &str {
    let mut end = reason.len().min(super::CLOSE_REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    reason.get(..end).unwrap_or("")
}

/// Why a link was closed, as a number for programs. Codes below 16 belong to the transports, those
/// above to whoever uses the link; a transport passes them on unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(pub u32);

impl CloseCode {
    /// No reason to give.
    pub const NORMAL: CloseCode = CloseCode(1);
    /// The port is being closed.
    pub const GOING_AWAY: CloseCode = CloseCode(2);
    /// The peer broke the framing.
    pub const PROTOCOL: CloseCode = CloseCode(3);
    /// Nobody takes links from the port at the moment; come back later.
    pub const BUSY: CloseCode = CloseCode(4);
    /// The peer has this node's own key.
    pub const SELF_DIAL: CloseCode = CloseCode(5);
    /// The dialler expected another identity.
    pub const PIN_MISMATCH: CloseCode = CloseCode(6);
    /// The first code for users of links.
    pub const FIRST_FREE: CloseCode = CloseCode(16);
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NORMAL => f.write_str("normal"),
            Self::GOING_AWAY => f.write_str("going away"),
            Self::PROTOCOL => f.write_str("protocol error"),
            Self::BUSY => f.write_str("busy"),
            Self::SELF_DIAL => f.write_str("own key"),
            Self::PIN_MISMATCH => f.write_str("pinned to another identity"),
            CloseCode(code) => write!(f, "code {code}"),
        }
    }
}

struct OrNone<'a>(&'a [&'static str]);

impl fmt::Display for OrNone<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no ports at all");
        }
        for (i, scheme) in self.0.iter().enumerate() {
            write!(f, "{}{scheme}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

struct FromPeer<'a>(&'a bool);

impl fmt::Display for FromPeer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self.0 { "came from the peer" } else { "cannot be sent" })
    }
}

struct Reason<'a>(&'a str);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let long = "ä".repeat(100);
        assert_eq!(cut_reason(&long).len(), super::super::CLOSE_REASON_BYTES_MAX);
        let odd = format!("x{long}");
        assert_eq!(cut_reason(&odd).len(), super::super::CLOSE_REASON_BYTES_MAX - 1);
        assert_eq!(cut_reason("short"), "short");
    }

    #[test]
    fn a_reason_from_the_peer_cannot_write_to_the_terminal() {
        let TransportError::Closed { reason, .. } =
            TransportError::closed_by_peer(CloseCode::NORMAL, b"\x1b[2Jbye\xff\n")
        else {
            panic!("not a close");
        };
        assert_eq!(reason, " [2Jbye\u{fffd} ");
    }

    #[test]
    fn every_error_blames_at_most_one_side() {
        let url: TransportAddr = "mem://a".parse().unwrap();
        let peer = [
            TransportError::Handshake { url: url.clone(), detail: "x".into() },
            TransportError::EmptyFrame { from_peer: true },
            TransportError::peer_frame_too_large(70_000),
            TransportError::Protocol { detail: "x" },
        ];
        let local = [
            TransportError::PortInUse { url: url.clone() },
            TransportError::SelfDial { url: url.clone() },
            TransportError::EmptyFrame { from_peer: false },
        ];
        let neither = [TransportError::Refused { url }, TransportError::lost("timeout")];
        assert!(peer.iter().all(|e| e.is_peer_fault() && !e.is_local()));
        assert!(local.iter().all(|e| !e.is_peer_fault() && e.is_local()));
        assert!(neither.iter().all(|e| !e.is_peer_fault() && !e.is_local()));
    }

    #[test]
    fn operating_system_errors_name_the_url_and_what_to_do() {
        let url: TransportAddr = "tcp://127.0.0.1:7410".parse().unwrap();
        let text = TransportError::from_io(&url, &io::ErrorKind::AddrInUse.into()).to_string();
        assert!(text.contains("tcp://127.0.0.1:7410") && text.contains("another port"), "{text}");
        assert_eq!(
            TransportError::from_io(&url, &io::Error::from_raw_os_error(24)),
            TransportError::OutOfFiles { url }
        );
    }
}
