//! The routing table: what verified announces say of the way to each node.
//!
//! An origin's announces are ordered by `(boot_epoch, sequence)`, never by time. The newest one
//! makes the route; copies of it over other links make alternatives, three at most, through
//! different neighbours. What was seen of an origin's order outlives its route by a day, so that an
//! old announce replayed later changes nothing.
//!
//! Hop counts are claims of neighbours: measured delivery ([`super::ranking`]) comes before them in
//! the order of ways, and is told to the table.
//!
//! The table has a fixed size, and each neighbour a share of it by the origins it brought first.
//! Where room is needed, what was unused longest gives way, and never a destination that packets
//! reach through this node. The order of what gave way is remembered in short.
//!
//! It is made for a million origins: an entry is 64 bytes beside the bytes of its announce
//! (`entry`), in chunks that never move (`slab`), found by hash (`index`) and walked in order
//! (`ordered`) through four bytes each; links and owners are numbers (`links`, `shares`). The links
//! that packets take stand in the hash index, so that a forwarding decision waits for memory once.

mod ends;
mod entry;
mod exchange;
mod index;
mod links;
mod ordered;
mod shares;
mod slab;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use hashlink::LruCache;

use crate::{
    crypto::VerifiedKeyRecord,
    wire::{Address, Announce, Capabilities, LinkId, PublicKey},
};

use super::{
    dedup::KeyedHasher,
    fib::Hops,
    ranking::{Measure, Standing},
    verify::{InboundAnnounce, Verified},
};

use ends::Ends;
use entry::{Entry, Route};
use index::{Index, Likely, Uses};
use links::{Carriers, NO_LINK, Way};
use ordered::Ordered;
use shares::Shares;
use slab::{Handle, Slab};

pub use shares::{SHARE_PERCENT, YOUNG_SHARE_PERCENT};

pub use exchange::{KnownInfo, Saved};

/// Next hops kept for one destination.
pub const NEXT_HOPS_MAX: usize = 3;

/// Oldest an announce may grow before its route ends, whatever lifetime it signs; constrained
/// origins announce seldom and get the lifetime they sign.
pub const ROUTE_AGE_MAX: Duration = Duration::from_secs(30 * 60);

/// How long an origin's order is remembered after it was last heard in an announce of its own.
pub const ORDER_MEMORY: Duration = Duration::from_secs(24 * 3600);

/// Origins remembered by default, under 100 bytes each beside the bytes of announce and key record
/// (`benches/route_memory.rs`).
pub const ORIGINS_MAX: usize = 131_072;

/// Orders kept of origins that gave way, about 80 bytes each: an old announce of one of the last so
/// many is still refused.
pub const FLOORS_MAX: usize = 65_536;

/// Whose share an origin is in that an earlier start brought, until a neighbour brings it: nobody's,
/// since no node may have the zero address.
const RESTORED: Address = Address([0; 16]);

/// The order of announces of one origin: boot epoch, then sequence.
pub type Order = (u32, u32);

/// What kind of medium a link runs over, the better first. Of two routes with the same hops the one
/// over the better link is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum LinkClass {
    /// IP.
    #[default]
    Unconstrained = 0,
    /// Slow IP, fast radio.
    Medium = 1,
    /// Radio.
    Constrained = 2,
    /// Radio at its slowest.
    SeverelyConstrained = 3,
}

/// One way to a destination. The order is that of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    /// How it delivered.
    pub standing: Standing,
    /// Known from an older announce alone: its neighbour did not bring the newest yet.
    pub is_older: bool,
    /// Medium of the first link.
    pub class: LinkClass,
    /// Time to the receipt in powers of four milliseconds; 0 where unknown.
    pub latency_class: u8,
    /// Links to the destination, as the neighbour claims, the first one counted.
    pub hops: u8,
    /// Another neighbour brought the announce before. Who brought it first did so over the fastest
    /// way there is, which no claim can imitate.
    pub is_later: bool,
    /// The first link.
    pub link: LinkId,
    /// Who is on its other end.
    pub neighbour: Address,
}

