//! One generation of the window.
//!
//! Entries stand in the order in which their packets came, in chunks that never move; a table of
//! eight bytes each says where. A table that held the entries themselves would be four times as
//! large, and each new packet would wait for another line and page of it: a quarter of what a busy
//! relay spent on a message went there (`qpc bench relay --proof merkle`).

use hashbrown::HashTable;

use super::{Entry, PacketId};

/// Entries of a chunk: 36 KiB.
const CHUNK_ENTRIES: usize = 1024;

/// Where an entry stands.
#[derive(Debug)]
struct Place {
    /// Kept so that the table grows without looking at the entries.
    hash: u32,
    at: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Generation {
    places: HashTable<Place>,
    chunks: Vec<Vec<(PacketId, Entry)>>,
    len: usize,
    /// Where those stand that go on into the next generation.
    lasting: Vec<u32>,
}

impl Generation {
    /// The entry of a packet whose id hashes to `hash`.
    pub(super) fn get(&self, hash: u32, packet_id: &PacketId) -> Option<&Entry> {
        let at = self.find(hash, packet_id)?;
        entry_at(&self.chunks, at).map(|(_, entry)| entry)
    }

    /// Whether a packet whose id hashes to `hash` may be here, by its place in the table alone.
    pub(super) fn may_hold(&self, hash: u32) -> bool {
        self.places.iter_hash(wide(hash)).next().is_some()
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, hash: u32, packet_id: &PacketId) -> Option<&mut Entry> {
        let (chunk, within) = split(self.find(hash, packet_id)?);
        self.chunks.get_mut(chunk)?.get_mut(within).map(|(_, entry)| entry)
    }

    /// Adds a packet that is not here.
    pub(super) fn insert(&mut self, hash: u32, packet_id: PacketId, entry: Entry) {
        let Ok(at) = u32::try_from(self.len) else { return };
        let (chunk, _) = split(at);
        if chunk >= self.chunks.len() {
            self.chunks.push(Vec::with_capacity(CHUNK_ENTRIES));
        }
        let Some(chunk) = self.chunks.get_mut(chunk) else { return };
        chunk.push((packet_id, entry));
        self.len = self.len.saturating_add(1);
        self.places.insert_unique(wide(hash), Place { hash, at }, |place| wide(place.hash));
    }

    /// The packet that was added last goes on into the next generation.
    pub(super) fn last_lasts(&mut self) {
        self.lasting.extend(self.len.checked_sub(1).and_then(|at| u32::try_from(at).ok()));
    }

    /// Those that go on into the next generation, the newest `most` of them in order of arrival.
    pub(super) fn lasting(&self, most: usize) -> Vec<(PacketId, Entry)> {
        let newest = self.lasting.get(self.lasting.len().saturating_sub(most)..).unwrap_or_default();
        newest.iter().filter_map(|at| entry_at(&self.chunks, *at).copied()).collect()
    }

    /// Packets remembered.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Forgets all packets. The memory stays for the next ones where a good part of it was in use;
    /// what a burst took long ago is given back.
    pub(super) fn clear(&mut self) {
        if self.len < self.places.capacity() / 4 {
            *self = Self::default();
            return;
        }
        self.places.clear();
        self.lasting.clear();
        self.chunks.truncate(self.len.div_ceil(CHUNK_ENTRIES));
        self.chunks.iter_mut().for_each(Vec::clear);
        self.len = 0;
    }

    fn find(&self, hash: u32, packet_id: &PacketId) -> Option<u32> {
        let is_it = |place: &Place| {
            place.hash == hash && entry_at(&self.chunks, place.at).is_some_and(|(id, _)| id == packet_id)
        };
        self.places.find(wide(hash), is_it).map(|place| place.at)
    }
}

fn entry_at(chunks: &[Vec<(PacketId, Entry)>], at: u32) -> Option<&(PacketId, Entry)> {
    let (chunk, within) = split(at);
    chunks.get(chunk)?.get(within)
}

fn split(at: u32) -> (usize, usize) {
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    (at / CHUNK_ENTRIES, at % CHUNK_ENTRIES)
}

/// The table takes its place from the low bits and a first comparison from the high ones.
fn wide(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> PacketId {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        PacketId(bytes)
    }

    fn entry(egress: u32) -> Entry {
        Entry {
            ingress: 1,
            egress,
            kept_at: 0,
            seen_s: 0,
            hop_count_lowest: 0,
            forwarded: false,
            retransmits: 0,
            let_through: 0,
        }
    }

    #[test]
    fn packets_are_told_apart_where_their_hashes_are_one() {
        let mut generation = Generation::default();
        for n in 0..10_000 {
            generation.insert(n % 3, id(n), entry(n));
        }
        assert_eq!(generation.len(), 10_000);
        for n in [0, 1, 2, 1023, 1024, 9_999] {
            assert_eq!(generation.get(n % 3, &id(n)).map(|entry| entry.egress), Some(n));
        }
        assert!(generation.get(0, &id(10_000)).is_none());
        generation.get_mut(1, &id(1)).unwrap().egress = 77;
        assert_eq!(generation.get(1, &id(1)).map(|entry| entry.egress), Some(77));
    }

    #[test]
    fn memory_stays_while_it_is_used_and_goes_when_it_is_not() {
        let mut generation = Generation::default();
        let fill = |generation: &mut Generation, count: u32| {
            (0..count).for_each(|n| generation.insert(n.wrapping_mul(0x9e37_79b9), id(n), entry(n)));
        };
        fill(&mut generation, 100_000);
        let held = generation.places.capacity();
        generation.clear();
        assert_eq!((generation.len(), generation.places.capacity()), (0, held));
        assert!(generation.get(0, &id(0)).is_none());
        fill(&mut generation, 100);
        assert_eq!(generation.get(0, &id(0)).map(|entry| entry.egress), Some(0));
        generation.clear();
        assert_eq!((generation.places.capacity(), generation.chunks.len()), (0, 0));
    }
}
