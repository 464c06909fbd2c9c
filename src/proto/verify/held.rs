//! Envelopes that wait for their source's key.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::wire::{Address, Envelope, FrameExt};

/// Bytes that wait on one link.
pub const HELD_BYTES_MAX: usize = 64 * 1024;

/// Longest wait: a neighbour that has just passed the envelope on has its key.
pub const HELD_FOR: Duration = Duration::from_secs(1);

/// What became of an envelope whose key is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It waits, and is the first of its source: ask the neighbour for the key.
    Ask,
    /// It waits with others of its source; the neighbour was asked.
    Waits,
    /// No room: it is dropped. Nobody is to blame, the origin tries again.
    Full,
}

#[derive(Debug)]
struct Waiting {
    until: Instant,
    bytes: usize,
    envelopes: Vec<(Envelope, FrameExt)>,
}

/// The envelopes of one link that wait for a key, bounded in bytes and time; so few sources at once
/// that looking through all of them for the oldest costs nothing.
#[derive(Debug, Default)]
pub struct HeldForKey {
    waiting: BTreeMap<Address, Waiting>,
    bytes: usize,
}

impl HeldForKey {
    /// Nothing waits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets an envelope wait.
    pub fn hold(&mut self, now: Instant, source: Address, envelope: Envelope, ext: FrameExt) -> Hold {
        // What is kept beside the bytes counts too: many small envelopes take as much as few large.
        let bytes = envelope.encoded_len().saturating_add(size_of::<(Envelope, FrameExt)>());
        if self.bytes.saturating_add(bytes) > HELD_BYTES_MAX {
            return Hold::Full;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        if let Some(waiting) = self.waiting.get_mut(&source) {
            waiting.bytes = waiting.bytes.saturating_add(bytes);
            waiting.envelopes.push((envelope, ext));
            return Hold::Waits;
        }
        let until = now + HELD_FOR;
        self.waiting.insert(source, Waiting { until, bytes, envelopes: vec![(envelope, ext)] });
        Hold::Ask
    }

    /// Takes the envelopes of `source`, whose key came; none where none was asked for.
    pub fn take(&mut self, source: &Address) -> Option<Vec<(Envelope, FrameExt)>> {
        let waiting = self.waiting.remove(source)?;
        self.bytes = self.bytes.saturating_sub(waiting.bytes);
        Some(waiting.envelopes)
    }

    /// Drops what waited too long; gives how many envelopes.
    pub fn expire(&mut self, now: Instant) -> usize {
        let is_late = |waiting: &Waiting| waiting.until <= now;
        let late: Vec<_> = self.waiting.iter().filter(|(_, w)| is_late(w)).map(|(a, _)| *a).collect();
        late.iter().filter_map(|source| self.take(source)).map(|envelopes| envelopes.len()).sum()
    }

    /// When to call [`HeldForKey::expire`].
    pub fn next_wake(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.until).min()
    }

    /// Bytes that wait, with what is kept beside them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
