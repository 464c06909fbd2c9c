//! Entries in chunks that never move: growing copies nothing, and a handle is four bytes.

use super::Entry;
use crate::wire::Address;

/// Entries of one chunk: 2 MiB of them.
const CHUNK: usize = 1 << 15;

/// Names an entry while it is there; reused after.
pub(super) type Handle = u32;

/// The entries.
#[derive(Debug, Default)]
pub(super) struct Slab {
    chunks: Vec<Vec<Entry>>,
    free: Vec<Handle>,
    len: usize,
}

impl Slab {
    /// Entries that are there.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, handle: Handle) -> Option<&Entry> {
        let at = handle as usize;
        self.chunks.get(at / CHUNK)?.get(at % CHUNK)
    }

    /// True where that entry is of that address.
    pub(super) fn is_at(&self, handle: Handle, address: &Address) -> bool {
        self.get(handle).is_some_and(|entry| entry.address == *address)
    }

    pub(super) fn get_mut(&mut self, handle: Handle) -> Option<&mut Entry> {
        let at = handle as usize;
        self.chunks.get_mut(at / CHUNK)?.get_mut(at % CHUNK)
    }

    /// Takes an entry in; none where four bytes count no further.
    pub(super) fn insert(&mut self, entry: Entry) -> Option<Handle> {
        if let Some(handle) = self.free.pop() {
            *self.get_mut(handle)? = entry;
            self.len = self.len.saturating_add(1);
            return Some(handle);
        }
        let is_full = self.chunks.last().is_none_or(|chunk| chunk.len() >= CHUNK);
        if is_full {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let before = self.chunks.len().saturating_sub(1).saturating_mul(CHUNK);
        let chunk = self.chunks.last_mut()?;
        let handle = Handle::try_from(before.saturating_add(chunk.len())).ok()?;
        chunk.push(entry);
        self.len = self.len.saturating_add(1);
        Some(handle)
    }

    /// Takes an entry out. The handle must be one that is in use.
    pub(super) fn remove(&mut self, handle: Handle) -> Option<Entry> {
        let entry = std::mem::take(self.get_mut(handle)?);
        self.free.push(handle);
        self.len = self.len.saturating_sub(1);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_reused_and_entries_stay_where_they_are() {
        let mut slab = Slab::default();
        let entry = |n: u32| Entry::bare(Address([n as u8; 16]), n);
        let handles: Vec<_> = (0..3000).map(|n| slab.insert(entry(n)).unwrap()).collect();
        assert_eq!(handles, (0..3000).collect::<Vec<_>>());
        assert_eq!(slab.remove(1500).unwrap().ends_s, 1500);
        assert_eq!(slab.len(), 2999);
        assert_eq!(slab.insert(entry(7)), Some(1500));
        assert_eq!(slab.insert(entry(8)), Some(3000));
        assert_eq!((slab.get(1500).unwrap().ends_s, slab.get(2999).unwrap().ends_s), (7, 2999));
        assert!(slab.get(3001).is_none() && slab.get(u32::MAX).is_none());
    }
}
