//! What is kept of the table over a restart: the announces themselves, so that an old one stays old.
//!
//! A row bears the mark of the node that wrote it, and what bears it is not verified again: a million
//! announces would be two million signatures before the first message. Rows of another's hand, or of
//! an earlier identity, can be: the announce is whole.

use std::{
    ops::Bound,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    crypto::{MeshIdentity, OwnSeal, own_seal::MARK_BYTES},
    proto::{
        table::{KnownInfo, ORDER_MEMORY, Saved},
        verify::{InboundAnnounce, Verified, Verifier, VerifyError},
    },
    wire::{Address, Announce, Frame, NetworkId},
};

use super::Router;

/// First byte of a row: its layout.
const ROW_VERSION: u8 = 2;

/// The seal of a node's rows.
pub fn row_seal(identity: &MeshIdentity, network: NetworkId) -> OwnSeal {
    OwnSeal::new(identity, network, "routes")
}

/// One origin's row: `version 1, route's end in seconds of steady time 8, the announce as a frame, the
/// writer's mark on all of that 16`.
#[derive(Debug, Clone)]
pub struct SavedRow {
    /// When no route is made of it any more, in seconds of steady time ([`crate::proto::node_clock`]).
    pub ends_s: u64,
    announce: Announce,
    /// True for a row that this node wrote, and so verified.
    is_own: bool,
}

impl SavedRow {
    /// What is written of `saved` at `now_s`.
    pub fn new(saved: Saved, now_s: u64) -> Self {
        let ends_s = now_s.saturating_add(saved.ends_in.as_secs());
        Self { ends_s, announce: saved.announce, is_own: true }
    }

    /// The row's bytes, marked.
    pub fn encode(&self, seal: &OwnSeal) -> Vec<u8> {
        let frame = Frame::Announce(self.announce.clone()).encode();
        let mut row = [&[ROW_VERSION][..], &self.ends_s.to_be_bytes(), &frame].concat();
        row.extend(seal.mark(&row));
        row
    }

    /// Reads a row; none where it is not one.
    pub fn decode(row: &[u8], seal: &OwnSeal) -> Option<Self> {
        let (marked, mark) = row.split_last_chunk::<MARK_BYTES>()?;
        let (version, rest) = marked.split_first()?;
        let (ends, frame) = rest.split_first_chunk::<8>()?;
        let announce = match Frame::decode(&Bytes::copy_from_slice(frame)) {
            Ok(Frame::Announce(announce)) if *version == ROW_VERSION => announce,
            _ => return None,
        };
        let is_own = seal.knows(marked, mark);
        Some(Self { ends_s: u64::from_be_bytes(*ends), announce, is_own })
    }

    /// How long a route may be made of the announce at `now_s`; none where it is so old that
    /// its order would have been forgotten. Never longer than the announce itself signs, whatever
    /// the disk or the clock says.
    pub fn ends_in(&self, now_s: u64) -> Option<Duration> {
        let lifetime = Duration::from_secs(u64::from(self.announce.content.lifetime_s));
        if now_s > self.ends_s.saturating_add(ORDER_MEMORY.as_secs()) {
            return None;
        }
        Some(Duration::from_secs(self.ends_s.saturating_sub(now_s)).min(lifetime))
    }

    /// The announce: a disk is not trusted, so what this node did not write itself is verified.
    ///
    /// # Errors
    /// As [`Verifier::verify_announce`].
    pub fn verify(self, verifier: &mut Verifier) -> Result<Verified<InboundAnnounce>, VerifyError> {
        if self.is_own {
            Ok(Verified::sealed(self.announce))
        } else {
            verifier.verify_announce(self.announce)
        }
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
    /// saved from then on. Each call goes on where the last one ended, so that where more news come
    /// in than are written every origin has its turn.
    pub fn take_unsaved(&mut self, now: Instant, count_max: usize) -> Vec<(Address, Saved)> {
        let mut taken = Vec::new();
        while taken.len() < count_max
            && let Some(origin) = self.next_unsaved()
        {
            self.unsaved.remove(&origin);
            self.saved_through = origin;
            taken.extend(self.table.saved(now, &origin).map(|saved| (origin, saved)));
        }
        taken
    }

    fn next_unsaved(&self) -> Option<Address> {
        let behind = (Bound::Excluded(self.saved_through), Bound::Unbounded);
        self.unsaved.range(behind).next().or_else(|| self.unsaved.first()).copied()
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
