//! What a custodian does with envelopes it holds for destinations that cannot be reached.
//!
//! The store holds the envelopes; this core decides when a destination's mailbox is read and how
//! much of it is under way at a time. Nothing leaves the store before the destination's receipt or
//! the next custodian's acknowledgement was seen, or its time ran out.
//!
//! A mailbox is read in *rounds* from its start to its end, in a window of bytes under way that grows
//! with receipts and shrinks where none come for a while. What is refused or not answered is left
//! behind for a later round, so that what cannot be handed over stands before nothing else. But what is
//! left behind arrives after what was sent later, so twice a round the mailbox is read from its start
//! once more before it is read on: after the first such trouble, which is a cut link mostly, and when a
//! silence ends. A megabyte that is never answered, before all else, costs half an hour so.
//!
//! All windows together are bounded: a link behind which a thousand destinations come up at once gets
//! megabytes, not gigabytes, and destinations that answer nothing hold up others by little. Who waits
//! for room gets it in turn.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry},
    time::{Duration, Instant},
};

use crate::wire::{Address, PacketId};

/// Bytes under way to one destination at most.
pub const WINDOW_BYTES_MAX: usize = 512 * 1024;

/// The same for a destination of which nothing is known yet.
pub const WINDOW_BYTES_START: usize = 64 * 1024;

/// The same for one that answers nothing: an envelope, whatever its size.
const WINDOW_BYTES_MIN: usize = 16 * 1024;

/// Bytes under way to all destinations.
pub const WINDOWS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Longest wait before the same envelopes are handed on again.
const RETRY: Duration = Duration::from_secs(30);

/// First wait for receipts: right after a cut the way back is often not there yet. It doubles each time
/// that none comes within it, up to [`RETRY`], in windows that shrink.
const UNANSWERED_RETRY: Duration = Duration::from_secs(8);

/// First wait after something was refused on the way: a full queue drains within that. It doubles
/// each time until a receipt comes, up to [`RETRY`].
const REFUSED_RETRY: Duration = Duration::from_secs(1);

/// How often a round is begun anew: once after trouble, once after a silence.
const RESTARTS_MAX: u8 = 2;

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

/// What a page brought.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Envelopes with their bytes, in their order.
    pub packets: Vec<(PacketId, usize)>,
    /// The last place that was read; none where there was nothing.
    pub through: Option<u64>,
    /// Whether the mailbox goes on behind it.
    pub more: bool,
}

#[derive(Debug)]
struct Handover {
    /// Where the mailbox is read on.
    after: Option<u64>,
    /// Bytes of the page that is read.
    reading: Option<usize>,
    /// Nothing is known behind what was read.
    at_end: bool,
    /// Something was put into the mailbox while a page was read, perhaps behind what comes of that.
    grew: bool,
    /// Something is read again with a later round.
    left_behind: bool,
    /// Something was refused: no more goes until what is under way has ended and a pause is over.
    refused: bool,
    /// That pause, or one after the disk failed.
    paused: bool,
    /// Since this round began, or began anew, a wait for receipts ended without one, and none came since.
    silent: bool,
    /// How often this round began anew.
    restarts: u8,
    /// How far it had come when a silence ended.
    farthest: Option<u64>,
    /// The next pause.
    pause: Duration,
    /// Wait for receipts.
    receipt_wait: Duration,
    in_flight: BTreeMap<PacketId, usize>,
    in_flight_bytes: usize,
    /// The end of the wait for a receipt, or of a pause.
    wake_at: Option<Instant>,
    window_bytes: usize,
    /// It waits for its turn.
    queued: bool,
    /// Of the page that is read.
    turn: u64,
}

impl Handover {
    fn new() -> Self {
        Self {
            after: None,
            reading: None,
            at_end: false,
            grew: false,
            left_behind: false,
            refused: false,
            paused: false,
            silent: false,
            restarts: 0,
            farthest: None,
            pause: REFUSED_RETRY,
            receipt_wait: UNANSWERED_RETRY,
            in_flight: BTreeMap::new(),
            in_flight_bytes: 0,
            wake_at: None,
            window_bytes: WINDOW_BYTES_START,
            queued: false,
            turn: 0,
        }
    }

    /// Bytes of all windows that it has.
    fn taken_bytes(&self) -> usize {
        self.in_flight_bytes.saturating_add(self.reading.unwrap_or(0))
    }

