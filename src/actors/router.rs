//! RouterActor: dedup, routing table, forwarding. The decisions are in [`crate::proto::router`].
//!
//! - Receives: `LinkUp`, `LinkDown` from the registry; `EnvelopesVerified`, `AnnounceVerified`,
//!   `LinkControl`, `EgressFull` from links; `Originate`, `FindKeyRecord` from delivery;
//!   `CustodyAnswer`, `FromCustody` from the store; `ListRoutes`, `ListKnown`, `GetRouterState`,
//!   `AnnounceNow`, `SearchPath`, `DropPath`, `HandIn`, `SweepRoutes` from handles; `Drain` from the
//!   supervisor.
//! - Sends: one `ForwardBatch` a link and step; `DeliverLocal`, `DestinationUp`, `PacketFate`,
//!   `KeyRecordFound` to delivery; `HoldEnvelopes`, `CustodyNews` to the store; saved routes to the
//!   local store, which it reads back before its first message.
//! - Owns: the router core, the way to each link, the order of this node's announces.
//!
//! A fresh router after a fault knows no links; the registry's restart brings them back, so both
//! are restarted by the same supervisor rule: see `node`.

mod careful;
mod handed_in;
mod saving;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::prelude::*;
use tokio::sync::watch;

use super::{
    clock_handle::ClockHandle,
    delivery::OwnKeys,
    mailbox::{Outlet, Seat},
    quarantine::Quarantine,
};
use crate::{
    clock,
    crypto::{MeshIdentity, SignatureInput, random},
    events::{EventKind, Events},
    messages::{
        delivery::{DeliverLocal, DestinationUp, FindKeyRecord, KeyRecordFound, Originate, PacketFate},
        health::ReportHealth,
        lifecycle::{Drain, DrainCounts, DrainPhase, ExitGuard},
        link::{
            AnnounceVerified, EgressFull, EnvelopesVerified, ForwardBatch, LinkControl, LinkDown, LinkUp,
            NeighbourControl,
        },
        route::{
            AnnounceNow, DropPath, GetRouterState, ListKnown, ListRoutes, Page, RouteLine, RouterState,
            SearchPath,
        },
        store::{CustodyAnswer, CustodyNews, FromCustody, HoldEnvelopes, WhichReachable},
    },
    proto::{
        announce::{AnnounceParts, create_announce},
        health::{HealthStatus, REPORT_EVERY, SubsystemReport},
        router::{Counters, Input, LinkInfo, Output, Router, RouterConfig, WallClock},
        table::{Order, RouteInfo},
        verify::{InboundEnvelope, Verified},
    },
    storage::{LocalOp, LocalStore},
    telemetry,
    wire::{
        Address, Announce, Capabilities, Envelope, EnvelopeKind, FrameExt, LinkId, NetworkId, PacketId,
        control::RefuseReason, receipt::Receipt,
    },
};

/// What the actor is made of; the factory clones it for each incarnation.
#[derive(Clone)]
pub struct RouterParts {
    /// This node's identity.
    pub identity: Arc<MeshIdentity>,
    /// The network.
    pub network: NetworkId,
    /// How the core behaves.
    pub config: RouterConfig,
    /// What is announced.
    pub capabilities: Capabilities,
    /// Signed lifetime of announces.
    pub announce_lifetime: Duration,
    /// Order of this node's announces; outlives the actor.
    pub order: Arc<AnnounceOrder>,
    /// The key record to announce.
    pub keys: watch::Receiver<Arc<OwnKeys>>,
    /// For orders that must survive a restart.
    pub store: Arc<dyn LocalStore>,
    /// To delivery.
    pub deliver: Seat<DeliverLocal>,
    /// To delivery.
    pub destination_up: Seat<DestinationUp>,
    /// To delivery.
    pub fate: Seat<PacketFate>,
    /// To delivery.
    pub key_found: Seat<KeyRecordFound>,
    /// To the store.
    pub hold: Seat<HoldEnvelopes>,
    /// To the store.
    pub custody_news: Seat<CustodyNews>,
    /// To health.
    pub health: Seat<ReportHealth>,
    /// Told of routes.
    pub events: Events,
    /// What time it is.
    pub clock: ClockHandle,
    /// What felled former incarnations.
    pub quarantine: Quarantine,
}

/// The order of this node's announces: the boot epoch, raised where somebody knows a higher one.
#[derive(Debug)]
pub struct AnnounceOrder(std::sync::Mutex<Order>);