/// The link an announce came over.
#[derive(Debug, Clone, Copy)]
pub struct Via {
    /// Which link.
    pub link: LinkId,
    /// Its medium.
    pub class: LinkClass,
    /// The authenticated neighbour.
    pub neighbour: Address,
    /// What is known of the way to the announce's origin through that neighbour.
    pub measure: Measure,
    /// The neighbour came a short while ago, and gets a small share of the table.
    pub is_young: bool,
    /// Whose share that is: the neighbour's, or of all who come from its address.
    pub account: Address,
}

impl Via {
    /// A link to a neighbour of which nothing was measured, and which is no newcomer.
    pub fn unmeasured(link: LinkId, class: LinkClass, neighbour: Address) -> Self {
        Self { link, class, neighbour, measure: Measure::default(), is_young: false, account: neighbour }
    }

    /// The way over this link to somebody who is so many links away.
    fn hop(&self, hops: u8) -> NextHop {
        NextHop {
            standing: self.measure.standing,
            is_older: false,
            class: self.class,
            latency_class: self.measure.latency_class,
            hops,
            is_later: false,
            link: self.link,
            neighbour: self.neighbour,
        }
    }
}

/// What an announce changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// A newer announce, or the newest one again after its last way was lost: pass it on.
    Newer,
    /// Another way, or a better count over the same one.
    Alternative,
    /// Known already.
    Known,
    /// It did not get in.
    Rejected(Reject),
}

/// Why an announce changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// A newer one of the same origin was seen.
    Stale,
    /// It is as old as an announce may grow here.
    Expired,
    /// It has crossed all the links that its origin signed.
    HopLimit,
    /// It claims to come straight from its origin, over another node's link.
    NotTheOrigin,
    /// The table is full.
    TableFull,
    /// The neighbour's share of the table is full of destinations in use.
    ShareFull,
}

/// Why the first way of a route comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// There is no other.
    Alone,
    /// It delivers better, or the others were measured to fail.
    Delivery,
    /// The others may lead back here.
    Feasible,
    /// It runs over the better medium.
    Medium,
    /// Its receipts are faster.
    Latency,
    /// Its neighbour claims to be closer, or as close.
    ClaimedHops,
}

/// One destination, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// Where to.
    pub destination: Address,
    /// The ways, the best first; at least one.
    pub next_hops: Vec<NextHop>,
    /// Receipted packets in a thousand, for each of the ways; none before the first outcome.
    pub delivered_permille: Vec<Option<u16>>,
    /// Why the first one comes first.
    pub chosen: Chosen,
    /// Order of the announce.
    pub order: Order,
    /// What the destination offers.
    pub capabilities: Capabilities,
    /// How long the route still holds.
    pub expires_in: Duration,
}

/// The table.
#[derive(Debug)]
pub struct RoutingTable {
    slab: Slab,
    index: Index,
    ordered: Ordered,
    carriers: Carriers,
    shares: Shares,
    /// When the routes end: one element a routed origin.
    route_ends: Ends,
    /// When the other origins are forgotten: one element each.
    memory_ends: Ends,
    /// Links that packets to a neighbour take of which no announce is held.
    direct: HashMap<Address, Hops, KeyedHasher>,
    /// Entries whose packets take a link.
    used: usize,
    /// Order, lowest claim and end of memory of origins that gave way.
    floors: LruCache<Address, (Order, Option<u8>, Instant)>,
    /// Origins that gave way since the last [`RoutingTable::take_evicted`].
    evicted: Vec<Address>,
    /// The key record that the last announce brought, where it was news.
    new_record: Option<VerifiedKeyRecord>,
    /// The start of the table's clock.
    began: Instant,
    origins_max: usize,
}

impl RoutingTable {
    /// An empty table of at most `origins_max` origins, those with a remembered order included.
    /// `seed` is random, so that nobody can choose addresses that collide in it.
    pub fn new(now: Instant, seed: u64, origins_max: usize) -> Self {
        Self {
            slab: Slab::default(),
            index: Index::new(seed),
            ordered: Ordered::default(),
            carriers: Carriers::default(),
            shares: Shares::default(),
            route_ends: Ends::default(),
            memory_ends: Ends::default(),
            direct: HashMap::with_hasher(KeyedHasher::new(seed.rotate_left(7))),
            used: 0,
            floors: LruCache::new(FLOORS_MAX),
            evicted: Vec::new(),
            new_record: None,
            began: now,
            origins_max: origins_max.max(1),
        }
    }

