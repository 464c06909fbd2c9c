//! What a custodian's word is worth to an origin: it makes retries rare, and clears nothing.

use std::time::{Duration, Instant};

use super::{Entry, Hold, Left, Outbox, Part, backoff};
use crate::{
    proto::router::CustodyWish,
    wire::{Address, MessageUid, PacketId},
};

/// Custodians that may have a message at a time: a second one for the case that the first does not
/// come back. An attempt has one at most, since each hands on what it holds before it lets go of it.
pub const CUSTODIANS_MAX: u8 = 2;

/// Least wait between an origin's retries of what a custodian holds.
const CUSTODY_RETRY_MIN: Duration = Duration::from_secs(10 * 60);

/// Wait for the receipt of what a custodian holds once a path to its destination is there: the
/// custodian hands it over at once, and the receipt of an earlier time may have found no way back.
const CUSTODY_CHECK: Duration = Duration::from_secs(30);

/// What goes again while custodians have it takes room of its destination's window for so long: the next
/// attempt is hours away, and what got no answer by then loads no path.
const UNDER_WAY_MAX: Duration = Duration::from_secs(30);

/// What is known of a message's custodians.
#[derive(Debug, Default)]
pub(super) struct Custody {
    /// Attempts that one took.
    taken: u8,
    /// Nothing was heard of the destination since.
    is_waiting: bool,
}

impl Custody {
    pub(super) fn wish(&self) -> CustodyWish {
        if self.taken < CUSTODIANS_MAX { CustodyWish::Welcome } else { CustodyWish::Declined }
    }

    /// The destination itself answered: the message is on its way, not put aside.
    pub(super) fn heard_of_destination(&mut self) {
        self.is_waiting = false;
    }
}

/// A message that went into custody, as a restart is to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CustodyNote {
    /// Which.
    pub uid: MessageUid,
    /// Attempts that a custodian took.
    pub taken: u8,
    /// Attempts so far.
    pub attempts: u32,
    /// Until the next one.
    pub wait: Duration,
}

impl Entry {
    /// The wait for a custodian, where one has the message and nothing was heard of its destination
    /// since.
    pub(super) fn wait_for_custodian(&self) -> Option<Duration> {
        let wait =
            CUSTODY_RETRY_MIN.max(Duration::from_secs(u64::from(self.record.lifetime().as_secs() / 8)));
        self.custody.is_waiting.then_some(wait)
    }

    /// True for an attempt that went while custodians have its message, and is under way.
    fn is_extra_attempt(&self) -> bool {
        self.hold == Hold::None
            && self.in_flight_bytes > 0
            && self.custody.is_waiting
            && !self.is_sending_chunks()
    }

    /// From its next timer to its next attempt.
    pub(super) fn wait_after_timer(&self) -> Duration {
        let wait = self.wait_for_custodian().filter(|_| self.is_extra_attempt());
        wait.unwrap_or_default().saturating_sub(UNDER_WAY_MAX)
    }
}

impl Outbox {
    /// A custodian holds a packet durably. Gives what a restart is to know of its message, where that
    /// waits for its custodians now.
    pub fn in_custody(&mut self, now: Instant, packet_id: &PacketId) -> Option<CustodyNote> {
        let Left { uid, part, .. } = self.packets.get(packet_id).copied()?;
        let entry = self.entries.get_mut(&uid).filter(|entry| !entry.has_answered(part))?;
        if let Part::Chunk(index) = part {
            if !entry.is_sending_chunks() {
                return None;
            }
            // One chunk in custody says nothing of the others: those that went down with a link are
            // sent again by the ordinary timer. Only when all of them are held is there no hurry.
            let flow = entry.chunks.as_mut()?;
            flow.in_custody.insert(index);
            if !flow.in_flight.keys().all(|index| flow.in_custody.contains(index)) {
                return None;
            }
        }
        // Told again of an attempt that was handed on: it is the same one.
        let is_known = std::mem::replace(&mut entry.hold, Hold::InCustody) == Hold::InCustody;
        if !is_known {
            entry.custody.taken = entry.custody.taken.saturating_add(1);
        }
        entry.custody.is_waiting = true;
        let wait = entry.wait_for_custodian()?;
        let kept = CustodyNote { uid, taken: entry.custody.taken, attempts: entry.attempts, wait };
        // What a custodian holds does not load the path: give its bytes back to the window.
        let freed = std::mem::take(&mut entry.in_flight_bytes);
        if let Some(dest) = self.destinations.get_mut(&entry.record.destination) {
            dest.in_flight_bytes = dest.in_flight_bytes.saturating_sub(freed);
        }
        self.set_timer(uid, now.checked_add(wait));
        self.note_not_under_way(&uid);
        self.lets_others_pass(&uid);
        (!is_known).then_some(kept)
    }

    /// A message that was added a moment ago had gone into custody before the restart.
    pub fn restore_custody(&mut self, now: Instant, kept: &CustodyNote) {
        let Some(entry) = self.entries.get_mut(&kept.uid) else { return };
        entry.custody = Custody { taken: kept.taken, is_waiting: true };
        entry.attempts = kept.attempts;
        // Never longer than it would wait anew, whatever the disk says.
        let wait = kept.wait.min(entry.wait_for_custodian().unwrap_or_default());
        self.pause(now, &kept.uid, Hold::InCustody, wait);
    }

    /// How long to wait with what went just now; `None` where no custodian has the message.
    pub(super) fn wait_under_way(&self, uid: &MessageUid) -> Option<Duration> {
        let wait = self.entries.get(uid)?.wait_for_custodian()?;
        Some(wait.min(UNDER_WAY_MAX))
    }

    /// An attempt that went while custodians have its message got no answer for [`UNDER_WAY_MAX`]: it counts
    /// as under way no more, and the next one is as far away as ever. False where that is not so.
    pub(super) fn leaves_the_window(&mut self, now: Instant, uid: &MessageUid) -> bool {
        let Some(entry) = self.entries.get_mut(uid).filter(|entry| entry.is_extra_attempt()) else {
            return false;
        };
        let wait = entry.wait_after_timer();
        let freed = std::mem::take(&mut entry.in_flight_bytes);
        if let Some(dest) = self.destinations.get_mut(&entry.record.destination) {
            dest.in_flight_bytes = dest.in_flight_bytes.saturating_sub(freed);
        }
        self.set_timer(*uid, now.checked_add(wait));
        true
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
