//! The entries in the order of their addresses, for whoever reads the table in pages.

use super::slab::{Handle, Slab};
use crate::wire::Address;

/// Handles of one chunk at most.
const CHUNK_MAX: usize = 512;

/// Handles that a chunk gets room for at once: it is seldom full, and its room is most of the cost.
const ROOM: usize = 64;

/// Handles in the order of their addresses: chunks of sorted handles, some five bytes each.
#[derive(Debug, Default)]
pub(super) struct Ordered {
    chunks: Vec<Chunk>,
}

#[derive(Debug)]
struct Chunk {
    first: Address,
    handles: Vec<Handle>,
}

impl Ordered {
    pub(super) fn insert(&mut self, slab: &Slab, address: Address, handle: Handle) {
        let at = self.chunk_of(&address);
        let Some(chunk) = self.chunks.get_mut(at) else {
            return self.chunks.push(Chunk { first: address, handles: vec![handle] });
        };
        let place = chunk.place(slab, &address);
        if chunk.handles.len() == chunk.handles.capacity() {
            chunk.handles.reserve_exact(ROOM);
        }
        chunk.handles.insert(place, handle);
        chunk.first = chunk.first.min(address);
        if chunk.handles.len() >= CHUNK_MAX {
            let handles = chunk.handles.split_off(CHUNK_MAX / 2);
            chunk.handles.shrink_to(CHUNK_MAX / 2 + ROOM);
            if let Some(first) = handles.first().and_then(|handle| slab.get(*handle)) {
                self.chunks.insert(at.saturating_add(1), Chunk { first: first.address, handles });
            }
        }
    }

    /// Takes an address out, while its entry is still in the slab.
    pub(super) fn remove(&mut self, slab: &Slab, address: &Address) {
        let at = self.chunk_of(address);
        let Some(chunk) = self.chunks.get_mut(at) else { return };
        let place = chunk.place(slab, address);
        if chunk.handles.get(place).is_none_or(|handle| !slab.is_at(*handle, address)) {
            return;
        }
        chunk.handles.remove(place);
        if chunk.handles.is_empty() {
            self.chunks.remove(at);
            return;
        }
        // Two that are nearly empty become one, so that a table that shrank gives its room back.
        let next = at.saturating_add(1);
        let both =
            [at, next].iter().filter_map(|n| self.chunks.get(*n)).map(|c| c.handles.len()).sum::<usize>();
        if next < self.chunks.len() && both <= CHUNK_MAX / 2 {
            let emptied = self.chunks.remove(next);
            if let Some(chunk) = self.chunks.get_mut(at) {
                chunk.handles.extend(emptied.handles);
            }
        }
    }

    /// The handles behind an address, in order.
    pub(super) fn after<'a>(
        &'a self,
        slab: &'a Slab,
        address: &Address,
    ) -> impl Iterator<Item = Handle> + 'a {
        let mut from = self.from(slab, address).peekable();
        from.next_if(|handle| slab.is_at(*handle, address));
        from
    }

    /// The handles from an address on, in order.
    pub(super) fn from<'a>(&'a self, slab: &'a Slab, address: &Address) -> impl Iterator<Item = Handle> + 'a {
        let at = self.chunk_of(address);
        let chunk = self.chunks.get(at);
        let place = chunk.map_or(0, |chunk| chunk.place(slab, address));
        let rest = self.chunks.get(at.saturating_add(1)..).unwrap_or(&[]);
        let first = chunk.and_then(|chunk| chunk.handles.get(place..)).unwrap_or(&[]);
        first.iter().chain(rest.iter().flat_map(|chunk| &chunk.handles)).copied()
    }

    /// All handles, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Handle> + '_ {
        self.chunks.iter().flat_map(|chunk| &chunk.handles).copied()
    }

    /// The chunk where an address is or belongs.
    fn chunk_of(&self, address: &Address) -> usize {
        self.chunks.partition_point(|chunk| chunk.first <= *address).saturating_sub(1)
    }
}

impl Chunk {
    /// Where in the chunk an address is or belongs.
    fn place(&self, slab: &Slab, address: &Address) -> usize {
        self.handles.partition_point(|handle| slab.get(*handle).is_some_and(|e| e.address < *address))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, ops::Bound};

    use proptest::prelude::*;

    use super::{super::Entry, *};

    proptest! {
        #[test]
        fn it_says_what_a_sorted_map_says(
            steps in proptest::collection::vec((any::<bool>(), 0u16..1200), 1..4000),
            asked in proptest::collection::vec(0u16..1200, 20),
        ) {
            let address = |n: u16| {
                let mut bytes = [0; 16];
                // Many share their first bytes.
                bytes[3..5].copy_from_slice(&n.wrapping_mul(40_503).to_be_bytes());
                Address(bytes)
            };
            let (mut slab, mut ordered) = (Slab::default(), Ordered::default());
            let mut model = BTreeMap::new();
            for (is_insert, n) in steps {
                let address = address(n);
                match (is_insert, model.get(&address).copied()) {
                    (true, None) => {
                        let handle = slab.insert(Entry::bare(address, 0)).unwrap();
                        ordered.insert(&slab, address, handle);
                        model.insert(address, handle);
                    }
                    (false, Some(handle)) => {
                        ordered.remove(&slab, &address);
                        slab.remove(handle);
                        model.remove(&address);
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(ordered.iter().collect::<Vec<_>>(), model.values().copied().collect::<Vec<_>>());
            for n in asked {
                let address = address(n);
                let after: Vec<_> = ordered.after(&slab, &address).take(5).collect();
                let want = model.range((Bound::Excluded(address), Bound::Unbounded)).map(|(_, h)| *h);
                prop_assert_eq!(after, want.take(5).collect::<Vec<_>>());
            }
        }
    }
}
