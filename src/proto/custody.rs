//! What a custodian does with envelopes it holds for destinations that cannot be reached.
//!
//! The store holds the envelopes; this core decides when a destination's mailbox is read and how
//! much of it is under way at a time. Nothing leaves the store before the destination's receipt or
//! the next custodian's acknowledgement was seen, or its time ran out.
//!
//! A mailbox is read in windows that grow while receipts come and shrink while none do, and all
//! windows together are bounded: a link behind which a thousand destinations come up at once gets
//! megabytes, not gigabytes, and destinations that answer nothing hold up others by little. Who waits
//! for a window gets it in turn.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use crate::wire::{Address, PacketId};

/// Bytes handed on to one destination before its receipts come back, at most.
pub const WINDOW_BYTES_MAX: usize = 512 * 1024;

/// The same for a destination of which nothing is known yet.
pub const WINDOW_BYTES_START: usize = 64 * 1024;

/// The same for one that answers nothing: an envelope, whatever its size.
const WINDOW_BYTES_MIN: usize = 16 * 1024;

/// Bytes handed on to all destinations before their receipts come back.
pub const WINDOWS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Longest wait before the same envelopes are handed on again.
const RETRY: Duration = Duration::from_secs(30);

/// First wait for receipts: right after a cut the way back is often not there yet. It doubles with each
/// round that brings none, up to [`RETRY`], in windows that shrink.
const UNANSWERED_RETRY: Duration = Duration::from_secs(8);

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
    /// Tells it from a page that was asked for before the destination went away and came back.
    turn: u64,
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
    /// Wait for receipts.
    receipt_wait: Duration,
    in_flight: BTreeSet<PacketId>,
    /// The next round from the start of the mailbox. Until then no further page is read if nothing
    /// is under way.
    retry_at: Option<Instant>,
    /// Bytes of its next page.
    window_bytes: usize,
    /// Bytes it has of all windows while it reads or something is under way.
    taken_bytes: usize,
    /// It waits for its turn.
    queued: bool,
    /// Of the page that is read.
    turn: u64,
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
            receipt_wait: UNANSWERED_RETRY,
            in_flight: BTreeSet::new(),
            retry_at: None,
            window_bytes: WINDOW_BYTES_START,
            taken_bytes: 0,
            queued: false,
            turn: 0,
        }
    }

    fn is_busy(&self) -> bool {
        self.reading || !self.in_flight.is_empty()
    }
}

