//! Media: how frames get from one node to a neighbour.
//!
//! A [`MeshTransport`] is one medium attached at one local endpoint, a *port*. It dials and accepts
//! [`Link`]s; each is a neighbour on that port with a sending and a receiving half. Both halves work
//! in batches, so that one boxed future serves many frames. Frames are opaque here: whole byte
//! strings of 1 to [`FRAME_BYTES_MAX`](crate::wire::limits::FRAME_BYTES_MAX) bytes.
//!
//! What every medium promises, and `tests/transport_conformance.rs` checks on each:
//!
//! - Frames of one [`TrafficClass`] arrive in the order they were sent, whole, once. Between classes
//!   there is no order but a preference: control before interactive before bulk. (A shared medium
//!   may lose frames; it says so in [`TransportInfo::shared_medium`].)
//! - Memory is bounded on both sides: a reader that stops stops the writer.
//! - Dropping a future loses no byte and tears no frame ([`LinkSender::send`],
//!   [`LinkReceiver::recv`], [`MeshTransport::accept`] all work inside `select!`).
//! - An authenticated peer is who it says: its key is proven in the handshake, a pinned address is
//!   compared before the link is handed out, and the channel binding is the same on both ends of
//!   this link and on no other.
//! - No peer can end a port's accept loop or delay another's handshake.
//!
//! Deliberately absent: keepalive, redial, credit, ban lists, anything that reads a frame. Those
//! are decisions, and decisions live in `proto`.

#![cfg_attr(
    not(any(feature = "quic", feature = "tcp")),
    allow(dead_code, reason = "TLS, framing and listener errors serve the socket media only")
)]

use std::{fmt, future::Future, net::IpAddr, pin::Pin};

use bytes::Bytes;

pub use crate::wire::FrameParts;
use crate::wire::{Address, PublicKey, TrafficClass};

pub mod addr;
pub mod capability;
#[cfg(feature = "quic")]
mod congestion;
pub mod error;
#[cfg(feature = "port-mapping")]
pub mod gateway;
pub mod interfaces;
pub mod manager;
pub mod mem;
pub mod mem_shared;
pub mod multicast;
#[cfg(feature = "quic")]
pub mod quic;
#[cfg(feature = "tcp")]
pub mod tcp;
pub mod tls;

#[cfg(any(feature = "quic", feature = "tcp"))]
mod dial;
pub(crate) mod framing;
#[cfg(any(feature = "quic", feature = "tcp"))]
mod gate;
mod inbox;
pub mod lanes;

pub use addr::{AddrError, Target, TransportAddr};
pub use capability::{CryptoMode, LinkProfile, TransportCapability};
pub use error::{CloseCode, TransportError};
pub use lanes::{Lane, Lanes, Spawn, Task};
pub use manager::{LinkFacts, TransportManager};
pub use mem::{MemNetwork, MemPort};
pub use mem_shared::{SharedMedium, SharedMediumOptions, SharedMemPort};
#[cfg(feature = "quic")]
pub use quic::{QuicOptions, QuicPort};
#[cfg(feature = "tcp")]
pub use tcp::{TcpOptions, TcpPort};
pub use tls::TlsIdentity;

/// A boxed future, so that transports can be trait objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Frames one [`LinkReceiver::recv`] hands out at most, so that a flood on one link is looked at in
/// slices.
pub const RECV_FRAMES_MAX: usize = 64;

/// Bytes of one class that a sender holds unwritten before it refuses more
/// ([`TransportError::Backlogged`]). Only callers that drop `send` futures ever get there.
pub const BACKLOG_BYTES_MAX: usize = 256 * 1024;

