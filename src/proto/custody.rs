//! What a custodian does with envelopes it holds for destinations that cannot be reached.
//!
//! The store holds the envelopes; this core decides when a destination's mailbox is read and how
//! much of it is under way at a time. Nothing leaves the store before the destination's receipt or
//! the next custodian's acknowledgement was seen, or its time ran out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::wire::{Address, PacketId};

/// Bytes handed on to one destination before its receipts come back.
pub const WINDOW_BYTES: usize = 512 * 1024;

/// Wait for a receipt before the same envelopes are handed on again.
const RETRY: Duration = Duration::from_secs(30);

/// One page of a destination's mailbox to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPage {
    /// Whose mailbox.
    pub destination: Address,
    /// Continue behind this place; from the start where it is none.
    pub after: Option<u64>,
    /// Bytes to read at most.
    pub bytes_max: usize,
}

#[derive(Debug)]
struct Handover {
    after: Option<u64>,
    reading: bool,
    at_end: bool,
    in_flight: BTreeSet<PacketId>,
    retry_at: Option<Instant>,
}

/// Hand-overs under way, one a destination that can be reached.
#[derive(Debug, Default)]
pub struct Custodian {
    handovers: BTreeMap<Address, Handover>,
    destination_of: BTreeMap<PacketId, Address>,
}

impl Custodian {
    /// None under way.
    pub fn new() -> Self {
        Self::default()
    }

    /// A destination with a mailbox became reachable, or got something while it was.
    pub fn reachable(&mut self, destination: Address) {
        let handover = self.handovers.entry(destination).or_insert_with(|| Handover {
            after: None,
            reading: false,
            at_end: false,
            in_flight: BTreeSet::new(),
            retry_at: None,
        });
        handover.at_end = false;
    }

    /// The destination went away: what was under way is read again when it is back.
    pub fn unreachable(&mut self, destination: &Address) {
        if let Some(handover) = self.handovers.remove(destination) {
            for packet in handover.in_flight {
                self.destination_of.remove(&packet);
            }
        }
    }

    /// Pages to read now.
    pub fn poll(&mut self, now: Instant) -> Vec<ReadPage> {
        let mut pages = Vec::new();
        for (destination, handover) in &mut self.handovers {
            if handover.retry_at.is_some_and(|at| at <= now) {
                handover.retry_at = None;
                handover.after = None;
                handover.at_end = false;
                for packet in std::mem::take(&mut handover.in_flight) {
                    self.destination_of.remove(&packet);
                }
            }
            if handover.reading || handover.at_end || !handover.in_flight.is_empty() {
                continue;
            }
            handover.reading = true;
            pages.push(ReadPage {
                destination: *destination,
                after: handover.after,
                bytes_max: WINDOW_BYTES,
            });
        }
        pages
    }

    /// A page was read and its envelopes were handed to the router. `next` is where the mailbox
    /// goes on.
    pub fn handed_on(
        &mut self,
        now: Instant,
        destination: &Address,
        packets: impl IntoIterator<Item = PacketId>,
        next: Option<u64>,
    ) {
        let Some(handover) = self.handovers.get_mut(destination) else { return };
        handover.reading = false;
        handover.after = next;
        handover.at_end = next.is_none();
        for packet in packets {
            handover.in_flight.insert(packet);
            self.destination_of.insert(packet, *destination);
        }
        if handover.in_flight.is_empty() && handover.at_end {
            self.handovers.remove(destination);
        } else if !handover.in_flight.is_empty() {
            handover.retry_at = now.checked_add(RETRY);
        }
    }

    /// A page could not be read: try again later.
    pub fn read_failed(&mut self, now: Instant, destination: &Address) {
        if let Some(handover) = self.handovers.get_mut(destination) {
            handover.reading = false;
            handover.at_end = true;
            handover.retry_at = now.checked_add(RETRY);
        }
    }