    /// Whether the next page is to be read: half of the window is free.
    fn wants_more(&self) -> bool {
        let is_held = self.reading.is_some() || self.at_end || self.refused || self.paused;
        !is_held && self.in_flight_bytes <= self.window_bytes / 2
    }

    /// A packet is not under way any more; gives its bytes.
    fn land(&mut self, packet: &PacketId) -> usize {
        let bytes = self.in_flight.remove(packet).unwrap_or(0);
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
        bytes
    }

    fn begin_anew(&mut self, restarts: u8) {
        self.after = None;
        self.at_end = false;
        self.left_behind = false;
        self.silent = false;
        self.restarts = restarts;
        self.farthest = None;
    }
}

/// Hand-overs under way, one a destination that can be reached.
#[derive(Debug, Default)]
pub struct Custodian {
    handovers: BTreeMap<Address, Handover>,
    destination_of: BTreeMap<PacketId, Address>,
    /// Who waits for room, in turn.
    queue: VecDeque<Address>,
    wakes: BTreeSet<(Instant, Address)>,
    taken_bytes: usize,
    turns: u64,
}

impl Custodian {
    /// None under way.
    pub fn new() -> Self {
        Self::default()
    }

    /// A destination with a mailbox became reachable.
    pub fn reachable(&mut self, destination: Address) {
        let handover = self.handovers.entry(destination).or_insert_with(Handover::new);
        if handover.at_end {
            handover.begin_anew(handover.restarts);
        }
        self.arrange(&destination);
    }

    /// A destination that is reachable got something into its mailbox, at this place.
    pub fn put(&mut self, destination: Address, place: u64) {
        let handover = self.handovers.entry(destination).or_insert_with(Handover::new);
        handover.at_end = false;
        handover.grew = handover.reading.is_some();
        if handover.after.is_some_and(|after| place <= after) {
            // It is more urgent than what was read last.
            handover.after = place.checked_sub(1);
        }
        self.arrange(&destination);
    }

    /// The destination went away: what was under way is read again when it is back.
    pub fn unreachable(&mut self, destination: &Address) {
        self.set_wake(destination, None);
        if let Some(handover) = self.handovers.remove(destination) {
            self.taken_bytes = self.taken_bytes.saturating_sub(handover.taken_bytes());
            for packet in handover.in_flight.keys() {
                self.destination_of.remove(packet);
            }
        }
    }

    /// Pages to read now.
    pub fn poll(&mut self, now: Instant) -> Vec<ReadPage> {
        while let Some((_, destination)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            self.wake(now, &destination);
        }
        let mut pages = Vec::new();
        while let Some(destination) = self.queue.front().copied() {
            let Some(handover) = self.handovers.get_mut(&destination).filter(|h| h.queued) else {
                self.queue.pop_front();
                continue;
            };
            if !handover.wants_more() {
                handover.queued = false;
                self.queue.pop_front();
                continue;
            }
            let bytes_max = handover.window_bytes.saturating_sub(handover.in_flight_bytes);
            let taken_bytes = self.taken_bytes.saturating_add(bytes_max);
            if taken_bytes > WINDOWS_BYTES_MAX {
                break;
            }
            self.queue.pop_front();
            self.taken_bytes = taken_bytes;
            handover.queued = false;
            handover.reading = Some(bytes_max);
            self.turns = self.turns.wrapping_add(1);
            handover.turn = self.turns;
            pages.push(ReadPage { destination, after: handover.after, bytes_max, turn: handover.turn });
        }
        pages
    }

    /// A wait is over.
    fn wake(&mut self, now: Instant, destination: &Address) {
        self.set_wake(destination, None);
        let Some(handover) = self.handovers.get_mut(destination) else { return };
        let unanswered = std::mem::take(&mut handover.in_flight);
        self.taken_bytes = self.taken_bytes.saturating_sub(std::mem::take(&mut handover.in_flight_bytes));
        if !unanswered.is_empty() {
            handover.left_behind = true;
            handover.silent = true;
            handover.window_bytes = (handover.window_bytes / 2).max(WINDOW_BYTES_MIN);
            handover.receipt_wait = handover.receipt_wait.saturating_mul(2).min(RETRY);
        }
        handover.refused = false;
        handover.paused = false;
        if !unanswered.is_empty()
            && let Some(farthest) = handover.farthest.take()
        {
            // It answers, but not to what comes first: that may be what is never answered.
            handover.after = handover.after.max(Some(farthest));
        } else if handover.left_behind && handover.restarts == 0 {
            handover.begin_anew(1);
        } else if handover.at_end {
            handover.begin_anew(0);
        }
        for packet in unanswered.keys() {
            self.destination_of.remove(packet);
        }
        self.go_on(now, destination);
    }

