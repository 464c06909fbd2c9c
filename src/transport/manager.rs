//! The ports of a node, and the choice among the links that run over them.

use std::{cmp::Reverse, sync::Arc};

use crate::wire::{Address, LinkId};

use super::{AddrError, Link, MeshTransport, TransportAddr, TransportCapability, TransportError};

/// The ports of a node. Cheap to clone: ports are shared.
#[derive(Clone, Default)]
pub struct TransportManager {
    ports: Vec<Arc<dyn MeshTransport>>,
}

impl TransportManager {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a port. Several of one scheme are tried in the order they came.
    pub fn add(&mut self, port: Arc<dyn MeshTransport>) {
        self.ports.push(port);
    }

    /// All ports.
    pub fn ports(&self) -> &[Arc<dyn MeshTransport>] {
        &self.ports
    }

    /// The schemes that can be dialled, each once.
    pub fn schemes(&self) -> Vec<&'static str> {
        let mut schemes: Vec<_> = self.ports.iter().map(|port| port.info().scheme).collect();
        schemes.sort_unstable();
        schemes.dedup();
        schemes
    }

    /// Parses a URL; schemes of ports that a program brought along count as known.
    ///
    /// # Errors
    /// [`TransportError::Addr`].
    pub fn parse(&self, text: &str) -> Result<TransportAddr, AddrError> {
        TransportAddr::parse_with(text, &self.schemes())
    }

    /// True where there is a port that speaks the URL's scheme.
    ///
    /// # Errors
    /// [`TransportError::NoPort`].
    pub fn check(&self, to: &TransportAddr) -> Result<(), TransportError> {
        let speaks = self.ports.iter().any(|port| port.info().scheme == to.scheme());
        if speaks { Ok(()) } else { Err(self.no_port(to)) }
    }

    fn no_port(&self, to: &TransportAddr) -> TransportError {
        TransportError::NoPort { url: to.clone(), have: self.schemes() }
    }

    /// Opens a link over the first port that can.
    ///
    /// # Errors
    /// [`TransportError::NoPort`] if none has the scheme, else that of the last port tried; a port
    /// is passed over only where the fault is its own ([`TransportError::is_local`]).
    pub async fn dial(&self, to: &TransportAddr) -> Result<Link, TransportError> {
        let mut failed = self.no_port(to);
        for port in self.ports.iter().filter(|port| port.info().scheme == to.scheme()) {
            match port.dial(to).await {
                Err(error) if error.is_local() => failed = error,
                done => return done,
            }
        }
        Err(failed)
    }

    /// Closes all ports.
    pub async fn close(&self) {
        for port in &self.ports {
            port.close().await;
        }
    }

    /// The link for a frame of `frame_bytes` to the neighbour `destination`. Of the links to it,
    /// [`TransportManager::select_for_size`].
    pub fn select<'a>(
        links: &'a [LinkFacts],
        destination: &Address,
        frame_bytes: usize,
    ) -> Option<&'a LinkFacts> {
        select_among(links.iter().filter(|link| link.neighbour.as_ref() == Some(destination)), frame_bytes)
    }

    /// The link for a frame of `frame_bytes`: it has to fit; then the most capable, then the one
    /// with the least waiting, then the oldest, so that the choice is stable.
    pub fn select_for_size(links: &[LinkFacts], frame_bytes: usize) -> Option<&LinkFacts> {
        select_among(links.iter(), frame_bytes)
    }
}

impl std::fmt::Debug for TransportManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.ports.iter().map(|port| port.info().local)).finish()
    }
}

/// What the choice of a link looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkFacts {
    /// The link.
    pub id: LinkId,
    /// Who is on it, if anybody is proven to be.
    pub neighbour: Option<Address>,
    /// What its medium carries.
    pub capability: TransportCapability,
    /// Largest frame in bytes.
    pub mtu_bytes: usize,
    /// Bytes waiting to be sent on it.
    pub queued_bytes: usize,
}

fn select_among<'a>(links: impl Iterator<Item = &'a LinkFacts>, frame_bytes: usize) -> Option<&'a LinkFacts> {
    links
        .filter(|link| link.mtu_bytes >= frame_bytes)
        .min_by_key(|link| (Reverse(link.capability), link.queued_bytes, link.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(id: u64, capability: TransportCapability, mtu_bytes: usize, queued_bytes: usize) -> LinkFacts {
        let neighbour = Some(Address([u8::try_from(id % 2).unwrap_or(0); 16]));
        LinkFacts { id: LinkId(id), neighbour, capability, mtu_bytes, queued_bytes }
    }

    #[test]
    fn a_link_is_chosen_by_size_then_capability_then_queue_then_age() {
        use TransportCapability::*;
        let links = [
            link(1, SeverelyConstrained, 51, 0),
            link(2, Unconstrained, 16_384, 900),
            link(3, Unconstrained, 16_384, 100),
            link(4, Unconstrained, 16_384, 100),
            link(5, Medium, 20_000, 0),
        ];
        let select = |bytes| TransportManager::select_for_size(&links, bytes).map(|l| l.id.0);
        assert_eq!(select(40), Some(3));
        assert_eq!(select(16_384), Some(3));
        assert_eq!(select(16_385), Some(5));
        assert_eq!(select(20_001), None);
        let to = |address: [u8; 16], bytes| {
            TransportManager::select(&links, &Address(address), bytes).map(|l| l.id.0)
        };
        assert_eq!(to([0; 16], 40), Some(4));
        assert_eq!(to([1; 16], 40), Some(3));
        assert_eq!(to([2; 16], 40), None);
    }
}
