//! Who brought how much of the table: no neighbour fills it, and what is used stays.

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::Address;

/// Of a hundred entries, those that one neighbour may have brought.
pub const SHARE_PERCENT: usize = 25;

/// The same for a neighbour that came a short while ago.
pub const YOUNG_SHARE_PERCENT: usize = 5;

/// Entries of a share that are spared at most when one has to give way.
const SPARED_MAX: usize = 8;

/// The entries of each neighbour, the one that gives way next first.
#[derive(Debug, Default)]
pub(super) struct Shares {
    by_owner: BTreeMap<Address, BTreeSet<(u64, Address)>>,
    ticks: u64,
}

impl Shares {
    /// Entries that `owner` brought.
    pub(super) fn of(&self, owner: &Address) -> usize {
        self.by_owner.get(owner).map_or(0, BTreeSet::len)
    }

    /// Adds an entry at the end of a share and gives its place.
    pub(super) fn add(&mut self, owner: Address, origin: Address) -> u64 {
        self.ticks = self.ticks.saturating_add(1);
        self.by_owner.entry(owner).or_default().insert((self.ticks, origin));
        self.ticks
    }

    pub(super) fn remove(&mut self, owner: &Address, tick: u64, origin: Address) {
        if let Some(share) = self.by_owner.get_mut(owner) {
            share.remove(&(tick, origin));
            if share.is_empty() {
                self.by_owner.remove(owner);
            }
        }
    }

    /// The neighbour with the most entries, and how many those are. Looks at every neighbour.
    pub(super) fn largest(&self) -> Option<(Address, usize)> {
        let sizes = self.by_owner.iter().map(|(owner, share)| (*owner, share.len()));
        sizes.max_by_key(|(_, len)| *len)
    }

    /// The entries of `owner` that may have to give way, in order.
    pub(super) fn first_of(&self, owner: &Address) -> Vec<(u64, Address)> {
        self.by_owner.get(owner).into_iter().flatten().take(SPARED_MAX).copied().collect()
    }
}