    /// A page was read. Gives those of its envelopes that are to be handed to the router: none where the
    /// destination has gone since, and none that is under way.
    pub fn handed_on(&mut self, now: Instant, page: &ReadPage, found: Found) -> BTreeSet<PacketId> {
        let mut fresh = BTreeSet::new();
        let Some(asked) = self.read_by(page) else { return fresh };
        let Some(handover) = self.handovers.get_mut(&page.destination) else { return fresh };
        let grew = std::mem::take(&mut handover.grew);
        // Unless the mailbox is read from its start by now.
        if handover.after == page.after {
            handover.after = found.through.or(handover.after);
            handover.at_end = !found.more && !grew;
        }
        let mut room = asked;
        for (packet, bytes) in found.packets {
            if let Entry::Vacant(place) = handover.in_flight.entry(packet) {
                // A single one may be larger than what was asked for.
                let bytes = bytes.min(room);
                room = room.saturating_sub(bytes);
                place.insert(bytes);
                self.destination_of.insert(packet, page.destination);
                fresh.insert(packet);
            }
        }
        let bytes = asked.saturating_sub(room);
        handover.in_flight_bytes = handover.in_flight_bytes.saturating_add(bytes);
        self.taken_bytes = self.taken_bytes.saturating_add(bytes);
        self.go_on(now, &page.destination);
        fresh
    }

    /// A page could not be read: try again later.
    pub fn read_failed(&mut self, now: Instant, page: &ReadPage) {
        if self.read_by(page).is_some()
            && let Some(handover) = self.handovers.get_mut(&page.destination)
        {
            handover.grew = false;
            handover.paused = true;
            self.set_wake(&page.destination, now.checked_add(RETRY));
        }
    }

    /// Ends the reading of this page, if it still is under way; gives the bytes that were asked for.
    fn read_by(&mut self, page: &ReadPage) -> Option<usize> {
        let handover = self.handovers.get_mut(&page.destination).filter(|h| h.turn == page.turn)?;
        let asked = handover.reading.take()?;
        self.taken_bytes = self.taken_bytes.saturating_sub(asked);
        Some(asked)
    }

    /// A packet was refused on the way or found no path: it goes again later, not at once. Whoever
    /// refused wants to be left alone.
    pub fn refused(&mut self, now: Instant, packet: &PacketId) {
        let Some(destination) = self.destination_of.remove(packet) else { return };
        let Some(handover) = self.handovers.get_mut(&destination) else { return };
        self.taken_bytes = self.taken_bytes.saturating_sub(handover.land(packet));
        handover.left_behind = true;
        handover.refused = true;
        self.go_on(now, &destination);
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
        let bytes = handover.land(packet);
        self.taken_bytes = self.taken_bytes.saturating_sub(bytes);
        handover.window_bytes = handover.window_bytes.saturating_add(bytes).min(WINDOW_BYTES_MAX);
        handover.pause = REFUSED_RETRY;
        handover.receipt_wait = UNANSWERED_RETRY;
        if handover.silent && handover.restarts < RESTARTS_MAX {
            let farthest = handover.after;
            handover.begin_anew(RESTARTS_MAX);
            handover.farthest = farthest;
        }
        self.go_on(now, &destination);
    }

    /// Something has moved: sets what is waited for, and the hand-over goes on or is done.
    fn go_on(&mut self, now: Instant, destination: &Address) {
        let Some(handover) = self.handovers.get_mut(destination) else { return };
        if !handover.paused {
            let mut wait = None;
            if !handover.in_flight.is_empty() {
                wait = Some(handover.receipt_wait);
            } else if handover.refused || (handover.at_end && handover.left_behind) {
                handover.paused = handover.refused;
                wait = Some(handover.pause);
                handover.pause = handover.pause.saturating_mul(2).min(RETRY);
            }
            self.set_wake(destination, wait.and_then(|wait| now.checked_add(wait)));
        }
        self.arrange(destination);
    }

    /// Forgets the hand-over that is done, or puts it in line where it has to go on.
    fn arrange(&mut self, destination: &Address) {
        let Some(handover) = self.handovers.get_mut(destination) else { return };
        if handover.wants_more() {
            if !std::mem::replace(&mut handover.queued, true) {
                self.queue.push_back(*destination);
            }
        } else if handover.at_end && handover.wake_at.is_none() && handover.reading.is_none() {
            self.handovers.remove(destination);
        }
    }

