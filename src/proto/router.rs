//! The router: dedup window, routing table and announces, composed into what the node does with
//! everything its links bring and everything it has to say.
//!
//! One [`Input`] to [`Router::handle`], then drain [`Router::poll`] to `None`, then wait until
//! [`Router::next_wake`]. Envelopes come and go in batches, one a link. What comes in was verified
//! by the link's task; nothing here checks a signature, reads a clock or waits.
//!
//! A packet's way through: hop limit, expiry, dedup window, decision. It is delivered here, goes
//! on over one link (over all others for a broadcast), or finds no path: then it goes to custody
//! where this node stores for others, else back as a refusal. It never goes back over the link it
//! came over. Receipts travel back the way their messages came.
//!
//! Absent on purpose: signing (an announce that is due is asked for), queues of links, custody
//! itself, and everything about the inside of an envelope but the ids a receipt names.

mod control;
mod counters;
mod kept;
mod links;
mod measured;
mod transit;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use hashlink::LruCache;

use crate::{
    crypto::{VerifiedKeyRecord, compute_address},
    wire::{
        Address, Announce, Envelope, Frame, LinkId, PacketId, PublicKey,
        control::{Refuse, RefuseReason},
        limits::MAX_HOPS_MAX,
    },
};

use super::{
    announce::{ANNOUNCE_INTERVAL, ANNOUNCES_PER_SECOND, AnnounceSchedule, FloodQueue, Send},
    dedup::{Dedup, GENERATION_ENTRIES_MAX, Ingress},
    fib::{Fib, Hops},
    ranking::Ranking,
    table::{LinkClass, ORIGINS_MAX, Order, Reject, RouteInfo, RoutingTable, Update, Via},
    verify::{InboundAnnounce, InboundEnvelope, Verified},
};

pub use counters::Counters;

use kept::Kept;
use links::Links;

/// Keys of sources that are remembered, 110 bytes each.
const SOURCE_KEYS_MAX: usize = 4096;

/// When a packet that a full queue did not take may be tried again: queues drain within that.
const UNSENT_RETRY_S: u16 = 1;

/// Announces kept of links whose start has not been told yet, all links together: a neighbour's
/// first words may overtake the news that its link is up.
const EARLY_MAX: usize = 256;

/// Table entries looked at for one announce to a new neighbour, where it has brought most itself.
const PAGE_ENTRIES_MAX: usize = 64;

/// How the router behaves.
#[derive(Debug, Clone)]
pub struct RouterConfig {
    /// This node's key.
    pub own_key: PublicKey,
    /// Forward for others. Without it the node is an end: it takes what is for it and passes
    /// nothing on.
    pub relay: bool,
    /// Keep for others what finds no path.
    pub store: bool,
    /// Origins to remember.
    pub origins_max: usize,
    /// Time between announces.
    pub announce_interval: Duration,
    /// Links that announces of this node cross at most.
    pub announce_max_hops: u8,
    /// Announces of others passed on a second.
    pub announces_per_s: u32,
    /// Packets remembered in each of the dedup window's two generations.
    pub dedup_entries_max: usize,
}

impl RouterConfig {
    /// A relay with the default bounds.
    pub fn new(own_key: PublicKey) -> Self {
        Self {
            own_key,
            relay: true,
            store: false,
            origins_max: ORIGINS_MAX,
            announce_interval: ANNOUNCE_INTERVAL,
            announce_max_hops: MAX_HOPS_MAX,
            announces_per_s: ANNOUNCES_PER_SECOND,
            dedup_entries_max: GENERATION_ENTRIES_MAX,
        }
    }
}

/// The wall clock as far as it is believed ([`super::clock_trust`]).
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    /// Seconds since 1970.
    pub unix_s: u64,
    /// Whether messages may be dropped by it.
    pub trusted: bool,
}

/// A link that is up.
#[derive(Debug, Clone, Copy)]
pub struct LinkInfo {
    /// Its number.
    pub link: LinkId,
    /// The authenticated neighbour.
    pub peer: PublicKey,
    /// What it runs over.
    pub class: LinkClass,
    /// Trace context may cross it.
    pub trusted: bool,
}

