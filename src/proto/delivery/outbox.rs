//! Messages on their way out: kept until the destination's signed receipt or the expiry.
//!
//! The outbox decides what to send next, never how. Each destination has a window of bytes in
//! flight that grows with receipts and halves when something is refused or times out, so that a
//! slow destination or a thin path is not flooded and a fast one is not held back. A message goes
//! out as one envelope; a file as its manifest first and, once that is receipted, its chunks.
//!
//! The messages of one envelope follow each other (`lines`): none goes too far ahead of another that
//! has no answer, and one that was lost goes again as soon as that is known.
//!
//! Each attempt is a new envelope with a packet id of its own, since relays drop what they have
//! seen. A custody acknowledgement never clears an entry, it only makes retries rare.

mod chunks;
mod custody;
mod lines;
mod refusals;

pub use custody::{CUSTODIANS_MAX, CustodyNote};

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Bound, RangeInclusive},
    time::{Duration, Instant},
};

use crate::wire::{
    Address, MessageUid, PacketId, Priority, TransferTag,
    content::chunk_count,
    control::RefuseReason,
    limits::{MAX_HOPS_MAX, PAYLOAD_BYTES_MAX},
    receipt::Receipt,
};

use self::{
    chunks::ChunkFlow,
    custody::Custody,
    lines::{Lines, Place},
    refusals::ORDERLY_WAIT,
};
use super::record::{Body, OutboxRecord};
use crate::proto::router::CustodyWish;

/// Sizes and times of the outbox.
#[derive(Debug, Clone)]
pub struct OutboxConfig {
    /// Bytes in flight to a destination nothing is known of.
    pub window_bytes_start: usize,
    /// Bytes in flight to one destination at most.
    pub window_bytes_max: usize,
    /// Wait for a receipt before the first retry.
    pub first_timeout: Duration,
    /// Longest wait between retries while nobody has custody.
    pub timeout_max: Duration,
    /// Messages kept at most.
    pub entries_max: usize,
    /// Content bytes kept at most.
    pub bytes_max: u64,
    /// Links that a message may cross.
    pub max_hops: u8,
    /// How far a message may go ahead of one without an answer, in messages of its priority to its
    /// destination. More than a destination has places for would appear there as it comes.
    pub span_max: u64,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self {
            window_bytes_start: 256 * 1024,
            window_bytes_max: 4 * 1024 * 1024,
            first_timeout: Duration::from_secs(1),
            timeout_max: Duration::from_secs(5 * 60),
            entries_max: 100_000,
            bytes_max: 1024 * 1024 * 1024,
            max_hops: MAX_HOPS_MAX,
            span_max: 2048,
        }
    }
}

/// How long to wait for a key or a path before asking again unprompted; a route that comes up
/// ends the wait at once.
const UNREACHABLE_RETRY: Duration = Duration::from_secs(30);

/// What an envelope takes of the window beside its content.
const SMALL_ENVELOPE_BYTES: usize = 256;

/// Attempts that keep a message at its place: what follows it waits for it at the destination, so what
/// was lost on the way goes again before what was not sent yet.
const ORDERLY_ATTEMPTS: u32 = 3;

/// How often a message begins anew, at its place, because the destination answers what was sent after it.
/// More often than a path is cut within the minute that others wait for it, so what is lost so often
/// anew is not lost on the way; its wait for such an answer doubles from then on.
const LOSSES_MAX: u32 = 8;

/// Packet ids remembered per message, so that a late receipt for an early attempt still counts.
const ATTEMPTS_REMEMBERED: usize = 8;

/// Why a message is not under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Nothing: it is under way, or about to be.
    None,
    /// The destination's key record is not known.
    NoKey,
    /// No path is known.
    NoPath,
    /// A relay did not take it.
    Refused(RefuseReason),
    /// A relay keeps it for the destination.
    InCustody,
}

impl Hold {
    /// The `reason` of `qpc outbox` and of `queued`.
    pub fn reason(self) -> Option<String> {
        match self {
            Hold::None => None,
            Hold::NoKey => Some("no_key".into()),
            Hold::NoPath => Some("no_path".into()),
            Hold::Refused(reason) => Some(format!("refused: {}", reason.name())),
            Hold::InCustody => Some("in_custody".into()),
        }
    }
}

/// Which envelope of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The message itself.
    Whole,
    /// A file's manifest.
    Manifest,
    /// One chunk of a file.
    Chunk(u32),
}