impl AnnounceOrder {
    /// Begins a start whose boot epoch is durable.
    pub fn new(boot_epoch: u32) -> Self {
        Self(std::sync::Mutex::new((boot_epoch, 0)))
    }

    fn next(&self) -> Order {
        let mut order = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        order.1 = order.1.saturating_add(1);
        *order
    }

    /// Jumps above an order that others have seen; gives the new boot epoch.
    fn jump_above(&self, seen: Order) -> u32 {
        let mut order = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if seen >= *order {
            *order = (seen.0.saturating_add(1), 0);
        }
        order.0
    }
}

struct LinkState {
    peer: Address,
    /// Whose quotas in the store what comes over it counts to.
    account: Address,
    transport: &'static str,
    /// One long-lived recipient: a fresh clone would bring a free slot of its own.
    outlet: Recipient<ForwardBatch>,
}

/// See the module.
pub struct RouterActor {
    parts: RouterParts,
    core: Router,
    scratch: SignatureInput,
    /// True where the wall clock was believed at the last look.
    trusted: bool,
    links: BTreeMap<LinkId, LinkState>,
    deliver: Outlet<DeliverLocal>,
    destination_up: Outlet<DestinationUp>,
    fate: Outlet<PacketFate>,
    key_found: Outlet<KeyRecordFound>,
    hold: Outlet<HoldEnvelopes>,
    custody_news: Outlet<CustodyNews>,
    health: Outlet<ReportHealth>,
    reported: Counters,
    timer: Option<(Instant, SpawnHandle)>,
    saving: saving::Saving,
    draining: bool,
    /// Who an envelope of the embedding program came from, while it is looked at.
    program_peer: Option<Address>,
    guard: ExitGuard,
}

impl RouterActor {
    /// A router without links.
    pub fn new(parts: RouterParts, guard: ExitGuard) -> Self {
        let now = clock::now();
        let seed = u64::from_be_bytes(random::random_bytes(&mut random::os_rng()));
        Self {
            core: Router::new(parts.config.clone(), now, seed),
            scratch: SignatureInput::new(parts.network),
            trusted: true,
            links: BTreeMap::new(),
            deliver: parts.deliver.outlet(),
            destination_up: parts.destination_up.outlet(),
            fate: parts.fate.outlet(),
            key_found: parts.key_found.outlet(),
            hold: parts.hold.outlet(),
            custody_news: parts.custody_news.outlet(),
            health: parts.health.outlet(),
            reported: Counters::default(),
            timer: None,
            saving: saving::Saving::new(&parts.identity, parts.network),
            draining: false,
            program_peer: None,
            guard,
            parts,
        }
    }

    fn step(&mut self, input: Input, ctx: &mut Context<Self>) {
        let now = clock::now();
        let wall = self.wall();
        self.core.handle(now, wall, input);
        self.perform_all(now, wall);
        self.rearm(now, ctx);
    }

    fn wall(&self) -> WallClock {
        let time = self.parts.clock.time();
        WallClock { unix_s: time.unix_s, trusted: time.trusted }
    }

    /// Asks the core for something that has an answer, and carries out what follows.
    fn ask<T>(&mut self, ctx: &mut Context<Self>, of: impl FnOnce(&mut Router, Instant) -> T) -> T {
        let now = clock::now();
        let answer = of(&mut self.core, now);
        self.perform_all(now, self.wall());
        self.rearm(now, ctx);
        answer
    }

    /// What was saved is read.
    fn begin_routing(&mut self, ctx: &mut Context<Self>) {
        self.report(ctx);
        self.step(Input::Timeout, ctx);
    }

    /// Carries out everything the core wants, one batch a link.
    fn perform_all(&mut self, now: Instant, wall: WallClock) {
        loop {
            let mut batches: BTreeMap<LinkId, ForwardBatch> = BTreeMap::new();
            let mut again = Vec::new();
            while let Some(output) = self.core.poll() {
                self.perform(output, &mut batches, &mut again);
            }
            for (link, batch) in batches {
                again.extend(self.send_batch(link, batch));
            }
            if again.is_empty() {
                return;
            }
            for input in again {
                self.core.handle(now, wall, input);
            }
        }
    }

