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

mod entry;
mod exchange;
mod shares;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    crypto::VerifiedKeyRecord,
    wire::{Address, Announce, Capabilities, Frame, LinkId, PublicKey},
};

use hashlink::LruCache;

use super::{
    fib::Hops,
    ranking::{Measure, Standing},
    verify::{InboundAnnounce, Verified},
};

use entry::{Entry, Route};
use shares::Shares;

pub use shares::{SHARE_PERCENT, YOUNG_SHARE_PERCENT};

pub use exchange::{KnownInfo, Saved};

/// Next hops kept for one destination.
pub const NEXT_HOPS_MAX: usize = 3;

/// Oldest an announce may grow before its route ends, whatever lifetime it signs; constrained
/// origins announce seldom and get the lifetime they sign.
pub const ROUTE_AGE_MAX: Duration = Duration::from_secs(30 * 60);

/// How long an origin's order is remembered after it was last heard in an announce of its own.
pub const ORDER_MEMORY: Duration = Duration::from_secs(24 * 3600);

/// Origins remembered by default, about 600 bytes each with a route.
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
}

impl Via {
    /// A link to a neighbour of which nothing was measured, and which is no newcomer.
    pub fn unmeasured(link: LinkId, class: LinkClass, neighbour: Address) -> Self {
        Self { link, class, neighbour, measure: Measure::default(), is_young: false }
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

/// The table. Addresses in order, so that a dump of it reads the same everywhere.
#[derive(Debug)]
pub struct RoutingTable {
    entries: BTreeMap<Address, Entry>,
    by_link: BTreeMap<LinkId, BTreeSet<Address>>,
    /// When the routes end: one element a routed origin.
    route_ends: BTreeSet<(Instant, Address)>,
    /// When the other origins are forgotten: one element each.
    memory_ends: BTreeSet<(Instant, Address)>,
    shares: Shares,
    /// Order, lowest claim and end of memory of origins that gave way.
    floors: LruCache<Address, (Order, Option<u8>, Instant)>,
    /// Origins that gave way since the last [`RoutingTable::take_evicted`].
    evicted: Vec<Address>,
    origins_max: usize,
}

impl RoutingTable {
    /// An empty table of at most `origins_max` origins, those with a remembered order included.
    pub fn new(origins_max: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            by_link: BTreeMap::new(),
            route_ends: BTreeSet::new(),
            memory_ends: BTreeSet::new(),
            shares: Shares::default(),
            floors: LruCache::new(FLOORS_MAX),
            evicted: Vec::new(),
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

        if let Some(entry) = self.entries.get(&origin) {
            if content.order() < entry.order {
                return Update::Rejected(Reject::Stale);
            }
            if content.order() == entry.order {
                if now >= entry.announce_ends {
                    return Update::Rejected(Reject::Expired);
                }
                return self.another_way(inbound, hop);
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
        self.replace(now, inbound, hop);
        Update::Newer
    }

    /// Takes a key record on its own. True where it is the newest of an origin in the table.
    pub fn update_key_record(&mut self, record: &VerifiedKeyRecord) -> bool {
        self.entries.get_mut(&record.address()).is_some_and(|entry| entry.take_record(record))
    }

    /// Takes every route over `link` out; gives the destinations whose ways changed.
    pub fn link_down(&mut self, link: LinkId) -> Vec<Address> {
        let affected = self.by_link.get(&link).cloned().unwrap_or_default();
        for destination in &affected {
            self.change_route(destination, |route| {
                route.as_mut().is_some_and(|r| {
                    r.next_hops.retain(|hop| hop.link != link);
                    !r.next_hops.is_empty()
                })
            });
        }
        affected.into_iter().collect()
    }

    /// Ends the routes whose announce is too old and forgets origins not heard for a day; gives
    /// the destinations that lost their route.
    pub fn expire(&mut self, now: Instant) -> Vec<Address> {
        let mut lost = Vec::new();
        while let Some((_, origin)) = self.route_ends.first().copied().filter(|(at, _)| *at <= now) {
            self.change_route(&origin, |_| false);
            lost.push(origin);
        }
        while let Some(end) = self.memory_ends.first().copied().filter(|(at, _)| *at <= now) {
            self.memory_ends.remove(&end);
            if let Some(entry) = self.entries.remove(&end.1) {
                self.shares.remove(&entry.owner, entry.tick, end.1);
            }
        }
        lost
    }

    /// When to call [`RoutingTable::expire`].
    pub fn next_wake(&self) -> Option<Instant> {
        let ends = [self.route_ends.first(), self.memory_ends.first()];
        ends.into_iter().flatten().map(|(at, _)| *at).min()
    }

    /// The links to a destination for the forwarding table: the best way, and the best one over
    /// another link. One that fails is no second to one that does not: what came over the first is
    /// then better refused, for its sender may know another way.
    pub fn hops(&self, destination: &Address) -> Option<Hops> {
        let mut ways = self.entries.get(destination)?.ways();
        let first = ways.next()?;
        let is_second = |hop: &&NextHop| {
            hop.link != first.link && (first.standing.is_demoted() || !hop.standing.is_demoted())
        };
        Some(Hops { first: first.link, second: ways.find(is_second).map(|hop| hop.link) })
    }

    /// The ways to a destination, the best first.
    pub fn ways(&self, destination: &Address) -> impl Iterator<Item = &NextHop> {
        self.entries.get(destination).into_iter().flat_map(Entry::ways)
    }

    /// Orders the ways to a destination by what `measure` says of each neighbour.
    pub fn measured(&mut self, destination: &Address, measure: impl Fn(&Address) -> Measure) {
        let Some(route) = self.entries.get_mut(destination).and_then(|entry| entry.route.as_mut()) else {
            return;
        };
        for hop in &mut route.next_hops {
            let measure = measure(&hop.neighbour);
            hop.standing = measure.standing;
            hop.latency_class = measure.latency_class;
        }
        route.next_hops.sort_unstable();
    }

    /// True for a way of a destination that cannot lead back here.
    pub fn is_feasible(&self, destination: &Address, hop: &NextHop) -> bool {
        self.entries.get(destination).is_some_and(|entry| entry.is_feasible(hop))
    }

    /// True where there are ways to a destination and each may lead back here, as far as claims
    /// say: its origin should be asked for a newer announce.
    pub fn lacks_feasible(&self, destination: &Address) -> bool {
        let entry = self.entries.get(destination);
        entry.is_some_and(|e| e.route.is_some() && !e.ways().any(|hop| e.is_feasible(hop)))
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
        let entry = self.entries.get_mut(origin)?;
        let hops = entry.ways().next().filter(|hop| entry.is_feasible(hop))?.hops;
        let mut announce = held_announce(&entry.announce)?;
        if hops >= announce.content.max_hops {
            return None;
        }
        entry.claimed_hops = Some(entry.claimed_hops.map_or(hops, |before| before.min(hops)));
        announce.hop_count = hops;
        let named = announce.content.key_record_hash;
        let record = entry.record.as_ref().filter(|record| named == Some(record.hash8()));
        announce.key_record = record.map(|record| record.signed().clone());
        Some(announce)
    }

    /// The newest announce of `origin` within the last day, routed or not: for the origin itself,
    /// which learns its own order from it.
    pub fn announce_held(&self, origin: &Address) -> Option<Announce> {
        let entry = self.entries.get(origin)?;
        let mut announce = held_announce(&entry.announce)?;
        announce.hop_count = entry.ways().next().map_or(1, |hop| hop.hops);
        Some(announce)
    }

    /// The links over which the newest announce of `origin` came.
    pub fn links_of(&self, origin: &Address) -> Vec<LinkId> {
        let hops = self.entries.get(origin).into_iter().flat_map(Entry::ways);
        hops.filter(|hop| !hop.is_older).map(|hop| hop.link).collect()
    }

    /// The order of the newest announce of `origin` within the last day.
    pub fn order(&self, origin: &Address) -> Option<Order> {
        self.entries.get(origin).map(|entry| entry.order)
    }

    /// What a destination offers, while its route holds.
    pub fn capabilities(&self, destination: &Address) -> Option<Capabilities> {
        let entry = self.entries.get(destination).filter(|entry| entry.route.is_some())?;
        Some(entry.capabilities)
    }

    /// The public key of an origin that was heard within the last day.
    pub fn public_key(&self, origin: &Address) -> Option<PublicKey> {
        self.entries.get(origin).map(|entry| entry.public_key)
    }

    /// The newest key record of an origin that was heard within the last day.
    pub fn key_record(&self, origin: &Address) -> Option<&VerifiedKeyRecord> {
        self.entries.get(origin)?.record.as_ref()
    }

    /// The routes, by destination.
    pub fn iter(&self, now: Instant) -> impl Iterator<Item = RouteInfo> + '_ {
        self.entries.iter().filter_map(move |(destination, entry)| {
            entry.route.as_ref()?;
            let next_hops: Vec<NextHop> = entry.ways().copied().collect();
            Some(RouteInfo {
                destination: *destination,
                delivered_permille: vec![None; next_hops.len()],
                chosen: chosen(entry, &next_hops),
                next_hops,
                order: entry.order,
                capabilities: entry.capabilities,
                expires_in: entry.announce_ends.saturating_duration_since(now),
            })
        })
    }

    /// The first routed destination after `cursor`, to walk the table in pages.
    pub fn next_destination(&self, cursor: Option<Address>) -> Option<Address> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = cursor.map_or(Unbounded, Excluded);
        let mut rest = self.entries.range((from, Unbounded));
        rest.find(|(_, entry)| entry.route.is_some()).map(|(destination, _)| *destination)
    }

    /// Destinations with a route.
    pub fn len(&self) -> usize {
        self.route_ends.len()
    }

    /// True where there is no route.
    pub fn is_empty(&self) -> bool {
        self.route_ends.is_empty()
    }

    /// Origins remembered, with or without a route.
    pub fn origins(&self) -> usize {
        self.entries.len()
    }

    /// The newest announce came again.
    fn another_way(&mut self, inbound: &Verified<InboundAnnounce>, hop: NextHop) -> Update {
        let origin = inbound.origin;
        let Some(entry) = self.entries.get_mut(&origin) else { return Update::Known };
        if let Some(record) = &inbound.key_record {
            entry.take_record(record);
        }
        self.add_way(origin, hop)
    }

    /// Another way by the announce that is held.
    fn add_way(&mut self, origin: Address, hop: NextHop) -> Update {
        let Some(entry) = self.entries.get(&origin) else { return Update::Known };
        let is_feasible = entry.is_feasible(&hop);
        let hop = NextHop { is_later: true, ..hop };
        let mut update = Update::Known;
        self.change_route(&origin, |route| {
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

    /// A newer announce takes the place of what was known of its origin.
    fn replace(&mut self, now: Instant, inbound: &Verified<InboundAnnounce>, hop: NextHop) {
        let origin = inbound.origin;
        let mut old_route = None;
        self.change_route(&origin, |route| {
            old_route = route.take();
            false
        });
        let content = &inbound.announce.content;
        let lifetime = Duration::from_secs(u64::from(content.lifetime_s));
        let is_constrained = content.capabilities.has(Capabilities::CONSTRAINED);
        let age_max = if is_constrained { lifetime } else { lifetime.min(ROUTE_AGE_MAX) };
        let announce_ends = now + age_max;
        let old = self.entries.remove(&origin);
        if let Some(old) = &old {
            self.memory_ends.remove(&(old.remembered_until, origin));
        }
        // What this node claimed by the same announce before it gave way still holds.
        let floor = self.floors.remove(&origin).filter(|(order, ..)| *order == content.order());
        let (owner, tick) = match &old {
            Some(old) if old.owner != RESTORED => (old.owner, old.tick),
            _ => {
                if let Some(old) = &old {
                    self.shares.remove(&old.owner, old.tick, origin);
                }
                (hop.neighbour, self.shares.add(hop.neighbour, origin))
            }
        };
        let mut entry = Entry {
            order: content.order(),
            public_key: content.public_key,
            announce_ends,
            remembered_until: announce_ends + ORDER_MEMORY,
            announce: bare_frame(&inbound.announce),
            capabilities: content.capabilities,
            claimed_hops: floor.and_then(|(_, claimed, _)| claimed),
            route: None,
            record: old.and_then(|old| old.record),
            owner,
            tick,
        };
        if let Some(record) = &inbound.key_record {
            entry.take_record(record);
        }
        self.memory_ends.insert((entry.remembered_until, origin));
        self.entries.insert(origin, entry);
        self.change_route(&origin, |route| {
            *route = Some(Route::renewed(old_route, hop));
            true
        });
    }

    /// The one place where routes change: `change` says whether the route stays, and the indexes
    /// follow.
    fn change_route(&mut self, origin: &Address, change: impl FnOnce(&mut Option<Route>) -> bool) {
        let Some(entry) = self.entries.get_mut(origin) else { return };
        let links = |route: &Option<Route>| -> Vec<LinkId> {
            route.iter().flat_map(|r| &r.next_hops).map(|hop| hop.link).collect()
        };
        let before = links(&entry.route);
        if !change(&mut entry.route) {
            entry.route = None;
        }
        let after = links(&entry.route);
        for link in &before {
            if let Some(set) = self.by_link.get_mut(link) {
                set.remove(origin);
                if set.is_empty() {
                    self.by_link.remove(link);
                }
            }
        }
        for link in &after {
            self.by_link.entry(*link).or_default().insert(*origin);
        }
        let (route_end, memory_end) = ((entry.announce_ends, *origin), (entry.remembered_until, *origin));
        if after.is_empty() {
            self.route_ends.remove(&route_end);
            self.memory_ends.insert(memory_end);
        } else {
            self.memory_ends.remove(&memory_end);
            self.route_ends.insert(route_end);
        }
    }

    /// Makes room for one more origin that `via` brings: in its own share where that is full, else
    /// where an order would be forgotten next, else with the neighbour that has most.
    fn make_room(&mut self, via: &Via, is_active: &dyn Fn(&Address) -> bool) -> Result<(), Reject> {
        let percent = if via.is_young { YOUNG_SHARE_PERCENT } else { SHARE_PERCENT };
        let share_max = (self.origins_max.saturating_mul(percent) / 100).max(1);
        let own = self.shares.of(&via.neighbour);
        if own >= share_max {
            let has_room = self.evict_of(&via.neighbour, is_active);
            return if has_room { Ok(()) } else { Err(Reject::ShareFull) };
        }
        if self.entries.len() < self.origins_max {
            return Ok(());
        }
        if let Some((_, origin)) = self.memory_ends.first().copied() {
            self.evict(origin);
            return Ok(());
        }
        match self.shares.largest() {
            // Where one has as much as another, nobody gains by taking turns.
            Some((owner, most)) if most > own.saturating_add(1) && self.evict_of(&owner, is_active) => Ok(()),
            _ => Err(Reject::TableFull),
        }
    }

    /// Lets the longest unused entry of a share give way; those in use move to its end.
    fn evict_of(&mut self, owner: &Address, is_active: &dyn Fn(&Address) -> bool) -> bool {
        for (tick, origin) in self.shares.first_of(owner) {
            if !is_active(&origin) {
                self.evict(origin);
                return true;
            }
            self.shares.remove(owner, tick, origin);
            let tick = self.shares.add(*owner, origin);
            if let Some(entry) = self.entries.get_mut(&origin) {
                entry.tick = tick;
            }
        }
        false
    }

    fn evict(&mut self, origin: Address) {
        self.change_route(&origin, |_| false);
        let Some(entry) = self.entries.remove(&origin) else { return };
        self.memory_ends.remove(&(entry.remembered_until, origin));
        self.shares.remove(&entry.owner, entry.tick, origin);
        self.floors.insert(origin, (entry.order, entry.claimed_hops, entry.remembered_until));
        self.evicted.push(origin);
    }
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

/// An announce as a frame of its own, without its key record: bytes of this size and no larger
/// buffer behind them.
fn bare_frame(announce: &Announce) -> Bytes {
    Frame::Announce(Announce { key_record: None, hop_count: 0, ..announce.clone() }).encode()
}

/// Reads an announce back from the bytes the table keeps.
fn held_announce(frame: &Bytes) -> Option<Announce> {
    match Frame::decode(frame) {
        Ok(Frame::Announce(announce)) => Some(announce),
        // What is kept was encoded here.
        _ => None,
    }
}

#[cfg(test)]
mod tests;