/// Something to be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// Which message.
    pub uid: MessageUid,
    /// Which envelope of it.
    pub part: Part,
    /// Who it is for.
    pub destination: Address,
    /// Whether relays may keep it.
    pub wish: CustodyWish,
}

/// How a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The destination has it durably, by its signed receipt.
    Delivered {
        /// From the first transmission to the receipt.
        rtt: Option<Duration>,
        /// Links crossed by the receipt.
        hops: u8,
    },
    /// Its time ran out.
    Expired,
    /// The destination refused it for good: a file that is not what was announced.
    Rejected,
    /// The destination's owner takes nothing from this node.
    Unwanted,
    /// Its sender took it back.
    Cancelled,
}

/// A message that left the outbox; its row and blob are to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Which message.
    pub uid: MessageUid,
    /// Who it was for.
    pub destination: Address,
    /// How it ended.
    pub end: End,
    /// True when a blob of its chunks is to be removed too.
    pub has_blob: bool,
}

/// Why a message is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutboxFull {
    /// Too many messages wait.
    #[error("the outbox holds {0} messages, its limit; wait for receipts or cancel some (`qpc outbox`)")]
    Entries(usize),
    /// Too many bytes wait.
    #[error(
        "the outbox holds {0} bytes, too close to its limit; wait for receipts or cancel some (`qpc outbox`)"
    )]
    Bytes(u64),
}

/// How the message of a packet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Which message.
    pub uid: MessageUid,
    /// Why it is not under way.
    pub hold: Hold,
    /// How often it, or its manifest, was sent.
    pub attempts: u32,
}

/// One line of `qpc outbox`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxLine {
    /// The message's id.
    pub uid: MessageUid,
    /// Who it is for.
    pub destination: Address,
    /// Bytes of its content.
    pub size: u64,
    /// Its priority.
    pub priority: Priority,
    /// Transmissions so far, of the message or its manifest.
    pub attempts: u32,
    /// Until the next try, where one is planned.
    pub next_retry: Option<Duration>,
    /// Until it expires.
    pub expires: Duration,
    /// Why it is not under way.
    pub hold: Hold,
    /// Chunks receipted and in all, for a file.
    pub chunks: Option<(u32, u32)>,
}

#[derive(Debug)]
struct Entry {
    record: OutboxRecord,
    /// Order of acceptance, which is the order of sending within a priority and a rank.
    order: u64,
    /// How often it was sent in vain when it last became ready; a message that others may follow, beyond
    /// [`ORDERLY_ATTEMPTS`]. What was sent less often goes first: else a silent destination's window
    /// would be taken up by the same few for ever.
    rank: u32,
    expires_at: Instant,
    attempts: u32,
    /// Of those, attempts since the destination last answered one.
    unanswered: u32,
    first_sent: Option<Instant>,
    next_at: Option<Instant>,
    hold: Hold,
    custody: Custody,
    packets: Vec<PacketId>,
    in_flight_bytes: usize,
    chunks: Option<ChunkFlow>,
    tag: Option<TransferTag>,
    /// Its place among the messages that follow each other; files do not.
    place: Option<Place>,
    /// While it is under way: with an answer to what was sent at that time or later, it was lost.
    lost_by: Option<Instant>,
    /// How often it was lost in this way, or there was room for others and not for it.
    losses: u32,
    /// How often it was refused for want of room.
    refusals: u32,
}

impl Entry {
    /// Whether others wait for it when it goes now: not once it was tried often, nor where a custodian
    /// has it, which may be for long.
    fn holds_others(&self) -> bool {
        self.unanswered < ORDERLY_ATTEMPTS && self.wait_for_custodian().is_none()
    }

    fn line(&self, now: Instant) -> OutboxLine {
        OutboxLine {
            uid: self.record.uid,
            destination: self.record.destination,
            size: self.record.body.len(),
            priority: self.record.priority(),
            attempts: self.attempts,
            next_retry: self
                .next_at
                .map(|at| at.saturating_duration_since(now).saturating_add(self.wait_after_timer())),
            expires: self.expires_at.saturating_duration_since(now),
            hold: self.hold,
            chunks: self.progress(),
        }
    }
}

type ReadyKey = (std::cmp::Reverse<Priority>, u32, u64, MessageUid);