    /// A packet was refused on the way or found no path.
    pub fn refused(&mut self, packet: &PacketId) {
        let Some(destination) = self.destination_of.remove(packet) else { return };
        if let Some(handover) = self.handovers.get_mut(&destination) {
            handover.in_flight.remove(packet);
            // Read again at the retry, not at once: whoever refused wants to be left alone.
            handover.at_end = true;
        }
    }

    /// A receipt of `by` names these. Settles those that are for `by`; for others it is nobody's
    /// word. The caller removes them from the store whether or not they were under way here.
    pub fn receipted(&mut self, by: &Address, packets: &[PacketId]) {
        for packet in packets {
            if self.destination_of.get(packet) == Some(by) {
                self.settled(packet);
            }
        }
    }

    /// The next custodian holds these, durably. The caller removes them from the store whether or
    /// not they were under way here.
    pub fn handed_over(&mut self, packets: &[PacketId]) {
        for packet in packets {
            self.settled(packet);
        }
    }

    fn settled(&mut self, packet: &PacketId) {
        let Some(destination) = self.destination_of.remove(packet) else { return };
        let Some(handover) = self.handovers.get_mut(&destination) else { return };
        handover.in_flight.remove(packet);
        if handover.in_flight.is_empty() {
            handover.retry_at = None;
            if handover.at_end {
                self.handovers.remove(&destination);
            }
        }
    }

    /// When something is due next.
    pub fn next_wake(&self) -> Option<Instant> {
        self.handovers.values().filter_map(|h| h.retry_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: Address = Address([5; 16]);

    fn id(n: u8) -> PacketId {
        PacketId([n; 16])
    }

    #[test]
    fn a_mailbox_is_read_page_by_page_as_receipts_come() {
        let now = Instant::now();
        let mut custodian = Custodian::new();
        custodian.reachable(TO);
        let page = custodian.poll(now);
        assert_eq!(page, [ReadPage { destination: TO, after: None, bytes_max: WINDOW_BYTES }]);
        assert!(custodian.poll(now).is_empty(), "one page at a time");
        custodian.handed_on(now, &TO, [id(1), id(2)], Some(2));
        assert!(custodian.poll(now).is_empty(), "the window is full");
        custodian.receipted(&TO, &[id(1)]);
        assert!(custodian.poll(now).is_empty());
        custodian.handed_over(&[id(2)]);
        assert_eq!(custodian.poll(now)[0].after, Some(2));
        custodian.handed_on(now, &TO, [], None);
        assert!(custodian.poll(now).is_empty());
        assert_eq!(custodian.next_wake(), None);
    }

    #[test]
    fn what_is_not_receipted_is_read_again() {
        let now = Instant::now();
        let mut custodian = Custodian::new();
        custodian.reachable(TO);
        custodian.poll(now);
        custodian.handed_on(now, &TO, [id(1)], None);
        let later = custodian.next_wake().unwrap();
        assert_eq!(
            custodian.poll(later),
            [ReadPage { destination: TO, after: None, bytes_max: WINDOW_BYTES }]
        );
    }

    #[test]
    fn a_destination_that_returns_starts_over() {
        let now = Instant::now();
        let mut custodian = Custodian::new();
        custodian.reachable(TO);
        custodian.poll(now);
        custodian.handed_on(now, &TO, [id(1)], Some(1));
        custodian.unreachable(&TO);
        assert_eq!(custodian.next_wake(), None);
        custodian.reachable(TO);
        assert_eq!(custodian.poll(now)[0].after, None);
        custodian.handed_on(now, &TO, [id(1)], None);
        custodian.receipted(&TO, &[id(1)]);
        assert!(custodian.poll(now).is_empty());
    }
    #[test]
    fn a_receipt_of_somebody_else_settles_nothing() {
        let now = Instant::now();
        let mut custodian = Custodian::new();
        custodian.reachable(TO);
        custodian.poll(now);
        custodian.handed_on(now, &TO, [id(1)], None);
        custodian.receipted(&Address([6; 16]), &[id(1)]);
        assert!(custodian.next_wake().is_some(), "it is handed on again until its destination has it");
        custodian.receipted(&TO, &[id(1)]);
        assert_eq!(custodian.next_wake(), None);
    }
}
