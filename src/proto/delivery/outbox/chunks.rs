//! The chunks of a file on their way: which are there, which are under way.
//!
//! The destination's bitmap rules. It only ever adds to what this end believes while both know of
//! the same transfer; whenever the manifest goes again, because the destination asks for it or
//! because nothing moves any more, the bitmap that comes with its receipt is taken as it is. So a
//! destination that lost what it had gets it again, and an old receipt that comes late costs some
//! chunks that go twice and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::{End, Entry, Finished, Hold, Outbox, Part, backoff, ready_key};
use crate::wire::{
    Address, MessageUid, PacketId,
    limits::CHUNK_BYTES,
    receipt::{ChunkReceipt, Receipt, TransferState},
};

/// Timeouts in a row after which chunks are no longer sent on trust: the manifest asks first.
const TIMEOUTS_MAX: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct ChunkFlow {
    pub(super) total: u32,
    /// Chunks that the destination said it has.
    pub(super) acked: BTreeSet<u32>,
    /// Chunks under way; their packet id once the envelope is made.
    pub(super) in_flight: BTreeMap<u32, Option<PacketId>>,
    /// Those of them that a custodian holds.
    pub(super) in_custody: BTreeSet<u32>,
    /// Lowest chunk that was neither sent nor acknowledged since the last timeout.
    pub(super) cursor: u32,
    /// True once the destination holds the manifest.
    pub(super) open: bool,
    /// True where what it said before is not believed any more: only the receipt of a manifest that
    /// went since opens it again.
    doubted: bool,
    /// Timeouts since a chunk was last acknowledged.
    pub(super) timeouts: u32,
}

impl ChunkFlow {
    pub(super) fn new(total: u32) -> Self {
        Self { total, ..Self::default() }
    }

    pub(super) fn next(&self) -> Option<u32> {
        (self.cursor..self.total).find(|i| !self.acked.contains(i) && !self.in_flight.contains_key(i))
    }

    /// True when the destination has every chunk, by its own word.
    pub(super) fn is_all_there(&self) -> bool {
        self.acked.len() >= self.total as usize
    }

    /// Nothing counts as under way any more; gives the packets it was under way in.
    pub(super) fn lose_in_flight(&mut self) -> impl Iterator<Item = PacketId> + use<> {
        self.cursor = 0;
        self.in_custody.clear();
        std::mem::take(&mut self.in_flight).into_values().flatten()
    }

    pub(super) fn len_of(index: u32, length: u64) -> usize {
        let start = u64::from(index).saturating_mul(CHUNK_BYTES as u64);
        length.saturating_sub(start).min(CHUNK_BYTES as u64) as usize
    }
}

impl Entry {
    pub(super) fn is_sending_chunks(&self) -> bool {
        self.chunks.as_ref().is_some_and(|flow| flow.open)
    }

    /// Chunks that the destination has, and chunks in all.
    pub(super) fn progress(&self) -> Option<(u32, u32)> {
        self.chunks.as_ref().map(|flow| (flow.acked.len() as u32, flow.total))
    }

    /// True for the manifest of a file whose destination has it: what became of other copies of it
    /// says nothing of the chunks.
    pub(super) fn has_answered(&self, part: Part) -> bool {
        part == Part::Manifest && self.is_sending_chunks()
    }
}