/// What happens to the router.
#[expect(clippy::large_enum_variant, reason = "few at a time; the hot variants are vectors")]
#[derive(Debug)]
pub enum Input {
    /// A link's hello is done.
    LinkUp(LinkInfo),
    /// A link is gone.
    LinkDown(LinkId),
    /// Envelopes came over a link.
    Envelopes(LinkId, Vec<Verified<InboundEnvelope>>),
    /// Envelopes of this node's own, signed a moment ago.
    Originate(Vec<(PacketId, Envelope)>),
    /// Envelopes that this node kept for others and hands on. The link field `age` holds their time
    /// in custody, the resend flag whether they were handed on before.
    FromCustody(Vec<Verified<InboundEnvelope>>),
    /// These were taken into custody, durably.
    CustodyTaken(Vec<PacketId>),
    /// This one was not.
    CustodyRefused(PacketId, RefuseReason),
    /// A link's queue had no room for these, which [`Output::Forward`] gave it. Into custody where
    /// this node stores, else back.
    Unsent(LinkId, Vec<Verified<InboundEnvelope>>, RefuseReason),
    /// The same where the envelopes themselves are gone: back to where they came from.
    UnsentIds(LinkId, Vec<PacketId>, RefuseReason),
    /// An announce came over a link.
    Announce(LinkId, Box<Verified<InboundAnnounce>>),
    /// This node's own announce, signed as [`Output::AnnounceDue`] asked.
    OwnAnnounce(Box<Announce>),
    /// A key record came over a link.
    KeyRecord(Box<VerifiedKeyRecord>),
    /// Somebody here wants the key record of an address: [`Output::KeyRecord`] follows if it is or
    /// becomes known.
    FindKeyRecord(Address),
    /// A refusal, custody acknowledgement, path request, key request or key question came over a
    /// link. Other frames are ignored.
    Control(LinkId, Frame),
    /// The time that [`Router::next_wake`] named is here.
    Timeout,
}

/// What is to be done.
#[expect(clippy::large_enum_variant, reason = "few at a time; the hot variants are vectors")]
#[derive(Debug)]
pub enum Output {
    /// Send these over a link: hop counts and extensions are set. Each is one
    /// [`Envelope::to_frame`] of its `envelope` and `ext`.
    Forward(LinkId, Vec<Verified<InboundEnvelope>>),
    /// These are for this node.
    Deliver(Ingress, Vec<Verified<InboundEnvelope>>),
    /// A trace that went on, for an answer, or, where this node stores, a receipt that did.
    Seen(LinkId, Box<Verified<InboundEnvelope>>),
    /// These have no path: keep them, and say [`Input::CustodyTaken`] or [`Input::CustodyRefused`].
    Custody(LinkId, Vec<Verified<InboundEnvelope>>),
    /// Send this frame over a link, ahead of data.
    Control(LinkId, Frame),
    /// A packet of this node's own was not taken, here or on the way.
    Refused(Refuse),
    /// These packets are durably held on the way.
    InCustody {
        /// Who holds them.
        domain: Address,
        /// Which.
        packet_ids: Vec<PacketId>,
    },
    /// There is a path to this destination now.
    RouteUp(Address),
    /// There is none any more.
    RouteDown(Address),
    /// A key record that is newer than what was known, or that was asked for.
    KeyRecord(Box<VerifiedKeyRecord>),
    /// Sign an announce with this hop limit and hand it in as [`Input::OwnAnnounce`].
    AnnounceDue {
        /// The hop limit.
        max_hops: u8,
    },
    /// Somebody holds an announce of this very node with a higher order than its own: it was
    /// restored from a backup, or its key is in use twice. Jump above it.
    OwnOrderSeen(Order),
}

/// Why the router wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    /// This node's own announce is due then.
    OwnAnnounce,
    /// A route ends, or an origin is forgotten, then.
    RouteEnds,
    /// The announce budget lets the next one go on then.
    AnnounceBudget,
    /// A receipt that was expected is overdue then.
    ReceiptDue,
}