    /// Takes an announce that came over `via`. Where room has to be made, `is_active` says which
    /// destinations are in use and stay.
    pub fn update(
        &mut self,
        now: Instant,
        inbound: &Verified<InboundAnnounce>,
        via: &Via,
        is_active: &dyn Fn(&Address) -> bool,
    ) -> Update {
        let announce = &inbound.announce;
        let content = &announce.content;
        let origin = inbound.origin;
        if announce.hop_count == 0 && via.neighbour != origin {
            return Update::Rejected(Reject::NotTheOrigin);
        }
        let hops = match announce.hop_count.checked_add(1) {
            Some(hops) if hops <= content.max_hops => hops,
            _ => return Update::Rejected(Reject::HopLimit),
        };
        let hop = via.hop(hops);

        let held = self.find(&origin);
        if let Some((handle, entry)) = held {
            if content.order() < entry.order {
                return Update::Rejected(Reject::Stale);
            }
            if content.order() == entry.order {
                if now >= self.instant(entry.ends_s) {
                    return Update::Rejected(Reject::Expired);
                }
                self.learn(handle, inbound);
                return self.add_way(handle, hop);
            }
        } else {
            let floor = self.floors.peek(&origin).filter(|(_, _, until)| *until > now);
            if floor.is_some_and(|(order, ..)| content.order() < *order) {
                return Update::Rejected(Reject::Stale);
            }
            if let Err(reject) = self.make_room(via, is_active) {
                return Update::Rejected(reject);
            }
        }
        match self.replace(now, inbound, hop, via.account) {
            Some(()) => Update::Newer,
            None => Update::Rejected(Reject::TableFull),
        }
    }

    /// Takes a key record on its own. True where it is the newest of an origin in the table.
    pub fn update_key_record(&mut self, record: &VerifiedKeyRecord) -> bool {
        self.find_mut(&record.address()).is_some_and(|entry| entry.take_record(record))
    }

    /// Takes every route over `link` out; gives the destinations whose ways changed.
    pub fn link_down(&mut self, link: LinkId) -> Vec<Address> {
        let handles = self.carriers.routes_over(link);
        for handle in &handles {
            self.change_route(*handle, |route| {
                route.as_mut().is_some_and(|r| {
                    r.next_hops.retain(|hop| hop.link != link);
                    !r.next_hops.is_empty()
                })
            });
        }
        let addresses = handles.into_iter().filter_map(|handle| self.slab.get(handle)).map(|e| e.address);
        let mut affected: Vec<_> = addresses.collect();
        affected.sort_unstable();
        affected
    }

    /// Ends the routes whose announce is too old and forgets origins not heard for a day; gives
    /// the destinations that lost their route.
    pub fn expire(&mut self, now: Instant) -> Vec<Address> {
        let mut lost = Vec::new();
        while let Some((at_s, handle)) =
            self.route_ends.first().filter(|(at_s, _)| self.instant(*at_s) <= now)
        {
            self.change_route(handle, |_| false);
            // Whatever else, this loop has an end.
            self.route_ends.remove(at_s, handle);
            lost.extend(self.slab.get(handle).map(|entry| entry.address));
        }
        while let Some((at_s, handle)) =
            self.memory_ends.first().filter(|(at_s, _)| self.instant(*at_s) <= now)
        {
            self.memory_ends.remove(at_s, handle);
            self.forget(handle);
        }
        lost
    }

    /// When to call [`RoutingTable::expire`]: to the second, and never early.
    pub fn next_wake(&self) -> Option<Instant> {
        let ends = [self.route_ends.first(), self.memory_ends.first()];
        ends.into_iter().flatten().map(|(at_s, _)| self.instant(at_s)).min()
    }

    /// The links to a destination for the forwarding decision: the best way, and the best one over
    /// another link. One that fails is no second to one that does not: what came over the first is
    /// then better refused, for its sender may know another way.
    pub fn hops(&self, destination: &Address) -> Option<Hops> {
        let mut ways = self.ways(destination);
        let first = ways.next()?;
        let is_second = |hop: &NextHop| {
            hop.link != first.link && (first.standing.is_demoted() || !hop.standing.is_demoted())
        };
        Some(Hops { first: first.link, second: ways.find(is_second).map(|hop| hop.link) })
    }

