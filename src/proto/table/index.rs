//! Where the entry of an address is, and which links its packets take: what a forwarding decision
//! reads, in one cache line.
//!
//! A bucket is a line with room for five addresses. Of an address it holds 32 bits of a keyed hash,
//! the entry's handle and the numbers of the two links. An address has a home bucket; where that is
//! full it goes into the next one with room, and every full bucket it passed counts it. Whoever
//! looks goes on only behind a bucket that something passed.
//!
//! A decision does not compare the address with the entry, which would be a second line far away.
//! Of the addresses that are here none is taken for another: two that look alike are both marked
//! when the second comes, and are then told apart by their entries. An address that is not here is
//! taken for one that is about four times in a million at a million routes. Its packet then goes to a
//! neighbour that has no way either and says so, and since the hash is keyed nobody can tell such an
//! address from others (docs/adr/0006).

use std::{hash::BuildHasher, hint::black_box};

use super::{
    super::dedup::KeyedHasher,
    links::NO_LINK,
    slab::{Handle, Slab},
};
use crate::wire::Address;

/// Parts of the index. Each grows by itself, so that no packet waits for all of it to be filled
/// anew: at a million entries a part holds sixteen thousand.
const SHARDS: usize = 64;

/// Home buckets that are read together.
const AHEAD: usize = 64;

/// Addresses of one bucket.
const PLACES: usize = 5;

/// Numbers of the links that packets take: the best and the next best.
pub(super) type Uses = [u16; 2];

/// Packets take no link.
pub(super) const UNUSED: Uses = [NO_LINK; 2];

/// Set beside the first link's number where another address here looks the same.
const IS_AMBIGUOUS: u16 = 0x8000;

/// What a look that reads no entry finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Likely {
    /// The links of that address, if it is here at all.
    Uses(Uses),
    /// It is not here.
    Absent,
    /// More than one address here looks like it.
    Ambiguous,
}

/// Handles and links in use by address.
#[derive(Debug)]
pub(super) struct Index {
    shards: Vec<Shard>,
    hasher: KeyedHasher,
}

impl Index {
    /// `seed` is random.
    pub(super) fn new(seed: u64) -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), hasher: KeyedHasher::new(seed) }
    }

    /// The handle of an address and the links in use to it.
    pub(super) fn find(&self, slab: &Slab, address: &Address) -> Option<(Handle, Uses)> {
        let (shard, tag) = self.locate(address);
        let shard = self.shards.get(shard)?;
        let (bucket, place) = shard.position(tag, |handle| slab.is_at(handle, address))?;
        let bucket = shard.buckets.get(bucket)?;
        Some((*bucket.handles.get(place)?, unmarked(*bucket.uses.get(place)?)))
    }

    /// The links in use to an address, without a look at its entry.
    pub(super) fn likely(&self, address: &Address) -> Likely {
        let (shard, tag) = self.locate(address);
        self.shards.get(shard).map_or(Likely::Absent, |shard| shard.likely(tag))
    }

    /// Adds an address that is not there yet.
    pub(super) fn insert(&mut self, address: &Address, handle: Handle) {
        let (shard, tag) = self.locate(address);
        if let Some(shard) = self.shards.get_mut(shard) {
            shard.insert(Place { tag, handle, uses: UNUSED });
        }
    }

    /// Sets the links in use to an address that is there.
    pub(super) fn set_uses(&mut self, slab: &Slab, address: &Address, uses: Uses) {
        let (shard, tag) = self.locate(address);
        let Some(shard) = self.shards.get_mut(shard) else { return };
        let Some((bucket, place)) = shard.position(tag, |handle| slab.is_at(handle, address)) else {
            return;
        };
        if let Some(held) = shard.buckets.get_mut(bucket).and_then(|bucket| bucket.uses.get_mut(place)) {
            let mark = held[0] & IS_AMBIGUOUS;
            *held = uses;
            held[0] |= mark;
        }
    }

    /// Takes an address out, while its entry is still in the slab.
    pub(super) fn remove(&mut self, slab: &Slab, address: &Address) {
        let (shard, tag) = self.locate(address);
        if let Some(shard) = self.shards.get_mut(shard) {
            shard.remove(tag, |handle| slab.is_at(handle, address));
        }
    }

    /// The links in use to many addresses, in their order, without a look at their entries. The
    /// home buckets are read in a pass of their own in which nothing waits for anything, so that
    /// their waits for memory overlap as far as the processor can have them.
    pub(super) fn each_likely(&self, addresses: &[Address], mut found: impl FnMut(&Address, Likely)) {
        let empty = Bucket::default();
        for addresses in addresses.chunks(AHEAD) {
            let mut homes = [(0, &empty); AHEAD];
            for (home, address) in homes.iter_mut().zip(addresses) {
                let (shard, tag) = self.locate(address);
                let bucket = self.shards.get(shard).and_then(|shard| shard.buckets.get(shard.home(tag)));
                *home = (tag, bucket.unwrap_or(&empty));
            }
            black_box(homes.iter().take(addresses.len()).fold(0, |sum, (_, home)| sum ^ home.taken));
            for ((tag, home), address) in homes.into_iter().zip(addresses) {
                found(address, home.likely(tag).unwrap_or_else(|| self.likely(address)));
            }
        }
    }

    /// The part an address is in, and what is kept of it there.
    fn locate(&self, address: &Address) -> (usize, u32) {
        let hash = self.hasher.hash_one(address);
        (hash as usize % SHARDS, (hash >> 32) as u32)
    }
}

