//! TransportActor: one link to one neighbour. The decisions are in [`crate::proto::link`].
//!
//! - Receives: `LinkFrames`, `TooManyFaults`, `MediumClosed` from its tasks; `ForwardBatch` from
//!   the router; `CloseLink` and `GetLinkStats` from the registry; `Drain` from the supervisor.
//! - Sends: `LinkEstablished`, `LinkEnded` to the registry; `EgressFull` to the router.
//! - Owns: the link's session, its egress queues, its reader and its writer.
//!
//! A link is never restarted: what ends here is dialled again by whoever dialled it.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use actix::prelude::*;
use tokio::{sync::oneshot, task::AbortHandle};

use super::{
    link_egress::SharedEgress,
    link_io::{LinkCounters, LinkFrames, MediumClosed, Reader, ReaderOutlets, TooManyFaults, Writer},
    mailbox::{Outlet, Seat},
    panics::Switch,
    rate_limiter::PressureGauge,
    wake_timer::WakeTimer,
};
use crate::{
    clock,
    messages::{
        lifecycle::{Drain, DrainCounts, DrainPhase, ExitGuard},
        limit::RequestLease,
        link::{AnnounceVerified, CloseLink, EgressFull, EnvelopesVerified, ForwardBatch, LinkControl},
        message,
    },
    proto::{
        credit::CreditError,
        lease::Payer,
        link::{self, Link as Session, LinkConfig, Output},
        verify::{Checked, Verifier},
    },
    telemetry,
    transport::{CloseCode, Lane, Link, LinkInfo, TransportError},
    wire::{
        Address, Frame, LinkId, NetworkId,
        handshake::{CloseReason, Hello},
    },
};

/// How long a closing link may take to write what is queued.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// What a link needs of its node.
#[derive(Clone)]
pub struct LinkParts {
    /// This node's address.
    pub own: Address,
    /// The network.
    pub network: NetworkId,
    /// What some link checked already.
    pub checked: Checked,
    /// To the router.
    pub envelopes: Seat<EnvelopesVerified>,
    /// To the router.
    pub announces: Seat<AnnounceVerified>,
    /// To the router.
    pub control: Seat<LinkControl>,
    /// To the router.
    pub egress_full: Seat<EgressFull>,
    /// To the rate limiter.
    pub lease: Seat<RequestLease>,
    /// How pressed the node is.
    pub pressure: PressureGauge,
    /// To the registry.
    pub established: Seat<LinkEstablished>,
    /// To the registry.
    pub ended: Seat<LinkEnded>,
}

/// Lets a link's reader go on: what it reads is for a router that has heard of the link. Dropped, it
/// does so too; a link that is not wanted is closed, not kept waiting.
#[derive(Debug)]
pub struct Told(Option<oneshot::Sender<()>>);

impl Told {
    /// The router was told, or is not to be.
    pub fn now(&mut self) {
        if let Some(go) = self.0.take() {
            // The reader may be gone; the medium's end says so then.
            let _ = go.send(());
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.now();
    }
}

/// Link to registry: the peer's hello was accepted.
#[derive(Debug)]
pub struct LinkEstablished {
    /// Which link.
    pub link: LinkId,
    /// What the peer said of itself.
    pub hello: Hello,
    /// Takes batches.
    pub outlet: Recipient<ForwardBatch>,
    /// Takes the registry's word to close.
    pub close: Recipient<CloseLink>,
    /// Answers for `qpc peers`.
    pub stats: Recipient<GetLinkStats>,
    /// Until then nothing is read of the link but its hello.
    pub told: Told,
}
message!(LinkEstablished => ());

/// Link to registry: it is over.
#[derive(Debug, Clone)]
pub struct LinkEnded {
    /// Which link.
    pub link: LinkId,
    /// Why.
    pub reason: CloseReason,
    /// The same for people.
    pub text: String,
    /// True when the peer closed it.
    pub by_peer: bool,
}
message!(LinkEnded => ());

/// Registry to link: how is it?
#[derive(Debug, Clone, Copy)]
pub struct GetLinkStats {
    /// Ask the peer for a sign of life as well.
    pub nudge: bool,
}
message!(GetLinkStats => LinkStats);

/// The answer to [`GetLinkStats`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Smoothed round trip.
    pub rtt: Option<Duration>,
    /// Frames written.
    pub tx_frames: u64,
    /// Frames read.
    pub rx_frames: u64,
    /// Bytes written.
    pub tx_bytes: u64,
    /// Bytes read.
    pub rx_bytes: u64,
    /// Frames that wait to be written.
    pub queued_frames: u64,
}