    /// The links that packets to a destination take, as they were set last.
    pub fn in_use(&self, destination: &Address) -> Option<Hops> {
        match self.index.find(&self.slab, destination) {
            Some((_, uses)) => self.links_of_uses(uses),
            None => self.direct.get(destination).copied(),
        }
    }

    /// The same for a forwarding decision, at the cost of one wait for memory in a large table: of
    /// an address that is in no announce held here it may say what it says of another one, about
    /// four times in a million at a million routes (see `index`). A packet to it then meets a neighbour
    /// that knows no way instead of this node, which knows none.
    pub fn likely_in_use(&self, destination: &Address) -> Option<Hops> {
        self.told(destination, self.index.likely(destination))
    }

    /// The same for many destinations, in their order: their waits overlap.
    pub fn each_likely_in_use(&self, destinations: &[Address], in_use: &mut Vec<Option<Hops>>) {
        self.index.each_likely(destinations, |to, likely| in_use.push(self.told(to, likely)));
    }

    fn told(&self, destination: &Address, likely: Likely) -> Option<Hops> {
        match likely {
            Likely::Uses(uses) => self.links_of_uses(uses),
            Likely::Absent => self.direct.get(destination).copied(),
            Likely::Ambiguous => self.in_use(destination),
        }
    }

    fn links_of_uses(&self, [first, second]: Uses) -> Option<Hops> {
        Some(Hops { first: self.carriers.link(first)?, second: self.carriers.link(second) })
    }

    /// Sets the links that packets to a destination take, or that there are none; gives what was
    /// set before.
    pub fn set_in_use(&mut self, destination: Address, hops: Option<Hops>) -> Option<Hops> {
        let Some((_, old)) = self.index.find(&self.slab, &destination) else {
            return match hops {
                Some(hops) => self.direct.insert(destination, hops),
                None => self.direct.remove(&destination),
            };
        };
        let before = self.links_of_uses(old);
        if before == hops {
            return before;
        }
        let links = hops.map_or([None; 2], |hops| [Some(hops.first), hops.second]);
        let new =
            links.map(|link| link.and_then(|link| self.carriers.number_of_link(link)).unwrap_or(NO_LINK));
        // The new ones first, so that no number is given up and taken again.
        new.into_iter().for_each(|number| self.carriers.add_user(number));
        old.into_iter().for_each(|number| self.carriers.remove_user(number));
        self.index.set_uses(&self.slab, &destination, new);
        let [is_used, was_used] = [new, old].map(|[first, _]| usize::from(first != NO_LINK));
        self.used = self.used.saturating_add(is_used).saturating_sub(was_used);
        before
    }

    /// Destinations whose packets take a link.
    pub fn reachable(&self) -> usize {
        self.used.saturating_add(self.direct.len())
    }

    /// The ways to a destination, the best first.
    pub fn ways(&self, destination: &Address) -> impl Iterator<Item = NextHop> + use<> {
        let entry = self.find(destination).map(|(_, entry)| entry);
        entry.map(|entry| entry.ways(&self.carriers)).into_iter().flatten()
    }

    /// Orders the ways to a destination by what `measure` says of each neighbour.
    pub fn measured(&mut self, destination: &Address, measure: impl Fn(&Address) -> Measure) {
        let Some((handle, entry)) = self.find(destination).filter(|(_, entry)| entry.is_routed()) else {
            return;
        };
        let mut ways = entry.ways.map(|way| {
            let mut hop = way.hop(&self.carriers)?;
            let measure = measure(&hop.neighbour);
            hop.standing = measure.standing;
            hop.latency_class = measure.latency_class;
            Some((hop, Way::new(way.number(), &hop)))
        });
        // What is not there comes last; no way changes its link, so nothing else has to.
        ways.sort_unstable_by_key(|way| (way.is_none(), way.map(|(hop, _)| hop)));
        if let Some(entry) = self.slab.get_mut(handle) {
            entry.ways = ways.map(|way| way.map_or_else(Way::default, |(_, way)| way));
        }
    }

