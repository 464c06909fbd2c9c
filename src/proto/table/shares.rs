//! Who brought how much of the table: no neighbour fills it, and what is used stays.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

use super::slab::Handle;
use crate::wire::Address;

/// Of a hundred entries, those that one neighbour may have brought.
pub const SHARE_PERCENT: usize = 25;

/// The same for a neighbour that came a short while ago.
pub const YOUNG_SHARE_PERCENT: usize = 5;

/// Entries of a share that are spared at most when one has to give way.
const SPARED_MAX: usize = 8;

/// The entries of one neighbour.
#[derive(Debug)]
struct Share {
    owner: Address,
    entries: RoaringBitmap,
    len: usize,
    /// Where the search for one that gives way goes on: a clock's hand over the handles, which are
    /// given out in order, so that what came first goes first, and each has a round of grace.
    hand: Handle,
}

/// The entries of each neighbour, by its number.
#[derive(Debug, Default)]
pub(super) struct Shares {
    slots: Vec<Option<Share>>,
    free: Vec<u16>,
    numbers: BTreeMap<Address, u16>,
}

impl Shares {
    /// Entries that `owner` brought.
    pub(super) fn of(&self, owner: &Address) -> usize {
        let share = self.numbers.get(owner).and_then(|number| self.get(*number));
        share.map_or(0, |share| share.len)
    }

    /// Who has a number.
    pub(super) fn owner(&self, number: u16) -> Option<Address> {
        self.get(number).map(|share| share.owner)
    }

    /// True where there is a number for `owner`.
    pub(super) fn has_room_for(&self, owner: &Address) -> bool {
        self.numbers.contains_key(owner) || !self.free.is_empty() || self.slots.len() < usize::from(u16::MAX)
    }

    /// Adds an entry to a share and gives the owner's number; none where there are no more numbers.
    pub(super) fn add(&mut self, owner: Address, handle: Handle) -> Option<u16> {
        let number = match self.numbers.get(&owner) {
            Some(number) => *number,
            None => self.number(owner)?,
        };
        let share = self.slots.get_mut(usize::from(number))?.as_mut()?;
        if share.entries.insert(handle) {
            share.len = share.len.saturating_add(1);
        }
        Some(number)
    }

    pub(super) fn remove(&mut self, number: u16, handle: Handle) {
        let Some(slot) = self.slots.get_mut(usize::from(number)) else { return };
        let Some(share) = slot else { return };
        if share.entries.remove(handle) {
            share.len = share.len.saturating_sub(1);
        }
        if share.len == 0 {
            self.numbers.remove(&share.owner);
            *slot = None;
            self.free.push(number);
        }
    }

    /// The neighbour with the most entries, and how many those are. Looks at every neighbour.
    pub(super) fn largest(&self) -> Option<(Address, usize)> {
        let sizes = self.slots.iter().flatten().map(|share| (share.owner, share.len));
        sizes.max_by_key(|(_, len)| *len)
    }

    /// The entries of `owner` that may have to give way, in order.
    pub(super) fn first_of(&self, owner: &Address) -> Vec<Handle> {
        let Some(share) = self.numbers.get(owner).and_then(|number| self.get(*number)) else { return vec![] };
        let round = share.entries.range(share.hand..).chain(share.entries.range(..share.hand));
        round.take(SPARED_MAX).collect()
    }

    /// The entry was spared, or gave way: the next one is the next to be looked at.
    pub(super) fn passed(&mut self, owner: &Address, handle: Handle) {
        let Some(number) = self.numbers.get(owner) else { return };
        if let Some(Some(share)) = self.slots.get_mut(usize::from(*number)) {
            share.hand = handle.saturating_add(1);
        }
    }

    fn get(&self, number: u16) -> Option<&Share> {
        self.slots.get(usize::from(number))?.as_ref()
    }

    fn number(&mut self, owner: Address) -> Option<u16> {
        let share = Share { owner, entries: RoaringBitmap::new(), len: 0, hand: 0 };
        let number = match self.free.pop() {
            Some(number) => {
                *self.slots.get_mut(usize::from(number))? = Some(share);
                number
            }
            None => {
                let number = u16::try_from(self.slots.len()).ok().filter(|number| *number != u16::MAX)?;
                self.slots.push(Some(share));
                number
            }
        };
        self.numbers.insert(owner, number);
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hand_goes_round() {
        let (a, mut shares) = (Address([1; 16]), Shares::default());
        for handle in 0..10 {
            shares.add(a, handle);
        }
        assert_eq!(shares.first_of(&a), [0, 1, 2, 3, 4, 5, 6, 7]);
        shares.passed(&a, 6);
        assert_eq!(shares.first_of(&a), [7, 8, 9, 0, 1, 2, 3, 4]);
        shares.remove(0, 8);
        assert_eq!(shares.first_of(&a), [7, 9, 0, 1, 2, 3, 4, 5]);
        assert_eq!((shares.of(&a), shares.largest()), (9, Some((a, 9))));
    }

    #[test]
    fn an_owner_of_nothing_has_no_number() {
        let (a, b, mut shares) = (Address([1; 16]), Address([2; 16]), Shares::default());
        assert_eq!(shares.add(a, 4), Some(0));
        assert_eq!(shares.add(a, 4), Some(0), "twice is once");
        shares.remove(0, 4);
        assert_eq!((shares.of(&a), shares.owner(0)), (0, None));
        assert_eq!(shares.add(b, 5), Some(0));
        assert_eq!(shares.owner(0), Some(b));
    }
}