/// What has to happen when a link is over, orderly or by a panic. A drop rather than
/// `Actor::stopped`, which actix calls on a half-changed value while it unwinds.
struct Ending {
    link: LinkId,
    said: Option<LinkEnded>,
    to: Outlet<LinkEnded>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        let end = self.said.take().unwrap_or(LinkEnded {
            link: self.link,
            reason: CloseReason::Unresponsive,
            text: "the link ended".into(),
            by_peer: false,
        });
        self.to.do_send(end);
    }
}

/// See the module.
pub struct TransportActor {
    id: LinkId,
    payer: Payer,
    transport: &'static str,
    info: LinkInfo,
    session: Session,
    medium: Option<Link>,
    /// Counted as one of its lane while this lives.
    _lane: Lane,
    egress: Arc<SharedEgress>,
    counters: Arc<LinkCounters>,
    go: Option<oneshot::Sender<()>>,
    parts: LinkParts,
    egress_full: Outlet<EgressFull>,
    established: Outlet<LinkEstablished>,
    rtt: Option<Duration>,
    end: Ending,
    timer: WakeTimer,
    reading: Switch,
    writing: Switch,
    guard: ExitGuard,
}

impl TransportActor {
    /// Takes over a link whose transport handshake is done.
    pub fn new(
        id: LinkId,
        mut medium: Link,
        config: LinkConfig,
        nonce: [u8; 8],
        parts: LinkParts,
        guard: ExitGuard,
    ) -> Self {
        let granted = (!medium.info.streams_per_class).then_some(config.initial_credit);
        Self {
            id,
            payer: Payer {
                // Whoever is nobody in particular shares one budget with all others of that kind.
                neighbour: medium.peer.address().unwrap_or(Address([0; 16])),
                party: medium.info.party(),
            },
            transport: medium.info.remote.scheme(),
            info: medium.info.clone(),
            session: Session::new(config, clock::now(), nonce),
            _lane: std::mem::take(&mut medium.lane),
            medium: Some(medium),
            egress: Arc::new(SharedEgress::new(granted, parts.pressure.clone())),
            counters: Arc::default(),
            go: None,
            egress_full: parts.egress_full.outlet(),
            established: parts.established.outlet(),
            end: Ending { link: id, said: None, to: parts.ended.outlet(), tasks: Vec::new() },
            parts,
            rtt: None,
            timer: WakeTimer::default(),
            reading: Switch::default(),
            writing: Switch::default(),
            guard,
        }
    }

    fn step(&mut self, input: link::Input<'_>, ctx: &mut Context<Self>) {
        if let Err(error) = self.session.handle(clock::now(), input) {
            tracing::info!(link = %self.id, remote = %self.info.remote, %error, "link fault");
            metrics::counter!(telemetry::LINK_FAULTS, "reason" => error.name()).increment(1);
        }
        while let Some(output) = self.session.poll() {
            self.perform(output, ctx);
        }
        self.rearm(ctx);
    }

    fn perform(&mut self, output: Output, ctx: &mut Context<Self>) {
        match output {
            Output::Send(frame) => {
                if !self.egress.push_own(&frame) {
                    metrics::counter!(telemetry::CONTROL_DROPPED).increment(1);
                }
            }
            Output::Established { peer_hello, .. } => {
                self.egress.established(peer_hello.initial_credit);
                let address = ctx.address();
                self.established.do_send(LinkEstablished {
                    link: self.id,
                    hello: peer_hello,
                    outlet: address.clone().recipient(),
                    close: address.clone().recipient(),
                    stats: address.recipient(),
                    told: Told(self.go.take()),
                });
            }
            Output::Rtt(rtt) => {
                metrics::histogram!(telemetry::LINK_RTT).record(rtt.as_secs_f64());
                self.rtt = Some(rtt);
            }
            Output::Credit(credit) => {
                if let Err(error) = self.egress.grant(credit) {
                    tracing::debug!(link = %self.id, %error, "odd credit");
                    metrics::counter!(telemetry::LINK_FAULTS, "reason" => error.name()).increment(1);
                    // What says nothing is allowed; no sum that is kept goes over by mistake.
                    if matches!(error, CreditError::Overflow { .. }) {
                        self.step(link::Input::Odd(error.name()), ctx);
                    }
                }
            }
            Output::Closed { reason, text, by_peer } => self.finish(reason, text, by_peer, ctx),
        }
    }