/// The router. See the module's documentation for how it is driven.
#[derive(Debug)]
pub struct Router {
    own: Address,
    config: RouterConfig,
    links: Links,
    table: RoutingTable,
    fib: Fib,
    dedup: Dedup,
    ranking: Ranking,
    kept: Kept,
    schedule: AnnounceSchedule,
    floods: FloodQueue,
    own_announce: Option<Announce>,
    /// Announces that came before the news of their link.
    early: VecDeque<(LinkId, Verified<InboundAnnounce>)>,
    /// Keys of sources whose envelopes went on, for neighbours that forgot them.
    source_keys: LruCache<Address, PublicKey>,
    /// Addresses whose key record somebody here waits for, until when.
    wanted: BTreeMap<Address, Instant>,
    counters: Counters,
    outputs: VecDeque<Output>,
}

impl Router {
    /// A router without links. `seed` is random: it keys the hash tables and the jitter.
    pub fn new(config: RouterConfig, now: Instant, seed: u64) -> Self {
        let own = compute_address(&config.own_key);
        Self {
            own,
            links: Links::default(),
            table: RoutingTable::new(config.origins_max),
            fib: Fib::new(own, seed),
            dedup: Dedup::with_capacity(now, seed.rotate_left(17), config.dedup_entries_max),
            ranking: Ranking::new(now, seed.rotate_left(29)),
            kept: Kept::default(),
            schedule: AnnounceSchedule::new(now, config.announce_interval, seed.rotate_left(41)),
            floods: FloodQueue::new(now, config.announces_per_s),
            own_announce: None,
            early: VecDeque::new(),
            source_keys: LruCache::new(SOURCE_KEYS_MAX),
            wanted: BTreeMap::new(),
            counters: Counters::default(),
            outputs: VecDeque::new(),
            config,
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Instant, wall: WallClock, input: Input) {
        // A retry finds the verdict over the attempt before it.
        self.judge_due(now);
        match input {
            Input::LinkUp(info) => self.on_link_up(now, info),
            Input::LinkDown(link) => self.on_link_down(now, link),
            Input::Envelopes(link, batch) => self.on_envelopes(now, wall, link, batch),
            Input::Originate(batch) => self.on_originate(now, batch),
            Input::FromCustody(batch) => self.on_from_custody(now, wall, batch),
            Input::CustodyTaken(packet_ids) => self.on_custody_taken(&packet_ids),
            Input::CustodyRefused(packet_id, reason) => {
                self.dedup.returned(&packet_id);
                self.send_back(Refuse { packet_id, reason, retry_after_s: 0 });
            }
            Input::Unsent(link, batch, reason) => self.on_unsent(link, batch, reason),
            Input::UnsentIds(link, packet_ids, reason) => {
                for packet_id in packet_ids {
                    if self.take_back(link, &packet_id) {
                        self.send_back(Refuse { packet_id, reason, retry_after_s: UNSENT_RETRY_S });
                    }
                }
            }
            Input::Announce(link, inbound) if self.links.contains(link) => {
                self.on_announce(now, link, &inbound);
            }
            // Without it the way to this neighbour would open with its next announce only. Links
            // that never come up are pushed out by others.
            Input::Announce(link, inbound) => {
                if self.early.len() >= EARLY_MAX {
                    self.early.pop_front();
                }
                self.early.push_back((link, *inbound));
            }
            Input::OwnAnnounce(announce) => self.on_own_announce(*announce),
            Input::KeyRecord(record) => self.on_key_record(now, &record),
            Input::FindKeyRecord(address) => self.on_find_key_record(now, address),
            Input::Control(link, frame) => self.on_control(now, link, frame),
            Input::Timeout => self.on_timeout(now),
        }
        self.send_announces(now);
    }

    /// The next thing to do, or none.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call with [`Input::Timeout`], and what for. There is always something: the next
    /// announce of this node's own.
    pub fn next_wake(&self) -> (Instant, Wake) {
        let own = Some((self.schedule.next_wake(), Wake::OwnAnnounce));
        let ends = self.table.next_wake().map(|at| (at, Wake::RouteEnds));
        let budget = self.floods.next_wake().map(|at| (at, Wake::AnnounceBudget));
        let receipt = self.ranking.next_wake().map(|at| (at, Wake::ReceiptDue));
        let first = [own, ends, budget, receipt].into_iter().flatten().min();
        first.unwrap_or((self.schedule.next_wake(), Wake::OwnAnnounce))
    }

    /// This node's address.
    pub fn own(&self) -> Address {
        self.own
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The routes, by destination, with what their ways delivered.
    pub fn routes(&self, now: Instant) -> impl Iterator<Item = RouteInfo> + '_ {
        self.table.iter(now).map(move |mut route| {
            for (hop, delivered) in route.next_hops.iter().zip(&mut route.delivered_permille) {
                let measure = self.ranking.measure(now, &route.destination, &hop.neighbour);
                *delivered = measure.delivered_permille;
            }
            route
        })
    }

    /// Destinations with a live path, neighbours included.
    pub fn reachable(&self) -> usize {
        self.fib.len()
    }

    /// True where a packet for `destination` finds a path now.
    pub fn is_reachable(&self, destination: &Address) -> bool {
        self.fib.hops(destination).is_some()
    }

    /// Links that are up.
    pub fn link_count(&self) -> usize {
        self.links.len()
    }

    /// Packets in the dedup window.
    pub fn packets_remembered(&self) -> usize {
        self.dedup.len()
    }

    fn on_link_up(&mut self, now: Instant, info: LinkInfo) {
        let Some(neighbour) = self.links.insert(now, info) else { return };
        self.refresh(neighbour);
        // At once what is known, and soon a newer one that tells the others of this link.
        if let Some(announce) = &self.own_announce {
            self.outputs.push_back(Output::Control(info.link, Frame::Announce(announce.clone())));
        }
        self.floods.tell_table(info.link);
        self.schedule.links_changed(now);
        let (of_link, others): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.early).into_iter().partition(|(link, _)| *link == info.link);
        self.early = others;
        for (link, announce) in of_link {
            self.on_announce(now, link, &announce);
        }
    }

