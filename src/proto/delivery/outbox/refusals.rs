//! What an origin does when a packet of its is not taken.

use std::time::{Duration, Instant};

use super::{
    Entry, Hold, LOSSES_MAX, Left, Outbox, Part, SMALL_ENVELOPE_BYTES, UNREACHABLE_RETRY, chunks::ChunkFlow,
    ready_key,
};
use crate::wire::{Address, MessageUid, PacketId, control::RefuseReason, limits::PAYLOAD_BYTES_MAX};

/// Pause after a full queue on the way: some round trips of a LAN, few of the internet. It doubles
/// while nothing gets through.
const PUSHBACK_PAUSE: Duration = Duration::from_millis(20);

/// Doublings of that pause: who stays full is asked once in 1.3 s, whatever waits for it.
const PUSHBACK_DOUBLINGS_MAX: u32 = 6;

/// Times in a row that a message is refused for want of room before others are tried: it may be larger
/// than they are.
const REFUSALS_IN_A_ROW: u32 = 4;

/// Longest wait a neighbour's refusal may ask for.
const REFUSED_RETRY_MAX: Duration = Duration::from_secs(3600);

/// Longest wait after a refusal in which a message keeps others from going too far ahead: above that of a
/// full queue.
pub(super) const ORDERLY_WAIT: Duration = Duration::from_secs(2);

impl Outbox {
    /// A relay, or the own router, did not take a packet.
    pub fn refused(
        &mut self,
        now: Instant,
        packet_id: &PacketId,
        reason: RefuseReason,
        retry_after: Duration,
    ) {
        let Some(Left { uid, part, .. }) = self.packets.get(packet_id).copied() else { return };
        if self.entries.get(&uid).is_none_or(|e| e.hold == Hold::InCustody || e.has_answered(part)) {
            return;
        }
        if matches!(reason, RefuseReason::Congested | RefuseReason::RateLimited) {
            self.push_back(now, &uid, retry_after);
            if let Some(entry) = self.entries.get_mut(&uid).filter(|entry| entry.place.is_some()) {
                entry.unanswered = entry.unanswered.saturating_sub(1);
            }
            return self.put_back(packet_id, &uid, part, reason);
        }
        if reason == RefuseReason::StoreFull {
            // The next message would meet the same, and with it all that wait. This one keeps its place,
            // but one that is too large is not to stand before the others.
            self.push_back(now, &uid, retry_after);
            if let Some(entry) = self.entries.get_mut(&uid).filter(|entry| entry.place.is_some()) {
                entry.refusals = entry.refusals.saturating_add(1);
                if entry.losses <= LOSSES_MAX {
                    // It was answered, and would be taken as any other.
                    entry.unanswered = entry.unanswered.saturating_sub(1);
                }
                if !entry.refusals.is_multiple_of(REFUSALS_IN_A_ROW) {
                    return self.put_back(packet_id, &uid, part, reason);
                }
                if let Some(dest) = self.destinations.get_mut(&entry.record.destination) {
                    dest.aside.insert(uid);
                }
            }
        } else {
            self.halve_window(&uid, 2 * PAYLOAD_BYTES_MAX);
        }
        let custody_wait = self.entries.get(&uid).and_then(Entry::wait_for_custodian);
        let (hold, wait) = match (reason, custody_wait) {
            // What it has custodians for waits for them.
            (RefuseReason::NoRoute, Some(wait)) => (Hold::InCustody, wait),
            (RefuseReason::NoRoute, None) => (Hold::NoPath, UNREACHABLE_RETRY),
            (other, _) => (Hold::Refused(other), self.config.first_timeout),
        };
        self.pause(now, &uid, hold, wait.max(retry_after.min(REFUSED_RETRY_MAX)));
    }

    /// Somewhere on the way to a destination there is no room: it gets nothing for a moment, and
    /// then less at a time, down to one envelope.
    fn push_back(&mut self, now: Instant, uid: &MessageUid, retry_after: Duration) {
        let Some(entry) = self.entries.get(uid) else { return };
        let Some(dest) = self.destinations.get_mut(&entry.record.destination) else { return };
        // A burst of refusals is one sign of one full queue.
        let is_first = dest.paused_until.is_none_or(|until| until <= now);
        if is_first {
            dest.pushbacks = dest.pushbacks.saturating_add(1);
        }
        let doublings = dest.pushbacks.saturating_sub(1).min(PUSHBACK_DOUBLINGS_MAX);
        let pause = PUSHBACK_PAUSE.saturating_mul(1 << doublings);
        dest.paused_until = now.checked_add(pause.max(retry_after.min(REFUSED_RETRY_MAX)));
        if is_first {
            self.halve_window(uid, SMALL_ENVELOPE_BYTES);
        }
    }

    /// What did not find room goes again, at its place; the others stay under way.
    fn put_back(&mut self, packet_id: &PacketId, uid: &MessageUid, part: Part, reason: RefuseReason) {
        self.packets.remove(packet_id);
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let Some(dest) = self.destinations.get_mut(&entry.record.destination) else { return };
        let length = entry.record.body.len();
        let freed = match (part, &mut entry.chunks) {
            (Part::Chunk(index), Some(flow)) => {
                flow.in_flight.remove(&index);
                flow.cursor = flow.cursor.min(index);
                ChunkFlow::len_of(index, length)
            }
            _ => entry.in_flight_bytes,
        };
        // What a custodian holds has left the window before.
        let freed = freed.min(entry.in_flight_bytes);
        entry.in_flight_bytes = entry.in_flight_bytes.saturating_sub(freed);
        dest.in_flight_bytes = dest.in_flight_bytes.saturating_sub(freed);
        dest.ready.insert(ready_key(entry));
        self.active.insert(entry.record.destination);
        if !matches!(part, Part::Chunk(_)) {
            entry.hold = Hold::Refused(reason);
            self.set_timer(*uid, None);
            self.note_not_under_way(uid);
        }
    }

    /// A destination that was full took something: what stepped aside goes to its place again.
    pub(super) fn there_is_room(&mut self, destination: &Address) {
        let Some(dest) = self.destinations.get_mut(destination) else { return };
        for uid in std::mem::take(&mut dest.aside) {
            if self.begins_anew(&uid) {
                self.make_ready(&uid);
            }
        }
    }

    /// Others got through and this one did not. True where it begins anew, at its place among them: what
    /// gets through in no way however often it goes is not to stand before them.
    pub(super) fn begins_anew(&mut self, uid: &MessageUid) -> bool {
        let Some(entry) = self.entries.get_mut(uid) else { return false };
        entry.losses = entry.losses.saturating_add(1);
        let begins = entry.losses <= LOSSES_MAX;
        if begins {
            entry.unanswered = 0;
        }
        begins
    }
}
