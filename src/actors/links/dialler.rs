//! Keeps one peer dialled, for ever: with backoff and jitter, at once where somebody asks.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Notify, oneshot, watch};

use super::{LinkBook, NewLink, Origin};
use crate::{
    actors::mailbox::Seat,
    clock,
    crypto::random,
    proto::{
        backoff::{Backoff, BackoffPolicy},
        bans::Barred,
        link::HELLO_TIMEOUT,
    },
    telemetry,
    transport::{TransportAddr, TransportManager},
    wire::handshake::CloseReason,
};

/// Before a peer that refused this node for its configuration is asked again, beside the usual pause.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// Keeps one peer dialled.
#[derive(Clone)]
pub(super) struct Dialler {
    pub(super) to: TransportAddr,
    pub(super) origin: Origin,
    pub(super) transports: Arc<TransportManager>,
    pub(super) new_link: Seat<NewLink>,
    pub(super) retry: Arc<Notify>,
    pub(super) trouble: watch::Sender<Option<String>>,
    pub(super) book: LinkBook,
}

impl Dialler {
    pub(super) async fn run(self) {
        let mut rng = random::os_rng();
        let mut backoff = Backoff::new(BackoffPolicy::REDIAL);
        let mut new_link = self.new_link.outlet();
        loop {
            let mut at_least = Duration::ZERO;
            if let Some(barred) = self.to.pin().and_then(|pin| self.book.admit(pin).err()) {
                self.trouble.send_replace(Some(format!("{}: {}", self.to, barred.why())));
                self.rest(REFUSED_PAUSE).await;
                continue;
            }
            match self.transports.dial(&self.to).await {
                Ok(link) => {
                    let barred = link.peer.address().and_then(|peer| self.book.admit(&peer).err());
                    let (ended, mut over) = oneshot::channel();
                    new_link.do_send(NewLink { link, origin: self.origin, ended: Some(ended) });
                    backoff.started(clock::now());
                    let end = match tokio::time::timeout(HELLO_TIMEOUT, &mut over).await {
                        Ok(end) => end,
                        Err(_) => {
                            // The hello was accepted: whatever was wrong is over.
                            self.trouble.send_replace(None);
                            over.await
                        }
                    };
                    let end = end.ok();
                    let refusal = end.and_then(refusal);
                    // Its own refusal is none of the peer's: the registry let the link go.
                    let refusal = barred.map(Barred::why).or(refusal);
                    self.trouble.send_replace(refusal.map(|why| format!("{}: {why}", self.to)));
                    if refusal.is_some() && end != Some(CloseReason::TooManyLinks) {
                        // Nothing changes that soon: somebody has to change a configuration.
                        at_least = REFUSED_PAUSE;
                    }
                }
                Err(error) => {
                    metrics::counter!(telemetry::DIALS_FAILED).increment(1);
                    let why = Some(error.to_string());
                    if *self.trouble.borrow() == why {
                        tracing::debug!(peer = %self.to, %error, "dial failed again");
                    } else {
                        tracing::info!(peer = %self.to, %error, "dial failed");
                    }
                    self.trouble.send_replace(why);
                }
            }
            let wait = at_least.saturating_add(backoff.next_delay(clock::now(), &mut rng));
            self.rest(wait).await;
        }
    }

    /// Waits so long, or until somebody wants it dialled now.
    async fn rest(&self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.retry.notified() => {}
        }
    }
}

/// What a peer meant that does not want this link, in words that say what to do.
fn refusal(reason: CloseReason) -> Option<&'static str> {
    match reason {
        CloseReason::NetworkMismatch => {
            Some("it is on another network; compare `network` and the network secret of both")
        }
        CloseReason::VersionMismatch => {
            Some("it speaks no version that this node speaks; update the older one")
        }
        CloseReason::NotAllowed => Some("it does not let this node in"),
        CloseReason::TooManyLinks => Some("it has no place for another link from here; it is asked again"),
        _ => None,
    }
}
