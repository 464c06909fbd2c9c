//! For the fuzzers: how much a router remembers, beside its bounds.

use super::{EARLY_MAX, Router, SOURCE_KEYS_MAX, control::WANTED_MAX, kept};

impl Router {
    /// What it remembers by name: how many there are, and how many there may be.
    pub fn sizes(&self) -> Vec<(&'static str, usize, usize)> {
        let (kept, kept_bytes) = self.kept.size();
        let origins_max = self.config.origins_max;
        let mut sizes = vec![
            ("early", self.early.len(), EARLY_MAX),
            ("source keys", self.source_keys.len(), SOURCE_KEYS_MAX),
            ("wanted records", self.wanted.len(), WANTED_MAX),
            ("kept", kept, kept::KEPT_MAX),
            ("kept bytes", kept_bytes, kept::KEPT_BYTES_MAX),
            ("unsaved", self.unsaved.len(), origins_max),
            ("origins", self.table.origins(), origins_max),
            ("packets", self.dedup.len(), self.config.dedup_entries_max.saturating_mul(2)),
        ];
        sizes.extend(self.paths.sizes(self.links.len()));
        sizes
    }
}