    fn send_batch(&mut self, link: LinkId, batch: ForwardBatch) -> Option<Input> {
        let Some(state) = self.links.get(&link) else {
            return unsent(link, batch, RefuseReason::NoRoute);
        };
        match state.outlet.try_send(batch) {
            Ok(()) => None,
            Err(SendError::Full(batch)) => {
                metrics::counter!(telemetry::MAILBOX_DROPPED, "mailbox" => "transport").increment(1);
                unsent(link, batch, RefuseReason::Congested)
            }
            Err(SendError::Closed(batch)) => unsent(link, batch, RefuseReason::NoRoute),
        }
    }

    fn perform(
        &mut self,
        output: Output,
        batches: &mut BTreeMap<LinkId, ForwardBatch>,
        again: &mut Vec<Input>,
    ) {
        match output {
            Output::Forward(link, envelopes) => {
                let batch = batches.entry(link).or_default();
                if batch.envelopes.is_empty() {
                    batch.envelopes = envelopes;
                } else {
                    batch.envelopes.extend(envelopes);
                }
            }
            Output::Control(link, frame) => batches.entry(link).or_default().control.push(frame),
            Output::Deliver(ingress, envelopes) => {
                let refused = self.deliver(ingress.link(), envelopes);
                let refuse = |packet_id| Input::CustodyRefused(packet_id, RefuseReason::Congested);
                again.extend(refused.into_iter().map(refuse));
            }
            Output::Seen(link, envelope) => self.seen(link, *envelope),
            Output::Custody(link, envelopes) => {
                let account = self.links.get(&link).map(|l| l.account);
                let ingress = account.or(self.program_peer).unwrap_or(self.core.own());
                if let Err(back) = self.hold.offer(HoldEnvelopes { ingress, envelopes }) {
                    let refused = back.message.envelopes.iter();
                    again
                        .extend(refused.map(|e| Input::CustodyRefused(e.packet_id, RefuseReason::StoreFull)));
                }
            }
            Output::Refused(refuse) => {
                self.custody_news.offer_gossip("store", CustodyNews::Refused(refuse.packet_id));
                let fate = PacketFate::Refused {
                    packet_id: refuse.packet_id,
                    reason: refuse.reason,
                    retry_after: Duration::from_secs(u64::from(refuse.retry_after_s)),
                };
                self.fate.offer_gossip("delivery", fate);
            }
            Output::InCustody { domain, packet_ids } => {
                self.custody_news.offer_gossip("store", CustodyNews::HandedOver(packet_ids.clone()));
                self.fate.offer_gossip("delivery", PacketFate::InCustody { domain, packet_ids });
            }
            Output::RouteUp(destination) => {
                let is_thin = self.core.is_thin(&destination);
                let up = DestinationUp { address: destination, is_thin };
                self.destination_up.offer_gossip("delivery", up);
                self.parts.events.tell(EventKind::RouteUp { destination });
                self.custody_news.offer_gossip("store", CustodyNews::Reachable(destination));
            }
            Output::RouteDown(destination) => {
                self.parts.events.tell(EventKind::RouteDown { destination });
                self.custody_news.offer_gossip("store", CustodyNews::Unreachable(destination));
            }
            Output::KeyRecord(record) => {
                self.key_found.offer_gossip("delivery", KeyRecordFound(record));
            }
            Output::AnnounceDue { max_hops } => {
                let announce = self.make_announce(max_hops);
                again.push(Input::OwnAnnounce(Box::new(announce)));
            }
            Output::OwnOrderSeen(order) => {
                let boot_epoch = self.parts.order.jump_above(order);
                tracing::warn!(
                    ?order,
                    boot_epoch,
                    "others hold a newer announce of this node: it was restored from a backup, or its \
                     key is in use twice"
                );
                let raise = LocalOp::RaiseBootEpoch { at_least: boot_epoch };
                if self.parts.store.submit(vec![raise], Box::new(|_| {})).is_err() {
                    tracing::error!("the store did not take the raised boot epoch");
                }
                let announce = self.make_announce(crate::wire::limits::MAX_HOPS_MAX);
                again.push(Input::OwnAnnounce(Box::new(announce)));
            }
        }
    }

    /// Gives those back that delivery had no room for and that their origin keeps: it is told so.
    fn deliver(&mut self, link: Option<LinkId>, envelopes: Vec<Verified<InboundEnvelope>>) -> Vec<PacketId> {
        let state = link.and_then(|l| self.links.get(&l));
        let via = state.map_or("local", |l| l.transport);
        let ingress = state.map(|l| l.account).or(self.program_peer);
        let count = envelopes.len() as u64;
        let message = DeliverLocal { link, via, ingress, envelopes };
        let Err(back) = self.deliver.offer(message) else { return Vec::new() };
        metrics::counter!(telemetry::ENVELOPES_DROPPED, "reason" => "busy").increment(count);
        let kept_elsewhere =
            back.message.envelopes.iter().filter(|e| e.envelope.header().kind.is_stored_for_others());
        kept_elsewhere.map(|envelope| envelope.packet_id).collect()
    }