fn unmarked([first, second]: Uses) -> Uses {
    [first & !IS_AMBIGUOUS, second]
}

/// What is kept of one address.
#[derive(Debug, Clone, Copy)]
struct Place {
    tag: u32,
    handle: Handle,
    uses: Uses,
}

#[derive(Debug, Clone, Default)]
#[repr(align(64))]
struct Bucket {
    tags: [u32; PLACES],
    handles: [Handle; PLACES],
    uses: [Uses; PLACES],
    /// A bit for each place that is taken.
    taken: u8,
    /// Places behind this bucket that would be here, or before, if it were not full. What was
    /// [`PASSED_MAX`] once stays so until the part is filled anew.
    passed: u8,
}

const PASSED_MAX: u8 = u8::MAX;

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    /// A bit for each place that looks like the one asked for.
    fn alike(&self, tag: u32) -> u8 {
        let alike = |(n, held): (usize, &u32)| u8::from(*held == tag) << n;
        self.tags.iter().enumerate().map(alike).fold(0, |all, one| all | one) & self.taken
    }

    /// What is here for a tag, if anything.
    fn likely(&self, tag: u32) -> Option<Likely> {
        let uses = *self.uses.get(self.alike(tag).trailing_zeros() as usize)?;
        Some(if uses[0] & IS_AMBIGUOUS != 0 { Likely::Ambiguous } else { Likely::Uses(uses) })
    }

    /// Puts an address into a place that is free; false where there is none.
    fn put(&mut self, new: Place) -> bool {
        let place = self.taken.trailing_ones() as usize;
        let (Some(tag), Some(handle), Some(uses)) =
            (self.tags.get_mut(place), self.handles.get_mut(place), self.uses.get_mut(place))
        else {
            return false;
        };
        (*tag, *handle, *uses) = (new.tag, new.handle, new.uses);
        self.taken |= 1 << place;
        true
    }

    fn places(&self) -> impl Iterator<Item = Place> {
        let all = self.tags.iter().zip(&self.handles).zip(&self.uses).enumerate();
        all.filter(|(n, _)| self.taken >> n & 1 == 1).map(|(_, ((tag, handle), uses))| Place {
            tag: *tag,
            handle: *handle,
            uses: *uses,
        })
    }
}

/// The places that a mask of them names.
fn each(mut mask: u8) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = mask.trailing_zeros() as usize;
        mask &= mask.wrapping_sub(1);
        (place < PLACES).then_some(place)
    })
}

/// One part of the index.
#[derive(Debug, Default)]
struct Shard {
    buckets: Vec<Bucket>,
    len: usize,
}

impl Shard {
    /// The bucket an address belongs into. It follows from the tag, so that two that look alike
    /// belong into the same one, and a part is filled anew without a look at its entries.
    fn home(&self, tag: u32) -> usize {
        ((u64::from(tag) * self.buckets.len() as u64) >> 32) as usize
    }

    fn next(&self, bucket: usize) -> usize {
        match bucket.wrapping_add(1) {
            next if next < self.buckets.len() => next,
            _ => 0,
        }
    }