    fn on_link_down(&mut self, now: Instant, link: LinkId) {
        self.early.retain(|(early, _)| *early != link);
        let Some(neighbour) = self.links.remove(link) else { return };
        self.floods.link_down(link);
        for destination in self.table.link_down(link) {
            self.refresh(destination);
        }
        self.refresh(neighbour);
        self.schedule.links_changed(now);
    }

    fn on_announce(&mut self, now: Instant, link: LinkId, inbound: &Verified<InboundAnnounce>) {
        let Some(state) = self.links.get(link) else { return };
        let origin = inbound.origin;
        let via = Via {
            link,
            class: state.class,
            neighbour: state.neighbour,
            measure: self.ranking.measure(now, &origin, &state.neighbour),
            is_young: state.is_young(now),
        };
        let order = inbound.announce.content.order();
        if origin == self.own {
            let own = self.own_announce.as_ref().map(|announce| announce.content.order());
            if own.is_none_or(|own| order > own) {
                self.counters.own_order_seen = self.counters.own_order_seen.saturating_add(1);
                self.outputs.push_back(Output::OwnOrderSeen(order));
            }
            return;
        }
        let before = self.table.key_record(&origin).map(|record| *record.digest());
        let update = self.table.update(now, inbound, &via, &|to| self.ranking.is_active(now, to));
        self.counters.announce(update);
        for evicted in self.table.take_evicted() {
            self.counters.origins_evicted = self.counters.origins_evicted.saturating_add(1);
            self.refresh(evicted);
        }
        match update {
            Update::Newer => {
                self.rerank(now, origin);
                if self.config.relay {
                    self.floods.flood(origin);
                }
            }
            Update::Alternative => self.rerank(now, origin),
            Update::Known => {}
            Update::Rejected(Reject::Stale) if via.neighbour == origin => {
                self.answer_stale(now, link, &origin);
            }
            Update::Rejected(_) => {}
        }
        let after = self.table.key_record(&origin);
        if let Some(record) = after.filter(|record| before != Some(*record.digest())) {
            let record = Box::new(record.clone());
            self.wanted.remove(&origin);
            self.outputs.push_back(Output::KeyRecord(record));
        }
    }