#[derive(Debug)]
struct Destination {
    window_bytes: usize,
    in_flight_bytes: usize,
    /// True from the first refusal or timeout on: the window's size is about right, so it grows by
    /// an envelope a round trip and no longer doubles.
    found_limit: bool,
    /// Until then nothing is sent: a queue or a store on the way was full a moment ago.
    paused_until: Option<Instant>,
    /// Such pauses since something last got through.
    pushbacks: u32,
    /// Messages for which there was no room, while others are tried.
    aside: BTreeSet<MessageUid>,
    ready: BTreeSet<ReadyKey>,
    uids: BTreeSet<MessageUid>,
    /// Messages of one envelope in the order of acceptance.
    lines: Lines,
}

/// An envelope that left.
#[derive(Debug, Clone, Copy)]
struct Left {
    uid: MessageUid,
    part: Part,
    at: Instant,
}

/// The outbox of one node.
#[derive(Debug)]
pub struct Outbox {
    config: OutboxConfig,
    entries: BTreeMap<MessageUid, Entry>,
    destinations: BTreeMap<Address, Destination>,
    /// Destinations with something ready: thousands that wait for a path cost nothing at each step.
    active: BTreeSet<Address>,
    packets: BTreeMap<PacketId, Left>,
    tags: BTreeMap<TransferTag, MessageUid>,
    /// Retry and chunk timers.
    timers: BTreeSet<(Instant, MessageUid)>,
    expiries: BTreeSet<(Instant, MessageUid)>,
    next_order: u64,
    bytes: u64,
}

impl Outbox {
    /// An empty outbox.
    pub fn new(config: OutboxConfig) -> Self {
        Self {
            config,
            entries: BTreeMap::new(),
            destinations: BTreeMap::new(),
            active: BTreeSet::new(),
            packets: BTreeMap::new(),
            tags: BTreeMap::new(),
            timers: BTreeSet::new(),
            expiries: BTreeSet::new(),
            next_order: 0,
            bytes: 0,
        }
    }