impl Outbox {
    /// The destination holds the manifest. What it has of the file, its bitmap says, which comes in
    /// the same receipt; in one that is too long for one envelope it may not.
    pub(super) fn open_chunks(&mut self, uid: &MessageUid, receipt: &Receipt) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let Some(flow) = entry.chunks.as_mut().filter(|flow| !flow.open) else { return };
        flow.open = true;
        let has_bitmap = receipt.chunks.iter().any(|chunks| Some(chunks.tag) == entry.tag);
        if std::mem::take(&mut flow.doubted) || has_bitmap {
            flow.acked.clear();
        }
        entry.hold = Hold::None;
        entry.unanswered = 0;
        entry.custody.heard_of_destination();
        self.make_ready(uid);
    }

    /// The manifest goes again before any chunk does. Receipts for the manifests of before no longer
    /// count: they say what was then.
    fn close_chunks(&mut self, uid: &MessageUid, is_doubted: bool) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let Some(flow) = &mut entry.chunks else { return };
        flow.open = false;
        flow.doubted = is_doubted;
        for packet in std::mem::take(&mut entry.packets) {
            self.packets.remove(&packet);
        }
    }

    /// All is there, and yet the destination does not say that it is whole: was it?
    pub(super) fn doubt_what_is_there(&mut self, uid: &MessageUid) {
        let flow = self.entries.get(uid).and_then(|entry| entry.chunks.as_ref());
        if flow.is_some_and(|flow| flow.open && flow.is_all_there()) {
            self.close_chunks(uid, true);
        }
    }

    /// The timer of a file whose chunks were on their way fired.
    pub(super) fn chunks_timed_out(&mut self, uid: &MessageUid) {
        let Some(flow) = self.entries.get_mut(uid).and_then(|entry| entry.chunks.as_mut()) else { return };
        if !flow.open {
            return;
        }
        flow.timeouts = flow.timeouts.saturating_add(1);
        if flow.timeouts > TIMEOUTS_MAX {
            let is_doubted = flow.is_all_there();
            self.close_chunks(uid, is_doubted);
        }
    }

    /// The destination got a chunk of a file that it knows nothing of.
    fn manifest_wanted(&mut self, uid: &MessageUid) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.custody.heard_of_destination();
        let Some(flow) = &mut entry.chunks else { return };
        if flow.open {
            flow.acked.clear();
            flow.timeouts = 0;
            self.close_chunks(uid, true);
            self.make_ready(uid);
        } else if entry.hold != Hold::None {
            // It waits for a path or with a custodian, and the destination is within reach.
            self.make_ready(uid);
        }
        // Else the manifest is on its way: each chunk that was brings such an answer.
    }

    pub(super) fn chunk_receipt(
        &mut self,
        now: Instant,
        from: &Address,
        receipt: &ChunkReceipt,
        hops: u8,
    ) -> Option<Finished> {
        let uid = *self.tags.get(&receipt.tag)?;
        let entry = self.entries.get_mut(&uid)?;
        if entry.record.destination != *from {
            return None;
        }
        let flow = entry.chunks.as_mut()?;
        if receipt.total != flow.total {
            return None;
        }
        match receipt.state {
            TransferState::Complete => return self.deliver(now, &uid, hops),
            TransferState::Rejected => return self.finish(&uid, End::Rejected),
            TransferState::ManifestWanted => {
                self.manifest_wanted(&uid);
                return None;
            }
            // It says what was before.
            TransferState::Partial | TransferState::Other(_) if flow.doubted => return None,
            TransferState::Partial | TransferState::Other(_) => {}
        }
        flow.open = true;
        let mut freed = 0usize;
        for index in 0..flow.total {
            if receipt.has(index)
                && flow.acked.insert(index)
                && let Some(packet) = flow.in_flight.remove(&index)
            {
                if let Some(packet) = packet {
                    self.packets.remove(&packet);
                }
                freed = freed.saturating_add(ChunkFlow::len_of(index, entry.record.body.len()));
            }
        }
        if freed > 0 {
            flow.timeouts = 0;
        }
        entry.hold = Hold::None;
        entry.unanswered = 0;
        entry.custody.heard_of_destination();
        // The whole window of a file in order ends with its in-flight set. What a custodian held has
        // left the window before.
        let freed = if flow.in_flight.is_empty() { entry.in_flight_bytes } else { freed };
        let freed = freed.min(entry.in_flight_bytes);
        entry.in_flight_bytes = entry.in_flight_bytes.saturating_sub(freed);
        let more = flow.next().is_some();
        let timeouts = flow.timeouts;
        let wait = backoff(&self.config, timeouts.saturating_add(1));
        if let Some(dest) = self.destinations.get_mut(&entry.record.destination) {
            dest.in_flight_bytes = dest.in_flight_bytes.saturating_sub(freed);
            dest.ready.remove(&ready_key(entry));
            entry.rank = timeouts;
            if more {
                dest.ready.insert(ready_key(entry));
                self.active.insert(entry.record.destination);
            }
        }
        self.grow_window(&uid, freed);
        self.set_timer(uid, now.checked_add(wait));
        None
    }
}
