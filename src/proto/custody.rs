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

/// First wait after something was refused on the way: a full queue drains within that. It doubles
/// with each round that brings nothing to its end, up to [`RETRY`].
const REFUSED_RETRY: Duration = Duration::from_secs(1);

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
    /// Where the mailbox is read on.
    after: Option<u64>,
    reading: bool,
    /// Nothing is known behind what was read.
    at_end: bool,
    /// Something was put into the mailbox while it was read, perhaps behind what comes of that.
    grew: bool,
    /// Something was refused, and is read again with a later round.
    left_behind: bool,
    /// Wait before the round after one that left something behind.
    pause: Duration,
    in_flight: BTreeSet<PacketId>,
    /// The next round from the start of the mailbox. Until then no further page is read if nothing
    /// is under way.
    retry_at: Option<Instant>,
}

impl Handover {
    fn new() -> Self {
        Self {
            after: None,
            reading: false,
            at_end: false,
            grew: false,
            left_behind: false,
            pause: REFUSED_RETRY,
            in_flight: BTreeSet::new(),
            retry_at: None,
        }
    }

    /// A packet is not under way any more. True where that was the last word on the mailbox.
    fn ended(&mut self, now: Instant) -> bool {
        if !self.in_flight.is_empty() {
            return false;
        }
        self.retry_at = None;
        if self.left_behind {
            self.retry_at = now.checked_add(self.pause);
            self.pause = self.pause.saturating_mul(2).min(RETRY);
        }
        self.retry_at.is_none() && self.at_end && !self.reading
    }
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
        let handover = self.handovers.entry(destination).or_insert_with(Handover::new);
        handover.at_end = false;
        handover.grew = handover.reading;
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
                handover.left_behind = false;
                for packet in std::mem::take(&mut handover.in_flight) {
                    self.destination_of.remove(&packet);
                }
            }
            let waits = !handover.in_flight.is_empty() || handover.retry_at.is_some();
            if handover.reading || handover.at_end || waits {
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
        handover.at_end = next.is_none() && !std::mem::take(&mut handover.grew);
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
            handover.grew = false;
            handover.retry_at = now.checked_add(RETRY);
        }
    }

    /// A packet was refused on the way or found no path: it goes again in a later round, not at once.
    /// Whoever refused wants to be left alone.
    pub fn refused(&mut self, now: Instant, packet: &PacketId) {
        let Some(destination) = self.destination_of.remove(packet) else { return };
        let Some(handover) = self.handovers.get_mut(&destination) else { return };
        handover.in_flight.remove(packet);
        handover.left_behind = true;
        handover.ended(now);
    }

    /// A receipt of `by` names these. Settles those that are for `by`; for others it is nobody's
    /// word. The caller removes them from the store whether or not they were under way here.
    pub fn receipted(&mut self, now: Instant, by: &Address, packets: &[PacketId]) {
        for packet in packets {
            if self.destination_of.get(packet) == Some(by) {
                self.settled(now, packet);
            }
        }
    }

    /// The next custodian holds these, durably. The caller removes them from the store whether or
    /// not they were under way here.
    pub fn handed_over(&mut self, now: Instant, packets: &[PacketId]) {
        for packet in packets {
            self.settled(now, packet);
        }
    }

    fn settled(&mut self, now: Instant, packet: &PacketId) {
        let Some(destination) = self.destination_of.remove(packet) else { return };
        let Some(handover) = self.handovers.get_mut(&destination) else { return };
        handover.in_flight.remove(packet);
        handover.pause = REFUSED_RETRY;
        if handover.ended(now) {
            self.handovers.remove(&destination);
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
        custodian.receipted(now, &TO, &[id(1)]);
        assert!(custodian.poll(now).is_empty());
        custodian.handed_over(now, &[id(2)]);
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
        custodian.receipted(now, &TO, &[id(1)]);
        assert!(custodian.poll(now).is_empty());
    }

    #[test]
    fn what_was_refused_goes_again_though_the_rest_arrived() {
        let mut now = Instant::now();
        let mut custodian = Custodian::new();
        custodian.reachable(TO);
        custodian.poll(now);
        custodian.handed_on(now, &TO, [id(1), id(2), id(3)], Some(3));
        custodian.refused(now, &id(2));
        custodian.receipted(now, &TO, &[id(1), id(3)]);
        assert!(custodian.poll(now).is_empty(), "a moment's rest");
        now += REFUSED_RETRY;
        assert_eq!(custodian.next_wake(), Some(now));
        assert_eq!(custodian.poll(now)[0].after, None, "from the start, where it still is");
        // Refused to the last one, again and again: the waits grow, up to a bound.
        let mut waits = Vec::new();
        for _ in 0..7 {
            custodian.handed_on(now, &TO, [id(2)], Some(3));
            custodian.refused(now, &id(2));
            let wake = custodian.next_wake().unwrap();
            waits.push((wake - now).as_secs());
            now = wake;
            assert_eq!(custodian.poll(now)[0].after, None);
        }
        assert_eq!(waits, [2, 4, 8, 16, 30, 30, 30]);
        custodian.handed_on(now, &TO, [id(2)], Some(3));
        custodian.receipted(now, &TO, &[id(2)]);
        assert_eq!(custodian.poll(now)[0].after, Some(3), "now what is behind it");
        custodian.handed_on(now, &TO, [], None);
        assert_eq!(custodian.next_wake(), None);
        assert!(custodian.poll(now).is_empty());
    }

    #[test]
    fn what_comes_while_a_page_is_read_is_read_too() {
        let now = Instant::now();
        let mut custodian = Custodian::new();
        custodian.reachable(TO);
        custodian.poll(now);
        // Put behind what the page shows, and known before the page is here.
        custodian.reachable(TO);
        custodian.handed_on(now, &TO, [id(1)], None);
        custodian.receipted(now, &TO, &[id(1)]);
        assert_eq!(custodian.poll(now).len(), 1);
        custodian.handed_on(now, &TO, [], None);
        assert!(custodian.poll(now).is_empty());
    }

    #[test]
    fn a_disk_that_does_not_answer_is_asked_again() {
        let now = Instant::now();
        let mut custodian = Custodian::new();
        custodian.reachable(TO);
        custodian.poll(now);
        custodian.read_failed(now, &TO);
        assert!(custodian.poll(now).is_empty());
        assert_eq!(custodian.poll(custodian.next_wake().unwrap()).len(), 1);
    }

    #[test]
    fn a_receipt_of_somebody_else_settles_nothing() {
        let now = Instant::now();
        let mut custodian = Custodian::new();
        custodian.reachable(TO);
        custodian.poll(now);
        custodian.handed_on(now, &TO, [id(1)], None);
        custodian.receipted(now, &Address([6; 16]), &[id(1)]);
        assert!(custodian.next_wake().is_some(), "it is handed on again until its destination has it");
        custodian.receipted(now, &TO, &[id(1)]);
        assert_eq!(custodian.next_wake(), None);
    }
}