    /// The buckets where an address may be, its home first.
    fn chain(&self, tag: u32) -> impl Iterator<Item = (usize, &Bucket)> {
        let mut at = self.home(tag);
        let mut left = self.buckets.len();
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let bucket = self.buckets.get(at)?;
            let found = (at, bucket);
            match bucket.passed {
                0 => left = 0,
                _ => at = self.next(at),
            }
            Some(found)
        })
    }

    fn likely(&self, tag: u32) -> Likely {
        // Not by `chain`: as a plain loop this takes half the time.
        let mut at = self.home(tag);
        for _ in 0..self.buckets.len() {
            let Some(bucket) = self.buckets.get(at) else { break };
            if let Some(found) = bucket.likely(tag) {
                return found;
            }
            if bucket.passed == 0 {
                break;
            }
            at = self.next(at);
        }
        Likely::Absent
    }

    /// The bucket and the place of the address whose handle `is_it` knows.
    fn position(&self, tag: u32, is_it: impl Fn(Handle) -> bool) -> Option<(usize, usize)> {
        self.chain(tag).find_map(|(at, bucket)| {
            let mut alike = each(bucket.alike(tag));
            let place =
                alike.find(|place| bucket.handles.get(*place).is_some_and(|handle| is_it(*handle)))?;
            Some((at, place))
        })
    }

    fn insert(&mut self, mut new: Place) {
        // At 17 of 20 places taken a look for what is here reads one bucket and a half on average, the
        // second one beside the first.
        if self.len.saturating_add(1).saturating_mul(20) > self.places().saturating_mul(17) {
            self.refill(self.buckets.len().saturating_mul(9).div_ceil(8).max(1));
        }
        if self.mark_alike(new.tag) {
            new.uses[0] |= IS_AMBIGUOUS;
        }
        self.put(new);
        self.len = self.len.saturating_add(1);
    }

    /// Marks those that look like a new address; true where there is one. They have its home, so
    /// its chain leads to all of them.
    fn mark_alike(&mut self, tag: u32) -> bool {
        let alike: Vec<_> =
            self.chain(tag).map(|(at, b)| (at, b.alike(tag))).filter(|(_, alike)| *alike != 0).collect();
        for (at, alike) in &alike {
            let Some(bucket) = self.buckets.get_mut(*at) else { continue };
            for place in each(*alike) {
                if let Some([first, _]) = bucket.uses.get_mut(place) {
                    *first |= IS_AMBIGUOUS;
                }
            }
        }
        !alike.is_empty()
    }

    /// Into the first bucket with room, from its home on.
    fn put(&mut self, new: Place) {
        let mut at = self.home(new.tag);
        for _ in 0..self.buckets.len() {
            let next = self.next(at);
            let Some(bucket) = self.buckets.get_mut(at) else { return };
            if bucket.put(new) {
                return;
            }
            bucket.passed = bucket.passed.saturating_add(1);
            at = next;
        }
    }

    fn remove(&mut self, tag: u32, is_it: impl Fn(Handle) -> bool) {
        let Some((found, place)) = self.position(tag, is_it) else { return };
        if let Some(bucket) = self.buckets.get_mut(found) {
            bucket.taken &= !(1 << place);
        }
        let mut at = self.home(tag);
        while at != found {
            let next = self.next(at);
            let Some(bucket) = self.buckets.get_mut(at) else { break };
            if bucket.passed < PASSED_MAX {
                bucket.passed = bucket.passed.saturating_sub(1);
            }
            at = next;
        }
        self.len = self.len.saturating_sub(1);
        // A part that shrank gives its room back.
        if self.len.saturating_mul(8) < self.places().saturating_mul(3) && self.buckets.len() > 2 {
            self.refill(self.len.div_ceil(3));
        }
    }

    fn places(&self) -> usize {
        self.buckets.len().saturating_mul(PLACES)
    }

    /// Fills so many buckets anew with what is here.
    fn refill(&mut self, buckets: usize) {
        let old = std::mem::replace(&mut self.buckets, vec![Bucket::default(); buckets]);
        old.iter().flat_map(Bucket::places).for_each(|place| self.put(place));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{super::Entry, *};

    /// Steps on one part, whose tags are few, so that many look alike.
    fn steps(tags: u32) -> impl Strategy<Value = Vec<(u8, u32)>> {
        proptest::collection::vec((0..5u8, 0..tags), 1..3000)
    }

    /// Spread over the buckets.
    fn tag(n: u32) -> u32 {
        n.wrapping_mul(0x9e37_79b9)
    }

    proptest! {
        #[test]
        fn a_part_tells_apart_what_looks_alike(steps in steps(60)) {
            let mut shard = Shard::default();
            // Tag and links in use by handle.
            let mut model: BTreeMap<Handle, (u32, Uses)> = BTreeMap::new();
            for (n, (kind, which)) in (0u32..).zip(steps) {
                let held = model.range(which * 50..).next().map(|(handle, (tag, _))| (*handle, *tag));
                match (kind, held) {
                    (0, Some((handle, tag))) => {
                        shard.remove(tag, |h| h == handle);
                        model.remove(&handle);
                    }
                    (1, Some((handle, tag))) => {
                        let uses = [n as u16 & !IS_AMBIGUOUS, 5];
                        let (bucket, place) = shard.position(tag, |h| h == handle).unwrap();
                        let held = &mut shard.buckets[bucket].uses[place];
                        *held = [uses[0] | held[0] & IS_AMBIGUOUS, uses[1]];
                        model.insert(handle, (tag, uses));
                    }
                    _ => {
                        shard.insert(Place { tag: tag(which), handle: n, uses: UNUSED });
                        model.insert(n, (tag(which), UNUSED));
                    }
                }
            }
            prop_assert_eq!(shard.len, model.len());
            prop_assert!(shard.len * 20 <= shard.places() * 17);
            prop_assert!(shard.buckets.len() <= 2 || shard.len * 8 >= shard.places() * 3);
            for (handle, (tag, uses)) in &model {
                let (bucket, place) = shard.position(*tag, |h| h == *handle).unwrap();
                prop_assert_eq!(unmarked(shard.buckets[bucket].uses[place]), *uses);
                let alike = model.values().filter(|(other, _)| other == tag).count();
                match shard.likely(*tag) {
                    Likely::Uses(found) => prop_assert_eq!((found, alike), (*uses, 1)),
                    Likely::Ambiguous => {}
                    Likely::Absent => prop_assert!(false, "{} is here", tag),
                }
            }
            for n in 60..200 {
                prop_assert_eq!(shard.likely(tag(n)), Likely::Absent);
            }
        }

        #[test]
        fn it_says_what_a_map_says(
            steps in proptest::collection::vec((0..4u8, 0u16..1200), 1..4000),
        ) {
            let address = |n: u16| Address(std::array::from_fn(|i| n.to_be_bytes()[i % 2]));
            let (mut slab, mut index) = (Slab::default(), Index::new(7));
            let mut model = BTreeMap::new();
            for (n, (kind, which)) in (0u16..).zip(steps) {
                let address = address(which);
                match (kind, model.get(&which).copied()) {
                    (0, Some((handle, _))) => {
                        index.remove(&slab, &address);
                        slab.remove(handle);
                        model.remove(&which);
                    }
                    (_, Some((handle, _))) => {
                        let uses = [n, 3];
                        index.set_uses(&slab, &address, uses);
                        model.insert(which, (handle, uses));
                    }
                    (_, None) => {
                        let handle = slab.insert(Entry::bare(address, 0)).unwrap();
                        index.insert(&address, handle);
                        model.insert(which, (handle, UNUSED));
                    }
                }
            }
            let all: Vec<_> = (0..1200).map(address).collect();
            let mut each = Vec::new();
            index.each_likely(&all, |address, likely| each.push((*address, likely)));
            prop_assert_eq!(each, all.iter().map(|a| (*a, index.likely(a))).collect::<Vec<_>>());
            for which in 0..1200 {
                let (address, held) = (address(which), model.get(&which).copied());
                prop_assert_eq!(index.find(&slab, &address), held);
                prop_assert_eq!(index.likely(&address), held.map_or(Likely::Absent, |(_, uses)| Likely::Uses(uses)));
            }
        }
    }

    #[test]
    fn a_part_that_grew_and_shrank_is_as_small_as_before() {
        let mut shard = Shard::default();
        (0..5000).for_each(|n| shard.insert(Place { tag: tag(n), handle: n, uses: UNUSED }));
        assert!((5000 * 20 / 17..5000 * 27 / 17).contains(&shard.places()), "{}", shard.places());
        let read: usize = (0..5000).map(|n| shard.chain(tag(n)).count()).sum();
        assert!(read < 5000 * 5 / 3, "{read} buckets where an address may be");
        (0..5000).for_each(|n| shard.remove(tag(n), |h| h == n));
        assert_eq!((shard.len, shard.places() <= 2 * PLACES), (0, true));
    }
}
