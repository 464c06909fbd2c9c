//! The inbound side of a port: finished links on their way to `accept`, and what was counted.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, mpsc, watch};

#[cfg(any(feature = "quic", feature = "tcp"))]
use super::CloseCode;
use super::{Link, PortStats, TransportError};
#[cfg(any(feature = "quic", feature = "tcp"))]
use crate::telemetry;

/// Finished links that wait for `accept`. Whoever lets more wait is overloaded.
pub(super) const WAITING_LINKS_MAX: usize = 256;

/// Where finished links wait.
pub(super) struct Inbox {
    tx: mpsc::Sender<Link>,
    rx: Mutex<mpsc::Receiver<Link>>,
    closed: watch::Sender<bool>,
    /// The port's scheme, for metrics.
    scheme: &'static str,
    pub(super) counters: Counters,
}

/// [`PortStats`] while they are counted.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) handshakes_failed: AtomicU64,
    pub(super) handshakes_evicted: AtomicU64,
    pub(super) accept_overflows: AtomicU64,
    pub(super) listen_errors: AtomicU64,
    pub(super) frames_lost: AtomicU64,
}

impl Inbox {
    pub(super) fn new(scheme: &'static str) -> Self {
        let (tx, rx) = mpsc::channel(WAITING_LINKS_MAX);
        let (rx, closed) = (Mutex::new(rx), watch::Sender::new(false));
        Self { tx, rx, closed, scheme, counters: Counters::default() }
    }

    /// Counts an inbound connection that never became a link.
    #[cfg(any(feature = "quic", feature = "tcp"))]
    fn refused(&self, error: &TransportError) {
        count(&self.counters.handshakes_failed);
        metrics::counter!(telemetry::HANDSHAKES_FAILED, "transport" => self.scheme).increment(1);
        tracing::debug!(transport = self.scheme, %error, "an inbound handshake failed");
    }

    /// Takes the end of an inbound handshake: hands the link over, or says that there are too many,
    /// or counts the failure.
    #[cfg(any(feature = "quic", feature = "tcp"))]
    pub(super) async fn greeted(&self, greeted: Result<Link, TransportError>) {
        match greeted {
            Ok(link) => {
                if let Err(mut link) = self.deliver(link) {
                    link.tx.close(CloseCode::BUSY, "too many links wait to be accepted").await;
                }
            }
            Err(error) => self.refused(&error),
        }
    }

    /// Hands a link over; gives it back where too many wait or the port is closed.
    pub(super) fn deliver(&self, link: Link) -> Result<(), Box<Link>> {
        if self.is_closed() {
            return Err(Box::new(link));
        }
        let Ok(place) = self.tx.try_reserve() else {
            count(&self.counters.accept_overflows);
            return Err(Box::new(link));
        };
        // First: whoever takes it, maybe on another thread, finds it counted.
        count(&self.counters.accepted);
        place.send(link);
        Ok(())
    }

    /// The next link, or [`TransportError::PortClosed`]. Loses nothing when dropped.
    pub(super) async fn accept(&self) -> Result<Link, TransportError> {
        let mut closed = self.closed.subscribe();
        let next = async { self.rx.lock().await.recv().await };
        let link = tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => None,
            link = next => link,
        };
        link.ok_or_else(|| {
            // Where `close` found the queue locked by us, what waits in it is still there.
            self.drop_waiting();
            TransportError::PortClosed
        })
    }

    /// Ends every `accept`. Links that wait are dropped.
    pub(super) fn close(&self) {
        self.closed.send_replace(true);
        self.drop_waiting();
    }

    fn drop_waiting(&self) {
        if let Ok(mut rx) = self.rx.try_lock() {
            while rx.try_recv().is_ok() {}
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    pub(super) fn stats(&self) -> PortStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PortStats {
            accepted: read(&self.counters.accepted),
            handshakes_failed: read(&self.counters.handshakes_failed),
            handshakes_evicted: read(&self.counters.handshakes_evicted),
            accept_overflows: read(&self.counters.accept_overflows),
            listen_errors: read(&self.counters.listen_errors),
            frames_lost: read(&self.counters.frames_lost),
        }
    }
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
