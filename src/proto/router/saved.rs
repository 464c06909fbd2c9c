//! What is kept of the table over a restart: the announces themselves, so that whoever reads them
//! back can check them again, and an old one stays old.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{
    proto::{
        table::{KnownInfo, ORDER_MEMORY, Saved},
        verify::{InboundAnnounce, Verified},
    },
    wire::{Address, Announce, Frame},
};

use super::Router;

/// First byte of a row: its layout.
const ROW_VERSION: u8 = 1;

/// One origin's row: `version 1, route's end in seconds since 1970 8, the announce as a frame`.
#[derive(Debug, Clone)]
pub struct SavedRow {
    /// When no route is made of it any more, in seconds since 1970.
    pub ends_unix_s: u64,
    /// The announce, not verified: a disk is not trusted.
    pub announce: Announce,
}

impl SavedRow {
    /// What is written of `saved` at `now_unix_s`.
    pub fn new(saved: Saved, now_unix_s: u64) -> Self {
        Self { ends_unix_s: now_unix_s.saturating_add(saved.ends_in.as_secs()), announce: saved.announce }
    }

    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let frame = Frame::Announce(self.announce.clone()).encode();
        [&[ROW_VERSION][..], &self.ends_unix_s.to_be_bytes(), &frame].concat()
    }

    /// Reads a row; none where it is not one.
    pub fn decode(row: &[u8]) -> Option<Self> {
        let (version, rest) = row.split_first()?;
        let (ends, frame) = rest.split_first_chunk::<8>()?;
        let announce = match Frame::decode(&Bytes::copy_from_slice(frame)) {
            Ok(Frame::Announce(announce)) if *version == ROW_VERSION => announce,
            _ => return None,
        };
        Some(Self { ends_unix_s: u64::from_be_bytes(*ends), announce })
    }

    /// How long a route may be made of the announce at `now_unix_s`; none where it is so old that
    /// its order would have been forgotten. Never longer than the announce itself signs, whatever
    /// the disk or the clock says.
    pub fn ends_in(&self, now_unix_s: u64) -> Option<Duration> {
        let lifetime = Duration::from_secs(u64::from(self.announce.content.lifetime_s));
        if now_unix_s > self.ends_unix_s.saturating_add(ORDER_MEMORY.as_secs()) {
            return None;
        }
        Some(Duration::from_secs(self.ends_unix_s.saturating_sub(now_unix_s)).min(lifetime))
    }
}

impl Router {
    /// Takes back what an earlier start saved; false where as much is known. Drain the outputs
    /// after it.
    pub fn restore(&mut self, now: Instant, inbound: &Verified<InboundAnnounce>, ends_in: Duration) -> bool {
        if inbound.origin == self.own || !self.table.restore(now, inbound, ends_in) {
            return false;
        }
        // Whoever wants its key record asks for it; to push them all would fill somebody's mailbox.
        self.refresh(inbound.origin);
        true
    }

    /// Up to `count_max` origins of which more is known than was saved, for the disk. They count as
    /// saved from then on.
    pub fn take_unsaved(&mut self, now: Instant, count_max: usize) -> Vec<(Address, Saved)> {
        let mut taken = Vec::new();
        while taken.len() < count_max
            && let Some(origin) = self.unsaved.pop_first()
        {
            taken.extend(self.table.saved(now, &origin).map(|saved| (origin, saved)));
        }
        taken
    }

    /// The disk did not take these.
    pub fn not_saved(&mut self, origins: impl IntoIterator<Item = Address>) {
        self.unsaved.extend(origins);
    }

    /// Origins of which more is known than was saved.
    pub fn unsaved(&self) -> usize {
        self.unsaved.len()
    }

    /// True where something of `address` is remembered.
    pub fn remembers(&self, address: &Address) -> bool {
        self.table.order(address).is_some()
    }

    /// Everyone that was heard within the last day, by address, from `from` on.
    pub fn known_from(&self, now: Instant, from: &Address) -> impl Iterator<Item = KnownInfo> + '_ {
        self.table.known_from(now, from)
    }
}