/// Hand-overs under way, one a destination that can be reached.
#[derive(Debug, Default)]
pub struct Custodian {
    handovers: BTreeMap<Address, Handover>,
    destination_of: BTreeMap<PacketId, Address>,
    /// Who waits for a window, in turn.
    queue: VecDeque<Address>,
    retries: BTreeSet<(Instant, Address)>,
    taken_bytes: usize,
    turns: u64,
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
        self.arrange(&destination);
    }

    /// The destination went away: what was under way is read again when it is back.
    pub fn unreachable(&mut self, destination: &Address) {
        self.set_retry(destination, None);
        if let Some(handover) = self.handovers.remove(destination) {
            self.taken_bytes = self.taken_bytes.saturating_sub(handover.taken_bytes);
            for packet in handover.in_flight {
                self.destination_of.remove(&packet);
            }
        }
    }

    /// Pages to read now.
    pub fn poll(&mut self, now: Instant) -> Vec<ReadPage> {
        while let Some((_, destination)) = self.retries.first().copied().filter(|(at, _)| *at <= now) {
            self.start_over(&destination);
        }
        let mut pages = Vec::new();
        while let Some(destination) = self.queue.front().copied() {
            let Some(handover) = self.handovers.get_mut(&destination).filter(|h| h.queued) else {
                self.queue.pop_front();
                continue;
            };
            let taken_bytes = self.taken_bytes.saturating_add(handover.window_bytes);
            if taken_bytes > WINDOWS_BYTES_MAX {
                break;
            }
            self.queue.pop_front();
            self.taken_bytes = taken_bytes;
            handover.taken_bytes = handover.window_bytes;
            handover.queued = false;
            handover.reading = true;
            self.turns = self.turns.wrapping_add(1);
            handover.turn = self.turns;
            let (after, bytes_max) = (handover.after, handover.window_bytes);
            pages.push(ReadPage { destination, after, bytes_max, turn: handover.turn });
        }
        pages
    }

    /// The time of a retry has come: the mailbox is read from its start.
    fn start_over(&mut self, destination: &Address) {
        self.set_retry(destination, None);
        let Some(handover) = self.handovers.get_mut(destination) else { return };
        handover.after = None;
        handover.at_end = false;
        handover.left_behind = false;
        let unanswered = std::mem::take(&mut handover.in_flight);
        if !unanswered.is_empty() {
            handover.window_bytes = (handover.window_bytes / 2).max(WINDOW_BYTES_MIN);
            handover.receipt_wait = handover.receipt_wait.saturating_mul(2).min(RETRY);
        }
        for packet in unanswered {
            self.destination_of.remove(&packet);
        }
        self.arrange(destination);
    }

    /// A page was read; `next` is where the mailbox goes on. True where its envelopes are to be
    /// handed to the router: the destination may have gone since.
    pub fn handed_on(
        &mut self,
        now: Instant,
        page: &ReadPage,
        packets: impl IntoIterator<Item = PacketId>,
        next: Option<u64>,
    ) -> bool {
        let destination = &page.destination;
        let Some(handover) = self.read_by(page) else { return false };
        handover.reading = false;
        handover.after = next;
        handover.at_end = next.is_none() && !std::mem::take(&mut handover.grew);
        let packets: Vec<_> = packets.into_iter().collect();
        handover.in_flight.extend(&packets);
        let wait = (!handover.in_flight.is_empty()).then_some(handover.receipt_wait);
        self.destination_of.extend(packets.into_iter().map(|packet| (packet, *destination)));
        if let Some(wait) = wait {
            self.set_retry(destination, now.checked_add(wait));
        }
        self.arrange(destination);
        true
    }

    /// A page could not be read: try again later.
    pub fn read_failed(&mut self, now: Instant, page: &ReadPage) {
        if let Some(handover) = self.read_by(page) {
            handover.reading = false;
            handover.grew = false;
            self.set_retry(&page.destination, now.checked_add(RETRY));
            self.arrange(&page.destination);
        }
    }

    /// The hand-over that asked for this page, if it still is under way.
    fn read_by(&mut self, page: &ReadPage) -> Option<&mut Handover> {
        let handover = self.handovers.get_mut(&page.destination)?;
        (handover.reading && handover.turn == page.turn).then_some(handover)
    }

    /// A packet was refused on the way or found no path: it goes again in a later round, not at once.
    /// Whoever refused wants to be left alone.
    pub fn refused(&mut self, now: Instant, packet: &PacketId) {
        let Some(destination) = self.destination_of.remove(packet) else { return };
        let Some(handover) = self.handovers.get_mut(&destination) else { return };
        handover.in_flight.remove(packet);
        handover.left_behind = true;
        self.ended(now, &destination);
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
        handover.receipt_wait = UNANSWERED_RETRY;
        if handover.in_flight.is_empty() && !handover.left_behind {
            handover.window_bytes = handover.window_bytes.saturating_mul(2).min(WINDOW_BYTES_MAX);
        }
        self.ended(now, &destination);
    }

    /// A packet is not under way any more.
    fn ended(&mut self, now: Instant, destination: &Address) {
        let Some(handover) = self.handovers.get_mut(destination) else { return };
        if !handover.in_flight.is_empty() {
            return;
        }
        let mut retry_at = None;
        if handover.left_behind {
            retry_at = now.checked_add(handover.pause);
            handover.pause = handover.pause.saturating_mul(2).min(RETRY);
        }
        self.set_retry(destination, retry_at);
        self.arrange(destination);
    }

    /// After any change: gives the window back where nothing is under way, and forgets the hand-over
    /// or puts it in line where it has to go on.
    fn arrange(&mut self, destination: &Address) {
        let Some(handover) = self.handovers.get_mut(destination) else { return };
        if handover.is_busy() {
            return;
        }
        self.taken_bytes = self.taken_bytes.saturating_sub(std::mem::take(&mut handover.taken_bytes));
        if handover.retry_at.is_some() {
            return;
        }
        if handover.at_end {
            self.handovers.remove(destination);
        } else if !std::mem::replace(&mut handover.queued, true) {
            self.queue.push_back(*destination);
        }
    }

    fn set_retry(&mut self, destination: &Address, at: Option<Instant>) {
        let Some(handover) = self.handovers.get_mut(destination) else { return };
        if let Some(old) = std::mem::replace(&mut handover.retry_at, at) {
            self.retries.remove(&(old, *destination));
        }
        if let Some(at) = at {
            self.retries.insert((at, *destination));
        }
    }

    /// When something is due next.
    pub fn next_wake(&self) -> Option<Instant> {
        self.retries.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: Address = Address([5; 16]);

    fn id(n: u8) -> PacketId {
        PacketId([n; 16])
    }

    /// The page that is read for [`TO`] is there.
    fn handed_on<const N: usize>(
        custodian: &mut Custodian,
        now: Instant,
        packets: [PacketId; N],
        next: Option<u64>,
    ) {
        let turn = custodian.handovers.get(&TO).map_or(0, |handover| handover.turn);
        let page = ReadPage { destination: TO, after: None, bytes_max: 0, turn };
        assert!(custodian.handed_on(now, &page, packets, next));
    }

    #[test]
    fn a_mailbox_is_read_page_by_page_as_receipts_come() {
        let now = Instant::now();
        let mut custodian = Custodian::new();
        custodian.reachable(TO);
        let page = custodian.poll(now).remove(0);
        assert_eq!((page.destination, page.after, page.bytes_max), (TO, None, WINDOW_BYTES_START));
        assert!(custodian.poll(now).is_empty(), "one page at a time");
        handed_on(&mut custodian, now, [id(1), id(2)], Some(2));
        assert!(custodian.poll(now).is_empty(), "the window is full");
        custodian.receipted(now, &TO, &[id(1)]);
        assert!(custodian.poll(now).is_empty());
        custodian.handed_over(now, &[id(2)]);
        assert_eq!(custodian.poll(now)[0].after, Some(2));
        handed_on(&mut custodian, now, [], None);
        assert!(custodian.poll(now).is_empty());
        assert_eq!(custodian.next_wake(), None);
    }

    #[test]
    fn what_is_not_receipted_is_read_again() {
        let now = Instant::now();
        let mut custodian = Custodian::new();
        custodian.reachable(TO);
        custodian.poll(now);
        handed_on(&mut custodian, now, [id(1)], None);
        let later = custodian.next_wake().unwrap();
        let page = custodian.poll(later).remove(0);
        assert_eq!((page.destination, page.after), (TO, None));
        assert_eq!(page.bytes_max, WINDOW_BYTES_START / 2, "and less of it, until it answers");
    }

    #[test]
    fn a_destination_that_returns_starts_over() {
        let now = Instant::now();
        let mut custodian = Custodian::new();
        custodian.reachable(TO);
        custodian.poll(now);
        handed_on(&mut custodian, now, [id(1)], Some(1));
        custodian.unreachable(&TO);
        assert_eq!(custodian.next_wake(), None);
        custodian.reachable(TO);
        assert_eq!(custodian.poll(now)[0].after, None);
        handed_on(&mut custodian, now, [id(1)], None);
        custodian.receipted(now, &TO, &[id(1)]);
        assert!(custodian.poll(now).is_empty());
    }

    #[test]
    fn what_was_refused_goes_again_though_the_rest_arrived() {
        let mut now = Instant::now();
        let mut custodian = Custodian::new();
        custodian.reachable(TO);
        custodian.poll(now);
        handed_on(&mut custodian, now, [id(1), id(2), id(3)], Some(3));
        custodian.refused(now, &id(2));
        custodian.receipted(now, &TO, &[id(1), id(3)]);
        assert!(custodian.poll(now).is_empty(), "a moment's rest");
        now += REFUSED_RETRY;
        assert_eq!(custodian.next_wake(), Some(now));
        assert_eq!(custodian.poll(now)[0].after, None, "from the start, where it still is");
        // Refused to the last one, again and again: the waits grow, up to a bound.
        let mut waits = Vec::new();
        for _ in 0..7 {
            handed_on(&mut custodian, now, [id(2)], Some(3));
            custodian.refused(now, &id(2));
            let wake = custodian.next_wake().unwrap();
            waits.push((wake - now).as_secs());
            now = wake;
            assert_eq!(custodian.poll(now)[0].after, None);
        }
        assert_eq!(waits, [2, 4, 8, 16, 30, 30, 30]);
        handed_on(&mut custodian, now, [id(2)], Some(3));
        custodian.receipted(now, &TO, &[id(2)]);
        assert_eq!(custodian.poll(now)[0].after, Some(3), "now what is behind it");
        handed_on(&mut custodian, now, [], None);
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
        handed_on(&mut custodian, now, [id(1)], None);
        custodian.receipted(now, &TO, &[id(1)]);
        assert_eq!(custodian.poll(now).len(), 1);
        handed_on(&mut custodian, now, [], None);
        assert!(custodian.poll(now).is_empty());
    }

    #[test]
    fn silence_is_waited_for_longer_each_time_until_a_receipt_comes() {
        let mut now = Instant::now();
        let mut custodian = Custodian::new();
        custodian.reachable(TO);
        custodian.poll(now);
        let mut waits = Vec::new();
        for _ in 0..4 {
            handed_on(&mut custodian, now, [id(1)], Some(3));
            let wake = custodian.next_wake().unwrap();
            waits.push((wake - now).as_secs());
            now = wake;
            assert_eq!(custodian.poll(now)[0].after, None);
        }
        assert_eq!(waits, [8, 16, 30, 30]);
        handed_on(&mut custodian, now, [id(1)], Some(3));
        custodian.receipted(now, &TO, &[id(1)]);
        custodian.poll(now);
        handed_on(&mut custodian, now, [id(2)], None);
        assert_eq!(custodian.next_wake(), Some(now + UNANSWERED_RETRY));
    }

    #[test]
    fn a_disk_that_does_not_answer_is_asked_again() {
        let now = Instant::now();
        let mut custodian = Custodian::new();
        custodian.reachable(TO);
        let page = custodian.poll(now).remove(0);
        custodian.read_failed(now, &page);
        assert!(custodian.poll(now).is_empty());
        assert_eq!(custodian.poll(custodian.next_wake().unwrap()).len(), 1);
    }

    #[test]
    fn a_receipt_of_somebody_else_settles_nothing() {
        let now = Instant::now();
        let mut custodian = Custodian::new();
        custodian.reachable(TO);
        custodian.poll(now);
        handed_on(&mut custodian, now, [id(1)], None);
        custodian.receipted(now, &Address([6; 16]), &[id(1)]);
        assert!(custodian.next_wake().is_some(), "it is handed on again until its destination has it");
        custodian.receipted(now, &TO, &[id(1)]);
        assert_eq!(custodian.next_wake(), None);
    }

    #[test]
    fn a_page_asked_for_before_the_destination_went_away_is_not_handed_on() {
        let now = Instant::now();
        let mut custodian = Custodian::new();
        custodian.reachable(TO);
        let before = custodian.poll(now).remove(0);
        custodian.unreachable(&TO);
        assert!(!custodian.handed_on(now, &before, [id(1)], None));
        custodian.reachable(TO);
        let after = custodian.poll(now).remove(0);
        assert!(!custodian.handed_on(now, &before, [id(1)], None));
        assert!(custodian.handed_on(now, &after, [id(1)], None));
    }

    fn to(n: u8) -> Address {
        Address([n; 16])
    }

    #[test]
    fn all_windows_together_are_bounded_and_everyone_gets_a_turn() {
        let now = Instant::now();
        let mut custodian = Custodian::new();
        for n in 0..=255 {
            custodian.reachable(to(n));
        }
        let at_once = WINDOWS_BYTES_MAX / WINDOW_BYTES_START;
        let mut turns = BTreeSet::new();
        let mut open = custodian.poll(now);
        assert_eq!(open.len(), at_once);
        while let Some(page) = open.pop() {
            assert!(turns.insert(page.destination), "nobody twice before all had a turn");
            custodian.handed_on(now, &page, [PacketId(page.destination.0)], None);
            assert!(custodian.poll(now).is_empty(), "what is under way holds its window");
            custodian.receipted(now, &page.destination, &[PacketId(page.destination.0)]);
            let next = custodian.poll(now);
            assert!(next.len() <= 1);
            open.extend(next);
        }
        assert_eq!(turns.len(), 256);
        assert_eq!((custodian.taken_bytes, custodian.handovers.len()), (0, 0));
    }

    #[test]
    fn a_window_grows_with_receipts_and_shrinks_without() {
        let mut now = Instant::now();
        let mut custodian = Custodian::new();
        custodian.reachable(TO);
        let mut windows = Vec::new();
        for n in 1..=5u8 {
            windows.push(custodian.poll(now)[0].bytes_max / 1024);
            handed_on(&mut custodian, now, [id(n)], Some(u64::from(n)));
            custodian.receipted(now, &TO, &[id(n)]);
        }
        assert_eq!(windows, [64, 128, 256, 512, 512]);
        windows.clear();
        for n in 6..=13u8 {
            windows.push(custodian.poll(now)[0].bytes_max / 1024);
            handed_on(&mut custodian, now, [id(n)], Some(u64::from(n)));
            now = custodian.next_wake().unwrap();
        }
        assert_eq!(windows, [512, 256, 128, 64, 32, 16, 16, 16]);
    }

    proptest::proptest! {
        /// Whatever comes in whatever order: the windows add up, nobody who can be reached and has
        /// something left is forgotten, and at the end of all waits everyone had all pages.
        #[test]
        fn windows_add_up_and_nobody_is_forgotten(
            steps in proptest::collection::vec((0u8..7, 0u8..40, 0u8..4), 1..400),
        ) {
            let mut now = Instant::now();
            let mut custodian = Custodian::new();
            let mut pages: Vec<ReadPage> = Vec::new();
            let mut under_way: Vec<(Address, PacketId)> = Vec::new();
            let mut next_packet = 0u32;
            for (what, who, n) in steps {
                let destination = to(who);
                match what {
                    0 | 1 => custodian.reachable(destination),
                    2 => {
                        custodian.unreachable(&destination);
                        under_way.retain(|(of, _)| *of != destination);
                    }
                    3 => pages.extend(custodian.poll(now)),
                    4 => if let Some(page) = pages.pop() {
                        let packets: Vec<_> = (0..n).map(|_| {
                            next_packet += 1;
                            let mut id = [0; 16];
                            id[..4].copy_from_slice(&next_packet.to_be_bytes());
                            PacketId(id)
                        }).collect();
                        let ids = packets.clone();
                        if custodian.handed_on(now, &page, packets, (n == 3).then_some(1)) {
                            under_way.extend(ids.into_iter().map(|packet| (page.destination, packet)));
                        }
                    },
                    5 => if let Some((of, packet)) = under_way.pop() {
                        if n == 0 { custodian.refused(now, &packet) } else { custodian.receipted(now, &of, &[packet]) }
                    },
                    _ => now += Duration::from_secs(u64::from(n) * 11),
                }
                let taken: usize = custodian.handovers.values().map(|h| h.taken_bytes).sum();
                proptest::prop_assert_eq!(taken, custodian.taken_bytes);
                proptest::prop_assert!(taken <= WINDOWS_BYTES_MAX);
                for (destination, handover) in &custodian.handovers {
                    let waits = handover.is_busy() || handover.queued || handover.retry_at.is_some();
                    proptest::prop_assert!(waits, "{destination:?} waits for nothing: {handover:?}");
                    proptest::prop_assert_eq!(handover.taken_bytes > 0, handover.is_busy());
                }
            }
            // Everyone answers from now on: all comes to its end.
            for _ in 0..2000 {
                pages.extend(custodian.poll(now));
                for page in pages.drain(..) {
                    custodian.handed_on(now, &page, [], None);
                }
                match custodian.next_wake() {
                    Some(at) => now = at,
                    None if custodian.handovers.is_empty() => break,
                    None => {}
                }
            }
            proptest::prop_assert!(custodian.handovers.is_empty());
        }
    }
}