    /// A receipt that passes settles what is held here for its signer; a trace that passes is
    /// answered.
    fn seen(&mut self, link: LinkId, envelope: Verified<InboundEnvelope>) {
        match envelope.envelope.header().kind {
            EnvelopeKind::TRACE => drop(self.deliver(Some(link), vec![envelope])),
            EnvelopeKind::RECEIPT => {
                if let Ok(receipt) = Receipt::decode(&envelope.envelope.payload()) {
                    let settled = CustodyNews::Settled { by: envelope.source, packets: receipt.settled() };
                    self.custody_news.offer_gossip("store", settled);
                }
            }
            _ => {}
        }
    }

    fn make_announce(&mut self, max_hops: u8) -> Announce {
        let keys = self.parts.keys.borrow().clone();
        let parts = AnnounceParts {
            order: self.parts.order.next(),
            capabilities: self.parts.capabilities,
            lifetime: self.parts.announce_lifetime,
            max_hops: max_hops.min(self.parts.config.announce_max_hops),
            key_record: Some(&keys.record),
        };
        metrics::counter!(telemetry::ANNOUNCES, "outcome" => "tx").increment(1);
        create_announce(&self.parts.identity, &mut self.scratch, &parts)
    }

    fn rearm(&mut self, now: Instant, ctx: &mut Context<Self>) {
        let (wake, _) = self.core.next_wake();
        if self.timer.as_ref().is_some_and(|(at, _)| *at == wake) {
            return;
        }
        if let Some((_, handle)) = self.timer.take() {
            ctx.cancel_future(handle);
        }
        let handle = ctx.run_later(wake.saturating_duration_since(now), |actor, ctx| {
            actor.timer = None;
            actor.step(Input::Timeout, ctx);
        });
        self.timer = Some((wake, handle));
    }

    /// Every two seconds: health, metrics, the clock.
    fn report(&mut self, ctx: &mut Context<Self>) {
        let now = clock::now();
        let distrust = self.parts.clock.judge().err();
        if let Some(why) = distrust.filter(|_| self.trusted) {
            tracing::warn!(%why, "the wall clock is not trusted; messages expire by their age alone");
        }
        self.trusted = distrust.is_none();
        let routes = self.core.reachable();
        metrics::gauge!(telemetry::ROUTES).set(routes as f64);
        self.count();
        let counts = format!("{routes} routes, {} links", self.links.len());
        let (status, detail) = match distrust {
            None => (HealthStatus::Healthy, counts),
            Some(why) => (HealthStatus::Degraded, format!("{counts}; {why}")),
        };
        let report =
            SubsystemReport { status, detail: Some(detail), ..SubsystemReport::healthy("routing", now) };
        self.health.offer_gossip("health", ReportHealth(report));
        ctx.run_later(REPORT_EVERY, Self::report);
    }

