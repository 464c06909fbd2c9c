//! What the table says of itself to neighbours, to the disk and to people, and what it takes from
//! them besides announces.

use std::{
    ops::Bound::{Excluded, Unbounded},
    time::{Duration, Instant},
};

use crate::{
    proto::verify::{InboundAnnounce, Verified},
    wire::{Address, Announce, Capabilities, path::DigestEntry},
};

use super::{
    Entry, NextHop, ORDER_MEMORY, Order, RESTORED, Reject, RoutingTable, Update, Via, bare_frame,
    held_announce,
};

/// Entries looked at for one page of a digest: a table of many remembered orders and few routes
/// must not be walked at once.
const SCANNED_MAX: usize = 8192;

/// One origin that was heard within the last day, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownInfo {
    /// Who.
    pub address: Address,
    /// Order of the newest announce.
    pub order: Order,
    /// What it offers.
    pub capabilities: Capabilities,
    /// True while there is a way to it.
    pub is_routed: bool,
    /// True where its key record is here, so that it can be written to.
    pub has_key: bool,
    /// How long its order is remembered yet, if nothing more is heard of it.
    pub forgotten_in: Duration,
}

/// An announce as it is kept over a restart.
#[derive(Debug, Clone)]
pub struct Saved {
    /// The announce, with its key record where it names the newest one.
    pub announce: Announce,
    /// How long a route may be made of it yet.
    pub ends_in: Duration,
}

impl RoutingTable {
    /// Takes a neighbour's word that it has a way to `origin` by the very announce that is held
    /// here, with that hop count. The rules are those of an announce.
    pub fn offer(&mut self, now: Instant, origin: &Address, hop_count: u8, via: &Via) -> Update {
        if hop_count == 0 && via.neighbour != *origin {
            return Update::Rejected(Reject::NotTheOrigin);
        }
        let Some(entry) = self.entries.get(origin) else { return Update::Known };
        if now >= entry.announce_ends {
            return Update::Rejected(Reject::Expired);
        }
        let max_hops = held_announce(&entry.announce).map_or(0, |announce| announce.content.max_hops);
        match hop_count.checked_add(1).filter(|hops| *hops <= max_hops) {
            Some(hops) => self.add_way(*origin, via.hop(hops)),
            None => Update::Rejected(Reject::HopLimit),
        }
    }

    /// One page of the digest for `neighbour`: the routes behind `after`, at most `entries_max`, and
    /// the address through which it goes. With `offers` those that lead elsewhere are offered, and
    /// count as claimed from then on.
    pub fn digest_page(
        &mut self,
        after: Address,
        neighbour: &Address,
        offers: bool,
        entries_max: usize,
    ) -> (Vec<DigestEntry>, Address) {
        let mut entries = Vec::new();
        for (scanned, (origin, entry)) in self.entries.range_mut((Excluded(after), Unbounded)).enumerate() {
            if entry.route.is_some() {
                let hop_count = if offers && origin != neighbour { entry.offer_to(neighbour) } else { None };
                let (boot_epoch, sequence) = entry.order;
                entries.push(DigestEntry { origin: *origin, boot_epoch, sequence, hop_count });
            }
            if entries.len() >= entries_max || scanned >= SCANNED_MAX {
                return (entries, *origin);
            }
        }
        (entries, Address::BROADCAST)
    }

    /// Takes out the ways to `destination` through `neighbour`; true where there was one.
    pub fn withdraw(&mut self, destination: &Address, neighbour: &Address) -> bool {
        self.take_ways(destination, |hop| hop.neighbour == *neighbour)
    }

    /// Takes out all ways to `destination`; true where there was one.
    pub fn drop_ways(&mut self, destination: &Address) -> bool {
        self.take_ways(destination, |_| true)
    }

    /// True where this node told others of its way by the newest announce.
    pub fn is_claimed(&self, destination: &Address) -> bool {
        self.entries.get(destination).is_some_and(|entry| entry.claimed_hops.is_some())
    }

    /// Takes back what an earlier start saved: the order, the key and the announce, and no way. It
    /// may be made a route of for `ends_in`. False where as much is known, or the table is full.
    pub fn restore(&mut self, now: Instant, inbound: &Verified<InboundAnnounce>, ends_in: Duration) -> bool {
        let content = &inbound.announce.content;
        let origin = inbound.origin;
        let held = self.entries.get(&origin);
        let is_held = held.is_some_and(|entry| entry.order >= content.order());
        if is_held || (held.is_none() && self.entries.len() >= self.origins_max) {
            return false;
        }
        let announce_ends = now + ends_in;
        if let Some(old) = self.entries.remove(&origin) {
            self.memory_ends.remove(&(old.remembered_until, origin));
            self.route_ends.remove(&(old.announce_ends, origin));
            self.shares.remove(&old.owner, old.tick, origin);
        }
        let entry = Entry {
            order: content.order(),
            public_key: content.public_key,
            announce_ends,
            remembered_until: announce_ends + ORDER_MEMORY,
            announce: bare_frame(&inbound.announce),
            capabilities: content.capabilities,
            claimed_hops: None,
            route: None,
            record: inbound.key_record.clone(),
            owner: RESTORED,
            tick: self.shares.add(RESTORED, origin),
        };
        self.memory_ends.insert((entry.remembered_until, origin));
        self.entries.insert(origin, entry);
        true
    }

    /// The newest announce of `origin`, to be kept over a restart.
    pub fn saved(&self, now: Instant, origin: &Address) -> Option<Saved> {
        let entry = self.entries.get(origin)?;
        let mut announce = held_announce(&entry.announce)?;
        let named = announce.content.key_record_hash;
        let record = entry.record.as_ref().filter(|record| named == Some(record.hash8()));
        announce.key_record = record.map(|record| record.signed().clone());
        Some(Saved { announce, ends_in: entry.announce_ends.saturating_duration_since(now) })
    }

    /// Everyone that was heard within the last day, by address.
    pub fn known(&self, now: Instant) -> impl Iterator<Item = KnownInfo> + '_ {
        self.entries.iter().map(move |(address, entry)| KnownInfo {
            address: *address,
            order: entry.order,
            capabilities: entry.capabilities,
            is_routed: entry.route.is_some(),
            has_key: entry.record.is_some(),
            forgotten_in: entry.remembered_until.saturating_duration_since(now),
        })
    }

    fn take_ways(&mut self, destination: &Address, goes: impl Fn(&NextHop) -> bool) -> bool {
        let mut was_there = false;
        self.change_route(destination, |route| {
            route.as_mut().is_some_and(|route| {
                let before = route.next_hops.len();
                route.next_hops.retain(|hop| !goes(hop));
                was_there = route.next_hops.len() != before;
                !route.next_hops.is_empty()
            })
        });
        was_there
    }
}

impl Entry {
    /// The hop count with which this node offers its way to `neighbour`; none where the way leads
    /// there, may lead back here, or has crossed all the links that the origin signed.
    fn offer_to(&mut self, neighbour: &Address) -> Option<u8> {
        let best = *self.ways().next().filter(|hop| self.is_feasible(hop))?;
        let max_hops = held_announce(&self.announce)?.content.max_hops;
        if best.neighbour == *neighbour || best.hops >= max_hops {
            return None;
        }
        self.claimed_hops = Some(self.claimed_hops.map_or(best.hops, |before| before.min(best.hops)));
        Some(best.hops)
    }
}
