//! What the table says of itself to neighbours, to the disk and to people, and what it takes from
//! them besides announces.

use std::time::{Duration, Instant};

use crate::{
    proto::verify::{InboundAnnounce, Verified},
    wire::{Address, Announce, Capabilities, path::DigestEntry},
};

use super::{NextHop, Order, RESTORED, Reject, RoutingTable, Update, Via, memory_end};

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
        let Some((handle, entry)) = self.find(origin) else { return Update::Known };
        if now >= self.instant(entry.ends_s) {
            return Update::Rejected(Reject::Expired);
        }
        let max_hops = entry.max_hops();
        match hop_count.checked_add(1).filter(|hops| *hops <= max_hops) {
            Some(hops) => self.add_way(handle, via.hop(hops)),
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
        let handles: Vec<_> = self.ordered.after(&self.slab, &after).take(SCANNED_MAX).collect();
        let is_all = handles.len() < SCANNED_MAX;
        let mut through = after;
        for handle in handles {
            let Some(entry) = self.slab.get_mut(handle) else { continue };
            through = entry.address;
            if entry.is_routed() {
                let is_offered = offers && entry.address != *neighbour;
                let hop_count = if is_offered { entry.offer_to(&self.carriers, neighbour) } else { None };
                let (boot_epoch, sequence) = entry.order;
                entries.push(DigestEntry { origin: entry.address, boot_epoch, sequence, hop_count });
            }
            if entries.len() >= entries_max {
                return (entries, through);
            }
        }
        (entries, if is_all { Address::BROADCAST } else { through })
    }

    /// Takes out the ways to `destination` through `neighbour`; true where there was one.
    pub fn withdraw(&mut self, destination: &Address, neighbour: &Address) -> bool {
        self.take_ways(destination, |hop| hop.neighbour == *neighbour)
    }

    /// Takes out all ways to `destination`; true where there was one.
    pub fn drop_ways(&mut self, destination: &Address) -> bool {
        self.take_ways(destination, |_| true)
    }

    /// Everyone was told that this node has no way to `destination`: what it claimed before stands no
    /// more.
    pub fn void_claim(&mut self, destination: &Address) {
        if let Some(entry) = self.find_mut(destination) {
            entry.void_claim();
        }
    }

    /// True where this node told others of its way by the newest announce.
    pub fn is_claimed(&self, destination: &Address) -> bool {
        self.find(destination).is_some_and(|(_, entry)| entry.claimed_hops().is_some())
    }

    /// Takes back what an earlier start saved: the order, the key and the announce, and no way. It
    /// may be made a route of for `ends_in`. False where as much is known, or the table is full.
    pub fn restore(&mut self, now: Instant, inbound: &Verified<InboundAnnounce>, ends_in: Duration) -> bool {
        let held = self.find(&inbound.origin).map(|(_, entry)| entry.order);
        let is_held = held.is_some_and(|order| order >= inbound.announce.content.order());
        if is_held || (held.is_none() && self.slab.len() >= self.origins_max) {
            return false;
        }
        let is_taken = self.hold(now, inbound, ends_in, RESTORED).is_some();
        // What is read back is no news.
        self.new_record = None;
        is_taken
    }

    /// The newest announce of `origin`, to be kept over a restart.
    pub fn saved(&self, now: Instant, origin: &Address) -> Option<Saved> {
        let (_, entry) = self.find(origin)?;
        let ends_in = self.instant(entry.ends_s).saturating_duration_since(now);
        Some(Saved { announce: entry.announce_and_record()?, ends_in })
    }

    /// Everyone that was heard within the last day, by address.
    pub fn known_from(&self, now: Instant, from: &Address) -> impl Iterator<Item = KnownInfo> + '_ {
        let entries = self.ordered.from(&self.slab, from).filter_map(|handle| self.slab.get(handle));
        entries.map(move |entry| KnownInfo {
            address: entry.address,
            order: entry.order,
            capabilities: entry.announce().map(|a| a.content.capabilities).unwrap_or_default(),
            is_routed: entry.is_routed(),
            has_key: entry.has_record(),
            forgotten_in: self.instant(memory_end(entry.ends_s)).saturating_duration_since(now),
        })
    }

    fn take_ways(&mut self, destination: &Address, goes: impl Fn(&NextHop) -> bool) -> bool {
        let Some((handle, _)) = self.find(destination) else { return false };
        let mut was_there = false;
        self.change_route(handle, |route| {
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
