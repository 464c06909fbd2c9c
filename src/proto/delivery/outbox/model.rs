//! The outbox against a simple model of it: whatever is sent, answered, refused, lost, held and
//! taken back in whatever order, every message ends once and for a reason, no window is exceeded,
//! nothing that is left is ever stuck, and a destination that answers gets all of it.

#![allow(clippy::unwrap_used, reason = "what is not as it should be ends the test")]

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    proto::delivery::record::FileRecord,
    wire::{
        Digest, Lifetime,
        limits::CHUNK_BYTES,
        receipt::{ChunkReceipt, TransferState},
    },
};

const HOUR: Duration = Duration::from_secs(3600);

/// All wait for custodians and refusals within this, at the lifetimes that the actions give.
const PATIENCE: Duration = Duration::from_secs(8 * 3600);

fn config() -> OutboxConfig {
    OutboxConfig {
        window_bytes_start: 40_000,
        window_bytes_max: 200_000,
        entries_max: 12,
        bytes_max: 300_000,
        span_max: 2,
        ..OutboxConfig::default()
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    /// The packet is named.
    Packet,
    /// The bitmap of what the destination of the model has.
    Bitmap,
    /// Some bitmap of an earlier time or of no time at all.
    Stale(u8),
    ManifestWanted,
    CannotOpen,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    Add {
        to: u8,
        chunks: u8,
        bytes: u16,
        priority: u8,
    },
    Transmit {
        most: u8,
        held_back: Option<Hold>,
    },
    /// By the `packet`-th packet of all that ever left, counted from the last.
    Answer {
        packet: u8,
        by_another: bool,
        answer: Answer,
    },
    Whole {
        packet: u8,
        by_another: bool,
        is_sound: bool,
    },
    Refuse {
        packet: u8,
        reason: RefuseReason,
        retry_s: u16,
    },
    Custody {
        packet: u8,
    },
    /// The destination's disk is restored from a backup, or lost.
    Forgets {
        to: u8,
    },
    RouteUp {
        to: u8,
    },
    CheckCustody {
        to: u8,
    },
    Cancel {
        message: u8,
    },
    Passes {
        ms: u32,
    },
}

struct Message {
    to: Address,
    bytes: u64,
    /// None for a message without chunks.
    chunks: Option<u32>,
    priority: Priority,
    order: usize,
    expires_at: Instant,
    /// Packets of its last attempts, the newest last.
    attempts: Vec<PacketId>,
    /// Chunks that the destination has; none where it knows nothing of the file.
    there: Option<BTreeSet<u32>>,
}

struct Model {
    now: Instant,
    outbox: Outbox,
    messages: BTreeMap<MessageUid, Message>,
    ended: BTreeSet<MessageUid>,
    /// Every packet that ever left.
    packets: Vec<(PacketId, MessageUid, Part)>,
    /// Those of them that could not be opened or did not fit a queue: they need not be remembered.
    unsure: BTreeSet<PacketId>,
    sent: usize,
}

fn address(n: u8) -> Address {
    Address([n; 16])
}

fn tag(uid: &MessageUid) -> TransferTag {
    TransferTag(uid.0)
}

fn bitmap(total: u32, have: impl Fn(u32) -> bool) -> Vec<u8> {
    let mut bitmap = vec![0u8; (total as usize).div_ceil(8)];
    for i in (0..total).filter(|i| have(*i)) {
        bitmap[(i / 8) as usize] |= 1 << (i % 8);
    }
    bitmap
}

impl Model {
    fn new(now: Instant) -> Self {
        Self {
            now,
            outbox: Outbox::new(config()),
            messages: BTreeMap::new(),
            ended: BTreeSet::new(),
            packets: Vec::new(),
            unsure: BTreeSet::new(),
            sent: 0,
        }
    }

    fn bytes(&self) -> u64 {
        self.messages.values().map(|message| message.bytes).sum()
    }

    fn packet(&self, back: u8) -> Option<(PacketId, MessageUid, Part)> {
        let at = self.packets.len().checked_sub(1 + usize::from(back) % self.packets.len().max(1))?;
        self.packets.get(at).copied()
    }

    fn step(&mut self, action: Action) {
        match action {
            Action::Add { to, chunks, bytes, priority } => self.add(to, chunks, bytes, priority),
            Action::Transmit { most, held_back } => {
                self.transmit(usize::from(most), held_back);
            }
            Action::Answer { packet, by_another, answer } => {
                if let Some((id, uid, part)) = self.packet(packet) {
                    self.answer(id, uid, part, by_another, answer);
                }
            }
            Action::Whole { packet, by_another, is_sound } => {
                let Some((_, uid, _)) = self.packet(packet) else { return };
                let Some(message) = self.messages.get(&uid) else { return };
                let Some(total) = message.chunks else { return };
                let to = message.to;
                let state = if is_sound { TransferState::Complete } else { TransferState::Rejected };
                let receipt = self.of_file(uid, state, Vec::new(), total, vec![]);
                let from = if by_another { address(99) } else { to };
                let ended = self.outbox.receipt(self.now, &from, &receipt, 1);
                self.ends(ended, if by_another { vec![] } else { vec![uid] }, |end| match end {
                    End::Delivered { .. } => is_sound,
                    End::Rejected => !is_sound,
                    _ => false,
                });
            }
            Action::Refuse { packet, reason, retry_s } => {
                if let Some((id, ..)) = self.packet(packet) {
                    self.unsure.insert(id);
                    self.outbox.refused(self.now, &id, reason, Duration::from_secs(u64::from(retry_s)));
                }
            }
            Action::Custody { packet } => {
                if let Some((id, ..)) = self.packet(packet) {
                    self.outbox.in_custody(self.now, &id);
                }
            }
            Action::Forgets { to } => {
                for message in self.messages.values_mut().filter(|message| message.to == address(to)) {
                    message.there = None;
                }
            }
            Action::RouteUp { to } => self.outbox.route_up(&address(to)),
            Action::CheckCustody { to } => self.outbox.check_custody(self.now, &address(to)),
            Action::Cancel { message } => {
                let at = usize::from(message) % self.messages.len().max(1);
                let Some(uid) = self.messages.keys().nth(at).copied() else { return };
                let ended = self.outbox.cancel(&uid);
                self.ends(ended, vec![uid], |end| end == End::Cancelled);
            }
            Action::Passes { ms } => {
                self.now += Duration::from_millis(u64::from(ms));
                self.expire();
            }
        }
    }

    fn add(&mut self, to: u8, chunks: u8, bytes: u16, priority: u8) {
        let n = self.messages.len() + self.ended.len();
        // Uids say nothing of the order.
        let uid = MessageUid([(n as u8).wrapping_mul(83); 16]);
        if self.messages.contains_key(&uid) || self.ended.contains(&uid) {
            return;
        }
        let (body, chunks) = match chunks {
            0 => (Body::Inline(vec![7; usize::from(bytes) % 14_000]), None),
            _ => {
                let last = u64::from(bytes) % CHUNK_BYTES as u64 + 1;
                let length = u64::from(chunks) * CHUNK_BYTES as u64 + last;
                let file = FileRecord { length, sha256: Digest([0; 32]), file_key: Digest([0; 32]) };
                (Body::File(file), Some(u32::from(chunks) + 1))
            }
        };
        let fits =
            self.messages.len() < config().entries_max && self.bytes() + body.len() <= config().bytes_max;
        assert_eq!(self.outbox.admit(0, body.len()).is_ok(), fits);
        if !fits {
            return;
        }
        let record = OutboxRecord {
            uid,
            destination: address(to),
            name: String::new(),
            sent_at_unix_ms: 0,
            lifetime: Lifetime::ONE_DAY.code(),
            priority,
            body,
        };
        let expires_in = HOUR * 24;
        self.messages.insert(
            uid,
            Message {
                to: address(to),
                bytes: record.body.len(),
                chunks,
                priority: record.priority(),
                order: n,
                expires_at: self.now + expires_in,
                attempts: Vec::new(),
                there: None,
            },
        );
        self.outbox.add(self.now, record, expires_in, chunks.map(|_| tag(&uid)));
    }

    /// Sends what is due; gives it.
    fn transmit(&mut self, most: usize, held_back: Option<Hold>) -> Vec<(PacketId, Transmit)> {
        // Timers that are due change windows; then it is known what may go.
        assert!(self.outbox.transmit(self.now, 0).is_empty());
        let mut windows: BTreeMap<Address, (usize, usize)> = BTreeMap::new();
        for (address, dest) in &self.outbox.destinations {
            windows.insert(*address, (dest.in_flight_bytes, dest.window_bytes));
        }
        let due = self.outbox.transmit(self.now, most);
        assert!(due.len() <= most);
        let mut places = BTreeMap::new();
        let mut left = Vec::new();
        for t in due {
            let message = self.messages.get_mut(&t.uid).expect("what has ended is not sent");
            assert_eq!(t.destination, message.to);
            let rank = self.outbox.entries[&t.uid].rank;
            let place = (std::cmp::Reverse(message.priority), rank, message.order);
            assert!(places.insert(t.destination, place).is_none_or(|before| before <= place));
            let bytes = match (t.part, message.chunks) {
                (Part::Whole, None) => SMALL_ENVELOPE_BYTES + message.bytes as usize,
                (Part::Manifest, Some(_)) => SMALL_ENVELOPE_BYTES,
                (Part::Chunk(index), Some(total)) => {
                    assert!(index < total);
                    ChunkFlow::len_of(index, message.bytes)
                }
                other => panic!("{other:?}"),
            };
            let (in_flight, window) = windows.get_mut(&t.destination).unwrap();
            assert!(*in_flight == 0 || *in_flight < *window, "{t:?}: {in_flight} of {window}");
            *in_flight += bytes;
            if t.part == Part::Whole && rank == 0 {
                let lines = &self.outbox.destinations[&t.destination].lines;
                let place = self.outbox.entries[&t.uid].place.unwrap();
                assert!(lines.may_go(place, config().span_max), "{t:?} is too far ahead");
            }
            self.sent += 1;
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(self.sent as u64).to_be_bytes());
            let id = PacketId(id);
            if !matches!(t.part, Part::Chunk(_)) && held_back.is_none() {
                message.attempts.push(id);
            }
            left.push((id, t));
        }
        for (address, (in_flight, _)) in &windows {
            assert_eq!(self.outbox.destinations[address].in_flight_bytes, *in_flight);
        }
        for (id, t) in &left {
            match held_back {
                Some(hold) => self.outbox.hold_back(self.now, &t.uid, hold),
                None => {
                    self.outbox.sent(self.now, t, *id);
                    self.packets.push((*id, t.uid, t.part));
                }
            }
        }
        left
    }

    fn of_file(
        &self,
        uid: MessageUid,
        state: TransferState,
        packet_ids: Vec<PacketId>,
        total: u32,
        bitmap: Vec<u8>,
    ) -> Receipt {
        Receipt {
            packet_ids,
            chunks: vec![ChunkReceipt { tag: tag(&uid), state, total, bitmap }],
            unwanted: Vec::new(),
        }
    }

    fn answer(&mut self, id: PacketId, uid: MessageUid, part: Part, by_another: bool, answer: Answer) {
        let Some(message) = self.messages.get_mut(&uid) else {
            // It has ended: late answers find nothing.
            let late = Receipt { packet_ids: vec![id], chunks: Vec::new(), unwanted: Vec::new() };
            for n in 0..3 {
                assert!(self.outbox.receipt(self.now, &address(n), &late, 1).is_empty());
            }
            return;
        };
        let from = if by_another { address(99) } else { message.to };
        if let Answer::CannotOpen = answer {
            self.unsure.insert(id);
            return self.outbox.cannot_open(&from, &id);
        }
        let Some(total) = message.chunks else {
            let ends =
                !by_another && message.attempts.iter().rev().take(ATTEMPTS_REMEMBERED).any(|a| *a == id);
            let receipt = Receipt { packet_ids: vec![id], chunks: Vec::new(), unwanted: Vec::new() };
            let ended = self.outbox.receipt(self.now, &from, &receipt, 1);
            let ends = if ends && !self.unsure.contains(&id) { vec![uid] } else { vec![] };
            let ends = if self.unsure.contains(&id) { ended.iter().map(|e| e.uid).collect() } else { ends };
            return self.ends(ended, ends, |end| matches!(end, End::Delivered { .. }));
        };
        let receipt = match answer {
            Answer::Packet => Receipt { packet_ids: vec![id], chunks: Vec::new(), unwanted: Vec::new() },
            Answer::ManifestWanted => {
                self.of_file(uid, TransferState::ManifestWanted, Vec::new(), total, Vec::new())
            }
            Answer::Stale(seed) => {
                let bits = bitmap(total, |i| seed & (1 << (i % 8)) != 0);
                self.of_file(uid, TransferState::Partial, Vec::new(), total, bits)
            }
            Answer::Bitmap | Answer::CannotOpen => {
                if by_another {
                    self.of_file(uid, TransferState::Partial, vec![id], total, vec![])
                } else {
                    return self.arrives(id, uid, part);
                }
            }
        };
        let ended = self.outbox.receipt(self.now, &from, &receipt, 1);
        self.ends(ended, vec![], |_| false);
    }

    /// A part reaches its destination, which answers as it should.
    fn arrives(&mut self, id: PacketId, uid: MessageUid, part: Part) {
        let Some(message) = self.messages.get_mut(&uid) else { return };
        let to = message.to;
        let receipt = match (part, message.chunks) {
            (Part::Whole, _) | (_, None) => {
                Receipt { packet_ids: vec![id], chunks: Vec::new(), unwanted: Vec::new() }
            }
            (Part::Manifest, Some(total)) => {
                let there = message.there.get_or_insert_default().clone();
                let bits = bitmap(total, |i| there.contains(&i));
                let complete = there.len() == total as usize;
                let state = if complete { TransferState::Complete } else { TransferState::Partial };
                self.of_file(uid, state, vec![id], total, bits)
            }
            (Part::Chunk(index), Some(total)) => match &mut message.there {
                None => self.of_file(uid, TransferState::ManifestWanted, Vec::new(), total, Vec::new()),
                Some(there) if there.len() == total as usize => {
                    self.of_file(uid, TransferState::Complete, vec![id], total, Vec::new())
                }
                Some(there) => {
                    there.insert(index);
                    let there = there.clone();
                    if there.len() == total as usize {
                        // It is being checked; who asks once more is told that it is complete.
                        Receipt { packet_ids: vec![id], chunks: Vec::new(), unwanted: Vec::new() }
                    } else {
                        let bits = bitmap(total, |i| there.contains(&i));
                        self.of_file(uid, TransferState::Partial, vec![id], total, bits)
                    }
                }
            },
        };
        let is_complete = |chunk: &ChunkReceipt| chunk.state == TransferState::Complete;
        let ends = if receipt.chunks.iter().any(is_complete) { vec![uid] } else { vec![] };
        let ended = self.outbox.receipt(self.now, &to, &receipt, 1);
        let ends = if part == Part::Whole { ended.iter().map(|ended| ended.uid).collect() } else { ends };
        self.ends(ended, ends, |end| matches!(end, End::Delivered { .. }));
    }

    fn expire(&mut self) {
        let due: Vec<_> =
            self.messages.iter().filter(|(_, m)| m.expires_at <= self.now).map(|(uid, _)| *uid).collect();
        let ended = self.outbox.expire(self.now);
        self.ends(ended, due, |end| end == End::Expired);
    }

    /// These end now, as they should, and no others.
    fn ends(
        &mut self,
        ended: impl IntoIterator<Item = Finished>,
        uids: Vec<MessageUid>,
        is_right: impl Fn(End) -> bool,
    ) {
        let mut wanted: BTreeSet<MessageUid> = uids.into_iter().collect();
        for finished in ended {
            assert!(wanted.remove(&finished.uid), "{finished:?}");
            assert!(is_right(finished.end), "{finished:?}");
            let message = self.messages.remove(&finished.uid).unwrap();
            assert_eq!(finished.destination, message.to);
            assert_eq!(finished.has_blob, message.chunks.is_some());
            assert!(self.ended.insert(finished.uid));
        }
        assert!(wanted.is_empty(), "{wanted:?} did not end");
    }

    /// What must hold at any time.
    fn check(&self) {
        let outbox = &self.outbox;
        assert_eq!((outbox.len(), outbox.bytes), (self.messages.len(), self.bytes()));
        assert!(outbox.entries.keys().eq(self.messages.keys()));
        for (address, dest) in &outbox.destinations {
            let of_it = outbox.entries.values().filter(|entry| entry.record.destination == *address);
            let in_flight: usize = of_it.map(|entry| entry.in_flight_bytes).sum();
            assert_eq!(dest.in_flight_bytes, in_flight, "{address:?}");
            assert!(dest.window_bytes <= config().window_bytes_max);
            assert!(dest.ready.iter().all(|key| dest.uids.contains(&key.3)));
            assert!(dest.ready.is_empty() || outbox.active.contains(address));
        }
        for (uid, entry) in &outbox.entries {
            let dest = &outbox.destinations[&entry.record.destination];
            assert!(dest.uids.contains(uid));
            // Nobody is forgotten.
            assert!(dest.ready.contains(&ready_key(entry)) || entry.next_at.is_some(), "{entry:?} is stuck");
            assert!(entry.next_at.is_none_or(|at| outbox.timers.contains(&(at, *uid))));
            assert_eq!(entry.place.is_some(), entry.chunks.is_none());
            if entry.lost_by.is_some() {
                assert!(entry.next_at.is_some() && entry.hold != Hold::InCustody, "{entry:?}");
            }
        }
        assert_eq!(outbox.timers.len(), outbox.entries.values().filter(|e| e.next_at.is_some()).count());
        assert_eq!(outbox.expiries.len(), outbox.entries.len());
        assert!(outbox.packets.values().all(|left| outbox.entries.contains_key(&left.uid)));
        assert!(outbox.tags.values().all(|uid| outbox.entries.contains_key(uid)));
        assert_eq!(outbox.next_wake().is_some(), !outbox.is_empty());
    }

    /// To the next moment at which something is due; everything due now has gone.
    fn wait(&mut self) {
        let wake = self.outbox.next_wake().expect("there is something to wait for");
        assert!(wake > self.now, "it would turn without end");
        self.now = wake;
        self.expire();
    }

    /// Nobody answers; each message goes again all the same, but for those that give way to others
    /// of a higher priority to the same destination.
    fn all_go_again(&mut self) {
        let until = self.now + PATIENCE;
        let mut highest: BTreeMap<Address, Priority> = BTreeMap::new();
        for message in self.messages.values() {
            let highest = highest.entry(message.to).or_insert(message.priority);
            *highest = message.priority.max(*highest);
        }
        let goes_again = |message: &Message| highest[&message.to] == message.priority;
        let missing = self.messages.iter().filter(|(_, message)| goes_again(message));
        let mut missing: BTreeSet<MessageUid> = missing.map(|(uid, _)| *uid).collect();
        for n in 0..3 {
            self.outbox.route_up(&address(n));
        }
        while !missing.is_empty() {
            assert!(self.now < until, "{missing:?} did not go again");
            loop {
                let left = self.transmit(64, None);
                for (_, t) in &left {
                    missing.remove(&t.uid);
                }
                self.check();
                if left.is_empty() {
                    break;
                }
            }
            missing.retain(|uid| self.messages.contains_key(uid));
            if !self.outbox.is_empty() {
                self.wait();
            }
        }
    }

    /// Every destination answers from now on; all of it arrives.
    fn all_arrive(&mut self) {
        let until = self.now + PATIENCE;
        while !self.messages.is_empty() {
            assert!(self.now < until, "{:?} does not arrive", self.outbox.list(self.now));
            loop {
                let left = self.transmit(64, None);
                for (id, t) in &left {
                    self.arrives(*id, t.uid, t.part);
                    self.check();
                }
                if left.is_empty() {
                    break;
                }
            }
            if !self.outbox.is_empty() {
                self.wait();
            }
        }
        assert!(self.outbox.transmit(self.now, 64).is_empty());
        let outbox = &self.outbox;
        assert!(outbox.packets.is_empty() && outbox.tags.is_empty() && outbox.destinations.is_empty());
        assert!(outbox.timers.is_empty() && outbox.expiries.is_empty() && outbox.active.is_empty());
        assert_eq!((outbox.bytes, outbox.next_wake()), (0, None));
    }
}