    /// True for a way of a destination that cannot lead back here.
    pub fn is_feasible(&self, destination: &Address, hop: &NextHop) -> bool {
        self.find(destination).is_some_and(|(_, entry)| entry.is_feasible(hop))
    }

    /// True where there are ways to a destination and each may lead back here, as far as claims
    /// say: its origin should be asked for a newer announce.
    pub fn lacks_feasible(&self, destination: &Address) -> bool {
        let routed = self.find(destination).filter(|(_, entry)| entry.is_routed());
        routed.is_some_and(|(_, e)| !e.ways(&self.carriers).any(|hop| e.is_feasible(&hop)))
    }

    /// The key record that came with an announce since the last call and was newer than the one held.
    pub fn take_new_record(&mut self) -> Option<VerifiedKeyRecord> {
        self.new_record.take()
    }

    /// Origins that gave way to others since the last call; their routes are gone.
    pub fn take_evicted(&mut self) -> Vec<Address> {
        std::mem::take(&mut self.evicted)
    }

    /// The newest announce of `origin` as it goes on from here, while its route holds: with the hop
    /// count of the way in use, and the key record it names where that is here. None where it may
    /// cross no other link, or that way may lead back here: what is used for want of a better is not
    /// praised. From then on that hop count is what this node is known to claim.
    pub fn announce_to_send(&mut self, origin: &Address) -> Option<Announce> {
        let (handle, entry) = self.find(origin)?;
        let hops = entry.ways(&self.carriers).next().filter(|hop| entry.is_feasible(hop))?.hops;
        let mut announce = entry.announce_and_record()?;
        // At the limit too: all that can be said is said.
        self.slab.get_mut(handle)?.claim(hops);
        if hops >= announce.content.max_hops {
            return None;
        }
        announce.hop_count = hops;
        Some(announce)
    }

    /// True where the newest announce of `origin` was told with so much of its hop limit behind it,
    /// compared with the best way there is by now, that it may have ended short of where it can go:
    /// somebody raced it with a high hop count. False again once it was told anew.
    pub fn was_raced(&self, origin: &Address) -> bool {
        let Some((_, entry)) = self.find(origin) else { return false };
        let best = entry.ways(&self.carriers).next().filter(|hop| entry.is_feasible(hop)).map(|hop| hop.hops);
        let (Some(best), Some(told)) = (best, entry.claimed_hops()) else { return false };
        let twice = |hops: u8| u16::from(hops).saturating_mul(2);
        // The signed limit is looked up last: it has to be read out of the announce.
        twice(best) <= u16::from(told)
            && entry.announce().is_some_and(|announce| twice(told) > u16::from(announce.content.max_hops))
    }

    /// The newest announce of `origin` within the last day, routed or not: for the origin itself,
    /// which learns its own order from it.
    pub fn announce_held(&self, origin: &Address) -> Option<Announce> {
        let (_, entry) = self.find(origin)?;
        let mut announce = entry.announce()?;
        announce.hop_count = entry.ways(&self.carriers).next().map_or(1, |hop| hop.hops);
        Some(announce)
    }

    /// The links over which the newest announce of `origin` came.
    pub fn links_of(&self, origin: &Address) -> Vec<LinkId> {
        self.ways(origin).filter(|hop| !hop.is_older).map(|hop| hop.link).collect()
    }

    /// The order of the newest announce of `origin` within the last day.
    pub fn order(&self, origin: &Address) -> Option<Order> {
        self.find(origin).map(|(_, entry)| entry.order)
    }

    /// What a destination offers, while its route holds.
    pub fn capabilities(&self, destination: &Address) -> Option<Capabilities> {
        let (_, entry) = self.find(destination).filter(|(_, entry)| entry.is_routed())?;
        entry.announce().map(|announce| announce.content.capabilities)
    }

    /// The public key of an origin that was heard within the last day.
    pub fn public_key(&self, origin: &Address) -> Option<PublicKey> {
        self.find(origin)?.1.announce().map(|announce| announce.content.public_key)
    }

    /// The newest key record of an origin that was heard within the last day.
    pub fn key_record(&self, origin: &Address) -> Option<VerifiedKeyRecord> {
        self.find(origin)?.1.record()
    }