    /// The origin itself came with an old announce: it lost its state, and learns its own order
    /// from the newest one held here.
    fn answer_stale(&mut self, now: Instant, link: LinkId, origin: &Address) {
        if !self.links.may_answer_stale(now, link) {
            return;
        }
        if let Some(announce) = self.table.announce_held(origin) {
            self.outputs.push_back(Output::Control(link, Frame::Announce(announce)));
        }
    }

    fn on_own_announce(&mut self, announce: Announce) {
        for link in self.links.ids() {
            self.outputs.push_back(Output::Control(link, Frame::Announce(announce.clone())));
        }
        self.own_announce = Some(announce);
    }

    fn on_timeout(&mut self, now: Instant) {
        for destination in self.table.expire(now) {
            self.refresh(destination);
        }
        self.wanted.retain(|_, until| *until > now);
        self.kept.forget(now);
        if let Some(max_hops) = self.schedule.due(now, self.table.len()) {
            self.outputs.push_back(Output::AnnounceDue { max_hops });
        }
    }

    /// Passes announces on as far as the budget goes.
    fn send_announces(&mut self, now: Instant) {
        while let Some(send) = self.floods.next(now) {
            match send {
                Send::Flood(origin) => {
                    let brought_it = self.table.links_of(&origin);
                    let Some(announce) = self.table.announce_to_send(&origin) else { continue };
                    self.counters.announces_passed_on = self.counters.announces_passed_on.saturating_add(1);
                    let others = self
                        .links
                        .ids_where(|link, state| state.neighbour != origin && !brought_it.contains(&link));
                    for link in others {
                        self.outputs.push_back(Output::Control(link, Frame::Announce(announce.clone())));
                    }
                }
                Send::Page(link, cursor) => self.send_page(link, cursor),
            }
        }
    }

    /// Tells a new neighbour the next entry of the table that it has not brought itself.
    fn send_page(&mut self, link: LinkId, mut cursor: Option<Address>) {
        let Some(neighbour) = self.links.get(link).map(|state| state.neighbour) else {
            return self.floods.told(link, None);
        };
        for _ in 0..PAGE_ENTRIES_MAX {
            let Some(origin) = self.table.next_destination(cursor).filter(|_| self.config.relay) else {
                return self.floods.told(link, None);
            };
            cursor = Some(origin);
            if origin == neighbour || self.table.links_of(&origin).contains(&link) {
                continue;
            }
            if let Some(announce) = self.table.announce_to_send(&origin) {
                self.outputs.push_back(Output::Control(link, Frame::Announce(announce)));
                break;
            }
        }
        self.floods.told(link, cursor);
    }

    /// Brings the forwarding table in step with the links and the routing table for one
    /// destination, and tells where a path came or went.
    fn refresh(&mut self, destination: Address) {
        if destination == self.own {
            return;
        }
        let direct = self.links.to_neighbour(&destination);
        let routed = self.table.hops(&destination);
        let routed = routed.into_iter().flat_map(|hops| [Some(hops.first), hops.second]).flatten();
        let mut ways = direct.chain(routed);
        let hops = ways.next().map(|first| Hops { first, second: ways.find(|link| *link != first) });
        drop(ways);
        let is_up = hops.is_some();
        let was_up = self.fib.set(destination, hops).is_some();
        match (was_up, is_up) {
            (false, true) => self.outputs.push_back(Output::RouteUp(destination)),
            (true, false) => self.outputs.push_back(Output::RouteDown(destination)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod routing_tests;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod sim_traffic;
#[cfg(test)]
pub(in crate::proto) mod testkit;
#[cfg(test)]
mod tests;
