//! What the table keeps of one origin.

use std::time::Instant;

use bytes::Bytes;

use crate::{
    crypto::VerifiedKeyRecord,
    wire::{Address, Capabilities, PublicKey},
};

use super::{NEXT_HOPS_MAX, NextHop, Order};

/// One origin: its order, and its route while it has one.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) order: Order,
    pub(super) public_key: PublicKey,
    /// The newest announce, as a frame without its key record.
    pub(super) announce: Bytes,
    pub(super) capabilities: Capabilities,
    /// When the announce of that order is too old to route by, counted from its first reception.
    pub(super) announce_ends: Instant,
    pub(super) remembered_until: Instant,
    /// The lowest hop count this node has claimed for the announce of this order.
    pub(super) claimed_hops: Option<u8>,
    pub(super) route: Option<Route>,
    pub(super) record: Option<VerifiedKeyRecord>,
    /// The neighbour that brought the origin first, in whose share it is.
    pub(super) owner: Address,
    /// Its place in the order of that share.
    pub(super) tick: u64,
}

impl Entry {
    /// Keeps `record` where it is newer than the one held.
    pub(super) fn take_record(&mut self, record: &VerifiedKeyRecord) -> bool {
        let is_newer = self.record.as_ref().is_none_or(|held| record.supersedes(held));
        if is_newer {
            self.record = Some(record.clone());
        }
        is_newer
    }

    /// True for a way that cannot lead back here: its neighbour claims to be closer than this node
    /// has ever claimed to be by the same announce (Babel's feasibility condition, RFC 8966 §3.5.1).
    pub(super) fn is_feasible(&self, hop: &NextHop) -> bool {
        !hop.is_older && self.claimed_hops.is_none_or(|claimed| hop.hops.saturating_sub(1) < claimed)
    }

    /// The ways, best first: those that cannot lead back here, then those that may, then those that
    /// were measured to fail. A way that may lead back is better than none: a loop ends at the
    /// dedup window and costs the packet a detour, and a liar who claims to be closer than anyone
    /// can be would otherwise make every honest way unusable.
    pub(super) fn ways(&self) -> impl Iterator<Item = &NextHop> {
        let hops = self.route.iter().flat_map(|route| &route.next_hops);
        let of_tier = move |tier| hops.clone().filter(move |hop| self.tier(hop) == tier);
        (0..=2u8).flat_map(of_tier)
    }

    fn tier(&self, hop: &NextHop) -> u8 {
        match (hop.standing.is_demoted(), self.is_feasible(hop)) {
            (false, true) => 0,
            (false, false) => 1,
            (true, _) => 2,
        }
    }
}

/// A live route.
#[derive(Debug)]
pub(super) struct Route {
    /// The ways, those to be kept first; at least one.
    pub(super) next_hops: Vec<NextHop>,
}

impl Route {
    /// Adds a way, or replaces the one over the same link or through the same neighbour where the
    /// new one is better. Where there are too many, what delivers stays and what fails goes first,
    /// so that claims push out no measured way; nor do they push out the neighbour that brought the
    /// announce first.
    pub(super) fn add(&mut self, hop: NextHop) {
        if let Some(same) = self.next_hops.iter_mut().find(|h| h.link == hop.link) {
            let is_later = hop.is_later && (same.is_later || same.is_older);
            *same = NextHop { is_later, ..hop };
        } else if let Some(same) = self.next_hops.iter_mut().find(|h| h.neighbour == hop.neighbour) {
            *same = hop.min(*same);
        } else {
            self.next_hops.push(hop);
        }
        self.next_hops.sort_unstable();
        while self.next_hops.len() > NEXT_HOPS_MAX {
            let may_go = |hop: &NextHop| hop.is_later || hop.is_older || hop.standing.is_demoted();
            let last = self.next_hops.iter().rposition(may_go).unwrap_or(NEXT_HOPS_MAX);
            self.next_hops.remove(last);
        }
    }

    /// The ways that stay when a newer announce comes over `hop`: that one, and those which deliver
    /// until their neighbours bring the newer announce too.
    pub(super) fn renewed(old: Option<Self>, hop: NextHop) -> Self {
        let mut next_hops = old.map_or_else(Vec::new, |route| route.next_hops);
        next_hops.retain(|old| old.standing.is_proven() && !old.is_older);
        next_hops.truncate(NEXT_HOPS_MAX - 1);
        next_hops.iter_mut().for_each(|old| old.is_older = true);
        let mut route = Self { next_hops };
        route.add(hop);
        route
    }
}
