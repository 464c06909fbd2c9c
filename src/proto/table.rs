//! The routing table: what verified announces say of the way to each node.
//!
//! An origin's announces are ordered by `(boot_epoch, sequence)`, never by time. The newest one
//! makes the route; copies of it over other links make alternatives, three at most, through
//! different neighbours. What was seen of an origin's order outlives its route by a day, so that an
//! old announce replayed later changes nothing.
//!
//! Hop counts are claims of neighbours. They order routes here for now; measured delivery comes in
//! front of them later.

mod entry;
mod exchange;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    crypto::VerifiedKeyRecord,
    wire::{Address, Announce, Capabilities, Frame, LinkId, PublicKey},
};

use super::{
    fib::Hops,
    verify::{InboundAnnounce, Verified},
};

use entry::{Entry, Route};

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
    /// Links to the destination, as the neighbour claims, the first one counted.
    pub hops: u8,
    /// Medium of the first link.
    pub class: LinkClass,
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
}

/// One destination, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// Where to.
    pub destination: Address,
    /// The ways, the best first; at least one.
    pub next_hops: Vec<NextHop>,
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
            origins_max: origins_max.max(1),
        }
    }

    /// Takes an announce that came over `via`.
    pub fn update(&mut self, now: Instant, inbound: &Verified<InboundAnnounce>, via: &Via) -> Update {
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
        let hop = NextHop { hops, class: via.class, link: via.link, neighbour: via.neighbour };

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
        } else if !self.make_room() {
            return Update::Rejected(Reject::TableFull);
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
            self.entries.remove(&end.1);
        }
        lost
    }

    /// When to call [`RoutingTable::expire`].
    pub fn next_wake(&self) -> Option<Instant> {
        let ends = [self.route_ends.first(), self.memory_ends.first()];
        ends.into_iter().flatten().map(|(at, _)| *at).min()
    }

    /// The links to a destination for the forwarding table: the best way, and the best one over
    /// another link.
    pub fn hops(&self, destination: &Address) -> Option<Hops> {
        let mut ways = self.entries.get(destination)?.ways();
        let first = ways.next()?.link;
        Some(Hops { first, second: ways.map(|hop| hop.link).find(|link| *link != first) })
    }

    /// The newest announce of `origin` as it goes on from here, while its route holds: with the hop
    /// count of the best way, and the key record it names where that is here. None where it may
    /// cross no other link. From then on that hop count is what this node is known to claim.
    pub fn announce_to_send(&mut self, origin: &Address) -> Option<Announce> {
        let entry = self.entries.get_mut(origin)?;
        let hops = entry.ways().next()?.hops;
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
        self.route(origin).map_or_else(Vec::new, |r| r.next_hops.iter().map(|hop| hop.link).collect())
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
            let route = entry.route.as_ref()?;
            Some(RouteInfo {
                destination: *destination,
                next_hops: route.next_hops.clone(),
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

    fn route(&self, destination: &Address) -> Option<&Route> {
        self.entries.get(destination)?.route.as_ref()
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
                    *route = Some(Route { next_hops: vec![hop] });
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
        self.change_route(&origin, |_| false);
        let content = &inbound.announce.content;
        let lifetime = Duration::from_secs(u64::from(content.lifetime_s));
        let is_constrained = content.capabilities.has(Capabilities::CONSTRAINED);
        let age_max = if is_constrained { lifetime } else { lifetime.min(ROUTE_AGE_MAX) };
        let announce_ends = now + age_max;
        let old = self.entries.remove(&origin);
        if let Some(old) = &old {
            self.memory_ends.remove(&(old.remembered_until, origin));
        }
        let mut entry = Entry {
            order: content.order(),
            public_key: content.public_key,
            announce_ends,
            remembered_until: announce_ends + ORDER_MEMORY,
            announce: bare_frame(&inbound.announce),
            capabilities: content.capabilities,
            claimed_hops: None,
            route: None,
            record: old.and_then(|old| old.record),
        };
        if let Some(record) = &inbound.key_record {
            entry.take_record(record);
        }
        self.memory_ends.insert((entry.remembered_until, origin));
        self.entries.insert(origin, entry);
        self.change_route(&origin, |route| {
            *route = Some(Route { next_hops: vec![hop] });
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

    /// Makes room for one more origin: forgets the order that would be forgotten next. A live route
    /// never gives way.
    fn make_room(&mut self) -> bool {
        if self.entries.len() < self.origins_max {
            return true;
        }
        match self.memory_ends.pop_first() {
            Some((_, origin)) => self.entries.remove(&origin).is_some(),
            None => false,
        }
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