    /// The session is over: write what is queued, close the medium, end.
    fn finish(&mut self, reason: CloseReason, text: String, by_peer: bool, ctx: &mut Context<Self>) {
        if self.end.said.is_some() {
            return;
        }
        self.end.said = Some(LinkEnded { link: self.id, reason, text, by_peer });
        self.go = None;
        self.egress.close(reason);
        // Stops when the writer has closed the medium (`WriterDone`), or here.
        ctx.run_later(CLOSE_WITHIN, Self::stop);
    }

    fn stop(&mut self, ctx: &mut Context<Self>) {
        let frames_dropped = self.egress.depth().0 as u64;
        // Outside of a drain nobody adds it up.
        self.guard.report(DrainPhase::Cleanup, DrainCounts { frames_dropped, ..DrainCounts::default() });
        self.guard.stopped();
        ctx.stop();
    }

    /// A task panicked: the link ends at once rather than by the silence that would follow, and the
    /// guard says `Crashed`, since nobody says otherwise.
    fn task_crashed(&mut self, text: &'static str, ctx: &mut Context<Self>) {
        tracing::error!(link = %self.id, remote = %self.info.remote, text, "link task panicked");
        let (reason, text) = (CloseReason::Unresponsive, text.to_owned());
        self.end.said.get_or_insert(LinkEnded { link: self.id, reason, text, by_peer: false });
        ctx.stop();
    }

    fn rearm(&mut self, ctx: &mut Context<Self>) {
        let wake = self.session.next_wake().map(|(at, _)| at);
        self.timer.rearm(wake, ctx, |actor, ctx| actor.step(link::Input::Timeout, ctx));
    }
}

impl Actor for TransportActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let Some(medium) = self.medium.take() else { return };
        let (go, established) = oneshot::channel();
        self.go = Some(go);
        let address = ctx.address();
        let weak = |address: &Addr<Self>| address.clone().recipient::<MediumClosed>().downgrade();
        let reader = Reader {
            link: self.id,
            payer: self.payer,
            transport: self.transport,
            rx: medium.rx,
            verifier: Verifier::sharing(self.parts.own, self.parts.network, self.parts.checked.clone()),
            egress: self.egress.clone(),
            pressure: self.parts.pressure.clone(),
            counters: self.counters.clone(),
            outlets: ReaderOutlets {
                frames: address.clone().recipient::<LinkFrames>().downgrade(),
                faults: address.clone().recipient::<TooManyFaults>().downgrade(),
                closed: weak(&address),
                envelopes: self.parts.envelopes.outlet(),
                announces: self.parts.announces.outlet(),
                control: self.parts.control.outlet(),
                lease: self.parts.lease.outlet(),
            },
        };
        let writer = Writer {
            transport: self.transport,
            tx: medium.tx,
            egress: self.egress.clone(),
            counters: self.counters.clone(),
            closed: weak(&address),
        };
        let read = actix_rt::spawn(self.reading.guards(reader.run(established)));
        let written = actix_rt::spawn(self.writing.guards(writer.run()));
        self.end.tasks.extend([read.abort_handle(), written.abort_handle()]);
        ctx.spawn(read.into_actor(self).map(|ended, actor, ctx| {
            // An orderly end was told by `MediumClosed`.
            if ended.is_err_and(|error| error.is_panic()) {
                actor.task_crashed("the reader crashed", ctx);
            }
        }));
        ctx.spawn(written.into_actor(self).map(|ended, actor, ctx| {
            if ended.is_err_and(|error| error.is_panic()) {
                return actor.task_crashed("the writer crashed", ctx);
            }
            // Its end is the end of the link, orderly or not.
            if actor.end.said.is_none() {
                actor.step(link::Input::Close(CloseReason::Unresponsive, "the medium closed".into()), ctx);
            }
            actor.stop(ctx);
        }));
        self.step(link::Input::Start, ctx);
    }
}

impl Handler<LinkFrames> for TransportActor {
    type Result = ();