    /// Copies what the core counted since the last time into the metrics.
    fn count(&mut self) {
        let (new, old) = (*self.core.counters(), self.reported);
        let dropped = |reason: &'static str, new: u64, old: u64| {
            metrics::counter!(telemetry::ENVELOPES_DROPPED, "reason" => reason)
                .increment(new.saturating_sub(old));
        };
        dropped("duplicate", new.duplicates, old.duplicates);
        dropped("expired", new.expired, old.expired);
        dropped("hop_limit", new.hop_limit, old.hop_limit);
        dropped("no_route", new.no_route, old.no_route);
        dropped("unsent", new.unsent, old.unsent);
        dropped("loop", new.loops, old.loops);
        let add = |name: &'static str, new: u64, old: u64| {
            metrics::counter!(name).increment(new.saturating_sub(old));
        };
        add(telemetry::FORWARDED, new.forwarded, old.forwarded);
        add(telemetry::DELIVERED, new.delivered, old.delivered);
        add(telemetry::DEDUP_HITS, new.duplicates, old.duplicates);
        add(telemetry::REROUTED, new.rerouted, old.rerouted);
        add(telemetry::PROBES, new.probes, old.probes);
        add(telemetry::ORIGINS_EVICTED, new.origins_evicted, old.origins_evicted);
        let announces = |outcome: &'static str, new: u64, old: u64| {
            metrics::counter!(telemetry::ANNOUNCES, "outcome" => outcome).increment(new.saturating_sub(old));
        };
        let rx = |c: &Counters| c.announces_newer.saturating_add(c.announces_alternative);
        announces("rx", rx(&new), rx(&old));
        announces("stale", new.announces_stale, old.announces_stale);
        let refused = |c: &Counters| {
            let (limits, full) = (
                [c.announces_hop_limit, c.announces_not_origin, c.announces_expired],
                [c.announces_table_full, c.announces_share_full],
            );
            limits.iter().chain(&full).fold(0u64, |sum, n| sum.saturating_add(*n))
        };
        announces("refused", refused(&new), refused(&old));
        let paths = |event: &'static str, of: fn(&Counters) -> u64| {
            metrics::counter!(telemetry::PATHS, "event" => event)
                .increment(of(&new).saturating_sub(of(&old)));
        };
        paths("search", |c| c.path_searches);
        paths("search_failed", |c| c.path_searches_failed);
        paths("search_refused", |c| c.path_searches_refused);
        paths("request_rx", |c| c.path_requests);
        paths("request_tx", |c| c.path_requests_sent);
        paths("request_repeated", |c| c.path_requests_repeated);
        paths("request_over_budget", |c| c.path_requests_over_budget);
        paths("reply_rx", |c| c.path_replies);
        paths("reply_tx", |c| c.path_replies_sent);
        paths("withdrawn", |c| c.withdrawals);
        paths("withdrawn_foreign", |c| c.withdrawals_foreign);
        paths("withdraw_over_budget", |c| c.withdrawals_over_budget);
        paths("withdraw_tx", |c| c.withdrawals_sent);
        paths("digest_rx", |c| c.digests);
        paths("digest_tx", |c| c.digests_sent);
        paths("digest_ignored", |c| c.digests_ignored);
        self.reported = new;
    }
}

fn unsent(link: LinkId, batch: ForwardBatch, reason: RefuseReason) -> Option<Input> {
    if batch.envelopes.is_empty() {
        return None;
    }
    Some(Input::Unsent(link, batch.envelopes, reason))
}

impl Actor for RouterActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.load(None, ctx);
    }
}

impl Handler<LinkUp> for RouterActor {
    type Result = ();

    fn handle(&mut self, up: LinkUp, ctx: &mut Context<Self>) {
        self.parts.clock.neighbour(up.peer, up.hello.clock_unix_s);
        let info = LinkInfo {
            link: up.link,
            peer: up.peer_key,
            class: up.class,
            trusted: false,
            account: up.account,
        };
        let state = LinkState {
            peer: up.peer,
            account: up.account.unwrap_or(up.peer),
            transport: up.transport,
            outlet: up.outlet,
        };
        self.links.insert(up.link, state);
        self.step(Input::LinkUp(info), ctx);
    }
}

impl Handler<LinkDown> for RouterActor {
    type Result = ();

    fn handle(&mut self, down: LinkDown, ctx: &mut Context<Self>) {
        if let Some(state) = self.links.remove(&down.0)
            && !self.links.values().any(|l| l.peer == state.peer)
        {
            self.parts.clock.neighbour_gone(&state.peer);
        }
        self.step(Input::LinkDown(down.0), ctx);
    }
}

impl Handler<EnvelopesVerified> for RouterActor {
    type Result = ();

    fn handle(&mut self, message: EnvelopesVerified, ctx: &mut Context<Self>) {
        self.step_with(Some(message.link), message.batch, ctx);
        drop(message.permit);
    }
}

impl Handler<AnnounceVerified> for RouterActor {
    type Result = ();

    fn handle(&mut self, message: AnnounceVerified, ctx: &mut Context<Self>) {
        let input = match message.is_reply {
            true => Input::PathReply(message.link, message.announce),
            false => Input::Announce(message.link, message.announce),
        };
        self.step(input, ctx);
    }
}

impl Handler<LinkControl> for RouterActor {
    type Result = ();

    fn handle(&mut self, message: LinkControl, ctx: &mut Context<Self>) {
        let input = match message.control {
            NeighbourControl::Frame(frame) => Input::Control(message.link, *frame),
            NeighbourControl::KeyRecord(record) => Input::KeyRecord(record),
        };
        self.step(input, ctx);
    }
}

impl Handler<EgressFull> for RouterActor {
    type Result = ();

