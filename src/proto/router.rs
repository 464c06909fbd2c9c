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
mod digest;
mod kept;
mod links;
mod measured;
mod paths;
mod saved;
#[cfg(any(test, feature = "testing"))]
mod sizes;
mod transit;
mod withdraw;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use hashlink::LruCache;

use crate::{
    crypto::{VerifiedKeyRecord, compute_address},
    wire::{
        Address, Announce, Capabilities, Envelope, Frame, LinkId, PacketId, PublicKey,
        control::{Refuse, RefuseReason},
        limits::MAX_HOPS_MAX,
    },
};

use super::{
    announce::{ANNOUNCE_INTERVAL, ANNOUNCES_PER_SECOND, AnnounceSchedule, FloodQueue, Send},
    dedup::{Dedup, GENERATION_ENTRIES_MAX, Ingress},
    fib::{self, Decision, Hops},
    ranking::Ranking,
    table::{LinkClass, ORIGINS_MAX, Order, Reject, RouteInfo, RoutingTable, Update, Via},
    verify::{InboundAnnounce, InboundEnvelope, Verified},
};

pub use counters::Counters;
pub use paths::PathSearch;
pub use saved::{SavedRow, row_seal};

use control::Wanted;
use digest::Digests;
use kept::Kept;
use links::{LinkState, Links};
use paths::Paths;
use withdraw::Withdrawals;

/// Keys of sources that are remembered, 110 bytes each.
const SOURCE_KEYS_MAX: usize = 4096;

/// When a packet that a full queue did not take may be tried again: queues drain within that.
const UNSENT_RETRY_S: u16 = 1;

/// Announces and digests kept of links whose start has not been told yet, all links together: a
/// neighbour's first words may overtake the news that its link is up.
const EARLY_MAX: usize = 256;

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

/// What an origin says to relays that know no way to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CustodyWish {
    /// Whoever stores for others may keep it.
    #[default]
    Welcome,
    /// It has custodians enough.
    Declined,
}

/// The wall clock as far as it is believed ([`super::node_clock`]).
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
    /// In whose name it takes shares of what this node holds, where that is not the neighbour: who comes
    /// under many names from one address has one share.
    pub account: Option<Address>,
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
    Originate(Vec<(PacketId, Envelope)>, CustodyWish),
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
    /// An announce came over a link in answer to a path request.
    PathReply(LinkId, Box<Verified<InboundAnnounce>>),
    /// This node's own announce, signed as [`Output::AnnounceDue`] asked.
    OwnAnnounce(Box<Announce>),
    /// A key record came over a link.
    KeyRecord(Box<VerifiedKeyRecord>),
    /// Somebody here wants the key record of an address: [`Output::KeyRecord`] follows if it is or
    /// becomes known.
    FindKeyRecord(Address),
    /// A refusal, custody acknowledgement, path request, withdrawal, digest, key request or key
    /// question came over a link. Other frames are ignored.
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
    /// A trace that went on, for an answer, or, where this node stores, a receipt, whether it did or
    /// ended here.
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
    /// There is a path to this destination now. Told again of one that turns out constrained.
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
    /// A search for a path asks further then.
    PathSearch,
    /// A route that is gone is withdrawn then.
    Withdrawal,
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
    dedup: Dedup,
    ranking: Ranking,
    kept: Kept,
    schedule: AnnounceSchedule,
    floods: FloodQueue,
    own_announce: Option<Announce>,
    /// What came before the news of its link.
    early: VecDeque<(LinkId, Input)>,
    /// Keys of sources whose envelopes went on, for neighbours that forgot them.
    source_keys: LruCache<Address, PublicKey>,
    /// Addresses whose key record somebody here waits for, until when.
    wanted: BTreeMap<Address, Wanted>,
    paths: Paths,
    withdrawals: Withdrawals,
    digests: Digests,
    /// Origins of which more is known than was saved.
    unsaved: BTreeSet<Address>,
    /// The last one of these that went to the disk.
    saved_through: Address,
    counters: Counters,
    outputs: VecDeque<Output>,
}