    /// Messages kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when something waits for this destination.
    pub fn has(&self, destination: &Address) -> bool {
        self.destinations.contains_key(destination)
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True when a message of `bytes` fits beside what is here and the `storing` messages that are on
    /// their way to the disk, whose bytes are part of `bytes`. Asked before anything is written.
    pub fn admit(&self, storing: usize, bytes: u64) -> Result<(), OutboxFull> {
        if self.entries.len().saturating_add(storing) >= self.config.entries_max {
            return Err(OutboxFull::Entries(self.entries.len()));
        }
        if self.bytes.saturating_add(bytes) > self.config.bytes_max {
            return Err(OutboxFull::Bytes(self.bytes));
        }
        Ok(())
    }

    /// Takes a message whose row is durable. `expires_in` is what is left of its lifetime; `tag`
    /// names the transfer of a file.
    pub fn add(
        &mut self,
        now: Instant,
        record: OutboxRecord,
        expires_in: Duration,
        tag: Option<TransferTag>,
    ) {
        let uid = record.uid;
        if self.entries.contains_key(&uid) {
            return;
        }
        let destination = record.destination;
        let chunks = match &record.body {
            Body::Inline(_) => None,
            Body::File(file) => Some(ChunkFlow::new(chunk_count(file.length))),
        };
        self.bytes = self.bytes.saturating_add(record.body.len());
        let mut entry = Entry {
            order: self.next_order,
            rank: 0,
            expires_at: now.checked_add(expires_in).unwrap_or(now),
            attempts: 0,
            unanswered: 0,
            first_sent: None,
            next_at: None,
            hold: Hold::None,
            custody: Custody::default(),
            packets: Vec::new(),
            in_flight_bytes: 0,
            chunks,
            tag,
            place: None,
            lost_by: None,
            losses: 0,
            refusals: 0,
            record,
        };
        self.next_order = self.next_order.saturating_add(1);
        self.expiries.insert((entry.expires_at, uid));
        if let Some(tag) = tag {
            self.tags.insert(tag, uid);
        }
        let window_bytes = self.config.window_bytes_start;
        let dest = self.destinations.entry(destination).or_insert_with(|| Destination {
            window_bytes,
            in_flight_bytes: 0,
            found_limit: false,
            paused_until: None,
            pushbacks: 0,
            aside: BTreeSet::new(),
            ready: BTreeSet::new(),
            uids: BTreeSet::new(),
            lines: Lines::default(),
        });
        dest.uids.insert(uid);
        if entry.chunks.is_none() {
            entry.place = Some(dest.lines.push(entry.record.priority(), uid));
        }
        dest.ready.insert(ready_key(&entry));
        self.entries.insert(uid, entry);
        self.active.insert(destination);
    }

    /// The record of a message.
    pub fn record(&self, uid: &MessageUid) -> Option<&OutboxRecord> {
        self.entries.get(uid).map(|e| &e.record)
    }

    /// The message that one of a single envelope follows: the last that was accepted before it for the
    /// same destination with the same priority and has not ended.
    pub fn predecessor(&self, uid: &MessageUid) -> Option<MessageUid> {
        let entry = self.entries.get(uid)?;
        self.destinations.get(&entry.record.destination)?.lines.before(entry.place?)
    }

    /// Why a message is not under way; `None` where there is no such message.
    pub fn hold(&self, uid: &MessageUid) -> Option<Hold> {
        self.entries.get(uid).map(|e| e.hold)
    }

    /// What the next message to a destination waits for too: no path, where the first that is there has
    /// none.
    pub fn hold_towards(&self, destination: &Address) -> Hold {
        let first = self.destinations.get(destination).and_then(|dest| dest.lines.first());
        match first.and_then(|uid| self.hold(&uid)) {
            Some(Hold::NoPath) => Hold::NoPath,
            _ => Hold::None,
        }
    }

    /// Chunks of a file that the destination has, and chunks in all; `None` for anything else.
    pub fn progress(&self, uid: &MessageUid) -> Option<(u32, u32)> {
        self.entries.get(uid)?.progress()
    }

    /// How often a message, or its manifest, was sent.
    pub fn attempts(&self, uid: &MessageUid) -> Option<u32> {
        self.entries.get(uid).map(|e| e.attempts)
    }

    /// How the message that a packet belongs to stands.
    pub fn standing(&self, packet_id: &PacketId) -> Option<Standing> {
        let uid = self.packets.get(packet_id)?.uid;
        let entry = self.entries.get(&uid)?;
        Some(Standing { uid, hold: entry.hold, attempts: entry.attempts })
    }

    /// The file of a transfer.
    pub fn file_of(&self, tag: &TransferTag) -> Option<MessageUid> {
        self.tags.get(tag).copied()
    }

    /// Next envelopes to make, at most `most`, within the windows of their destinations. Each counts
    /// as under way from now on and is answered by [`Outbox::sent`] or [`Outbox::hold_back`].
    pub fn transmit(&mut self, now: Instant, most: usize) -> Vec<Transmit> {
        self.fire_timers(now);
        let mut out = Vec::new();
        let mut idle = Vec::new();
        for address in &self.active {
            let Some(dest) = self.destinations.get_mut(address) else {
                idle.push(*address);
                continue;
            };
            if dest.paused_until.is_some_and(|until| until > now) {
                continue;
            }
            dest.paused_until = None;
            let mut done = Vec::new();
            let mut next = dest.ready.first().copied();
            while let Some(key) = next {
                next = dest.ready.range((Bound::Excluded(key), Bound::Unbounded)).next().copied();
                // One envelope may always be under way, however small the window.
                let room = |dest_in_flight: usize| dest_in_flight == 0 || dest_in_flight < dest.window_bytes;
                if out.len() >= most || !room(dest.in_flight_bytes) {
                    break;
                }
                let Some(entry) = self.entries.get_mut(&key.3) else {
                    done.push(key);
                    continue;
                };
                if let Some(place) = entry.place {
                    if entry.rank == 0 && !dest.lines.may_go(place, self.config.span_max) {
                        // Nor may those behind it; what was tried often, or has a lower priority, may.
                        let behind = (key.0, 1, 0, MessageUid([0; 16]));
                        next = dest.ready.range(behind..).next().copied();
                        continue;
                    }
                    dest.lines.set_holding(place, entry.holds_others());
                }
                let length = entry.record.body.len();
                let wish = entry.custody.wish();
                let mut go = |part: Part, bytes: usize| {
                    entry.in_flight_bytes = entry.in_flight_bytes.saturating_add(bytes);
                    dest.in_flight_bytes = dest.in_flight_bytes.saturating_add(bytes);
                    out.push(Transmit { uid: key.3, part, destination: *address, wish });
                    out.len() < most && room(dest.in_flight_bytes)
                };
                match &mut entry.chunks {
                    Some(flow) if flow.open => {
                        let mut more = true;
                        while let (true, Some(index)) = (more, flow.next()) {
                            flow.cursor = index.saturating_add(1);
                            flow.in_flight.insert(index, None);
                            more = go(Part::Chunk(index), ChunkFlow::len_of(index, length));
                        }
                        if flow.next().is_none() {
                            done.push(key);
                        }
                    }
                    Some(_) => {
                        go(Part::Manifest, SMALL_ENVELOPE_BYTES);
                        done.push(key);
                    }
                    None => {
                        go(Part::Whole, SMALL_ENVELOPE_BYTES.saturating_add(length as usize));
                        done.push(key);
                    }
                }
            }
            for key in done {
                dest.ready.remove(&key);
            }
            if dest.ready.is_empty() {
                idle.push(*address);
            }
            if out.len() >= most {
                break;
            }
        }
        for address in idle {
            self.active.remove(&address);
        }
        out
    }

    /// Notes that the envelope went to the router as `packet_id`.
    pub fn sent(&mut self, now: Instant, t: &Transmit, packet_id: PacketId) {
        let Some(entry) = self.entries.get_mut(&t.uid) else { return };
        entry.first_sent.get_or_insert(now);
        let was_in_custody = std::mem::replace(&mut entry.hold, Hold::None) == Hold::InCustody;
        let wait = match (t.part, &mut entry.chunks) {
            (Part::Chunk(index), Some(flow)) => {
                // Acknowledged or given up while its bytes were read: the answer will not be needed.
                let Some(slot) = flow.in_flight.get_mut(&index) else { return };
                *slot = Some(packet_id);
                self.packets.insert(packet_id, Left { uid: t.uid, part: t.part, at: now });
                // The long wait for a custodian is not for what goes now.
                if entry.next_at.is_some() && !was_in_custody {
                    return;
                }
                backoff(&self.config, flow.timeouts.saturating_add(1))
            }
            _ => {
                self.packets.insert(packet_id, Left { uid: t.uid, part: t.part, at: now });
                entry.attempts = entry.attempts.saturating_add(1);
                entry.unanswered = entry.unanswered.saturating_add(1);
                entry.packets.push(packet_id);
                if entry.packets.len() > ATTEMPTS_REMEMBERED {
                    let old = entry.packets.remove(0);
                    self.packets.remove(&old);
                }
                let wait = backoff(&self.config, entry.unanswered);
                self.wait_under_way(&t.uid).unwrap_or_else(|| {
                    self.note_under_way(now, &t.uid);
                    wait
                })
            }
        };
        self.set_timer(t.uid, now.checked_add(wait));
    }

    /// Notes that an envelope could not be made or sent for now.
    pub fn hold_back(&mut self, now: Instant, uid: &MessageUid, hold: Hold) {
        self.pause(now, uid, hold, UNREACHABLE_RETRY);
    }

    /// The destination became reachable: what waits for it goes now.
    pub fn route_up(&mut self, destination: &Address) {
        let Some(dest) = self.destinations.get_mut(destination) else { return };
        // What was full may lie on a way that is no longer the one.
        dest.paused_until = None;
        dest.pushbacks = 0;
        let mut woken = Vec::new();
        for uid in &dest.uids {
            let Some(entry) = self.entries.get_mut(uid) else { continue };
            let waits = match entry.hold {
                Hold::NoKey | Hold::NoPath | Hold::Refused(_) => true,
                Hold::InCustody => false,
                // Sent into a path that has since gone; its timer would find out much later.
                Hold::None => entry.attempts > 1,
            };
            if waits {
                woken.push(*uid);
            }
        }
        for uid in woken {
            self.make_ready(&uid);
        }
    }

    /// The destination answered. Gives what is finished.
    pub fn receipt(&mut self, now: Instant, from: &Address, receipt: &Receipt, hops: u8) -> Vec<Finished> {
        let mut finished = Vec::new();
        let mut answered: BTreeMap<Priority, Instant> = BTreeMap::new();
        // What the destination has of a file is said beside the packets it says so for.
        for packet_id in &receipt.packet_ids {
            let Some(Left { uid, part, at }) = self.packets.get(packet_id).copied() else { continue };
            let Some(entry) = self.entries.get(&uid).filter(|e| e.record.destination == *from) else {
                continue;
            };
            match part {
                Part::Whole => {
                    let last = answered.entry(entry.record.priority()).or_insert(at);
                    *last = at.max(*last);
                    finished.extend(self.deliver(now, &uid, hops));
                }
                Part::Manifest => self.open_chunks(&uid, receipt),
                Part::Chunk(_) => {}
            }
        }
        for packet_id in &receipt.unwanted {
            let Some(Left { uid, .. }) = self.packets.get(packet_id).copied() else { continue };
            if self.entries.get(&uid).is_some_and(|e| e.record.destination == *from) {
                finished.extend(self.finish(&uid, End::Unwanted));
            }
        }
        for chunk in &receipt.chunks {
            finished.extend(self.chunk_receipt(now, from, chunk, hops));
        }
        for (priority, sent_at) in answered {
            self.send_lost_again(from, priority, sent_at);
        }
        finished
    }

    fn deliver(&mut self, now: Instant, uid: &MessageUid, hops: u8) -> Option<Finished> {
        let entry = self.entries.get(uid)?;
        let rtt = entry.first_sent.map(|at| now.saturating_duration_since(at));
        let (grow, destination) = (entry.in_flight_bytes, entry.record.destination);
        self.grow_window(uid, grow);
        self.there_is_room(&destination);
        self.finish(uid, End::Delivered { rtt, hops })
    }

    /// The destination could not open a packet: it is sealed again with the key record that came
    /// along.
    pub fn cannot_open(&mut self, from: &Address, packet_id: &PacketId) {
        let Some(Left { uid, .. }) = self.packets.get(packet_id).copied() else { return };
        if let Some(entry) = self.entries.get_mut(&uid).filter(|e| e.record.destination == *from) {
            entry.custody.heard_of_destination();
            self.packets.remove(packet_id);
            self.make_ready(&uid);
        }
    }

    /// Takes a message back.
    pub fn cancel(&mut self, uid: &MessageUid) -> Option<Finished> {
        self.finish(uid, End::Cancelled)
    }

    /// Removes what has expired.
    pub fn expire(&mut self, now: Instant) -> Vec<Finished> {
        let due: Vec<_> =
            self.expiries.iter().take_while(|(at, _)| *at <= now).map(|(_, uid)| *uid).collect();
        due.iter().filter_map(|uid| self.finish(uid, End::Expired)).collect()
    }

    /// When something is due next.
    pub fn next_wake(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let expiry = self.expiries.first().map(|(at, _)| *at);
        let pause =
            self.active.iter().filter_map(|address| self.destinations.get(address)?.paused_until).min();
        [timer, expiry, pause].into_iter().flatten().min()
    }

    /// The outbox as people see it, oldest first.
    pub fn list(&self, now: Instant) -> Vec<OutboxLine> {
        let mut entries: Vec<_> = self.entries.values().collect();
        entries.sort_by_key(|e| e.order);
        entries.into_iter().map(|e| e.line(now)).collect()
    }

    /// The first two messages whose ids are among `ids`.
    pub fn find(&self, now: Instant, ids: &RangeInclusive<MessageUid>) -> Vec<OutboxLine> {
        self.entries.range(ids.clone()).take(2).map(|(_, e)| e.line(now)).collect()
    }

    fn fire_timers(&mut self, now: Instant) {
        let due: Vec<_> = self.timers.iter().take_while(|(at, _)| *at <= now).map(|(_, uid)| *uid).collect();
        for uid in due {
            if self.leaves_the_window(now, &uid) {
                continue;
            }
            let Some(entry) = self.entries.get(&uid) else { continue };
            let timed_out = entry.hold == Hold::None;
            self.chunks_timed_out(&uid);
            if timed_out {
                self.halve_window(&uid, 2 * PAYLOAD_BYTES_MAX);
            }
            self.make_ready(&uid);
        }
    }

    /// Puts a message at its place among those that may go now; what was in flight counts as lost.
    fn make_ready(&mut self, uid: &MessageUid) {
        self.set_timer(*uid, None);
        self.note_not_under_way(uid);
        self.doubt_what_is_there(uid);
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let lost = std::mem::take(&mut entry.in_flight_bytes);
        if let Some(flow) = &mut entry.chunks {
            for packet in flow.lose_in_flight() {
                self.packets.remove(&packet);
            }
        }
        if let Some(dest) = self.destinations.get_mut(&entry.record.destination) {
            dest.in_flight_bytes = dest.in_flight_bytes.saturating_sub(lost);
            dest.ready.remove(&ready_key(entry));
            dest.aside.remove(uid);
            entry.rank = match &entry.chunks {
                Some(flow) => entry.unanswered.max(flow.timeouts),
                None => entry.unanswered.saturating_sub(ORDERLY_ATTEMPTS),
            };
            dest.ready.insert(ready_key(entry));
            self.active.insert(entry.record.destination);
        }
    }

    fn pause(&mut self, now: Instant, uid: &MessageUid, hold: Hold, wait: Duration) {
        self.note_not_under_way(uid);
        if !matches!(hold, Hold::Refused(_)) || wait > ORDERLY_WAIT {
            self.lets_others_pass(uid);
        }
        if hold != Hold::InCustody {
            self.note_under_way(now, uid);
        }
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.hold = hold;
        let lost = std::mem::take(&mut entry.in_flight_bytes);
        if let Some(flow) = &mut entry.chunks {
            for packet in flow.lose_in_flight() {
                self.packets.remove(&packet);
            }
        }
        if let Some(dest) = self.destinations.get_mut(&entry.record.destination) {
            dest.in_flight_bytes = dest.in_flight_bytes.saturating_sub(lost);
            dest.ready.remove(&ready_key(entry));
        }
        self.set_timer(*uid, now.checked_add(wait));
    }

    fn set_timer(&mut self, uid: MessageUid, at: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(&uid) else { return };
        if let Some(old) = entry.next_at.take() {
            self.timers.remove(&(old, uid));
        }
        entry.next_at = at;
        if let Some(at) = at {
            self.timers.insert((at, uid));
        }
    }

    fn grow_window(&mut self, uid: &MessageUid, bytes: usize) {
        let Some(entry) = self.entries.get(uid) else { return };
        let max = self.config.window_bytes_max;
        if let Some(dest) = self.destinations.get_mut(&entry.record.destination) {
            dest.pushbacks = 0;
            let growth = if dest.found_limit {
                // An envelope a round trip, whatever the window is.
                let share = bytes.saturating_mul(PAYLOAD_BYTES_MAX).checked_div(dest.window_bytes);
                share.unwrap_or(bytes).min(PAYLOAD_BYTES_MAX)
            } else {
                bytes
            };
            dest.window_bytes = dest.window_bytes.saturating_add(growth).min(max);
        }
    }

    fn halve_window(&mut self, uid: &MessageUid, bytes_min: usize) {
        let Some(entry) = self.entries.get(uid) else { return };
        if let Some(dest) = self.destinations.get_mut(&entry.record.destination) {
            dest.found_limit = true;
            dest.window_bytes = (dest.window_bytes / 2).max(bytes_min.min(dest.window_bytes));
        }
    }

    fn finish(&mut self, uid: &MessageUid, end: End) -> Option<Finished> {
        self.set_timer(*uid, None);
        let entry = self.entries.remove(uid)?;
        self.expiries.remove(&(entry.expires_at, *uid));
        self.bytes = self.bytes.saturating_sub(entry.record.body.len());
        for packet in &entry.packets {
            self.packets.remove(packet);
        }
        if let Some(flow) = &entry.chunks {
            for packet in flow.in_flight.values().flatten() {
                self.packets.remove(packet);
            }
        }
        if let Some(tag) = entry.tag {
            self.tags.remove(&tag);
        }
        let destination = entry.record.destination;
        if let Some(dest) = self.destinations.get_mut(&destination) {
            dest.in_flight_bytes = dest.in_flight_bytes.saturating_sub(entry.in_flight_bytes);
            dest.ready.remove(&ready_key(&entry));
            dest.uids.remove(uid);
            dest.aside.remove(uid);
            if let Some(place) = entry.place {
                dest.lines.remove(place, entry.lost_by);
            }
            if dest.uids.is_empty() {
                self.destinations.remove(&destination);
            }
        }
        Some(Finished { uid: *uid, destination, end, has_blob: entry.chunks.is_some() })
    }
}

fn ready_key(entry: &Entry) -> ReadyKey {
    (std::cmp::Reverse(entry.record.priority()), entry.rank, entry.order, entry.record.uid)
}

fn backoff(config: &OutboxConfig, attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    config.first_timeout.saturating_mul(1 << doublings).min(config.timeout_max)
}

#[cfg(any(test, feature = "testing"))]
pub(crate) mod model;
#[cfg(test)]
mod order;
#[cfg(test)]
mod tests;
