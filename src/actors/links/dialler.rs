//! Keeps one peer dialled, for ever: with backoff and jitter, at once where somebody asks.

use std::{sync::Arc, time::Duration};

use actix::{Context, Handler, MessageResult};
use tokio::sync::{Notify, oneshot, watch};

use super::{LinksActor, NewLink};
use crate::{
    actors::mailbox::Seat,
    clock,
    crypto::random,
    messages::message,
    proto::{
        backoff::{Backoff, BackoffPolicy},
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
    pub(super) transports: Arc<TransportManager>,
    pub(super) new_link: Seat<NewLink>,
    pub(super) retry: Arc<Notify>,
    pub(super) state: watch::Sender<DialState>,
}

/// How a dialler is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DialState {
    /// It dials, or asks whoever answered who it is.
    #[default]
    Dialling,
    /// There is a link to its peer, this one's or another that took its place.
    Linked,
    /// There was none at the last try, and why.
    Failed(String),
}

impl DialState {
    /// Why there is no link.
    pub fn trouble(&self) -> Option<&str> {
        match self {
            Self::Failed(why) => Some(why),
            Self::Dialling | Self::Linked => None,
        }
    }
}

/// What the registry holds of a dialler.
pub(super) struct Dialled {
    /// Dropped, it ends the dialler.
    pub(super) removed: watch::Sender<()>,
    /// Ends its wait.
    pub(super) retry: Arc<Notify>,
    /// How it is.
    pub(super) state: watch::Receiver<DialState>,
}

/// Whom the node dials, and how that goes.
#[derive(Debug)]
pub struct ListDialled;
message!(ListDialled => Vec<DialledPeer>);

/// One peer that is dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialledPeer {
    /// Where, with its pin.
    pub url: String,
    /// How that goes.
    pub state: DialState,
}

impl Handler<ListDialled> for LinksActor {
    type Result = MessageResult<ListDialled>;

    fn handle(&mut self, _: ListDialled, _: &mut Context<Self>) -> Self::Result {
        let up: Vec<&TransportAddr> =
            self.links.values().filter(|entry| entry.up.is_some()).map(|entry| &entry.info.remote).collect();
        let peer = |(url, dialled): (&String, &Dialled)| {
            // A dialler learns late that its link was accepted: when nobody has refused it for a while.
            let is_up =
                url.parse().is_ok_and(|to: TransportAddr| up.iter().any(|remote| remote.same_place(&to)));
            let state = if is_up { DialState::Linked } else { dialled.state.borrow().clone() };
            DialledPeer { url: url.clone(), state }
        };
        let mut peers: Vec<DialledPeer> = self.diallers.iter().map(peer).collect();
        peers.sort_by(|a, b| a.url.cmp(&b.url));
        MessageResult(peers)
    }
}

impl Dialler {
    pub(super) async fn run(self) {
        let mut rng = random::os_rng();
        let mut backoff = Backoff::new(BackoffPolicy::REDIAL);
        let mut new_link = self.new_link.outlet();
        loop {
            let mut at_least = Duration::ZERO;
            match self.transports.dial(&self.to).await {
                Ok(link) => {
                    let (ended, mut over) = oneshot::channel();
                    new_link.do_send(NewLink { link, ended: Some(ended) });
                    backoff.started(clock::now());
                    let end = match tokio::time::timeout(HELLO_TIMEOUT, &mut over).await {
                        Ok(end) => end,
                        Err(_) => {
                            // The hello was accepted: whatever was wrong is over.
                            self.state.send_replace(DialState::Linked);
                            over.await
                        }
                    };
                    let end = end.ok();
                    let refusal = end.and_then(refusal);
                    self.state.send_replace(match refusal {
                        Some(why) => DialState::Failed(format!("{}: {why}", self.to)),
                        None => DialState::Dialling,
                    });
                    if refusal.is_some() && end != Some(CloseReason::TooManyLinks) {
                        // Nothing changes that soon: somebody has to change a configuration.
                        at_least = REFUSED_PAUSE;
                    }
                }
                Err(error) => {
                    metrics::counter!(telemetry::DIALS_FAILED).increment(1);
                    let failed = DialState::Failed(error.to_string());
                    if *self.state.borrow() == failed {
                        tracing::debug!(peer = %self.to, %error, "dial failed again");
                    } else {
                        tracing::info!(peer = %self.to, %error, "dial failed");
                    }
                    self.state.send_replace(failed);
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