impl Router {
    /// A router without links. `seed` is random: it keys the hash tables and the jitter.
    pub fn new(config: RouterConfig, now: Instant, seed: u64) -> Self {
        let own = compute_address(&config.own_key);
        Self {
            own,
            links: Links::new(),
            table: RoutingTable::new(now, seed, config.origins_max),
            dedup: Dedup::with_capacity(now, seed.rotate_left(17), config.dedup_entries_max),
            ranking: Ranking::new(now, seed.rotate_left(29)),
            kept: Kept::default(),
            schedule: AnnounceSchedule::new(now, config.announce_interval, seed.rotate_left(41)),
            floods: FloodQueue::new(now, config.announces_per_s, seed.rotate_left(53)),
            own_announce: None,
            early: VecDeque::new(),
            source_keys: LruCache::new(SOURCE_KEYS_MAX),
            wanted: BTreeMap::new(),
            paths: Paths::new(seed.rotate_left(29)),
            withdrawals: Withdrawals::new(now),
            digests: Digests::default(),
            unsaved: BTreeSet::new(),
            saved_through: Address::BROADCAST,
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
            Input::Originate(batch, wish) => self.on_originate(now, batch, wish),
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
            // Without it the way to this neighbour would open with its next announce only. Links
            // that never come up are pushed out by others.
            Input::Announce(link, _) | Input::Control(link, Frame::Digest(_))
                if !self.links.contains(link) =>
            {
                if self.early.len() >= EARLY_MAX {
                    self.early.pop_front();
                }
                self.early.push_back((link, input));
            }
            Input::Announce(link, inbound) => self.on_announce(now, link, &inbound),
            Input::PathReply(link, inbound) => self.on_path_reply(now, link, &inbound),
            Input::OwnAnnounce(announce) => self.on_own_announce(*announce),
            Input::KeyRecord(record) => self.on_key_record(now, &record),
            Input::FindKeyRecord(address) => self.on_find_key_record(now, address),
            Input::Control(link, frame) => self.on_control(now, link, frame),
            Input::Timeout => self.on_timeout(now),
        }
        self.ask_for_newer(now);
        self.send_withdrawals(now);
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
        let search = self.paths.next_wake().map(|at| (at, Wake::PathSearch));
        let withdrawal = self.withdrawals.next_wake().map(|at| (at, Wake::Withdrawal));
        let receipt = self.ranking.next_wake().map(|at| (at, Wake::ReceiptDue));
        let first = [own, ends, budget, search, withdrawal, receipt].into_iter().flatten().min();
        first.unwrap_or((self.schedule.next_wake(), Wake::OwnAnnounce))
    }

    /// Where a packet goes.
    fn decide(
        &self,
        destination: &Address,
        ingress: Option<LinkId>,
        hop_count: u8,
        max_hops: u8,
    ) -> Decision {
        fib::decide(&self.own, destination, ingress, hop_count, max_hops, |to| self.table.likely_in_use(to))
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
        self.routes_from(now, &Address([0; Address::LEN]))
    }