    /// The routes, by destination.
    pub fn iter(&self, now: Instant) -> impl Iterator<Item = RouteInfo> + '_ {
        self.iter_from(now, &Address([0; Address::LEN]))
    }

    /// The same from a destination on.
    pub fn iter_from(&self, now: Instant, from: &Address) -> impl Iterator<Item = RouteInfo> + '_ {
        let entries = self.ordered.from(&self.slab, from).filter_map(|handle| self.slab.get(handle));
        entries.filter(|entry| entry.is_routed()).map(move |entry| {
            let next_hops: Vec<NextHop> = entry.ways(&self.carriers).collect();
            let capabilities = entry.announce().map(|announce| announce.content.capabilities);
            RouteInfo {
                destination: entry.address,
                delivered_permille: vec![None; next_hops.len()],
                chosen: chosen(entry, &next_hops),
                next_hops,
                order: entry.order,
                capabilities: capabilities.unwrap_or_default(),
                expires_in: self.instant(entry.ends_s).saturating_duration_since(now),
            }
        })
    }

    /// The first routed destination after `cursor`, to walk the table in pages.
    pub fn next_destination(&self, cursor: Option<Address>) -> Option<Address> {
        let entry = |handle| self.slab.get(handle).filter(|entry: &&Entry| entry.is_routed());
        let found = match cursor {
            Some(cursor) => self.ordered.after(&self.slab, &cursor).find_map(entry),
            None => self.ordered.iter().find_map(entry),
        };
        found.map(|entry| entry.address)
    }

    /// Destinations with a route.
    pub fn len(&self) -> usize {
        self.route_ends.len()
    }

    /// True where there is no route.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Origins remembered, with or without a route.
    pub fn origins(&self) -> usize {
        self.slab.len()
    }

    fn find(&self, address: &Address) -> Option<(Handle, &Entry)> {
        let (handle, _) = self.index.find(&self.slab, address)?;
        Some((handle, self.slab.get(handle)?))
    }

    fn find_mut(&mut self, address: &Address) -> Option<&mut Entry> {
        let (handle, _) = self.index.find(&self.slab, address)?;
        self.slab.get_mut(handle)
    }

    /// The first second of the table's clock at which `at` is over.
    fn second(&self, at: Instant) -> u32 {
        let since = at.saturating_duration_since(self.began);
        let part = u64::from(since.subsec_nanos() > 0);
        u32::try_from(since.as_secs().saturating_add(part)).unwrap_or(u32::MAX)
    }

    /// When a second of the table's clock begins.
    fn instant(&self, second: u32) -> Instant {
        self.began + Duration::from_secs(u64::from(second))
    }

    /// Another way by the announce that is held.
    fn add_way(&mut self, handle: Handle, hop: NextHop) -> Update {
        let Some(entry) = self.slab.get(handle) else { return Update::Known };
        let is_feasible = entry.is_feasible(&hop);
        let hop = NextHop { is_later: true, ..hop };
        let mut update = Update::Known;
        self.change_route(handle, |route| {
            match route {
                Some(route) => {
                    let before = route.next_hops.clone();
                    route.add(hop);
                    if route.next_hops != before {
                        update = Update::Alternative;
                    }
                }
                None => {
                    *route = Some(Route::renewed(None, hop));
                    // A way that may lead back here is used for want of a better, and not praised.
                    update = if is_feasible { Update::Newer } else { Update::Alternative };
                }
            }
            true
        });
        update
    }

    /// A newer announce takes the place of what was known of its origin; none where no number was
    /// left for it.
    fn replace(
        &mut self,
        now: Instant,
        inbound: &Verified<InboundAnnounce>,
        hop: NextHop,
        owner: Address,
    ) -> Option<()> {
        let content = &inbound.announce.content;
        let lifetime = Duration::from_secs(u64::from(content.lifetime_s));
        let is_constrained = content.capabilities.has(Capabilities::CONSTRAINED);
        let age_max = if is_constrained { lifetime } else { lifetime.min(ROUTE_AGE_MAX) };
        let (handle, old_route) = self.hold(now, inbound, age_max, owner)?;
        self.change_route(handle, |route| {
            *route = Some(Route::renewed(old_route, hop));
            true
        });
        Some(())
    }

    /// Holds a newer announce, which ends in `ends_in`, and gives the route that there was: the
    /// entry has none now.
    fn hold(
        &mut self,
        now: Instant,
        inbound: &Verified<InboundAnnounce>,
        ends_in: Duration,
        owner: Address,
    ) -> Option<(Handle, Option<Route>)> {
        let origin = inbound.origin;
        let order = inbound.announce.content.order();
        let ends_s = self.second(now + ends_in);
        let handle = match self.find(&origin).map(|(handle, entry)| (handle, entry.owner)) {
            Some((handle, number)) => {
                // Who brings it first after a start has it in his share.
                if self.shares.owner(number) == Some(RESTORED) && owner != RESTORED {
                    let number = self.move_share(handle, number, owner)?;
                    self.slab.get_mut(handle)?.owner = number;
                }
                handle
            }
            None => self.admit(Entry::new(origin, order, &inbound.announce), owner)?,
        };
        let mut old_route = None;
        self.change_route(handle, |route| {
            old_route = route.take();
            false
        });
        // What this node claimed by the same announce before it gave way still holds.
        let floor = self.floors.remove(&origin).filter(|(held, ..)| *held == order);
        let entry = self.slab.get_mut(handle)?;
        self.memory_ends.remove(memory_end(entry.ends_s), handle);
        entry.renew(order, &inbound.announce);
        entry.ends_s = ends_s;
        if let Some(claimed) = floor.and_then(|(_, claimed, _)| claimed) {
            entry.claim(claimed);
        }
        self.learn(handle, inbound);
        self.memory_ends.insert(memory_end(ends_s), handle);
        Some((handle, old_route))
    }

    /// Keeps the key record that an announce came with, where it is newer.
    fn learn(&mut self, handle: Handle, inbound: &Verified<InboundAnnounce>) {
        let Some(record) = &inbound.key_record else { return };
        if self.slab.get_mut(handle).is_some_and(|entry| entry.take_record(record)) {
            self.new_record = Some(record.clone());
        }
    }

    /// Takes a new entry into a share and the indexes. Whatever links packets to it take already
    /// stay in use.
    fn admit(&mut self, entry: Entry, owner: Address) -> Option<Handle> {
        let (address, ends_s) = (entry.address, entry.ends_s);
        let handle = self.slab.insert(entry)?;
        let Some(number) = self.shares.add(owner, handle) else {
            self.slab.remove(handle);
            return None;
        };
        if let Some(entry) = self.slab.get_mut(handle) {
            entry.owner = number;
        }
        let in_use = self.direct.remove(&address);
        self.index.insert(&address, handle);
        self.ordered.insert(&self.slab, address, handle);
        self.memory_ends.insert(memory_end(ends_s), handle);
        if in_use.is_some() {
            self.set_in_use(address, in_use);
        }
        Some(handle)
    }

    fn move_share(&mut self, handle: Handle, from: u16, to: Address) -> Option<u16> {
        let number = self.shares.add(to, handle)?;
        self.shares.remove(from, handle);
        Some(number)
    }

    /// The one place where routes change: `change` says whether the route stays, and the indexes
    /// follow.
    fn change_route(&mut self, handle: Handle, change: impl FnOnce(&mut Option<Route>) -> bool) {
        let Some(entry) = self.slab.get(handle) else { return };
        let (before, ends_s) = (entry.ways, entry.ends_s);
        let next_hops: Vec<_> = before.iter().filter_map(|way| way.hop(&self.carriers)).collect();
        let mut route = (!next_hops.is_empty()).then_some(Route { next_hops });
        if !change(&mut route) {
            route = None;
        }
        let mut after = [Way::default(); NEXT_HOPS_MAX];
        for (slot, hop) in after.iter_mut().zip(route.iter().flat_map(|route| &route.next_hops)) {
            // Where no number is left there is no such way.
            let number = self.carriers.number(hop).unwrap_or(NO_LINK);
            *slot = Way::new(number, hop);
            self.carriers.add_route(number, handle);
        }
        for way in before {
            if !after.iter().any(|after| after.number() == way.number()) {
                self.carriers.remove_route(way.number(), handle);
            }
        }
        let Some(entry) = self.slab.get_mut(handle) else { return };
        entry.ways = after;
        if entry.is_routed() {
            self.memory_ends.remove(memory_end(ends_s), handle);
            self.route_ends.insert(ends_s, handle);
        } else {
            self.route_ends.remove(ends_s, handle);
            self.memory_ends.insert(memory_end(ends_s), handle);
        }
    }

    /// Makes room for one more origin that `via` brings: in its own share where that is full, else
    /// where an order would be forgotten next, else with the neighbour that has most.
    fn make_room(&mut self, via: &Via, is_active: &dyn Fn(&Address) -> bool) -> Result<(), Reject> {
        let percent = if via.is_young { YOUNG_SHARE_PERCENT } else { SHARE_PERCENT };
        let share_max = (self.origins_max.saturating_mul(percent) / 100).max(1);
        let own = self.shares.of(&via.account);
        if own >= share_max {
            let has_room = self.evict_of(&via.account, is_active);
            return if has_room { Ok(()) } else { Err(Reject::ShareFull) };
        }
        if !self.shares.has_room_for(&via.account) {
            return Err(Reject::TableFull);
        }
        if self.slab.len() < self.origins_max {
            return Ok(());
        }
        if let Some((_, handle)) = self.memory_ends.first() {
            self.evict(handle);
            return Ok(());
        }
        match self.shares.largest() {
            // Where one has as much as another, nobody gains by taking turns.
            Some((owner, most)) if most > own.saturating_add(1) && self.evict_of(&owner, is_active) => Ok(()),
            _ => Err(Reject::TableFull),
        }
    }

    /// Lets the longest unused entry of a share give way; those in use are spared for a round.
    fn evict_of(&mut self, owner: &Address, is_active: &dyn Fn(&Address) -> bool) -> bool {
        for handle in self.shares.first_of(owner) {
            self.shares.passed(owner, handle);
            if self.slab.get(handle).is_some_and(|entry| !is_active(&entry.address)) {
                self.evict(handle);
                return true;
            }
        }
        false
    }

    fn evict(&mut self, handle: Handle) {
        self.change_route(handle, |_| false);
        let Some(entry) = self.slab.get(handle) else { return };
        let (origin, order, claimed, ends_s) =
            (entry.address, entry.order, entry.claimed_hops(), entry.ends_s);
        self.memory_ends.remove(memory_end(ends_s), handle);
        let remembered_until = self.instant(memory_end(ends_s));
        self.forget(handle);
        self.floors.insert(origin, (order, claimed, remembered_until));
        self.evicted.push(origin);
    }

    /// Takes an entry without a route, and whose end is taken out already, out of the rest. The
    /// links that packets to it take stay in use until the caller says otherwise.
    fn forget(&mut self, handle: Handle) {
        let Some(entry) = self.slab.get(handle) else { return };
        let (address, owner) = (entry.address, entry.owner);
        let in_use = self.set_in_use(address, None);
        self.shares.remove(owner, handle);
        self.index.remove(&self.slab, &address);
        self.ordered.remove(&self.slab, &address);
        self.slab.remove(handle);
        self.direct.extend(in_use.map(|hops| (address, hops)));
    }
}

/// When the order of an announce that ends then is forgotten.
fn memory_end(ends_s: u32) -> u32 {
    ends_s.saturating_add(ORDER_MEMORY.as_secs() as u32)
}

/// Why the first of the ways comes first.
fn chosen(entry: &Entry, ways: &[NextHop]) -> Chosen {
    match ways {
        [first, second, ..] if first.standing.is_demoted() != second.standing.is_demoted() => {
            Chosen::Delivery
        }
        [first, second, ..] if entry.is_feasible(first) != entry.is_feasible(second) => Chosen::Feasible,
        [first, second, ..] if first.standing != second.standing => Chosen::Delivery,
        [first, second, ..] if first.class != second.class => Chosen::Medium,
        [first, second, ..] if first.latency_class != second.latency_class => Chosen::Latency,
        [_, _, ..] => Chosen::ClaimedHops,
        _ => Chosen::Alone,
    }
}

#[cfg(any(test, feature = "testing"))]
pub(crate) mod model;
#[cfg(test)]
mod tests;