    fn set_wake(&mut self, destination: &Address, at: Option<Instant>) {
        let Some(handover) = self.handovers.get_mut(destination) else { return };
        if let Some(old) = std::mem::replace(&mut handover.wake_at, at) {
            self.wakes.remove(&(old, *destination));
        }
        if let Some(at) = at {
            self.wakes.insert((at, *destination));
        }
    }

    /// When something is due next.
    pub fn next_wake(&self) -> Option<Instant> {
        self.wakes.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: Address = Address([5; 16]);

    fn id(n: u8) -> PacketId {
        PacketId([n; 16])
    }

    /// So many bytes of equal packets.
    fn found(packets: &[PacketId], next: Option<u64>, bytes: usize) -> Found {
        let of_each = bytes.checked_div(packets.len()).unwrap_or(0);
        let packets = packets.iter().map(|id| (*id, of_each)).collect();
        Found { packets, through: next, more: next.is_some() }
    }

    /// The page that is read for [`TO`] is there, and full.
    fn handed_on<const N: usize>(
        custodian: &mut Custodian,
        now: Instant,
        packets: [PacketId; N],
        next: Option<u64>,
    ) {
        let handover = custodian.handovers.get(&TO).expect("a page is read");
        let asked = handover.reading.expect("a page is read");
        let page = ReadPage { destination: TO, after: handover.after, bytes_max: asked, turn: handover.turn };
        let fresh = custodian.handed_on(now, &page, found(&packets, next, asked));
        assert_eq!(fresh, BTreeSet::from(packets));
    }

    #[test]
    fn a_mailbox_is_read_on_as_receipts_come() {
        let now = Instant::now();
        let mut custodian = Custodian::new();
        custodian.reachable(TO);
        let page = custodian.poll(now).remove(0);
        assert_eq!((page.destination, page.after, page.bytes_max), (TO, None, WINDOW_BYTES_START));
        assert!(custodian.poll(now).is_empty(), "one page at a time");
        handed_on(&mut custodian, now, [id(1), id(2), id(3), id(4)], Some(4));
        assert!(custodian.poll(now).is_empty(), "the window is full");
        custodian.receipted(now, &TO, &[id(1)]);
        assert!(custodian.poll(now).is_empty(), "and still more than half of it");
        custodian.handed_over(now, &[id(2)]);
        let page = custodian.poll(now)[0];
        assert_eq!((page.after, page.bytes_max), (Some(4), WINDOW_BYTES_START));
        // Of a page that shows something twice, each goes once.
        let fresh = custodian.handed_on(now, &page, found(&[id(4), id(5)], None, 1000));
        assert_eq!(fresh, BTreeSet::from([id(5)]));
        custodian.receipted(now, &TO, &[id(3), id(4), id(5)]);
        assert!(custodian.poll(now).is_empty());
        assert_eq!((custodian.next_wake(), custodian.taken_bytes), (None, 0));
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
        assert_eq!((custodian.next_wake(), custodian.taken_bytes), (None, 0));
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
        // Refused again and again: the waits grow, up to a bound, and the mailbox is read on.
        let mut waits = Vec::new();
        for n in 0..7 {
            handed_on(&mut custodian, now, [id(2)], Some(3 + n));
            custodian.refused(now, &id(2));
            let wake = custodian.next_wake().unwrap();
            waits.push((wake - now).as_secs());
            now = wake;
            assert_eq!(custodian.poll(now)[0].after, Some(3 + n));
        }
        assert_eq!(waits, [2, 4, 8, 16, 30, 30, 30]);
        // The end: all that was left behind is tried once more, from the start.
        handed_on(&mut custodian, now, [], None);
        let wake = custodian.next_wake().unwrap();
        assert_eq!(custodian.poll(wake)[0].after, None);
        handed_on(&mut custodian, wake, [id(2)], None);
        custodian.receipted(wake, &TO, &[id(2)]);
        assert!(custodian.poll(wake).is_empty());
        assert_eq!(custodian.next_wake(), None);
    }

    #[test]
    fn what_comes_while_a_page_is_read_is_read_too() {
        let now = Instant::now();
        let mut custodian = Custodian::new();
        custodian.reachable(TO);
        custodian.poll(now);
        // Put behind what the page shows, and known before the page is here.
        custodian.put(TO, 2);
        handed_on(&mut custodian, now, [id(1)], None);
        custodian.receipted(now, &TO, &[id(1)]);
        assert_eq!(custodian.poll(now).len(), 1);
        handed_on(&mut custodian, now, [], None);
        assert!(custodian.poll(now).is_empty());
    }

    #[test]
    fn what_is_put_before_or_behind_what_was_read_is_read_and_nothing_else_again() {
        let now = Instant::now();
        let mut custodian = Custodian::new();
        custodian.reachable(TO);
        let page = custodian.poll(now)[0];
        let found = |n: u8, place| Found { packets: vec![(id(n), 100)], through: Some(place), more: false };
        custodian.handed_on(now, &page, found(1, 70));
        custodian.put(TO, 71);
        let page = custodian.poll(now)[0];
        assert_eq!(page.after, Some(70));
        custodian.handed_on(now, &page, found(2, 71));
        // A more urgent one, put where nothing is read any more.
        custodian.put(TO, 5);
        let page = custodian.poll(now)[0];
        assert_eq!(page.after, Some(4));
        custodian.handed_on(now, &page, found(3, 71));
        custodian.receipted(now, &TO, &[id(1), id(2), id(3)]);
        assert!(custodian.poll(now).is_empty());
        assert_eq!((custodian.next_wake(), custodian.handovers.len()), (None, 0));
    }

    #[test]
    fn silence_is_waited_for_longer_each_time_until_a_receipt_comes() {
        let mut now = Instant::now();
        let mut custodian = Custodian::new();
        custodian.reachable(TO);
        custodian.poll(now);
        let (mut waits, mut pages) = (Vec::new(), Vec::new());
        for n in 0..4 {
            handed_on(&mut custodian, now, [id(n)], Some(3 + u64::from(n)));
            let wake = custodian.next_wake().unwrap();
            waits.push((wake - now).as_secs());
            now = wake;
            pages.push(custodian.poll(now)[0].after);
        }
        assert_eq!(waits, [8, 16, 30, 30]);
        // Once more from the start, then on.
        assert_eq!(pages, [None, Some(4), Some(5), Some(6)]);
        handed_on(&mut custodian, now, [id(7)], Some(7));
        custodian.receipted(now, &TO, &[id(7)]);
        assert_eq!(custodian.poll(now)[0].after, None, "it answers: what came first goes first");
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
        let found = || found(&[id(1)], None, 100);
        assert!(custodian.handed_on(now, &before, found()).is_empty());
        custodian.reachable(TO);
        let after = custodian.poll(now).remove(0);
        assert!(custodian.handed_on(now, &before, found()).is_empty());
        assert_eq!(custodian.handed_on(now, &after, found()).len(), 1);
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
            let packet = PacketId(page.destination.0);
            custodian.handed_on(now, &page, found(&[packet], None, page.bytes_max));
            assert!(custodian.poll(now).is_empty(), "what is under way holds its window");
            custodian.receipted(now, &page.destination, &[packet]);
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

    /// A mailbox of packets of 1 KiB, and a destination.
    struct Mailbox {
        now: Instant,
        custodian: Custodian,
        rows: BTreeMap<u64, PacketId>,
        arrived: Vec<u64>,
    }

    impl Mailbox {
        fn new(rows: u64) -> Self {
            let id = |n: u64| PacketId((u128::from(n) << 64 | 7).to_be_bytes());
            let mut custodian = Custodian::new();
            custodian.reachable(TO);
            let rows = (1..=rows).map(|n| (n, id(n))).collect();
            Self { now: Instant::now(), custodian, rows, arrived: Vec::new() }
        }

        /// All that goes now arrives, and where `answers` says so its receipt is back at once.
        fn moment(&mut self, answers: impl Fn(u64) -> bool) {
            loop {
                let pages = self.custodian.poll(self.now);
                let Some(page) = pages.first() else { return };
                let from = page.after.map_or(0, |after| after + 1);
                let rows: Vec<_> = self.rows.range(from..).take((page.bytes_max / 1024).max(1)).collect();
                let through = rows.last().map(|(n, _)| **n);
                let more = through.is_some_and(|n| self.rows.range(n + 1..).next().is_some());
                let packets = rows.iter().map(|(_, id)| (**id, 1024)).collect();
                let numbers: BTreeMap<_, _> = rows.iter().map(|(n, id)| (**id, **n)).collect();
                let fresh = self.custodian.handed_on(self.now, page, Found { packets, through, more });
                for id in fresh.iter().filter(|id| answers(numbers[id])) {
                    self.arrived.push(numbers[id]);
                    self.rows.remove(&numbers[id]);
                    self.custodian.receipted(self.now, &TO, &[*id]);
                }
            }
        }

        fn wait(&mut self) -> Option<Duration> {
            let wake = self.custodian.next_wake()?;
            let waited = wake - self.now;
            self.now = wake;
            Some(waited)
        }
    }

    #[test]
    fn what_is_never_answered_stands_before_nothing_else() {
        // Three fresh windows full of it, and then some among the others.
        let is_dead = |n: u64| n <= 200 || n.is_multiple_of(50);
        let mut mailbox = Mailbox::new(5000);
        let began = mailbox.now;
        let alive = (1..=5000).filter(|n| !is_dead(*n)).count();
        while mailbox.arrived.len() < alive {
            mailbox.moment(|n| !is_dead(n));
            if mailbox.arrived.len() < alive {
                mailbox.wait().expect("something is left");
            }
        }
        assert!(mailbox.now - began < Duration::from_secs(400), "{:?}", mailbox.now - began);
        assert!(mailbox.arrived.is_sorted());
        // What is left is tried ever more seldom, and by little.
        for _ in 0..40 {
            mailbox.moment(|_| false);
            mailbox.wait().unwrap();
        }
        mailbox.moment(|_| false);
        assert!(mailbox.wait() >= Some(Duration::from_secs(15)));
        assert!(mailbox.custodian.taken_bytes <= WINDOW_BYTES_MIN);
        // And arrives once it may.
        mailbox.moment(|_| true);
        while mailbox.wait().is_some() {
            mailbox.moment(|_| true);
        }
        assert_eq!(mailbox.arrived.len(), 5000);
    }

    #[test]
    fn after_a_silence_what_came_first_goes_first() {
        for silent_waits in 1..12 {
            let mut mailbox = Mailbox::new(1000);
            for _ in 0..silent_waits {
                mailbox.moment(|_| false);
                mailbox.wait().unwrap();
            }
            mailbox.moment(|_| true);
            while mailbox.wait().is_some() {
                mailbox.moment(|_| true);
            }
            assert_eq!(mailbox.arrived.len(), 1000);
            // But for the page in which it ended.
            let first = mailbox.arrived.iter().position(|n| *n == 1).unwrap();
            assert!(first <= 64, "after {silent_waits} waits {first} came before the first");
            assert!(mailbox.arrived[first..].is_sorted());
        }
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
                    0 => custodian.reachable(destination),
                    1 => custodian.put(destination, u64::from(n)),
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
                        // Up to twice of what was asked for.
                        let found = found(&packets, (n == 3).then_some(1), page.bytes_max * usize::from(who) / 20);
                        let fresh = custodian.handed_on(now, &page, found);
                        under_way.extend(fresh.into_iter().map(|packet| (page.destination, packet)));
                    },
                    5 => if let Some((of, packet)) = under_way.pop() {
                        if n == 0 { custodian.refused(now, &packet) } else { custodian.receipted(now, &of, &[packet]) }
                    },
                    _ => now += Duration::from_secs(u64::from(n) * 11),
                }
                let taken: usize = custodian.handovers.values().map(Handover::taken_bytes).sum();
                proptest::prop_assert_eq!(taken, custodian.taken_bytes);
                proptest::prop_assert!(taken <= WINDOWS_BYTES_MAX);
                for (destination, handover) in &custodian.handovers {
                    let waits = handover.reading.is_some() || handover.queued || handover.wake_at.is_some();
                    proptest::prop_assert!(waits, "{destination:?} waits for nothing: {handover:?}");
                    let under_way: usize = handover.in_flight.values().sum();
                    proptest::prop_assert_eq!(handover.in_flight_bytes, under_way);
                    for packet in handover.in_flight.keys() {
                        proptest::prop_assert_eq!(custodian.destination_of.get(packet), Some(destination));
                    }
                }
            }
            // Everyone answers from now on: all comes to its end.
            for _ in 0..2000 {
                pages.extend(custodian.poll(now));
                for page in pages.drain(..) {
                    custodian.handed_on(now, &page, Found::default());
                }
                match custodian.next_wake() {
                    Some(at) => now = at,
                    None if custodian.handovers.is_empty() => break,
                    None => {}
                }
            }
            proptest::prop_assert!(custodian.handovers.is_empty());
            proptest::prop_assert!(custodian.destination_of.is_empty());
        }
    }
}