    fn handle(&mut self, message: EgressFull, ctx: &mut Context<Self>) {
        self.step(Input::Unsent(message.link, message.envelopes, RefuseReason::Congested), ctx);
    }
}

impl Handler<Originate> for RouterActor {
    type Result = ();

    fn handle(&mut self, message: Originate, ctx: &mut Context<Self>) {
        self.step_with_own(message.0, message.1, ctx);
    }
}

impl Handler<FindKeyRecord> for RouterActor {
    type Result = ();

    fn handle(&mut self, message: FindKeyRecord, ctx: &mut Context<Self>) {
        self.step(Input::FindKeyRecord(message.0), ctx);
    }
}

impl Handler<CustodyAnswer> for RouterActor {
    type Result = ();

    fn handle(&mut self, message: CustodyAnswer, ctx: &mut Context<Self>) {
        if !message.taken.is_empty() {
            self.step(Input::CustodyTaken(message.taken), ctx);
        }
        for (packet_id, reason) in message.refused {
            self.step(Input::CustodyRefused(packet_id, reason), ctx);
        }
    }
}

impl Handler<WhichReachable> for RouterActor {
    type Result = ();

    fn handle(&mut self, WhichReachable(mut of): WhichReachable, _: &mut Context<Self>) {
        of.retain(|destination| self.core.is_reachable(destination));
        if !of.is_empty() {
            self.custody_news.offer_gossip("store", CustodyNews::AllReachable(of));
        }
    }
}

impl Handler<FromCustody> for RouterActor {
    type Result = ();

    fn handle(&mut self, message: FromCustody, ctx: &mut Context<Self>) {
        self.step_with(None, message.0, ctx);
    }
}

impl Handler<ListRoutes> for RouterActor {
    type Result = MessageResult<ListRoutes>;

    fn handle(&mut self, ask: ListRoutes, _: &mut Context<Self>) -> Self::Result {
        let routes = self.core.routes_from(clock::now(), &ask.from);
        let line = |route: RouteInfo| {
            let hop = route.next_hops.first()?;
            let state = self.links.get(&hop.link)?;
            Some(RouteLine { next_hop: state.peer, transport: state.transport, route })
        };
        MessageResult(Page::of(routes, ask.rows_max, |route| route.destination, line))
    }
}

impl Handler<ListKnown> for RouterActor {
    type Result = MessageResult<ListKnown>;

    fn handle(&mut self, ask: ListKnown, _: &mut Context<Self>) -> Self::Result {
        let known = self.core.known_from(clock::now(), &ask.from);
        MessageResult(Page::of(known, ask.rows_max, |known| known.address, Some))
    }
}

impl Handler<SearchPath> for RouterActor {
    type Result = MessageResult<SearchPath>;

    fn handle(&mut self, message: SearchPath, ctx: &mut Context<Self>) -> Self::Result {
        MessageResult(self.ask(ctx, |core, now| core.search(now, message.0)))
    }
}

impl Handler<DropPath> for RouterActor {
    type Result = bool;

    fn handle(&mut self, message: DropPath, ctx: &mut Context<Self>) -> bool {
        self.ask(ctx, |core, _| core.drop_path(message.0))
    }
}

impl Handler<GetRouterState> for RouterActor {
    type Result = MessageResult<GetRouterState>;

    fn handle(&mut self, _: GetRouterState, _: &mut Context<Self>) -> Self::Result {
        MessageResult(RouterState {
            links: self.links.len(),
            routes: self.core.reachable(),
            counters: *self.core.counters(),
        })
    }
}

impl Handler<AnnounceNow> for RouterActor {
    type Result = ();

    fn handle(&mut self, _: AnnounceNow, ctx: &mut Context<Self>) {
        let announce = self.make_announce(crate::wire::limits::MAX_HOPS_MAX);
        self.step(Input::OwnAnnounce(Box::new(announce)), ctx);
    }
}

impl Handler<Drain> for RouterActor {
    type Result = ();

    fn handle(&mut self, drain: Drain, ctx: &mut Context<Self>) {
        match drain.phase {
            DrainPhase::Draining => {
                self.draining = true;
                self.guard.report(drain.phase, DrainCounts::default());
            }
            DrainPhase::Persisting => {
                self.draining = true;
                self.save_all(drain.phase, ctx);
            }
            DrainPhase::Cleanup => {
                self.guard.drained();
                ctx.stop();
            }
        }
    }
}

#[cfg(any(test, feature = "testing"))]
crate::messages::lifecycle::panics_when_told!(RouterActor);
