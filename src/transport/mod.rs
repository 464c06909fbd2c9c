//! Media: how bytes get to a neighbour and who the neighbour is. Nothing here knows what the
//! frames mean.
//!
//! A [`MeshTransport`] is one medium attached at one local endpoint. It dials and accepts
//! [`Link`]s, whose far end is authenticated or openly nobody. Both halves of a link work on
//! batches of whole frames, so that a call's cost is shared by what is at hand.

mod accept;
pub mod addr;
pub mod capability;
pub mod error;
pub mod framing;
pub mod manager;
pub mod mem;
#[cfg(feature = "quic")]
pub mod quic;
pub mod stream;
#[cfg(feature = "tcp")]
pub mod tcp;
pub mod tls;

use std::pin::Pin;

use bytes::Bytes;

pub use addr::{AddrError, TransportAddr};
pub use capability::{CryptoMode, TransportCapability};
pub use error::TransportError;
pub use manager::TransportManager;

use crate::wire::{FrameParts, PublicKey, TrafficClass};

/// A boxed future: one allocation a batch is what object safety costs.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a port is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportInfo {
    /// `quic`, `tcp`, `mem`, …
    pub scheme: &'static str,
    /// Where it listens, with the real port.
    pub local: TransportAddr,
    /// Largest frame in bytes.
    pub mtu_bytes: usize,
    /// How much it can carry.
    pub capability: TransportCapability,
    /// True where one transmission reaches several neighbours.
    pub shared_medium: bool,
}

/// One medium at one local endpoint.
pub trait MeshTransport: Send + Sync + 'static {
    /// What it is.
    fn info(&self) -> TransportInfo;

    /// Opens a link. Names are resolved anew each time.
    ///
    /// # Errors
    /// Anything that keeps the link from standing, a peer with another key than pinned included.
    fn dial<'a>(&'a self, to: &'a TransportAddr) -> BoxFuture<'a, Result<Link, TransportError>>;

    /// The next inbound link, its handshake done. Handshakes run side by side; a peer whose
    /// handshake fails is counted and never seen here.
    ///
    /// # Errors
    /// The port itself is gone.
    fn accept(&self) -> BoxFuture<'_, Result<Link, TransportError>>;

    /// Neighbours that the medium hears; none where it has no such thing.
    ///
    /// # Errors
    /// The port itself is gone.
    fn discover(&self) -> BoxFuture<'_, Result<Vec<TransportAddr>, TransportError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Sends to everyone who hears.
    ///
    /// # Errors
    /// [`TransportError::Unsupported`] on media from point to point.
    fn broadcast<'a>(&'a self, _frames: &'a [FrameParts]) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(std::future::ready(Err(TransportError::Unsupported("broadcast"))))
    }

    /// Stops accepting. Links stay.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Who is on the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkPeer {
    /// Proved possession of this key in the handshake.
    Authenticated(PublicKey),
    /// The medium cannot say.
    Nobody,
}

/// Who opened a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The peer did.
    In,
    /// This node did.
    Out,
}

impl Direction {
    /// Name in `qpc peers`.
    pub fn name(self) -> &'static str {
        match self {
            Direction::In => "in",
            Direction::Out => "out",
        }
    }
}

/// What a link is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkInfo {
    /// The far end: as dialled, or as seen.
    pub remote: TransportAddr,
    /// Who opened it.
    pub direction: Direction,
    /// Largest frame in bytes.
    pub mtu_bytes: usize,
    /// How much it can carry.
    pub capability: TransportCapability,
    /// The same 32 bytes at both ends and on no other link; zeros where the medium has none.
    pub channel_binding: [u8; 32],
}

/// An open link.
pub struct Link {
    /// Who is on the other end.
    pub peer: LinkPeer,
    /// What it is.
    pub info: LinkInfo,
    /// Writes.
    pub tx: Box<dyn LinkSender>,
    /// Reads.
    pub rx: Box<dyn LinkReceiver>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("peer", &self.peer).field("info", &self.info).finish_non_exhaustive()
    }
}

/// The writing half of a link.
pub trait LinkSender: Send {
    /// Writes a batch of one class. Pending while the peer reads no more: memory stays bounded.
    /// Not to be dropped half-way, or the stream is torn.
    ///
    /// # Errors
    /// The link is gone, or a frame is larger than it carries.
    fn send<'a>(
        &'a mut self,
        class: TrafficClass,
        frames: &'a [FrameParts],
    ) -> BoxFuture<'a, Result<(), TransportError>>;

    /// Gives what was written a moment to arrive, then closes.
    fn close<'a>(&'a mut self, reason: &'a str) -> BoxFuture<'a, ()>;
}

/// The reading half of a link.
pub trait LinkReceiver: Send {
    /// Reads at least one whole frame, and what else is at hand, into `out`. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// The link is gone, or the peer broke the framing.
    fn recv<'a>(&'a mut self, out: &'a mut Vec<Bytes>) -> BoxFuture<'a, Result<(), TransportError>>;
}
