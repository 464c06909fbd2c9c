//! What some link of this node checked already, so that no other checks it again.
//!
//! An announce reaches a node once over each of its links, and each announce brings the key record
//! that the one before brought. In a mesh of a thousand nodes that would be a dozen signatures for
//! each announce; remembered for the whole node they are one.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use hashlink::LruCache;

use super::share::{CheckShare, Pool};

use crate::{
    crypto::hash::sha256,
    wire::{Announce, Digest, key_record::SignedKeyRecord},
};

/// Announces remembered, a hundred bytes each: the copies of one come within seconds.
pub const ANNOUNCES_MAX: usize = 8192;

/// Key records remembered, a hundred bytes each. An origin makes one a week and repeats it with
/// every announce; of a mesh that is larger, the ones beyond cost a signature each time.
pub const RECORDS_MAX: usize = 65_536;

/// Announces and key records whose signatures were found good, for all links of a node. A clone
/// is the same memory.
///
/// Content and signature are remembered by one digest: who shows a good content with another
/// signature finds nothing here. What is forgotten costs the one signature that it would have cost.
#[derive(Debug, Clone)]
pub struct Checked {
    memory: Arc<Mutex<Memory>>,
    pool: Pool,
}

#[derive(Debug)]
struct Memory {
    announces: LruCache<Digest, ()>,
    records: LruCache<Digest, ()>,
}

impl Default for Checked {
    fn default() -> Self {
        let announces = LruCache::new(ANNOUNCES_MAX);
        let memory = Memory { announces, records: LruCache::new(RECORDS_MAX) };
        Self { memory: Arc::new(Mutex::new(memory)), pool: Pool::default() }
    }
}

/// What stands for an announce: all that its signature covers, and the signature.
pub(super) fn announce_digest(announce: &Announce) -> Digest {
    sha256(&[&announce.signed, &announce.signature.0])
}

/// What stands for a key record, likewise.
pub(super) fn record_digest(record: &SignedKeyRecord) -> Digest {
    sha256(&[&record.signed, &record.signature.0])
}

impl Checked {
    /// What a new link may spend on what is not remembered.
    pub fn share(&self, now: Instant) -> CheckShare {
        CheckShare::new(self.pool.clone(), now)
    }

    pub(super) fn has_announce(&self, digest: &Digest) -> bool {
        self.lock().announces.get(digest).is_some()
    }

    pub(super) fn announce_held_good(&self, digest: Digest) {
        self.lock().announces.insert(digest, ());
    }

    pub(super) fn has_record(&self, digest: &Digest) -> bool {
        self.lock().records.get(digest).is_some()
    }

    pub(super) fn record_held_good(&self, digest: Digest) {
        self.lock().records.insert(digest, ());
    }

    /// Digests are all that is behind the lock: whoever panicked there left them whole.
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces and key records remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        let memory = self.lock();
        (memory.announces.len(), memory.records.len())
    }
}