/// One medium attached at one local endpoint: a port.
///
/// Object safe, so that a program which embeds a node brings its own.
pub trait MeshTransport: Send + Sync + 'static {
    /// What this port is. Constant over its life.
    fn info(&self) -> TransportInfo;

    /// Opens a link to `to`. Names are resolved anew each time. A pin in `to` is compared with the
    /// peer's proven key before the link is handed out. Media with a handshake give up after their
    /// handshake timeout.
    ///
    /// An `Ok` says that the peer proved its key, not yet that it accepts ours: with TLS 1.3 the
    /// dialler is done first. A refusal shows as the end of the link.
    ///
    /// # Errors
    /// Any [`TransportError`]; [`TransportError::is_peer_fault`] and [`TransportError::is_local`]
    /// tell where the cause is.
    fn dial<'a>(&'a self, to: &'a TransportAddr) -> BoxFuture<'a, Result<Link, TransportError>>;

    /// The next inbound link, authenticated where the medium can. Handshakes run side by side;
    /// the failure of one neither shows here nor delays another ([`MeshTransport::stats`] counts
    /// them). Dropping the future loses no link.
    ///
    /// # Errors
    /// [`TransportError::PortClosed`] after [`MeshTransport::close`], and on ports that only dial.
    fn accept(&self) -> BoxFuture<'_, Result<Link, TransportError>>;

    /// Neighbours this medium can hear or see without dialling; empty where it has no such sense.
    ///
    /// # Errors
    /// [`TransportError::PortClosed`] after [`MeshTransport::close`].
    fn discover(&self) -> BoxFuture<'_, Result<Vec<TransportAddr>, TransportError>>;

    /// Sends `frames` to everybody in earshot, on media that have such a thing.
    ///
    /// # Errors
    /// [`TransportError::Unsupported`] on point-to-point media.
    fn broadcast<'a>(&'a self, frames: &'a [FrameParts]) -> BoxFuture<'a, Result<(), TransportError>> {
        let _ = frames;
        let scheme = self.info().scheme;
        Box::pin(async move { Err(TransportError::Unsupported { scheme, what: "broadcast" }) })
    }

    /// What this port refused and lost so far.
    fn stats(&self) -> PortStats {
        PortStats::default()
    }

    /// Stops accepting and dialling. Links that are open stay, so that a draining node can flush
    /// them; the local endpoint is free when the listener is gone, on QUIC, whose links share its
    /// socket, when the last of them is. Idempotent.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// What a port is.
#[derive(Debug, Clone, PartialEq)]
pub struct TransportInfo {
    /// Scheme of the addresses it dials.
    pub scheme: &'static str,
    /// Where it listens, with the real port; the unspecified address and port 0 if it only dials.
    pub local: TransportAddr,
    /// Largest frame in bytes.
    pub mtu_bytes: usize,
    /// What the medium carries.
    pub capability: TransportCapability,
    /// True where all ports hear all frames, and frames may be lost (radio).
    pub shared_medium: bool,
}

/// What a port refused and lost since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Inbound connections accepted and authenticated.
    pub accepted: u64,
    /// Inbound connections that did not complete the handshake: other protocol, bad key, silence.
    pub handshakes_failed: u64,
    /// Inbound handshakes dropped because too many were under way at once.
    pub handshakes_evicted: u64,
    /// Authenticated links dropped because nobody took them from [`MeshTransport::accept`].
    pub accept_overflows: u64,
    /// Errors of the listening socket (out of file descriptors, mostly).
    pub listen_errors: u64,
    /// Frames a shared medium lost on the way to this port, by chance or by a full queue.
    pub frames_lost: u64,
}

/// A neighbour on a port. Dropping both halves ends it; [`LinkSender::close`] ends it with a reason.
pub struct Link {
    /// Who is on the other end.
    pub peer: LinkPeer,
    /// What the link is.
    pub info: LinkInfo,
    /// The sending half.
    pub tx: Box<dyn LinkSender>,
    /// The receiving half.
    pub rx: Box<dyn LinkReceiver>,
    /// The thread that its tasks run on; home, the default, on media that know no lanes. Both halves
    /// work on any thread, and cost least on this one.
    pub lane: Lane,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (peer, info) = (&self.peer, &self.info);
        let mut link = f.debug_struct("Link");
        link.field("peer", peer).field("info", info).field("lane", &self.lane).finish_non_exhaustive()
    }
}

/// Who is on the other end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkPeer {
    /// The holder of this key, proven in the link's handshake. The key is canonical and not of
    /// small order.
    Authenticated(PublicKey),
    /// The medium cannot say. Charge the port first, verified sources next.
    Nobody,
}

impl LinkPeer {
    /// The proven key, if there is one.
    pub fn public_key(&self) -> Option<&PublicKey> {
        match self {
            Self::Authenticated(key) => Some(key),
            Self::Nobody => None,
        }
    }

    /// The address of the proven key, if there is one.
    pub fn address(&self) -> Option<Address> {
        self.public_key().map(crate::crypto::compute_address)
    }
}

/// Who opened a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The peer dialled us.
    In,
    /// We dialled.
    Out,
}

