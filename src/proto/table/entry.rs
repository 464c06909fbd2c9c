//! What the table keeps of one origin.

use std::time::Instant;

use bytes::Bytes;

use crate::{
    crypto::VerifiedKeyRecord,
    wire::{Capabilities, PublicKey},
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
        self.claimed_hops.is_none_or(|claimed| hop.hops.saturating_sub(1) < claimed)
    }

    /// The ways, best first. One that may lead back here comes last: until the origin can be asked
    /// for a newer announce it is better than none, and a loop ends at the dedup window.
    pub(super) fn ways(&self) -> impl Iterator<Item = &NextHop> {
        let ways = || self.route.iter().flat_map(|route| &route.next_hops);
        let feasible = ways().filter(|hop| self.is_feasible(hop));
        feasible.chain(ways().filter(|hop| !self.is_feasible(hop)))
    }
}

/// A live route.
#[derive(Debug)]
pub(super) struct Route {
    /// The ways, in order of preference; at least one.
    pub(super) next_hops: Vec<NextHop>,
}

impl Route {
    /// Adds a way, or replaces the one over the same link or through the same neighbour where the
    /// new one is better.
    pub(super) fn add(&mut self, hop: NextHop) {
        if let Some(same) = self.next_hops.iter_mut().find(|h| h.link == hop.link) {
            *same = hop;
        } else if let Some(same) = self.next_hops.iter_mut().find(|h| h.neighbour == hop.neighbour) {
            *same = hop.min(*same);
        } else {
            self.next_hops.push(hop);
        }
        self.next_hops.sort_unstable();
        self.next_hops.truncate(NEXT_HOPS_MAX);
    }
}