/// Does all of it to a fresh outbox, beside its model.
///
/// # Panics
/// Where the outbox does something else than the model.
pub(crate) fn run(now: Instant, actions: impl IntoIterator<Item = Action>) {
    let mut model = Model::new(now);
    for action in actions {
        model.step(action);
        model.check();
    }
    model.all_go_again();
    model.all_arrive();
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn action() -> impl Strategy<Value = Action> {
        use Action::{Add, Cancel, CheckCustody, Custody, Forgets, Passes, Refuse, RouteUp, Transmit, Whole};
        let answer = prop_oneof![
            4 => Just(Answer::Packet),
            4 => Just(Answer::Bitmap),
            2 => any::<u8>().prop_map(Answer::Stale),
            1 => Just(Answer::ManifestWanted),
            1 => Just(Answer::CannotOpen),
        ];
        let reason = prop_oneof![
            Just(RefuseReason::Congested),
            Just(RefuseReason::NoRoute),
            Just(RefuseReason::StoreFull),
            Just(RefuseReason::RateLimited),
        ];
        let held_back = prop_oneof![
            6 => Just(None),
            1 => Just(Some(Hold::NoKey)),
            1 => Just(Some(Hold::NoPath)),
        ];
        prop_oneof![
            4 => (0..3u8, 0..5u8, any::<u16>(), 0..4u8)
                .prop_map(|(to, chunks, bytes, priority)| Add { to, chunks, bytes, priority }),
            8 => (1..20u8, held_back).prop_map(|(most, held_back)| Transmit { most, held_back }),
            8 => (any::<u8>(), prop::bool::weighted(0.1), answer)
                .prop_map(|(packet, by_another, answer)| Action::Answer { packet, by_another, answer }),
            1 => (any::<u8>(), prop::bool::weighted(0.3), prop::bool::weighted(0.8))
                .prop_map(|(packet, by_another, is_sound)| Whole { packet, by_another, is_sound }),
            3 => (any::<u8>(), reason, 0..8000u16)
                .prop_map(|(packet, reason, retry_s)| Refuse { packet, reason, retry_s }),
            2 => any::<u8>().prop_map(|packet| Custody { packet }),
            1 => (0..3u8).prop_map(|to| Forgets { to }),
            1 => (0..3u8).prop_map(|to| RouteUp { to }),
            1 => (0..3u8).prop_map(|to| CheckCustody { to }),
            1 => any::<u8>().prop_map(|message| Cancel { message }),
            4 => (0..40_000u32).prop_map(|ms| Passes { ms }),
            1 => (0..3_600_000u32).prop_map(|ms| Passes { ms }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_outbox_does_what_a_simple_model_of_it_does(actions in vec(action(), 1..150)) {
            run(Instant::now(), actions);
        }
    }
}