impl Direction {
    /// Name in `qpc peers`.
    pub fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a link is. Constant over its life.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkInfo {
    /// The peer's end: as it was dialled, else as this port saw it. The port of an inbound TCP link
    /// is the peer's ephemeral one, so it cannot be dialled.
    pub remote: TransportAddr,
    /// Who opened it.
    pub direction: Direction,
    /// Largest frame in bytes.
    pub mtu_bytes: usize,
    /// What the medium carries.
    pub capability: TransportCapability,
    /// True where each class has a stream of its own, whose window keeps a slow reader of one class
    /// from holding up another. Else the link layer's credit does that.
    pub streams_per_class: bool,
    /// 32 bytes that both ends of this link share and no other link has (RFC 9266 style: exported
    /// from TLS, label [`tls::CHANNEL_BINDING_LABEL`]). All zero where the peer is
    /// [`LinkPeer::Nobody`].
    pub channel_binding: [u8; 32],
}

impl LinkInfo {
    /// Who commands the address that the peer came from, see [`addr::party_of`]; `None` where this node
    /// dialled, or the medium has no addresses.
    pub fn party(&self) -> Option<IpAddr> {
        match self.direction {
            Direction::In => self.remote.socket_addr().map(|at| addr::party_of(at.ip())),
            Direction::Out => None,
        }
    }
}

/// The sending half of a link.
pub trait LinkSender: Send {
    /// Takes `frames` into the queue of `class` and resolves once the medium took them all.
    ///
    /// The frames are taken by the call itself, before the future is polled, so dropping the future
    /// neither loses nor tears one; what was not written yet is written by the next `send` of the
    /// class, and `send(class, &[])` does just that. A writer can therefore drop a bulk send that
    /// waits for the peer's window when control traffic arrives, and resume it afterwards.
    ///
    /// # Errors
    /// - [`TransportError::FrameTooLarge`] or [`TransportError::EmptyFrame`]: nothing was taken.
    /// - [`TransportError::Backlogged`]: more than [`BACKLOG_BYTES_MAX`] of the class are unwritten;
    ///   nothing was taken.
    /// - [`TransportError::Closed`], [`TransportError::Lost`], [`TransportError::LinkClosed`]: the
    ///   link is over.
    fn send<'a>(
        &'a mut self,
        class: TrafficClass,
        frames: &'a [FrameParts],
    ) -> BoxFuture<'a, Result<(), TransportError>>;

    /// Bytes of `class` taken and not yet handed to the medium.
    fn unwritten_bytes(&self, class: TrafficClass) -> usize;

    /// Ends the link: writes what was taken, waits a moment for the peer to get it
    /// ([`CLOSE_FLUSH_TIMEOUT`]), and says `code` and `reason` (cut at
    /// [`CLOSE_REASON_BYTES_MAX`] bytes). Both halves are over then. Idempotent.
    fn close<'a>(&'a mut self, code: CloseCode, reason: &'a str) -> BoxFuture<'a, ()>;
}

/// The receiving half of a link.
pub trait LinkReceiver: Send {
    /// Appends to `out` at least one whole frame and what else is at hand, at most
    /// [`RECV_FRAMES_MAX`]. Dropping the future loses nothing.
    ///
    /// Frames share the buffer they arrived in. Whoever keeps one longer than passing it on takes
    /// copies it, or it keeps its neighbours' bytes in memory.
    ///
    /// # Errors
    /// The end of the link, after all frames that arrived before it; the same error from then on.
    /// - [`TransportError::Closed`]: the peer closed, with its code and reason.
    /// - [`TransportError::Lost`]: the link ended without a word.
    /// - [`TransportError::LinkClosed`]: this end closed it.
    /// - [`TransportError::FrameTooLarge`], [`TransportError::EmptyFrame`],
    ///   [`TransportError::Protocol`]: the peer broke the framing; the link was closed.
    fn recv<'a>(&'a mut self, out: &'a mut Vec<Bytes>) -> BoxFuture<'a, Result<(), TransportError>>;
}

/// Longest reason a close carries, in bytes of UTF-8.
pub const CLOSE_REASON_BYTES_MAX: usize = crate::wire::limits::GOODBYE_TEXT_BYTES_MAX;

/// How long [`LinkSender::close`] waits for what was taken to reach the peer.
pub const CLOSE_FLUSH_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);
