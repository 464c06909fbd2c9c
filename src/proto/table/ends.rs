//! What ends when: handles by the second, some four bytes each in a large table.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

use super::slab::Handle;

/// Handles by the second of the table's clock in which they end.
#[derive(Debug, Default)]
pub(super) struct Ends {
    by_second: BTreeMap<u32, RoaringBitmap>,
    len: usize,
}

impl Ends {
    pub(super) fn insert(&mut self, at_s: u32, handle: Handle) {
        if self.by_second.entry(at_s).or_default().insert(handle) {
            self.len = self.len.saturating_add(1);
        }
    }

    pub(super) fn remove(&mut self, at_s: u32, handle: Handle) {
        let Some(second) = self.by_second.get_mut(&at_s) else { return };
        if second.remove(handle) {
            self.len = self.len.saturating_sub(1);
        }
        if second.is_empty() {
            self.by_second.remove(&at_s);
        }
    }

    /// What ends first, and when.
    pub(super) fn first(&self) -> Option<(u32, Handle)> {
        let (at_s, second) = self.by_second.first_key_value()?;
        Some((*at_s, second.min()?))
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}