    /// The routes from a destination on.
    pub fn routes_from(&self, now: Instant, from: &Address) -> impl Iterator<Item = RouteInfo> + '_ {
        self.table.iter_from(now, from).map(move |mut route| {
            for (hop, delivered) in route.next_hops.iter().zip(&mut route.delivered_permille) {
                let measure = self.ranking.measure(now, &route.destination, &hop.neighbour);
                *delivered = measure.delivered_permille;
            }
            route
        })
    }

    /// Destinations in the routing table that have a route.
    pub fn routed(&self) -> usize {
        self.table.len()
    }

    /// Destinations with a live path, neighbours included.
    pub fn reachable(&self) -> usize {
        self.table.reachable()
    }

    /// True where a packet for `destination` finds a path now.
    pub fn is_reachable(&self, destination: &Address) -> bool {
        self.table.in_use(destination).is_some()
    }

    /// True where bytes on the way to `destination` cost more than signatures: by its announce, or,
    /// where none is held, by the link that leads to it.
    pub fn is_thin(&self, destination: &Address) -> bool {
        if let Some(announce) = self.table.announce_held(destination) {
            return announce.content.capabilities.has(Capabilities::CONSTRAINED);
        }
        let first = self.table.in_use(destination).and_then(|hops| self.links.get(hops.first));
        first.is_some_and(|link| link.class >= LinkClass::Constrained)
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
        self.digests.link_up(now, info.link);
        self.floods.tell_table(info.link);
        self.schedule.links_changed(now);
        let (of_link, others): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.early).into_iter().partition(|(link, _)| *link == info.link);
        self.early = others;
        for (link, early) in of_link {
            match early {
                Input::Announce(_, announce) => self.on_announce(now, link, &announce),
                Input::Control(_, frame) => self.on_control(now, link, frame),
                _ => {}
            }
        }
    }

    fn on_link_down(&mut self, now: Instant, link: LinkId) {
        self.early.retain(|(early, _)| *early != link);
        let Some(neighbour) = self.links.remove(link) else { return };
        self.floods.link_down(link);
        self.digests.link_down(link);
        self.paths.link_down(link);
        self.withdrawals.link_down(link);
        for destination in self.table.link_down(link) {
            self.refresh(destination);
            self.note_loss(now, destination);
        }
        self.refresh(neighbour);
        self.schedule.links_changed(now);
    }

    fn on_announce(&mut self, now: Instant, link: LinkId, inbound: &Verified<InboundAnnounce>) {
        let origin = inbound.origin;
        let Some(via) = self.via(now, link, &origin) else { return };
        let order = inbound.announce.content.order();
        if origin == self.own {
            let own = self.own_announce.as_ref().map(|announce| announce.content.order());
            if own.is_none_or(|own| order > own) {
                self.counters.own_order_seen = self.counters.own_order_seen.saturating_add(1);
                self.outputs.push_back(Output::OwnOrderSeen(order));
            }
            return;
        }
        let is_newer = self.table.order(&origin).is_none_or(|held| order > held);
        let update = self.take_announce(now, inbound, &via);
        if update == Update::Rejected(Reject::Stale) && via.neighbour == origin {
            self.answer_stale(now, link, &origin);
        }
        self.apply(now, link, (origin, order), update, is_newer);
    }

    /// The way over a link to `origin`, with what was measured of it.
    fn via(&self, now: Instant, link: LinkId, origin: &Address) -> Option<Via> {
        let state = self.links.get(link)?;
        Some(Via {
            measure: self.ranking.measure(now, origin, &state.neighbour),
            is_young: state.is_young(now),
            account: state.account,
            ..Via::unmeasured(link, state.class, state.neighbour)
        })
    }

    /// Brings an announce into the table, and says where it brought a new key record.
    fn take_announce(&mut self, now: Instant, inbound: &Verified<InboundAnnounce>, via: &Via) -> Update {
        let origin = inbound.origin;
        let order_before = self.table.order(&origin);
        let update = self.table.update(now, inbound, via, &|to| self.ranking.is_active(now, to));
        self.counters.announce(update);
        for evicted in self.table.take_evicted() {
            self.counters.origins_evicted = self.counters.origins_evicted.saturating_add(1);
            self.refresh(evicted);
        }
        if self.table.order(&origin) != order_before {
            self.unsaved.insert(origin);
        }
        if let Some(record) = self.table.take_new_record() {
            self.unsaved.insert(origin);
            self.found_key_record(&record, true);
        }
        update
    }

    /// What follows from an announce, or from the offer of a way by one: whom to tell of it.
    fn apply(
        &mut self,
        now: Instant,
        link: LinkId,
        (origin, order): (Address, Order),
        update: Update,
        is_newer: bool,
    ) {
        if matches!(update, Update::Rejected(_)) {
            return;
        }
        let was_up = self.is_reachable(&origin);
        self.rerank(now, origin);
        // The path to a neighbour is up before its first announce says what it is.
        let is_constrained =
            || self.table.capabilities(&origin).is_some_and(|c| c.has(Capabilities::CONSTRAINED));
        if update == Update::Newer && was_up && is_constrained() {
            self.outputs.push_back(Output::RouteUp(origin));
        }
        // A way that is back before anybody was told that it was gone is no news.
        let is_unsaid = self.withdrawals.regained(&origin);
        // A copy to a neighbour that has it already costs airtime on a thin link. On others it is
        // another way for that neighbour, which it is in want of where somebody lies.
        if !is_newer && self.links.get(link).is_some_and(LinkState::is_thin) {
            self.floods.carried(&origin, link);
        }
        let goes_on = match update {
            Update::Newer => is_newer || !is_unsaid,
            // So far it came as a reply, which nobody passed on, or with a hop count that may have
            // ended it close by: nobody silences an origin by being faster.
            _ => self.paths.was_quiet(&origin, order) || self.table.was_raced(&origin),
        };
        if goes_on && self.config.relay {
            self.forget_askers(now, &origin);
            self.floods.flood(origin);
            if self.links.has_thin() {
                self.floods.flood_thin(now, origin);
            }
        } else {
            self.answer_askers(now, Some(link), &origin);
        }
        self.end_search(&origin);
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
        let asked = self.paths.take_fresh();
        if !asked.is_empty() {
            // Made for who asked: a flood of it would cost the whole mesh.
            for link in asked {
                self.outputs.push_back(Output::Control(link, Frame::PathReply(announce.clone())));
            }
            self.own_announce = Some(announce);
            return;
        }
        for link in self.links.ids() {
            self.outputs.push_back(Output::Control(link, Frame::Announce(announce.clone())));
        }
        self.own_announce = Some(announce);
    }

    fn on_timeout(&mut self, now: Instant) {
        for destination in self.table.expire(now) {
            self.refresh(destination);
        }
        self.wanted.retain(|_, wanted| wanted.until > now);
        self.kept.forget(now);
        self.continue_searches(now);
        if let Some(max_hops) = self.schedule.due(now, self.table.len()) {
            self.outputs.push_back(Output::AnnounceDue { max_hops });
        }
    }

    /// Passes announces on as far as the budget goes.
    fn send_announces(&mut self, now: Instant) {
        while let Some(send) = self.floods.next(now) {
            match send {
                Send::Flood(origin) => self.pass_on(origin, false, &[]),
                Send::FloodThin(origin, carried) => self.pass_on(origin, true, &carried),
                Send::Answer(origin) => self.answer_askers(now, None, &origin),
                Send::Page(link) => self.send_page(link),
            }
        }
    }

    /// Sends the newest announce of `origin` over all thin links or all others, but to nobody that
    /// brought it.
    fn pass_on(&mut self, origin: Address, thin: bool, carried: &[LinkId]) {
        let brought_it = self.table.links_of(&origin);
        let others = self.links.ids_where(|link, state| {
            let has_it = brought_it.contains(&link) || carried.contains(&link);
            state.is_thin() == thin && state.neighbour != origin && !has_it
        });
        if others.is_empty() {
            return;
        }
        let Some(announce) = self.table.announce_to_send(&origin) else { return };
        self.counters.announces_passed_on = self.counters.announces_passed_on.saturating_add(1);
        for link in others {
            self.outputs.push_back(Output::Control(link, Frame::Announce(announce.clone())));
        }
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
        let is_direct = self.links.peer_key(&destination).is_some();
        self.paths.set_suspect(destination, !is_direct && self.table.lacks_feasible(&destination));
        let is_up = hops.is_some();
        let was_up = self.table.set_in_use(destination, hops).is_some();
        match (was_up, is_up) {
            (false, true) => self.outputs.push_back(Output::RouteUp(destination)),
            (true, false) => self.outputs.push_back(Output::RouteDown(destination)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod paths_tests;
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
