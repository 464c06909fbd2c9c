//! What a custodian's word is worth to an origin: it makes retries rare, and clears nothing.

use std::time::{Duration, Instant};

use super::{Hold, Outbox, Part, backoff};
use crate::wire::{Address, PacketId};

/// Least wait between an origin's retries of what a custodian holds.
const CUSTODY_RETRY_MIN: Duration = Duration::from_secs(10 * 60);

/// Wait for the receipt of what a custodian holds once a path to its destination is there: the
/// custodian hands it over at once, and the receipt of an earlier time may have found no way back.
const CUSTODY_CHECK: Duration = Duration::from_secs(30);

impl Outbox {
    /// A custodian holds a packet durably.
    pub fn in_custody(&mut self, now: Instant, packet_id: &PacketId) {
        let Some((uid, part)) = self.packets.get(packet_id).copied() else { return };
        let Some(entry) = self.entries.get_mut(&uid).filter(|entry| !entry.has_answered(part)) else {
            return;
        };
        if let Part::Chunk(index) = part {
            if !entry.is_sending_chunks() {
                return;
            }
            // One chunk in custody says nothing of the others: those that went down with a link are
            // sent again by the ordinary timer. Only when all of them are held is there no hurry.
            let Some(flow) = &mut entry.chunks else { return };
            flow.in_custody.insert(index);
            if !flow.in_flight.keys().all(|index| flow.in_custody.contains(index)) {
                return;
            }
        }
        let wait =
            CUSTODY_RETRY_MIN.max(Duration::from_secs(u64::from(entry.record.lifetime().as_secs() / 8)));
        entry.hold = Hold::InCustody;
        // What a custodian holds does not load the path: give its bytes back to the window.
        let freed = std::mem::take(&mut entry.in_flight_bytes);
        if let Some(dest) = self.destinations.get_mut(&entry.record.destination) {
            dest.in_flight_bytes = dest.in_flight_bytes.saturating_sub(freed);
        }
        self.set_timer(uid, now.checked_add(wait));
    }

    /// There is a path to the destination now: whoever holds its messages hands them over, and
    /// what is not receipted soon after that goes again. Not for thin paths, where hand-overs take
    /// their time.
    pub fn check_custody(&mut self, now: Instant, destination: &Address) {
        let Some(dest) = self.destinations.get(destination) else { return };
        let mut held = Vec::new();
        for uid in &dest.uids {
            let Some(entry) = self.entries.get(uid).filter(|entry| entry.hold == Hold::InCustody) else {
                continue;
            };
            // With each attempt that came to nothing the destination is worth less haste.
            let check_at = now.checked_add(CUSTODY_CHECK.max(backoff(&self.config, entry.unanswered)));
            if entry.next_at > check_at {
                held.push((*uid, check_at));
            }
        }
        for (uid, check_at) in held {
            self.set_timer(uid, check_at);
        }
    }
}