    fn handle(&mut self, message: LinkFrames, ctx: &mut Context<Self>) {
        for error in &message.undecodable {
            self.step(link::Input::Undecodable(error), ctx);
        }
        for frame in &message.frames {
            self.step(link::Input::Frame(frame), ctx);
        }
    }
}

impl Handler<TooManyFaults> for TransportActor {
    type Result = ();

    fn handle(&mut self, message: TooManyFaults, ctx: &mut Context<Self>) {
        metrics::counter!(telemetry::LINK_FAULTS, "reason" => "too_many_faults").increment(1);
        self.step(link::Input::Close(CloseReason::ProtocolError, message.0.into()), ctx);
    }
}

impl Handler<MediumClosed> for TransportActor {
    type Result = ();

    fn handle(&mut self, message: MediumClosed, ctx: &mut Context<Self>) {
        if self.end.said.is_some() {
            // The session is over and the goodbye on its way out. A reader that ends now must not
            // take the writer with it: the peer would never learn why. `finish` has set a limit.
            return;
        }
        let text = message.0.to_string();
        tracing::debug!(link = %self.id, remote = %self.info.remote, %text, "the medium closed");
        let (reason, by_peer) = close_reason(&message.0);
        self.end.said = Some(LinkEnded { link: self.id, reason, text, by_peer });
        self.stop(ctx);
    }
}

impl Handler<ForwardBatch> for TransportActor {
    type Result = ();

    fn handle(&mut self, batch: ForwardBatch, _: &mut Context<Self>) {
        for frame in &batch.control {
            if !self.egress.push_control(frame) {
                metrics::counter!(telemetry::CONTROL_DROPPED).increment(1);
            }
        }
        let unsent = self.egress.push_envelopes(batch.envelopes);
        if !unsent.is_empty() {
            // Router and link never wait for each other: a full router drops what a full link
            // hands back, and the origin tries again.
            self.egress_full.offer_gossip("router", EgressFull { link: self.id, envelopes: unsent });
        }
    }
}

impl Handler<CloseLink> for TransportActor {
    type Result = ();

    fn handle(&mut self, message: CloseLink, ctx: &mut Context<Self>) {
        self.step(link::Input::Close(message.reason, message.text), ctx);
    }
}

impl Handler<GetLinkStats> for TransportActor {
    type Result = MessageResult<GetLinkStats>;

    fn handle(&mut self, ask: GetLinkStats, _: &mut Context<Self>) -> Self::Result {
        if ask.nudge {
            self.egress.push_own(&Frame::Ping(0));
        }
        MessageResult(LinkStats {
            rtt: self.rtt,
            tx_frames: self.counters.tx_frames.load(Relaxed),
            rx_frames: self.counters.rx_frames.load(Relaxed),
            tx_bytes: self.counters.tx_bytes.load(Relaxed),
            rx_bytes: self.counters.rx_bytes.load(Relaxed),
            queued_frames: self.egress.depth().0 as u64,
        })
    }
}

impl Handler<Drain> for TransportActor {
    type Result = ();

    fn handle(&mut self, drain: Drain, ctx: &mut Context<Self>) {
        match drain.phase {
            // What is queued is written until Cleanup; nothing is taken away from it here.
            DrainPhase::Draining | DrainPhase::Persisting => {
                self.guard.report(drain.phase, DrainCounts::default());
            }
            DrainPhase::Cleanup => {
                self.guard.drained();
                self.step(link::Input::Close(CloseReason::Shutdown, "the node is stopping".into()), ctx);
            }
        }
    }
}

/// What the end of a medium says about the link: a peer whose goodbye was overtaken by the close
/// names its reason in the close's code too.
fn close_reason(error: &TransportError) -> (CloseReason, bool) {
    let TransportError::Closed { code, .. } = error else { return (CloseReason::Unresponsive, false) };
    let number = code.0.checked_sub(CloseCode::FIRST_FREE.0).and_then(|n| u8::try_from(n).ok());
    (number.map_or(CloseReason::Unresponsive, CloseReason::from), true)
}

#[cfg(any(test, feature = "testing"))]
impl Handler<crate::messages::lifecycle::PanicNow> for TransportActor {
    type Result = ();

    fn handle(&mut self, told: crate::messages::lifecycle::PanicNow, _: &mut Context<Self>) {
        match told.0.as_str() {
            "reader" => self.reading.throw(),
            "writer" => self.writing.throw(),
            _ => panic!("a test wanted this panic"),
        }
    }
}
