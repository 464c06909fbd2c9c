//! What inbound ports share: handshakes that run side by side, bounded in number and time.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Mutex, Semaphore, mpsc};

use super::{Link, TransportAddr, TransportError};
use crate::{
    crypto::compute_address,
    wire::{Address, PublicKey},
};

/// Longest a handshake may take, from the first byte to the last.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Handshakes under way at a time; further peers wait in the system's queue. Each costs a few
/// kilobytes and half a millisecond of signatures.
pub(super) const HANDSHAKES_MAX: usize = 64;

/// Links whose handshake is done and that nobody has taken yet.
const ACCEPTED_MAX: usize = 16;

/// Finished handshakes on their way to `accept`.
#[derive(Debug)]
pub(super) struct Accepted {
    taken: Mutex<mpsc::Receiver<Link>>,
}

/// Where handshakes deliver.
#[derive(Debug, Clone)]
pub(super) struct Deliver {
    links: mpsc::Sender<Link>,
    slots: Arc<Semaphore>,
}

pub(super) fn accepted() -> (Deliver, Accepted) {
    let (links, taken) = mpsc::channel(ACCEPTED_MAX);
    let slots = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    (Deliver { links, slots }, Accepted { taken: Mutex::new(taken) })
}

impl Accepted {
    pub(super) async fn next(&self) -> Result<Link, TransportError> {
        self.taken
            .lock()
            .await
            .recv()
            .await
            .ok_or(TransportError::Closed { reason: "the port is closed".into(), by_peer: false })
    }
}

impl Deliver {
    /// Waits for a free slot, then runs one handshake beside the others.
    pub(super) async fn run<F>(&self, transport: &'static str, handshake: F)
    where
        F: Future<Output = Result<Link, TransportError>> + Send + 'static,
    {
        let Ok(slot) = self.slots.clone().acquire_owned().await else { return };
        let links = self.links.clone();
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
                Ok(Ok(link)) => {
                    drop(slot);
                    // Nobody accepts any more: the port was closed.
                    let _ = links.send(link).await;
                }
                Ok(Err(error)) => refused(transport, &error.to_string()),
                Err(_) => refused(transport, "the handshake took too long"),
            }
        });
    }
}

fn refused(transport: &'static str, reason: &str) {
    metrics::counter!(crate::telemetry::HANDSHAKES_FAILED, "transport" => transport).increment(1);
    tracing::debug!(transport, reason, "an inbound handshake failed");
}

/// The rules for whoever answers a dial: not this node itself, and the pinned one where one is.
pub(super) fn check_peer(
    own: &PublicKey,
    peer: &PublicKey,
    at: &TransportAddr,
) -> Result<(), TransportError> {
    if own == peer {
        return Err(TransportError::SelfDial { addr: at.clone() });
    }
    let got: Address = compute_address(peer);
    match at.pin() {
        Some(expected) if expected != got => {
            Err(TransportError::PinMismatch { addr: at.clone(), expected, got })
        }
        _ => Ok(()),
    }
}

/// Resolves a URL's host, newly each time.
pub(super) async fn resolve(to: &TransportAddr) -> Result<Vec<std::net::SocketAddr>, TransportError> {
    let failed = |reason: String| TransportError::Resolve { addr: to.clone(), reason };
    let Some((host, port)) = to.host_and_port() else {
        return Err(failed("it names no host".into()));
    };
    let found: Vec<_> =
        tokio::net::lookup_host((host, port)).await.map_err(|e| failed(e.to_string()))?.collect();
    if found.is_empty() { Err(failed("the name has no address".into())) } else { Ok(found) }
}

/// Tells a port that is in use from other reasons.
pub(super) fn listen_error(addr: &TransportAddr, source: std::io::Error) -> TransportError {
    let addr = addr.clone();
    match source.kind() {
        std::io::ErrorKind::AddrInUse => TransportError::PortInUse { addr },
        _ => TransportError::Listen { addr, source },
    }
}
