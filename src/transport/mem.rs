//! Links in memory, for tests, simulation and programs that embed several nodes.
//!
//! A [`MemNetwork`] is where ports find each other by name; it is passed on explicitly, so that two
//! tests never share one. Links are in order, without loss and bounded, under any clock.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::mpsc;

use super::{
    BoxFuture, Direction, Link, LinkInfo, LinkPeer, MeshTransport, TransportAddr, TransportCapability,
    TransportError, TransportInfo,
    accept::check_peer,
    stream::{StreamReceiver, StreamSender},
};
use crate::wire::{PublicKey, limits::FRAME_BYTES_MAX};

/// Bytes under way in each direction of a link.
const PIPE_BYTES: usize = 256 * 1024;

/// Links that wait to be accepted.
const BACKLOG: usize = 64;

/// Where memory ports find each other.
#[derive(Debug, Clone, Default)]
pub struct MemNetwork(Arc<Mutex<Ports>>);

#[derive(Debug, Default)]
struct Ports {
    ports: BTreeMap<String, (PublicKey, mpsc::Sender<Link>)>,
    links: u64,
}

impl MemNetwork {
    /// An empty network.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a port under `name`.
    ///
    /// # Errors
    /// The name is taken.
    pub fn bind(&self, name: &str, own: PublicKey) -> Result<MemTransport, TransportError> {
        let local = TransportAddr::mem(name);
        let (tx, rx) = mpsc::channel(BACKLOG);
        let mut network = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if network.ports.get(name).is_some_and(|(_, port)| !port.is_closed()) {
            return Err(TransportError::PortInUse { addr: local });
        }
        network.ports.insert(name.to_owned(), (own, tx));
        Ok(MemTransport { network: self.clone(), own, local, accepted: tokio::sync::Mutex::new(rx) })
    }
}

/// A port in a memory network.
#[derive(Debug)]
pub struct MemTransport {
    network: MemNetwork,
    own: PublicKey,
    local: TransportAddr,
    accepted: tokio::sync::Mutex<mpsc::Receiver<Link>>,
}

impl MemTransport {
    fn ends(&self, to: &TransportAddr) -> Result<(Link, Link, mpsc::Sender<Link>), TransportError> {
        let unreachable = || TransportError::Unreachable { addr: to.clone(), reason: "no such port".into() };
        let mut network = self.network.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (peer, port) =
            to.name().and_then(|name| network.ports.get(name)).ok_or_else(unreachable)?.clone();
        check_peer(&self.own, &peer, to)?;
        network.links = network.links.saturating_add(1);
        let mut channel_binding = [0; 32];
        for (slot, byte) in channel_binding.iter_mut().zip(network.links.to_be_bytes()) {
            *slot = byte;
        }
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let end = |stream, peer, remote, direction| {
            let (rx, tx) = tokio::io::split(stream);
            Link {
                peer: LinkPeer::Authenticated(peer),
                info: LinkInfo {
                    remote,
                    direction,
                    mtu_bytes: FRAME_BYTES_MAX,
                    capability: TransportCapability::Unconstrained,
                    channel_binding,
                },
                tx: Box::new(StreamSender::new(tx)),
                rx: Box::new(StreamReceiver::new(rx)),
            }
        };
        let near = end(near, peer, to.clone(), Direction::Out);
        let far = end(far, self.own, self.local.clone(), Direction::In);
        Ok((near, far, port))
    }
}

impl MeshTransport for MemTransport {
    fn info(&self) -> TransportInfo {
        TransportInfo {
            scheme: "mem",
            local: self.local.clone(),
            mtu_bytes: FRAME_BYTES_MAX,
            capability: TransportCapability::Unconstrained,
            shared_medium: false,
        }
    }

    fn dial<'a>(&'a self, to: &'a TransportAddr) -> BoxFuture<'a, Result<Link, TransportError>> {
        Box::pin(async move {
            let (near, far, port) = self.ends(to)?;
            port.send(far).await.map_err(|_| TransportError::Unreachable {
                addr: to.clone(),
                reason: "the port is closed".into(),
            })?;
            Ok(near)
        })
    }

    fn accept(&self) -> BoxFuture<'_, Result<Link, TransportError>> {
        Box::pin(async move {
            self.accepted
                .lock()
                .await
                .recv()
                .await
                .ok_or(TransportError::Closed { reason: "the port is closed".into(), by_peer: false })
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        if let Some(name) = self.local.name() {
            self.network.0.lock().unwrap_or_else(PoisonError::into_inner).ports.remove(name);
        }
        Box::pin(std::future::ready(()))
    }
}
